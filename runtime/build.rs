//! Link lines of the C libraries, here so that the unit tests of this crate link too.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // libsquashfs itself is named by the squashfs-ng crate; these are what its archive refers to.
    for library in ["zstd", "lzma", "z", "lz4", "lzo2", "bz2"] {
        println!("cargo:rustc-link-lib={library}");
    }
}
