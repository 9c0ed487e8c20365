//! The outer tar: documents and blobs by their digests.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// A blob that is complete.
pub(super) struct Blob {
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
    pub size: u64,
}

impl Blob {
    /// The digest as descriptors have it.
    pub fn digest(&self) -> String {
        format!("sha256:{}", self.sha256)
    }
}

/// Counts and digests what is written.
pub(super) struct Digesting<W> {
    inner: W,
    sha256: Sha256,
    size: u64,
}

impl<W: Write> Digesting<W> {
    pub fn new(inner: W) -> Self {
        Self { inner, sha256: Sha256::new(), size: 0 }
    }

    /// What was written, and where to.
    pub fn end(self) -> (Blob, W) {
        (Blob { sha256: hexadecimal(&self.sha256.finalize()), size: self.size }, self.inner)
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.inner.write(bytes)?;
        self.sha256.update(&bytes[..len]);
        self.size += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The archive while it is written.
pub(super) struct Output<'a> {
    tar: Builder<BufWriter<&'a File>>,
    mtime: u64,
}

impl<'a> Output<'a> {
    pub fn new(out: &'a File, mtime: u64) -> Self {
        Self { tar: Builder::new(BufWriter::with_capacity(1 << 20, out)), mtime }
    }

    fn append(&mut self, name: &str, size: u64, content: impl Read) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        header.set_mtime(self.mtime);
        self.tar.append_data(&mut header, name, content)
    }

    /// A file with this content.
    pub fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.append(name, content.len() as u64, content)
    }

    /// A blob whose content is all of `file`.
    pub fn blob(&mut self, blob: &Blob, mut file: &File) -> io::Result<()> {
        file.seek(SeekFrom::Start(0))?;
        self.append(&format!("blobs/sha256/{}", blob.sha256), blob.size, BufReader::with_capacity(1 << 20, file))
    }

    /// A blob that is a JSON document.
    pub fn document(&mut self, value: &Value) -> io::Result<Blob> {
        let content = value.to_string();
        let blob = Blob { sha256: hexadecimal(&Sha256::digest(&content)), size: content.len() as u64 };
        self.file(&format!("blobs/sha256/{}", blob.sha256), content.as_bytes())?;
        Ok(blob)
    }

    pub fn end(self) -> io::Result<()> {
        self.tar.into_inner()?.flush()
    }
}
