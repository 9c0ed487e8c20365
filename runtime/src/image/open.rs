//! Opening an image: a few small reads, on the path of every start.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};

use super::config::Config;
use super::elf::{self, ElfHeader};
use super::error::{Error, FormatError, ReadError};
use super::layer::{LayerKind, check_index, index_end};
use super::slot::{self, SlotFault, SlotHeader, SlotName};
use super::superblock::{self, Superblock};
use super::verified::VerifiedSource;
use super::{CONFIG_VERSION, body, page_align};
use crate::source::{ByteSource, FileRange};

/// Bytes read at once: section headers, superblock and slot A follow each other, so one read usually has all.
const READ_AHEAD: usize = 16 * 1024;

/// What an image says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The superblock.
    pub superblock: Superblock,
    /// Configuration and layer index of the newest valid slot.
    pub config: Config,
    /// Generation of that slot.
    pub generation: u64,
    /// That slot.
    pub slot: SlotName,
    /// The other slot's fault, when it should have been usable: a change was interrupted, or bytes changed.
    pub slot_fault: Option<SlotFault>,
    /// The other slot's config version, when its header is readable.
    pub(super) other_version: Option<u32>,
}

/// An open image file.
#[derive(Debug, Clone)]
pub struct Image {
    /// The superblock.
    pub superblock: Superblock,
    /// Configuration and layer index of the newest valid slot.
    pub config: Config,
    /// Generation of that slot, counted from 1.
    pub generation: u64,
    /// That slot.
    pub slot: SlotName,
    /// The other slot's fault, when it should have been usable; worth a warning, the image works.
    pub slot_fault: Option<SlotFault>,
    /// The file.
    pub file: Arc<File>,
    /// Its path as the caller gave it, for messages.
    pub path: PathBuf,
    /// Length of the file in bytes when it was opened.
    pub file_len: u64,
}

impl Image {
    /// Opens the image in `file`; `None` when the file is a program without a payload, which is the builder.
    /// `path` is for messages only.
    ///
    /// Reads the ELF headers, the superblock, both slot headers and one body. Layers are not touched.
    ///
    /// # Errors
    /// When the file cannot be read, or is not an image that this program understands.
    pub fn open(file: File, path: &Path) -> Result<Option<Self>, Error> {
        let failed = |source: ReadError| Error::Read { path: path.to_owned(), source };
        let file = Arc::new(file);
        let source = FileRange::whole(Arc::clone(&file)).map_err(|error| failed(error.into()))?;
        let mut contents = read(&source);
        // A reader does not take the writers' lock, so it may meet a slot that is being written. Then it
        // looks again under the lock: without waiting if a slot was usable, else after the writer.
        let wait = match &contents {
            Err(ReadError::Format(FormatError::BothSlots { .. })) => Some(FlockArg::LockShared),
            Ok(Some(Contents { slot_fault: Some(_), .. })) => Some(FlockArg::LockSharedNonblock),
            _ => None,
        };
        if let Some(wait) = wait {
            let handle = file.try_clone().map_err(|error| failed(error.into()))?;
            match Flock::lock(handle, wait) {
                Ok(_shared) => contents = read(&source),
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                    if let Ok(Some(contents)) = &mut contents {
                        contents.slot_fault = None;
                    }
                }
                // A file system without locks: the first answer stands.
                Err(_) => {}
            }
        }
        let file_len = source.len();
        Ok(contents.map_err(failed)?.map(|contents| Self {
            superblock: contents.superblock,
            config: contents.config,
            generation: contents.generation,
            slot: contents.slot,
            slot_fault: contents.slot_fault,
            file,
            path: path.to_owned(),
            file_len,
        }))
    }

    /// Whether the file at `path` is this one and nobody has changed its configuration since it was read. A file that
    /// cannot be looked at is taken for unchanged.
    #[must_use]
    pub fn is_current(&self, path: &Path) -> bool {
        use std::os::unix::fs::{FileExt, MetadataExt};
        let (Ok(named), Ok(ours)) = (std::fs::metadata(path), self.file.metadata()) else { return true };
        // The next change goes into the other slot.
        let mut header = [0; slot::HEADER_LEN];
        let read = self.file.read_exact_at(&mut header, self.superblock.slot_offset(self.slot.other()));
        let newer = read.is_ok()
            && SlotHeader::parse(&header, self.superblock.slot_capacity)
                .is_ok_and(|header| header.generation > self.generation)
            // A damaged slot looks newer for ever.
            && FileRange::whole(Arc::clone(&self.file))
                .is_ok_and(|source| matches!(self::read(&source), Ok(Some(found)) if found.generation > self.generation));
        (named.dev(), named.ino()) == (ours.dev(), ours.ino()) && !newer
    }

    /// Length of the program in bytes, without padding.
    #[must_use]
    pub fn elf_len(&self) -> u64 {
        self.superblock.elf_len
    }

    /// Positions in the index of the layers of the root file system, bottom first.
    pub fn root_layers(&self) -> impl Iterator<Item = usize> + '_ {
        let entries = self.config.layers.iter().enumerate();
        entries.filter(|(_, entry)| entry.kind == LayerKind::Squashfs).map(|(index, _)| index)
    }

    /// The verified bytes of entry `index` of the layer index.
    ///
    /// # Errors
    /// `InvalidInput` when there is no such entry.
    pub fn layer_source(&self, index: usize) -> io::Result<VerifiedSource> {
        let entry = self.config.layers.get(index).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{} has no layer {index}", self.path.display()))
        })?;
        VerifiedSource::new(FileRange::new(Arc::clone(&self.file), 0, self.file_len), entry, index)
    }
}

