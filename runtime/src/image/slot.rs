//! Config slots: two places for the configuration, of which a change overwrites the older.

use std::fmt;
use std::io;

use super::error::FormatError;

/// First bytes of a slot that was ever written. Changing this breaks the format.
pub const MAGIC: [u8; 8] = *b"FIMSLOT\n";
/// Length of the header in bytes; the body follows at once.
pub const HEADER_LEN: usize = 64;
/// Bytes of the header that the digest covers, together with the body.
const DIGEST_OFFSET: usize = 32;
/// Least length of a slot in bytes, header included.
pub const MIN_SLOT_CAPACITY: u64 = 4096;
/// Greatest length of a slot in bytes, header included.
pub const MAX_SLOT_CAPACITY: u64 = 1 << 20;
/// Length of each slot in bytes that the builder chooses.
pub const DEFAULT_SLOT_CAPACITY: u64 = 1 << 20;

/// One of the two slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotName {
    /// The first.
    A = 0,
    /// The second.
    B = 1,
}

impl SlotName {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// Why a slot cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotFault {
    /// The medium failed.
    #[error("it cannot be read: {0}")]
    Unreadable(io::ErrorKind),
    /// Nothing was ever written.
    #[error("it is empty")]
    Empty,
    /// Neither empty nor a slot.
    #[error("it has no header")]
    Magic,
    /// A field of the header is outside its range.
    #[error("its header is not valid: {0}")]
    Header(&'static str),
    /// Header and body do not have the digest that the header names; a write was cut or bytes changed.
    #[error("its digest does not match")]
    Digest,
    /// The digest matches, the body cannot be decoded or breaks a rule.
    #[error("its content is not valid: {0}")]
    Body(String),
}

/// The header of a slot. Integers are little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotHeader {
    /// Counts changes from 1; of two valid slots the higher is the configuration.
    pub generation: u64,
    /// Length of the body in bytes.
    pub body_len: u32,
    /// Version of the body's encoding.
    pub config_version: u32,
    /// BLAKE3-256 of the header's first 32 bytes and the body.
    pub digest: [u8; 32],
}

impl SlotHeader {
    /// Reads the header of a slot of `capacity` bytes.
    ///
    /// # Errors
    /// When the slot is empty or its header cannot be one.
    pub fn parse(bytes: &[u8], capacity: u64) -> Result<Self, SlotFault> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(SlotFault::Header("it is cut"))?;
        if header.iter().all(|byte| *byte == 0) {
            return Err(SlotFault::Empty);
        }
        if header[..8] != MAGIC {
            return Err(SlotFault::Magic);
        }
        let (mut generation, mut digest) = ([0; 8], [0; 32]);
        generation.copy_from_slice(&header[8..16]);
        digest.copy_from_slice(&header[DIGEST_OFFSET..]);
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let parsed = Self {
            generation: u64::from_le_bytes(generation),
            body_len: u32_at(16),
            config_version: u32_at(20),
            digest,
        };
        if parsed.generation == 0 {
            return Err(SlotFault::Header("generation 0"));
        }
        if u64::from(parsed.body_len) + HEADER_LEN as u64 > capacity {
            return Err(SlotFault::Header("the body is longer than the slot"));
        }
        Ok(parsed)
    }

    /// Whether `header` and `body` as read are what was written.
    ///
    /// # Errors
    /// [`SlotFault::Digest`].
    pub fn check(&self, header: &[u8], body: &[u8]) -> Result<(), SlotFault> {
        let covered = header.get(..DIGEST_OFFSET).ok_or(SlotFault::Header("it is cut"))?;
        let digest = blake3::Hasher::new().update(covered).update(body).finalize();
        if digest == self.digest { Ok(()) } else { Err(SlotFault::Digest) }
    }
}

/// A slot's header and body as they stand in the file.
///
/// # Errors
/// When the body does not fit into a slot of `capacity` bytes.
pub fn encode(generation: u64, config_version: u32, body: &[u8], capacity: u64) -> Result<Vec<u8>, FormatError> {
    let limit = usize::try_from(capacity.min(MAX_SLOT_CAPACITY)).unwrap_or(0).saturating_sub(HEADER_LEN);
    let too_large = FormatError::ConfigTooLarge { len: body.len(), limit };
    let Some(body_len) = u32::try_from(body.len()).ok().filter(|_| body.len() <= limit) else {
        return Err(too_large);
    };
    let mut slot = Vec::with_capacity(HEADER_LEN + body.len());
    slot.extend_from_slice(&MAGIC);
    slot.extend_from_slice(&generation.to_le_bytes());
    slot.extend_from_slice(&body_len.to_le_bytes());
    slot.extend_from_slice(&config_version.to_le_bytes());
    slot.extend_from_slice(&[0; 8]);
    let digest = blake3::Hasher::new().update(&slot).update(body).finalize();
    slot.extend_from_slice(digest.as_bytes());
    slot.extend_from_slice(body);
    Ok(slot)
}
