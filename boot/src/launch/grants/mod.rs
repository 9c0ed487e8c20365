//! What each permission gives: a pure function of the permissions, the caller and the host. Starts make mounts and
//! variables of it, `fim-perms explain` prints it.

mod bus;
pub mod desktop;
pub mod devices;
pub mod host;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use runtime::image::{Permission, PermissionSet};
use runtime::sandbox::plan::{Access, Account, Step};
use runtime::session::claims::Claim;

use super::facts::Caller;
use host::Host;

/// Where files of grants lie in the guest: on the instance's own tmpfs, so that nothing is written into its data.
pub(super) const OWN: &str = "/run/fim";

/// One thing that a permission gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gift {
    /// A path of the host.
    Mount {
        /// The host's path.
        source: PathBuf,
        /// Where, in the guest.
        target: PathBuf,
        /// How it may be used.
        access: Access,
    },
    /// A variable of the guest.
    Variable {
        /// Name.
        name: &'static str,
        /// Value.
        value: OsString,
    },
    /// A file that is made for the guest.
    File {
        /// Where, in the guest.
        target: PathBuf,
        /// Its bytes.
        content: Vec<u8>,
    },
    /// A D-Bus bus behind a filter.
    Bus {
        /// Its address, as D-Bus writes it.
        address: String,
        /// The guest's socket.
        target: PathBuf,
        /// Options of xdg-dbus-proxy(1).
        rules: Vec<String>,
    },
    /// Something to know: what else is shared, or why something is not.
    Note(String),
}

/// What a permission gives, and which it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The permission.
    pub permission: Permission,
    /// What it gives.
    pub gift: Gift,
}

/// Collects what one permission gives.
struct Gifts<'a> {
    permission: Permission,
    all: &'a mut Vec<Grant>,
}

impl Gifts<'_> {
    fn add(&mut self, gift: Gift) {
        self.all.push(Grant { permission: self.permission, gift });
    }

    fn mount(&mut self, source: impl Into<PathBuf>, target: impl Into<PathBuf>, access: Access) {
        self.add(Gift::Mount { source: source.into(), target: target.into(), access });
    }

    /// At the same place as on the host.
    fn share(&mut self, path: impl AsRef<Path>, access: Access) {
        self.mount(path.as_ref(), path.as_ref(), access);
    }

    fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.add(Gift::Variable { name, value: value.into() });
    }

    fn note(&mut self, text: impl Into<String>) {
        self.add(Gift::Note(text.into()));
    }
}

/// Whom the grants are for, and where.
pub(super) struct Scene<'a> {
    pub caller: &'a Caller,
    pub account: &'a Account,
    pub host: &'a Host,
    /// Stored variables.
    pub stored: &'a [(Vec<u8>, Vec<u8>)],
    /// Whether the command runs as root of the instance, who does not get the caller's home.
    pub root: bool,
}

impl Scene<'_> {
    /// A variable of the caller's that is a text and not empty.
    fn variable(&self, name: &str) -> Option<&str> {
        self.caller.variable(name)?.to_str().filter(|value| !value.is_empty())
    }

    /// A setting of ours: stored in the image, or else the caller's.
    fn setting(&self, name: &str) -> Option<&str> {
        let stored = self.stored.iter().find(|(key, _)| key == name.as_bytes());
        stored.map_or_else(|| self.variable(name), |(_, value)| std::str::from_utf8(value).ok())
    }

    /// The caller's runtime directory.
    fn runtime(&self) -> PathBuf {
        let given = self.variable("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
        given.unwrap_or_else(|| PathBuf::from(format!("/run/user/{}", self.caller.uid)))
    }

    /// The guest's.
    fn guest_runtime(&self) -> PathBuf {
        PathBuf::from(format!("/run/user/{}", self.account.uid))
    }
}

