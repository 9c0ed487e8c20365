//! Writing a new image.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::append::read_piece;
use super::chunk_tree::{DEFAULT_CHUNK_SIZE, TreeBuilder, TreeParts};
use super::config::Config;
use super::elf::{self, MARK, MARK_OFFSET};
use super::error::{Error, FormatError};
use super::layer::{LayerEntry, LayerFacts, check_index, index_end};
use super::slot::{self, DEFAULT_SLOT_CAPACITY};
use super::superblock::{Superblock, Uuid};
use super::{CONFIG_VERSION, PAGE, body};

/// Bytes hashed and copied at once.
const PIECE: usize = 4 << 20;

/// What the builder may choose about the format.
#[derive(Debug, Clone, Copy)]
pub struct WriterOptions {
    /// Length of each config slot in bytes: a multiple of 4096 up to 1 MiB.
    pub slot_capacity: u64,
    /// Length of a verified chunk in bytes: a power of two from 16 KiB to 1 MiB.
    pub chunk_size: u32,
    /// Time of creation in seconds since 1970-01-01 UTC; part of the content.
    pub created: u64,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { slot_capacity: DEFAULT_SLOT_CAPACITY, chunk_size: DEFAULT_CHUNK_SIZE, created: 0 }
    }
}

/// Writes a new image: the program, then layers one after the other, then [`ImageWriter::finish`].
/// Until that has returned, the file is no image. The same input gives the same bytes.
#[derive(Debug)]
pub struct ImageWriter {
    file: File,
    path: PathBuf,
    superblock: Superblock,
    layers: Vec<LayerEntry>,
    chunk_size: u32,
}

impl ImageWriter {
    /// Begins an image in `file`, which is open for reading and writing; what it contained is lost. `elf`
    /// begins with the program, and may go on behind it. `path` is for messages only.
    ///
    /// # Errors
    /// When `elf` is no usable program, an option is out of range, or writing fails.
    pub fn create(file: File, path: &Path, elf: &[u8], options: WriterOptions) -> Result<Self, Error> {
        let invalid = |source| Error::Format { path: path.to_owned(), source };
        let failed = |source| Error::Write { path: path.to_owned(), source };
        let elf_len = elf::program_end(elf).map_err(invalid)?;
        let mut superblock = Superblock::new(elf_len, options.slot_capacity).map_err(invalid)?;
        superblock.created = options.created;
        // `program_end` proved that the program lies inside `elf`.
        let mut program = elf[..elf_len as usize].to_vec();
        program[MARK_OFFSET..MARK_OFFSET + MARK.len()].copy_from_slice(&MARK);
        file.set_len(0).map_err(failed)?;
        file.write_all_at(&program, 0).map_err(failed)?;
        file.set_len(superblock.payload).map_err(failed)?;
        TreeBuilder::new(options.chunk_size).map_err(FormatError::Index).map_err(invalid)?;
        Ok(Self { file, path: path.to_owned(), superblock, layers: Vec::new(), chunk_size: options.chunk_size })
    }

    /// Offset in bytes at which the next layer begins, a multiple of [`PAGE`].
    #[must_use]
    pub fn layer_offset(&self) -> u64 {
        index_end(&self.layers, &self.superblock).next_multiple_of(PAGE)
    }

    /// The file, for a packer that writes the next layer itself, at [`ImageWriter::layer_offset`].
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Copies a layer from `data` and adds it to the index.
    ///
    /// # Errors
    /// When reading or writing fails or the layer breaks a limit of the format.
    pub fn add_layer(&mut self, data: &mut dyn Read, facts: LayerFacts) -> Result<&LayerEntry, Error> {
        let offset = self.layer_offset();
        let (mut tree, mut piece, mut at) = (self.tree()?, vec![0; PIECE], offset);
        loop {
            let read = read_piece(data, &mut piece);
            let len = read.map_err(|source| Error::Source { path: self.path.clone(), source })?;
            if len == 0 {
                return self.index(offset, facts, &tree.finish());
            }
            tree.update(&piece[..len]);
            self.file.write_all_at(&piece[..len], at).map_err(|source| self.failed(source))?;
            at += len as u64;
        }
    }

