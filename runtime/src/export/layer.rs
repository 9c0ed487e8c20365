//! The one layer of an exported image: a compressed tar of the merged tree. What pax(1) knows no field for is in extended
//! headers: attributes as `SCHILY.xattr.NAME`, as OCI engines read them, and times between two seconds as `mtime`.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::archive::{Blob, Digesting};
use super::{Error, Omitted};
use crate::extract;
use crate::extract::attributes::is_overlays_own;
use crate::extract::content::Shared;
use crate::extract::merge::{Layers, Node, Part, contradiction, damaged, joined};
use crate::progress::Progress;
use crate::squashfs::{Archive, Block, InodeRef, Kind, Time, device_parts};

/// Writes the merged `layers` to `out`. Returns the layer, the digest of what it is uncompressed, and what is not in it.
pub(super) fn write(
    layers: &[Archive],
    out: &File,
    progress: &mut dyn Progress,
) -> Result<(Blob, String, Omitted), Error> {
    let compressed = Digesting::new(BufWriter::with_capacity(1 << 20, out));
    let plain = Digesting::new(GzEncoder::new(compressed, Compression::default()));
    let mut layer = Layer {
        layers: Layers { archives: layers.into(), whiteouts: false },
        tar: Builder::new(plain),
        links: HashMap::new(),
        shared: Shared::default(),
        omitted: Omitted::default(),
    };
    layer.tree(progress)?;
    let Layer { tar, omitted, .. } = layer;
    let (plain, encoder) = tar.into_inner()?.end();
    let (blob, mut file) = encoder.finish()?.end();
    file.flush()?;
    Ok((blob, plain.digest(), omitted))
}

struct Layer<'a, W: Write> {
    layers: Layers<'a>,
    tar: Builder<W>,
    /// Path of files that have more names.
    links: HashMap<(usize, InodeRef), Vec<u8>>,
    shared: Shared,
    omitted: Omitted,
}

impl<W: Write> Layer<'_, W> {
    fn tree(&mut self, progress: &mut dyn Progress) -> Result<(), Error> {
        // Each directory of a layer belongs to one place, so a second visit is a loop.
        let mut entered = HashSet::new();
        let mut stack = vec![(Vec::new(), self.layers.root()?)];
        while let Some((path, parts)) = stack.pop() {
            for part in &parts {
                if !entered.insert((part.layer, part.at)) {
                    return Err(contradiction(part.layer, &path, "the directory has two places in the tree").into());
                }
            }
            // The top one gives the attributes.
            if let Some(top) = parts.first() {
                let name = [if path.is_empty() { b"." } else { path.as_slice() }, b"/"].concat();
                self.entry(top, &path, &name, EntryType::Directory, io::empty())?;
            }
            for (name, node) in self.layers.children(&path, &parts)?.into_iter().rev() {
                let path = joined(&path, &name);
                match node {
                    Node::Directory { parts, .. } => stack.push((path, parts)),
                    Node::Leaf(part) | Node::Whiteout(part) => self.leaf(&part, path, progress)?,
                }
            }
        }
        Ok(())
    }

    fn leaf(&mut self, part: &Part, path: Vec<u8>, progress: &mut dyn Progress) -> Result<(), Error> {
        if progress.stopped() {
            return Err(extract::Error::Interrupted.into());
        }
        let key = (part.layer, part.at);
        if let Some(first) = self.links.get(&key) {
            let mut header = header(part, EntryType::Link);
            self.tar.append_link(&mut header, as_path(&path), as_path(first))?;
            return Ok(());
        }
        match &part.inode.kind {
            Kind::File { .. } => {
                self.extended(part, &path)?;
                let mut content = Content::new(self.layers, &self.shared, part, &path, progress);
                let header = header(part, EntryType::Regular);
                let written = append(&mut self.tar, header, &path, &mut content);
                if let Some(error) = content.failed.take() {
                    return Err(error.into());
                }
                written?;
                progress.advance(0, 1);
            }
            Kind::Symlink { target } => {
                let mut header = header(part, EntryType::Symlink);
                // Engines give a link no attributes.
                let time = self.time(part, &path)?;
                extend(&mut self.tar, part, time.into_iter().collect())?;
                self.tar.append_link(&mut header, as_path(&path), as_path(target))?;
            }
            Kind::BlockDevice { .. } => self.entry(part, &path, &path, EntryType::Block, io::empty())?,
            Kind::CharDevice { .. } => self.entry(part, &path, &path, EntryType::Char, io::empty())?,
            Kind::Fifo => self.entry(part, &path, &path, EntryType::Fifo, io::empty())?,
            Kind::Socket => {
                self.omitted.sockets += 1;
                return Ok(());
            }
            Kind::Directory { .. } => return Err(contradiction(part.layer, &path, "it is a directory").into()),
        }
        if part.inode.nlink > 1 {
            self.links.insert(key, path);
        }
        Ok(())
    }

    /// The extended header of an entry that has attributes, or a time between two seconds.
    fn extended(&mut self, part: &Part, path: &[u8]) -> Result<(), Error> {
        let archive = &self.layers.archives[part.layer];
        let stored = archive.xattrs(&part.inode).map_err(damaged(part.layer, path))?;
        let names = stored.into_iter().filter(|(name, _)| !is_overlays_own(name));
        // A name with the sign that ends names cannot be written.
        let names = names.filter_map(|(name, value)| Some((String::from_utf8(name).ok()?, value)));
        let attributes =
            names.filter(|(name, _)| !name.contains('=')).map(|(name, value)| (format!("SCHILY.xattr.{name}"), value));
        let records = self.time(part, path)?.into_iter().chain(attributes).collect();
        Ok(extend(&mut self.tar, part, records)?)
    }

    /// The record of a time between two seconds, which a header cannot hold.
    fn time(&self, part: &Part, path: &[u8]) -> Result<Option<Record>, Error> {
        let Time { seconds, nanoseconds } = self.layers.time(part, path)?;
        let record = || ("mtime".to_owned(), format!("{seconds}.{nanoseconds:09}").into_bytes());
        Ok((nanoseconds != 0).then(record))
    }

    /// An entry called `name` for what is at `path`.
    fn entry(
        &mut self,
        part: &Part,
        path: &[u8],
        name: &[u8],
        kind: EntryType,
        content: impl Read,
    ) -> Result<(), Error> {
        self.extended(part, path)?;
        Ok(append(&mut self.tar, header(part, kind), name, content)?)
    }
}

