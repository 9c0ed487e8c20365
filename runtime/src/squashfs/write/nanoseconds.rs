//! The table of nanoseconds (`squashfs/time.rs`), between the data and the inodes.

use super::object::check;
use super::tree::Tree;
use super::{Error, Writer, ffi};
use crate::squashfs::time::Trailer;

/// Writes the table, unless all times are whole seconds. The inode table must follow at once. `numbers` are those of the
/// nodes' inodes, 0 for none, and go up to `count`. Returns whether there is a table.
pub fn write(writer: &mut Writer, tree: &Tree, numbers: &[u32], count: u32) -> Result<bool, Error> {
    let mut table = Vec::new();
    for (node, &number) in tree.nodes.iter().zip(numbers) {
        let nanoseconds = node.metadata.mtime.nanoseconds;
        if number == 0 || nanoseconds == 0 {
            continue;
        }
        table.resize(count as usize * size_of::<u32>(), 0);
        let at = (number - 1) as usize * size_of::<u32>();
        table[at..at + size_of::<u32>()].copy_from_slice(&nanoseconds.to_le_bytes());
    }
    if table.is_empty() {
        return Ok(false);
    }
    let (file, compressor) = (writer.target.as_ptr(), writer.compressor.as_ptr());
    let mut list = 0;
    // SAFETY: target and compressor are live; the library reads `table.len()` bytes of the table and writes to `list`.
    let code = unsafe { ffi::sqfs_write_table(file, compressor, table.as_ptr().cast(), table.len(), &raw mut list) };
    check("writing the table of nanoseconds", code)?;
    writer.target.append(&Trailer { list, count }.encode()).map_err(Error::Output)?;
    Ok(true)
}
