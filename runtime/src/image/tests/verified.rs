//! Verified reading.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::source::ByteSource;

const CHUNK: usize = 16 * 1024;

/// Bytes in memory that count what is read of them.
struct Counted {
    bytes: Vec<u8>,
    read: AtomicU64,
}

impl ByteSource for Counted {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.bytes.read_exact_at(buf, offset)
    }
}

/// A source over `data`, with the tree behind it, after `damage` was done to both.
fn source(data: &[u8], damage: impl FnOnce(&mut Vec<u8>, &LayerEntry)) -> VerifiedSource<Counted> {
    let mut tree = TreeBuilder::new(CHUNK as u32).unwrap();
    tree.update(data);
    let parts = tree.finish();
    let entry = LayerEntry::new(4096, FACTS, &parts);
    let mut bytes = vec![0; 4096];
    bytes.extend_from_slice(data);
    bytes.resize(entry.chunks.offset as usize, 0);
    bytes.extend_from_slice(&parts.pages);
    damage(&mut bytes, &entry);
    VerifiedSource::new(Counted { bytes, read: AtomicU64::new(0) }, &entry, 5).unwrap()
}

fn counted(source: &VerifiedSource<Counted>, offset: usize, len: usize) -> u64 {
    let before = source.image().read.load(Ordering::Relaxed);
    source.read_exact_at(&mut vec![0; len], offset as u64).unwrap();
    source.image().read.load(Ordering::Relaxed) - before
}

#[test]
fn any_range_reads_as_it_is() {
    let data = noise(2, 10 * CHUNK + 1234);
    let source = source(&data, |_, _| {});
    assert_eq!(source.len(), data.len() as u64);
    let mut at = 0x1234_5678_u64;
    for _ in 0..2000 {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let start = (at >> 20) as usize % data.len();
        let len = (at >> 44) as usize % (data.len() - start + 1);
        let mut buf = vec![0; len];
        source.read_exact_at(&mut buf, start as u64).unwrap();
        assert!(buf == data[start..start + len], "{start} {len}");
    }
    let mut byte = [0];
    for offset in [data.len() as u64, u64::MAX] {
        let error = source.read_exact_at(&mut byte, offset).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    source.read_exact_at(&mut [], data.len() as u64).unwrap();
}

#[test]
fn a_chunk_is_read_whole_once_and_then_only_what_is_asked() {
    let source = source(&noise(3, 8 * CHUNK), |_, _| {});
    assert_eq!(counted(&source, 100, 10), CHUNK as u64 + 4096, "first read: the chunk and its digest page");
    assert_eq!(counted(&source, 200, 10), 10);
    assert_eq!(counted(&source, CHUNK, 3 * CHUNK), 3 * CHUNK as u64, "whole chunks are verified in place");
    assert_eq!(counted(&source, 0, 4 * CHUNK), 4 * CHUNK as u64);
    assert_eq!(counted(&source, 4 * CHUNK - 5, CHUNK), 5 + CHUNK as u64, "a known tail and an unknown head");
}

#[test]
fn a_flipped_bit_is_an_error_in_its_chunk_only() {
    let data = noise(4, 4 * CHUNK + 77);
    for (at, chunk) in [(0, 0), (2 * CHUNK - 1, 1), (4 * CHUNK + 76, 4)] {
        let source = source(&data, |bytes, _| bytes[4096 + at] ^= 1);
        for other in 0..5 {
            for (start, len) in [(other * CHUNK, 77), (other * CHUNK + 7, 70)] {
                let result = source.read_exact_at(&mut vec![0; len], start as u64);
                assert_eq!(result.is_err(), other == chunk, "{at} {other}");
            }
        }
        let error = source.read_exact_at(&mut vec![0; data.len()], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let offset = 4096 + chunk * CHUNK;
        assert!(
            error.to_string().starts_with(&format!("layer 5 is damaged: the chunk at byte {offset} of")),
            "{error}"
        );
    }
}

#[test]
fn a_flipped_bit_in_any_digest_page_is_an_error() {
    // 129 chunks: two leaf pages and a root.
    let data = noise(5, 128 * CHUNK + 1);
    for (page, first, last) in [(0, false, true), (1, true, false), (2, false, false)] {
        let source = source(&data, |bytes, entry| bytes[entry.chunks.offset as usize + page * 4096 + 4095] ^= 1);
        let readable = |offset| source.read_exact_at(&mut [0], offset).is_ok();
        assert_eq!((readable(0), readable(128 * CHUNK as u64)), (first, last), "page {page}");
    }
}

#[test]
fn threads_share_a_source() {
    let data = noise(6, 200 * CHUNK + 9);
    let source = source(&data, |bytes, _| bytes[4096 + 150 * CHUNK] ^= 1);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (source, data) = (&source, &data);
            scope.spawn(move || {
                for step in 0..400 {
                    let start = (step * 7919 + thread * 104_729) * 31 % (data.len() - 9000);
                    let mut buf = [0; 9000];
                    let damaged = start < 151 * CHUNK && start + 9000 > 150 * CHUNK;
                    match source.read_exact_at(&mut buf, start as u64) {
                        Ok(()) => assert!(!damaged && buf[..] == data[start..start + 9000], "{start}"),
                        Err(error) => assert!(damaged, "{start}: {error}"),
                    }
                }
            });
        }
    });
}

#[test]
fn an_entry_that_breaks_a_rule_opens_no_source() {
    let (_directory, path) = image();
    let mut entry = open(&path).config.layers[0].clone();
    entry.size = u64::MAX;
    let error = VerifiedSource::new(Vec::new(), &entry, 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(open(&path).layer_source(2).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}
