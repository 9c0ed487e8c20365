//! Inodes, basic and extended (specification section 4).

use super::data::FileLayout;
use super::dir::Listing;
use super::error::{Error, Table};
use super::meta::{BLOCK_SIZE, Cursor, Place};
use super::superblock::{le16, le32, le64};
use super::{Archive, InodeRef};

/// Longest symlink target in bytes. Linux stops at 4095; others need not.
const SYMLINK_MAX: u32 = 65_535;

/// No xattr, or no fragment.
const NONE: u32 = u32::MAX;

/// One inode, decoded.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Number, at least 1; the same for all hard links.
    pub number: u32,
    /// Permission bits with set-uid, set-gid and sticky, 0 to 0o7777; the type is in `kind`.
    pub mode_perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the contents, seconds since 1970 (unsigned); [`Archive::time`] has the nanoseconds, too.
    pub mtime: u32,
    /// Hard links.
    pub nlink: u32,
    /// Type and what only that type has.
    pub kind: Kind,
    /// Number of the xattr set, for [`Archive::xattrs`].
    pub xattr: Option<u32>,
}

/// What an inode is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A directory.
    Directory {
        /// Inode number of the directory that holds it; for the root a number that no inode has.
        parent: u32,
        /// Size as stored, in bytes: three more than the listing has.
        size: u32,
        /// Where the entries are.
        listing: Listing,
    },
    /// A regular file.
    File {
        /// Length in bytes, below 2^63.
        size: u64,
        /// Where the blocks are.
        layout: FileLayout,
    },
    /// A symbolic link.
    Symlink {
        /// 1 to 65535 bytes, no NUL among them.
        target: Vec<u8>,
    },
    /// A block device.
    BlockDevice {
        /// Device number, in the kernel's `new_encode_dev` form: minor bits 0-7 and 20-31, major bits 8-19.
        rdev: u32,
    },
    /// A character device.
    CharDevice {
        /// Device number, as for a block device.
        rdev: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Type of an inode, as directory entries hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Major and minor number of a device in the kernel's `new_encode_dev` form.
#[must_use]
pub fn device_parts(rdev: u32) -> (u32, u32) {
    (rdev >> 8 & 0xfff, rdev & 0xff | rdev >> 12 & 0xf_ff00)
}

impl FileKind {
    /// Decodes a basic type, 1 to 7.
    pub(super) fn from_basic(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Directory,
            2 => Self::File,
            3 => Self::Symlink,
            4 => Self::BlockDevice,
            5 => Self::CharDevice,
            6 => Self::Fifo,
            7 => Self::Socket,
            _ => return None,
        })
    }
}

impl Kind {
    /// The type alone.
    #[must_use]
    pub fn file_kind(&self) -> FileKind {
        match self {
            Self::Directory { .. } => FileKind::Directory,
            Self::File { .. } => FileKind::File,
            Self::Symlink { .. } => FileKind::Symlink,
            Self::BlockDevice { .. } => FileKind::BlockDevice,
            Self::CharDevice { .. } => FileKind::CharDevice,
            Self::Fifo => FileKind::Fifo,
            Self::Socket => FileKind::Socket,
        }
    }
}

impl Archive {
    /// Reads an inode.
    ///
    /// # Errors
    /// When `inode` is no place in the inode table, or what is there is no sound inode.
    pub fn inode(&self, inode: InodeRef) -> Result<Inode, Error> {
        let (start, end) = (self.superblock.inode_table, self.superblock.directory_table);
        let block = start.saturating_add(inode.0 >> 16);
        let offset = inode.0 as u16;
        if inode.0 >= 1 << 48 || usize::from(offset) >= BLOCK_SIZE || block >= end {
            let reason = format!("inode {:#x} would lie outside the table, which ends at {end}", inode.0);
            return Err(Error::corrupt(Table::Inodes, block, reason));
        }
        let mut cursor = self.meta.cursor(Table::Inodes, Place { block, offset }, end)?;

        let header: [u8; 16] = cursor.array()?;
        let (kind, extended) = match le16(&header, 0) {
            basic @ 1..=7 => (FileKind::from_basic(basic), false),
            extended @ 8..=14 => (FileKind::from_basic(extended - 7), true),
            _ => (None, false),
        };
        let Some(kind) = kind else {
            return Err(cursor.wrong(format!("inode type {} is unknown", le16(&header, 0))));
        };
        let number = le32(&header, 12);
        if number == 0 {
            return Err(cursor.wrong("an inode has number 0"));
        }
        let body = match kind {
            FileKind::Directory => self.directory(&mut cursor, extended)?,
            FileKind::File => self.file(&mut cursor, extended)?,
            FileKind::Symlink => symlink(&mut cursor, extended)?,
            FileKind::BlockDevice | FileKind::CharDevice | FileKind::Fifo | FileKind::Socket => {
                special(&mut cursor, kind, extended)?
            }
        };
        Ok(Inode {
            number,
            mode_perm: le16(&header, 2) & 0o7777,
            uid: self.id(le16(&header, 4), block)?,
            gid: self.id(le16(&header, 6), block)?,
            mtime: le32(&header, 8),
            nlink: body.nlink,
            kind: body.kind,
            xattr: (body.xattr != NONE).then_some(body.xattr),
        })
    }

