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
    /// A well-known name on the user's D-Bus bus.
    Name(String),
}

impl Claim {
    /// The claim on a port.
    #[must_use]
    pub fn port(number: u16, udp: bool) -> Self {
        if udp { Self::Udp(number) } else { Self::Tcp(number) }
    }

    fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ')? {
            ("tcp", port) => port.parse().ok().map(Self::Tcp),
            ("udp", port) => port.parse().ok().map(Self::Udp),
            ("name", name) => Some(Self::Name(name.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp {port}"),
            Self::Udp(port) => write!(f, "udp {port}"),
            Self::Name(name) => write!(f, "name {name}"),
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

/// The live instance that has what `wanted` accepts, among all sessions below `base`, the directory that holds a user's
/// sessions.
#[must_use]
pub fn owner(base: &Path, wanted: impl Fn(&Claim) -> bool) -> Option<Owner> {
    let sessions = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path());
    sessions.into_iter().find_map(|session| {
        let registry = Registry::new(&session);
        let owns = |id: &u64| {
            let claims = Claims::read(&registry.directory(*id))?;
            claims.all.iter().any(&wanted).then_some(claims)
        };
        let ids = registry.ids().unwrap_or_default();
        let mut owners = ids.iter().filter_map(|id| Some((owns(id)?, registry.instance(*id)?)));
        owners.next().map(|(claims, instance)| Owner { session: session.clone(), instance, claims })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        let all = vec![Claim::Tcp(8080), Claim::Udp(53), Claim::Name("org.example.App".to_owned())];
        Claims { key: "foo".to_owned(), image: OsStr::from_bytes(b"/x/a \xff\nb").into(), all }
    }

    #[test]
    fn golden_bytes() {
        let expected = b"fim-claims 1\nfoo\n3\ntcp 8080\nudp 53\nname org.example.App\n/x/a \xff\nb";
        assert_eq!(claims().encode(), expected);
        assert_eq!(Claims::decode(expected), Some(claims()));
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
