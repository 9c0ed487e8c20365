//! Sealed in-memory files: the copy of the program that every role runs from.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// The seals a program copy carries: it can be neither changed nor resized, nor can seals be removed.
#[must_use]
pub fn program_seals() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

/// Copies the first `len` bytes of `program` to a sealed, executable memfd.
///
/// # Errors
/// `ENOMEM`, `ENOSYS`; `EACCES` where `vm.memfd_noexec` forbids executable ones; I/O errors of the file.
pub fn copy_program(program: &File, len: u64) -> io::Result<File> {
    // MFD_EXEC (Linux 6.3) says that execution is wanted; older kernels do not know it and need no word.
    let exec = MFdFlags::from_bits_retain(libc::MFD_EXEC);
    let base = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memfd = match memfd_create(c"fim", base | exec) {
        Err(Errno::EINVAL) => memfd_create(c"fim", base)?,
        other => other?,
    };
    let memfd = File::from(memfd);
    memfd.set_len(len)?;
    let mut offset: libc::off_t = 0;
    while (offset as u64) < len {
        let left = usize::try_from(len - offset as u64).unwrap_or(usize::MAX);
        if nix::sys::sendfile::sendfile(&memfd, program, Some(&mut offset), left)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    fcntl(&memfd, FcntlArg::F_ADD_SEALS(program_seals()))?;
    Ok(memfd)
}

/// Whether `file` is a memfd that carries all [`program_seals`].
#[must_use]
pub fn is_sealed_program(file: impl AsFd) -> bool {
    fcntl(file, FcntlArg::F_GET_SEALS).is_ok_and(|bits| SealFlag::from_bits_truncate(bits).contains(program_seals()))
}
