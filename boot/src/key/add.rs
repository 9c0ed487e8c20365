//! `fim-key add`: the link of a key, and its own image where it has one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use runtime::image::Image;
use runtime::installation::{IMAGE, Key};

use super::keys::{Keys, Link};
use crate::launch::data;
use crate::settings::no_more;
use crate::{Failure, Invocation, Message, cli};

const OTHER_IMAGE: &str = "--image";

pub(super) fn run(invocation: &Invocation, key: &Key, words: &[OsString]) -> Result<i32, Failure> {
    let image = other_image(words)?;
    let keys = Keys::lock(invocation, None)?;
    keys.must_have_a_free_name(key)?;
    if keys.link_state(key) == Link::Ours {
        return Err(Message::boxed(format!(
            "the instance key '{key}' exists already; choose another, or remove it with fim-key remove {key}"
        )));
    }
    let fresh = keys.data(key).is_none();
    let place = data::prepare_of(invocation, &keys.caller, Some(key))?;
    let made = image.iter().try_for_each(|image| set_image(&keys, &place, key, image)).and_then(|()| {
        keys.make_link(key).map_err(|error| {
            Message::boxed(format!(
                "cannot make the link {}: {error}; without it, fim-key run {key} starts this installation",
                keys.link(key).display()
            ))
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

/// The image that the key is to have instead of this one.
fn other_image(words: &[OsString]) -> Result<Option<PathBuf>, Failure> {
    let Some((flag, rest)) = words.split_first() else { return Ok(None) };
    if flag != OTHER_IMAGE {
        no_more("key", words)?;
    }
    let (file, rest) =
        rest.split_first().ok_or_else(|| Message::boxed("Missing file for '--image': fim-key add KEY --image FILE"))?;
    no_more("key", rest)?;
    let failed =
        |why: String| Message::boxed(format!("{} cannot be the image of a key: {why}", Path::new(file).display()));
    let path = fs::canonicalize(file).map_err(|error| failed(error.to_string()))?;
    let opened = File::open(&path).map_err(|error| failed(error.to_string()))?;
    match Image::open(opened, &path).map_err(|error| failed(runtime::error::chain(&error)))? {
        Some(_) => Ok(Some(path)),
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