    /// Adds the `size` bytes at [`ImageWriter::layer_offset`], which a packer has written, to the index.
    ///
    /// # Errors
    /// When reading or writing fails or the layer breaks a limit of the format.
    pub fn seal_layer(&mut self, size: u64, facts: LayerFacts) -> Result<&LayerEntry, Error> {
        let offset = self.layer_offset();
        let (mut tree, mut piece, mut done) = (self.tree()?, vec![0; PIECE], 0);
        while done < size {
            let len = (size - done).min(PIECE as u64) as usize;
            let bytes = &mut piece[..len];
            self.file.read_exact_at(bytes, offset + done).map_err(|source| self.failed(source))?;
            tree.update(bytes);
            done += len as u64;
        }
        self.index(offset, facts, &tree.finish())
    }

    /// The index so far.
    #[must_use]
    pub fn layers(&self) -> &[LayerEntry] {
        &self.layers
    }

    /// Writes the first configuration, into both slots, and, last, the superblock. `config.layers` becomes the index.
    ///
    /// # Errors
    /// When the configuration does not fit or writing fails.
    pub fn finish(mut self, mut config: Config) -> Result<Superblock, Error> {
        config.layers = std::mem::take(&mut self.layers);
        let invalid = |source| Error::Format { path: self.path.clone(), source };
        let failed = |source| Error::Write { path: self.path.clone(), source };
        check_index(&config.layers, &self.superblock).map_err(invalid)?;
        let encode = |config: &Config| body::encode(config).map_err(FormatError::Encode).map_err(invalid);
        self.superblock.uuid = content_uuid(&config, encode)?;
        let body = encode(&config)?;
        let slot = slot::encode(1, CONFIG_VERSION, &body, self.superblock.slot_capacity).map_err(invalid)?;
        // A packer may have left bytes behind the last layer.
        let end = index_end(&config.layers, &self.superblock).max(self.superblock.payload);
        self.file.set_len(end).map_err(failed)?;
        // Both slots hold it, so that an image that was never changed survives the loss of one, too.
        for offset in self.superblock.slots {
            self.file.write_all_at(&slot, offset).map_err(failed)?;
        }
        self.file.sync_data().map_err(failed)?;
        self.file.write_all_at(&self.superblock.to_bytes(), self.superblock.offset()).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        Ok(self.superblock)
    }

    fn tree(&self) -> Result<TreeBuilder, Error> {
        TreeBuilder::new(self.chunk_size).map_err(|reason| self.invalid(reason))
    }

    /// Writes the chunk tree behind the layer and enters both into the index.
    fn index(&mut self, offset: u64, facts: LayerFacts, parts: &TreeParts) -> Result<&LayerEntry, Error> {
        let entry = LayerEntry::new(offset, facts, parts);
        entry.check().map_err(|reason| self.invalid(reason))?;
        self.file.write_all_at(&parts.pages, entry.chunks.offset).map_err(|source| self.failed(source))?;
        // `create` left a hole behind the program, and a packer may have left bytes behind its layer.
        let padding = vec![0; (entry.chunks.offset - offset - entry.size) as usize];
        self.file.write_all_at(&padding, offset + entry.size).map_err(|source| self.failed(source))?;
        let position = self.layers.len();
        self.layers.push(entry);
        Ok(&self.layers[position])
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Write { path: self.path.clone(), source }
    }

    fn invalid(&self, reason: &'static str) -> Error {
        Error::Format { path: self.path.clone(), source: FormatError::Layer { index: self.layers.len(), reason } }
    }
}

/// The UUID of an image with this first configuration. Offsets do not count, so the same application carried
/// by another version of the program keeps its identity.
fn content_uuid(config: &Config, encode: impl Fn(&Config) -> Result<Vec<u8>, Error>) -> Result<Uuid, Error> {
    let mut placeless = config.clone();
    for layer in &mut placeless.layers {
        (layer.offset, layer.chunks.offset) = (0, 0);
    }
    Ok(Uuid::from_digest(blake3::hash(&encode(&placeless)?).as_bytes()))
}
