//! The superblock: one page behind the program that says where everything else is.

use std::fmt;

use super::error::FormatError;
use super::slot::{MAX_SLOT_CAPACITY, MIN_SLOT_CAPACITY, SlotName};
use super::{FORMAT_VERSION, PAGE, page_align};

/// First bytes of a superblock. The byte above 127 and both line ends show a transfer in text mode.
/// Changing this breaks the format.
pub const MAGIC: [u8; 8] = *b"\x89FIM\r\n\x1a\n";
/// Length of a superblock in bytes.
pub const LEN: usize = PAGE as usize;
/// Offset of the BLAKE3-256 digest of all bytes before it. Magic, versions and digest keep their places in
/// every version of the format.
pub const DIGEST_OFFSET: usize = LEN - 32;

/// RFC 9562 UUID of an image, bytes in the order they are printed in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// A version 8 UUID (RFC 9562 section 5.8) from the first bytes of a digest, so that equal content has
    /// an equal UUID.
    #[must_use]
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The superblock's fields. Written once, never changed. Offsets are bytes from the start of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Format version of the writer, at least 1.
    pub version: u32,
    /// Least format version a reader must know.
    pub min_reader: u32,
    /// Identity of the image; copies share it.
    pub uuid: Uuid,
    /// Length of the program in bytes; the superblock stands at the next multiple of [`PAGE`].
    pub elf_len: u64,
    /// Offsets of config slots A and B, multiples of [`PAGE`].
    pub slots: [u64; 2],
    /// Length of each slot in bytes, header included; a multiple of [`PAGE`] up to 1 MiB.
    pub slot_capacity: u64,
    /// Offset of the first byte that layers may use, a multiple of [`PAGE`].
    pub payload: u64,
    /// Time of creation in seconds since 1970-01-01 UTC.
    pub created: u64,
}

impl Superblock {
    /// The superblock of a new image whose program has `elf_len` bytes.
    ///
    /// # Errors
    /// When a value is outside its range.
    pub fn new(elf_len: u64, slot_capacity: u64) -> Result<Self, FormatError> {
        let overflow = FormatError::Superblock("the program is too long");
        let at = page_align(elf_len).filter(|at| *at < super::MAX_IMAGE_LEN).ok_or(overflow)?;
        let slot_a = at + PAGE;
        let slot_b = slot_a.saturating_add(slot_capacity);
        let new = Self {
            version: FORMAT_VERSION,
            min_reader: FORMAT_VERSION,
            uuid: Uuid([0; 16]),
            elf_len,
            slots: [slot_a, slot_b],
            slot_capacity,
            payload: slot_b.saturating_add(slot_capacity),
            created: 0,
        };
        new.check(at)?;
        Ok(new)
    }

    /// Reads the superblock that stands at byte `at` of the file.
    ///
    /// # Errors
    /// When it is cut, damaged, of a newer version, or a field is outside its range.
    pub fn parse(page: &[u8], at: u64) -> Result<Self, FormatError> {
        if page.get(..MAGIC.len()) != Some(&MAGIC) {
            return Err(FormatError::NoSuperblock(at));
        }
        let page: &[u8; LEN] = page
            .get(..LEN)
            .and_then(|page| page.try_into().ok())
            .ok_or(FormatError::Superblock("it is shorter than a page"))?;
        if blake3::hash(&page[..DIGEST_OFFSET]) != *array_at::<32>(page, DIGEST_OFFSET) {
            return Err(FormatError::SuperblockDigest);
        }
        let u32_at = |at| u32::from_le_bytes(*array_at::<4>(page, at));
        let u64_at = |at| u64::from_le_bytes(*array_at::<8>(page, at));
        let parsed = Self {
            version: u32_at(8),
            min_reader: u32_at(12),
            uuid: Uuid(*array_at::<16>(page, 16)),
            elf_len: u64_at(32),
            slots: [u64_at(40), u64_at(48)],
            slot_capacity: u64_at(56),
            payload: u64_at(64),
            created: u64_at(72),
        };
        if parsed.min_reader > FORMAT_VERSION {
            let (version, needed) = (parsed.version, parsed.min_reader);
            return Err(FormatError::NewerFormat { version, needed, known: FORMAT_VERSION });
        }
        parsed.check(at)?;
        Ok(parsed)
    }

    /// The page as it stands in the file. Bytes that no field uses are zero.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; LEN] {
        let mut page = [0; LEN];
        page[..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&self.version.to_le_bytes());
        page[12..16].copy_from_slice(&self.min_reader.to_le_bytes());
        page[16..32].copy_from_slice(&self.uuid.0);
        page[32..40].copy_from_slice(&self.elf_len.to_le_bytes());
        page[40..48].copy_from_slice(&self.slots[0].to_le_bytes());
        page[48..56].copy_from_slice(&self.slots[1].to_le_bytes());
        page[56..64].copy_from_slice(&self.slot_capacity.to_le_bytes());
        page[64..72].copy_from_slice(&self.payload.to_le_bytes());
        page[72..80].copy_from_slice(&self.created.to_le_bytes());
        let digest = blake3::hash(&page[..DIGEST_OFFSET]);
        page[DIGEST_OFFSET..].copy_from_slice(digest.as_bytes());
        page
    }

    /// Offset of a slot in bytes.
    #[must_use]
    pub fn slot_offset(&self, slot: SlotName) -> u64 {
        self.slots[slot as usize]
    }

    /// Offset of the superblock itself in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        // `check` proved that this does not overflow.
        self.elf_len.next_multiple_of(PAGE)
    }

    fn check(&self, at: u64) -> Result<(), FormatError> {
        let rule = |holds: bool, text| if holds { Ok(()) } else { Err(FormatError::Superblock(text)) };
        let aligned = |offset: u64| offset.is_multiple_of(PAGE);
        rule(self.version >= self.min_reader && self.min_reader >= 1, "the versions contradict each other")?;
        rule(page_align(self.elf_len) == Some(at), "the program has a different length")?;
        rule(
            aligned(self.slot_capacity) && (MIN_SLOT_CAPACITY..=MAX_SLOT_CAPACITY).contains(&self.slot_capacity),
            "the slot capacity is out of range",
        )?;
        let [a, b] = self.slots;
        rule(aligned(a) && aligned(b) && aligned(self.payload), "an offset is not a multiple of 4096")?;
        rule(self.payload <= super::MAX_IMAGE_LEN, "the layers begin behind 1 TiB")?;
        // Each is at most 1 TiB from here on, so the sums below do not overflow.
        rule(a <= self.payload && b <= self.payload, "a slot lies behind the first layer")?;
        rule(a.checked_sub(PAGE).is_some_and(|before| before >= at), "slot A overlaps the superblock")?;
        rule(b >= a + self.slot_capacity, "the slots overlap")?;
        rule(self.payload >= b + self.slot_capacity, "slot B overlaps the first layer")
    }
}

/// `N` bytes at a constant offset inside the page.
fn array_at<const N: usize>(page: &[u8; LEN], at: usize) -> &[u8; N] {
    // Every caller names a constant range that ends inside the page, so a chunk is always there.
    page[at..].first_chunk().expect("constant range inside the page")
}
