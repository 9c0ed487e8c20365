//! By how much an archive grows when a file is stored as it is.

use crate::squashfs::write::Options;

/// Most blocks of a file that are compressed for an estimate.
const SAMPLES: u64 = 64;
/// Highest zstd level of an estimate: higher ones save some percent more and take many times as long.
const LEVEL_MAX: i32 = 6;

/// Estimates growth by compressing blocks that are spread over the file. `R` reads up to so many bytes of the file
/// at a path, at an offset.
pub(super) struct Growth<R> {
    read: R,
    block_size: u32,
    level: i32,
}

impl<R: Fn(&[u8], u64, usize) -> Option<Vec<u8>>> Growth<R> {
    pub(super) fn new(options: &Options, read: R) -> Self {
        Self { read, block_size: options.block_size, level: options.level.min(LEVEL_MAX) }
    }

    /// Bytes more, rather too many than too few.
    pub(super) fn estimate(&mut self, path: &[u8], size: u64) -> u64 {
        let block = u64::from(self.block_size);
        let blocks = size.div_ceil(block);
        let step = blocks.div_ceil(SAMPLES).max(1);
        let (mut whole, mut packed) = (0u64, 0u64);
        let mut out = vec![0; zstd_safe::compress_bound(self.block_size as usize)];
        for index in (0..blocks).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            // What cannot be read now is an error when it is packed.
            let Some(bytes) = (self.read)(path, index * block, self.block_size as usize) else { continue };
            whole += bytes.len() as u64;
            packed += match zstd_safe::compress(&mut out[..], &bytes, self.level) {
                Ok(len) => (len as u64).min(bytes.len() as u64),
                Err(_) => 0,
            };
        }
        // A high level packs up to an eighth smaller.
        let saved = u128::from(whole - packed / 8 * 7);
        u64::try_from(saved * u128::from(size) / u128::from(whole.max(1))).unwrap_or(size).min(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(content: &[u8]) -> u64 {
        let options = Options { block_size: 4096, ..Options::default() };
        let read = |_: &[u8], offset: u64, len: usize| {
            let rest = content.get(usize::try_from(offset).ok()?..)?;
            Some(rest[..rest.len().min(len)].to_vec())
        };
        Growth::new(&options, read).estimate(b"file", content.len() as u64)
    }

    #[test]
    fn growth_is_what_compression_would_save() {
        assert_eq!(estimate(b""), 0);
        let zeros = estimate(&[0; 1_000_000]);
        assert!((980_000..=1_000_000).contains(&zeros), "{zeros}");
        let noise: Vec<u8> = blake3::Hasher::new().finalize_xof().take_bytes(1_000_000);
        // An eighth is the margin.
        assert!(estimate(&noise) <= 130_000, "{}", estimate(&noise));
    }

    trait Take {
        fn take_bytes(self, len: usize) -> Vec<u8>;
    }

    impl Take for blake3::OutputReader {
        fn take_bytes(mut self, len: usize) -> Vec<u8> {
            let mut bytes = vec![0; len];
            self.fill(&mut bytes);
            bytes
        }
    }
}
