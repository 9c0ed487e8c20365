//! Installations: one image file can have several, told apart by an instance key. Each has data, settings and a session
//! of its own.
//!
//! ```text
//! .NAME.keys/          beside the image; DATA/keys where FIM_DIR_DATA names the data; see boot's data.rs
//!     lock             held (flock) by whoever changes which keys there are
//!     KEY/             the data directory of one key, as that of an installation without a key, and in it
//!         settings     what was set for this key; everything else is the image's
//!         image/NAME   link to the image of this key, when it has another one than the rest
//! ```

pub mod belongs_to;
mod key;
pub mod places;
pub mod revision;
mod settings;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use key::{InvalidKey, Key};
pub use settings::{Error, Own, Setting, SettingSet};

/// Directory in the data of a key that holds the link to its image.
pub const IMAGE: &str = "image";

/// The installation that a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Name of the application: that of the image file without its ending.
    pub name: OsString,
    /// Its key; the default installation has none.
    pub key: Option<Key>,
    /// The link in the data of the key through which the image was started, when the key has an image of its own.
    link: Option<PathBuf>,
}

/// Names by which the user says which installation is meant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The path that was executed, and those that the links on the way to the image name. The first that stands for a
    /// key counts.
    pub executed: &'a [PathBuf],
    /// `FIM_INSTANCE_KEY`.
    pub variable: Option<&'a OsStr>,
    /// The word after `fim-key run`; it goes before the other two.
    pub word: Option<&'a OsStr>,
}

/// No installation can be told from what was asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// The key in the name of a link.
    #[error("{source}; it is in the name of the link {}, which can be renamed", link.display())]
    Link {
        /// The link.
        link: PathBuf,
        /// What is wrong with it.
        source: InvalidKey,
    },
    /// The key in the environment.
    #[error("{0}; it is in the variable FIM_INSTANCE_KEY")]
    Variable(InvalidKey),
    /// The key on the command line.
    #[error("{0}; see fim-help key")]
    Word(InvalidKey),
    /// Two keys.
    #[error(
        "the link {} stands for the instance key '{by_link}', and FIM_INSTANCE_KEY names '{by_variable}'; unset the variable, or use fim-key run",
        link.display()
    )]
    Two {
        /// The link.
        link: PathBuf,
        /// Its key.
        by_link: Key,
        /// The key in the environment.
        by_variable: Key,
    },
}

impl Installation {
    /// Which installation of the image at `image` (absolute, symlinks resolved) is meant.
    ///
    /// # Errors
    /// A key that cannot be one, and two that differ.
    pub fn choose(image: &Path, asked: Asked<'_>) -> Result<Self, Unclear> {
        let plain = Self { name: stem(image.file_name().unwrap_or_default()).to_owned(), key: None, link: None };
        if let Some(word) = asked.word {
            return Ok(Self { key: Some(Key::parse(word).map_err(Unclear::Word)?), ..plain });
        }
        let mut by_link = None;
        for link in asked.executed {
            by_link = Self::of_link(link, image, &plain)?.map(|installation| (link, installation));
            if by_link.is_some() {
                break;
            }
        }
        let by_variable = asked.variable.filter(|value| !value.is_empty()).map(Key::parse).transpose();
        let by_variable = by_variable.map_err(Unclear::Variable)?;
        match (by_link, by_variable) {
            (Some((link, Self { key: Some(by_link), .. })), Some(by_variable)) if by_link != by_variable => {
                Err(Unclear::Two { link: link.clone(), by_link, by_variable })
            }
            (Some((_, by_link)), _) => Ok(by_link),
            (None, by_variable) => Ok(Self { key: by_variable, ..plain }),
        }
    }

    /// What a link to the image stands for, if it stands for a key.
    fn of_link(link: &Path, image: &Path, plain: &Self) -> Result<Option<Self>, Unclear> {
        if let Some(own) = Self::of_own_image(link).filter(|_| link != image) {
            return Ok(Some(own));
        }
        let names = link.file_name().zip(image.file_name());
        let key = names.and_then(|(link, image)| key_in_name(link, image)).map(Key::parse).transpose();
        let key = key.map_err(|source| Unclear::Link { link: link.to_owned(), source })?;
        Ok(key.map(|key| Self { key: Some(key), ..plain.clone() }))
    }

