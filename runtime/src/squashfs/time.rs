//! Times of files. An inode holds whole seconds; the rest is in a table of our own, which other readers do not look for.
//!
//! docs/FORMAT.md, "Nanoseconds", describes the table: a 32-bit number for each inode, kept as the tables of squashfs are,
//! and a trailer that ends where the inodes begin. Changing this breaks the format.

use super::error::{Error, Table};
use super::meta::BLOCK_SIZE;
use super::superblock::{SUPERBLOCK_SIZE, le32, le64};
use super::{Archive, Inode, Kind};

/// Bytes of a trailer.
pub(super) const TRAILER_SIZE: usize = 32;

const MAGIC: [u8; 8] = *b"FIMNSEC\n";
const VERSION: u32 = 1;
/// Bytes that the checksum is over: all before it.
const CHECKED: usize = 24;

/// Entries of the table in one block.
const PER_BLOCK: usize = BLOCK_SIZE / size_of::<u32>();

/// Nanoseconds in a second.
const SECOND: u32 = 1_000_000_000;

/// When the contents of a file were last changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970 (unsigned).
    pub seconds: u32,
    /// 0..=999,999,999.
    pub nanoseconds: u32,
}

impl From<u32> for Time {
    /// A whole second.
    fn from(seconds: u32) -> Self {
        Self { seconds, nanoseconds: 0 }
    }
}

/// Where the table of an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    /// Byte of the archive where the list of the table's blocks begins.
    pub(super) list: u64,
    /// Entries of the table.
    pub(super) count: u32,
}

impl Trailer {
    pub(super) fn encode(self) -> [u8; TRAILER_SIZE] {
        let mut bytes = [0; TRAILER_SIZE];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..CHECKED].copy_from_slice(&self.list.to_le_bytes());
        let checksum = checksum(&bytes);
        bytes[CHECKED..].copy_from_slice(&checksum);
        bytes
    }

    /// `None` when the bytes are no trailer, or one of a version that is not known; an error says what is wrong with one.
    fn decode(bytes: &[u8; TRAILER_SIZE]) -> Result<Option<Self>, &'static str> {
        if bytes[..8] != MAGIC {
            return Ok(None);
        }
        if bytes[CHECKED..] != checksum(bytes) {
            return Err("the trailer does not match its checksum");
        }
        let known = le32(bytes, 8) == VERSION;
        Ok(known.then(|| Self { count: le32(bytes, 12), list: le64(bytes, 16) }))
    }
}

fn checksum(trailer: &[u8; TRAILER_SIZE]) -> [u8; TRAILER_SIZE - CHECKED] {
    let mut checksum = [0; TRAILER_SIZE - CHECKED];
    checksum.copy_from_slice(&blake3::hash(&trailer[..CHECKED]).as_bytes()[..TRAILER_SIZE - CHECKED]);
    checksum
}

/// What the root of an archive with `inodes` inodes has as the number of its parent, which no inode has: with a table, one
/// more than other writers have there. So whoever reads the root knows whether to look for a trailer.
pub(super) fn parent_of_root(inodes: u32, has_table: bool) -> u32 {
    inodes.wrapping_add(if has_table { 2 } else { 1 })
}

/// The table of an archive.
pub(super) struct Nanoseconds {
    /// Byte of the archive where the list of its blocks begins.
    list: u64,
    /// The list: where the blocks are.
    blocks: Box<[u64]>,
}

impl Archive {
    /// The whole time of an inode of this archive.
    ///
    /// # Errors
    /// When the table of nanoseconds is damaged; the seconds are right all the same.
    pub fn time(&self, inode: &Inode) -> Result<Time, Error> {
        let nanoseconds = match self.nanoseconds()? {
            Some(table) => self.nanoseconds_of(table, inode.number)?,
            None => 0,
        };
        Ok(Time { seconds: inode.mtime, nanoseconds })
    }

