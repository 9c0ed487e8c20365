//! Settings of a key: those that were set for it. Each is whole, and goes before the image's; every other one is the
//! image's, and follows it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::image::slot::{self, SlotHeader};
use crate::image::{CONFIG_VERSION, Config, NamedBit, NamedSet, body};
use crate::session::lock;

/// File in the data directory of a key.
const NAME: &str = "settings";
/// Lock of those that write it.
const LOCK: &str = "settings.lock";
/// How the file begins; the names of the settings follow on this line, and behind it a config slot as in an image
/// (docs/FORMAT.md). Changing what follows needs another number.
const HEADER: &str = "fim-settings 1 ";
/// Longest first line in bytes.
const LINE: usize = 512;

named_bits! {
    /// A part of the configuration that a key can have of its own, named as the command that changes it.
    Setting:
    /// Permissions.
    Perms "perms",
    /// Variables.
    Env "env",
    /// Binds.
    Bind "bind",
    /// The boot command.
    Boot "boot",
    /// Unshare options.
    Unshare "unshare",
    /// The overlay.
    Overlay "overlay",
    /// Whether starts are announced.
    Notify "notify",
    /// Whether names are looked up without regard to case.
    Casefold "casefold",
    /// Where recipes come from.
    Remote "remote",
    /// Host commands that the guest may run.
    Portal "portal",
    /// Layouts.
    Layout "layout",
    /// Services.
    Service "service",
    /// Published ports.
    Port "port",
    /// Connections of plugs.
    Content "content",
}

/// A set of [`Setting`]s.
pub type SettingSet = NamedSet<Setting>;

/// What was set for a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    settings: SettingSet,
    values: Config,
}

/// The settings of a key cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("cannot {action} the settings of this instance key, {}", path.display())]
    Io {
        /// What was tried, as an infinitive.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its content.
    #[error("the settings of this instance key, {}, cannot be used: {reason}; remove the file, and the key has the image's", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// They are too large.
    #[error("the settings of this instance key do not fit: {0}")]
    Size(String),
    /// Their lock.
    #[error(transparent)]
    Lock(#[from] crate::session::Error),
}

impl Own {
    /// Which settings are the key's own.
    #[must_use]
    pub fn settings(&self) -> SettingSet {
        self.settings
    }

    /// The configuration of the key: the image's, with the key's own settings in it.
    #[must_use]
    pub fn over(&self, image: &Config) -> Config {
        let mut config = image.clone();
        self.settings.iter().for_each(|setting| copy(setting, &self.values, &mut config));
        config
    }

    /// Makes `setting` the key's own, with its value in `config`.
    pub fn set(&mut self, setting: Setting, config: &Config) {
        self.settings.insert(setting);
        copy(setting, config, &mut self.values);
    }

    /// Has `setting` follow the image again; false when it did already.
    pub fn inherit(&mut self, setting: Setting) -> bool {
        let had = self.settings.contains(setting);
        self.settings.remove(setting);
        copy(setting, &Config::default(), &mut self.values);
        had
    }

    /// The file's bytes.
    fn encode(&self) -> Result<Vec<u8>, Error> {
        let names: Vec<&str> = self.settings.iter().map(NamedBit::name).collect();
        let body = body::encode(&self.values).map_err(Error::Size)?;
        let slot = slot::encode(1, CONFIG_VERSION, &body, slot::MAX_SLOT_CAPACITY)
            .map_err(|error| Error::Size(error.to_string()))?;
        Ok([format!("{HEADER}{}\n", names.join(",")).into_bytes(), slot].concat())
    }

    /// Reads what [`Own::encode`] wrote.
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let line = bytes.iter().take(LINE).position(|&byte| byte == b'\n').ok_or("it is cut, or no such file")?;
        let (line, rest) = (&bytes[..line], &bytes[line + 1..]);
        let names = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(HEADER));
        let names = names.ok_or("it is of another version, or no such file")?;
        let setting =
            |name: &str| Setting::from_name(name).ok_or_else(|| format!("it has an unknown setting, {name:?}"));
        let settings = names.split(',').filter(|name| !name.is_empty()).map(setting).collect::<Result<_, _>>()?;
        let header = SlotHeader::parse(rest, slot::MAX_SLOT_CAPACITY).map_err(|fault| fault.to_string())?;
        let (head, body) = rest.split_at(slot::HEADER_LEN);
        header.check(head, body).map_err(|fault| fault.to_string())?;
        if header.config_version > CONFIG_VERSION {
            return Err(format!("it was written by a newer fim (config version {})", header.config_version));
        }
        Ok(Self { settings, values: body::decode(header.config_version, body)? })
    }

    /// The settings of the key with this data directory; none where there is no file.
    ///
    /// # Errors
    /// A file that cannot be read, or is damaged.
    pub fn read(data: &Path) -> Result<Self, Error> {
        let path = data.join(NAME);
        let failed = |source| Error::Io { action: "read", path: path.clone(), source };
        let file = match File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.map_err(failed)?,
        };
        let mut bytes = Vec::new();
        file.take(slot::MAX_SLOT_CAPACITY + LINE as u64).read_to_end(&mut bytes).map_err(failed)?;
        Self::decode(&bytes).map_err(|reason| Error::Content { path, reason })
    }

    /// Changes the settings of the key with this data directory. Writers are serialised by a lock; nothing is written
    /// when `change` fails or changes nothing, and a cut leaves the old file or the new one.
    ///
    /// # Errors
    /// What `change` returns; files that cannot be read or written.
    pub fn update<T, E: From<Error>>(data: &Path, change: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        let _held = lock::wait(data, LOCK).map_err(Error::from)?;
        let before = Self::read(data)?;
        let mut own = before.clone();
        let value = change(&mut own)?;
        if own != before {
            own.write(data)?;
        }
        Ok(value)
    }

    fn write(&self, data: &Path) -> Result<(), Error> {
        let (path, draft) = (data.join(NAME), data.join("settings.new"));
        let bytes = self.encode()?;
        let write = || -> io::Result<()> {
            let _ = fs::remove_file(&draft);
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(data)?.sync_all()
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&draft);
            Error::Io { action: "write", path, source }
        })
    }
}

