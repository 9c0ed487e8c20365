//! The kernel's requests, each handed to the overlay.
//!
//! We are the only ones who write below, so the kernel may keep what it was told for ever and write back when it likes.
//! Without regard to case, names are asked for anew each time: the kernel compares them by their bytes, and what it
//! keeps under one spelling would outlive the same name in another.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags,
    ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use nix::errno::Errno;
use nix::sys::stat::SFlag;

use super::super::attr::{FOREVER, absent};
use super::super::filesystem::{GENERATION, MAX_BACKGROUND, MAX_REQUEST};
use super::change::{Make, Maker};
use super::file::Change;
use super::holes::{Holes, Notifying, Question};
use super::listing::{Entry, is_dot};
use super::stack::Overlay;
use super::upper::kind;

thread_local! {
    /// Where a thread puts answers together.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The overlay as a file system.
pub(super) struct OverlayFs {
    overlay: Arc<Overlay>,
    holes: Holes,
    /// Open directories: what was there when their reading began.
    listings: Mutex<HashMap<u64, Arc<Vec<Entry>>>>,
    next: AtomicU64,
    no_open: bool,
}

fn fuse(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno as i32)
}

fn answer(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(fuse(errno)),
    }
}

/// Answers with a value, its length, or that it does not fit, as `getxattr(2)` has it.
fn answer_xattr(reply: ReplyXattr, size: u32, value: Result<Vec<u8>, Errno>) {
    match value {
        Err(errno) => reply.error(fuse(errno)),
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(fuse(Errno::ERANGE)),
        Ok(value) => reply.data(&value),
    }
}

impl OverlayFs {
    pub(super) fn new(overlay: Overlay, notifying: Notifying) -> Self {
        Self {
            overlay: Arc::new(overlay),
            holes: Holes::new(notifying),
            listings: Mutex::default(),
            next: AtomicU64::new(1),
            no_open: false,
        }
    }

    fn names_last(&self) -> Duration {
        if self.overlay.casefold { Duration::ZERO } else { FOREVER }
    }

    fn entry(&self, reply: ReplyEntry, made: Result<FileAttr, Errno>) {
        match made {
            Ok(attributes) => reply.entry(&self.names_last(), &attributes, GENERATION),
            Err(errno) => reply.error(fuse(errno)),
        }
    }

    /// What is at a name, with one more reference of the kernel.
    fn look_up(&self, parent: INodeNo, name: &[u8]) -> Result<FileAttr, Errno> {
        let overlay = &self.overlay;
        let parent = overlay.node(parent)?;
        let _still = overlay.still();
        let Some((name, found)) = overlay.find(&parent, name)? else { return Ok(absent()) };
        let node = overlay.table().enter(&parent, &name, found.identity(), 1);
        overlay.attributes(node.number, &found).inspect_err(|_| overlay.forget(node.number, 1))
    }

    fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        what: &Make<'_>,
    ) -> Result<FileAttr, Errno> {
        let maker = Maker { uid: request.uid(), gid: request.gid(), mode };
        let parent = self.overlay.node(parent)?;
        self.overlay.make(&parent, name.as_bytes(), what, &maker)
    }

    /// The entries of an open directory; from the beginning, as of now.
    fn listing(&self, ino: INodeNo, handle: FileHandle, offset: u64) -> Result<Arc<Vec<Entry>>, Errno> {
        let known = || self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if offset > 0
            && let Some(listing) = known().get(&handle.0)
        {
            return Ok(Arc::clone(listing));
        }
        let node = self.overlay.node(ino)?;
        let _still = self.overlay.still();
        let listing = Arc::new(self.overlay.list(&node)?);
        known().insert(handle.0, Arc::clone(&listing));
        Ok(listing)
    }

    fn open_directory(&self, reply: ReplyOpen) {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn list_plus(
        &self,
        ino: INodeNo,
        entries: &[Entry],
        offset: u64,
        reply: &mut ReplyDirectoryPlus,
    ) -> Result<(), Errno> {
        let overlay = &self.overlay;
        let parent = overlay.node(ino)?;
        let _still = overlay.still();
        for (entry, next) in entries.iter().zip(1u64..).skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            let name = OsStr::from_bytes(&entry.name);
            let mut taken = None;
            let attributes = if is_dot(&entry.name) {
                // The kernel takes no more than number and type of these.
                FileAttr { ino: INodeNo(entry.number), kind: FileType::Directory, ..absent() }
            } else {
                // What is gone since is left out.
                let Some(found) = overlay.resolve_listed(&parent, entry)? else { continue };
                let node = overlay.table().enter(&parent, &entry.name, found.identity(), 1);
                taken = Some(node.number);
                overlay.attributes(node.number, &found)?
            };
            if reply.add(attributes.ino, next, name, &self.names_last(), &attributes, GENERATION) {
                if let Some(number) = taken {
                    overlay.forget(number, 1);
                }
                break;
            }
        }
        Ok(())
    }
}

