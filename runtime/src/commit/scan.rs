//! What the writable layer holds, as the layer that it becomes.
//!
//! The overlay's own marks are translated: a whiteout (character device 0:0) and an opaque directory are what they are in
//! any layer, everything else the kernel noted for itself is left out. Owners are those that the guest has seen.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata as Found};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Error;
use crate::emulation::ledger::{self, Ledger};
use crate::emulation::owner::{Device, DeviceKind, Owner};
use crate::extract::attributes::is_overlays_own;
use crate::extract::merge::OPAQUE;
use crate::fuse::overlay::{Marks, Meaning};
use crate::fuse::{NOBODY, OWNER_XATTR};
use crate::pack::contents::Planned;
use crate::pack::directory::{self, Files};
use crate::pack::squash::Covers;
use crate::pack::{self, Progress, Summary};
use crate::sandbox::points;
use crate::session::marks;
use crate::squashfs::write::{Kind, Metadata, NodeId, Options, Tree, TreeError, Writer, Xattrs};
use crate::sys::status::Status;

/// Labels that the host's security modules have put on its files: they mean nothing elsewhere.
const LABELS: [&[u8]; 5] =
    [b"security.selinux", b"security.SMACK64", b"security.apparmor", b"security.ima", b"security.evm"];

/// Whom the files of a writable layer belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whom the kernel says.
    Stored,
    /// Users below `uids` and groups below `gids` as the kernel says. A file of somebody else, copied up from a layer,
    /// has the owner in its attribute.
    Below {
        /// The first user that the session does not know.
        uids: u32,
        /// The first group that it does not know.
        gids: u32,
    },
    /// Root, or whom root emulation has remembered.
    Remembered,
}

/// What a layer cannot hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Omitted {
    /// Sockets, as paths in the guest.
    pub sockets: Vec<PathBuf>,
    /// Files whose access control lists are lost.
    pub restricted: u64,
}

/// A writable layer, all names of it.
pub struct Scan {
    pub(super) root: PathBuf,
    pub(super) marks: Marks,
    pub(super) planned: Planned<directory::Found>,
    /// Directories below which nothing of lower layers shows.
    pub(super) opaque: HashSet<NodeId>,
    /// What is left out.
    pub omitted: Omitted,
}

impl Scan {
    /// Finds every name of `data/root`, which nobody uses. The process has the IDs of the session.
    ///
    /// # Errors
    /// When something cannot be read, or a layer cannot hold it.
    pub fn run(data: &Path, owners: Owners) -> Result<Self, Error> {
        let (root, marks) = (data.join("root"), marks::recorded(data)?);
        let mut walk = Walk {
            planned: Planned::new(),
            omitted: Omitted::default(),
            links: HashMap::new(),
            opaque: HashSet::new(),
            holds_whiteouts: HashSet::new(),
            attributes: HashMap::new(),
            owners: Lookup::new(data, owners)?,
            root: &root,
            marks,
        };
        walk.all()?;
        let points = points::recorded(data).map_err(Error::io("read the mount points of", data))?;
        walk.leave_out(&points)?;
        walk.mark();
        let Walk { planned, omitted, opaque, .. } = walk;
        Ok(Self { root, marks, planned, opaque, omitted })
    }

    /// Whether there is nothing to commit: what `/` itself is like stays in the data directory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.planned.tree.children(Tree::ROOT).next().is_none()
    }

    /// Packs the layer into `out`, which is empty.
    ///
    /// # Errors
    /// When a file cannot be read or `out` not be written; `out` then holds garbage.
    pub fn pack(self, out: &File, options: Options, progress: &mut dyn Progress) -> Result<Summary, Error> {
        let writer = Writer::new(out, 0, &options).map_err(pack::Error::from)?;
        let options = pack::Options { squashfs: options, ..pack::Options::default() };
        let files = Files { root: &self.root, stored: &|path| self.marks.stored_path(path) };
        Ok(self.planned.pack(&files, writer, &options, progress)?)
    }
}

struct Walk<'a> {
    root: &'a Path,
    marks: Marks,
    planned: Planned<directory::Found>,
    omitted: Omitted,
    /// Files with more than one name, by inode number.
    links: HashMap<u64, NodeId>,
    opaque: HashSet<NodeId>,
    holds_whiteouts: HashSet<NodeId>,
    /// Attributes of directories, which may get one more.
    attributes: HashMap<NodeId, Xattrs>,
    owners: Lookup,
}

