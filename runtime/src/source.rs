//! Random-access bytes that a layer is read from.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes of one layer, readable at any offset from any thread.
pub trait ByteSource: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether there is no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` with the bytes that begin at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the range leaves the source, `InvalidData` when a digest does not match, and
    /// whatever the medium reports.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

/// A range of a file, unverified.
#[derive(Debug, Clone)]
pub struct FileRange {
    file: Arc<File>,
    offset: u64,
    len: u64,
}

impl FileRange {
    /// The `len` bytes of `file` that begin at `offset`.
    #[must_use]
    pub fn new(file: Arc<File>, offset: u64, len: u64) -> Self {
        Self { file, offset, len }
    }

    /// A whole file.
    ///
    /// # Errors
    /// When its size cannot be read.
    pub fn whole(file: Arc<File>) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, offset: 0, len })
    }
}

impl FileRange {
    /// The `len` bytes that begin at `offset` of this range; fewer where the range ends before.
    #[must_use]
    pub fn part(&self, offset: u64, len: u64) -> Self {
        let offset = offset.min(self.len);
        Self { file: Arc::clone(&self.file), offset: self.offset + offset, len: len.min(self.len - offset) }
    }
}

impl ByteSource for FileRange {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(buf, self.offset + offset)
    }
}

impl ByteSource for Vec<u8> {
    fn len(&self) -> u64 {
        Vec::len(self) as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
