//! The answers to the kernel's requests (`Documentation/filesystems/fuse.rst`, `include/uapi/linux/fuse.h`).
//!
//! Nothing ever changes, so every answer may be kept for ever, "no such name" included; opening and closing needs
//! no message at all (`ENOSYS` to the first one, where the kernel offers that); and the kernel's cache of pages,
//! names, links and attributes answers most system calls without us.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::attr::{self, FOREVER};
use super::blocks::Blocks;
use super::merged::{Directory, Merged, Name};
use super::node::{self, Node};
use super::reader::Reader;
use super::server::{Options, Owners};
use super::{listing, xattr};
use crate::extract;
use crate::squashfs::{Archive, Error, Extent, Inode, InodeRef, Kind};

/// Inodes are never reused, so there is one generation of each.
pub(super) const GENERATION: Generation = Generation(0);

/// Longest name of the format, in bytes.
const NAME_MAX: u32 = 256;

/// Unit of `statfs`, in bytes.
const STATFS_UNIT: u32 = 4096;

/// Largest request, in bytes: what the kernel allows without a sysctl (`fs.fuse.max_pages_limit`, 256 pages).
pub(super) const MAX_REQUEST: u32 = 1 << 20;

/// How many read-ahead requests of the kernel may be under way; above its default (12) so that several readers on
/// a large machine do not wait for each other.
pub(super) const MAX_BACKGROUND: u16 = 64;

