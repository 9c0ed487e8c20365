//! The image file: superblock, config slots, layer index, digests.
