//! What has been placed so far: which layouts meet, and where in the root a path of the guest really lies.

use std::path::{Path, PathBuf};

/// One layout that is in place.
#[derive(Debug)]
struct Mount {
    /// Its real path in the guest.
    path: PathBuf,
    name: String,
    /// The path of the root that it shows, when it shows a part of that.
    shows: Option<PathBuf>,
}

/// Layouts in place, and the view of the root.
#[derive(Debug)]
pub(super) struct Placed {
    view: PathBuf,
    data: Vec<PathBuf>,
    mounts: Vec<Mount>,
    /// Directories that were made anew around what was in them.
    rebuilt: Vec<PathBuf>,
}

/// How a layout meets those before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meeting<'a> {
    /// Another is at the same place.
    Same(&'a str),
    /// Another lies below.
    Above(&'a str),
}

impl Placed {
    pub(super) fn new(view: &Path, data: &[PathBuf]) -> Self {
        Self { view: view.to_owned(), data: data.to_owned(), mounts: Vec::new(), rebuilt: Vec::new() }
    }

    pub(super) fn add(&mut self, path: PathBuf, name: &str, shows: Option<PathBuf>) {
        self.mounts.push(Mount { path, name: name.to_owned(), shows });
    }

    /// A directory is no part of the root any more; what is in it still is.
    pub(super) fn rebuild(&mut self, path: &Path) {
        self.rebuilt.push(path.to_owned());
    }

    pub(super) fn is_rebuilt(&self, path: &Path) -> bool {
        self.rebuilt.iter().any(|rebuilt| rebuilt == path)
    }

    /// What a layout at `path` meets.
    pub(super) fn meets(&self, path: &Path) -> Option<Meeting<'_>> {
        let below = self.mounts.iter().find(|mount| mount.path.starts_with(path))?;
        Some(if below.path == path { Meeting::Same(&below.name) } else { Meeting::Above(&below.name) })
    }

    /// Whether a real path of the guest is within something that was placed.
    pub(super) fn covers(&self, path: &Path) -> bool {
        self.mounts.iter().any(|mount| path.starts_with(&mount.path))
    }

    /// Whether it is a file of the installation or the application, seen through its own place.
    pub(super) fn is_own(&self, path: &Path) -> bool {
        path.starts_with(&self.view) || self.data.iter().any(|data| path.starts_with(data))
    }

    /// Where in the root a real path of the guest lies; `None` when it is not of the root.
    pub(super) fn in_root(&self, path: &Path) -> Option<PathBuf> {
        if self.is_rebuilt(path) {
            return None;
        }
        // The last one that covers it is what is seen.
        let over = self.mounts.iter().rev().find_map(|mount| Some((mount, path.strip_prefix(&mount.path).ok()?)));
        if let Some((mount, rest)) = over {
            return mount.shows.as_ref().map(|shows| shows.join(rest));
        }
        match path.strip_prefix(&self.view) {
            Ok(rest) => Some(Path::new("/").join(rest)),
            Err(_) if self.data.iter().any(|data| path.starts_with(data)) => None,
            Err(_) => Some(path.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed() -> Placed {
        let mut placed = Placed::new(Path::new("/run/fim/root"), &["/run/fim/data/1/system".into()]);
        placed.add("/usr/share/foo".into(), "a", Some("/opt/foo".into()));
        placed.add("/usr/share/foo/data".into(), "b", None);
        placed
    }

    #[test]
    fn where_a_path_of_the_root_really_lies() {
        for (path, place) in [
            ("/etc/x", Some("/etc/x")),
            ("/run/fim/root/api", Some("/api")),
            ("/run/fim/root", Some("/")),
            ("/run/fim/data/1/system/x", None),
            ("/usr/share/foo/x", Some("/opt/foo/x")),
            ("/usr/share/foo/data/x", None),
            ("/usr/share/foo.d/x", Some("/usr/share/foo.d/x")),
        ] {
            assert_eq!(placed().in_root(Path::new(path)).as_deref(), place.map(Path::new), "{path}");
        }
    }

    #[test]
    fn a_rebuilt_directory_is_not_of_the_root_and_what_is_in_it_is() {
        let mut placed = placed();
        placed.rebuild(Path::new("/opt"));
        assert_eq!(placed.in_root(Path::new("/opt")), None);
        assert_eq!(placed.in_root(Path::new("/opt/x")), Some("/opt/x".into()));
        assert!(placed.is_rebuilt(Path::new("/opt")) && !placed.is_rebuilt(Path::new("/opt/x")));
    }

    #[test]
    fn layouts_meet_by_whole_names() {
        let placed = placed();
        assert_eq!(placed.meets(Path::new("/usr/share/foo")), Some(Meeting::Same("a")));
        assert_eq!(placed.meets(Path::new("/usr/share")), Some(Meeting::Above("a")));
        assert_eq!(placed.meets(Path::new("/usr/share/foo/x")), None);
        assert_eq!(placed.meets(Path::new("/usr/share/fo")), None);
        assert!(placed.covers(Path::new("/usr/share/foo/x")) && !placed.covers(Path::new("/usr/share")));
        assert!(placed.is_own(Path::new("/run/fim/root/x")) && !placed.is_own(Path::new("/run/fim/rootx")));
    }
}
