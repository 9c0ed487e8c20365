//! The sealed program of the live session, which a start that joins executes instead of a copy of its own:
//! `boot::launch::session::program` by the same rules.

use core::mem::MaybeUninit;

use crate::bytes::{Text, after, equal, number, until};
use crate::file::{File, status_of};
use crate::image::Image;
use crate::kernel::call;

/// The seals of a program that cannot be changed any more.
pub(crate) const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// Room for a path and what is appended to it.
pub(crate) const PATH: usize = libc::PATH_MAX as usize + 64;

/// Whether data has been kept in this directory before.
#[inline(always)]
pub(crate) fn is_used(data: &[u8]) -> Option<bool> {
    let mut path = Text::<PATH>::new();
    path.push(data)?.push(b"/root\0")?;
    Some(status_of(libc::AT_FDCWD as usize, path.as_bytes(), 0).is_some_and(|status| status.is_directory))
}

/// The program of the session that uses this data directory; `None` when there is no such session, or it is of
/// something else.
#[inline(always)]
pub(crate) fn program(data: &[u8], image: &Image) -> Option<File> {
    let mut path = Text::<PATH>::new();
    path.push(data)?.push(b"/session.lock\0")?;
    let record = File::open(path.as_bytes(), libc::O_RDONLY | libc::O_CLOEXEC)?;
    let mut place = [MaybeUninit::uninit(); 128];
    let rest = after(record.read_at(&mut place, 0)?, b"fim-session 1\n")?;
    let (server, rest) = until(rest, b' ')?;
    let (started, rest) = until(rest, b'\n')?;
    let (uuid, _) = until(rest, b'\n')?;
    if !is_uuid(uuid, &image.uuid) {
        return None;
    }
    let server = number(server)?;
    let mut path = Text::<64>::new();
    path.push(b"/proc/")?.push_number(server)?.push(b"/exe\0")?;
    let program = File::open(path.as_bytes(), libc::O_RDONLY | libc::O_CLOEXEC)?;
    let status = program.status()?;
    // SAFETY: no arguments.
    let caller = unsafe { call(libc::SYS_geteuid, [0; 6]) };
    let ours = status.len == image.elf_len
        && i64::from(status.owner) == caller as i64
        && program.seals()? & SEALS == SEALS
        && has_started(server, started)?;
    ours.then_some(program)
}

/// Whether `text` is these bytes in hexadecimal digits.
#[inline(always)]
fn is_uuid(text: &[u8], uuid: &[u8; 16]) -> bool {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
    let expected = uuid.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte & 15)]);
    text.len() == 32 && text.iter().zip(expected).all(|(&found, expected)| found == expected)
}

/// Whether the process with this number is the one that started at this time (field 22 of proc_pid_stat(5)).
#[inline(always)]
fn has_started(process: u64, started: &[u8]) -> Option<bool> {
    let mut path = Text::<64>::new();
    path.push(b"/proc/")?.push_number(process)?.push(b"/stat\0")?;
    let mut place = [MaybeUninit::uninit(); 1024];
    let stat = File::open(path.as_bytes(), libc::O_RDONLY | libc::O_CLOEXEC)?.read_at(&mut place, 0)?;
    // The command name, in parentheses, may hold anything; the fields behind it are counted from the third.
    let name = stat.iter().rposition(|&byte| byte == b')')?;
    let mut rest = stat.get(name + 1..)?;
    for _ in 0..20 {
        (_, rest) = until(rest, b' ')?;
    }
    Some(equal(until(rest, b' ')?.0, started))
}
