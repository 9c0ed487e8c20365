//! The contents of files: from an inode and a range of bytes to the bytes.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cache::{Bytes, Cache, Key, Unreadable};
use super::recording::Recording;
use super::report::Report;
use crate::squashfs::{Archive, Block, Error, Inode, Stored, Time};

/// All layers and the cache of their blocks.
pub(super) struct Blocks {
    layers: Vec<Arc<Archive>>,
    /// Of which layers it is logged that their table of nanoseconds is damaged.
    inexact: Box<[AtomicBool]>,
    cache: Cache,
    report: Report,
    recording: Option<Recording>,
}

/// Where the bytes of one request within one block are.
pub(super) enum Piece {
    /// That many zeros.
    Zeros(usize),
    /// This range of the block; it was checked to be inside.
    Part(Bytes, Range<usize>),
    /// This range of a block that is stored as it is, for [`Blocks::copy`].
    Plain(Stored, Range<usize>),
}

impl Blocks {
    /// With `record`, what is read is noted.
    pub(super) fn new(layers: Vec<Arc<Archive>>, cache_bytes: usize, record: bool) -> Self {
        let recording = record.then(Recording::default);
        let inexact = layers.iter().map(|_| AtomicBool::new(false)).collect();
        Self { layers, inexact, cache: Cache::new(cache_bytes), report: Report::default(), recording }
    }

    pub(super) fn layers(&self) -> &[Arc<Archive>] {
        &self.layers
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Where to note which files are read.
    pub(super) fn recording(&self) -> Option<&Recording> {
        self.recording.as_ref()
    }

    /// The time of an inode. Whole seconds where the table of nanoseconds is damaged, which is logged once for each layer:
    /// a file is not to be lost for its nanoseconds.
    pub(super) fn time(&self, layer: usize, inode: &Inode) -> Time {
        self.layers[layer].time(inode).unwrap_or_else(|error| {
            if !self.inexact[layer].swap(true, Ordering::Relaxed) {
                self.report.error(layer, &error);
            }
            inode.mtime.into()
        })
    }

    /// Logs what is wrong with a layer.
    pub(super) fn report(&self, layer: usize, error: &Error) {
        self.report.error(layer, error);
    }

    /// Logs what layers say that cannot be.
    pub(super) fn contradiction(&self, error: &crate::extract::Error) {
        self.report.contradiction(error);
    }

    /// The bytes `range` of block `index` of a file; the range counts from the beginning of the block and must not
    /// leave the file.
    pub(super) fn piece(
        &self,
        layer: usize,
        inode: &Inode,
        index: u64,
        range: Range<usize>,
    ) -> Result<Piece, Unreadable> {
        let block = self.layers[layer].block(inode, index).map_err(|error| {
            self.report.error(layer, &error);
            Unreadable
        })?;
        let wanted = range.end - range.start;
        match block {
            Block::Hole { len } if range.end <= len => Ok(Piece::Zeros(wanted)),
            // Nothing is to be unpacked, and the kernel keeps what it was given: there is no use for a copy here.
            Block::Stored { stored, skip, len } if range.end <= len && !stored.compressed => {
                Ok(Piece::Plain(stored, skip + range.start..skip + range.end))
            }
            Block::Stored { stored, skip, len } if range.end <= len => {
                let key = Key { layer: layer as u32, offset: stored.offset };
                let bytes = self.cache.get(key, wanted, || self.load(layer, stored))?;
                let range = skip + range.start..skip + range.end;
                // Two inodes of a damaged layer may claim one block with different lengths.
                if range.end > bytes.len() {
                    self.report.damage(layer, stored.offset, "is shorter than the file that uses it");
                    return Err(Unreadable);
                }
                Ok(Piece::Part(bytes, range))
            }
            Block::Hole { .. } | Block::Stored { .. } => {
                self.report.damage(layer, u64::from(inode.number), "(inode number) has a block shorter than the file");
                Err(Unreadable)
            }
        }
    }

    /// Appends a piece that is stored as it is to `bytes`.
    pub(super) fn copy(
        &self,
        layer: usize,
        stored: Stored,
        range: Range<usize>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Unreadable> {
        let start = bytes.len();
        bytes.resize(start + range.len(), 0);
        self.layers[layer].load_part(stored, range.start, &mut bytes[start..]).map_err(|error| {
            self.report.error(layer, &error);
            Unreadable
        })
    }

    /// Where a block of a file is stored that has to be unpacked; `None` for any other, and where the layer is damaged.
    pub(super) fn stored(&self, layer: usize, inode: &Inode, index: u64) -> Option<(Key, Stored)> {
        match self.layers[layer].block(inode, index) {
            Ok(Block::Stored { stored, .. }) if stored.compressed => {
                Some((Key { layer: layer as u32, offset: stored.offset }, stored))
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// See [`Cache::promise`].
    pub(super) fn promise(&self, key: Key) -> bool {
        self.cache.promise(key)
    }

    /// Loads a promised block into the cache.
    pub(super) fn keep_promise(&self, key: Key, stored: Stored) {
        self.cache.keep_promise(key, || self.load(key.layer as usize, stored));
    }

    /// See [`Cache::break_promise`].
    pub(super) fn break_promise(&self, key: Key) {
        self.cache.break_promise(key);
    }

    fn load(&self, layer: usize, stored: Stored) -> Result<Vec<u8>, Unreadable> {
        self.layers[layer].load(stored).map_err(|error| {
            self.report.error(layer, &error);
            Unreadable
        })
    }
}
