//! Any bytes as a squashfs archive: inodes, directories, xattrs and blocks are asked for, nothing may panic.

#![no_main]

#[path = "../../runtime/tests/squashfs_walk/mod.rs"]
mod squashfs_walk;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    squashfs_walk::walk(bytes.to_vec());
});
