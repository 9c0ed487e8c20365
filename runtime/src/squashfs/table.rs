//! The tables that are indexed by number: ids, fragments, exported inodes.

use super::data::Stored;
use super::error::{Error, Table};
use super::superblock::{le32, le64};
use super::{Archive, InodeRef};

impl Archive {
    /// User or group id number `index` (specification section 8).
    pub(super) fn id(&self, index: u16, inode_block: u64) -> Result<u32, Error> {
        let count = self.superblock.id_count;
        if index >= count {
            let reason = format!("an inode names id {index}, but there are {count}");
            return Err(Error::corrupt(Table::Inodes, inode_block, reason));
        }
        let record = self.meta.record::<4>(Table::Ids, self.superblock.id_table, u64::from(index))?;
        Ok(u32::from_le_bytes(record))
    }

    /// Where fragment block `index` lies (specification section 6).
    pub(super) fn fragment(&self, index: u32) -> Result<Stored, Error> {
        let list = self.superblock.fragment_table.filter(|_| index < self.superblock.fragment_count);
        let Some(list) = list else {
            let reason = format!("a file ends in fragment {index}, but there are {}", self.superblock.fragment_count);
            return Err(Error::corrupt(Table::Fragments, 0, reason));
        };
        let record = self.meta.record::<16>(Table::Fragments, list, u64::from(index))?;
        self.stored(Table::Fragments, le64(&record, 0), le32(&record, 8), self.superblock.block_size)
    }

    /// The inode with number `number`; `None` when there is no such inode or the archive has no export table
    /// (specification section 7).
    ///
    /// # Errors
    /// When the export table is damaged.
    pub fn inode_by_number(&self, number: u32) -> Result<Option<InodeRef>, Error> {
        let Some(list) = self.superblock.export_table else { return Ok(None) };
        if number == 0 || number > self.superblock.inode_count {
            return Ok(None);
        }
        let record = self.meta.record::<8>(Table::Export, list, u64::from(number - 1))?;
        let inode = u64::from_le_bytes(record);
        if inode >= 1 << 48 {
            let reason = format!("inode {number} is said to be at {inode:#x}, beyond 48 bits");
            return Err(Error::corrupt(Table::Export, list, reason));
        }
        Ok(Some(InodeRef(inode)))
    }
}
