//! Layouts: files and directories of the application at the places where a program expects them, put there in the fresh
//! namespace of each instance.
//!
//! Everything is a mount, symlinks too (a mount of a symlink is followed as one), so that nothing but empty mount points
//! is ever made in the writable root, which other instances see. What a path leads to is looked up once, by descriptors,
//! without a magic link of proc; what was found is used, and its real path decides whether a layout may be there.

mod build;
mod placed;
mod rebuild;

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use self::placed::Placed;
use super::points::Point;

pub use build::place;

/// The layouts of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layouts {
    /// In the order in which they are made.
    pub entries: Vec<Entry>,
    /// Where the files of the application are shown read-only: the root once more.
    pub view: PathBuf,
    /// Directories with files of the installation.
    pub data: Vec<PathBuf>,
    /// Where no layout may be.
    pub kept: &'static [Kept],
}

impl Layouts {
    /// Mount points in the root that the instance needs, should the root lack them: those of the targets, and sources that
    /// are to be in the root.
    #[must_use]
    pub fn points(&self) -> Vec<Point> {
        let mut placed = Placed::new(&self.view, &self.data);
        let mut points = Vec::new();
        for Entry { name, target, what, .. } in &self.entries {
            let source = match what {
                What::Directory(source) | What::File(source) => placed.in_root(&source.path()),
                What::Symlink(_) | What::Tmpfs => None,
            };
            let is_directory = what.kind() == Kind::Directory;
            let place = placed.in_root(target);
            let own = matches!(what, What::Symlink(to) if place.is_some() && placed.in_root(to) == place);
            // Of two at one path, the first is made: a source before the target that shows it.
            let all = source.iter().chain(place.iter().filter(|_| !own));
            points.extend(all.map(|path| Point { path: path.clone(), is_directory }));
            placed.add(target.clone(), name, source.filter(|_| is_directory));
        }
        points
    }

    /// Where the instance has a file system of its own that ends with it.
    pub(super) fn passing(&self) -> Vec<PathBuf> {
        self.entries.iter().filter(|entry| entry.what == What::Tmpfs).map(|entry| entry.target.clone()).collect()
    }
}

/// A place where no layout may be, with everything below.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    /// Absolute path.
    pub path: &'static str,
    /// Why.
    pub reason: &'static str,
}

impl Kept {
    /// The one of `all` that `path` is at or below.
    #[must_use]
    pub fn find(all: &'static [Self], path: &Path) -> Option<&'static Self> {
        all.iter().find(|kept| path.starts_with(kept.path))
    }
}

/// One layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its target as the user knows it.
    pub name: String,
    /// Where it appears: absolute, in the guest, without `.` and `..`.
    pub target: PathBuf,
    /// What appears.
    pub what: What,
    /// Whether an object of another type is replaced.
    pub replace: bool,
}

/// What appears at a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A symlink that holds this path.
    Symlink(PathBuf),
    /// A directory.
    Directory(Source),
    /// A file.
    File(Source),
    /// An empty directory in memory.
    Tmpfs,
}

/// A file or directory of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// As the user knows it.
    pub name: String,
    /// The view or a directory of the data; nothing outside of it is ever taken.
    pub base: PathBuf,
    /// Below that; may be empty.
    pub rest: PathBuf,
}

impl Source {
    /// Where it is in the guest.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.base.join(&self.rest)
    }
}

/// What kind of object something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Other,
}

impl Kind {
    /// Of `st_mode`.
    #[must_use]
    pub fn of_mode(mode: u32) -> Self {
        match mode & libc::S_IFMT {
            libc::S_IFDIR => Self::Directory,
            libc::S_IFREG => Self::File,
            libc::S_IFLNK => Self::Symlink,
            _ => Self::Other,
        }
    }

    /// With its article.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Directory => "a directory",
            Self::File => "a file",
            Self::Symlink => "a symbolic link",
            Self::Other => "a device, pipe or socket",
        }
    }
}

impl What {
    /// What it is to whoever looks at the target.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Symlink(_) => Kind::Symlink,
            Self::Directory(_) | Self::Tmpfs => Kind::Directory,
            Self::File(_) => Kind::File,
        }
    }

    /// Whether it takes the place of an object without being asked to replace it. A link cannot be redirected so.
    #[must_use]
    pub fn fits(&self, existing: Kind) -> bool {
        existing != Kind::Symlink && existing == self.kind()
    }
}

