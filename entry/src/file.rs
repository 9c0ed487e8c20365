//! The few operations on files that a start needs.

use core::mem::MaybeUninit;

use crate::kernel::{call, checked};

/// An open file; closed when it is dropped.
pub(crate) struct File(usize);

/// What statx(2) says of a file.
pub(crate) struct Status {
    pub(crate) owner: u32,
    pub(crate) len: u64,
    pub(crate) is_directory: bool,
}

impl File {
    /// Opens the file with this path, which ends with a NUL, for reading.
    #[inline(always)]
    pub(crate) fn open(path: &[u8], flags: i32) -> Option<Self> {
        if path.last() != Some(&0) {
            return None;
        }
        let here = libc::AT_FDCWD as usize;
        // SAFETY: the path is a string with its end.
        checked(unsafe { call(libc::SYS_openat, [here, path.as_ptr() as usize, flags as usize, 0, 0, 0]) }).map(Self)
    }

    #[inline(always)]
    pub(crate) fn descriptor(&self) -> usize {
        self.0
    }

    /// Reads what fits, from `offset` on.
    #[inline(always)]
    pub(crate) fn read_at<'a>(&self, place: &'a mut [MaybeUninit<u8>], offset: u64) -> Option<&'a [u8]> {
        let arguments = [self.0, place.as_mut_ptr() as usize, place.len(), offset as usize, 0, 0];
        // SAFETY: the kernel writes into `place` only.
        let len = checked(unsafe { call(libc::SYS_pread64, arguments) })?;
        let bytes = place.get(..len)?;
        // SAFETY: the kernel has written these.
        Some(unsafe { core::slice::from_raw_parts(bytes.as_ptr().cast(), len) })
    }

    #[inline(always)]
    pub(crate) fn status(&self) -> Option<Status> {
        status_of(self.0, b"\0", libc::AT_EMPTY_PATH)
    }

    /// The seals of a memfd; `None` for any other file.
    #[inline(always)]
    pub(crate) fn seals(&self) -> Option<i32> {
        // SAFETY: integers only.
        checked(unsafe { call(libc::SYS_fcntl, [self.0, libc::F_GET_SEALS as usize, 0, 0, 0, 0]) })
            .map(|seals| seals as i32)
    }

    /// A new memfd with the first `len` bytes of this file, sealed.
    #[inline(always)]
    pub(crate) fn sealed_copy(&self, len: u64, seals: i32) -> Option<Self> {
        let name = c"fim".as_ptr() as usize;
        let base = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // MFD_EXEC (Linux 6.3) says that execution is wanted; older kernels do not know it and need no word.
        // SAFETY: the name is a string with its end.
        let create = |flags: u32| checked(unsafe { call(libc::SYS_memfd_create, [name, flags as usize, 0, 0, 0, 0]) });
        let copy = Self(create(base | libc::MFD_EXEC).or_else(|| create(base))?);
        // SAFETY: integers only.
        checked(unsafe { call(libc::SYS_ftruncate, [copy.0, len as usize, 0, 0, 0, 0]) })?;
        self.read_ahead(len);
        let mut offset = 0_u64;
        while offset < len {
            let arguments = [copy.0, self.0, &raw mut offset as usize, (len - offset) as usize, 0, 0];
            // SAFETY: the kernel writes the new offset into `offset` only.
            if checked(unsafe { call(libc::SYS_sendfile, arguments) })? == 0 {
                return None;
            }
        }
        // SAFETY: integers only.
        checked(unsafe { call(libc::SYS_fcntl, [copy.0, libc::F_ADD_SEALS as usize, seals as usize, 0, 0, 0]) })?;
        Some(copy)
    }

    /// Asks for the first `len` bytes at once where they come from the medium: one after the other, each window of the
    /// kernel's own read-ahead would wait for the one before.
    #[inline(always)]
    fn read_ahead(&self, len: u64) {
        let mut byte = MaybeUninit::<u8>::uninit();
        let place = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        // In the middle, for execution has just read some of the beginning and of the end. (The last argument but one is
        // the upper half of the offset on machines of 32 bits.)
        let middle = (len / 2) as usize;
        let arguments = [self.0, &raw const place as usize, 1, middle, 0, libc::RWF_NOWAIT as usize];
        // SAFETY: the kernel writes one byte to where `place` says.
        if checked(unsafe { call(libc::SYS_preadv2, arguments) }).is_none() {
            // SAFETY: integers only. What comes of it does not matter.
            let _ = unsafe { call(libc::SYS_readahead, [self.0, 0, len as usize, 0, 0, 0]) };
        }
    }
}

impl Drop for File {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the descriptor is this value's own.
        unsafe { call(libc::SYS_close, [self.0, 0, 0, 0, 0, 0]) };
    }
}

/// statx(2) of a path that ends with a NUL.
#[inline(always)]
pub(crate) fn status_of(directory: usize, path: &[u8], flags: i32) -> Option<Status> {
    if path.last() != Some(&0) {
        return None;
    }
    let mut place = MaybeUninit::<libc::statx>::uninit();
    let mask = libc::STATX_BASIC_STATS as usize;
    let arguments = [directory, path.as_ptr() as usize, flags as usize, mask, place.as_mut_ptr() as usize, 0];
    // SAFETY: the path is a string with its end, and the kernel writes into `place` only.
    checked(unsafe { call(libc::SYS_statx, arguments) })?;
    let place = place.as_ptr();
    // SAFETY: the kernel has filled it; each field is read for itself, for a copy of the whole would be a call.
    let (owner, len, mode) = unsafe { ((*place).stx_uid, (*place).stx_size, (*place).stx_mode) };
    let is_directory = u32::from(mode) & libc::S_IFMT == libc::S_IFDIR;
    Some(Status { owner, len, is_directory })
}

/// Whether a descriptor is open.
#[inline(always)]
pub(crate) fn is_open(descriptor: usize) -> bool {
    // SAFETY: integers only.
    checked(unsafe { call(libc::SYS_fcntl, [descriptor, libc::F_GETFD as usize, 0, 0, 0, 0]) }).is_some()
}
