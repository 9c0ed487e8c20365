//! Deliberately without link lines. libsquashfs itself is named by the squashfs-ng crate, and of its archive only
//! objects are used that need no compression library: the zstd we compress with is the one that zstd-sys builds.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
