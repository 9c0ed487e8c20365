//! System calls: the one place besides the libsquashfs FFI where `unsafe` stands.

pub mod clone_file;
