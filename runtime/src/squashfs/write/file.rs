//! The `sqfs_file_t` that libsquashfs writes through: a range of a file that begins at any offset.

use super::ffi;
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

/// The archive as libsquashfs sees it: byte 0 is the superblock, wherever that is in the real file.
#[repr(C)]
struct State {
    /// First, so that a pointer to the state is a pointer to the `sqfs_file_t`.
    interface: ffi::File,
    file: File,
    start: u64,
    size: u64,
    /// The reason behind the last `SQFS_ERROR_IO`, which has no room for it.
    error: Option<io::Error>,
}

/// Owns the state; libsquashfs borrows it through [`Target::as_ptr`].
pub struct Target(NonNull<State>);

impl Target {
    /// A new, empty archive in `file` at byte `start`.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn new(file: &File, start: u64) -> io::Result<Self> {
        let state = Box::new(State {
            interface: ffi::File {
                base: ffi::Object { destroy: None, copy: None },
                read_at,
                write_at,
                get_size,
                truncate,
            },
            file: file.try_clone()?,
            start,
            size: 0,
            error: None,
        });
        Ok(Self(NonNull::from(Box::leak(state))))
    }

    /// The interface for libsquashfs; valid as long as `self` lives.
    pub fn as_ptr(&self) -> *mut ffi::File {
        self.0.as_ptr().cast()
    }

    /// Bytes in the archive so far.
    pub fn size(&self) -> u64 {
        // SAFETY: the state lives until `self` is dropped, and libsquashfs uses it only during calls made
        // by the thread that owns `self` (workers compress, they never touch the file).
        unsafe { (*self.0.as_ptr()).size }
    }

    /// The reason of the last input or output error, once.
    pub fn take_error(&mut self) -> Option<io::Error> {
        // SAFETY: as in `size`; no call into libsquashfs is running, since `self` is borrowed exclusively.
        unsafe { (*self.0.as_ptr()).error.take() }
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// What the file reports.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: as in `take_error`.
        let state = unsafe { &mut *self.0.as_ptr() };
        state.file.write_all_at(bytes, state.start + state.size)?;
        state.size += bytes.len() as u64;
        Ok(())
    }

    /// Cuts the file behind the archive and pads it with zeros to a multiple of `unit` bytes.
    ///
    /// # Errors
    /// What the file reports.
    pub fn pad(&mut self, unit: u64) -> io::Result<u64> {
        // SAFETY: as in `take_error`.
        let state = unsafe { &mut *self.0.as_ptr() };
        let padded = state.size.next_multiple_of(unit);
        state.file.set_len(state.start + state.size)?;
        state.file.set_len(state.start + padded)?;
        Ok(padded)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a leaked box in `new` and is given back exactly once; the writer
        // drops every libsquashfs object that knows the pointer before this.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

unsafe extern "C" fn read_at(file: *mut ffi::File, offset: u64, buffer: *mut c_void, size: usize) -> c_int {
    // SAFETY: libsquashfs hands back the pointer of `Target::as_ptr`, which is the state's own address.
    let state = unsafe { &mut *file.cast::<State>() };
    // SAFETY: the contract of `sqfs_file_t.read_at`: `buffer` has room for `size` bytes. It may be fresh
    // from malloc, but u8 has no invalid value and `read_exact_at` only writes to it.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), size) };
    match state.file.read_exact_at(buffer, state.start + offset) {
        Ok(()) => 0,
        Err(error) => {
            state.error = Some(error);
            ffi::ERROR_IO
        }
    }
}

unsafe extern "C" fn write_at(file: *mut ffi::File, offset: u64, buffer: *const c_void, size: usize) -> c_int {
    // SAFETY: as in `read_at`.
    let state = unsafe { &mut *file.cast::<State>() };
    if size == 0 {
        return 0;
    }
    // SAFETY: the contract of `sqfs_file_t.write_at`: `buffer` holds `size` initialised bytes.
    let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), size) };
    match state.file.write_all_at(bytes, state.start + offset) {
        Ok(()) => {
            state.size = state.size.max(offset + size as u64);
            0
        }
        Err(error) => {
            state.error = Some(error);
            ffi::ERROR_IO
        }
    }
}

unsafe extern "C" fn get_size(file: *const ffi::File) -> u64 {
    // SAFETY: as in `read_at`, for reading.
    unsafe { (*file.cast::<State>()).size }
}

/// Only the size is remembered: the block writer truncates to drop a duplicate and goes on writing there.
unsafe extern "C" fn truncate(file: *mut ffi::File, size: u64) -> c_int {
    // SAFETY: as in `read_at`.
    unsafe { (*file.cast::<State>()).size = size };
    0
}
