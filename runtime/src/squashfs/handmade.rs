//! Archives put together byte by byte, for tests of what no tool would write.

use std::sync::Arc;

use super::{Archive, Inode, InodeRef};

/// Tables as they are before they are cut into metadata blocks, which are stored unpacked.
pub(crate) struct Handmade {
    pub(crate) data: Vec<u8>,
    pub(crate) inodes: Vec<u8>,
    pub(crate) dirs: Vec<u8>,
    /// Keys and values, and the records of the set table.
    pub(crate) xattrs: Option<(Vec<u8>, Vec<u8>)>,
}

impl Handmade {
    pub(crate) fn new() -> Self {
        Self { data: Vec::new(), inodes: Vec::new(), dirs: Vec::new(), xattrs: None }
    }

    /// Adds an inode of type `kind` with the little-endian `body` behind the common header.
    pub(crate) fn inode(&mut self, kind: u16, body: &[u8]) -> InodeRef {
        let at = self.inodes.len();
        let header = [kind.to_le_bytes(), 0o7644u16.to_le_bytes(), [0, 0], [0, 0]].concat();
        self.inodes.extend(header);
        self.inodes.extend(words(&[1_700_000_000, 7]));
        self.inodes.extend(body);
        InodeRef(((at / 8192 * 8194) << 16 | (at % 8192)) as u64)
    }

    /// The bytes of the archive: block size 4096, zstd, one id that is 1234.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 96];
        bytes.extend(&self.data);
        let inode_table = bytes.len() as u64;
        cut(&mut bytes, &self.inodes);
        let directory_table = bytes.len() as u64;
        cut(&mut bytes, &self.dirs);
        let xattr_table = self.xattrs.as_ref().map_or(u64::MAX, |(pairs, sets)| {
            let first = bytes.len() as u64;
            cut(&mut bytes, pairs);
            let block = bytes.len() as u64;
            cut(&mut bytes, sets);
            let table = bytes.len() as u64;
            bytes.extend(first.to_le_bytes());
            bytes.extend(words(&[(sets.len() / 16) as u32, 0]));
            bytes.extend(block.to_le_bytes());
            table
        });
        let ids = bytes.len() as u64;
        cut(&mut bytes, &1234u32.to_le_bytes());
        let id_table = bytes.len() as u64;
        bytes.extend(ids.to_le_bytes());

        let used = bytes.len() as u64;
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"hsqs");
        put(4, &words(&[9, 1_600_000_000, 4096, 0]));
        put(20, &[6, 0, 12, 0, 0, 0, 1, 0, 4, 0, 0, 0]);
        for (at, value) in [(40, used), (48, id_table), (56, xattr_table), (64, inode_table), (72, directory_table)] {
            put(at, &value.to_le_bytes());
        }
        put(80, &[0xff; 16]);
        bytes
    }

    pub(crate) fn open(&self) -> Archive {
        Archive::open(Arc::new(self.bytes())).unwrap()
    }

    /// Adds one inode, and reads it.
    pub(crate) fn read(mut self, kind: u16, body: &[u8]) -> Result<Inode, super::Error> {
        let inode = self.inode(kind, body);
        self.open().inode(inode)
    }
}

/// Little-endian 32-bit words.
pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Appends `table` as metadata blocks; an empty one as a block of one byte.
fn cut(bytes: &mut Vec<u8>, table: &[u8]) {
    for block in if table.is_empty() { &[0] } else { table }.chunks(8192) {
        bytes.extend((0x8000 | block.len() as u16).to_le_bytes());
        bytes.extend(block);
    }
}
