//! Which image a data directory belongs to, or a directory of keys: data that lies beside an image is named after the file,
//! and is found by this when the file has got another name.
//!
//! ```text
//! DATA/belongs-to     link whose text is the record
//! .NAME.keys/belongs-to
//! ```

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::image::Uuid;
use xattr::FileExt;

/// The record.
pub const RECORD: &str = "belongs-to";
/// Where it is made; it then gets its name.
const DRAFT: &str = "belongs-to.new";
/// First field of a record; changing what follows needs another number.
const VERSION: &str = "1";
/// Attribute of an image file: the path that it had when the data beside it was named after it. A renamed file keeps it.
const PLACE: &str = "user.fim.place";

/// The image that a directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BelongsTo {
    /// Its UUID, as text.
    pub uuid: String,
    /// Where it was when it used the directory for the last time: an absolute path.
    pub image: PathBuf,
}

impl BelongsTo {
    /// That it belongs to the image with this UUID at this path.
    #[must_use]
    pub fn image(uuid: &Uuid, path: &Path) -> Self {
        Self { uuid: uuid.to_string(), image: path.to_owned() }
    }

    fn encode(&self) -> OsString {
        let head = format!("{VERSION}:{}:", self.uuid);
        OsString::from_vec([head.as_bytes(), self.image.as_os_str().as_bytes()].concat())
    }

    fn parse(text: &OsStr) -> Option<Self> {
        let rest = text.as_bytes().strip_prefix(VERSION.as_bytes())?.strip_prefix(b":")?;
        let colon = rest.iter().position(|&byte| byte == b':')?;
        let uuid = std::str::from_utf8(&rest[..colon]).ok()?.to_owned();
        let image = PathBuf::from(OsStr::from_bytes(&rest[colon + 1..]));
        image.is_absolute().then_some(Self { uuid, image })
    }

    /// The record of a directory; `None` when there is none that can be understood. One system call.
    #[must_use]
    pub fn read(directory: &Path) -> Option<Self> {
        Self::parse(fs::read_link(directory.join(RECORD)).ok()?.as_os_str())
    }

    /// Makes this the record of a directory: the old record or the new one is there at any moment.
    ///
    /// # Errors
    /// I/O errors; a path that is too long for a link among them.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let draft = directory.join(DRAFT);
        let _ = fs::remove_file(&draft);
        std::os::unix::fs::symlink(self.encode(), &draft)?;
        fs::rename(draft, directory.join(RECORD))
    }
}

/// The path that an image file had when the data beside it was named after it, where the file tells.
#[must_use]
pub fn place(image: &File) -> Option<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(image.get_xattr(PLACE).ok()??));
    path.is_absolute().then_some(path)
}

/// Has an image file tell the path that it has now.
///
/// # Errors
/// A file system without user attributes, and a file that is not the caller's.
pub fn remember_place(image: &File, path: &Path) -> io::Result<()> {
    image.set_xattr(PLACE, path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_record() {
        let ours = BelongsTo::image(&Uuid([0xab; 16]), Path::new("/a:b/app \u{e4}.flatimage"));
        assert_eq!(ours.encode(), "1:abababab-abab-abab-abab-abababababab:/a:b/app \u{e4}.flatimage");
        assert_eq!(BelongsTo::parse(&ours.encode()), Some(ours));
        for bad in ["", "1:", "1:x", "1:x:", "1:x:relative", "2:x:/app", "11:x:/app"] {
            assert_eq!(BelongsTo::parse(OsStr::new(bad)), None, "{bad}");
        }
        assert_eq!(BelongsTo::parse(OsStr::from_bytes(b"1:\xff:/app")), None);
    }

    #[test]
    fn a_record_is_replaced_whole() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(BelongsTo::read(data.path()), None);
        for name in ["/x/one", "/x/two"] {
            let ours = BelongsTo::image(&Uuid([1; 16]), Path::new(name));
            ours.write(data.path()).unwrap();
            assert_eq!(BelongsTo::read(data.path()), Some(ours));
        }
        let long = BelongsTo::image(&Uuid([1; 16]), &Path::new("/").join("x".repeat(5000)));
        assert!(long.write(data.path()).is_err() && BelongsTo::read(data.path()).is_some());
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 1);
    }
}
