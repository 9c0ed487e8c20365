//! Unpacking one block with any of the compressors.

use std::cell::RefCell;

use liblzma::stream::{Action, Status, Stream};

use super::lzo;
use super::superblock::Compressor;

/// Memory that one xz stream may make the decoder allocate, in bytes. The dictionary is at most a block, 1 MiB.
const XZ_MEMORY: u64 = 32 << 20;

thread_local! {
    static ZSTD: RefCell<Option<zstd_safe::DCtx<'static>>> = const { RefCell::new(None) };
    static ZLIB: RefCell<Option<libdeflater::Decompressor>> = const { RefCell::new(None) };
}

/// Unpacks `input` into at most `limit` bytes. Contexts are kept per thread; nothing else is.
///
/// # Errors
/// A reason, fit to follow "it cannot be unpacked: ", when the stream is damaged or exceeds `limit`.
pub(super) fn decompress(compressor: Compressor, input: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    match compressor {
        Compressor::Zstd => zstd(input, limit),
        Compressor::Gzip => zlib(input, limit),
        Compressor::Xz => xz(input, limit),
        Compressor::Lz4 => lz4(input, limit),
        Compressor::Lzo => lzo::decompress(input, limit).map_err(str::to_owned),
        Compressor::Lzma => Err("lzma is not supported".to_owned()),
    }
}

fn zstd(input: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let mut output = Vec::with_capacity(limit);
    ZSTD.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(zstd_safe::DCtx::try_create().ok_or("out of memory")?),
        };
        context.decompress(&mut output, input).map_err(|code| zstd_safe::get_error_name(code).to_owned())
    })?;
    // A vector may have got more capacity than was asked for.
    if output.len() > limit { Err("it unpacks to more than is allowed".to_owned()) } else { Ok(output) }
}

fn zlib(input: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let mut output = vec![0; limit];
    let len = ZLIB.with_borrow_mut(|context| {
        let context = context.get_or_insert_with(libdeflater::Decompressor::new);
        context.zlib_decompress(input, &mut output).map_err(|error| match error {
            libdeflater::DecompressionError::BadData => "the zlib stream is damaged".to_owned(),
            libdeflater::DecompressionError::InsufficientSpace => "it unpacks to more than is allowed".to_owned(),
        })
    })?;
    output.truncate(len);
    Ok(output)
}

fn xz(input: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let mut stream = Stream::new_stream_decoder(XZ_MEMORY, 0).map_err(|error| error.to_string())?;
    let mut output = vec![0; limit];
    let (mut read, mut written) = (0, 0);
    // The decoder may return before it is done: once for the filters' delayed bytes, once for the stream's footer.
    // It reports progress through the totals; a call without any ends the loop.
    loop {
        let status = stream.process(&input[read..], &mut output[written..], Action::Finish);
        let status = status.map_err(|error| error.to_string())?;
        let now = (stream.total_in() as usize, stream.total_out() as usize);
        if status == Status::StreamEnd {
            output.truncate(now.1);
            return Ok(output);
        }
        if now == (read, written) {
            let full = written == limit;
            return Err(if full { "it unpacks to more than is allowed" } else { "the xz stream ends early" }.to_owned());
        }
        (read, written) = now;
    }
}

fn lz4(input: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let mut output = vec![0; limit];
    let len = lz4_flex::block::decompress_into(input, &mut output).map_err(|error| error.to_string())?;
    output.truncate(len);
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zlib_and_lz4_and_zstd_keep_to_the_limit() {
        let plain = vec![7; 5000];
        let mut packed = vec![0; 6000];
        let mut encoder = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        let len = encoder.zlib_compress(&plain, &mut packed).unwrap();
        let mut zstd = Vec::with_capacity(6000);
        zstd_safe::compress(&mut zstd, &plain, 3).unwrap();
        let streams = [
            (Compressor::Gzip, packed[..len].to_vec()),
            (Compressor::Lz4, lz4_flex::block::compress(&plain)),
            (Compressor::Zstd, zstd),
        ];
        for (compressor, stream) in streams {
            assert_eq!(decompress(compressor, &stream, 8192).as_ref(), Ok(&plain), "{compressor}");
            assert_eq!(decompress(compressor, &stream, 5000).as_ref(), Ok(&plain), "{compressor}");
            assert!(decompress(compressor, &stream, 4999).is_err(), "{compressor}");
            assert!(decompress(compressor, &stream[..stream.len() - 1], 8192).is_err(), "{compressor}");
        }
    }

    #[test]
    fn lzma_says_its_name() {
        assert!(decompress(Compressor::Lzma, &[0; 20], 8192).unwrap_err().contains("lzma"));
    }
}
