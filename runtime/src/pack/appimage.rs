//! AppImages of type 2: <https://github.com/AppImage/AppImageSpec/blob/master/draft.md>, "Image format".

use super::Error;
use crate::source::{ByteSource, FileRange};
use crate::squashfs::Archive;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Bytes of an ELF header, of 64 bits; that of 32 bits is shorter.
const HEADER: usize = 64;

/// The type of the AppImage whose file begins with `start`; `None` when it is none.
pub fn kind(start: &[u8]) -> Option<u8> {
    let marked = start.starts_with(b"\x7fELF") && start.get(8..10) == Some(b"AI");
    start.get(10).copied().filter(|_| marked)
}

/// Where the program of an AppImage ends, by its header: behind the section headers, which stand last.
fn program_end(header: &[u8; HEADER]) -> Option<u64> {
    let u16_at = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let u32_at = |at: usize| u16_at(at) | u16_at(at + 2) << 16;
    let (offset, size, count) = match (header[4], header[5]) {
        (1, 1) => (u32_at(32), u16_at(46), u16_at(48)),
        (2, 1) => (u32_at(40) | u32_at(44) << 32, u16_at(58), u16_at(60)),
        _ => return None,
    };
    offset.checked_add(size * count)
}

/// Where the squashfs of the AppImage at `path` begins, and what is in it.
pub fn payload(path: &Path) -> Result<(u64, Archive), Error> {
    let broken = |reason: String| Error::AppImage { path: path.to_owned(), reason };
    let file = File::open(path).map_err(Error::read("open", path))?;
    let range = FileRange::whole(Arc::new(file)).map_err(Error::read("read", path))?;
    let (mut header, mut magic) = ([0; HEADER], [0; 4]);
    range.read_exact_at(&mut header, 0).map_err(|_| broken("it is cut off in its header".into()))?;
    let start = program_end(&header).ok_or_else(|| broken("its program is of no known kind".into()))?;
    range
        .read_exact_at(&mut magic, start)
        .map_err(|_| broken(format!("it is cut off at byte {start}, where its file system should begin")))?;
    if magic != *b"hsqs" {
        return Err(broken(format!("there is no squashfs at byte {start}, where its program ends")));
    }
    let archive = Archive::open(Arc::new(range.part(start, u64::MAX)));
    Ok((start, archive.map_err(|error| broken(crate::error::chain(&error)))?))
}

/// Whether the root directory of `archive` has an entry `name`.
pub fn has(archive: &Archive, name: &[u8]) -> bool {
    let root = archive.inode(archive.root());
    root.and_then(|root| archive.lookup(&root, name)).is_ok_and(|found| found.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mark_makes_an_appimage() {
        assert_eq!(kind(b"\x7fELF\x02\x01\x01\0AI\x02rest"), Some(2));
        assert_eq!(kind(b"\x7fELF\x02\x01\x01\0AI\x01rest"), Some(1));
        for start in
            [&b""[..], b"\x7fELF\x02\x01\x01\0\0\0\0\0", b"MZLF\x02\x01\x01\0AI\x02", b"\x7fELF\x02\x01\x01\0AI"]
        {
            assert_eq!(kind(start), None);
        }
    }

    #[test]
    fn programs_of_both_widths_end_behind_their_sections() {
        let mut header = [0; HEADER];
        (header[4], header[5]) = (2, 1);
        header[40..48].copy_from_slice(&0x1_0000_0000_u64.to_le_bytes());
        (header[58], header[60]) = (64, 3);
        assert_eq!(program_end(&header), Some(0x1_0000_0000 + 192));
        header[40..48].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(program_end(&header), None);
        header = [0; HEADER];
        (header[4], header[5], header[33], header[46], header[48]) = (1, 1, 16, 40, 2);
        assert_eq!(program_end(&header), Some(4096 + 80));
        header[5] = 2;
        assert_eq!(program_end(&header), None);
    }
}
