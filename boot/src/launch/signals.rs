//! Signals that the starter passes on.

use nix::sys::signal::{SigSet, Signal};

/// Signals with which the kernel tells a process of its own faults, those that cannot be caught, and those that the
/// starter needs itself.
const KEPT: [Signal; 11] = [
    Signal::SIGKILL,
    Signal::SIGSTOP,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGABRT,
    Signal::SIGPIPE,
    Signal::SIGTTIN,
];

/// Every signal that is taken through a descriptor: all but [`KEPT`], SIGTTOU and the real-time ones, which the
/// type does not know.
#[must_use]
pub(crate) fn watched() -> SigSet {
    let mut set = SigSet::all();
    for signal in KEPT {
        set.remove(signal);
    }
    set.remove(Signal::SIGTTOU);
    set
}

/// Whether a signal came from the kernel, as a terminal sends it to a whole group, and not from a process.
#[must_use]
pub(crate) fn from_kernel(code: i32) -> bool {
    /// `SI_KERNEL` of siginfo(2).
    const SI_KERNEL: i32 = 0x80;
    code == SI_KERNEL
}