thread_local! {
    /// Where a thread puts answers together.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// All layers as one file system.
pub(super) struct LayerFs {
    blocks: Arc<Blocks>,
    reader: Reader,
    owners: Owners,
    /// Set when several layers are shown as one directory.
    merged: Option<Merged>,
    /// Whether any node can have an extended attribute.
    xattrs: bool,
    no_open: bool,
    no_opendir: bool,
}

impl LayerFs {
    /// `ahead` is the number of read-ahead threads, 0 for none.
    pub(super) fn new(blocks: Arc<Blocks>, options: &Options, ahead: usize) -> Self {
        let Options { owners, cache_bytes, .. } = *options;
        let stored = blocks.layers().iter().any(|layer| layer.superblock().xattr_table.is_some());
        Self {
            reader: Reader::new(Arc::clone(&blocks), ahead, cache_bytes),
            xattrs: stored || owners != Owners::Real,
            merged: (!options.merged.is_empty()).then(|| Merged::new(blocks.layers().to_vec(), &options.merged)),
            blocks,
            owners,
            no_open: false,
            no_opendir: false,
        }
    }

    fn layers(&self) -> &[Arc<Archive>] {
        self.blocks.layers()
    }

    /// The archive and inode of a node that is not the root.
    fn find(&self, ino: INodeNo) -> Result<Option<Found<'_>>, Errno> {
        match Node::from_number(ino.0) {
            Some(Node::Root) => Ok(None),
            Some(Node::Merged(index)) => {
                // What it says about itself is what the topmost one says.
                let directory = self.directory(index)?;
                let top = directory.parts.first().ok_or(Errno::ESTALE)?;
                let archive = self.layers().get(top.layer).ok_or(Errno::ESTALE)?;
                Ok(Some(Found { layer: top.layer, archive, inode: top.inode.clone() }))
            }
            Some(Node::Inode { layer, inode }) => {
                let archive = self.layers().get(layer).ok_or(Errno::ESTALE)?;
                let inode = archive.inode(inode).map_err(|error| self.damaged(layer, &error))?;
                Ok(Some(Found { layer, archive, inode }))
            }
            None => Err(Errno::ESTALE),
        }
    }

    fn damaged(&self, layer: usize, error: &Error) -> Errno {
        self.blocks.report(layer, error);
        Errno::EIO
    }

    fn attributes(&self, layer: usize, at: InodeRef) -> Result<FileAttr, Errno> {
        let inode = self.layers()[layer].inode(at).map_err(|error| self.damaged(layer, &error))?;
        Ok(attr::of_inode(node::number(layer, at), &inode, self.blocks.time(layer, &inode), &self.owners))
    }

    /// `SEEK_DATA` and `SEEK_HOLE` of lseek(2).
    fn next_extent(&self, ino: INodeNo, offset: i64, whence: i32) -> Result<i64, Errno> {
        let wanted = Extent::from_whence(whence).ok_or(Errno::EINVAL)?;
        let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        let found = self.find(ino)?.ok_or(Errno::EISDIR)?;
        let next = found.archive.next_extent(&found.inode, from, wanted);
        let next = next.map_err(|error| self.damaged(found.layer, &error))?.ok_or(Errno::ENXIO)?;
        i64::try_from(next).map_err(|_| Errno::EOVERFLOW)
    }

    fn directory(&self, index: usize) -> Result<Arc<Directory>, Errno> {
        self.merged.as_ref().and_then(|merged| merged.get(index)).ok_or(Errno::ESTALE)
    }

    fn unreadable(&self, error: &extract::Error) -> Errno {
        match error {
            extract::Error::Layer { layer, source, .. } => self.blocks.report(*layer, source),
            other => self.blocks.contradiction(other),
        }
        Errno::EIO
    }

    /// What was found in merged layers, under its own number.
    fn attributes_of_name(&self, found: &Name) -> Result<FileAttr, Errno> {
        let attributes = self.attributes(found.layer, found.inode)?;
        Ok(FileAttr { ino: INodeNo(found.node), ..attributes })
    }

    fn look_up_merged(&self, merged: &Merged, parent: INodeNo, name: &[u8]) -> Result<Option<FileAttr>, Errno> {
        let found = match Node::from_number(parent.0) {
            Some(Node::Root) => node::layer_of_name(name, merged.len()).map_or(Ok(None), |tree| merged.root(tree)),
            Some(Node::Merged(index)) => merged.look_up(&*self.directory(index)?, name),
            _ => return Ok(None),
        };
        let found = found.map_err(|error| self.unreadable(&error))?;
        found.map_or_else(|| Ok(Some(attr::absent())), |found| self.attributes_of_name(&found).map(Some))
    }

    fn look_up(&self, parent: INodeNo, name: &[u8]) -> Result<FileAttr, Errno> {
        if let Some(merged) = &self.merged
            && let Some(answer) = self.look_up_merged(merged, parent, name)?
        {
            return Ok(answer);
        }
        let Some(parent) = self.find(parent)? else {
            let layer = node::layer_of_name(name, self.layers().len());
            return layer.map_or(Ok(attr::absent()), |layer| self.attributes(layer, self.layers()[layer].root()));
        };
        if !matches!(parent.inode.kind, Kind::Directory { .. }) {
            return Err(Errno::ENOTDIR);
        }
        match parent.archive.lookup(&parent.inode, name).map_err(|error| self.damaged(parent.layer, &error))? {
            Some(entry) => self.attributes(parent.layer, entry.inode),
            None => Ok(attr::absent()),
        }
    }

    fn attributes_of(&self, ino: INodeNo) -> Result<FileAttr, Errno> {
        Ok(match self.find(ino)? {
            Some(Found { layer, inode, .. }) => {
                attr::of_inode(ino.0, &inode, self.blocks.time(layer, &inode), &self.owners)
            }
            None => attr::of_root(ino.0, self.merged.as_ref().map_or(self.layers().len(), Merged::len), &self.owners),
        })
    }

    fn xattr(&self, ino: INodeNo, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let Some(found) = self.find(ino)? else { return Err(Errno::ENODATA) };
        let value = xattr::value(found.archive, &found.inode, &self.owners, name);
        value.map_err(|error| self.damaged(found.layer, &error))?.ok_or(Errno::ENODATA)
    }

    fn xattr_names(&self, ino: INodeNo) -> Result<Vec<u8>, Errno> {
        let Some(found) = self.find(ino)? else { return Ok(Vec::new()) };
        let names = xattr::names(found.archive, &found.inode, &self.owners);
        names.map_err(|error| self.damaged(found.layer, &error))
    }

    /// Calls `each` with the entries of a directory from `offset` on until it returns false. An entry is its name,
    /// type, node and the offset to go on from; the node is that of the directory for `.` and its parent for `..`.
    fn list(&self, ino: INodeNo, offset: u64, each: &mut listing::Each<'_>) -> Result<(), Errno> {
        if let Some(merged) = &self.merged {
            let unreadable = |error| self.unreadable(&error);
            match Node::from_number(ino.0) {
                Some(Node::Root) => {
                    listing::merged(&merged.roots().map_err(unreadable)?, ino.0, offset, each);
                    return Ok(());
                }
                Some(Node::Merged(index)) => {
                    let directory = self.directory(index)?;
                    listing::merged(merged.names(&directory).map_err(unreadable)?, ino.0, offset, each);
                    return Ok(());
                }
                _ => {}
            }
        }
        match self.find(ino)? {
            None => listing::root(self.layers(), offset, each),
            Some(found) => {
                let listed = listing::directory(found.archive, found.layer, ino.0, &found.inode, offset, each);
                listed.map_err(|error| match error {
                    Error::WrongKind { .. } => Errno::ENOTDIR,
                    error => self.damaged(found.layer, &error),
                })?;
            }
        }
        Ok(())
    }
}

