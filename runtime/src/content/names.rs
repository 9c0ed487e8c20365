//! What the parts of shared content are called where several appear beside each other: each by its own name, and by
//! `NAME-2`, `NAME-3` and so on where another has that. A name that was given stays with its part.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// File in the data directory.
const FILE: &str = "content-names";
/// How it begins; records follow, each of five texts with a NUL behind each: plug, file of the producer, slot, path of the
/// slot, name. Changing what follows needs another number.
const HEADER: &[u8] = b"fim-content-names 1\n";
/// Longest file in bytes.
const LIMIT: u64 = 1 << 20;

/// A part that wants a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The plug it belongs to; names of different plugs have nothing to do with each other.
    pub plug: String,
    /// The producer.
    pub file: Vec<u8>,
    /// Its slot.
    pub slot: String,
    /// The path that the slot shares.
    pub path: Vec<u8>,
    /// The name that it would like.
    pub name: OsString,
}

impl Want {
    fn key(&self) -> [&[u8]; 4] {
        [self.plug.as_bytes(), &self.file, self.slot.as_bytes(), &self.path]
    }
}

/// Names that were given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(Vec<Want>);

impl Names {
    /// Gives each part a name, and forgets parts that are none of these. Returns the names in the order of `wanted`.
    pub fn assign(&mut self, wanted: &[Want]) -> Vec<OsString> {
        let given = |part: &Want| self.0.iter().find(|given| given.key() == part.key()).map(|given| given.name.clone());
        let mut names: Vec<Option<OsString>> = wanted.iter().map(given).collect();
        let taken = wanted.iter().zip(&names).filter_map(|(part, name)| Some((part.plug.clone(), name.clone()?)));
        let mut taken: HashSet<(String, OsString)> = taken.collect();
        for (part, name) in wanted.iter().zip(&mut names) {
            if name.is_none() {
                let free = (1..).map(|number| numbered(&part.name, number));
                *name = free.into_iter().find(|name| taken.insert((part.plug.clone(), name.clone())));
            }
        }
        let names: Vec<OsString> = names.into_iter().flatten().collect();
        self.0 = wanted.iter().zip(&names).map(|(part, name)| Want { name: name.clone(), ..part.clone() }).collect();
        names
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        for part in &self.0 {
            for text in part.key().into_iter().chain([part.name.as_bytes()]) {
                bytes.extend_from_slice(text);
                bytes.push(0);
            }
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(HEADER)?;
        if rest.is_empty() {
            return Some(Self::default());
        }
        let texts: Vec<&[u8]> = rest.strip_suffix(b"\0")?.split(|&byte| byte == 0).collect();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let part = |texts: &[&[u8]]| {
            let [plug, file, slot, path, name] = texts else { return None };
            let name = OsString::from_vec(name.to_vec());
            // It becomes a name in a directory.
            let plain = Path::new(&name).file_name() == Some(name.as_os_str());
            plain.then_some(Want {
                plug: text(plug)?,
                file: file.to_vec(),
                slot: text(slot)?,
                path: path.to_vec(),
                name,
            })
        };
        texts.chunks(5).map(part).collect::<Option<_>>().map(Self)
    }

    /// The names that are recorded in a data directory; none where there is no record, or a damaged one, which costs no
    /// more than the numbers.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn read(data: &Path) -> io::Result<Self> {
        let file =
            match File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(data.join(FILE)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
                other => other?,
            };
        let mut bytes = Vec::new();
        file.take(LIMIT).read_to_end(&mut bytes)?;
        Ok(Self::decode(&bytes).unwrap_or_default())
    }

    /// Records them: the old record or the new one is there at any moment. The caller holds the start lock.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write(&self, data: &Path) -> io::Result<()> {
        let draft = data.join("content-names.new");
        let _ = fs::remove_file(&draft);
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(&self.encode())?;
        fs::rename(draft, data.join(FILE))
    }
}

fn numbered(name: &OsStr, number: u32) -> OsString {
    let mut name = name.to_owned();
    if number > 1 {
        name.push(format!("-{number}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(plug: &str, file: &str, path: &str, name: &str) -> Want {
        Want { plug: plug.into(), file: file.into(), slot: "s".into(), path: path.into(), name: name.into() }
    }

    #[test]
    fn clashes_are_numbered_and_names_stay() {
        let mut names = Names::default();
        let [a, b, c] = ["/a", "/b", "/c"].map(|file| want("p", file, "bin", "bin"));
        assert_eq!(names.assign(&[a.clone(), b.clone()]), ["bin", "bin-2"]);
        // In any order, and beside new ones.
        assert_eq!(names.assign(&[c.clone(), b.clone(), a.clone()]), ["bin-3", "bin-2", "bin"]);
        assert_eq!(names.assign(&[b.clone(), c.clone()]), ["bin-2", "bin-3"]);
        // A number that is free is given again.
        assert_eq!(names.assign(&[a, b, c]), ["bin", "bin-2", "bin-3"]);
        let other = want("q", "/a", "bin", "bin");
        assert_eq!(names.assign(&[other]), ["bin"]);
        // A part whose own name looks like a number.
        let parts = [want("p", "/a", "x", "bin-2"), want("p", "/b", "bin", "bin"), want("p", "/c", "bin", "bin")];
        assert_eq!(names.assign(&parts), ["bin-2", "bin", "bin-3"]);
    }

    #[test]
    fn the_record_is_read_as_it_was_written() {
        let data = tempfile::tempdir().unwrap();
        let mut names = Names::read(data.path()).unwrap();
        assert_eq!(names, Names::default());
        names.assign(&[want("p", "/a b\n", "", "x"), want("p", "/c", "", "x")]);
        names.write(data.path()).unwrap();
        assert_eq!(Names::read(data.path()).unwrap(), names);
        let bytes = names.encode();
        assert!(bytes.starts_with(b"fim-content-names 1\np\0/a b\n\0s\0\0x\0"));
        for len in 0..bytes.len() - 1 {
            let cut = Names::decode(&bytes[..len]);
            assert!(cut.is_none_or(|cut| cut.0.len() < 2), "{len}");
        }
        for name in ["", ".", "..", "a/b", "/"] {
            let hostile = [HEADER, b"p\0/a\0s\0x\0", name.as_bytes(), b"\0"].concat();
            assert_eq!(Names::decode(&hostile), None, "{name}");
        }
    }
}
