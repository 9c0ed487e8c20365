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