/// Reads everything about an image except its layers; `None` when it is a program without a payload.
///
/// # Errors
/// When `source` fails or is not an image that this program understands.
pub fn read<S: ByteSource + ?Sized>(source: &S) -> Result<Option<Contents>, ReadError> {
    let mut window = Window { source, bytes: Vec::new(), start: 0 };
    let (elf_len, marked) = program(&mut window)?;
    let at = page_align(elf_len).ok_or(FormatError::Elf("it ends behind 2^64"))?;
    if source.len() <= at && !marked {
        return Ok(None);
    }
    let superblock = Superblock::parse(window.bytes("the superblock", at, superblock::LEN)?, at)?;
    if superblock.elf_len != elf_len {
        return Err(FormatError::Superblock("the program has a different length").into());
    }
    if superblock.payload > source.len() {
        let what = "the config area".to_owned();
        return Err(FormatError::Truncated { what, need: superblock.payload, have: source.len() }.into());
    }
    let contents = newest_slot(&mut window, superblock)?;
    for (index, layer) in contents.config.layers.iter().enumerate() {
        if layer.end() > source.len() {
            let what = format!("layer {index}");
            return Err(FormatError::Truncated { what, need: layer.end(), have: source.len() }.into());
        }
    }
    Ok(Some(contents))
}

/// Length in bytes of the program that `source` begins with.
///
/// # Errors
/// When `source` fails or begins with no program.
pub fn program_len<S: ByteSource + ?Sized>(source: &S) -> Result<u64, ReadError> {
    let mut window = Window { source, bytes: Vec::new(), start: 0 };
    program(&mut window).map(|(len, _)| len)
}

/// Length of the program in bytes, and whether it carries the mark of an image.
fn program<S: ByteSource + ?Sized>(window: &mut Window<'_, S>) -> Result<(u64, bool), ReadError> {
    let have = window.source.len();
    let header = ElfHeader::parse(window.bytes("the ELF header", 0, have.min(elf::HEADER_LEN as u64) as usize)?)?;
    let mut end = header.tables_end()?;
    let table = window.bytes("the program's header table", header.segments_offset, header.segments_len())?;
    end = end.max(elf::segments_end(table)?);
    if header.sections != 0 {
        let table = window.bytes("the program's section table", header.sections_offset, header.sections_len())?;
        end = end.max(elf::sections_end(table)?);
    }
    if end > have {
        return Err(FormatError::Truncated { what: "the program".to_owned(), need: end, have }.into());
    }
    Ok((end, header.marked))
}

