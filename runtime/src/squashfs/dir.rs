//! Directory listings and their index (specification section 5).
//!
//! A listing is a sorted run of entries under headers; a header holds what up to 256 entries share. A large
//! directory has an index of some headers, by name and by place.

use super::error::{Error, Table};
use super::inode::{FileKind, Inode, Kind};
use super::meta::{BLOCK_SIZE, Cursor, Place};
use super::superblock::{le16, le32};
use super::{Archive, InodeRef};

/// Longest name in bytes.
const NAME_MAX: usize = 256;

/// Most entries under one header.
const ENTRIES_MAX: u32 = 256;

/// The stored size of a directory counts three bytes that do not exist, for "." and "..".
const PHANTOM: u32 = 3;

/// Where the entries of a directory are.
#[derive(Clone, Debug)]
pub struct Listing {
    pub(super) start: Place,
    pub(super) index_count: u16,
    pub(super) index: Place,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// 1 to 256 bytes without `/` and NUL, and neither `.` nor `..`.
    pub name: Vec<u8>,
    /// The inode it names.
    pub inode: InodeRef,
    /// Number of that inode.
    pub number: u32,
    /// Type of that inode, as the directory has it.
    pub kind: FileKind,
    /// Resumes a listing behind this entry; from 1 to 2^32, and growing.
    pub cookie: u64,
}

/// An entry whose name has not been copied yet.
struct Entry<'a> {
    name: &'a [u8],
    inode: InodeRef,
    number: u32,
    kind: FileKind,
    end: u32,
}

impl Entry<'_> {
    fn to_owned(&self) -> DirEntry {
        DirEntry {
            name: self.name.to_vec(),
            inode: self.inode,
            number: self.number,
            kind: self.kind,
            cookie: u64::from(self.end),
        }
    }
}

impl Archive {
    /// The entry `name` of directory `dir`.
    ///
    /// # Errors
    /// When `dir` is no directory, or its listing is damaged on the way to the name.
    pub fn lookup(&self, dir: &Inode, name: &[u8]) -> Result<Option<DirEntry>, Error> {
        let (listing, len) = listing(dir)?;
        if name.len() > NAME_MAX {
            return Ok(None);
        }
        let (start, passed) = self.nearest_header(listing, len, |_, first| first <= name)?;
        let mut found = None;
        self.walk(start, passed, len, &mut |entry| {
            if entry.name == name {
                found = Some(entry.to_owned());
            }
            entry.name < name
        })?;
        Ok(found)
    }