impl Walk<'_> {
    fn all(&mut self) -> Result<(), Error> {
        let examine = |path: &Path| fs::symlink_metadata(path).map_err(Error::io("read", path));
        let metadata = examine(self.root)?;
        let mount = mount_of(self.root)?;
        self.describe(Tree::ROOT, self.root, &metadata)?;
        let mut stack = vec![(Tree::ROOT, self.root.to_owned())];
        while let Some((parent, path)) = stack.pop() {
            if mount_of(&path)? != mount {
                return Err(Error::Mounted { path });
            }
            let mut gone = Vec::new();
            for entry in fs::read_dir(&path).map_err(Error::io("list", &path))? {
                let entry = entry.map_err(Error::io("list", &path))?;
                let path = entry.path();
                let name = match self.marks.meaning(entry.file_name().as_bytes()) {
                    Meaning::Entry(name) => name,
                    Meaning::Whiteout(name) => {
                        gone.push(name);
                        continue;
                    }
                    Meaning::Opaque => {
                        self.opaque.insert(parent);
                        continue;
                    }
                    Meaning::Nothing => continue,
                };
                let metadata = examine(&path)?;
                if let Some(node) = self.entry(parent, &name, &path, &metadata)?
                    && metadata.is_dir()
                {
                    stack.push((node, path));
                }
            }
            for name in gone {
                // What is there again covers what its mark took away.
                if self.planned.tree.get(parent, &name).is_none() {
                    self.whiteout(parent, &name).map_err(unstorable(&path))?;
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, parent: NodeId, name: &[u8], path: &Path, found: &Found) -> Result<Option<NodeId>, Error> {
        if found.file_type().is_char_device() && found.rdev() == 0 {
            return self.whiteout(parent, name).map(|()| None).map_err(unstorable(path));
        }
        if found.file_type().is_socket() {
            self.omitted.sockets.push(Path::new("/").join(path.strip_prefix(self.root).unwrap_or(path)));
            return Ok(None);
        }
        let several = !found.is_dir() && found.nlink() > 1;
        if let Some(&known) = self.links.get(&found.ino()).filter(|_| several) {
            self.planned.tree.link(parent, name, known).map_err(unstorable(path))?;
            return Ok(Some(known));
        }
        let kind = directory::kind_of(path, found)?;
        let added = self.planned.tree.add(parent, name, Metadata::default(), kind).map_err(unstorable(path))?;
        let node = match self.describe(added, path, found)? {
            // A file that stands for a device becomes one.
            Some((device, metadata, xattrs)) => {
                let Device { kind, major, minor } = device;
                let kind = match kind {
                    DeviceKind::Block => Kind::BlockDevice { major, minor },
                    DeviceKind::Character => Kind::CharDevice { major, minor },
                };
                let node = self.planned.tree.add(parent, name, metadata, kind).map_err(unstorable(path))?;
                self.planned.tree.set_xattrs(node, xattrs);
                node
            }
            None => {
                if found.is_file() {
                    self.planned.files.insert(added, directory::Found::of(found));
                }
                added
            }
        };
        if several {
            self.links.insert(found.ino(), node);
        }
        Ok(Some(node))
    }

    fn whiteout(&mut self, parent: NodeId, name: &[u8]) -> Result<(), TreeError> {
        self.holds_whiteouts.insert(parent);
        let kind = Kind::CharDevice { major: 0, minor: 0 };
        self.planned.tree.add(parent, name, Metadata::default(), kind).map(drop)
    }

    /// Gives a node what its file has, or returns the device that the file stands for, with what that has.
    fn describe(
        &mut self,
        node: NodeId,
        path: &Path,
        found: &Found,
    ) -> Result<Option<(Device, Metadata, Xattrs)>, Error> {
        let (mut xattrs, restricted) = directory::xattrs(path)?;
        self.omitted.restricted += u64::from(restricted);
        let kernel = self.marks == Marks::Kernel;
        if found.is_dir() && kernel && xattrs.iter().any(|(name, value)| OPAQUE.contains(&&**name) && **value == *b"y")
        {
            self.opaque.insert(node);
        }
        xattrs.retain(|(name, _)| !is_overlays_own(name) && !is_label(name));
        let owner = self.owners.of(path, found, &mut xattrs)?;
        let metadata = Metadata { uid: owner.uid, gid: owner.gid, ..directory::metadata_of(found) };
        if let Some(device) = owner.device {
            // A device carries none of these (xattr(7)).
            xattrs.retain(|(name, _)| !name.starts_with(b"user."));
            return Ok(Some((device, metadata, xattrs)));
        }
        self.planned.tree.set_metadata(node, metadata).map_err(unstorable(path))?;
        if found.is_dir() {
            self.attributes.insert(node, xattrs);
        } else {
            self.planned.tree.set_xattrs(node, xattrs);
        }
        Ok(None)
    }

    /// Leaves out the mount points that a session which was killed has left, as the next one would.
    fn leave_out(&mut self, points: &[PathBuf]) -> Result<(), Error> {
        for path in points.iter().rev() {
            let tree = &self.planned.tree;
            let (Some(parent), Some(name)) = (path.parent(), path.file_name().map(OsStr::as_bytes)) else { continue };
            let step = |id, part: std::path::Component<'_>| tree.get(id, part.as_os_str().as_bytes());
            let Some(parent) = parent.components().try_fold(Tree::ROOT, step) else { continue };
            let Some(node) = tree.get(parent, name) else { continue };
            let (empty, covers) = match tree.kind(node) {
                None => (tree.children(node).next().is_none(), self.opaque.contains(&node)),
                Some(Kind::File(_)) => (self.planned.files.get(&node).is_some_and(directory::Found::is_empty), true),
                Some(_) => (false, false),
            };
            if empty && covers {
                self.whiteout(parent, name).map_err(unstorable(path))?;
            } else if empty {
                self.planned.tree.remove(parent, name);
            }
        }
        Ok(())
    }

    /// Gives the directories their attributes.
    fn mark(&mut self) {
        for (node, mut xattrs) in self.attributes.drain() {
            let covers =
                Covers { opaque: self.opaque.contains(&node), whiteouts: self.holds_whiteouts.contains(&node) };
            xattrs.extend(covers.marks());
            self.planned.tree.set_xattrs(node, xattrs);
        }
    }
}

/// Whether an attribute is a label of the host's.
pub(super) fn is_label(name: &[u8]) -> bool {
    LABELS.iter().any(|label| name.starts_with(label))
}

fn unstorable(path: &Path) -> impl FnOnce(TreeError) -> Error {
    let path = path.to_owned();
    move |source| pack::Error::Unstorable { path, source }.into()
}

/// A handle on an object that is not read.
fn handle(path: &Path) -> Result<OwnedFd, Error> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let opened = File::options().read(true).custom_flags(flags).open(path);
    opened.map(OwnedFd::from).map_err(Error::io("open", path))
}

/// Which mount a directory lies on.
fn mount_of(path: &Path) -> Result<u64, Error> {
    let status = Status::of(handle(path)?, 0, libc::STATX_MNT_ID);
    status.map(|status| status.stx_mnt_id).map_err(|errno| Error::io("examine", path)(errno.into()))
}

/// Where owners are found.
struct Lookup {
    owners: Owners,
    /// Of what can carry no attribute.
    ledger: Option<Ledger>,
}

impl Lookup {
    fn new(data: &Path, owners: Owners) -> Result<Self, Error> {
        let path = data.join(ledger::NAME);
        let ledger = if owners == Owners::Remembered && path.exists() {
            let mut ledger = Ledger::open(data).map_err(Error::io("read", path))?;
            if ledger.is_empty() { None } else { Some(ledger) }
        } else {
            None
        };
        Ok(Self { owners, ledger })
    }

    /// Whom a file belongs to. The attribute that says so is taken away, for the layer has it in the inode.
    fn of(&self, path: &Path, found: &Found, xattrs: &mut Xattrs) -> Result<Owner, Error> {
        let stored = Owner { uid: found.uid(), gid: found.gid(), device: None };
        let mark = xattrs.iter().position(|(name, _)| **name == *OWNER_XATTR.as_bytes());
        let marked = mark.and_then(|at| Some((at, Owner::decode(&xattrs[at].1)?)));
        match (self.owners, marked) {
            (Owners::Stored, _) | (Owners::Below { .. }, None) => Ok(stored),
            (Owners::Below { uids, gids }, Some((at, real))) => {
                let other_user = stored.uid == NOBODY && real.uid >= uids;
                let other_group = stored.gid == NOBODY && real.gid >= gids;
                if other_user || other_group {
                    xattrs.remove(at);
                }
                let uid = if other_user { real.uid } else { stored.uid };
                let gid = if other_group { real.gid } else { stored.gid };
                Ok(Owner { uid, gid, device: None })
            }
            (Owners::Remembered, Some((at, owner))) => {
                if owner.device.is_some_and(|device| found.size() > 0 || !is_storable(device)) {
                    // It stays what it is; the attribute tells the rest.
                    return Ok(Owner::default());
                }
                xattrs.remove(at);
                Ok(owner)
            }
            (Owners::Remembered, None) => self.recorded(path, found),
        }
    }

    fn recorded(&self, path: &Path, found: &Found) -> Result<Owner, Error> {
        let Some(ledger) = self.ledger.as_ref().filter(|_| !found.is_file() && !found.is_dir()) else {
            return Ok(Owner::default());
        };
        let status = Status::of(handle(path)?, 0, libc::STATX_BASIC_STATS | libc::STATX_BTIME);
        let status = status.map_err(|errno| Error::io("examine", path)(errno.into()))?;
        Ok(Owner { device: None, ..ledger.get(&status, true).unwrap_or_default() })
    }
}

/// Whether a layer can hold the device, and would not take it for a whiteout.
fn is_storable(device: Device) -> bool {
    let Device { kind, major, minor } = device;
    major < 1 << 12 && minor < 1 << 20 && (kind, major, minor) != (DeviceKind::Character, 0, 0)
}
