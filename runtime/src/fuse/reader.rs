//! Answers `FUSE_READ`, and notices what will be asked for next.

use std::sync::Arc;

use fuser::Errno;

use super::blocks::{Blocks, Piece};
use super::cache::Bytes;
use super::node::Node;
use super::order::Order;
use super::read_ahead::{Job, ReadAhead};
use super::stream::Streams;
use crate::squashfs::{Inode, Kind};

/// The share of the cache that one reader may have read ahead: a quarter.
const STREAM_SHARE: usize = 4;
/// Most bytes ahead of one reader: what was decompressed longer ago has left the processor's caches, and the copy
/// to the kernel then costs several times as much.
const STREAM_LIMIT: usize = 1 << 20;

/// The way from a request to its bytes.
pub(super) struct Reader {
    blocks: Arc<Blocks>,
    streams: Streams,
    order: Order,
    ahead: Option<ReadAhead>,
    /// Whether to read ahead within files too, not only from file to file.
    within: bool,
    limit: u64,
}

/// The bytes of an answer, copied together only when they come from several blocks or from one that is not unpacked.
pub(super) enum Answer<'a> {
    Part(Bytes, std::ops::Range<usize>),
    Joined(&'a [u8]),
}

impl Answer<'_> {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Part(bytes, range) => &bytes[range.clone()],
            Self::Joined(bytes) => bytes,
        }
    }
}

impl Reader {
    /// `threads` read ahead; 0 for no read-ahead. One is kept for going from file to file: the kernel's own
    /// read-ahead keeps two requests within a file under way, which already occupies two processors, and a third
    /// block at a time made readers of large files slower there (two processors: 250 to 350 against 410 MB/s).
    pub(super) fn new(blocks: Arc<Blocks>, threads: usize, cache_bytes: usize) -> Self {
        let share = cache_bytes / STREAM_SHARE;
        Self {
            blocks,
            streams: Streams::new(),
            order: Order::default(),
            within: threads > 1,
            ahead: (threads > 0).then(|| ReadAhead::new(threads, share)),
            limit: share.min(STREAM_LIMIT) as u64,
        }
    }

    /// Layer and inode of a node that was read lately.
    pub(super) fn remembered(&self, node: u64) -> Option<(usize, Arc<Inode>)> {
        let Some(Node::Inode { layer, .. }) = Node::from_number(node) else { return None };
        Some((layer, self.streams.slot(node).inode.clone()?))
    }

    /// The bytes of a file from `offset` on, `len` at most; fewer only at its end. They may stand in `joined`, whose
    /// memory is used again and again: fresh memory would cost as much as reading into it.
    pub(super) fn read<'a>(
        &self,
        node: u64,
        layer: usize,
        inode: &Arc<Inode>,
        offset: u64,
        len: u32,
        joined: &'a mut Vec<u8>,
    ) -> Result<Answer<'a>, Errno> {
        if let Some(recording) = self.blocks.recording() {
            recording.note(node);
        }
        joined.clear();
        let Kind::File { size, .. } = inode.kind else { return Err(Errno::EISDIR) };
        let end = size.min(offset.saturating_add(u64::from(len)));
        if offset >= end {
            return Ok(Answer::Joined(joined));
        }
        self.look_ahead(node, layer, inode, offset..end, size);

        let block_size = self.block_size(layer);
        let (first, last) = (offset / block_size, (end - 1) / block_size);
        let part = |index: u64| {
            // Both are below the block size, which is at most 1 MiB.
            let from = offset.saturating_sub(index * block_size) as usize;
            let to = (end - index * block_size).min(block_size) as usize;
            self.blocks.piece(layer, inode, index, from..to).map_err(|_| Errno::EIO)
        };
        for index in first..=last {
            match part(index)? {
                Piece::Part(bytes, range) if first == last => return Ok(Answer::Part(bytes, range)),
                Piece::Part(bytes, range) => joined.extend_from_slice(&bytes[range]),
                Piece::Plain(stored, range) => {
                    self.blocks.copy(layer, stored, range, joined).map_err(|_| Errno::EIO)?;
                }
                Piece::Zeros(count) => joined.resize(joined.len() + count, 0),
            }
        }
        Ok(Answer::Joined(joined))
    }

    fn look_ahead(&self, node: u64, layer: usize, inode: &Arc<Inode>, request: std::ops::Range<u64>, size: u64) {
        let (start, block_size) = (request.start, self.block_size(layer));
        let blocks = {
            let mut stream = self.streams.slot(node);
            stream.inode.get_or_insert_with(|| Arc::clone(inode));
            if self.within { stream.note(request, size, block_size, self.limit) } else { 0..0 }
        };
        let Some(ahead) = &self.ahead else { return };
        if !blocks.is_empty() {
            ahead.submit(&self.blocks, Job::Blocks { layer, inode: Arc::clone(inode), blocks });
        }
        if start == 0 {
            let files = self.order.note(layer, inode.number);
            if !files.is_empty() {
                ahead.submit(&self.blocks, Job::Files { layer, files });
            }
        }
    }

    fn block_size(&self, layer: usize) -> u64 {
        u64::from(self.blocks.layers()[layer].superblock().block_size)
    }
}
