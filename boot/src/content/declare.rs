//! `fim-content slot` and `plug`: what an image shares and what it takes. That is the image's own, whatever the key.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use runtime::image::Digest;
use runtime::image::declared::{Connection, Plug, Slot};
use runtime::installation::Setting;
use runtime::installation::places::{Place, Placed};
use runtime::version::Version;

use crate::layout::word::Places;
use crate::settings::{bytes, change_own, no_more};
use crate::{Failure, Invocation, Message, cli, publisher};

/// Most bytes of a name or a content ID.
const MAX: usize = 100;
/// Directories of the root that are each instance's own.
const OWN: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];

/// The options behind a name.
struct Options<'a> {
    words: &'a [OsString],
}

impl<'a> Options<'a> {
    /// The next option, and where to find its value.
    fn next(&mut self) -> Option<&'a OsStr> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn value(&mut self, option: &OsStr) -> Result<&'a OsStr, Failure> {
        let missing = || Message::boxed(format!("Missing value for '{}'; see fim-help content", option.display()));
        self.next().ok_or_else(missing)
    }
}

fn unknown_word(word: &OsStr) -> Failure {
    cli::trailing_arguments("content", &[&word.to_owned()])
}

/// A word that must be given once at most.
fn once<T>(place: &mut Option<T>, value: T, option: &OsStr) -> Result<(), Failure> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Message::boxed(format!("'{}' was given twice; give it once", option.display()))),
    }
}

/// A name of a slot or plug, which users type and messages show.
fn name(words: &[OsString], operation: &str) -> Result<(String, Vec<OsString>), Failure> {
    let (word, rest) = words.split_first().ok_or_else(|| {
        Message::boxed(format!("Missing name for '{operation}': fim-content {operation} NAME; see fim-help content"))
    })?;
    Ok((identifier(word, "name")?, rest.to_vec()))
}

/// A text of letters, digits, `.`, `-`, `_` and `+`.
fn identifier(word: &OsStr, what: &str) -> Result<String, Failure> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte);
    let fits = |text: &&str| {
        (1..=MAX).contains(&text.len()) && text.bytes().all(allowed) && text.as_bytes()[0].is_ascii_alphanumeric()
    };
    word.to_str().filter(fits).map(str::to_owned).ok_or_else(|| {
        Message::boxed(format!(
            "Invalid {what} '{}': it must be 1 to {MAX} letters, digits and the signs . - _ + long, and begin with a letter \
             or digit",
            word.to_string_lossy().escape_debug()
        ))
    })
}

/// `fim-content slot`.
pub(super) fn slot(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let slot = parse_slot(words)?;
    publisher::declare(invocation, |config| {
        let slots = &mut config.declared.slots;
        if slots.iter().any(|other| other.name == slot.name) {
            return Err(Message::boxed(format!(
                "there is a slot '{0}' already; remove it with fim-content unslot {0}, or choose another name",
                slot.name
            )));
        }
        slots.push(slot);
        Ok(0)
    })
}

fn parse_slot(words: &[OsString]) -> Result<Slot, Failure> {
    let (name, words) = name(words, "slot")?;
    let mut options = Options { words: &words };
    let (mut content, mut read, mut write, mut source) = (None, Vec::new(), Vec::new(), None);
    while let Some(option) = options.next() {
        match option.as_bytes() {
            b"--content" => once(&mut content, identifier(options.value(option)?, "content ID")?, option)?,
            b"--read" => read.push(path(options.value(option)?)?),
            b"--write" => write.push(writable(options.value(option)?)?),
            b"--source" => once(&mut source, (), option)?,
            _ => return Err(unknown_word(option)),
        }
    }
    if read.is_empty() && write.is_empty() {
        return Err(Message::boxed(format!(
            "the slot '{name}' would share nothing; name what others may read (--read '$FIM_ROOT_DIR/lib') or write \
             (--write '$FIM_COMMON/shared')"
        )));
    }
    Ok(Slot { content: content.unwrap_or_else(|| name.clone()), name, read, write, source: source.is_some() })
}

/// A path below a place, as it was given.
fn path(word: &OsStr) -> Result<Vec<u8>, Failure> {
    Placed::parse(word.as_bytes())?;
    Ok(bytes(word))
}

fn writable(word: &OsStr) -> Result<Vec<u8>, Failure> {
    let placed = Placed::parse(word.as_bytes())?;
    if placed.place == Place::Root {
        return Err(Message::boxed(format!(
            "'{}' cannot be shared for writing: files of the application are read-only; use --read, or a path below \
             $FIM_DATA or $FIM_COMMON",
            word.to_string_lossy()
        )));
    }
    Ok(bytes(word))
}

/// `fim-content plug`.
pub(super) fn plug(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let plug = parse_plug(words)?;
    let place = target(&plug)?;
    publisher::declare(invocation, |config| {
        let plugs = &mut config.declared.plugs;
        if plugs.iter().any(|other| other.name == plug.name) {
            return Err(Message::boxed(format!(
                "there is a plug '{0}' already; remove it with fim-content unplug {0}, or choose another name",
                plug.name
            )));
        }
        let same = |other: &&Plug| {
            target(other).is_ok_and(|other| (other.place, other.path) == (place.place, place.path.clone()))
        };
        if let Some(other) = plugs.iter().find(same) {
            return Err(Message::boxed(format!(
                "the plug '{}' has {place} already; choose another target, or connect several producers to that plug",
                other.name
            )));
        }
        plugs.push(plug);
        Ok(0)
    })
}

