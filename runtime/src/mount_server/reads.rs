//! The list of files that a session has read, which `fim build --profile` asks for. It is written by the server when the
//! session ends and read by the program that asked, both of one build, so that it is no format of its own.
//!
//! ```text
//! 0  u64  number of files
//! 8  u64  index of the layer, u64 inode reference; once for each file, in the order of first reads
//! ```
//! All numbers are little-endian.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::squashfs::InodeRef;

/// Variable that has a session write the list, into a new file of this name.
pub const VARIABLE: &str = "FIM_PROFILE";

/// Bytes of an entry.
const ENTRY: usize = 16;

/// Writes the list into a new file.
pub(super) fn write(path: &Path, files: &[(usize, InodeRef)]) -> io::Result<()> {
    // Nothing that is there is touched: whoever sets the variable need not have meant it.
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&encode(files))
}

/// Reads the list.
///
/// # Errors
/// `NotFound` when the session has not written it, `InvalidData` when it is not complete.
pub fn read(path: &Path) -> io::Result<Vec<(usize, InodeRef)>> {
    parse(&fs::read(path)?).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is not complete"))
}

fn encode(files: &[(usize, InodeRef)]) -> Vec<u8> {
    let mut bytes = (files.len() as u64).to_le_bytes().to_vec();
    for (layer, inode) in files {
        bytes.extend_from_slice(&(*layer as u64).to_le_bytes());
        bytes.extend_from_slice(&inode.0.to_le_bytes());
    }
    bytes
}

fn parse(bytes: &[u8]) -> Option<Vec<(usize, InodeRef)>> {
    let (count, entries) = bytes.split_first_chunk()?;
    let (entries, rest) = entries.as_chunks::<ENTRY>();
    if !rest.is_empty() || u64::from_le_bytes(*count) != entries.len() as u64 {
        return None;
    }
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
    let file = |entry: &[u8; ENTRY]| {
        let (layer, inode) = entry.split_at(ENTRY / 2);
        Some((usize::try_from(number(layer)?).ok()?, InodeRef(number(inode)?)))
    };
    entries.iter().map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_whole_or_not_at_all() {
        let files = vec![(0, InodeRef(0x1234_5678_9abc)), (399, InodeRef(0)), (0, InodeRef(7))];
        let bytes = encode(&files);
        assert_eq!(parse(&bytes), Some(files));
        assert_eq!(parse(&encode(&[])), Some(Vec::new()));
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len]), None, "{len} bytes");
        }
        assert_eq!(parse(&[&bytes[..], &[0; ENTRY]].concat()), None);
    }

    #[test]
    fn what_is_there_is_not_replaced() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("list");
        fs::write(&path, "mine").unwrap();
        assert_eq!(write(&path, &[]).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(&base.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
