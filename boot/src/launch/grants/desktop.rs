//! Grants of a desktop: home, sound, displays, buses, fonts.

use std::path::{Path, PathBuf};

use runtime::sandbox::plan::Access;

use super::host::Host;
use super::{Gift, Gifts, OWN, Scene};

pub(super) fn home(gifts: &mut Gifts, scene: &Scene) {
    if scene.root {
        return gifts.note("not shared with fim-root, whose home is /root of the image");
    }
    let passwd = || scene.caller.account.as_ref().map(|(_, home, _)| PathBuf::from(home));
    let home = scene.caller.variable("HOME").filter(|home| !home.is_empty()).map(PathBuf::from).or_else(passwd);
    match home {
        Some(home) if home.is_absolute() && home.parent().is_some() => gifts.share(home, Access::ReadWrite),
        Some(home) => {
            gifts.note(format!("HOME is '{}', which cannot be shared: it is no directory below /", home.display()))
        }
        None => gifts.note("HOME is not set, and the host's passwd does not know the caller"),
    }
}

pub(super) fn audio(gifts: &mut Gifts, scene: &Scene) {
    let (theirs, ours) = (scene.runtime(), scene.guest_runtime());
    let server = scene.variable("PULSE_SERVER");
    let pulse = match server.map(|server| server.strip_prefix("unix:").unwrap_or(server)) {
        None => Some(theirs.join("pulse/native")),
        Some(path) if path.starts_with('/') => Some(PathBuf::from(path)),
        Some(_) => None,
    };
    match pulse {
        Some(socket) => {
            let target = ours.join("pulse/native");
            gifts.mount(socket, &target, Access::ReadWrite);
            gifts.set("PULSE_SERVER", format!("unix:{}", target.display()));
        }
        None => gifts.note("PULSE_SERVER names no socket of this host; reaching it takes the permission network"),
    }
    gifts.mount(theirs.join("pipewire-0"), ours.join("pipewire-0"), Access::ReadWrite);
    gifts.share("/dev/snd", Access::Device);
    gifts.share("/dev/dsp", Access::Device);
}

pub(super) fn wayland(gifts: &mut Gifts, scene: &Scene) {
    let Some(display) = scene.variable("WAYLAND_DISPLAY") else {
        return gifts.note("WAYLAND_DISPLAY is not set: there is no Wayland display");
    };
    let socket = scene.runtime().join(display);
    let Some(name) = Path::new(display).file_name() else {
        return gifts.note(format!("WAYLAND_DISPLAY is '{display}', which names no socket"));
    };
    gifts.mount(&socket, scene.guest_runtime().join(name), Access::ReadWrite);
    gifts.set("WAYLAND_DISPLAY", name);
}

/// Number of a display on this host, as in `:0`, `:0.1`, `unix:0` (X(7), DISPLAY NAMES).
fn display_number(display: &str) -> Result<u32, &'static str> {
    let (host, rest) = display.rsplit_once(':').ok_or("there is no display of that name")?;
    if !["", "unix", "unix/"].contains(&host) {
        return Err("it is on another host, which takes the permission network");
    }
    let number = rest.split_once('.').map_or(rest, |(number, _)| number);
    number.parse().map_err(|_| "there is no display of that name")
}

pub(super) fn xorg(gifts: &mut Gifts, scene: &Scene) {
    let Some(display) = scene.variable("DISPLAY") else {
        return gifts.note("DISPLAY is not set: there is no X display");
    };
    let number = match display_number(display) {
        Ok(number) => number,
        Err(reason) => return gifts.note(format!("DISPLAY is '{display}': {reason}")),
    };
    let socket = format!("/tmp/.X11-unix/X{number}");
    if scene.host.abstract_display_only {
        gifts.note(format!(
            "the display has no socket {socket} but an abstract one, which takes the permission network; \
             start it without -nolisten unix"
        ));
    }
    gifts.share(socket, Access::ReadWrite);
    gifts.set("DISPLAY", display);
    // Without one, the server decides by the caller's user ID or lets everybody in.
    if let Some(authority) = &scene.host.authority {
        let target = Path::new(OWN).join("xauthority");
        gifts.mount(authority, &target, Access::ReadOnly);
        gifts.set("XAUTHORITY", target);
    }
}

/// Host fonts lie beside the image's own, and a configuration of their own names both.
pub(super) fn fonts(gifts: &mut Gifts, host: &Host) {
    if host.fonts.is_empty() {
        return gifts.note("the host has no directory of fonts");
    }
    let mut directories = String::new();
    for path in &host.fonts {
        let target = Path::new(OWN).join("fonts").join(path.strip_prefix("/").unwrap_or(path));
        directories.push_str(&format!("  <dir>{}</dir>\n", escaped(&target)));
        gifts.mount(path, target, Access::ReadOnly);
    }
    let content = format!(
        "<?xml version=\"1.0\"?>\n<!DOCTYPE fontconfig SYSTEM \"fonts.dtd\">\n<fontconfig>\n  \
         <include ignore_missing=\"yes\">/etc/fonts/fonts.conf</include>\n{directories}  \
         <cachedir prefix=\"xdg\">fontconfig</cachedir>\n</fontconfig>\n"
    );
    let target = Path::new(OWN).join("fonts.conf");
    gifts.add(Gift::File { target: target.clone(), content: content.into_bytes() });
    gifts.set("FONTCONFIG_FILE", target);
}

fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('&', "&amp;").replace('<', "&lt;")
}
