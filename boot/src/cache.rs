//! Layers as directories, for hosts without FUSE: where they are kept, how they get there, and `fim-cache`.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use runtime::cache::{Cache, Entry, Error, Extracted, Key, Obtained};
use runtime::extract;
use runtime::image::{Digest, Image};
use runtime::progress::Progress;
use runtime::source::{ByteSource, FileRange};
use runtime::squashfs::Archive;
use serde_json::json;

use crate::cli::{print, trailing_arguments};
use crate::interrupt::Interrupt;
use crate::launch::facts::{self, Caller};
use crate::progress::Listener;
use crate::stack::External;
use crate::{Failure, Message};

/// `$XDG_CACHE_HOME/fim`, or `~/.cache/fim`.
pub(crate) fn place(caller: &Caller) -> Result<PathBuf, Failure> {
    let absolute = |name: &str| caller.variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").or_else(|| caller.account.as_ref().map(|(_, home, _)| PathBuf::from(home)));
    let base = absolute("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")));
    base.map(|base| base.join("fim")).ok_or_else(|| {
        Message::boxed("there is no place for extracted layers: HOME is not set; set XDG_CACHE_HOME to a directory")
    })
}

/// The layers of the image and those outside of it, bottom first, extracted now unless they were before. `own` says that all files are to be the
/// caller's, `why` why they cannot be mounted. What is left in `interrupt` after an error is to be dropped when
/// everything else is cleaned up.
///
/// # Errors
/// When the cache cannot be used, or a layer not be extracted.
pub(crate) fn layers(
    image: &Image,
    external: &[External],
    caller: &Caller,
    own: bool,
    why: &str,
    interrupt: &mut Option<Interrupt>,
) -> Result<Vec<Extracted>, Failure> {
    let place = place(caller)?;
    let cannot = |cause: &str| {
        let shown = place.display();
        Message::boxed(format!("{why}; without it layers are extracted to {shown}, and that failed: {cause}"))
    };
    let cache = Cache::open(place.clone(), caller.uid).map_err(|error| cannot(&runtime::error::chain(&error)))?;
    let (mut extracted, mut told) = (Vec::new(), false);
    let embedded = image.root_layers().map(Source::Embedded);
    for source in embedded.chain(external.iter().map(Source::External)) {
        let layer =
            match cache.obtain(&source.key(image, own)).map_err(|error| cannot(&runtime::error::chain(&error)))? {
                Obtained::There(layer) => layer,
                Obtained::Missing(vacant) => {
                    if !std::mem::replace(&mut told, true) {
                        crate::report(&format!("note: {why}; its layers are extracted to {}, once", place.display()));
                    }
                    let name = source.name();
                    let archive = Archive::open(source.bytes(image)?)
                        .map_err(|error| cannot(&format!("cannot read {name}: {}", runtime::error::chain(&error))))?;
                    let held = interrupt.insert(Interrupt::hold()?);
                    let mut listener = Listener::new(false, held);
                    listener.total(source.unpacked(image), None);
                    let filled = cache.fill(vacant, &archive, &mut listener);
                    drop(listener);
                    let layer = filled.map_err(|error| cannot(&explained(&name, &error)))?;
                    *interrupt = None;
                    layer
                }
            };
        extracted.push(layer);
    }
    Ok(extracted)
}

/// A layer that is to be extracted.
enum Source<'a> {
    /// With this position in the layer index.
    Embedded(usize),
    External(&'a External),
}

