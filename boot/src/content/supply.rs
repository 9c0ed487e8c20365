//! What the plugs of a start get: found out whole before anything is mounted, and then handed to the mount server.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use runtime::content::{Kind, Names, Tree, Want, beneath};
use runtime::image::declared::{Plug, Slot};
use runtime::installation::places::{Place, Placed};
use runtime::installation::revision::Revision;
use runtime::mount_server::content::{self, Appears, Content, Part, Producers, Source};
use runtime::sandbox::plan::Step;

use super::producer::{Data, Producer};
use crate::launch::facts::Caller;
use crate::launch::revision;
use crate::{Failure, Message};

/// What one plug gets.
#[derive(Debug, Clone)]
pub struct Supply {
    plug: String,
    target: Placed,
    shares: Vec<Share>,
}

/// What one slot shares.
#[derive(Debug, Clone)]
struct Share {
    producer: Rc<Producer>,
    slot: Slot,
    /// Set when it shares files that the producer writes.
    data: Option<Data>,
    paths: Vec<Shared>,
}

/// One path of a slot.
#[derive(Debug, Clone)]
struct Shared {
    /// As the slot has it.
    word: Vec<u8>,
    /// By itself.
    name: OsString,
    /// The directory of the producer's data that it is in; `None` for its layers.
    directory: Option<PathBuf>,
    /// The rest, without links where it is in the layers.
    path: PathBuf,
    kind: Kind,
    writable: bool,
}

impl Supply {
    /// Finds out what `plug` gets from these slots.
    ///
    /// # Errors
    /// A path of a slot that leads nowhere or out of its place; a producer that cannot be read.
    pub(super) fn new(
        plug: &Plug,
        target: Placed,
        from: Vec<(Rc<Producer>, Slot)>,
        caller: &Caller,
    ) -> Result<Self, Failure> {
        let share = |(producer, slot)| share(producer, slot, caller);
        let shares = from.into_iter().map(share).collect::<Result<_, _>>()?;
        Ok(Self { plug: plug.name.clone(), target, shares })
    }

    /// Every path that the plug gets, in the order in which it was connected.
    fn paths(&self) -> impl Iterator<Item = (&Share, &Shared)> {
        self.shares.iter().flat_map(|share| share.paths.iter().map(move |shared| (share, shared)))
    }

    /// How each path appears, but for its name.
    fn appearances(&self) -> Vec<Appears> {
        let alone = self.paths().count() == 1;
        let appears = |(share, shared): (&Share, &Shared)| match () {
            () if share.slot.source => Appears::Named(shared.name.clone()),
            () if alone => Appears::Alone,
            () if shared.kind == Kind::Directory && !shared.writable => Appears::Merged,
            () => Appears::Named(shared.name.clone()),
        };
        self.paths().map(appears).collect()
    }
}

fn share(producer: Rc<Producer>, slot: Slot, caller: &Caller) -> Result<Share, Failure> {
    let words = slot.read.iter().map(|word| (word, false)).chain(slot.write.iter().map(|word| (word, true)));
    let archives = producer.archives()?;
    let tree = Tree::new(&archives);
    let (mut paths, mut data) = (Vec::new(), None);
    for (word, writable) in words {
        let shown = String::from_utf8_lossy(word);
        let failed = |why: &dyn std::fmt::Display| {
            Message::boxed(format!(
                "the slot '{}' of {} shares '{}', and that cannot be used: {why}",
                slot.name,
                producer.path.display(),
                shown.escape_debug()
            ))
        };
        let placed = Placed::parse(word).map_err(|error| failed(&error))?;
        let name = placed.name().to_owned();
        let (directory, path, kind) = match placed.place {
            Place::Root if writable => return Err(failed(&"files of an application cannot be written")),
            Place::Root => {
                let (path, kind) = tree.follow(&placed.path).map_err(|error| failed(&error))?;
                (None, path, kind)
            }
            Place::Data | Place::Common => {
                if data.is_none() {
                    data = Some(producer.data(caller)?);
                }
                let directory = data.as_ref().and_then(|data| data.place(placed.place)).unwrap_or_default();
                let (_, kind) = beneath(&directory, &placed.path, placed.slash).map_err(|error| failed(&error))?;
                (Some(directory), placed.path, kind)
            }
        };
        paths.push(Shared { word: word.clone(), name, directory, path, kind, writable });
    }
    drop(tree);
    Ok(Share { producer, slot, data, paths })
}

