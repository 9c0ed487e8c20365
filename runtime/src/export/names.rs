//! Names looked up in the merged layers, without listing any directory.

use crate::content::Tree;
use crate::pack::startup::shell;
use crate::squashfs::Archive;

/// The interactive shell that the merged `layers`, bottom first, have: a path relative to the root.
#[must_use]
pub fn find_shell(layers: &[Archive]) -> Option<&'static [u8]> {
    // What is damaged is found by those who read it.
    shell(&Tree::new(layers))
}