    fn nanoseconds_of(&self, table: &Nanoseconds, number: u32) -> Result<u32, Error> {
        // No inode that was read has number 0.
        let index = number.saturating_sub(1) as usize;
        let block = table.blocks.get(index / PER_BLOCK).filter(|_| number <= self.superblock.inode_count);
        // What has no place in the table has none that it could contradict.
        let Some(&block) = block else { return Ok(0) };
        let record = self.meta.record_in(Table::Nanoseconds, block, table.list, index as u64)?;
        match u32::from_le_bytes(record) {
            nanoseconds @ ..SECOND => Ok(nanoseconds),
            many => Err(Error::corrupt(Table::Nanoseconds, block, format!("inode {number} has {many} of them"))),
        }
    }

    fn nanoseconds(&self) -> Result<Option<&Nanoseconds>, Error> {
        if let Some(table) = self.nanoseconds.get() {
            return Ok(table.as_ref());
        }
        let table = self.find_nanoseconds()?;
        Ok(self.nanoseconds.get_or_init(|| table).as_ref())
    }

    fn find_nanoseconds(&self) -> Result<Option<Nanoseconds>, Error> {
        let (inodes, end) = (self.superblock.inode_count, self.superblock.inode_table);
        // Whoever has come to an inode has read the root before, so this is no read of the source.
        match self.inode(self.superblock.root)?.kind {
            Kind::Directory { parent, .. } if parent == parent_of_root(inodes, true) => {}
            _ => return Ok(None),
        }
        let size = (inodes as usize).div_ceil(PER_BLOCK) * 8;
        // List and trailer are one read, unless the list is long: that is not read before it is known to be there.
        let both = (size + TRAILER_SIZE).min(BLOCK_SIZE) as u64;
        let mut bytes = vec![0; both.min(end - SUPERBLOCK_SIZE as u64) as usize];
        self.meta.read(Table::Nanoseconds, end - bytes.len() as u64, &mut bytes)?;
        let Some((before, trailer)) = bytes.split_last_chunk() else { return Ok(None) };

        let at = end - TRAILER_SIZE as u64;
        let wrong = |reason: String| Error::corrupt(Table::Nanoseconds, at, reason);
        let Some(trailer) = Trailer::decode(trailer).map_err(|reason| wrong(reason.into()))? else { return Ok(None) };
        let Trailer { list, count } = trailer;
        if count != inodes {
            return Err(wrong(format!("the table has {count} entries, but there are {inodes} inodes")));
        }
        if list < SUPERBLOCK_SIZE as u64 || list.checked_add(size as u64) != Some(at) {
            return Err(wrong(format!("the list of blocks at byte {list}, {size} bytes, does not end at the trailer")));
        }
        let positions = match before.len().checked_sub(size) {
            Some(start) => before[start..].to_vec(),
            None => {
                let mut positions = vec![0; size];
                self.meta.read(Table::Nanoseconds, list, &mut positions)?;
                positions
            }
        };
        let blocks = positions.chunks_exact(8).map(|position| le64(position, 0)).collect();
        Ok(Some(Nanoseconds { list, blocks }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::source::ByteSource;
    use crate::squashfs::handmade::{Handmade, words};
    use crate::squashfs::write::{Kind as New, Metadata, Options, Tree, Writer};

    /// An archive with a pipe for each time; its names are numbers.
    fn archive(times: &[Time]) -> Vec<u8> {
        let file = tempfile::tempfile().unwrap();
        let writer = Writer::new(&file, 0, &Options { level: 1, threads: 1, ..Options::default() }).unwrap();
        let mut tree = Tree::new();
        for (number, &mtime) in times.iter().enumerate() {
            let metadata = Metadata { mode: 0o600, mtime, ..Metadata::default() };
            tree.add(Tree::ROOT, number.to_string().as_bytes(), metadata, New::Fifo).unwrap();
        }
        let summary = writer.finish(&tree, 0).unwrap();
        read(&file, summary.bytes_used)
    }

    fn read(file: &File, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn open(bytes: &[u8]) -> Archive {
        Archive::open(Arc::new(bytes.to_vec())).unwrap()
    }

    fn inode(archive: &Archive, name: &str) -> Inode {
        let root = archive.inode(archive.root()).unwrap();
        archive.inode(archive.lookup(&root, name.as_bytes()).unwrap().unwrap().inode).unwrap()
    }

    /// Where the inodes begin and the trailer ends.
    fn end(bytes: &[u8]) -> usize {
        le64(bytes, 64) as usize
    }

    fn time(seconds: u32, nanoseconds: u32) -> Time {
        Time { seconds, nanoseconds }
    }

    /// The archive of one file with this trailer.
    fn with_trailer(trailer: &[u8; TRAILER_SIZE]) -> Archive {
        let mut bytes = archive(&[time(5, 7)]);
        let end = end(&bytes);
        bytes[end - TRAILER_SIZE..end].copy_from_slice(trailer);
        open(&bytes)
    }

    #[test]
    fn every_inode_has_its_own() {
        // More than two blocks of the table.
        let times: Vec<Time> = (0..5000u32).map(|number| time(number, number * 199_999)).collect();
        let archive = open(&archive(&times));
        for (number, &expected) in times.iter().enumerate().step_by(7).chain([(4999, &times[4999])]) {
            assert_eq!(archive.time(&inode(&archive, &number.to_string())).unwrap(), expected);
        }
        assert_eq!(archive.time(&archive.inode(archive.root()).unwrap()).unwrap(), Time::default());
    }

    #[test]
    fn whole_seconds_have_no_table() {
        let bytes = archive(&[time(5, 0), time(6, 0)]);
        assert!(!bytes.windows(8).any(|bytes| bytes == MAGIC));
        let archive = open(&bytes);
        let Kind::Directory { parent, .. } = archive.inode(archive.root()).unwrap().kind else {
            panic!("no directory")
        };
        assert_eq!(parent, 4, "as mksquashfs has it");
        assert_eq!(archive.time(&inode(&archive, "1")).unwrap(), time(6, 0));
    }

    #[test]
    fn golden_table() {
        let bytes = archive(&[time(5, 0x0102_0304)]);
        let table = &bytes[end(&bytes) - TRAILER_SIZE - 8 - 10..end(&bytes)];
        let golden = [
            0x08, 0x80, 4, 3, 2, 1, 0, 0, 0, 0, // one block, stored: the pipe and the root
            102, 0, 0, 0, 0, 0, 0, 0, // where it is
            b'F', b'I', b'M', b'N', b'S', b'E', b'C', b'\n', 1, 0, 0, 0, 2, 0, 0, 0, 112, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(table[..golden.len()], golden);
        assert_eq!(table[golden.len()..], blake3::hash(&table[18..42]).as_bytes()[..8]);
    }

    /// Counts how often it is read.
    struct Counted(Vec<u8>, AtomicUsize);

    impl ByteSource for Counted {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.read_exact_at(buf, offset)
        }
    }

    #[test]
    fn an_archive_without_a_table_is_not_read_for_it_and_a_table_once() {
        for (nanoseconds, reads) in [(0, 0), (1, 2)] {
            let source = Arc::new(Counted(archive(&[time(1, nanoseconds)]), AtomicUsize::new(0)));
            let archive = Archive::open(source.clone()).unwrap();
            let inode = inode(&archive, "0");
            let before = source.1.load(Ordering::Relaxed);
            for _ in 0..3 {
                assert_eq!(archive.time(&inode).unwrap(), time(1, nanoseconds));
            }
            assert_eq!(source.1.load(Ordering::Relaxed) - before, reads, "list and trailer, block");
        }
    }

    #[test]
    fn a_list_may_be_longer_than_what_is_read_with_the_trailer() {
        let blocks = 1500;
        let count = blocks * PER_BLOCK as u32 - 1;
        let mut made = Handmade::new();
        // Two blocks, in turn.
        for value in [7, 8] {
            made.data.extend([0, 0xa0]);
            made.data.extend(words(&[value; PER_BLOCK]));
        }
        let list = SUPERBLOCK_SIZE as u64 + made.data.len() as u64;
        for number in 0..u64::from(blocks) {
            made.data.extend((SUPERBLOCK_SIZE as u64 + number % 2 * 8194).to_le_bytes());
        }
        made.data.extend(Trailer { list, count }.encode());
        let root = made.inode(1, &words(&[0, 2, 3, parent_of_root(count, true)]));
        let mut bytes = made.bytes();
        bytes[4..8].copy_from_slice(&count.to_le_bytes());
        let archive = open(&bytes);
        let root = archive.inode(root).unwrap();
        let nanoseconds = |number| archive.time(&Inode { number, ..root.clone() }).unwrap().nanoseconds;
        assert_eq!([1, 2048, 2049, 4096, 4097, count].map(nanoseconds), [7, 7, 8, 8, 7, 8]);
        assert_eq!([count + 1, u32::MAX].map(nanoseconds), [0, 0], "no entry");
    }

    #[test]
    fn hostile_trailers_are_refused_and_foreign_ones_mean_nothing() {
        let good = archive(&[time(5, 7)]);
        let start = (end(&good) - TRAILER_SIZE) as u64;
        let failure = |trailer: Trailer| {
            let archive = with_trailer(&trailer.encode());
            archive.time(&inode(&archive, "0")).unwrap_err().to_string()
        };
        assert!(failure(Trailer { list: start - 8, count: 3 }).contains("3 entries, but there are 2 inodes"));
        for list in [0, 95, start - 9, start, start + 8, u64::MAX - 7, u64::MAX] {
            assert!(failure(Trailer { list, count: 2 }).contains("does not end at the trailer"), "{list}");
        }
        let mut newer = Trailer { list: start - 8, count: 2 }.encode();
        newer[8] = 2;
        let wrong = with_trailer(&newer);
        assert!(wrong.time(&inode(&wrong, "0")).unwrap_err().to_string().contains("checksum"));
        let checksum = checksum(&newer);
        newer[CHECKED..].copy_from_slice(&checksum);
        for trailer in [newer, [0; TRAILER_SIZE]] {
            let archive = with_trailer(&trailer);
            assert_eq!(archive.time(&inode(&archive, "0")).unwrap(), time(5, 0));
        }
    }

    #[test]
    fn hostile_tables_are_refused() {
        let good = archive(&[time(5, 7)]);
        let end = end(&good);
        let failure = |from_end: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes[end - from_end..][..value.len()].copy_from_slice(value);
            let archive = open(&bytes);
            archive.time(&inode(&archive, "0")).unwrap_err().to_string()
        };
        let (list, block) = (TRAILER_SIZE + 8, TRAILER_SIZE + 8 + 10);
        assert!(failure(block - 2, &SECOND.to_le_bytes()).contains("inode 1 has 1000000000 of them"));
        assert!(failure(block - 2, &[0xff; 4]).contains("nanosecond table"));
        for place in [0, 95, end as u64, good.len() as u64, u64::MAX] {
            assert!(failure(list, &place.to_le_bytes()).starts_with("squashfs: nanosecond table"), "{place}");
        }
        assert!(failure(block, &[2, 0x80]).contains("record 0 would begin at 0"));
        assert!(failure(block, &[9, 0x80]).contains("the table ends at"));
    }

    #[test]
    fn damage_never_touches_the_seconds() {
        let times: Vec<Time> = (0..100u32).map(|number| time(1000 + number, number)).collect();
        let good = archive(&times);
        // Behind the level of compression; there is no data.
        for at in SUPERBLOCK_SIZE + 6..end(&good) {
            for value in [0, 0xff, good[at] ^ 1] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let archive = open(&bytes);
                for number in [0, 50, 99] {
                    let inode = inode(&archive, &number.to_string());
                    assert_eq!(inode.mtime, 1000 + number);
                    if let Ok(time) = archive.time(&inode) {
                        assert!(time.seconds == inode.mtime && time.nanoseconds < SECOND);
                    }
                }
            }
        }
    }
}
