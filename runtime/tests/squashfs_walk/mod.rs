//! Asks an archive every question there is, whatever the answers. Shared by the tests on damaged archives and the
//! fuzz target.

use std::collections::HashSet;
use std::sync::Arc;

use runtime::squashfs::{Archive, Block, Error, Inode, InodeRef, Kind};

/// Entries looked at; a directory may contain itself, and a listing is as long as its metadata.
const ENTRIES_MAX: usize = 2000;

/// Blocks read of one file.
const BLOCKS_MAX: u64 = 16;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub inodes: usize,
    pub bytes: usize,
    pub xattrs: usize,
    /// Inodes whose time is between two seconds.
    pub fractions: usize,
    pub errors: usize,
}

/// Opens `bytes` and walks it as far as the limits go. Answers are counted, errors too; only a panic is wrong.
pub fn walk(bytes: Vec<u8>) -> Findings {
    let mut findings = Findings::default();
    let Some(archive) = findings.note(Archive::open(Arc::new(bytes))) else { return findings };
    let mut seen = HashSet::new();
    let mut queue = vec![archive.root()];
    for number in 0..20 {
        queue.extend(findings.note(archive.inode_by_number(number)).flatten());
    }
    while let Some(inode) = queue.pop() {
        if seen.len() < ENTRIES_MAX && seen.insert(inode) {
            let Some(inode) = findings.note(archive.inode(inode)) else { continue };
            findings.inode(&archive, &inode, &mut queue);
        }
    }
    findings
}

impl Findings {
    fn note<T>(&mut self, answer: Result<T, Error>) -> Option<T> {
        answer
            .map_err(|error| {
                assert!(error.to_string().starts_with("squashfs: "));
                self.errors += 1;
            })
            .ok()
    }

    fn inode(&mut self, archive: &Archive, inode: &Inode, queue: &mut Vec<InodeRef>) {
        self.inodes += 1;
        self.xattrs += self.note(archive.xattrs(inode)).map_or(0, |xattrs| xattrs.len());
        if let Some(time) = self.note(archive.time(inode)) {
            assert!(time.seconds == inode.mtime && time.nanoseconds < 1_000_000_000);
            self.fractions += usize::from(time.nanoseconds != 0);
        }
        match &inode.kind {
            Kind::Directory { .. } => self.directory(archive, inode, queue),
            Kind::File { .. } => self.file(archive, inode),
            _ => {}
        }
    }

    fn directory(&mut self, archive: &Archive, dir: &Inode, queue: &mut Vec<InodeRef>) {
        let mut entries = Vec::new();
        self.note(archive.read_dir(dir, 0, &mut |entry| {
            entries.push(entry);
            entries.len() < ENTRIES_MAX
        }));
        for (index, entry) in entries.iter().enumerate() {
            queue.push(entry.inode);
            if index % 16 == 0 {
                self.note(archive.lookup(dir, &entry.name));
                self.note(archive.read_dir(dir, entry.cookie, &mut |_| false));
            }
        }
        self.note(archive.lookup(dir, b"nothing has this name"));
        self.note(archive.read_dir(dir, 1 << 31, &mut |_| true));
    }

    fn file(&mut self, archive: &Archive, file: &Inode) {
        let count = file.block_count();
        let block_size = u64::from(archive.superblock().block_size);
        assert!(archive.block(file, count).is_err());
        for index in
            (0..count.min(BLOCKS_MAX)).chain([count / 2, count.saturating_sub(1)]).filter(|index| *index < count)
        {
            let Some(block) = self.note(archive.block(file, index)) else { continue };
            assert!(block.len() > 0 && block.len() as u64 <= block_size);
            if let Block::Stored { stored, skip, len } = block
                && let Some(bytes) = self.note(archive.load(stored))
            {
                assert!(bytes.len() as u64 <= block_size);
                self.bytes += self.note(stored.part(&bytes, skip, len)).map_or(0, <[u8]>::len);
            }
        }
        let mut buf = [0; 5000];
        self.note(archive.read_at(file, count.saturating_sub(1) * block_size, &mut buf));
    }
}
