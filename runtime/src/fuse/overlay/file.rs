//! Contents and attributes of files.
//!
//! The kernel opens and closes files without us. One open file of the upper directory serves every open file of the guest
//! that is the same: what one writes, the other reads, also when it was opened while the file still lay in a layer. It is
//! opened by the first request that needs it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use fuser::{FileAttr, TimeOrNow};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};

use super::super::reader::Answer;
use super::node::{Node, ROOT};
use super::stack::Overlay;
use super::upper::errno;
use crate::squashfs::Kind;

/// What setattr changes.
pub(super) struct Change {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) atime: Option<TimeOrNow>,
    pub(super) mtime: Option<TimeOrNow>,
}

impl Change {
    fn is_owner(&self) -> bool {
        self.uid.is_some() || self.gid.is_some()
    }

    fn times(&self) -> Option<(TimeSpec, TimeSpec)> {
        let spec = |time: &Option<TimeOrNow>| match time {
            None => TimeSpec::UTIME_OMIT,
            Some(TimeOrNow::Now) => TimeSpec::UTIME_NOW,
            Some(TimeOrNow::SpecificTime(time)) => match time.duration_since(std::time::UNIX_EPOCH) {
                Ok(after) => TimeSpec::from_duration(after),
                // Nanoseconds count forwards before 1970, too.
                Err(before) => {
                    let before = before.duration();
                    let (seconds, rest) = (before.as_secs() as i64, i64::from(before.subsec_nanos()));
                    if rest == 0 {
                        TimeSpec::new(-seconds, 0)
                    } else {
                        TimeSpec::new(-seconds - 1, 1_000_000_000 - rest)
                    }
                }
            },
        };
        (self.atime.is_some() || self.mtime.is_some()).then(|| (spec(&self.atime), spec(&self.mtime)))
    }
}

/// A file for the time of one request.
pub(super) enum Source {
    Upper(Arc<File>),
    Lower,
}

/// A file that somebody without privileges over the host changes loses its set-user-ID and set-group-ID bits
/// (`FUSE_HANDLE_KILLPRIV_V2`); the kernel sees to file capabilities.
fn drop_set_id_bits(file: &File) -> Result<(), Errno> {
    let mode = nix::sys::stat::fstat(file)?.st_mode;
    let executable_group = mode & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP;
    if mode & libc::S_ISUID == 0 && !executable_group {
        return Ok(());
    }
    let dropped = libc::S_ISUID | if executable_group { libc::S_ISGID } else { 0 };
    fchmod(file, Mode::from_bits_truncate(mode & 0o7777 & !dropped))
}

impl Overlay {
    /// Takes over a file of the upper directory that was just opened, for writing.
    pub(super) fn opened(&self, node: &Arc<Node>, file: File) {
        node.state().file = Some((Arc::new(file), true));
        self.has_opened(node);
    }

    /// The open file of a node that lies in the upper directory; names stay as they are meanwhile.
    pub(super) fn upper_file(&self, node: &Arc<Node>, writes: bool) -> Result<Arc<File>, Errno> {
        if let Some((file, open)) = &node.state().file
            && (*open || !writes)
        {
            return Ok(Arc::clone(file));
        }
        let (directory, name) = self.at(node)?;
        let flags = if writes { OFlag::O_RDWR } else { OFlag::O_RDONLY };
        let file = Arc::new(self.upper.open_file(&directory, &name, flags)?);
        let mut state = node.state();
        if state.file.as_ref().is_none_or(|(_, open)| writes && !open) {
            state.file = Some((Arc::clone(&file), writes));
        }
        drop(state);
        self.has_opened(node);
        Ok(file)
    }

    pub(super) fn source(&self, node: &Arc<Node>, writes: bool) -> Result<Source, Errno> {
        if node.state().upper.is_none() {
            return Ok(Source::Lower);
        }
        let _still = self.still();
        self.upper_file(node, writes).map(Source::Upper)
    }

