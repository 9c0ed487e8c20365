//! Squashfs 4.0: our own lazy reader, and writing through libsquashfs.

pub mod write;