impl Filesystem for OverlayFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_WRITEBACK_CACHE,
            // Otherwise the kernel asks for an attribute before each write(2).
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ] {
            // What an older kernel does not offer costs speed and nothing else.
            let _ = config.add_capabilities(wanted);
        }
        // Without `FUSE_ATOMIC_O_TRUNC`, which would leave it to an open that does not come.
        self.no_open = config.add_capabilities(InitFlags::FUSE_NO_OPEN_SUPPORT).is_ok();
        let _ = config.set_max_write(MAX_REQUEST);
        if let Err(most) = config.set_max_readahead(MAX_REQUEST) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        // Of what the kernel keeps, times have the resolution that the upper directory's file system may have.
        let _ = config.set_time_granularity(Duration::from_nanos(1));
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, self.look_up(parent, name.as_bytes()));
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        self.overlay.forget(ino.0, lookups);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let attributes = self.overlay.node(ino).and_then(|node| {
            let _still = self.overlay.still();
            self.overlay.attributes_of(&node)
        });
        match attributes {
            Ok(attributes) => reply.attr(&FOREVER, &attributes),
            Err(errno) => reply.error(fuse(errno)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Change { mode, uid, gid, size, atime, mtime };
        match self.overlay.node(ino).and_then(|node| self.overlay.change(&node, &change)) {
            Ok(attributes) => reply.attr(&FOREVER, &attributes),
            Err(errno) => reply.error(fuse(errno)),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.overlay.node(ino).and_then(|node| self.overlay.target(&node)) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(fuse(errno)),
        }
    }

    fn mknod(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, rdev: u32, reply: ReplyEntry) {
        let (major, minor) = crate::squashfs::device_parts(rdev);
        let what = match kind(mode) {
            SFlag::S_IFREG => Make::File,
            kind => Make::Node(kind, libc::makedev(major, minor)),
        };
        self.entry(reply, self.make(request, parent, name, mode, &what));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        self.entry(reply, self.make(request, parent, name, mode, &Make::Directory));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &std::path::Path, reply: ReplyEntry) {
        let what = Make::Symlink(target.as_os_str().as_bytes());
        self.entry(reply, self.make(request, parent, name, 0o777, &what));
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let link = || self.overlay.link(&self.overlay.node(ino)?, &self.overlay.node(parent)?, name.as_bytes());
        self.entry(reply, link());
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = || self.overlay.remove(&self.overlay.node(parent)?, name.as_bytes(), false);
        answer(reply, remove());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = || self.overlay.remove(&self.overlay.node(parent)?, name.as_bytes(), true);
        answer(reply, remove());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let rename = || {
            let (from, to) = (self.overlay.node(parent)?, self.overlay.node(new_parent)?);
            let (from, to) = ((&from, name.as_bytes()), (&to, new_name.as_bytes()));
            if flags == RenameFlags::RENAME_EXCHANGE {
                self.overlay.exchange(from, to)
            } else if flags.is_empty() || flags == RenameFlags::RENAME_NOREPLACE {
                self.overlay.rename(from, to, !flags.is_empty())
            } else {
                Err(Errno::EINVAL)
            }
        };
        answer(reply, rename());
    }

    // Once `ENOSYS` has been answered, the kernel makes, opens and closes files without us: it knows who may, and the
    // first write, or whatever else changes a file, brings it up from its layer.

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.no_open {
            reply.error(fuser::Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
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
        JOINED.with_borrow_mut(|joined| {
            match self.overlay.node(ino).and_then(|node| self.overlay.read(&node, offset, size, joined)) {
                Ok(bytes) => reply.data(bytes.as_slice()),
                Err(errno) => reply.error(fuse(errno)),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let drops = flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        match self.overlay.node(ino).and_then(|node| self.overlay.write(&node, offset, data, drops)) {
            Ok(count) => reply.written(count),
            Err(errno) => reply.error(fuse(errno)),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, data_only: bool, reply: ReplyEmpty) {
        answer(reply, self.overlay.node(ino).and_then(|node| self.overlay.sync(&node, data_only)));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, data_only: bool, reply: ReplyEmpty) {
        answer(reply, self.overlay.node(ino).and_then(|node| self.overlay.sync(&node, data_only)));
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let allocated = self.overlay.node(ino).and_then(|node| self.overlay.allocate(&node, mode, offset, length));
        answer(reply, allocated);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        from: INodeNo,
        _: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _: FileHandle,
        to_offset: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let copy = || {
            let (from, to) = (self.overlay.node(from)?, self.overlay.node(to)?);
            self.overlay.copy_range((&from, from_offset), (&to, to_offset), len)
        };
        match copy() {
            Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
            Err(errno) => reply.error(fuse(errno)),
        }
    }

    fn lseek(&self, _: &Request, node: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        self.holes.ask(&self.overlay, Question { node, offset, whence, reply });
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.open_directory(reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.listing(ino, handle, offset) {
            Ok(entries) => {
                let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
                for (entry, next) in entries.iter().zip(1u64..).skip(skipped) {
                    if reply.add(INodeNo(entry.number), next, entry.kind, OsStr::from_bytes(&entry.name)) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(errno) => reply.error(fuse(errno)),
        }
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let listed = self.listing(ino, handle, offset);
        match listed.and_then(|entries| self.list_plus(ino, &entries, offset, &mut reply)) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(fuse(errno)),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match nix::sys::statvfs::fstatvfs(&self.overlay.upper.root) {
            Ok(stat) => {
                let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
                let names = small(stat.name_max()).saturating_sub(self.overlay.upper.marks.longer());
                let (block, fragment) = (small(stat.block_size()), small(stat.fragment_size()));
                let (free, available) = (stat.blocks_free(), stat.blocks_available());
                reply.statfs(stat.blocks(), free, available, stat.files(), stat.files_free(), block, names, fragment);
            }
            Err(errno) => reply.error(fuse(errno)),
        }
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = self.overlay.node(ino).and_then(|node| {
            let _still = self.overlay.still();
            self.overlay.xattr(&node, name.as_bytes())
        });
        answer_xattr(reply, size, value);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.overlay.node(ino).and_then(|node| {
            let _still = self.overlay.still();
            self.overlay.xattr_names(&node)
        });
        answer_xattr(reply, size, names);
    }

    fn setxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, _: u32, reply: ReplyEmpty) {
        let set = |node| self.overlay.set_xattr(&node, name.as_bytes(), value, flags);
        answer(reply, self.overlay.node(ino).and_then(set));
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let remove = |node| self.overlay.remove_xattr(&node, name.as_bytes());
        answer(reply, self.overlay.node(ino).and_then(remove));
    }

    // `ENOSYS` below: the kernel does it itself, or does without, and never asks again. Locks are among it: every
    // instance uses this one mount, and the kernel keeps its locks.

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: ReplyBmap) {
        reply.error(fuser::Errno::ENOSYS);
    }

    #[rustfmt::skip]
    fn ioctl(
        &self, _: &Request, _: INodeNo, _: FileHandle, _: IoctlFlags, _: u32, _: &[u8], _: u32, reply: ReplyIoctl,
    ) {
        reply.error(fuser::Errno::ENOSYS);
    }

    #[rustfmt::skip]
    fn poll(
        &self, _: &Request, _: INodeNo, _: FileHandle, _: PollNotifier, _: PollEvents, _: PollFlags, reply: ReplyPoll,
    ) {
        reply.error(fuser::Errno::ENOSYS);
    }

    #[rustfmt::skip]
    fn getlk(
        &self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, _: u64, _: u64, _: i32, _: u32, reply: ReplyLock,
    ) {
        reply.error(fuser::Errno::ENOSYS);
    }

    #[rustfmt::skip]
    fn setlk(
        &self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, _: u64, _: u64, _: i32, _: u32, _: bool,
        reply: ReplyEmpty,
    ) {
        reply.error(fuser::Errno::ENOSYS);
    }
}