fn parse_plug(words: &[OsString]) -> Result<Plug, Failure> {
    let (name, words) = name(words, "plug")?;
    let mut options = Options { words: &words };
    let (mut content, mut target, mut provider, mut least, mut digest, mut optional) =
        (None, None, None, None, None, None);
    while let Some(option) = options.next() {
        match option.as_bytes() {
            b"--content" => once(&mut content, identifier(options.value(option)?, "content ID")?, option)?,
            b"--target" => once(&mut target, path(options.value(option)?)?, option)?,
            b"--default-provider" => once(&mut provider, bytes(options.value(option)?), option)?,
            b"--least" => once(&mut least, version(options.value(option)?)?, option)?,
            b"--digest" => once(&mut digest, hexadecimal(options.value(option)?)?, option)?,
            b"--optional" => once(&mut optional, (), option)?,
            _ => return Err(unknown_word(option)),
        }
    }
    if provider.as_ref().is_some_and(|provider: &Vec<u8>| provider.is_empty() || provider.contains(&0)) {
        return Err(Message::boxed(
            "the default provider is empty; name an image file, or a path below the remote URL",
        ));
    }
    let target = target.ok_or_else(|| {
        Message::boxed(format!(
            "the plug '{name}' has no target; say where its content appears: --target '$FIM_ROOT_DIR/x'"
        ))
    })?;
    Ok(Plug {
        content: content.unwrap_or_else(|| name.clone()),
        name,
        target,
        provider,
        digest,
        least,
        optional: optional.is_some(),
    })
}

fn version(word: &OsStr) -> Result<String, Failure> {
    Ok(Version::parse(&word.to_string_lossy())?.to_string())
}

fn hexadecimal(word: &OsStr) -> Result<Digest, Failure> {
    Digest::from_hex(&word.to_string_lossy()).ok_or_else(|| {
        Message::boxed(format!(
            "Invalid digest '{}': 64 hexadecimal digits are needed, as b3sum prints them",
            word.to_string_lossy().escape_debug()
        ))
    })
}

/// Where the content of a plug appears.
///
/// # Errors
/// Anywhere that is an instance's own, and the whole root.
pub(super) fn target(plug: &Plug) -> Result<Placed, Failure> {
    let placed = Placed::parse(&plug.target)?;
    let refused = |why: &str| {
        Message::boxed(format!("the plug '{}' cannot have {placed} as its target: {why}; choose another", plug.name))
    };
    if placed.place == Place::Root {
        match placed.path.components().next() {
            None => return Err(refused("it would hide the whole application")),
            Some(Component::Normal(first)) if OWN.iter().any(|own| first == *own) => {
                return Err(refused("what is there is each instance's own"));
            }
            Some(_) => {}
        }
    }
    Ok(placed)
}

/// Where a plug's content appears in the guest. A place of the root is seen in the view of the root as well.
pub(crate) fn targets(plug: &Plug, places: &Places) -> Vec<PathBuf> {
    // One that cannot be used is refused by itself.
    let Ok(placed) = target(plug) else { return Vec::new() };
    match placed.place {
        Place::Root => vec![Path::new("/").join(&placed.path), places.root.join(&placed.path)],
        Place::Data => vec![places.data.join(&placed.path)],
        Place::Common => vec![places.common.join(&placed.path)],
    }
}

/// `fim-content unslot`.
pub(super) fn unslot(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let (name, rest) = name(words, "unslot")?;
    no_more("content", &rest)?;
    publisher::declare(invocation, |config| {
        let slots = &mut config.declared.slots;
        let at = slots.iter().position(|slot| slot.name == name).ok_or_else(|| no_slot(&name, slots))?;
        slots.remove(at);
        Ok(0)
    })
}

/// `fim-content unplug`. Its connections go with it, those of the image and those of this installation.
pub(super) fn unplug(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let (name, rest) = name(words, "unplug")?;
    no_more("content", &rest)?;
    let forget = |connections: &mut Vec<Connection>| connections.retain(|connection| connection.plug != name);
    publisher::declare(invocation, |config| {
        let plugs = &mut config.declared.plugs;
        let at = plugs.iter().position(|plug| plug.name == name).ok_or_else(|| no_plug(&name, plugs))?;
        plugs.remove(at);
        forget(&mut config.declared.connections);
        Ok(())
    })?;
    // Where the installation has none of its own, they are the image's.
    let connections = &invocation.image.config.declared.connections;
    let own = invocation.inherited.as_ref().is_some_and(|image| image.declared.connections != *connections);
    if own && connections.iter().any(|connection| connection.plug == name) {
        change_own(invocation, Setting::Content, |config| {
            forget(&mut config.declared.connections);
            Ok(())
        })?;
    }
    Ok(0)
}

fn no_slot(name: &str, slots: &[Slot]) -> Failure {
    unknown("slot", name, &slots.iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>())
}

/// The error for a plug that the image does not have.
pub(super) fn no_plug(name: &str, plugs: &[Plug]) -> Failure {
    unknown("plug", name, &plugs.iter().map(|plug| plug.name.as_str()).collect::<Vec<_>>())
}

fn unknown(what: &str, name: &str, known: &[&str]) -> Failure {
    let known =
        if known.is_empty() { format!("it has no {what} at all") } else { format!("it has {}", known.join(", ")) };
    Message::boxed(format!("the image has no {what} '{}': {known}; see fim-content list", name.escape_debug()))
}
