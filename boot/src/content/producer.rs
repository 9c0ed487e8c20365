//! A producer: an image whose slots others use. It need not run, and its own plugs are never followed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtime::content::identity;
use runtime::image::declared::{Identity, Plug, Slot};
use runtime::installation::Asked;
use runtime::installation::places::Place;
use runtime::installation::revision::Revision;
use runtime::medium::Medium;
use runtime::mount_server::Layer;
use runtime::publisher::{PublicKey, verified_publisher};
use runtime::session::lock;
use runtime::squashfs::Archive;
use runtime::version::Version;

use crate::launch::facts::{self, Caller};
use crate::launch::{data, revision, rung};
use crate::{Failure, Invocation, Message, key};

/// An image, and which of its installations is meant.
#[derive(Debug)]
pub(crate) struct Producer {
    /// The path by which it was named, absolute; a link that stands for an instance key stays one.
    pub path: PathBuf,
    invocation: Invocation,
}

/// Why a slot of an image does not fit a plug.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("it has no slot '{wanted}' ({known})")]
    NoSlot { wanted: String, known: String },
    #[error("its slot '{slot}' is for content '{has}', and the plug takes '{wants}'")]
    OtherContent { slot: String, has: String, wants: String },
    #[error("it has no slot for content '{wants}' ({known})")]
    NoContent { wants: String, known: String },
    #[error("it has several slots for content '{wants}' ({slots}); name one behind the file: FILE:SLOT")]
    Several { wants: String, slots: String },
    #[error("its version is {has}, and the plug takes {least} or later")]
    TooOld { has: String, least: String },
    #[error("it has no version, and the plug takes {least} or later")]
    NoVersion { least: String },
    #[error("the plug asks for a version that is none: {0}")]
    Version(#[from] runtime::version::InvalidVersion),
}

