//! Tars become a squashfs. Nothing is extracted: the names grow into a tree in memory, so an archive cannot reach
//! anything outside it, and contents are read from where they lie in the archive.

mod builder;
mod decompress;
mod header;
mod pax;
mod reader;
mod sparse;
mod whiteout;

pub(super) use builder::{Builder, Stacking};
pub(super) use decompress::{Failure, Scratch};
pub use header::is_header;
pub(super) use header::{Archive, Type};

use super::contents::{Contents, Pending};
use super::{Error, Progress};
use crate::source::{ByteSource, FileRange};
use crate::squashfs::write::ContentWriter;
use std::path::Path;

/// The bytes of a regular file in an archive.
#[derive(Clone)]
pub(super) struct Bytes {
    range: FileRange,
    /// Where its bytes begin in the range.
    at: u64,
    size: u64,
    /// Ranges of the file that these bytes are: offset and length.
    data: sparse::Map,
}

impl Pending for Bytes {
    fn size(&self) -> u64 {
        self.size
    }

    fn stored(&self) -> u64 {
        self.data.iter().map(|(_, length)| length).sum()
    }
}

/// The contents of files that lie in archives. The path is that of the source, for messages.
pub(super) struct Archived<'a>(pub &'a Path);

impl Contents for Archived<'_> {
    type File = Bytes;

    fn peek(&self, file: &Bytes, _: &Path, offset: u64, len: usize) -> Option<Vec<u8>> {
        let len = usize::try_from(file.size.checked_sub(offset)?).unwrap_or(len).min(len);
        let (mut bytes, end) = (vec![0; len], offset + len as u64);
        let mut at = file.at;
        for &(start, length) in &file.data {
            let (from, to) = (start.max(offset), (start + length).min(end));
            if from < to {
                let target = &mut bytes[(from - offset) as usize..(to - offset) as usize];
                file.range.read_exact_at(target, at + (from - start)).ok()?;
            }
            at += length;
        }
        Some(bytes)
    }

    fn copy(
        &self,
        file: &Bytes,
        _: &Path,
        out: &mut ContentWriter<'_>,
        buffer: &mut [u8],
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let (mut written, mut at) = (0, file.at);
        for &(start, length) in &file.data {
            out.hole(start - written)?;
            progress.advance(start - written, 0);
            let mut left = length;
            while left > 0 {
                if progress.stopped() {
                    return Err(Error::Interrupted);
                }
                let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                file.range.read_exact_at(&mut buffer[..room], at).map_err(Error::read("read", self.0))?;
                out.write(&buffer[..room])?;
                progress.advance(room as u64, 0);
                (at, left) = (at + room as u64, left - room as u64);
            }
            written = start + length;
        }
        out.hole(file.size - written)?;
        progress.advance(file.size - written, 0);
        Ok(())
    }
}

/// Unpacks `range`, which is all or a part of the source and is called `path` in messages.
pub(super) fn unpack(
    range: FileRange,
    path: &Path,
    scratch: &mut Scratch,
    progress: &mut dyn Progress,
) -> Result<FileRange, Error> {
    scratch.unpack(range, progress).map_err(|failure| match failure {
        Failure::Read(error) => {
            let reason = describe(&error);
            Error::Tar { path: path.to_owned(), after: String::new(), reason }
        }
        Failure::Write(source) => Error::Scratch(source),
        Failure::Limit(before) => {
            Error::TooLarge { path: path.to_owned(), entry: last_entry(before), limit: scratch.limit() }
        }
        Failure::Interrupted => Error::Interrupted,
    })
}

/// The name of the last entry of which something is in `range`.
fn last_entry(range: FileRange) -> String {
    let (mut archive, mut last) = (Archive::naming(range), String::new());
    while let Ok(Some(member)) = archive.next() {
        last = member.path.escape_ascii().to_string();
    }
    last
}

/// An error with its sources in one line.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    crate::error::chain(error)
}

/// The parts of a path inside the archive. Leading `/` and `.` parts mean nothing; `..` is refused.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    let parts: Vec<_> = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) { Err("its name leads outside with ..") } else { Ok(parts) }
}
