//! `fim-key add`: the link of a key, its own image where it has one, and its aliases.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::Path;

use runtime::image::Image;
use runtime::installation::{IMAGE, Key};

use super::keys::{Keys, Link};
use crate::launch::data;
use crate::settings::no_more;
use crate::{Failure, Invocation, Message, alias, cli};

const OTHER_IMAGE: &str = "--image";
const UNALIASED: &str = "--unaliased";

pub(super) fn run(invocation: &Invocation, key: &Key, words: &[OsString]) -> Result<i32, Failure> {
    let Words { image, unaliased } = Words::parse(words)?;
    let keys = Keys::lock(invocation, None)?;
    keys.must_have_a_free_name(key)?;
    if keys.link_state(key) == Link::Ours {
        return Err(Message::boxed(format!(
            "the instance key '{key}' exists already; choose another, or remove it with fim-key remove {key}"
        )));
    }
    let fresh = keys.data(key).is_none();
    let place = data::prepare_of(invocation, &keys.caller, Some(key))?;
    let made = image.iter().try_for_each(|image| set_image(&keys, &place, key, &image.path)).and_then(|()| {
        keys.make_link(key).map_err(|error| {
            Message::boxed(format!(
                "cannot make the link {}: {error}; without it, fim-key run {key} starts this installation",
                keys.link(key).display()
            ))
        })
    });
    let made = made.and_then(|()| {
        let declared = &image.as_ref().unwrap_or(&invocation.image).config.declared;
        let enabled = if unaliased { Ok(()) } else { alias::enable_key(invocation, &keys.caller, key, declared) };
        enabled.inspect_err(|_| {
            // It was made a moment ago.
            let _ = fs::remove_file(keys.link(key));
        })
    });
    if let Err(error) = made {
        if fresh {
            keys.delete(&place)?;
        }
        return Err(error);
    }
    cli::print_bytes(&[keys.link(key).into_os_string().into_encoded_bytes(), b"\n".to_vec()].concat()).map(|()| 0)
}

/// The words behind the key.
#[derive(Default)]
struct Words {
    /// The image that the key is to have instead of this one.
    image: Option<Image>,
    unaliased: bool,
}

impl Words {
    fn parse(mut words: &[OsString]) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        while let Some((word, rest)) = words.split_first() {
            words = if word == UNALIASED {
                parsed.unaliased = true;
                rest
            } else if word == OTHER_IMAGE && parsed.image.is_none() {
                let missing = || Message::boxed("Missing file for '--image': fim-key add KEY --image FILE");
                let (file, rest) = rest.split_first().ok_or_else(missing)?;
                parsed.image = Some(other_image(file)?);
                rest
            } else {
                no_more("key", words)?;
                rest
            };
        }
        Ok(parsed)
    }
}

fn other_image(file: &OsStr) -> Result<Image, Failure> {
    let failed =
        |why: String| Message::boxed(format!("{} cannot be the image of a key: {why}", Path::new(file).display()));
    let path = fs::canonicalize(file).map_err(|error| failed(error.to_string()))?;
    let opened = File::open(&path).map_err(|error| failed(error.to_string()))?;
    match Image::open(opened, &path).map_err(|error| failed(runtime::error::chain(&error)))? {
        Some(image) => Ok(image),
        None => Err(failed("it is a program without an image".to_owned())),
    }
}

/// Makes the link through which the image of a key is started.
fn set_image(keys: &Keys<'_>, data: &Path, key: &Key, image: &Path) -> Result<(), Failure> {
    let idle = keys.idle(key)?;
    let holder = data.join(IMAGE);
    let link = holder.join(keys.invocation.path.file_name().unwrap_or_default());
    let make = || {
        let _ = fs::remove_dir_all(&holder);
        fs::create_dir(&holder)?;
        if image == keys.invocation.path { Ok(()) } else { std::os::unix::fs::symlink(image, &link) }
    };
    let made: std::io::Result<()> = make();
    drop(idle);
    made.map_err(|error| Message::boxed(format!("cannot make the link {}: {error}", link.display())))
}
