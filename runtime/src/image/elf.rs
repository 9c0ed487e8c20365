//! Where a program file ends, derived from its ELF64 headers without scanning.
//!
//! Contract: System V ABI, "Object Files", and elf(5). All integers are little-endian.

use super::error::FormatError;

/// Length of an ELF64 file header in bytes.
pub const HEADER_LEN: usize = 64;
/// Length of an ELF64 program header in bytes.
pub const SEGMENT_LEN: usize = 56;
/// Length of an ELF64 section header in bytes.
pub const SECTION_LEN: usize = 64;
/// `e_ident[8..11]` of an image, as FlatImage has it: file type databases know images by these bytes.
/// Changing this breaks the format.
pub const MARK: [u8; 3] = *b"FI\x01";
/// Offset of [`MARK`]: `EI_ABIVERSION` and the first two bytes of padding.
pub const MARK_OFFSET: usize = 8;

/// What stands in place of [`MARK`] in the copy of the program that is a guest's portal client (`fim_portal`).
pub const PORTAL_MARK: [u8; 3] = *b"FP\x01";

/// Whether a file that begins so is a program that carries [`MARK`].
#[must_use]
pub fn is_marked(start: &[u8]) -> bool {
    start.starts_with(b"\x7fELF") && start.get(MARK_OFFSET..MARK_OFFSET + MARK.len()) == Some(&MARK[..])
}

/// Section type that takes no bytes of the file.
const SHT_NOBITS: u32 = 8;

/// The fields of an ELF header that say where its tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElfHeader {
    /// Offset of the program headers in bytes.
    pub segments_offset: u64,
    /// Number of program headers.
    pub segments: u16,
    /// Offset of the section headers in bytes.
    pub sections_offset: u64,
    /// Number of section headers.
    pub sections: u16,
    /// Whether `e_ident` carries [`MARK`].
    pub marked: bool,
}

impl ElfHeader {
    /// Reads a file header.
    ///
    /// # Errors
    /// When `bytes` is no header of a 64-bit little-endian program with tables of the usual shape.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.get(..4) != Some(b"\x7fELF") {
            return Err(FormatError::NotElf);
        }
        let header = bytes.get(..HEADER_LEN).ok_or(FormatError::Elf("it is shorter than 64 bytes"))?;
        if header[4] != 2 || header[5] != 1 {
            return Err(FormatError::Elf("it is not 64-bit little-endian"));
        }
        let parsed = Self {
            segments_offset: u64_at(header, 32),
            segments: u16_at(header, 56),
            sections_offset: u64_at(header, 40),
            sections: u16_at(header, 60),
            marked: header[MARK_OFFSET..MARK_OFFSET + MARK.len()] == MARK,
        };
        if parsed.segments == 0 || parsed.segments == u16::MAX {
            return Err(FormatError::Elf("the number of program headers is out of range"));
        }
        if usize::from(u16_at(header, 54)) != SEGMENT_LEN {
            return Err(FormatError::Elf("program headers do not have 56 bytes"));
        }
        if parsed.sections == 0 && parsed.sections_offset != 0 {
            return Err(FormatError::Elf("extended section numbering is not supported"));
        }
        if parsed.sections != 0 && usize::from(u16_at(header, 58)) != SECTION_LEN {
            return Err(FormatError::Elf("section headers do not have 64 bytes"));
        }
        parsed.tables_end()?;
        Ok(parsed)
    }

    /// Length of the program header table in bytes.
    #[must_use]
    pub fn segments_len(&self) -> usize {
        usize::from(self.segments) * SEGMENT_LEN
    }

    /// Length of the section header table in bytes.
    #[must_use]
    pub fn sections_len(&self) -> usize {
        usize::from(self.sections) * SECTION_LEN
    }

    /// First byte behind the header and both tables.
    ///
    /// # Errors
    /// When an end does not fit into 64 bits.
    pub fn tables_end(&self) -> Result<u64, FormatError> {
        let segments = range_end(self.segments_offset, self.segments_len() as u64)?;
        let sections = range_end(self.sections_offset, self.sections_len() as u64)?;
        Ok(segments.max(sections).max(HEADER_LEN as u64))
    }
}

/// First byte behind every range that the program headers in `table` map.
///
/// # Errors
/// When an end does not fit into 64 bits.
pub fn segments_end(table: &[u8]) -> Result<u64, FormatError> {
    table
        .chunks_exact(SEGMENT_LEN)
        .try_fold(0, |end, header| Ok(range_end(u64_at(header, 8), u64_at(header, 32))?.max(end)))
}

/// First byte behind the content of every section in `table` that has bytes in the file.
///
/// # Errors
/// When an end does not fit into 64 bits.
pub fn sections_end(table: &[u8]) -> Result<u64, FormatError> {
    table.chunks_exact(SECTION_LEN).try_fold(0, |end, header| match u32_at(header, 4) {
        0 | SHT_NOBITS => Ok(end),
        _ => Ok(range_end(u64_at(header, 24), u64_at(header, 32))?.max(end)),
    })
}

/// First byte behind the program that `bytes` begin with.
///
/// # Errors
/// When the headers are not usable or reach behind the end of `bytes`.
pub fn program_end(bytes: &[u8]) -> Result<u64, FormatError> {
    let header = ElfHeader::parse(bytes)?;
    let table = |offset: u64, len: usize| {
        let start = usize::try_from(offset).ok();
        start.and_then(|start| bytes.get(start..start.checked_add(len)?)).ok_or_else(|| FormatError::Truncated {
            what: "the program's header table".to_owned(),
            need: offset.saturating_add(len as u64),
            have: bytes.len() as u64,
        })
    };
    let segments = segments_end(table(header.segments_offset, header.segments_len())?)?;
    let sections = match header.sections {
        0 => 0,
        _ => sections_end(table(header.sections_offset, header.sections_len())?)?,
    };
    let end = segments.max(sections).max(header.tables_end()?);
    if end > bytes.len() as u64 {
        let what = "the program".to_owned();
        return Err(FormatError::Truncated { what, need: end, have: bytes.len() as u64 });
    }
    Ok(end)
}

fn range_end(offset: u64, len: u64) -> Result<u64, FormatError> {
    offset.checked_add(len).ok_or(FormatError::Elf("a range ends behind 2^64"))
}

/// The callers pass fixed offsets inside a header whose length they checked.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}