    /// `KEYS/KEY/image/NAME`: how the image of a key is started that has one of its own.
    fn of_own_image(link: &Path) -> Option<Self> {
        let holder = link.parent().filter(|holder| holder.is_absolute() && holder.ends_with(IMAGE))?;
        let data = holder.parent()?;
        let keys = data.parent()?.file_name()?.as_bytes();
        let key = Key::parse(data.file_name()?).ok().filter(|_| keys == b"keys" || keys.ends_with(b".keys"))?;
        Some(Self { name: stem(link.file_name()?).to_owned(), key: Some(key), link: Some(link.to_owned()) })
    }

    /// The installation of the same image with another key, or without.
    #[must_use]
    pub fn with_key(&self, key: Option<Key>) -> Self {
        Self { name: self.name.clone(), key, link: None }
    }

    /// Name of the installation: that of the application, with the key behind it.
    #[must_use]
    pub fn instance_name(&self) -> OsString {
        let mut name = self.name.clone();
        if let Some(key) = &self.key {
            name.push("_");
            name.push(key.as_str());
        }
        name
    }

    /// The directory of keys that this one is in, when the way it was started tells.
    #[must_use]
    pub fn keys(&self) -> Option<&Path> {
        self.link.as_deref()?.ancestors().nth(3)
    }

    /// As one word that [`Installation::decode`] understands.
    #[must_use]
    pub fn encode(&self) -> OsString {
        let key = || self.key.as_ref().map(|key| key.as_str().into()).unwrap_or_default();
        self.link.as_ref().map_or_else(key, |link| link.clone().into_os_string())
    }

    /// What [`Installation::encode`] made, of an image at this path; `None` for anything else.
    #[must_use]
    pub fn decode(word: &OsStr, image: &Path) -> Option<Self> {
        if word.as_bytes().starts_with(b"/") {
            return Self::of_own_image(Path::new(word));
        }
        Self::choose(image, Asked { variable: Some(word), ..Asked::default() }).ok()
    }
}

/// Name of the link that stands for a key of the image with this name.
#[must_use]
pub fn link_name(image: &OsStr, key: &Key) -> OsString {
    let stem = stem(image);
    let ending = &image.as_bytes()[stem.len()..];
    OsStr::from_bytes(&[stem.as_bytes(), b"_", key.as_str().as_bytes(), ending].concat()).to_owned()
}

/// A file name without its ending, which begins at the last point.
fn stem(name: &OsStr) -> &OsStr {
    Path::new(name).file_stem().unwrap_or(name)
}

