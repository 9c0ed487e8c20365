//! What the stack of layers and upper directory has at a name, and where an object of it lies.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{FileStat, SFlag};

use super::super::attr;
use super::super::blocks::Blocks;
use super::super::reader::Reader;
use super::super::server::Owners;
use super::links::Links;
use super::node::{Identity, Node, Place, ROOT, Table};
use super::upper::{Found, Upper, kind};
use crate::extract::merge::{self, HAS_MARKED};
use crate::squashfs::{FileKind, Inode, Kind};

/// How many files and directories of the upper directory are kept open: at least, and at most.
const OPEN: (usize, usize) = (16, 512);
/// Of all descriptors that the process may have, one in so many is for these.
const OPEN_SHARE: usize = 4;

/// Layers and an upper directory as one tree.
///
/// Locks, in the order in which they are taken: `Node::copying`, `tree`, `table`, `Node::state`.
pub(super) struct Overlay {
    pub(super) blocks: Arc<Blocks>,
    pub(super) reader: Reader,
    pub(super) owners: Owners,
    pub(super) upper: Upper,
    pub(super) links: Links,
    pub(super) casefold: bool,
    table: Mutex<Table>,
    /// Held by whoever changes which names there are; shared by whoever goes by names.
    tree: RwLock<()>,
    /// Nodes whose file or directory is open, the oldest first.
    open: Mutex<VecDeque<Weak<Node>>>,
    open_limit: usize,
}

/// What is at a name.
pub(super) struct Resolved {
    pub(super) upper: Option<FileStat>,
    pub(super) lower: Vec<Place>,
    pub(super) is_directory: bool,
}

impl Resolved {
    pub(super) fn identity(&self) -> Identity {
        let upper = self.upper.map(|stat| stat.st_ino);
        Identity { is_directory: self.is_directory, upper, lower: self.lower.clone() }
    }
}

/// What the layers have at a name.
enum Below {
    Whiteout,
    Nothing,
    Inodes(Vec<Place>),
}

