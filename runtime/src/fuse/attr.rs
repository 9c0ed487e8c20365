//! What `stat` says about a node.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use super::server::Owners;
use crate::squashfs::{FileKind, Inode, Kind, Time};

/// For how long the kernel may believe an answer: the layers never change. (68 years; the kernel adds it to its
/// clock, so the largest number there is would be a risk for nothing.)
pub(super) const FOREVER: Duration = Duration::from_secs(1 << 31);

/// Unit in which `st_blocks` counts, in bytes.
const SECTOR: u64 = 512;

/// The attributes of an inode that has the node number `ino` and was changed at `time`.
pub(super) fn of_inode(ino: u64, inode: &Inode, time: Time, owners: &Owners) -> FileAttr {
    let (kind, size, rdev) = match &inode.kind {
        Kind::Directory { .. } => (FileType::Directory, 0, 0),
        Kind::File { size, .. } => (FileType::RegularFile, *size, 0),
        Kind::Symlink { target, .. } => (FileType::Symlink, target.len() as u64, 0),
        // Squashfs and FUSE share the kernel's encoding of device numbers (`new_encode_dev`).
        Kind::BlockDevice { rdev } => (FileType::BlockDevice, 0, *rdev),
        Kind::CharDevice { rdev } => (FileType::CharDevice, 0, *rdev),
        Kind::Fifo => (FileType::NamedPipe, 0, 0),
        Kind::Socket => (FileType::Socket, 0, 0),
    };
    let owner = owners.shown(inode.uid, inode.gid);
    let time = UNIX_EPOCH + Duration::new(time.seconds.into(), time.nanoseconds);
    let attributes = attr(ino, kind, inode.mode_perm, size, inode.nlink, owner, rdev, time);
    // Whoever copies a file looks for holes where it has fewer blocks than bytes.
    FileAttr { blocks: inode.stored_bytes().div_ceil(SECTOR), ..attributes }
}

/// The attributes of the directory of layers.
pub(super) fn of_root(ino: u64, layers: usize, owners: &Owners) -> FileAttr {
    attr(ino, FileType::Directory, 0o755, 0, 2 + layers as u32, owners.shown(0, 0), 0, UNIX_EPOCH)
}

/// The answer "there is no such name", which the kernel may keep too (node number 0).
pub(super) fn absent() -> FileAttr {
    attr(0, FileType::RegularFile, 0, 0, 0, (0, 0), 0, UNIX_EPOCH)
}

/// The type of a directory entry.
pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::File => FileType::RegularFile,
        FileKind::Symlink => FileType::Symlink,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
    }
}

#[allow(clippy::too_many_arguments)]
fn attr(
    ino: u64,
    kind: FileType,
    perm: u16,
    size: u64,
    nlink: u32,
    (uid, gid): (u32, u32),
    rdev: u32,
    time: SystemTime,
) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(SECTOR),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: perm & 0o7777,
        nlink,
        uid,
        gid,
        rdev,
        blksize: 4096,
        flags: 0,
    }
}
