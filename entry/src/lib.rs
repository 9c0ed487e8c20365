//! The first stage of a start: what the program does before the C library begins.
//!
//! A start executes the image file, which has to be free for writing while it runs, and therefore executes itself again
//! from a sealed copy in memory (`boot/src/stage.rs` tells why). Beginning the C library costs a start up to 0.8 ms,
//! most of it for questions to the processor (CPUID) that a virtual machine answers slowly, and the first of the two
//! executions needs none of it. So the program's entry point is here, before the C library's own: it looks whether this
//! is a plain start of an image, and if so takes the session's sealed copy, or makes one, and executes it.
//!
//! Whatever is not plain (another command, a closed standard stream, data in another place than the usual, a file
//! system that answers with an error) returns to the C library's entry point without a trace, and the second, complete
//! implementation in `boot` decides; so there are no errors to report here.
//!
//! Nothing here may need relocation, thread-local storage or a function of the C library, for none of them is ready:
//! no panics, no tables of pointers, no `memcpy`. The crate is compiled without built-in functions and always
//! optimised, everything is inlined into one section, and `.ci/run` looks that no instruction there calls out of it.

#![cfg_attr(not(test), no_std)]
#![no_builtins]

mod bytes;
mod file;
mod image;
mod kernel;
mod session;
mod start;

use core::arch::global_asm;

// The kernel enters with the stack pointer at the argument count (System V ABI, "Initial Stack"); the C library's
// entry point gets the very same stack and, in place of a function to call at exit, nothing.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .fim.entry,\"ax\",@progbits",
    ".globl fim_entry",
    ".type fim_entry,@function",
    "fim_entry:",
    "xor ebp, ebp",
    "mov rbx, rsp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {first}",
    "mov rsp, rbx",
    "xor edx, edx",
    "jmp _start",
    ".popsection",
    first = sym first,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .fim.entry,\"ax\",@progbits",
    ".globl fim_entry",
    ".type fim_entry,@function",
    "fim_entry:",
    "mov x19, sp",
    "mov x0, sp",
    "bl {first}",
    "mov sp, x19",
    "mov x0, #0",
    "b _start",
    ".popsection",
    first = sym first,
);

/// Becomes the second stage, or returns.
///
/// # Safety
/// `stack` is the stack pointer that the kernel gave to a new program.
#[unsafe(link_section = ".fim.entry")]
unsafe extern "C" fn first(stack: *const usize) {
    // SAFETY: as promised by the caller.
    let command = unsafe { start::Command::new(stack) };
    let _ = start::become_second_stage(&command);
}
