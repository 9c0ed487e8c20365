//! Checking every byte of an image against its digests.

use std::io;

use super::chunk_tree::TreeBuilder;
use super::layer::LayerEntry;
use super::open::Image;
use super::slot::{HEADER_LEN, SlotFault, SlotHeader, SlotName};
use super::verified::VerifiedSource;
use super::{CONFIG_VERSION, body};
use crate::source::{ByteSource, FileRange};

/// Bytes read at once.
const PIECE: usize = 4 << 20;

/// A part of the file that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRange {
    /// Position in the layer index; `None` for a config slot.
    pub layer: Option<usize>,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// What [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Every damaged range, config slots first, then by layer and offset.
    pub bad: Vec<BadRange>,
    /// Bytes of layers that were checked.
    pub bytes: u64,
}

impl Report {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.bad.is_empty()
    }
}

/// Reads the whole image and checks both slots, every digest page, every chunk and the digest of every layer.
/// `progress` gets the bytes of layers done and their sum. A range that cannot be read counts as damaged.
///
/// # Errors
/// When the index names a layer that cannot be opened at all.
pub fn verify(image: &Image, progress: &mut dyn FnMut(u64, u64)) -> io::Result<Report> {
    let file = FileRange::new(image.file.clone(), 0, image.file_len);
    let total = image.config.layers.iter().map(|layer| layer.size).sum();
    let mut report = Report::default();
    for slot in [SlotName::A, SlotName::B] {
        let fault = slot_fault(image, &file, slot);
        if let Some(fault) = fault.filter(|fault| *fault != SlotFault::Empty || image.generation > 1) {
            let (offset, len) = (image.superblock.slot_offset(slot), image.superblock.slot_capacity);
            report.bad.push(BadRange { layer: None, offset, len, reason: format!("config slot {slot}: {fault}") });
        }
    }
    for (index, entry) in image.config.layers.iter().enumerate() {
        let done = report.bytes;
        let bad = verify_layer(&file, entry, index, &mut |bytes| progress(done + bytes, total))?;
        report.bad.extend(bad);
        report.bytes += entry.size;
    }
    Ok(report)
}

fn slot_fault(image: &Image, file: &FileRange, slot: SlotName) -> Option<SlotFault> {
    let (offset, capacity) = (image.superblock.slot_offset(slot), image.superblock.slot_capacity);
    let mut head = vec![0; HEADER_LEN];
    let mut check = || {
        let unreadable = |error: io::Error| SlotFault::Unreadable(error.kind());
        file.read_exact_at(&mut head, offset).map_err(unreadable)?;
        let header = SlotHeader::parse(&head, capacity)?;
        let mut body = vec![0; header.body_len as usize];
        file.read_exact_at(&mut body, offset + HEADER_LEN as u64).map_err(unreadable)?;
        header.check(&head, &body)?;
        // The content of a newer version is not for us to judge.
        if header.config_version <= CONFIG_VERSION {
            body::decode(header.config_version, &body).map_err(SlotFault::Body)?;
        }
        Ok(())
    };
    check().err()
}

fn verify_layer(
    file: &FileRange,
    entry: &LayerEntry,
    index: usize,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Vec<BadRange>> {
    let invalid = |reason| io::Error::new(io::ErrorKind::InvalidInput, format!("layer {index}: {reason}"));
    let expected = VerifiedSource::new(file.clone(), entry, index)?;
    let mut found = TreeBuilder::new(entry.chunks.chunk_size).map_err(invalid)?;
    let mut bad = Bad { layer: index, ranges: Vec::new() };
    let (mut piece, mut done) = (vec![0; PIECE], 0);
    while done < entry.size {
        let bytes = &mut piece[..(entry.size - done).min(PIECE as u64) as usize];
        read_or_zero(file, bytes, entry.offset + done, entry.chunks.chunk_size as usize);
        found.update(bytes);
        done += bytes.len() as u64;
        progress(done);
    }
    let found = found.finish();
    let chunk_size = u64::from(entry.chunks.chunk_size);
    let leaves = found.pages.chunks_exact(32);
    for (chunk, digest) in (0..entry.size.div_ceil(chunk_size)).zip(leaves) {
        let start = chunk * chunk_size;
        match expected.chunk_digest(chunk) {
            Ok(expected) if expected.0 == digest => {}
            Ok(_) => {
                bad.add(entry.offset + start, chunk_size.min(entry.size - start), "data does not match its digest")
            }
            // Whatever page is at fault, the digests below it cannot be trusted.
            Err(error) => {
                let page = entry.chunks.offset + chunk / super::chunk_tree::FANOUT * super::PAGE;
                bad.add(page, super::PAGE, &format!("digests cannot be used: {error}"));
            }
        }
    }
    if bad.ranges.is_empty() && found.digest != entry.digest {
        bad.add(entry.offset, entry.size, "the layer does not match its digest in the index, its chunks do");
    }
    Ok(bad.ranges)
}

/// Unreadable parts, found chunk by chunk, become zeros, which do not match their digest.
fn read_or_zero(file: &FileRange, bytes: &mut [u8], offset: u64, chunk_size: usize) {
    if file.read_exact_at(bytes, offset).is_ok() {
        return;
    }
    for (chunk, at) in bytes.chunks_mut(chunk_size).zip((offset..).step_by(chunk_size)) {
        if file.read_exact_at(chunk, at).is_err() {
            chunk.fill(0);
        }
    }
}

/// Damaged ranges of one layer; neighbours with the same reason become one.
struct Bad {
    layer: usize,
    ranges: Vec<BadRange>,
}

impl Bad {
    fn add(&mut self, offset: u64, len: u64, reason: &str) {
        if let Some(last) = self.ranges.last_mut()
            && last.reason == reason
        {
            if last.offset + last.len == offset {
                last.len += len;
                return;
            }
            if last.offset == offset {
                return;
            }
        }
        self.ranges.push(BadRange { layer: Some(self.layer), offset, len, reason: reason.to_owned() });
    }
}