/// Everything that the permissions give, in the order in which it is put in place.
pub(super) fn all(permissions: PermissionSet, scene: &Scene) -> Vec<Grant> {
    let mut all = Vec::new();
    // Whole directories come before what lies in them.
    let order = permissions.iter().filter(|permission| *permission == Permission::Dev);
    for permission in order.chain(permissions.iter().filter(|permission| *permission != Permission::Dev)) {
        let mut gifts = Gifts { permission, all: &mut all };
        match permission {
            Permission::Home => desktop::home(&mut gifts, scene),
            Permission::Media => {
                ["/media", "/run/media", "/mnt"].iter().for_each(|path| gifts.share(path, Access::ReadWrite));
            }
            Permission::Audio => desktop::audio(&mut gifts, scene),
            Permission::Wayland => desktop::wayland(&mut gifts, scene),
            Permission::Xorg => desktop::xorg(&mut gifts, scene),
            Permission::DbusUser => bus::user(&mut gifts, scene),
            Permission::DbusSystem => bus::system(&mut gifts, scene),
            Permission::Udev => devices::udev(&mut gifts),
            Permission::Usb => devices::usb(&mut gifts),
            Permission::Input => devices::input(&mut gifts),
            Permission::Gpu => devices::gpu(&mut gifts, scene.host),
            Permission::Network => network(&mut gifts),
            Permission::Dev => devices::dev(&mut gifts),
            Permission::Shm => gifts.share("/dev/shm", Access::ReadWrite),
            Permission::Optical => devices::optical(&mut gifts, scene.host),
            Permission::Certs => certs(&mut gifts, scene.host),
            Permission::Fonts => desktop::fonts(&mut gifts, scene.host),
            Permission::Locale => locale(&mut gifts, scene.host),
        }
    }
    all
}

fn network(gifts: &mut Gifts) {
    gifts.note("the network namespace of the host, with its loopback and its abstract UNIX sockets");
    for name in ["host.conf", "hosts", "nsswitch.conf", "resolv.conf"] {
        gifts.share(Path::new("/etc").join(name), Access::ReadOnly);
    }
}

fn certs(gifts: &mut Gifts, host: &Host) {
    let Some(bundle) = &host.certificates else {
        return gifts.note("the host has no file of CA certificates in a known place; install ca-certificates there");
    };
    let target = Path::new(OWN).join("certs.pem");
    gifts.mount(bundle, &target, Access::ReadOnly);
    // OpenSSL, curl, Python's requests and Node, which all know one of these.
    for name in ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"] {
        gifts.set(name, target.clone());
    }
}

fn locale(gifts: &mut Gifts, host: &Host) {
    if host.locales.is_empty() {
        gifts.note(format!("the host has no locale data in {}; install locales there", host::LOCALES));
    }
    host.locales.iter().for_each(|path| gifts.share(path, Access::ReadOnly));
}

