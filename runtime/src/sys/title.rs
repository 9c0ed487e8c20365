//! What ps(1) shows of a process: its name and its argument vector.

use std::ffi::CString;

use super::process;

/// Name and arguments of the calling process as ps(1) shows them. The argument area is overwritten in place, so a
/// title longer than the arguments the process was started with is cut.
pub fn set(name: &str, arguments: &[u8]) {
    let short: Vec<u8> = name.bytes().filter(|&byte| byte != 0).take(15).collect();
    if let Ok(short) = CString::new(short) {
        // A name that cannot be set is only cosmetic.
        let _ = nix::sys::prctl::set_name(&short);
    }
    overwrite_arguments(arguments);
}

/// Overwrites the argument area of the calling process and clears the rest of it.
pub fn overwrite_arguments(arguments: &[u8]) {
    let Some((start, len)) = argument_area() else { return };
    let used = arguments.len().min(len.saturating_sub(1));
    // SAFETY: the kernel reports [start, start + len) as the argument strings of this very process (proc_pid_stat(5),
    // arg_start and arg_end). They lie on its own initial stack, which is mapped writable for the life of the process.
    // std has copied nothing but pointers to them; `std::env::args_os` is not called after a title is set.
    unsafe {
        std::ptr::copy_nonoverlapping(arguments.as_ptr(), start as *mut u8, used);
        std::ptr::write_bytes((start + used) as *mut u8, 0, len - used);
    }
}

/// Start address and length in bytes of the argument strings.
fn argument_area() -> Option<(usize, usize)> {
    let mut buffer = [0; process::STAT_LIMIT];
    let stat = process::read_stat("self", &mut buffer).ok()?;
    let rest = &stat[stat.iter().rposition(|&byte| byte == b')')? + 1..];
    let mut fields = rest.split(|&byte| byte == b' ').filter(|field| !field.is_empty());
    // Fields 48 and 49 of proc_pid_stat(5); `rest` begins with field 3.
    let start: usize = std::str::from_utf8(fields.nth(45)?).ok()?.parse().ok()?;
    let end: usize = std::str::from_utf8(fields.next()?).ok()?.trim().parse().ok()?;
    (start != 0 && end > start).then(|| (start, end - start))
}