    /// Gives the entries of directory `dir` behind cookie `from` to `each` until it returns false; 0 is the
    /// beginning. Any number is a sound cookie. `.` and `..` are not among the entries.
    ///
    /// # Errors
    /// When `dir` is no directory, or its listing is damaged; entries before the damage have been given.
    pub fn read_dir(&self, dir: &Inode, from: u64, each: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Error> {
        let (listing, len) = listing(dir)?;
        if from >= u64::from(len) {
            return Ok(());
        }
        let (start, passed) = self.nearest_header(listing, len, |at, _| u64::from(at) <= from)?;
        self.walk(start, passed, len, &mut |entry| u64::from(entry.end) <= from || each(entry.to_owned()))
    }

    /// The last header of the index for which `before` (given its byte in the listing and its first name) holds, or
    /// the first header of the listing; and how many bytes of the listing lie before it.
    fn nearest_header(
        &self,
        listing: &Listing,
        len: u32,
        before: impl Fn(u32, &[u8]) -> bool,
    ) -> Result<(Place, u32), Error> {
        let mut nearest = (listing.start, 0);
        if listing.index_count == 0 {
            return Ok(nearest);
        }
        let mut cursor = self.meta.cursor(Table::Inodes, listing.index, self.superblock.directory_table)?;
        let mut name = [0; NAME_MAX];
        for _ in 0..listing.index_count {
            let entry: [u8; 12] = cursor.array()?;
            let (at, block, name_len) = (le32(&entry, 0), le32(&entry, 4), le32(&entry, 8));
            let Some(name) = name.get_mut(..=name_len as usize) else {
                return Err(cursor.wrong(format!("a directory index has a name of {name_len} + 1 bytes")));
            };
            cursor.read(name)?;
            if at >= len {
                return Err(cursor.wrong(format!("a directory index names byte {at} of a listing of {len}")));
            }
            if !before(at, name) {
                break;
            }
            let offset = (u64::from(listing.start.offset) + u64::from(at)) % BLOCK_SIZE as u64;
            let block = self.superblock.directory_table.saturating_add(u64::from(block));
            nearest = (Place { block, offset: offset as u16 }, at);
        }
        Ok(nearest)
    }

    /// Decodes the listing from the header at `start`, `passed` bytes into its `len` bytes, until `each` says stop.
    fn walk(
        &self,
        start: Place,
        mut passed: u32,
        len: u32,
        each: &mut dyn FnMut(Entry<'_>) -> bool,
    ) -> Result<(), Error> {
        if len == 0 {
            return Ok(());
        }
        let mut cursor = self.meta.cursor(Table::Directories, start, self.superblock.directory_end())?;
        let mut name = [0; NAME_MAX];
        while passed < len {
            let header: [u8; 12] = cursor.array()?;
            passed = advance(&cursor, passed, 12, len)?;
            let (last, block, base) = (le32(&header, 0), le32(&header, 4), le32(&header, 8));
            if last >= ENTRIES_MAX {
                return Err(cursor.wrong(format!("a header says {last} + 1 entries, at most 256 are allowed")));
            }
            for _ in 0..=last {
                let fixed: [u8; 8] = cursor.array()?;
                let name_len = usize::from(le16(&fixed, 6)) + 1;
                let Some(name) = name.get_mut(..name_len) else {
                    return Err(cursor.wrong(format!("a name has {name_len} bytes, at most 256 are allowed")));
                };
                cursor.read(name)?;
                passed = advance(&cursor, passed, 8 + name_len as u32, len)?;
                check_name(&cursor, name)?;
                let Some(kind) = FileKind::from_basic(le16(&fixed, 4)) else {
                    return Err(cursor.wrong(format!("an entry has type {}, which is unknown", le16(&fixed, 4))));
                };
                let delta = le16(&fixed, 2) as i16;
                let number = base.checked_add_signed(i32::from(delta)).filter(|number| *number != 0);
                let Some(number) = number else {
                    return Err(cursor.wrong(format!("an entry has inode number {base} {delta:+}")));
                };
                let inode = InodeRef(u64::from(block) << 16 | u64::from(le16(&fixed, 0)));
                if !each(Entry { name, inode, number, kind, end: passed }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Where the entries of `dir` are, and how many bytes they have.
fn listing(dir: &Inode) -> Result<(&Listing, u32), Error> {
    match &dir.kind {
        Kind::Directory { listing, size, .. } => Ok((listing, size.saturating_sub(PHANTOM))),
        _ => Err(Error::WrongKind { number: dir.number, wanted: "directory" }),
    }
}

/// Counts `step` bytes of a listing of `len`.
fn advance(cursor: &Cursor<'_>, passed: u32, step: u32, len: u32) -> Result<u32, Error> {
    passed
        .checked_add(step)
        .filter(|passed| *passed <= len)
        .ok_or_else(|| cursor.wrong(format!("an entry at byte {passed} leaves the listing of {len} bytes")))
}

fn check_name(cursor: &Cursor<'_>, name: &[u8]) -> Result<(), Error> {
    if name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return Err(cursor.wrong(format!("\"{}\" is no name of a file", name.escape_ascii())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::handmade::{Handmade, words};
    use super::*;

    fn entry(offset: u16, delta: i16, kind: u16, name: &[u8]) -> Vec<u8> {
        let len = (name.len() as u16).wrapping_sub(1);
        let fixed = [offset.to_le_bytes(), delta.to_le_bytes(), kind.to_le_bytes(), len.to_le_bytes()];
        [&fixed.concat(), name].concat()
    }

    /// The entries of a directory with this listing, whose inode says it has `len` bytes.
    fn list(listing: &[u8], len: usize) -> Result<Vec<DirEntry>, Error> {
        let mut made = Handmade::new();
        made.dirs = listing.to_vec();
        let inode = made.inode(8, &words(&[2, len as u32 + 3, 0, 1, 0, u32::MAX]));
        let archive = made.open();
        let dir = archive.inode(inode)?;
        let mut entries = Vec::new();
        archive.read_dir(&dir, 0, &mut |entry| {
            entries.push(entry);
            true
        })?;
        Ok(entries)
    }

    #[test]
    fn headers_share_block_and_number() {
        let listing = [
            words(&[1, 0x55, 10]),
            entry(4, -3, 2, b"a"),
            entry(8, 4, 7, b"b\xff"),
            words(&[0, 0, 1]),
            entry(1, 0, 1, b"c"),
        ]
        .concat();
        let entries = list(&listing, listing.len()).unwrap();
        let facts: Vec<_> =
            entries.iter().map(|entry| (&entry.name[..], entry.inode.0, entry.number, entry.kind)).collect();
        let expected: [(&[u8], u64, u32, FileKind); 3] = [
            (b"a", 0x55_0004, 7, FileKind::File),
            (b"b\xff", 0x55_0008, 14, FileKind::Socket),
            (b"c", 1, 1, FileKind::Directory),
        ];
        assert_eq!(facts, expected);
        assert_eq!(entries.iter().map(|entry| entry.cookie).collect::<Vec<_>>(), [21, 31, 52]);
        assert_eq!(list(&[], 0).unwrap(), []);
    }

    #[test]
    fn damaged_listings_are_refused() {
        let one = |name: &[u8], kind| [words(&[0, 0, 1]), entry(0, 0, kind, name)].concat();
        let cases: [(Vec<u8>, isize, &str); 12] = [
            (one(b".", 1), 0, "\".\" is no name of a file"),
            (one(b"..", 1), 0, "\"..\" is no name"),
            (one(b"a/b", 1), 0, "\"a/b\" is no name"),
            (one(b"a\0", 1), 0, "\"a\\x00\" is no name"),
            (one(&[b'n'; 257], 1), 0, "a name has 257 bytes"),
            (one(b"", 1), 0, "a name has 65536 bytes"),
            (one(b"a", 8), 0, "an entry has type 8"),
            (one(b"a", 1), -1, "an entry at byte 12 leaves the listing of 20 bytes"),
            (one(b"a", 1), 1, "the table ends inside a record"),
            ([words(&[256, 0, 1]), entry(0, 0, 1, b"a")].concat(), 0, "a header says 256 + 1 entries"),
            ([words(&[0, 0, 1]), entry(0, -1, 1, b"a")].concat(), 0, "an entry has inode number 1 -1"),
            ([words(&[1, 0, 1]), entry(0, 0, 1, b"a")].concat(), 0, "the table ends inside a record"),
        ];
        for (listing, more, reason) in cases {
            let error = list(&listing, listing.len().wrapping_add_signed(more)).unwrap_err().to_string();
            assert!(
                error.contains("squashfs: directory table at byte ") && error.contains(reason),
                "{error}: {reason}"
            );
        }
        assert!(list(&one(b"a", 1), 4_000_000_000).is_err());
    }

    #[test]
    fn a_damaged_index_is_refused() {
        let listing = [words(&[0, 0, 1]), entry(0, 0, 1, b"a")].concat();
        let index = |at: u32, block: u32, name_len: u32| {
            let mut made = Handmade::new();
            made.dirs = listing.clone();
            let mut body = words(&[2, 24, 0, 1, 1, u32::MAX, at, block, name_len]);
            body.extend(b"a");
            let inode = made.inode(8, &body);
            let archive = made.open();
            let dir = archive.inode(inode).unwrap();
            archive.lookup(&dir, b"a").map(|entry| entry.is_some()).map_err(|error| error.to_string())
        };
        assert_eq!(index(0, 0, 0), Ok(true));
        assert!(index(21, 0, 0).unwrap_err().contains("names byte 21 of a listing of 21"));
        assert!(index(0, 0, 256).unwrap_err().contains("256 + 1 bytes"));
        assert!(index(0, 0, u32::MAX).is_err());
        assert!(index(0, u32::MAX, 0).is_err());
    }
}