/// The valid slot with the higher generation. A slot of a newer version is an error, never skipped.
fn newest_slot<S: ByteSource + ?Sized>(
    window: &mut Window<'_, S>,
    superblock: Superblock,
) -> Result<Contents, ReadError> {
    let capacity = superblock.slot_capacity;
    let mut header = |name: SlotName| -> Result<SlotHeader, SlotFault> {
        let bytes = window.bytes("a config slot", superblock.slot_offset(name), slot::HEADER_LEN);
        SlotHeader::parse(bytes.map_err(unreadable)?, capacity)
    };
    let headers = [header(SlotName::A), header(SlotName::B)];
    let generation = |name: SlotName| headers[name as usize].as_ref().map_or(0, |header| header.generation);
    let first = if generation(SlotName::B) > generation(SlotName::A) { SlotName::B } else { SlotName::A };
    let mut faults = [None, None];
    for name in [first, first.other()] {
        let found = match &headers[name as usize] {
            Ok(header) => slot_config(window, &superblock, name, header)?.map(|config| (header.generation, config)),
            Err(fault) => Err(fault.clone()),
        };
        let (generation, config) = match found {
            Ok(found) => found,
            Err(fault) => {
                faults[name as usize] = Some(fault);
                continue;
            }
        };
        let other = name.other() as usize;
        let fault = faults[other].take().or_else(|| headers[other].as_ref().err().cloned());
        // The first change fills the second slot, so before it an empty slot is as it should be.
        let slot_fault = fault.filter(|fault| *fault != SlotFault::Empty || generation > 1);
        let other_version = headers[other].as_ref().ok().map(|header| header.config_version);
        return Ok(Contents { superblock, config, generation, slot: name, slot_fault, other_version });
    }
    let [a, b] = faults.map(|fault| fault.unwrap_or(SlotFault::Empty));
    Err(FormatError::BothSlots { a, b }.into())
}

/// The configuration in one slot. The outer error ends the search.
fn slot_config<S: ByteSource + ?Sized>(
    window: &mut Window<'_, S>,
    superblock: &Superblock,
    name: SlotName,
    header: &SlotHeader,
) -> Result<Result<Config, SlotFault>, ReadError> {
    let len = slot::HEADER_LEN + header.body_len as usize;
    let bytes = match window.bytes("a config slot", superblock.slot_offset(name), len) {
        Ok(bytes) => bytes,
        Err(error) => return Ok(Err(unreadable(error))),
    };
    let (head, body) = bytes.split_at(slot::HEADER_LEN);
    // The header is read again with the body: a writer may have come between.
    if SlotHeader::parse(head, superblock.slot_capacity).as_ref() != Ok(header) {
        return Ok(Err(SlotFault::Digest));
    }
    if let Err(fault) = header.check(head, body) {
        return Ok(Err(fault));
    }
    if header.config_version > CONFIG_VERSION {
        let version = header.config_version;
        return Err(FormatError::NewerConfig { slot: name, version, known: CONFIG_VERSION }.into());
    }
    Ok(body::decode(header.config_version, body).map_err(SlotFault::Body).and_then(|config| {
        check_index(&config.layers, superblock).map_err(|error| SlotFault::Body(error.to_string()))?;
        Ok(config)
    }))
}

fn unreadable(error: ReadError) -> SlotFault {
    match error {
        ReadError::Io(error) => SlotFault::Unreadable(error.kind()),
        ReadError::Format(_) => SlotFault::Unreadable(io::ErrorKind::UnexpectedEof),
    }
}

impl Contents {
    /// Offset of the first byte behind everything the index names.
    #[must_use]
    pub fn end(&self) -> u64 {
        index_end(&self.config.layers, &self.superblock)
    }
}

/// The part of the source that was read last.
struct Window<'a, S: ?Sized> {
    source: &'a S,
    bytes: Vec<u8>,
    start: u64,
}

impl<S: ByteSource + ?Sized> Window<'_, S> {
    /// The `len` bytes at `offset`, which belong to `what`.
    fn bytes(&mut self, what: &str, offset: u64, len: usize) -> Result<&[u8], ReadError> {
        let (have, need) = (self.source.len(), offset.saturating_add(len as u64));
        if need > have {
            return Err(FormatError::Truncated { what: what.to_owned(), need, have }.into());
        }
        if offset < self.start || need > self.start + self.bytes.len() as u64 {
            let ahead = (len.max(READ_AHEAD) as u64).min(have - offset) as usize;
            self.start = offset;
            self.bytes.clear();
            self.bytes.resize(ahead, 0);
            if let Err(error) = self.source.read_exact_at(&mut self.bytes, offset) {
                // What follows the wanted bytes may be unreadable on its own.
                self.bytes.truncate(len);
                if ahead == len || self.source.read_exact_at(&mut self.bytes, offset).is_err() {
                    self.bytes.clear();
                    return Err(error.into());
                }
            }
        }
        let from = (offset - self.start) as usize;
        Ok(&self.bytes[from..from + len])
    }
}
