//! The bytes of a tar, whatever it is compressed with.

use crate::pack::source::Compression;
use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use zstd_safe::{DCtx, InBuffer, OutBuffer};

/// Opens `file` for reading what is compressed in it.
///
/// # Errors
/// When its first bytes cannot be read.
pub fn open(file: File) -> io::Result<Box<dyn Read>> {
    let mut input = BufReader::with_capacity(1 << 18, file);
    Ok(match Compression::detect(input.fill_buf()?) {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(BufReader::with_capacity(1 << 18, MultiGzDecoder::new(input))),
        Compression::Xz => Box::new(BufReader::with_capacity(1 << 18, XzDecoder::new_multi_decoder(input))),
        Compression::Zstd => Box::new(BufReader::with_capacity(1 << 18, Zstd::new(input)?)),
    })
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

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
        zstd_safe::compress(&mut out, bytes, 3).unwrap();
        out
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
