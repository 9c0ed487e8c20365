//! Grants of the D-Bus buses: through a filter where the host has one.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use runtime::sandbox::plan::Access;

use super::{Gift, Gifts, Scene};

/// What programs may call on the session bus: portals, through which the user decides, and what shows something.
const USER: [&str; 9] = [
    "--talk=org.freedesktop.portal.*",
    "--talk=org.freedesktop.Notifications",
    "--talk=org.freedesktop.ScreenSaver",
    "--talk=org.a11y.Bus",
    "--talk=org.kde.StatusNotifierWatcher",
    "--talk=com.canonical.AppMenu.Registrar",
    "--talk=org.freedesktop.portal.IBus",
    "--talk=org.fcitx.Fcitx5",
    "--own=org.mpris.MediaPlayer2.*",
];

/// What programs may call on the system bus, whose services decide by the user as well.
const SYSTEM: [&str; 9] = [
    "--talk=org.freedesktop.UPower",
    "--talk=org.freedesktop.login1",
    "--talk=org.freedesktop.NetworkManager",
    "--talk=org.freedesktop.hostname1",
    "--talk=org.freedesktop.timedate1",
    "--talk=org.freedesktop.locale1",
    "--talk=org.freedesktop.GeoClue2",
    "--talk=org.freedesktop.RealtimeKit1",
    "--talk=org.bluez",
];

/// Path of the first socket with a name in a list of addresses (D-Bus specification, "Server Addresses").
fn bus_socket(addresses: &str) -> Option<PathBuf> {
    let path = |address: &str| {
        let pairs = address.strip_prefix("unix:")?;
        let value = pairs.split(',').find_map(|pair| pair.strip_prefix("path="))?;
        unescaped(value).map(PathBuf::from).filter(|path| path.is_absolute())
    };
    addresses.split(';').find_map(path)
}

/// `%` and two hexadecimal digits stand for a byte.
fn unescaped(value: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        rest = more;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

/// The reverse, as the specification has it: what is no such byte is escaped.
fn escaped(path: &Path) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_/.\\*".contains(byte);
    let escape = |byte: &u8| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") };
    path.as_os_str().as_bytes().iter().map(escape).collect()
}

/// A well-known name of the bus, or all below one (`NAME.*`).
fn is_name(name: &str) -> bool {
    let name = name.strip_suffix(".*").unwrap_or(name);
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    name.contains('.') && name.split('.').all(part)
}

/// Rules that a variable adds: names between commas.
fn added(scene: &Scene, variable: &str, rule: &str) -> Vec<String> {
    let names = scene.setting(variable).unwrap_or_default();
    names.split(',').filter(|name| is_name(name)).map(|name| format!("--{rule}={name}")).collect()
}

/// The names among these rules that somebody has asked to own. Those that every program may own tell instances apart by
/// themselves (`org.mpris.MediaPlayer2.PLAYER.instanceN`).
pub(super) fn asked_for(rules: &[String]) -> impl Iterator<Item = &str> {
    let asked = rules.iter().filter(|rule| !USER.contains(&rule.as_str()));
    asked.filter_map(|rule| rule.strip_prefix("--own="))
}

pub(super) fn user(gifts: &mut Gifts, scene: &Scene) {
    let usual = scene.runtime().join("bus");
    let mut rules: Vec<String> = USER.map(str::to_owned).to_vec();
    rules.extend(added(scene, "FIM_DBUS_TALK", "talk"));
    rules.extend(added(scene, "FIM_DBUS_OWN", "own"));
    share(gifts, scene, "DBUS_SESSION_BUS_ADDRESS", &usual, scene.guest_runtime().join("bus"), rules);
}

pub(super) fn system(gifts: &mut Gifts, scene: &Scene) {
    let usual = PathBuf::from("/run/dbus/system_bus_socket");
    let mut rules: Vec<String> = SYSTEM.map(str::to_owned).to_vec();
    rules.extend(added(scene, "FIM_DBUS_SYSTEM_TALK", "talk"));
    share(gifts, scene, "DBUS_SYSTEM_BUS_ADDRESS", &usual, usual.clone(), rules);
}

fn share(gifts: &mut Gifts, scene: &Scene, variable: &'static str, usual: &Path, target: PathBuf, rules: Vec<String>) {
    let given = scene.variable(variable);
    let address = format!("unix:path={}", escaped(&target));
    if scene.host.proxy.is_some() {
        let theirs = given.map_or_else(|| format!("unix:path={}", escaped(usual)), str::to_owned);
        gifts.add(Gift::Bus { address: theirs, target, rules });
        gifts.set(variable, address);
        return;
    }
    match given.map_or_else(|| Some(usual.to_owned()), bus_socket) {
        Some(socket) => {
            gifts.mount(socket, target, Access::ReadWrite);
            gifts.set(variable, address);
            gifts.note(
                "not filtered, for the host has no xdg-dbus-proxy: programs of the image can ask of this bus whatever \
                 any program of the user can",
            );
        }
        None => gifts.note(format!(
            "{variable} names no socket with a path; reaching another kind takes xdg-dbus-proxy on the host"
        )),
    }
}
