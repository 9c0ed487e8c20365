//! Going on where a commit or reset was interrupted.

use std::path::Path;

use super::intent::{INTENT, Intent};
use super::{Error, swap};

/// What was interrupted, and what has become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// Nothing was.
    Nothing,
    /// The layer was not in its place: everything is as before.
    GivenUp,
    /// The layer is in its place, or a reset was begun: the writable layer is empty. The former one is to be removed
    /// ([`super::remove_committed`], [`super::clean`]).
    Completed,
}

/// Whether something was interrupted in this data directory: one look, for every start.
#[must_use]
pub fn interrupted(data: &Path) -> bool {
    std::fs::symlink_metadata(data.join(INTENT)).is_ok()
}

/// Brings a data directory, which nobody uses, into the state before or behind what was interrupted. Doing so may be
/// interrupted, too. `image` is the image that uses it now.
///
/// # Errors
/// I/O errors; a record that cannot be understood.
pub fn recover(data: &Path, image: &Path) -> Result<Interrupted, Error> {
    match Intent::read(data)? {
        None => Ok(Interrupted::Nothing),
        Some(Intent::Publish(publication)) if !publication.is_published(image) => {
            swap::forget(data)?;
            Intent::remove(data).map(|()| Interrupted::GivenUp)
        }
        Some(Intent::Publish(_) | Intent::Reset) => swap::swap(data).map(|()| Interrupted::Completed),
        Some(Intent::Clean) => Ok(Interrupted::Completed),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{Place, Publication, make_fresh, swap};
    use super::*;
    use crate::image::Digest;

    /// A data directory with a change in it, and the empty writable layer that is to be.
    fn data() -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("root")).unwrap();
        fs::write(data.path().join("root/change"), "").unwrap();
        fs::write(data.path().join("owners"), "").unwrap();
        make_fresh(data.path()).unwrap();
        data
    }

    fn names(data: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(data)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "layer")
            .collect();
        names.sort();
        names
    }

    /// The layer of a file in the data directory, written or not.
    fn publication(data: &Path, there: &str) -> Intent {
        let (path, layer) = (data.join("layer"), b"the layer");
        fs::write(&path, there).unwrap();
        Intent::Publish(Publication { place: Place::File, path, size: layer.len() as u64, digest: Digest::of(layer) })
    }

    #[test]
    fn without_its_layer_a_commit_is_given_up() {
        for there in ["", "the laye", "other lay", "the layer and more"] {
            let data = data();
            publication(data.path(), there).write(data.path()).unwrap();
            assert_eq!(recover(data.path(), Path::new("/no/image")).unwrap(), Interrupted::GivenUp);
            assert!(data.path().join("root/change").exists());
            assert_eq!(names(data.path()), ["owners", "root"]);
            assert!(!interrupted(data.path()));
        }
    }

    #[test]
    fn with_its_layer_a_commit_is_completed_from_every_point() {
        for point in 0..5 {
            let data = data();
            let at = |name: &str| data.path().join(name);
            publication(data.path(), "the layer").write(data.path()).unwrap();
            if point > 0 {
                fs::rename(at("root"), at("committed")).unwrap();
            }
            match point {
                // A start has come in between.
                2 => fs::create_dir(at("root")).unwrap(),
                3 => fs::rename(at("fresh"), at("root")).unwrap(),
                4 => {
                    fs::rename(at("fresh"), at("root")).unwrap();
                    Intent::Clean.write(data.path()).unwrap();
                    fs::remove_file(at("owners")).unwrap();
                }
                _ => {}
            }
            // And again from there.
            for _ in 0..2 {
                assert_eq!(recover(data.path(), Path::new("/no/image")).unwrap(), Interrupted::Completed, "{point}");
                assert!(at("committed/change").exists() && !at("root/change").exists(), "{point}");
                assert_eq!(names(data.path()), ["commit", "committed", "root"], "{point}");
            }
            super::super::clean(data.path()).unwrap();
            assert!(interrupted(data.path()), "the former layer is still there");
            super::super::remove_committed(data.path()).unwrap();
            super::super::clean(data.path()).unwrap();
            assert_eq!(names(data.path()), ["root"], "{point}");
            assert_eq!(recover(data.path(), Path::new("/no/image")).unwrap(), Interrupted::Nothing);
        }
    }

    #[test]
    fn a_reset_goes_on_and_the_root_stays_what_it_was_like() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let data = data();
        let root = data.path().join("root");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o1711)).unwrap();
        xattr::set(&root, "user.note", b"kept").unwrap();
        xattr::set(&root, "user.overlay.impure", b"y").unwrap();
        let before = fs::metadata(&root).unwrap();
        make_fresh(data.path()).unwrap();
        Intent::Reset.write(data.path()).unwrap();
        swap(data.path()).unwrap();
        let after = fs::metadata(&root).unwrap();
        assert_eq!(
            (after.mode(), after.mtime(), after.mtime_nsec()),
            (before.mode(), before.mtime(), before.mtime_nsec())
        );
        let names: Vec<_> = xattr::list(&root).unwrap().filter(|name| name != "security.selinux").collect();
        assert_eq!(names, ["user.note"]);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }
}