impl Overlay {
    pub(super) fn new(
        blocks: Arc<Blocks>,
        reader: Reader,
        owners: Owners,
        upper: Upper,
        casefold: bool,
    ) -> Result<Self, Errno> {
        let ino = nix::sys::stat::fstat(&upper.root)?.st_ino;
        let count = blocks.layers().len();
        let overlay = Self {
            links: Links::new(count),
            blocks,
            reader,
            owners,
            casefold,
            table: Mutex::new(Table::new(ino, Vec::new())),
            tree: RwLock::new(()),
            open: Mutex::default(),
            open_limit: open_limit(),
            upper,
        };
        let mut roots = Vec::new();
        if !overlay.upper.is_opaque(&overlay.upper.root) {
            for layer in (0..count).rev() {
                let place = Place { layer, inode: overlay.blocks.layers()[layer].root() };
                roots.push(place);
                if overlay.is_opaque(place, &overlay.inode(place)?)? {
                    break;
                }
            }
        }
        if let Some(root) = overlay.table().get(ROOT) {
            root.state().lower = roots.into();
        }
        Ok(overlay)
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names stay as they are while this is held.
    pub(super) fn still(&self) -> RwLockReadGuard<'_, ()> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody else goes by names while this is held.
    pub(super) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn node(&self, number: INodeNo) -> Result<Arc<Node>, Errno> {
        self.table().get(number.0).ok_or(Errno::ESTALE)
    }

    pub(super) fn inode(&self, place: Place) -> Result<Inode, Errno> {
        self.blocks.layers()[place.layer].inode(place.inode).map_err(|error| self.damaged(place.layer, &error))
    }

    pub(super) fn damaged(&self, layer: usize, error: &crate::squashfs::Error) -> Errno {
        self.blocks.report(layer, error);
        Errno::EIO
    }

    fn is_opaque(&self, place: Place, inode: &Inode) -> Result<bool, Errno> {
        Ok(self.mark(place, inode)?.as_deref() == Some(b"y"))
    }

    /// Whether whiteouts in a directory of a layer may be files with an attribute that says so.
    pub(super) fn holds_marked(&self, place: Place, inode: &Inode) -> Result<bool, Errno> {
        Ok(self.mark(place, inode)?.as_deref() == Some(HAS_MARKED))
    }

    fn mark(&self, place: Place, inode: &Inode) -> Result<Option<Vec<u8>>, Errno> {
        merge::mark(&self.blocks.layers()[place.layer], inode).map_err(|error| self.damaged(place.layer, &error))
    }

    /// What these directories have at a name, the topmost first.
    fn below(&self, directories: &[Place], name: &[u8]) -> Result<Below, Errno> {
        let mut found = Vec::new();
        for directory in directories {
            let archive = &self.blocks.layers()[directory.layer];
            let inode = self.inode(*directory)?;
            let entry = archive.lookup(&inode, name).map_err(|error| self.damaged(directory.layer, &error))?;
            let Some(entry) = entry else { continue };
            let place = Place { layer: directory.layer, inode: entry.inode };
            let is_directory = entry.kind == FileKind::Directory;
            if !found.is_empty() && !is_directory {
                break;
            }
            let marked = || self.holds_marked(*directory, &inode);
            if self.is_lower_whiteout(entry.kind, place, marked)? {
                return Ok(Below::Whiteout);
            }
            found.push(place);
            if !is_directory || self.is_opaque(place, &self.inode(place)?)? {
                break;
            }
        }
        Ok(if found.is_empty() { Below::Nothing } else { Below::Inodes(found) })
    }

    /// Whether something of this kind in a directory of a layer is a whiteout. `marked` tells whether files may be.
    pub(super) fn is_lower_whiteout(
        &self,
        kind: FileKind,
        place: Place,
        marked: impl FnOnce() -> Result<bool, Errno>,
    ) -> Result<bool, Errno> {
        match kind {
            FileKind::CharDevice => Ok(merge::is_whiteout(&self.inode(place)?)),
            FileKind::File if marked()? => merge::is_marked(&self.blocks.layers()[place.layer], &self.inode(place)?)
                .map_err(|error| self.damaged(place.layer, &error)),
            _ => Ok(false),
        }
    }

    /// Whether the layers below a directory have this name, so that removing it takes a whiteout.
    pub(super) fn has_below(&self, parent: &Node, name: &[u8]) -> Result<bool, Errno> {
        let lower = Arc::clone(&parent.state().lower);
        Ok(matches!(self.below(&lower, name)?, Below::Inodes(_)))
    }

    /// What is at a name of a directory, by its very bytes.
    pub(super) fn resolve(&self, parent: &Arc<Node>, name: &[u8]) -> Result<Option<Resolved>, Errno> {
        let (is_upper, lower) = {
            let state = parent.state();
            (state.upper.is_some() && !state.gone, Arc::clone(&state.lower))
        };
        if is_upper {
            let directory = self.directory(parent)?;
            match self.upper.find(&directory, name)? {
                Found::Whiteout => return Ok(None),
                Found::Entry(stat) => {
                    let is_directory = kind(stat.st_mode) == SFlag::S_IFDIR;
                    let lower = if is_directory { self.merged(&directory, name, &lower)? } else { Vec::new() };
                    return Ok(Some(Resolved { upper: Some(stat), lower, is_directory }));
                }
                Found::Nothing => {}
            }
        }
        let Below::Inodes(lower) = self.below(&lower, name)? else { return Ok(None) };
        let is_directory = matches!(self.inode(lower[0])?.kind, Kind::Directory { .. });
        Ok(Some(Resolved { upper: None, lower, is_directory }))
    }

    /// The directories of the layers that a directory of the upper directory is merged with.
    fn merged(&self, parent: &OwnedFd, name: &[u8], lower: &[Place]) -> Result<Vec<Place>, Errno> {
        let Below::Inodes(places) = self.below(lower, name)? else { return Ok(Vec::new()) };
        let is_directory = matches!(self.inode(places[0])?.kind, Kind::Directory { .. });
        if !is_directory || self.upper.is_opaque(&self.upper.open_directory(parent, name)?) {
            return Ok(Vec::new());
        }
        Ok(places)
    }

    /// The directory of the upper directory that belongs to a node which lies there.
    pub(super) fn directory(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>, Errno> {
        if node.number == ROOT {
            return Ok(Arc::clone(&self.upper.root));
        }
        if let Some(directory) = &node.state().directory {
            return Ok(Arc::clone(directory));
        }
        let (parent, name) = node.place().ok_or(Errno::ENOENT)?;
        let directory = Arc::new(self.upper.open_directory(&*self.directory(&parent)?, &name)?);
        node.state().directory = Some(Arc::clone(&directory));
        self.has_opened(node);
        Ok(directory)
    }

    /// Notes that something of a node was opened, and closes what was opened longest ago if that is too much.
    pub(super) fn has_opened(&self, node: &Arc<Node>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(Arc::downgrade(node));
        let oldest = if open.len() > self.open_limit { open.pop_front() } else { None };
        drop(open);
        if let Some(oldest) = oldest.and_then(|oldest| oldest.upgrade()) {
            oldest.close();
            let number = oldest.number;
            drop(oldest);
            // The kernel may have given it up meanwhile.
            self.forget(number, 0);
        }
    }

    /// Takes back references of the kernel.
    pub(super) fn forget(&self, number: u64, lookups: u64) {
        let forgotten = self.table().forget(number, lookups);
        // Others need the table while files are closed.
        drop(forgotten);
    }

    /// The open directory and the name in it of a node that lies in the upper directory.
    pub(super) fn at(&self, node: &Node) -> Result<(Arc<OwnedFd>, Vec<u8>), Errno> {
        let (parent, name) = node.place().ok_or(Errno::ENOENT)?;
        Ok((self.directory(&parent)?, name))
    }

    /// What stat says of what was resolved, under this number.
    pub(super) fn attributes(&self, number: u64, resolved: &Resolved) -> Result<FileAttr, Errno> {
        let mut attributes = match (&resolved.upper, resolved.lower.first()) {
            (Some(stat), _) => of_stat(number, stat),
            (None, Some(&place)) => {
                let inode = self.inode(place)?;
                attr::of_inode(number, &inode, self.blocks.time(place.layer, &inode), &self.owners)
            }
            (None, None) => return Err(Errno::ENOENT),
        };
        let sources = resolved.lower.len() + usize::from(resolved.upper.is_some());
        if resolved.is_directory && sources > 1 {
            // How many directories are in it is not known, which is what 1 says to those who count.
            attributes.nlink = 1;
        }
        Ok(attributes)
    }

    /// What stat says of a node.
    pub(super) fn attributes_of(&self, node: &Arc<Node>) -> Result<FileAttr, Errno> {
        let (upper, lower, file) = {
            let state = node.state();
            (state.upper, state.lower.to_vec(), state.file.clone())
        };
        let stat = match (upper, file) {
            (None, _) => None,
            (Some(_), Some((file, _))) => Some(nix::sys::stat::fstat(&file)?),
            (Some(_), None) if node.number == ROOT => Some(nix::sys::stat::fstat(&self.upper.root)?),
            (Some(_), None) => {
                let (directory, name) = self.at(node)?;
                Some(self.upper.stat(&directory, &name)?)
            }
        };
        let lower = if stat.is_none() || node.is_directory { lower } else { Vec::new() };
        let attributes =
            self.attributes(node.number, &Resolved { upper: stat, lower, is_directory: node.is_directory })?;
        // What carries no attribute is known to the ledger of owners by the number that it will have later too.
        let keeps_number = matches!(attributes.kind, FileType::RegularFile | FileType::Directory);
        Ok(match stat {
            Some(stat) if !keeps_number => FileAttr { ino: INodeNo(stat.st_ino), ..attributes },
            _ => attributes,
        })
    }
}

fn open_limit() -> usize {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
    (usize::try_from(limit).unwrap_or(usize::MAX) / OPEN_SHARE).clamp(OPEN.0, OPEN.1)
}

fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    base.unwrap_or(UNIX_EPOCH) + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default())
}

fn of_stat(number: u64, stat: &FileStat) -> FileAttr {
    let file_type = match kind(stat.st_mode) {
        SFlag::S_IFDIR => FileType::Directory,
        SFlag::S_IFLNK => FileType::Symlink,
        SFlag::S_IFBLK => FileType::BlockDevice,
        SFlag::S_IFCHR => FileType::CharDevice,
        SFlag::S_IFIFO => FileType::NamedPipe,
        SFlag::S_IFSOCK => FileType::Socket,
        _ => FileType::RegularFile,
    };
    let (major, minor) = (libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
    FileAttr {
        ino: INodeNo(number),
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        blocks: u64::try_from(stat.st_blocks).unwrap_or_default(),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: file_type,
        // Twelve bits.
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        // `new_encode_dev`: the minor number around twelve bits of the major one.
        rdev: (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12),
        blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
        flags: 0,
    }
}
