//! Writing squashfs through libsquashfs (the only FFI of the project).
