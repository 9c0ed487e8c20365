//! Packing: a directory, a tar or a squashfs becomes the first layer of an image.
