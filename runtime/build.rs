//! No link lines for the program. libsquashfs itself is named by the squashfs-ng crate, and of its archive only objects
//! are used that need no compression library: the zstd we compress with is the one that zstd-sys builds.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The integration tests compare with libsquashfs's own reader, which knows every compressor. Debian's
    // libsquashfs-dev brings these archives along. Named in full, for a plain name would find the shared library here.
    for library in ["lzma", "z", "lz4", "zstd"] {
        println!("cargo:rustc-link-arg-tests=-l:lib{library}.a");
    }
}
