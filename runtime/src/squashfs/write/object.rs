//! Ownership of what libsquashfs allocates.

use super::ffi;
use super::{Error, LibraryFailure};
use num_traits::FromPrimitive;
use std::ffi::c_int;
use std::ptr::{NonNull, null_mut};

/// Owns one libsquashfs object and destroys it when dropped.
pub struct Owned<T>(NonNull<T>);

impl<T> Owned<T> {
    /// Takes over what a `sqfs_*_create` function returned.
    ///
    /// # Safety
    /// `object` is null or the only owner of a live object that begins with an `sqfs_object_t`, and whatever
    /// it borrows outlives the result.
    pub unsafe fn new(object: *mut T, action: &'static str) -> Result<Self, Error> {
        match NonNull::new(object) {
            Some(object) => Ok(Self(object)),
            None => Err(Error::Library { action, source: LibraryFailure::Known(squashfs_ng::LibError::Alloc) }),
        }
    }

    /// The object, for a call into libsquashfs.
    pub fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        let object = self.0.as_ptr().cast::<ffi::Object>();
        // SAFETY: `new` demands a live object with this header, and this is its only owner.
        unsafe {
            if let Some(destroy) = (*object).destroy {
                destroy(object);
            }
        }
    }
}

/// Turns the return code of a libsquashfs function into a result.
pub fn check(action: &'static str, code: c_int) -> Result<(), Error> {
    if code == 0 {
        return Ok(());
    }
    let source = squashfs_ng::LibError::from_i32(code).map_or(LibraryFailure::Unknown(code), LibraryFailure::Known);
    Err(Error::Library { action, source })
}

const CHUNK: usize = 1024;

/// Places for inode pointers. libsquashfs keeps the address of a place and updates it while blocks are in
/// flight, so places never move, and they are freed only after the block processor is gone.
#[derive(Default)]
pub struct Slots {
    chunks: Vec<NonNull<[*mut ffi::Inode; CHUNK]>>,
    used: usize,
}

impl Slots {
    /// A fresh place: its index and its address.
    pub fn push(&mut self) -> (u32, *mut *mut ffi::Inode) {
        if self.used == self.chunks.len() * CHUNK {
            self.chunks.push(NonNull::from(Box::leak(Box::new([null_mut(); CHUNK]))));
        }
        let index = self.used;
        self.used += 1;
        // One place per file content; the tree holds fewer than 2^32 files.
        (index as u32, self.place(index))
    }

    /// The inode in a place. Complete only after the block processor has finished.
    pub fn get(&self, index: u32) -> *const ffi::Inode {
        // SAFETY: `place` is a live element; libsquashfs writes to it only during calls made by this thread.
        unsafe { *self.place(index as usize) }
    }

    fn place(&self, index: usize) -> *mut *mut ffi::Inode {
        let chunk = self.chunks[index / CHUNK].as_ptr().cast::<*mut ffi::Inode>();
        // SAFETY: the remainder is below CHUNK, so this stays inside the array.
        unsafe { chunk.add(index % CHUNK) }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        for index in 0..self.used {
            // SAFETY: every place holds null or an inode that libsquashfs allocated and left to us.
            unsafe { ffi::sqfs_free((*self.place(index)).cast()) };
        }
        for chunk in self.chunks.drain(..) {
            // SAFETY: leaked in `push`, given back exactly once.
            drop(unsafe { Box::from_raw(chunk.as_ptr()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_the_texts_of_the_library() {
        let text = |code| {
            let error = check("testing", code).unwrap_err();
            format!("{error}: {}", std::error::Error::source(&error).unwrap())
        };
        assert_eq!(text(-2), "libsquashfs failed while testing: Generic I/O failure");
        assert_eq!(text(-99), "libsquashfs failed while testing: unknown error -99");
        check("testing", 0).unwrap();
    }

    #[test]
    fn places_do_not_move() {
        let mut slots = Slots::default();
        let first: Vec<_> = (0..3 * CHUNK).map(|_| slots.push()).collect();
        for (index, address) in first {
            assert_eq!(slots.place(index as usize), address);
            assert!(slots.get(index).is_null());
        }
    }
}
