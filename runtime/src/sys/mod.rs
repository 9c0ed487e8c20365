//! System calls: the one place besides the libsquashfs FFI where `unsafe` stands. Every function here is
//! safe to call; what a caller must still know (one thread only, for instance) is checked or said.

pub mod capability;
pub mod clone_file;
pub mod descriptor;
pub mod heap;
pub mod inherited;
pub mod memfd;
pub mod mount;
pub mod network;
pub mod notifier;
pub mod process;
pub mod pty;
pub mod status;
pub mod title;
