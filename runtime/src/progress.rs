//! Long work tells how far it is, and asks whether it should go on.

/// Hears how packing or extracting goes on. Called from the thread that began the work.
pub trait Progress {
    /// Once, before the first [`Progress::advance`]: bytes of file contents and regular files to come, where known.
    fn total(&mut self, bytes: Option<u64>, files: Option<u64>);

    /// So many more bytes and files are done.
    fn advance(&mut self, bytes: u64, files: u64);

    /// Whether the work shall end here. Asked every few MiB; the work then fails as interrupted.
    fn stopped(&self) -> bool {
        false
    }
}

/// Nobody listens.
impl Progress for () {
    fn total(&mut self, _: Option<u64>, _: Option<u64>) {}
    fn advance(&mut self, _: u64, _: u64) {}
}
