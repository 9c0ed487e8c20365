//! Compressed archives, unpacked into a scratch file: an archive is read more than once and in any order.

use super::reader::Reader;
use crate::pack::Progress;
use crate::pack::source::Compression;
use crate::source::FileRange;
use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use zstd_safe::{DCtx, InBuffer, OutBuffer};

/// Bytes unpacked between two questions whether to go on.
const STEP: usize = 1 << 20;

/// Why something was not unpacked.
#[derive(Debug)]
pub enum Failure {
    /// The compressed bytes are damaged, or cannot be read.
    Read(io::Error),
    /// The scratch file cannot be written.
    Write(io::Error),
    /// There is more than may be unpacked; what came before is in the range.
    Limit(FileRange),
    /// The listener wanted no more.
    Interrupted,
}

/// Room for what is unpacked, and how much it may be.
pub struct Scratch {
    file: Arc<File>,
    used: u64,
    limit: u64,
    left: u64,
}

impl Scratch {
    /// Room in `file`, which must be empty, for up to `limit` bytes.
    pub fn new(file: File, limit: u64) -> Self {
        Self { file: Arc::new(file), used: 0, limit, left: limit }
    }

    /// Bytes that may be unpacked in all.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Counts `bytes` that come into being without being unpacked: holes. False when they are too many.
    pub fn allow(&mut self, bytes: u64) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    /// What is compressed in `range`, or `range` itself when it is not compressed.
    pub fn unpack(&mut self, range: FileRange, progress: &mut dyn Progress) -> Result<FileRange, Failure> {
        let mut input = Reader::new(range.clone());
        let mut input: Box<dyn Read> = match Compression::detect(input.fill_buf().map_err(Failure::Read)?) {
            Compression::None => return Ok(range),
            Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
            Compression::Xz => Box::new(XzDecoder::new_multi_decoder(input)),
            Compression::Zstd => Box::new(Zstd::new(input).map_err(Failure::Read)?),
        };
        let start = self.used;
        let mut buffer = vec![0; STEP];
        loop {
            if progress.stopped() {
                return Err(Failure::Interrupted);
            }
            let count = match input.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(Failure::Read)?,
            };
            if !self.allow(count as u64) {
                self.file.set_len(self.used).map_err(Failure::Write)?;
                return Err(Failure::Limit(self.range(start)));
            }
            // Zeros stay a hole.
            if buffer[..count].iter().any(|&byte| byte != 0) {
                self.file.write_all_at(&buffer[..count], self.used).map_err(Failure::Write)?;
            }
            self.used += count as u64;
        }
        self.file.set_len(self.used).map_err(Failure::Write)?;
        Ok(self.range(start))
    }

    fn range(&self, start: u64) -> FileRange {
        FileRange::new(Arc::clone(&self.file), start, self.used - start)
    }
}

/// Reads zstd frames one after another.
struct Zstd<R> {
    input: R,
    context: DCtx<'static>,
    /// Nothing of the current frame is left.
    at_boundary: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(input: R) -> io::Result<Self> {
        let context = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { input, context, at_boundary: true })
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let available = self.input.fill_buf()?;
            let at_end = available.is_empty();
            if at_end && self.at_boundary {
                return Ok(0);
            }
            let mut from = InBuffer::around(available);
            let mut to = OutBuffer::around(buffer);
            let hint = self.context.decompress_stream(&mut to, &mut from);
            let hint = hint.map_err(|code| io::Error::other(zstd_safe::get_error_name(code)))?;
            let (consumed, produced) = (from.pos(), to.pos());
            self.input.consume(consumed);
            self.at_boundary = hint == 0;
            if produced > 0 {
                return Ok(produced);
            }
            if at_end && !self.at_boundary {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the zstd stream is cut off"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ByteSource;
    use std::io::BufReader;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
        zstd_safe::compress(&mut out, bytes, 3).unwrap();
        out
    }

    fn unpacked(bytes: &[u8], limit: u64) -> Result<Vec<u8>, Failure> {
        let (source, scratch) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        source.write_all_at(bytes, 0).unwrap();
        let range = FileRange::whole(Arc::new(source)).unwrap();
        let range = Scratch::new(scratch, limit).unpack(range, &mut ())?;
        let mut bytes = vec![0; range.len() as usize];
        range.read_exact_at(&mut bytes, 0).unwrap();
        Ok(bytes)
    }

    #[test]
    fn what_is_unpacked_is_bounded_and_what_is_not_packed_stays() {
        let text = vec![b'x'; 3 << 20];
        let input = packed(&text);
        assert_eq!(unpacked(&input, 3 << 20).unwrap(), text);
        assert_eq!(unpacked(&text, 0).unwrap(), text);
        match unpacked(&input, (3 << 20) - 1) {
            Err(Failure::Limit(before)) => assert!(before.len() < 3 << 20),
            other => panic!("{other:?}"),
        }
        assert!(matches!(unpacked(&input[..input.len() - 1], u64::MAX), Err(Failure::Read(_))));
    }

    #[test]
    fn zstd_frames_follow_each_other() {
        let text = vec![b'x'; 300_000];
        let mut input = packed(&text);
        input.extend(packed(b"end"));
        let mut out = Vec::new();
        // A small buffer between, so that frames are cut everywhere.
        let reader = BufReader::with_capacity(7, &input[..]);
        Zstd::new(reader).unwrap().read_to_end(&mut out).unwrap();
        assert_eq!(out.len(), 300_003);
        assert!(out.ends_with(b"xend"));
    }

    #[test]
    fn a_frame_that_is_cut_off_is_an_error() {
        let input = packed(&(0..=255).cycle().take(10_000).collect::<Vec<u8>>());
        for end in 1..input.len() {
            let error = Zstd::new(&input[..end]).unwrap().read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {end}");
        }
    }
}
