//! Extended attributes (specification section 9).
//!
//! An inode names a set by number. A table of sets says where its keys and values begin and how many there are;
//! a value that several sets share is stored once and referred to.

use super::Archive;
use super::error::{Error, Table};
use super::inode::Inode;
use super::meta::{BLOCK_SIZE, Cursor, Place};
use super::superblock::{le16, le32, le64};

/// Longest value in bytes; Linux' `XATTR_SIZE_MAX`.
const VALUE_MAX: u32 = 65_536;

/// Longest name in bytes with its prefix; Linux' `XATTR_NAME_MAX`.
const NAME_MAX: usize = 255;

/// Most bytes of names and values that one inode may have.
const TOTAL_MAX: usize = 4 << 20;

/// Bit of a key's type: the value stands elsewhere.
const OUT_OF_LINE: u16 = 0x0100;

/// Name with its prefix, and value.
pub type Xattr = (Vec<u8>, Vec<u8>);

impl Archive {
    /// Names, with their prefix, and values of the extended attributes of `inode`. Attributes with a prefix that is
    /// neither `user.`, `trusted.` nor `security.` are left out, as Linux does.
    ///
    /// # Errors
    /// When the tables are damaged, or names and values have more than 4 MiB.
    pub fn xattrs(&self, inode: &Inode) -> Result<Vec<Xattr>, Error> {
        let (Some(set), Some(table)) = (inode.xattr, self.superblock.xattr_table) else { return Ok(Vec::new()) };
        let mut header = [0; 16];
        self.meta.read(Table::Xattrs, table, &mut header)?;
        let (first, sets) = (le64(&header, 0), le32(&header, 8));
        if set >= sets {
            let reason = format!("inode {} has xattr set {set}, but there are {sets}", inode.number);
            return Err(Error::corrupt(Table::Xattrs, table, reason));
        }
        // The list of the set table's blocks follows the header.
        let record: [u8; 16] = self.meta.record(Table::Xattrs, table.saturating_add(16), u64::from(set))?;
        let count = le32(&record, 8);

        let mut keys = self.xattr_cursor(first, table, le64(&record, 0))?;
        let (mut found, mut total) = (Vec::new(), 0usize);
        for _ in 0..count {
            let fixed: [u8; 4] = keys.array()?;
            let (kind, name_len) = (le16(&fixed, 0), usize::from(le16(&fixed, 2)));
            let prefix: Option<&[u8]> = match kind & !OUT_OF_LINE {
                0 => Some(b"user."),
                1 => Some(b"trusted."),
                2 => Some(b"security."),
                _ => None,
            };
            let mut name = prefix.unwrap_or_default().to_vec();
            if name_len == 0 || name.len() + name_len > NAME_MAX {
                return Err(keys.wrong(format!("an xattr name has {name_len} bytes behind its prefix")));
            }
            name.extend(keys.bytes(name_len)?);
            if name.contains(&0) {
                return Err(keys.wrong("an xattr name has a NUL byte"));
            }
            let value = if kind & OUT_OF_LINE == 0 {
                value(&mut keys)?
            } else {
                let size = keys.u32()?;
                if size != 8 {
                    return Err(keys.wrong(format!("a reference to an xattr value has {size} bytes, not 8")));
                }
                let place = keys.u64()?;
                value(&mut self.xattr_cursor(first, table, place)?)?
            };
            total += name.len() + value.len();
            if total > TOTAL_MAX {
                return Err(keys.wrong(format!("the xattrs of inode {} exceed {TOTAL_MAX} bytes", inode.number)));
            }
            if prefix.is_some() {
                found.push((name, value));
            }
        }
        Ok(found)
    }

    /// A cursor at `reference`, a place like an inode's, in the keys and values that begin at byte `first`.
    fn xattr_cursor(&self, first: u64, table: u64, reference: u64) -> Result<Cursor<'_>, Error> {
        let offset = reference as u16;
        let block = first.checked_add(reference >> 16).filter(|block| *block < table);
        match block {
            Some(block) if usize::from(offset) < BLOCK_SIZE => {
                self.meta.cursor(Table::Xattrs, Place { block, offset }, table)
            }
            _ => {
                let reason = format!("keys or a value would lie at {reference:#x} behind byte {first}");
                Err(Error::corrupt(Table::Xattrs, table, reason))
            }
        }
    }
}

