//! What an instance has of the host for itself: ports, and names on a bus. It is written down beside the instance's record,
//! so that another start which cannot have the same can say whose it is.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::registry::{Instance, Registry};

/// Name of the file in an instance's directory.
pub(super) const FILE: &str = "claims";
/// First line; changing what follows needs another number.
const HEADER: &str = "fim-claims 1";
/// Longest file in bytes.
const LIMIT: u64 = 1 << 20;

/// One thing that only one program of a host can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// A port on which connections are accepted.
    Tcp(u16),
    /// A port to which datagrams are sent.
    Udp(u16),
    /// A well-known name on a D-Bus bus, or all names below one (`NAME.*`).
    Name {
        /// Address of the bus, which holds no blank.
        bus: String,
        /// The name.
        name: String,
    },
}

impl Claim {
    /// The claim on a port.
    #[must_use]
    pub fn port(number: u16, udp: bool) -> Self {
        if udp { Self::Udp(number) } else { Self::Tcp(number) }
    }

    /// Whether one of the two takes what the other wants.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name { bus, name }, Self::Name { bus: other_bus, name: other }) => {
                bus == other_bus && (covers(name, other) || covers(other, name))
            }
            _ => self == other,
        }
    }

    fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ')? {
            ("tcp", port) => port.parse().ok().map(Self::Tcp),
            ("udp", port) => port.parse().ok().map(Self::Udp),
            ("name", rest) => {
                let (bus, name) = rest.split_once(' ')?;
                Some(Self::Name { bus: bus.to_owned(), name: name.to_owned() })
            }
            _ => None,
        }
    }
}

/// Whether a name is another, or that of all below which the other is. `NAME.*` is the name itself, too, as
/// xdg-dbus-proxy(1) has it.
fn covers(name: &str, other: &str) -> bool {
    let other = other.strip_suffix(".*").unwrap_or(other);
    match name.strip_suffix(".*") {
        Some(above) => other.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
        None => name == other,
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp {port}"),
            Self::Udp(port) => write!(f, "udp {port}"),
            Self::Name { bus, name } => write!(f, "name {bus} {name}"),
        }
    }
}

/// The claims of one instance, and which installation it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The instance key; empty for the default installation.
    pub key: String,
    /// The image file.
    pub image: PathBuf,
    /// What it has.
    pub all: Vec<Claim>,
}

impl Claims {
    fn encode(&self) -> Vec<u8> {
        let mut text = format!("{HEADER}\n{}\n{}\n", self.key, self.all.len());
        for claim in &self.all {
            text.push_str(&format!("{claim}\n"));
        }
        [text.as_bytes(), self.image.as_os_str().as_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut line = || -> Option<&str> {
            let end = rest.iter().position(|&byte| byte == b'\n')?;
            let (line, after) = rest.split_at(end);
            rest = &after[1..];
            std::str::from_utf8(line).ok()
        };
        if line()? != HEADER {
            return None;
        }
        let key = line()?.to_owned();
        let count: usize = line()?.parse().ok()?;
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(Claim::parse(line()?)?);
        }
        Some(Self { key, image: PathBuf::from(OsStr::from_bytes(rest)), all })
    }

    pub(super) fn write(&self, instance: &Path) -> Result<(), Error> {
        let path = instance.join(FILE);
        fs::write(&path, self.encode()).map_err(Error::io("write", path))
    }

    /// Those of the instance with this directory; `None` when it has none.
    fn read(instance: &Path) -> Option<Self> {
        use io::Read;
        let mut bytes = Vec::new();
        fs::File::open(instance.join(FILE)).ok()?.take(LIMIT).read_to_end(&mut bytes).ok()?;
        Self::decode(&bytes)
    }
}

/// A live instance that has something which somebody else wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its session directory.
    pub session: PathBuf,
    /// The instance.
    pub instance: Instance,
    /// What it has.
    pub claims: Claims,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instance, claims, .. } = self;
        if let Some(service) = &instance.service {
            write!(f, "the service '{service}' of ")?;
        }
        match claims.key.as_str() {
            "" => write!(f, "the default installation")?,
            key => write!(f, "the instance key '{key}'")?,
        }
        write!(f, " of {} (instance {}, process {})", claims.image.display(), instance.id, instance.pid)
    }
}

/// A live instance that has what is wanted, among those sessions below `base`, the directory that holds a user's sessions,
/// that `counts` accepts.
#[must_use]
pub fn owner(base: &Path, wanted: &Claim, counts: impl Fn(&Path) -> bool) -> Option<Owner> {
    let sessions = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path());
    sessions.filter(|session| counts(session)).find_map(|session| {
        let registry = Registry::new(&session);
        let owns = |id: &u64| {
            let claims = Claims::read(&registry.directory(*id))?;
            claims.all.iter().any(|claim| claim.meets(wanted)).then_some(claims)
        };
        let ids = registry.ids().unwrap_or_default();
        let mut owners = ids.iter().filter_map(|id| Some((owns(id)?, registry.instance(*id)?)));
        owners.next().map(|(claims, instance)| Owner { session: session.clone(), instance, claims })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Claim {
        Claim::Name { bus: "unix:path=/b".to_owned(), name: name.to_owned() }
    }

    fn claims() -> Claims {
        let all = vec![Claim::Tcp(8080), Claim::Udp(53), name("org.example.App")];
        Claims { key: "foo".to_owned(), image: OsStr::from_bytes(b"/x/a \xff\nb").into(), all }
    }

    #[test]
    fn golden_bytes() {
        let expected = b"fim-claims 1\nfoo\n3\ntcp 8080\nudp 53\nname unix:path=/b org.example.App\n/x/a \xff\nb";
        assert_eq!(claims().encode(), expected);
        assert_eq!(Claims::decode(expected), Some(claims()));
    }

    #[test]
    fn names_meet_as_the_filter_reads_them() {
        for (one, other) in [("a.b", "a.b"), ("a.b", "a.*"), ("a.b", "a.b.*"), ("a.b.*", "a.*"), ("a.*", "a.b.c")] {
            assert!(name(one).meets(&name(other)) && name(other).meets(&name(one)), "{one} {other}");
        }
        for (one, other) in [("a.b", "a.bc"), ("a.b.*", "a.bc"), ("a.b", "a.b.c"), ("a.b.*", "a.c.*")] {
            assert!(!name(one).meets(&name(other)) && !name(other).meets(&name(one)), "{one} {other}");
        }
        let elsewhere = Claim::Name { bus: "unix:path=/c".to_owned(), name: "a.b".to_owned() };
        assert!(!name("a.b").meets(&elsewhere));
        assert!(Claim::Tcp(1).meets(&Claim::Tcp(1)) && !Claim::Tcp(1).meets(&Claim::Udp(1)));
    }

    #[test]
    fn damaged_claims_are_none() {
        let bytes = claims().encode();
        let text = bytes.len() - claims().image.as_os_str().len();
        assert!((0..text).all(|len| Claims::decode(&bytes[..len]).is_none()));
        for bad in ["fim-claims 2\n\n0\n", "fim-claims 1\n\n1\ntcp 70000\n/x", "fim-claims 1\n\n99999999999\n/x"] {
            assert_eq!(Claims::decode(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
