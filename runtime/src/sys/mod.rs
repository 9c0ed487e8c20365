//! System calls: the one place besides the libsquashfs FFI where `unsafe` stands.