    fn directory(&self, cursor: &mut Cursor<'_>, extended: bool) -> Result<Body, Error> {
        let (nlink, size, start, parent, index_count, offset, xattr);
        if extended {
            let body: [u8; 24] = cursor.array()?;
            (nlink, size, start, parent) = (le32(&body, 0), le32(&body, 4), le32(&body, 8), le32(&body, 12));
            (index_count, offset, xattr) = (le16(&body, 16), le16(&body, 18), le32(&body, 20));
        } else {
            let body: [u8; 16] = cursor.array()?;
            (start, nlink, size) = (le32(&body, 0), le32(&body, 4), u32::from(le16(&body, 8)));
            (offset, parent, index_count, xattr) = (le16(&body, 10), le32(&body, 12), 0, NONE);
        }
        if usize::from(offset) >= BLOCK_SIZE {
            return Err(cursor.wrong(format!("a directory begins at offset {offset} of a block")));
        }
        let block = self.superblock.directory_table + u64::from(start);
        let listing = Listing { start: Place { block, offset }, index_count, index: cursor.place() };
        Ok(Body { nlink, xattr, kind: Kind::Directory { parent, size, listing } })
    }

    fn file(&self, cursor: &mut Cursor<'_>, extended: bool) -> Result<Body, Error> {
        let (start, size, sparse, nlink, fragment, fragment_offset, xattr);
        if extended {
            let body: [u8; 40] = cursor.array()?;
            (start, size, sparse, nlink) = (le64(&body, 0), le64(&body, 8), le64(&body, 16), le32(&body, 24));
            (fragment, fragment_offset, xattr) = (le32(&body, 28), le32(&body, 32), le32(&body, 36));
        } else {
            let body: [u8; 16] = cursor.array()?;
            (start, fragment, fragment_offset) = (u64::from(le32(&body, 0)), le32(&body, 4), le32(&body, 8));
            (size, sparse, nlink, xattr) = (u64::from(le32(&body, 12)), 0, 1, NONE);
        }
        if i64::try_from(size).is_err() {
            return Err(cursor.wrong(format!("a file has {size} bytes")));
        }
        let block_size = self.superblock.block_size;
        let tail = (size % u64::from(block_size)) as u32;
        let fragment = (fragment != NONE && tail != 0).then_some((fragment, fragment_offset));
        if let Some((_, offset)) = fragment
            && offset.checked_add(tail).is_none_or(|end| end > block_size)
        {
            return Err(cursor.wrong(format!("a file ends at {offset} + {tail} of a fragment block of {block_size}")));
        }
        let layout = FileLayout { start, block_size, sparse, fragment, sizes: cursor.place() };
        Ok(Body { nlink, xattr, kind: Kind::File { size, layout } })
    }
}

/// What follows the header that all inodes share.
struct Body {
    nlink: u32,
    xattr: u32,
    kind: Kind,
}

fn symlink(cursor: &mut Cursor<'_>, extended: bool) -> Result<Body, Error> {
    let (nlink, len) = (cursor.u32()?, cursor.u32()?);
    if len == 0 || len > SYMLINK_MAX {
        return Err(cursor.wrong(format!("a symlink has {len} bytes, from 1 to {SYMLINK_MAX} are allowed")));
    }
    let target = cursor.bytes(len as usize)?;
    if target.contains(&0) {
        return Err(cursor.wrong("a symlink has a NUL byte"));
    }
    let xattr = if extended { cursor.u32()? } else { NONE };
    Ok(Body { nlink, xattr, kind: Kind::Symlink { target } })
}

fn special(cursor: &mut Cursor<'_>, kind: FileKind, extended: bool) -> Result<Body, Error> {
    let nlink = cursor.u32()?;
    let kind = match kind {
        FileKind::BlockDevice => Kind::BlockDevice { rdev: cursor.u32()? },
        FileKind::CharDevice => Kind::CharDevice { rdev: cursor.u32()? },
        FileKind::Fifo => Kind::Fifo,
        _ => Kind::Socket,
    };
    let xattr = if extended { cursor.u32()? } else { NONE };
    Ok(Body { nlink, xattr, kind })
}