struct Found<'a> {
    layer: usize,
    archive: &'a Archive,
    inode: Inode,
}

/// Answers with a value, its length, or that it does not fit, as `getxattr(2)` has it.
fn reply_xattr(reply: ReplyXattr, size: u32, value: Result<Vec<u8>, Errno>) {
    match value {
        Err(errno) => reply.error(errno),
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
    }
}

impl Filesystem for LayerFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [
            // Always, not as the kernel sees fit (FUSE_READDIRPLUS_AUTO): attributes are cheap here and stay known,
            // while a request for each takes two context switches (first `find -ls` of 61,000 files: 0.6 for 1.6 s).
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
        ] {
            // What an older kernel does not offer costs speed and nothing else.
            let _ = config.add_capabilities(wanted);
        }
        self.no_open = config.add_capabilities(InitFlags::FUSE_NO_OPEN_SUPPORT).is_ok();
        self.no_opendir = config.add_capabilities(InitFlags::FUSE_NO_OPENDIR_SUPPORT).is_ok();
        // The largest request follows from this too, though nobody writes.
        let _ = config.set_max_write(MAX_REQUEST);
        if let Err(most) = config.set_max_readahead(MAX_REQUEST) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.look_up(parent, name.as_bytes()) {
            Ok(attr) => reply.entry(&FOREVER, &attr, GENERATION),
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _: &Request, _: INodeNo, _: u64) {}

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes_of(ino) {
            Ok(attr) => reply.attr(&FOREVER, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.find(ino) {
            Ok(Some(Found { inode: Inode { kind: Kind::Symlink { target, .. }, .. }, .. })) => reply.data(&target),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.no_open {
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.no_opendir {
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let inode = self.reader.remembered(ino.0).map_or_else(
            || match self.find(ino)? {
                Some(Found { layer, inode, .. }) => Ok((layer, Arc::new(inode))),
                None => Err(Errno::EISDIR),
            },
            Ok,
        );
        JOINED.with_borrow_mut(|joined| {
            match inode.and_then(|(layer, inode)| self.reader.read(ino.0, layer, &inode, offset, size, joined)) {
                Ok(bytes) => reply.data(bytes.as_slice()),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        match self.next_extent(ino, offset, whence) {
            Ok(offset) => reply.offset(offset),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut full = false;
        let mut any = false;
        let listed = self.list(ino, offset, &mut |entry| {
            full = reply.add(INodeNo(entry.node), entry.next, entry.kind, OsStr::from_bytes(entry.name));
            any |= !full;
            !full
        });
        match listed {
            // What was listed before the damage is answered; the kernel meets the damage with its next request.
            Err(errno) if !any => reply.error(errno),
            _ => reply.ok(),
        }
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let mut any = false;
        let mut damage = Ok(());
        let listed = self.list(ino, offset, &mut |entry| {
            let attributes = match entry.inode {
                Some((layer, at)) => {
                    self.attributes(layer, at).map(|attributes| FileAttr { ino: INodeNo(entry.node), ..attributes })
                }
                // The kernel takes no more than number and type of `.` and `..`.
                None => Ok(FileAttr { ino: INodeNo(entry.node), kind: FileType::Directory, ..attr::absent() }),
            };
            match attributes {
                Ok(attr) => {
                    let name = OsStr::from_bytes(entry.name);
                    let full = reply.add(attr.ino, entry.next, name, &FOREVER, &attr, GENERATION);
                    any |= !full;
                    !full
                }
                Err(errno) => {
                    damage = Err(errno);
                    false
                }
            }
        });
        match listed.and(damage) {
            Err(errno) if !any => reply.error(errno),
            _ => reply.ok(),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let superblocks = || self.layers().iter().map(|layer| layer.superblock());
        let bytes = superblocks().fold(0u64, |sum, superblock| sum.saturating_add(superblock.bytes_used));
        let files = superblocks().map(|superblock| u64::from(superblock.inode_count)).sum();
        let blocks = bytes.div_ceil(u64::from(STATFS_UNIT));
        reply.statfs(blocks, 0, 0, files, 0, STATFS_UNIT, NAME_MAX, STATFS_UNIT);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if self.xattrs {
            reply_xattr(reply, size, self.xattr(ino, name.as_bytes()));
        } else {
            // The kernel never asks again.
            reply.error(Errno::ENOSYS);
        }
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        if self.xattrs {
            reply_xattr(reply, size, self.xattr_names(ino));
        } else {
            reply.error(Errno::ENOSYS);
        }
    }

    // `ENOSYS` below: the kernel does it itself, or does without, and never asks again.

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }

    #[rustfmt::skip]
    fn ioctl(
        &self, _: &Request, _: INodeNo, _: FileHandle, _: IoctlFlags, _: u32, _: &[u8], _: u32, reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOSYS);
    }

    #[rustfmt::skip]
    fn poll(
        &self, _: &Request, _: INodeNo, _: FileHandle, _: PollNotifier, _: PollEvents, _: PollFlags, reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    #[rustfmt::skip]
    fn getlk(
        &self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, _: u64, _: u64, _: i32, _: u32, reply: ReplyLock,
    ) {
        reply.error(Errno::ENOSYS);
    }

    #[rustfmt::skip]
    fn setlk(
        &self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, _: u64, _: u64, _: i32, _: u32, _: bool,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    // `EROFS` below: the mount is read-only, and so is what it shows should somebody mount it otherwise.

    #[rustfmt::skip]
    fn setattr(
        &self, _: &Request, _: INodeNo, _: Option<u32>, _: Option<u32>, _: Option<u32>, _: Option<u64>,
        _: Option<TimeOrNow>, _: Option<TimeOrNow>, _: Option<std::time::SystemTime>, _: Option<FileHandle>,
        _: Option<std::time::SystemTime>, _: Option<std::time::SystemTime>, _: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>, reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &std::path::Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    #[rustfmt::skip]
    fn rename(
        &self, _: &Request, _: INodeNo, _: &OsStr, _: INodeNo, _: &OsStr, _: RenameFlags, reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EROFS);
    }

    #[rustfmt::skip]
    fn write(
        &self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: &[u8], _: WriteFlags, _: OpenFlags,
        _: Option<LockOwner>, reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    #[rustfmt::skip]
    fn copy_file_range(
        &self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: INodeNo, _: FileHandle, _: u64, _: u64,
        _: CopyFileRangeFlags, reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }
}