impl Source<'_> {
    /// Its name in the cache. A file is told by what it is, not by its content, which would have to be read at each start.
    fn key(&self, image: &Image, own: bool) -> Key {
        let digest = match self {
            Self::Embedded(index) => image.config.layers[*index].digest,
            Self::External(layer) => {
                let path = layer.path.as_os_str().as_bytes();
                Digest::of(&[format!("{} {} ", layer.len, layer.version).as_bytes(), path].concat())
            }
        };
        Key::new(digest, own)
    }

    fn bytes(&self, image: &Image) -> Result<Arc<dyn ByteSource>, Failure> {
        Ok(match self {
            Self::Embedded(index) => Arc::new(image.layer_source(*index)?),
            Self::External(layer) => Arc::new(FileRange::new(Arc::clone(&layer.file), 0, layer.len)),
        })
    }

    /// Bytes of its files, when that is known.
    fn unpacked(&self, image: &Image) -> Option<u64> {
        match self {
            Self::Embedded(index) => Some(image.config.layers[*index].unpacked).filter(|bytes| *bytes > 0),
            Self::External(_) => None,
        }
    }

    /// What messages call it.
    fn name(&self) -> String {
        match self {
            Self::Embedded(index) => format!("layer {index}"),
            Self::External(layer) => format!("the layer {}", layer.path.display()),
        }
    }
}

/// The error, and what helps.
fn explained(layer: &str, error: &Error) -> String {
    let cause = runtime::error::chain(error);
    let hint = match error {
        Error::Extract(extract::Error::Layer { .. } | extract::Error::Contradiction { .. }) => {
            "; fim-verify tells whether the image was damaged"
        }
        Error::Extract(extract::Error::Write { source, .. })
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            "; free some space, or set XDG_CACHE_HOME to a directory with more of it"
        }
        _ => "",
    };
    format!("{layer}: {cause}{hint}; nothing of it was left")
}

/// `fim-cache list|clear`.
///
/// # Errors
/// Wrong words; a cache that cannot be read; layers in use that are to be removed.
pub(crate) fn run(words: &[OsString]) -> Result<i32, Failure> {
    let operation = words.first().map(|word| word.to_string_lossy().to_lowercase());
    let rest: Vec<&OsString> = words.iter().skip(1).collect();
    let json = operation.as_deref() == Some("list") && rest.len() == 1 && rest[0] == "--json";
    if !json && !rest.is_empty() {
        return Err(trailing_arguments("cache", &rest));
    }
    let clear = match operation.as_deref() {
        Some("list") => false,
        Some("clear") => true,
        Some(_) => return Err(Message::boxed("Invalid cache operation; use fim-cache list or fim-cache clear")),
        None => return Err(Message::boxed("Missing op for 'fim-cache' (<list|clear>)")),
    };
    let caller = facts::caller();
    let place = place(&caller)?;
    // Looking makes nothing.
    let cache = if place.symlink_metadata().is_ok() { Some(Cache::open(place, caller.uid)?) } else { None };
    if !clear {
        let entries = cache.map(|cache| cache.entries()).transpose()?.unwrap_or_default();
        print(&if json { format!("{:#}\n", as_json(&entries)) } else { listed(&entries) })?;
        return Ok(0);
    }
    let (removed, kept) = cache.map(|cache| cache.clear()).transpose()?.unwrap_or_default();
    let freed: u64 = removed.iter().map(|entry| entry.bytes).sum();
    print(&format!("Removed {} layers of {freed} bytes\n", removed.len()))?;
    if kept.is_empty() {
        return Ok(0);
    }
    let names: Vec<String> = kept.iter().map(|entry| entry.key.to_string()).collect();
    Err(Message::boxed(format!(
        "layers are in use and were not removed: {}; end the instances that use them first",
        names.join(" ")
    )))
}

fn state(entry: &Entry) -> &'static str {
    match (entry.in_use, entry.complete) {
        (true, true) => "in use",
        (true, false) => "being extracted",
        (false, true) => "unused",
        (false, false) => "incomplete",
    }
}

fn listed(entries: &[Entry]) -> String {
    entries.iter().map(|entry| format!("{}:{}:{}\n", entry.key, entry.bytes, state(entry))).collect()
}

fn as_json(entries: &[Entry]) -> serde_json::Value {
    let one = |entry: &Entry| json!({ "bytes": entry.bytes, "layer": entry.key.to_string(), "state": state(entry) });
    entries.iter().map(one).collect()
}