#[cfg(test)]
mod tests {
    use super::super::handmade::{Handmade, words};
    use super::*;

    #[test]
    fn device_numbers_are_decoded() {
        for (rdev, expected) in [(0x0103, (1, 3)), (0xfff0_0fff, (15, 0xf_ffff)), (0x000f_ff00, (0xfff, 0))] {
            assert_eq!(device_parts(rdev), expected, "{rdev:#x}");
        }
    }

    fn failure(kind: u16, body: &[u8]) -> String {
        Handmade::new().read(kind, body).unwrap_err().to_string()
    }

    #[test]
    fn basic_and_extended_types_decode_alike() {
        let inode = Handmade::new().read(4, &words(&[3, 0x1234])).unwrap();
        assert_eq!((inode.number, inode.mode_perm, inode.mtime, inode.nlink), (7, 0o7644, 1_700_000_000, 3));
        assert_eq!((inode.uid, inode.gid, inode.xattr), (1234, 1234, None));
        assert!(matches!(inode.kind, Kind::BlockDevice { rdev: 0x1234 }));

        let inode = Handmade::new().read(12, &words(&[3, 0x1234, 5])).unwrap();
        assert!(matches!(inode, Inode { kind: Kind::CharDevice { rdev: 0x1234 }, xattr: Some(5), .. }));
        let inode = Handmade::new().read(14, &words(&[1, u32::MAX])).unwrap();
        assert!(matches!(inode, Inode { kind: Kind::Socket, xattr: None, .. }));
        let inode = Handmade::new().read(13, &words(&[1, 0])).unwrap();
        assert!(matches!(inode, Inode { kind: Kind::Fifo, xattr: Some(0), .. }));
        let inode = Handmade::new().read(10, &[&words(&[1, 3])[..], b"a/b", &words(&[9])].concat()).unwrap();
        assert!(matches!(inode, Inode { kind: Kind::Symlink { target }, xattr: Some(9), .. } if target == b"a/b"));
        let inode = Handmade::new().read(8, &words(&[2, 3, 0, 99, 0, 4])).unwrap();
        assert!(matches!(inode, Inode { kind: Kind::Directory { parent: 99, size: 3, .. }, xattr: Some(4), .. }));
    }

    #[test]
    fn claims_beyond_the_format_are_refused() {
        assert!(failure(15, &[]).contains("inode table at byte 96: inode type 15 is unknown"));
        assert!(failure(0, &[]).contains("inode type 0 is unknown"));
        assert!(failure(3, &words(&[1, 65_536])).contains("a symlink has 65536 bytes"));
        assert!(failure(3, &words(&[1, 0])).contains("a symlink has 0 bytes"));
        assert!(failure(3, &words(&[1, 60_000])).contains("the table ends inside a record"));
        assert!(failure(3, &[&words(&[1, 2])[..], b"a\0"].concat()).contains("a symlink has a NUL byte"));
        assert!(failure(1, &words(&[0, 2, 3 | 8192 << 16, 1])).contains("at offset 8192"));
        // Size 2^63; a tail of 4000 bytes at 97 of a fragment block of 4096.
        assert!(
            failure(9, &words(&[0, 0, 0, 1 << 31, 0, 0, 1, 0, 0, 0])).contains("a file has 9223372036854775808 bytes")
        );
        assert!(failure(2, &words(&[0, 0, 97, 4000])).contains("a file ends at 97 + 4000 of a fragment block of 4096"));
        assert!(failure(2, &words(&[0, 0, u32::MAX, 4000])).contains("a file ends at"));
    }

    #[test]
    fn places_outside_the_table_are_refused() {
        let mut made = Handmade::new();
        let good = made.inode(6, &words(&[1]));
        let archive = made.open();
        archive.inode(good).unwrap();
        for wrong in [1 << 48, u64::MAX, 8192, 100, 1 << 16, 30 << 16, 0xffff_ffff << 16] {
            assert!(archive.inode(InodeRef(wrong)).is_err(), "{wrong:#x}");
        }
    }

    #[test]
    fn ids_and_numbers_are_checked() {
        let mut made = Handmade::new();
        let inode = made.inode(6, &words(&[1]));
        made.inodes[4] = 1;
        assert!(made.open().inode(inode).unwrap_err().to_string().contains("an inode names id 1, but there are 1"));
        made.inodes[4] = 0;
        made.inodes[12..16].fill(0);
        assert!(made.open().inode(inode).unwrap_err().to_string().contains("an inode has number 0"));
    }
}