impl Producer {
    /// Opens the image at `path`.
    ///
    /// # Errors
    /// When there is no image that can be used; each names the file.
    pub(crate) fn open(path: &Path, caller: &Caller) -> Result<Self, Failure> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let unusable = |why: &dyn std::fmt::Display| {
            Message::boxed(format!("the producer {} cannot be used: {why}", path.display()))
        };
        // A named pipe would keep who opens it waiting.
        let metadata = fs::metadata(&path).map_err(|error| unusable(&error))?;
        if !metadata.is_file() {
            return Err(unusable(&"it is no regular file"));
        }
        let open = |path: &Path| {
            let links = key::links(path.to_owned());
            let asked = Asked { executed: &links, ..Asked::default() };
            Invocation::through(path, asked).map_err(|error| unusable(&runtime::error::chain(error.as_ref())))
        };
        let mut invocation = open(&path)?;
        if invocation.installation.key.is_some()
            && invocation.installation.keys().is_none()
            && let Some((link, _)) = key::own_image(&invocation, &without_choice(caller))
        {
            invocation = open(&link)?;
        }
        Ok(Self { path, invocation })
    }

    /// The slot that serves `plug`: the one with this name, or else the only one of its content.
    ///
    /// # Errors
    /// [`Unfit`].
    pub(crate) fn slot(&self, plug: &Plug, name: Option<&str>) -> Result<Slot, Unfit> {
        let declared = &self.invocation.image.config.declared;
        let known = || match &declared.slots[..] {
            [] => "it has no slots".to_owned(),
            slots => {
                let each: Vec<String> =
                    slots.iter().map(|slot| format!("{} for {}", slot.name, slot.content)).collect();
                format!("its slots: {}", each.join(", "))
            }
        };
        let slot = match name {
            Some(name) => declared
                .slots
                .iter()
                .find(|slot| slot.name == name)
                .ok_or_else(|| Unfit::NoSlot { wanted: name.to_owned(), known: known() })?,
            None => {
                let fitting: Vec<&Slot> = declared.slots.iter().filter(|slot| slot.content == plug.content).collect();
                match fitting[..] {
                    [] => return Err(Unfit::NoContent { wants: plug.content.clone(), known: known() }),
                    [slot] => slot,
                    _ => {
                        let slots: Vec<&str> = fitting.iter().map(|slot| slot.name.as_str()).collect();
                        return Err(Unfit::Several { wants: plug.content.clone(), slots: slots.join(", ") });
                    }
                }
            }
        };
        if slot.content != plug.content {
            let (has, wants) = (slot.content.clone(), plug.content.clone());
            return Err(Unfit::OtherContent { slot: slot.name.clone(), has, wants });
        }
        self.is_new_enough(plug)?;
        Ok(slot.clone())
    }

    fn is_new_enough(&self, plug: &Plug) -> Result<(), Unfit> {
        let Some(least) = &plug.least else { return Ok(()) };
        let Some(has) = &self.invocation.image.config.declared.version else {
            return Err(Unfit::NoVersion { least: least.clone() });
        };
        if Version::parse(has)?.is_at_least(&Version::parse(least)?) {
            Ok(())
        } else {
            Err(Unfit::TooOld { has: has.clone(), least: least.clone() })
        }
    }

    /// What the user consents to.
    pub(crate) fn identity(&self, slot: &Slot) -> Identity {
        identity(self.invocation.image.superblock.uuid, &self.invocation.image.config, slot)
    }

    /// Who vouches for it.
    pub(crate) fn publisher(&self) -> Option<PublicKey> {
        verified_publisher(&self.invocation.image)
    }

    /// The layers of its root, opened.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn archives(&self) -> Result<Vec<Archive>, Failure> {
        let layers = self.layers()?.into_iter();
        let open = |layer: Layer| {
            Archive::open(layer.source).map_err(|error| {
                Message::boxed(format!("cannot read {}: {}", layer.name, runtime::error::chain(&error)))
            })
        };
        layers.map(open).collect()
    }

    /// The layers of its root for a mount server, bottom first. Each chunk is verified when it is read.
    ///
    /// # Errors
    /// When the chunk trees cannot be read.
    pub(crate) fn layers(&self) -> Result<Vec<Layer>, Failure> {
        let image = &self.invocation.image;
        let layer = |index| {
            let name = format!("layer {index} of {}", self.path.display());
            let medium = Medium::new(Arc::clone(&image.file), image.superblock.offset());
            Ok(Layer { name, source: Arc::new(image.layer_source(index)?), medium })
        };
        image.root_layers().map(layer).collect()
    }

    /// The image.
    pub(crate) fn image(&self) -> &runtime::image::Image {
        &self.invocation.image
    }

    /// Directories of its data that slots share, made where there are none, and the revision that they belong to.
    ///
    /// # Errors
    /// When there is no place for them, or they are somebody else's.
    pub(crate) fn data(&self, caller: &Caller) -> Result<Data, Failure> {
        let caller = without_choice(caller);
        let key = self.invocation.installation.key.as_ref();
        let directory = data::prepare_of(&self.invocation, &caller, key)?;
        let step = revision::decide(std::iter::once(directory.clone()), &self.invocation.image.config)?;
        if step.is_done() {
            return Ok(Data { directory, revision: step.now });
        }
        // As its own start does it, under the same lock.
        let _starting = lock::wait(&directory, lock::START)?;
        match (lock::attempt(&directory, lock::SESSION)?, &step.before) {
            // It runs, with what it was started from.
            (Err(_), Some(before)) => Ok(Data { directory, revision: before.clone() }),
            _ => {
                let rung = rung::recorded(&directory, &caller, facts::is_privileged(&caller))?;
                revision::settle(&directory, &step, &rung, &caller)?;
                Ok(Data { directory, revision: step.now })
            }
        }
    }
}

/// Where an installation keeps what it shares.
#[derive(Debug, Clone)]
pub(crate) struct Data {
    directory: PathBuf,
    /// The revision that its files are of.
    pub revision: Revision,
}

impl Data {
    /// The directory of a place; `None` for the files of the application.
    pub(crate) fn place(&self, place: Place) -> Option<PathBuf> {
        revision::place_in_data(place, &self.directory, &self.revision)
    }
}

/// A caller who has chosen no data directory: that choice is for the image that is started.
fn without_choice(caller: &Caller) -> Caller {
    let env = caller.env.iter().filter(|(name, _)| name != "FIM_DIR_DATA").cloned().collect();
    Caller { env, ..caller.clone() }
}