fn value(cursor: &mut Cursor<'_>) -> Result<Vec<u8>, Error> {
    let size = cursor.u32()?;
    if size > VALUE_MAX {
        return Err(cursor.wrong(format!("an xattr value has {size} bytes, at most {VALUE_MAX} are allowed")));
    }
    cursor.bytes(size as usize)
}

#[cfg(test)]
mod tests {
    use super::super::handmade::{Handmade, words};
    use super::Xattr;

    fn pair(kind: u16, name: &[u8], value: &[u8]) -> Vec<u8> {
        let name_len = (name.len() as u16).to_le_bytes();
        [&kind.to_le_bytes()[..], &name_len, name, &words(&[value.len() as u32]), value].concat()
    }

    /// The xattrs of an inode with set 0, which says it has `count` pairs at `place`.
    fn read(pairs: &[u8], place: u64, count: u32) -> Result<Vec<Xattr>, String> {
        let mut made = Handmade::new();
        let set = [&place.to_le_bytes()[..], &words(&[count, 0])].concat();
        made.xattrs = Some((pairs.to_vec(), set));
        let inode = made.inode(13, &words(&[1, 0]));
        let archive = made.open();
        archive.xattrs(&archive.inode(inode).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn prefixes_and_references_resolve() {
        let reference = 0u64.to_le_bytes();
        let mut pairs = words(&[6]);
        pairs.extend(b"shared");
        let start = pairs.len() as u64;
        pairs.extend(pair(0, b"a", b"1"));
        pairs.extend(pair(1, b"overlay.opaque", b"y"));
        pairs.extend(pair(7, b"unknown", b"left out"));
        pairs.extend(pair(0x102, b"label", &reference));
        let expected: [(&[u8], &[u8]); 3] =
            [(b"user.a", b"1"), (b"trusted.overlay.opaque", b"y"), (b"security.label", b"shared")];
        let found = read(&pairs, start, 4).unwrap();
        assert_eq!(found, expected.map(|(name, value)| (name.to_vec(), value.to_vec())));
        assert_eq!(read(&pairs, start, 0), Ok(Vec::new()));
    }

    #[test]
    fn damaged_pairs_are_refused() {
        let cases = [
            (pair(0, b"", b"1"), "an xattr name has 0 bytes"),
            (pair(0, &[b'n'; 251], b"1"), "an xattr name has 251 bytes"),
            (pair(0, b"a\0b", b"1"), "an xattr name has a NUL byte"),
            (pair(0x100, b"a", b"1"), "a reference to an xattr value has 1 bytes"),
            (pair(0x100, b"a", &[0xff; 8]), "would lie at"),
            (pair(0x100, b"a", &[0, 0, 1, 0, 0, 0, 0, 0]), "xattr table at byte"),
            ([&pair(0, b"a", b"")[..5], &words(&[65_537])].concat(), "an xattr value has 65537 bytes"),
        ];
        for (pairs, reason) in cases {
            let error = read(&pairs, 0, 1).unwrap_err();
            assert!(error.contains(reason), "{error}: {reason}");
        }
        assert!(read(&pair(0, b"a", b"1"), 8192, 1).unwrap_err().contains("would lie at"));
        assert!(read(&pair(0, b"a", b"1"), 0, u32::MAX).is_err());
    }

    #[test]
    fn the_sum_of_all_values_is_bounded() {
        let value = vec![7; 65_536];
        let mut pairs = [&words(&[65_536])[..], &value].concat();
        let start = ((pairs.len() / 8192 * 8194) << 16 | (pairs.len() % 8192)) as u64;
        for _ in 0..65 {
            pairs.extend(pair(0x100, b"a", &0u64.to_le_bytes()));
        }
        assert_eq!(read(&pairs, start, 63).unwrap().len(), 63);
        assert!(read(&pairs, start, 65).unwrap_err().contains("exceed 4194304 bytes"));
    }

    #[test]
    fn a_set_that_is_not_there_is_refused() {
        let mut made = Handmade::new();
        made.xattrs = Some((pair(0, b"a", b"1"), vec![0; 16]));
        let inode = made.inode(13, &words(&[1, 1]));
        let archive = made.open();
        let error = archive.xattrs(&archive.inode(inode).unwrap()).unwrap_err();
        assert!(error.to_string().contains("inode 7 has xattr set 1, but there are 1"), "{error}");
    }
}
