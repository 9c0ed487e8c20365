//! What a start has to know of its own file: `docs/FORMAT.md` specifies it, `runtime::image` reads all of it.

use core::mem::MaybeUninit;

use crate::bytes::{equal, integer};
use crate::file::File;

/// Length of an ELF64 section header in bytes (elf(5)).
const SECTION_LEN: u64 = 64;
const PAGE: u64 = 4096;

/// The program's own file, which is an image.
pub(crate) struct Image {
    pub(crate) file: File,
    /// Length of the program in bytes.
    pub(crate) elf_len: u64,
    pub(crate) uuid: [u8; 16],
}

impl Image {
    /// Opens the file that is being executed; it stays open across the execution of another. `None` when it is no
    /// image, or is not laid out as the builder does it.
    #[inline(always)]
    pub(crate) fn open() -> Option<Self> {
        let file = File::open(b"/proc/self/exe\0", libc::O_RDONLY)?;
        let mut place = [MaybeUninit::uninit(); 64];
        let header = file.read_at(&mut place, 0)?;
        if !equal(header.get(8..11)?, b"FI\x01") {
            return None;
        }
        // The section headers are the last part of a program that was linked and stripped.
        let sections = integer(header, 60, 2)?.checked_mul(SECTION_LEN)?;
        let end = integer(header, 40, 8)?.checked_add(sections)?;
        let mut place = [MaybeUninit::uninit(); 40];
        let superblock = file.read_at(&mut place, end.checked_next_multiple_of(PAGE)?)?;
        let elf_len = integer(superblock, 32, 8)?;
        if !equal(superblock.get(..8)?, b"\x89FIM\r\n\x1a\n") || elf_len != end {
            return None;
        }
        let mut uuid = [0; 16];
        for (byte, found) in uuid.iter_mut().zip(superblock.get(16..32)?) {
            *byte = *found;
        }
        Some(Self { file, elf_len, uuid })
    }
}