/// The steps that put the gifts in place, each target once.
pub(super) fn steps(grants: &[Grant]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for grant in grants {
        let step = match grant.gift.clone() {
            Gift::Mount { source, target, access } => Step::Bind { source, target, access, optional: true },
            Gift::File { target, content } => Step::File { target, content, mode: 0o644 },
            Gift::Variable { .. } | Gift::Bus { .. } | Gift::Note(_) => continue,
        };
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    steps
}

/// The names that were asked for by name on buses behind a filter.
pub(super) fn owned_names(grants: &[Grant]) -> Vec<Claim> {
    let names = |grant: &Grant| match &grant.gift {
        Gift::Bus { address, rules, .. } => bus::asked_for(rules)
            .map(|name| Claim::Name { bus: address.replace(' ', "%20"), name: name.to_owned() })
            .collect(),
        _ => Vec::new(),
    };
    grants.iter().flat_map(names).collect()
}

/// The variables among the gifts.
pub(super) fn variables(grants: &[Grant]) -> impl Iterator<Item = (&'static str, OsString)> + '_ {
    grants.iter().filter_map(|grant| match &grant.gift {
        Gift::Variable { name, value } => Some((*name, value.clone())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::facts::Facts;
    use super::super::facts::tests::facts;
    use super::*;

    fn given(names: &[Permission], facts: &Facts, host: &Host) -> Vec<Grant> {
        let account =
            Account { name: "ann".into(), uid: 1000, gid: 100, home: "/home/ann".into(), shell: "/bin/sh".into() };
        let scene = Scene { caller: &facts.caller, account: &account, host, stored: &[], root: false };
        all(names.iter().copied().collect(), &scene)
    }

    fn mounts(grants: &[Grant]) -> Vec<(String, String, Access)> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mount = |grant: &Grant| match &grant.gift {
            Gift::Mount { source, target, access } => Some((text(source), text(target), *access)),
            _ => None,
        };
        grants.iter().filter_map(mount).collect()
    }

    fn mount(source: &str, target: &str, access: Access) -> (String, String, Access) {
        (source.to_owned(), target.to_owned(), access)
    }

    fn variable(grants: &[Grant], name: &str) -> Option<String> {
        variables(grants).find(|(key, _)| *key == name).map(|(_, value)| value.into_string().unwrap())
    }

    fn note(grants: &[Grant]) -> Option<&str> {
        grants.iter().find_map(|grant| if let Gift::Note(text) = &grant.gift { Some(text.as_str()) } else { None })
    }

    #[test]
    fn nothing_gives_nothing() {
        assert!(given(&[], &facts(&[("HOME", "/home/ann"), ("DISPLAY", ":0")]), &Host::default()).is_empty());
    }

    #[test]
    fn home_is_the_callers_at_its_own_place() {
        let given = |home: &str| given(&[Permission::Home], &facts(&[("HOME", home)]), &Host::default());
        assert_eq!(mounts(&given("/home/a n")), [mount("/home/a n", "/home/a n", Access::ReadWrite)]);
        for home in ["/", "relative", ""] {
            assert!(mounts(&given(home)).is_empty() && note(&given(home)).is_some(), "{home}");
        }
    }

    #[test]
    fn wayland_may_be_named_by_its_socket_or_its_path() {
        let socket = |display: &str| {
            let facts = facts(&[("WAYLAND_DISPLAY", display), ("XDG_RUNTIME_DIR", "/run/x")]);
            let given = given(&[Permission::Wayland], &facts, &Host::default());
            (mounts(&given).first().cloned(), variable(&given, "WAYLAND_DISPLAY"))
        };
        let at = |source, target| Some(mount(source, target, Access::ReadWrite));
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(socket("wayland-1"), (at("/run/x/wayland-1", "/run/user/1000/wayland-1"), name("wayland-1")));
        assert_eq!(socket("/tmp/w"), (at("/tmp/w", "/run/user/1000/w"), name("w")));
        assert_eq!(socket(""), (None, None));
        assert_eq!(socket("/"), (None, None));
    }

    #[test]
    fn displays_have_a_socket_or_a_reason() {
        let of = |display: &str| given(&[Permission::Xorg], &facts(&[("DISPLAY", display)]), &Host::default());
        for display in [":7", ":7.1", "unix:7", "unix/:7"] {
            let given = of(display);
            assert_eq!(
                mounts(&given),
                [mount("/tmp/.X11-unix/X7", "/tmp/.X11-unix/X7", Access::ReadWrite)],
                "{display}"
            );
            assert_eq!(variable(&given, "DISPLAY").as_deref(), Some(display));
        }
        for (display, reason) in
            [("", "DISPLAY is not set"), ("host:0", "network"), ("7", "no display"), (":x", "no display")]
        {
            let given = of(display);
            assert!(mounts(&given).is_empty() && note(&given).unwrap().contains(reason), "{display}: {given:?}");
        }
        let host = Host { authority: Some("/home/ann/.Xauthority".into()), ..Host::default() };
        let with = given(&[Permission::Xorg], &facts(&[("DISPLAY", ":0")]), &host);
        assert_eq!(mounts(&with)[1], mount("/home/ann/.Xauthority", "/run/fim/xauthority", Access::ReadOnly));
        assert_eq!(variable(&with, "XAUTHORITY").as_deref(), Some("/run/fim/xauthority"));
    }

    #[test]
    fn buses_are_found_by_their_addresses() {
        let of = |address: &str| {
            let facts = facts(&[("DBUS_SESSION_BUS_ADDRESS", address), ("XDG_RUNTIME_DIR", "/run/x")]);
            given(&[Permission::DbusUser], &facts, &Host::default())
        };
        for (address, path) in
            [("unix:path=/tmp/b%20s,guid=0", "/tmp/b s"), ("tcp:host=x;unix:guid=1,path=/b", "/b"), ("", "/run/x/bus")]
        {
            assert_eq!(mounts(&of(address)), [mount(path, "/run/user/1000/bus", Access::ReadWrite)], "{address}");
            let set = variable(&of(address), "DBUS_SESSION_BUS_ADDRESS");
            assert_eq!(set.as_deref(), Some("unix:path=/run/user/1000/bus"));
        }
        for address in ["unix:abstract=/tmp/x", "tcp:host=x", "unix:path=", "unix:path=x", "unix:path=/%zz"] {
            assert!(mounts(&of(address)).is_empty() && note(&of(address)).is_some(), "{address}");
        }
    }

    #[test]
    fn a_filter_stands_between_where_the_host_has_one() {
        let host = Host { proxy: Some("/usr/bin/xdg-dbus-proxy".into()), ..Host::default() };
        let of = |env: &[(&str, &str)]| {
            let grants = given(&[Permission::DbusUser, Permission::DbusSystem], &facts(env), &host);
            let bus = |grant: &Grant| match grant.gift.clone() {
                Gift::Bus { address, target, rules } => Some((address, target, rules)),
                _ => None,
            };
            assert!(mounts(&grants).is_empty());
            grants.iter().filter_map(bus).collect::<Vec<_>>()
        };
        let buses = of(&[("XDG_RUNTIME_DIR", "/r x")]);
        assert_eq!(
            (buses[0].0.as_str(), buses[0].1.as_path()),
            ("unix:path=/r%20x/bus", Path::new("/run/user/1000/bus"))
        );
        assert!(buses[0].2.contains(&"--talk=org.freedesktop.portal.*".to_owned()), "{buses:?}");
        assert_eq!(buses[1].0, "unix:path=/run/dbus/system_bus_socket");
        assert!(buses[1].2.contains(&"--talk=org.freedesktop.UPower".to_owned()), "{buses:?}");
        let address = "unix:abstract=/tmp/x,guid=1";
        let more = [
            ("DBUS_SESSION_BUS_ADDRESS", address),
            ("FIM_DBUS_TALK", "org.a.B,--log,org.c.*,x"),
            ("FIM_DBUS_OWN", "org.d.E"),
        ];
        let buses = of(&more);
        assert_eq!(buses[0].0, address);
        let rules = &buses[0].2;
        for rule in ["--talk=org.a.B", "--talk=org.c.*", "--own=org.d.E"] {
            assert!(rules.contains(&rule.to_owned()), "{rule} in {rules:?}");
        }
        assert!(!rules.iter().any(|rule| rule.contains("--log") || rule == "--talk=x"), "{rules:?}");
    }

    #[test]
    fn audio_is_pulse_pipewire_and_alsa() {
        let of = |server: &str| {
            given(
                &[Permission::Audio],
                &facts(&[("PULSE_SERVER", server), ("XDG_RUNTIME_DIR", "/r")]),
                &Host::default(),
            )
        };
        let pulse = "/run/user/1000/pulse/native";
        for (server, source) in [("", "/r/pulse/native"), ("unix:/p", "/p"), ("/q", "/q")] {
            assert_eq!(mounts(&of(server))[0], mount(source, pulse, Access::ReadWrite), "{server}");
            assert_eq!(variable(&of(server), "PULSE_SERVER"), Some(format!("unix:{pulse}")));
        }
        assert_eq!(variable(&of("tcp:host"), "PULSE_SERVER"), None);
        assert!(mounts(&of("")).contains(&mount("/dev/snd", "/dev/snd", Access::Device)));
        assert!(mounts(&of("")).contains(&mount("/r/pipewire-0", "/run/user/1000/pipewire-0", Access::ReadWrite)));
    }

    #[test]
    fn devices_are_those_that_the_host_has() {
        let host = Host {
            devices: ["sr0", "sg1", "nvidia0", "nvidiactl", "sda"].map(str::to_owned).to_vec(),
            libraries: vec![("libcuda.so.1".to_owned(), "/usr/lib/libcuda.so.1".into())],
            ..Host::default()
        };
        let facts = facts(&[]);
        let optical = given(&[Permission::Optical], &facts, &host);
        assert_eq!(mounts(&optical).into_iter().map(|mount| mount.0).collect::<Vec<_>>(), ["/dev/sr0", "/dev/sg1"]);
        let gpu = given(&[Permission::Gpu], &facts, &host);
        let sources: Vec<_> = mounts(&gpu).into_iter().map(|mount| mount.0).collect();
        assert!(
            ["/dev/dri", "/dev/nvidia0", "/dev/nvidiactl"]
                .iter()
                .all(|path| sources.iter().any(|source| source == path)),
            "{sources:?}"
        );
        assert!(mounts(&gpu).contains(&mount("/usr/lib/libcuda.so.1", "/run/fim/gpu/libcuda.so.1", Access::ReadOnly)));
        assert_eq!(variable(&gpu, "LD_LIBRARY_PATH").as_deref(), Some("/run/fim/gpu"));
        assert_eq!(variable(&given(&[Permission::Gpu], &facts, &Host::default()), "LD_LIBRARY_PATH"), None);
    }

    #[test]
    fn each_thing_is_put_in_place_once() {
        let facts = facts(&[]);
        let grants =
            given(&[Permission::Usb, Permission::Input, Permission::Udev, Permission::Gpu], &facts, &Host::default());
        let steps = steps(&grants);
        let shared = steps
            .iter()
            .filter(|step| matches!(step, Step::Bind { target, .. } if target == Path::new("/sys/devices")));
        assert_eq!(shared.count(), 1);
    }
}
