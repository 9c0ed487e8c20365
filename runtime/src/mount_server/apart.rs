//! Work that waits for the mount which this very process serves.

use std::io;

use crate::sys::descriptor;

/// Runs `work`, which has no use for the descriptors of this process, on a thread with a table of descriptors of its own.
///
/// Should the process be killed, the threads that serve end at once. One that waits for an answer of theirs ends when the
/// device is closed, and would keep the device open itself if it shared their table: nobody would ever answer, nor be
/// told that nobody will, and the locks of the session would stay with what cannot be killed.
///
/// # Errors
/// When there can be no other thread, or no other table.
pub(super) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("apart".to_owned()).spawn_scoped(scope, || {
            descriptor::own_empty_table()?;
            Ok(work())
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
    })
}