fn copy(setting: Setting, from: &Config, to: &mut Config) {
    match setting {
        Setting::Perms => to.permissions = from.permissions,
        Setting::Env => to.env.clone_from(&from.env),
        Setting::Bind => to.binds.clone_from(&from.binds),
        Setting::Boot => to.boot.clone_from(&from.boot),
        Setting::Unshare => to.unshare = from.unshare,
        Setting::Overlay => to.overlay = from.overlay,
        Setting::Notify => to.notify = from.notify,
        Setting::Casefold => to.casefold = from.casefold,
        Setting::Remote => to.remote.clone_from(&from.remote),
        Setting::Portal => to.portal.clone_from(&from.portal),
        Setting::Layout => to.declared.layouts.clone_from(&from.declared.layouts),
        Setting::Service => to.declared.services.clone_from(&from.declared.services),
        Setting::Port => to.declared.ports.clone_from(&from.declared.ports),
        Setting::Content => to.declared.connections.clone_from(&from.declared.connections),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::declared::{Connection, Declared, Identity, Layout, LayoutKind, Port, Service};
    use crate::image::{Digest, Permission};

    fn image() -> Config {
        Config {
            name: "app".into(),
            env: vec![(b"A".to_vec(), b"1".to_vec())],
            permissions: [Permission::Network].into_iter().collect(),
            ..Config::default()
        }
    }

    #[test]
    fn what_is_set_goes_before_the_images_and_the_rest_follows_it() {
        let mut own = Own::default();
        assert_eq!(own.over(&image()), image());
        own.set(Setting::Perms, &Config::default());
        let mut expected = image();
        expected.permissions = NamedSet::default();
        assert_eq!(own.over(&image()), expected);
        let mut changed = image();
        changed.env.clear();
        assert!(own.over(&changed).env.is_empty());
        assert!(own.inherit(Setting::Perms) && !own.inherit(Setting::Perms));
        assert_eq!(own, Own::default());
    }

    #[test]
    fn every_setting_is_copied_alone() {
        let values = Config {
            boot: Some(crate::image::Boot { program: b"x".to_vec(), args: Vec::new() }),
            env: vec![(b"A".to_vec(), b"1".to_vec())],
            permissions: crate::image::PermissionSet::all(),
            binds: vec![crate::image::Bind {
                kind: crate::image::BindKind::Ro,
                src: b"/a".to_vec(),
                dst: b"/b".to_vec(),
                required: true,
            }],
            unshare: crate::image::UnshareSet::all(),
            overlay: crate::image::OverlayKind::Unionfs,
            casefold: true,
            notify: true,
            remote: Some("r".into()),
            portal: vec!["p".into()],
            declared: Declared {
                layouts: vec![Layout {
                    target: b"/t".to_vec(),
                    kind: LayoutKind::Tmpfs,
                    source: Vec::new(),
                    replace: false,
                }],
                services: vec![Service {
                    name: "s".into(),
                    words: vec![b"/s".to_vec()],
                    enabled: true,
                    listens: vec![8],
                }],
                ports: vec![Port { host: 80, guest: 81, udp: true, service: None }],
                connections: vec![Connection {
                    plug: "p".into(),
                    file: b"/f".to_vec(),
                    slot: "s".into(),
                    identity: Identity { image: [1; 16], layers: Digest([1; 32]), slot: Digest([1; 32]) },
                }],
                ..Declared::default()
            },
            ..Config::default()
        };
        let mut all = Own::default();
        let mut seen = Vec::new();
        for setting in Setting::ALL {
            let mut one = Own::default();
            one.set(*setting, &values);
            let over = one.over(&Config::default());
            assert!(over != Config::default() && !seen.contains(&over), "{setting:?}");
            seen.push(over);
            all.set(*setting, &values);
        }
        assert_eq!(all.over(&Config::default()), values);
        assert_eq!(Own::decode(&all.encode().unwrap()), Ok(all));
    }

    #[test]
    fn damaged_files_are_errors() {
        let mut own = Own::default();
        own.set(Setting::Env, &image());
        let bytes = own.encode().unwrap();
        assert!(bytes.starts_with(b"fim-settings 1 env\nFIMSLOT\n"));
        for len in 0..bytes.len() {
            assert!(Own::decode(&bytes[..len]).is_err(), "{len}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Own::decode(&changed).is_err(), "{at}");
        }
    }

    #[test]
    fn a_change_is_whole_or_not_there() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(Own::read(data.path()).unwrap(), Own::default());
        Own::update(data.path(), |own| {
            own.set(Setting::Env, &image());
            Ok::<_, Error>(())
        })
        .unwrap();
        let failed = Own::update(data.path(), |own| {
            own.inherit(Setting::Env);
            Err::<(), _>(Error::Size("no".into()))
        });
        assert!(failed.is_err());
        assert_eq!(Own::read(data.path()).unwrap().over(&Config::default()).env, image().env);
        fs::write(data.path().join(NAME), "garbage").unwrap();
        let error = Own::read(data.path()).unwrap_err().to_string();
        assert!(error.contains("settings") && error.contains("remove the file"), "{error}");
    }
}