/// A layout that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object is in the way.
    #[error("layout '{name}': there is {} already, and {} is to appear; use fim-layout add … --replace to put one in the place of the other", existing.name(), wanted.name())]
    Type {
        /// The target.
        name: String,
        /// What is there.
        existing: Kind,
        /// What the layout makes.
        wanted: Kind,
    },
    /// The real place is one where no layout may be.
    #[error("layout '{name}': it leads to {}, where no layout may be: {reason}", path.display())]
    Kept {
        /// The target.
        name: String,
        /// Its real path.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// The real place is in a mount of the host or of another image.
    #[error("layout '{name}': it leads to {}, which a bind or a permission shares with the host, or a plug has from another image; layouts change nothing outside", path.display())]
    Shared {
        /// The target.
        name: String,
        /// Its real path.
        path: PathBuf,
    },
    /// Two are at one place.
    #[error("layout '{name}': it is at the same place as layout '{other}', {}; fim-layout del one of them", path.display())]
    Twice {
        /// The target.
        name: String,
        /// The other one.
        other: String,
        /// The place.
        path: PathBuf,
    },
    /// It would cover another one.
    #[error("layout '{name}': it leads to {} and would hide layout '{other}', which lies below; name both by their real paths", path.display())]
    Hides {
        /// The target.
        name: String,
        /// The other one.
        other: String,
        /// The place.
        path: PathBuf,
    },
    /// A link to nothing is on the way.
    #[error("layout '{name}': {} is a symbolic link to nothing, and targets of links are not made; remove the link, or make what it leads to", path.display())]
    Dangling {
        /// The target or the source.
        name: String,
        /// The link.
        path: PathBuf,
    },
    /// The source is of another kind.
    #[error("layout '{name}': its source {source_name} is {}; use {}", existing.name(), if *wanted == Kind::Directory { "bind-file for files" } else { "bind for directories" })]
    Source {
        /// The target.
        name: String,
        /// The source.
        source_name: String,
        /// What it is.
        existing: Kind,
        /// What it has to be.
        wanted: Kind,
    },
    /// The source is not where it says.
    #[error("layout '{name}': a link on the way to its source {source_name} leads out of {}", base.display())]
    Outside {
        /// The target.
        name: String,
        /// The source.
        source_name: String,
        /// What it must stay in.
        base: PathBuf,
    },
    /// A step failed.
    #[error("layout '{name}': cannot {action} {}", path.display())]
    Step {
        /// The target.
        name: String,
        /// What was tried, as an infinitive.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: Errno,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_kind_fits_and_no_link_is_redirected() {
        let file = What::File(Source { name: "x".into(), base: "/v".into(), rest: "x".into() });
        let link = What::Symlink("/v/x".into());
        for (what, kind, fits) in [
            (&What::Tmpfs, Kind::Directory, true),
            (&What::Tmpfs, Kind::File, false),
            (&What::Tmpfs, Kind::Symlink, false),
            (&file, Kind::File, true),
            (&file, Kind::Other, false),
            (&file, Kind::Directory, false),
            (&link, Kind::Symlink, false),
            (&link, Kind::File, false),
        ] {
            assert_eq!(what.fits(kind), fits, "{what:?} {kind:?}");
        }
    }

    #[test]
    fn points_are_where_the_root_has_to_have_them() {
        let source = |base: &str, rest: &str| Source { name: String::new(), base: base.into(), rest: rest.into() };
        let entry = |target: &str, what| Entry { name: target.into(), target: target.into(), what, replace: false };
        let layouts = Layouts {
            entries: vec![
                entry("/a", What::Directory(source("/v", "opt/a"))),
                entry("/a/b", What::Tmpfs),
                entry("/a/b/c", What::Tmpfs),
                entry("/d", What::Directory(source("/data", "d"))),
                entry("/d/e", What::File(source("/data", "e"))),
                entry("/v/api/Gemfile", What::File(source("/data", "Gemfile"))),
                entry("/data/x", What::Tmpfs),
                entry("/l", What::Symlink("/v/x".into())),
                entry("/own", What::Symlink("/v/own".into())),
            ],
            view: "/v".into(),
            data: vec!["/data".into()],
            kept: &[],
        };
        let found: Vec<_> = layouts.points().into_iter().map(|point| (point.path, point.is_directory)).collect();
        let expected =
            [("/opt/a", true), ("/a", true), ("/opt/a/b", true), ("/d", true), ("/api/Gemfile", false), ("/l", false)];
        assert_eq!(found, expected.map(|(path, is_directory)| (PathBuf::from(path), is_directory)));
    }

    #[test]
    fn kept_places_are_whole_trees_by_whole_names() {
        const KEPT: &[Kept] = &[Kept { path: "/lib/modules", reason: "r" }];
        let is_kept = |path: &str| Kept::find(KEPT, Path::new(path)).is_some();
        assert!(is_kept("/lib/modules") && is_kept("/lib/modules/6/x"));
        assert!(!is_kept("/lib/modules.d") && !is_kept("/lib"));
    }
}