fn append(tar: &mut Builder<impl Write>, mut header: Header, name: &[u8], content: impl Read) -> io::Result<()> {
    tar.append_data(&mut header, as_path(name), content)
}

/// A record of an extended header: its name and value.
type Record = (String, Vec<u8>);

/// Writes an extended header for the entry that follows, if there are records.
fn extend(tar: &mut Builder<impl Write>, part: &Part, records: Vec<Record>) -> io::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let content: Vec<u8> = records.iter().flat_map(|(name, value)| record(name, value)).collect();
    let mut header = Header::new_ustar();
    describe(&mut header, part, EntryType::XHeader);
    header.set_size(content.len() as u64);
    append(tar, header, b"attributes", content.as_slice())
}

/// A record of an extended header (POSIX.1-2008, "pax Extended Header"): its own length in decimal digits, those digits
/// among it, a blank, the name, `=`, the value, a newline.
fn record(name: &str, value: &[u8]) -> Vec<u8> {
    let rest = name.len() + value.len() + 3;
    let digits = |len: usize| len.to_string().len();
    let mut len = rest + digits(rest);
    len = rest + digits(len);
    [format!("{len} {name}=").as_bytes(), value, b"\n"].concat()
}

fn header(part: &Part, kind: EntryType) -> Header {
    let inode = &part.inode;
    let mut header = Header::new_gnu();
    describe(&mut header, part, kind);
    header.set_size(match (&inode.kind, kind) {
        (Kind::File { size, .. }, EntryType::Regular) => *size,
        _ => 0,
    });
    if let Kind::BlockDevice { rdev } | Kind::CharDevice { rdev } = inode.kind {
        let (major, minor) = device_parts(rdev);
        // The header has both fields, so this cannot fail.
        let _ = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
    }
    header
}

fn describe(header: &mut Header, part: &Part, kind: EntryType) {
    header.set_entry_type(kind);
    header.set_mode(u32::from(part.inode.mode_perm));
    header.set_uid(part.inode.uid.into());
    header.set_gid(part.inode.gid.into());
    header.set_mtime(part.inode.mtime.into());
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// The content of a file, block by block.
struct Content<'a> {
    layers: Layers<'a>,
    shared: &'a Shared,
    part: &'a Part,
    path: &'a [u8],
    next: u64,
    /// The block that is being read, and how much of it was.
    block: Vec<u8>,
    at: usize,
    progress: &'a mut dyn Progress,
    /// Why it cannot be read on.
    failed: Option<extract::Error>,
}

impl<'a> Content<'a> {
    fn new(
        layers: Layers<'a>,
        shared: &'a Shared,
        part: &'a Part,
        path: &'a [u8],
        progress: &'a mut dyn Progress,
    ) -> Self {
        Self { layers, shared, part, path, next: 0, block: Vec::new(), at: 0, progress, failed: None }
    }

    /// The next block; false at the end.
    fn advance(&mut self) -> Result<bool, extract::Error> {
        let (layer, inode) = (self.part.layer, &self.part.inode);
        if self.next == inode.block_count() {
            return Ok(false);
        }
        if self.progress.stopped() {
            return Err(extract::Error::Interrupted);
        }
        let archive = &self.layers.archives[layer];
        let damaged = || damaged(layer, self.path);
        self.block.clear();
        match archive.block(inode, self.next).map_err(damaged())? {
            Block::Hole { len } => self.block.resize(len, 0),
            Block::Stored { stored, skip, len } => {
                let bytes = self.shared.load(layer, archive, stored, len).map_err(damaged())?;
                self.block.extend_from_slice(stored.part(&bytes, skip, len).map_err(damaged())?);
            }
        }
        (self.next, self.at) = (self.next + 1, 0);
        self.progress.advance(self.block.len() as u64, 0);
        Ok(true)
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => {
                    self.failed = Some(error);
                    return Err(io::Error::other("the content cannot be read"));
                }
            }
        }
        let len = buffer.len().min(self.block.len() - self.at);
        buffer[..len].copy_from_slice(&self.block[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_digits() {
        assert_eq!(record("a", b"b"), b"6 a=b\n");
        for len in [1, 2, 3, 4, 5, 90, 91, 92, 93, 94, 95, 990, 991, 992, 993, 994, 995] {
            let record = record("a", &vec![b'x'; len]);
            let stated: usize = std::str::from_utf8(&record).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(stated, record.len());
        }
    }
}