    /// The bytes of a file from `offset` on, in `joined` or in a block of the layer.
    pub(super) fn read<'a>(
        &self,
        node: &Arc<Node>,
        offset: u64,
        len: u32,
        joined: &'a mut Vec<u8>,
    ) -> Result<Answer<'a>, Errno> {
        match self.source(node, false)? {
            Source::Upper(file) => {
                joined.resize(len as usize, 0);
                let mut filled = 0;
                while filled < joined.len() {
                    match file.read_at(&mut joined[filled..], offset + filled as u64) {
                        Ok(0) => break,
                        Ok(count) => filled += count,
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(errno(&error)),
                    }
                }
                joined.truncate(filled);
                Ok(Answer::Joined(joined))
            }
            Source::Lower => {
                let place = *node.state().lower.first().ok_or(Errno::EIO)?;
                let (layer, inode) = match self.reader.remembered(place.number()) {
                    Some(known) => known,
                    None => (place.layer, Arc::new(self.inode(place)?)),
                };
                let answer = self.reader.read(place.number(), layer, &inode, offset, len, joined);
                answer.map_err(|errno| Errno::from_raw(errno.code()))
            }
        }
    }

    /// Writes; `drops` is whether the file then loses what makes it run as its owner.
    pub(super) fn write(&self, node: &Arc<Node>, offset: u64, bytes: &[u8], drops: bool) -> Result<u32, Errno> {
        // A page that was made dirty through a mapping may come after the file was copied up by another.
        self.copy_up(node, u64::MAX)?;
        let Source::Upper(file) = self.source(node, true)? else { return Err(Errno::EBADF) };
        if drops {
            drop_set_id_bits(&file)?;
        }
        file.write_all_at(bytes, offset).map_err(|error| errno(&error))?;
        u32::try_from(bytes.len()).map_err(|_| Errno::EINVAL)
    }

    pub(super) fn sync(&self, node: &Arc<Node>, data_only: bool) -> Result<(), Errno> {
        if node.state().upper.is_none() {
            return Ok(());
        }
        if node.is_directory {
            let _still = self.still();
            return nix::unistd::fsync(&*self.directory(node)?);
        }
        let Source::Upper(file) = self.source(node, false)? else { return Ok(()) };
        if data_only { nix::unistd::fdatasync(&*file) } else { nix::unistd::fsync(&*file) }
    }

    pub(super) fn allocate(&self, node: &Arc<Node>, mode: i32, offset: u64, len: u64) -> Result<(), Errno> {
        self.copy_up(node, u64::MAX)?;
        let Source::Upper(file) = self.source(node, true)? else { return Err(Errno::EBADF) };
        let number = |value: u64| i64::try_from(value).map_err(|_| Errno::EFBIG);
        nix::fcntl::fallocate(&*file, FallocateFlags::from_bits_retain(mode), number(offset)?, number(len)?)
    }

    /// copy_file_range(2) between two files of the upper directory, which lets the file system share the blocks.
    pub(super) fn copy_range(&self, from: (&Arc<Node>, u64), to: (&Arc<Node>, u64), len: u64) -> Result<usize, Errno> {
        self.copy_up(to.0, u64::MAX)?;
        let (Source::Upper(source), Source::Upper(target)) = (self.source(from.0, false)?, self.source(to.0, true)?)
        else {
            // The kernel copies through its cache then.
            return Err(Errno::EOPNOTSUPP);
        };
        let number = |value: u64| i64::try_from(value).map_err(|_| Errno::EFBIG);
        let (mut source_offset, mut target_offset) = (number(from.1)?, number(to.1)?);
        // What is answered is counted in 32 bits.
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(1 << 30);
        nix::fcntl::copy_file_range(&*source, Some(&mut source_offset), &*target, Some(&mut target_offset), len)
    }

    /// Changes attributes; returns all of them.
    pub(super) fn change(&self, node: &Arc<Node>, change: &Change) -> Result<FileAttr, Errno> {
        self.copy_up(node, change.size.unwrap_or(u64::MAX))?;
        if let Some(size) = change.size {
            let Source::Upper(file) = self.source(node, true)? else { return Err(Errno::EIO) };
            drop_set_id_bits(&file)?;
            file.set_len(size).map_err(|error| errno(&error))?;
        }
        let _still = self.still();
        let open = node.state().file.clone().map(|(file, _)| file);
        let mode = change.mode.map(|mode| Mode::from_bits_truncate(mode & 0o7777));
        let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
        // The owner first: changing it takes bits of the mode away.
        if node.number == ROOT {
            let root = &self.upper.root;
            if change.is_owner() {
                fchown(root, uid, gid)?;
            }
            mode.map_or(Ok(()), |mode| fchmod(root, mode))?;
            change.times().map_or(Ok(()), |(atime, mtime)| futimens(root, &atime, &mtime))?;
        } else if let Some(file) = open {
            if change.is_owner() {
                fchown(&*file, uid, gid)?;
            }
            mode.map_or(Ok(()), |mode| fchmod(&*file, mode))?;
            change.times().map_or(Ok(()), |(atime, mtime)| futimens(&*file, &atime, &mtime))?;
        } else {
            let (directory, name) = self.at(node)?;
            let stored = self.upper.marks.stored(&name);
            let (at, name) = (&*directory, &stored[..]);
            if change.is_owner() {
                nix::unistd::fchownat(at, name, uid, gid, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?;
            }
            if let Some(mode) = mode {
                if self.is_symlink(node)? {
                    return Err(Errno::EOPNOTSUPP);
                }
                fchmodat(at, name, mode, FchmodatFlags::FollowSymlink)?;
            }
            if let Some((atime, mtime)) = change.times() {
                utimensat(at, name, &atime, &mtime, UtimensatFlags::NoFollowSymlink)?;
            }
        }
        self.attributes_of(node)
    }

    fn is_symlink(&self, node: &Arc<Node>) -> Result<bool, Errno> {
        Ok(self.attributes_of(node)?.kind == fuser::FileType::Symlink)
    }

    pub(super) fn target(&self, node: &Arc<Node>) -> Result<Vec<u8>, Errno> {
        if node.state().upper.is_some() {
            let _still = self.still();
            let (directory, name) = self.at(node)?;
            let target = nix::fcntl::readlinkat(&*directory, &self.upper.marks.stored(&name)[..])?;
            return Ok(std::os::unix::ffi::OsStringExt::into_vec(target));
        }
        let place = *node.state().lower.first().ok_or(Errno::EINVAL)?;
        match self.inode(place)?.kind {
            Kind::Symlink { target, .. } => Ok(target),
            _ => Err(Errno::EINVAL),
        }
    }
}