/// Lines of the session record that tell what the plugs get: a start that would get something else is refused.
pub(crate) fn shape(supplies: &[Supply]) -> Vec<String> {
    let line = |supply: &Supply, share: &Share| {
        let identity = share.producer.identity(&share.slot);
        let revision = share.data.as_ref().map(|data| format!(", revision {}", data.revision.current));
        format!(
            "content of plug {} from {}:{} (layers {:.16}, slot {:.16}{})",
            supply.plug,
            String::from_utf8_lossy(share.producer.path.as_os_str().as_bytes()).escape_debug(),
            share.slot.name,
            identity.layers.to_string(),
            identity.slot.to_string(),
            revision.unwrap_or_default()
        )
    };
    supplies.iter().flat_map(|supply| supply.shares.iter().map(move |share| line(supply, share))).collect()
}

/// What puts it in place in an instance of the session in this directory, which is of this revision; outer targets first.
pub(crate) fn steps(supplies: &[Supply], session: &Path, revision: &Revision) -> Vec<Step> {
    let mut steps: Vec<(PathBuf, Step)> = Vec::new();
    for (number, supply) in supplies.iter().enumerate() {
        let target = revision::place(supply.target.place, revision).join(&supply.target.path);
        let source = content::place(session, number);
        steps.push((target.clone(), Step::Content { plug: supply.plug.clone(), source, target }));
    }
    steps.sort_by(|(one, _), (other, _)| one.cmp(other));
    steps.into_iter().map(|(_, step)| step).collect()
}

/// Names are kept in `home`, the data directory, when there is one; they are recorded with `record`.
fn names(supplies: &[Supply], home: Option<&Path>, record: bool) -> Result<Vec<OsString>, Failure> {
    let mut wanted = Vec::new();
    for supply in supplies {
        for ((share, shared), appears) in supply.paths().zip(supply.appearances()) {
            if let Appears::Named(name) = appears {
                wanted.push(Want {
                    plug: supply.plug.clone(),
                    file: share.producer.path.as_os_str().as_bytes().to_vec(),
                    slot: share.slot.name.clone(),
                    path: shared.word.clone(),
                    name,
                });
            }
        }
    }
    let failed = |error: std::io::Error| {
        Message::boxed(format!("cannot keep the names of shared content in the data directory: {error}"))
    };
    let before = home.map_or_else(|| Ok(Names::default()), Names::read).map_err(failed)?;
    let mut names = before.clone();
    let assigned = names.assign(&wanted);
    if let Some(home) = home.filter(|_| record && names != before) {
        names.write(home).map_err(failed)?;
    }
    Ok(assigned)
}

/// Everything that a mount server needs to know, and the producers of which it needs layers, in its order. The caller
/// holds the start lock.
///
/// # Errors
/// When names cannot be kept.
pub(crate) fn serve(
    supplies: &[Supply],
    home: Option<&Path>,
    record: bool,
) -> Result<(Vec<content::Plug>, Vec<Rc<Producer>>), Failure> {
    if supplies.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let mut names = names(supplies, home, record)?.into_iter();
    let (mut plugs, mut producers): (_, Vec<Rc<Producer>>) = (Vec::new(), Vec::new());
    for supply in supplies {
        let mut parts = Vec::new();
        for ((share, shared), appears) in supply.paths().zip(supply.appearances()) {
            let appears = match appears {
                Appears::Named(name) => Appears::Named(names.next().unwrap_or(name)),
                other => other,
            };
            let source = shared.directory.clone().map_or_else(
                || {
                    let known = producers.iter().position(|other| Rc::ptr_eq(other, &share.producer));
                    Source::Image(known.unwrap_or_else(|| {
                        producers.push(Rc::clone(&share.producer));
                        producers.len() - 1
                    }))
                },
                Source::Directory,
            );
            let shown = format!(
                "'{}' of the slot '{}' of {}",
                String::from_utf8_lossy(&shared.word),
                share.slot.name,
                share.producer.path.display()
            );
            parts.push(Part { source, path: shared.path.clone(), writable: shared.writable, appears, shown });
        }
        plugs.push(content::Plug { name: supply.plug.clone(), parts });
    }
    Ok((plugs, producers))
}

/// The layers of these producers as a mount server reads them.
///
/// # Errors
/// When a chunk tree cannot be read.
pub(crate) fn images(plugs: &[content::Plug], producers: &[Rc<Producer>]) -> Result<Content, Failure> {
    let layers = producers.iter().map(|producer| producer.layers()).collect::<Result<_, _>>()?;
    Ok(Content { producers: Producers::Images(layers), plugs: plugs.to_vec() })
}