/// What stands behind the underscore in the name of a link that is otherwise the image's, with its ending or without.
fn key_in_name<'a>(link: &'a OsStr, image: &OsStr) -> Option<&'a OsStr> {
    if link == image {
        return None;
    }
    let behind = |name: &OsStr| link.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"_");
    let key = behind(image).or_else(|| {
        let (rest, ending) = (behind(stem(image))?, &image.as_bytes()[stem(image).len()..]);
        Some(rest.strip_suffix(ending).unwrap_or(rest))
    });
    key.map(OsStr::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(image: &str, executed: &str, variable: &str) -> Result<String, String> {
        let links: Vec<PathBuf> = executed.split(" -> ").map(PathBuf::from).collect();
        let asked = Asked { executed: &links, variable: Some(OsStr::new(variable)), word: None };
        let text = |installation: Installation| {
            let (name, key) = (installation.instance_name(), installation.encode());
            // The word that goes to the second stage means the same.
            assert_eq!(Installation::decode(&key, Path::new(image)), Some(installation));
            name.into_string().unwrap()
        };
        Installation::choose(Path::new(image), asked).map(text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_name_of_a_link_tells_the_key() {
        for (image, executed, expected) in [
            ("/i/app.flatimage", "./app.flatimage", "app"),
            ("/i/app.flatimage", "./app_foo.flatimage", "app_foo"),
            ("/i/app.flatimage", "/home/ann/bin/app_foo", "app_foo"),
            ("/i/app.flatimage", "app.flatimage_foo", "app_foo"),
            ("/i/app.flatimage", "/i/app_0123456789.flatimage", "app_0123456789"),
            ("/i/app", "/x/app_1", "app_1"),
            ("/i/app-1.2", "/x/app-1.2_foo", "app-1_foo"),
            ("/i/hello-world.flatimage", "hello-world_foo.flatimage", "hello-world_foo"),
            // Underscores that are the file's own, and names that have nothing in common.
            ("/i/my_app.flatimage", "./my_app.flatimage", "my_app"),
            ("/i/my_app.flatimage", "./my_app_foo.flatimage", "my_app_foo"),
            ("/i/app.flatimage", "/dev/fd/7", "app"),
            ("/i/app.flatimage", "other_foo.flatimage", "app"),
            ("/i/app.flatimage", "apps_foo.flatimage", "app"),
            ("/i/app.flatimage", "application", "app"),
            // Links to links: the first that stands for a key.
            ("/i/app.flatimage", "/bin/work -> /i/app_foo.flatimage -> /i/app.flatimage", "app_foo"),
            ("/i/app.flatimage", "/bin/app_bar -> /i/app_foo.flatimage -> /i/app.flatimage", "app_bar"),
            ("/i/app.flatimage", "/bin/work -> /bin/other -> /i/app.flatimage", "app"),
            // An image of the key's own.
            ("/i/juju-2.9.flatimage", "/i/.juju.flatimage.keys/29/image/juju.flatimage", "juju_29"),
            ("/i/juju-2.9.flatimage", "/d/keys/29/image/juju.flatimage", "juju_29"),
            ("/i/juju-2.9.flatimage", "keys/29/image/juju.flatimage", "juju-2.9"),
            ("/d/keys/29/image/juju.flatimage", "/d/keys/29/image/juju.flatimage", "juju"),
        ] {
            assert_eq!(chosen(image, executed, "").as_deref(), Ok(expected), "{executed} -> {image}");
        }
    }

    #[test]
    fn the_name_of_a_link_is_read_as_it_is_made() {
        let key = Key::parse("foo").unwrap();
        for (image, link) in [("app.flatimage", "app_foo.flatimage"), ("app", "app_foo"), ("my_a.b.c", "my_a.b_foo.c")]
        {
            assert_eq!(link_name(OsStr::new(image), &key), link);
            assert_eq!(key_in_name(OsStr::new(link), OsStr::new(image)), Some(OsStr::new("foo")));
        }
    }

    #[test]
    fn keys_that_are_none_are_errors() {
        for (executed, variable, expected) in [
            ("/i/app_Foo.flatimage", "", "Invalid instance key 'Foo'"),
            ("/i/app_.flatimage", "", "Invalid instance key ''"),
            ("/i/app_01234567890.flatimage", "", "the link /i/app_01234567890.flatimage"),
            ("/i/app_v1.2.flatimage", "", "Invalid instance key 'v1.2'"),
            ("/i/app.flatimage", "a-b", "FIM_INSTANCE_KEY"),
            ("/i/app_foo.flatimage", "bar", "stands for the instance key 'foo', and FIM_INSTANCE_KEY names 'bar'"),
        ] {
            let error = chosen("/i/app.flatimage", executed, variable).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(chosen("/i/app.flatimage", "app_foo.flatimage", "foo").as_deref(), Ok("app_foo"));
        assert_eq!(chosen("/i/app.flatimage", "app.flatimage", "foo").as_deref(), Ok("app_foo"));
    }

    #[test]
    fn the_word_goes_before_link_and_variable() {
        let word = |word: &str| {
            let asked = Asked {
                executed: &["app_x.flatimage".into()],
                variable: Some(OsStr::new("Y Z")),
                word: Some(OsStr::new(word)),
            };
            Installation::choose(Path::new("/i/app.flatimage"), asked).map(|chosen| chosen.key.unwrap().to_string())
        };
        assert_eq!(word("foo"), Ok("foo".to_owned()));
        assert!(word("").unwrap_err().to_string().contains("fim-help key"));
    }

    #[test]
    fn the_directory_of_keys_is_known_where_the_image_is_the_keys_own() {
        let link = Path::new("/i/.juju.flatimage.keys/29/image/juju.flatimage");
        let own = Installation::of_own_image(link).unwrap();
        assert_eq!(own.keys(), Some(Path::new("/i/.juju.flatimage.keys")));
        assert_eq!(Installation::decode(OsStr::new("/x/y"), Path::new("/i/app")), None);
        assert_eq!(Installation::decode(OsStr::new("Foo"), Path::new("/i/app")), None);
    }
}
