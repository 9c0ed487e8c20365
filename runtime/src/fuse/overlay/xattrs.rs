//! Extended attributes.
//!
//! Those that mean something to the overlay itself are none of the guest's. As the kernel's overlayfs does, a guest's
//! own attribute of such a name is kept under a longer one (`Documentation/filesystems/overlayfs.rst`, "Nesting
//! overlayfs mounts").

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use xattr::FileExt;

use super::super::xattr as stored;
use super::node::{Node, ROOT};
use super::stack::Overlay;
use super::upper::{errno, path};

const PRIVATE: &[u8] = b"user.overlay.";
const ESCAPED: &[u8] = b"user.overlay.overlay.";

/// Whether an attribute means something to an overlay.
pub(super) fn is_private(name: &[u8]) -> bool {
    name.starts_with(PRIVATE)
}

/// The name under which a guest's attribute is kept.
fn kept(name: &[u8]) -> Vec<u8> {
    match name.strip_prefix(PRIVATE) {
        Some(rest) => [ESCAPED, rest].concat(),
        None => name.to_vec(),
    }
}

/// The name that the guest sees; `None` for what it does not.
fn seen(name: &[u8]) -> Option<Vec<u8>> {
    match name.strip_prefix(ESCAPED) {
        Some(rest) => Some([PRIVATE, rest].concat()),
        None => (!is_private(name)).then(|| name.to_vec()),
    }
}

/// An object in the upper directory.
enum Object {
    /// Open, and perhaps without a name.
    File(Arc<File>),
    /// By its name in a directory, which stays open meanwhile.
    Named { path: PathBuf, _directory: Arc<OwnedFd> },
}

impl Object {
    fn get(&self, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::File(file) => file.get_xattr(name),
            Self::Named { path, .. } => xattr::get(path, name),
        }
    }

    fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let names = match self {
            Self::File(file) => file.list_xattr(),
            Self::Named { path, .. } => xattr::list(path),
        };
        names.map(|names| names.map(OsStringExt::into_vec).collect())
    }

    fn set(&self, name: &OsStr, value: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.set_xattr(name, value),
            Self::Named { path, .. } => xattr::set(path, name, value),
        }
    }

    fn remove(&self, name: &OsStr) -> io::Result<()> {
        match self {
            Self::File(file) => file.remove_xattr(name),
            Self::Named { path, .. } => xattr::remove(path, name),
        }
    }
}

impl Overlay {
    /// The object of a node that lies in the upper directory.
    fn object(&self, node: &Arc<Node>) -> Result<Object, Errno> {
        if let Some((file, _)) = &node.state().file {
            return Ok(Object::File(Arc::clone(file)));
        }
        if node.number == ROOT {
            let root = &self.upper.root;
            return Ok(Object::Named { path: path(&**root, b"."), _directory: Arc::clone(root) });
        }
        let (directory, name) = self.at(node)?;
        let path = path(&*directory, &self.upper.marks.stored(&name));
        Ok(Object::Named { path, _directory: directory })
    }

    pub(super) fn xattr(&self, node: &Arc<Node>, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let name = kept(name);
        if node.state().upper.is_some() {
            let value = self.object(node)?.get(OsStr::from_bytes(&name));
            return value.map_err(|error| errno(&error))?.ok_or(Errno::ENODATA);
        }
        let place = *node.state().lower.first().ok_or(Errno::ENODATA)?;
        let (archive, inode) = (&self.blocks.layers()[place.layer], self.inode(place)?);
        let value = stored::value(archive, &inode, &self.owners, &name);
        value.map_err(|error| self.damaged(place.layer, &error))?.ok_or(Errno::ENODATA)
    }

    /// The names, each ended by a zero byte.
    pub(super) fn xattr_names(&self, node: &Arc<Node>) -> Result<Vec<u8>, Errno> {
        let names: Vec<Vec<u8>> = if node.state().upper.is_some() {
            match self.object(node)?.names() {
                Ok(names) => names,
                Err(error) if errno(&error) == Errno::EOPNOTSUPP => Vec::new(),
                Err(error) => return Err(errno(&error)),
            }
        } else {
            let place = *node.state().lower.first().ok_or(Errno::ENODATA)?;
            let (archive, inode) = (&self.blocks.layers()[place.layer], self.inode(place)?);
            let names = stored::names(archive, &inode, &self.owners);
            let names = names.map_err(|error| self.damaged(place.layer, &error))?;
            names.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
        };
        let mut list = Vec::new();
        for name in names.iter().filter_map(|name| seen(name)) {
            list.extend_from_slice(&name);
            list.push(0);
        }
        Ok(list)
    }

    pub(super) fn set_xattr(&self, node: &Arc<Node>, name: &[u8], value: &[u8], flags: i32) -> Result<(), Errno> {
        let exists = || self.xattr(node, name).map(drop);
        match flags {
            libc::XATTR_CREATE if exists().is_ok() => return Err(Errno::EEXIST),
            libc::XATTR_REPLACE => exists()?,
            _ => {}
        }
        self.copy_up(node, u64::MAX)?;
        let _still = self.still();
        self.object(node)?.set(OsStr::from_bytes(&kept(name)), value).map_err(|error| errno(&error))
    }

    pub(super) fn remove_xattr(&self, node: &Arc<Node>, name: &[u8]) -> Result<(), Errno> {
        self.xattr(node, name)?;
        self.copy_up(node, u64::MAX)?;
        let _still = self.still();
        self.object(node)?.remove(OsStr::from_bytes(&kept(name))).map_err(|error| errno(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_in_the_guest_has_attributes_of_its_own() {
        for (guest, disk) in [
            (&b"user.x"[..], &b"user.x"[..]),
            (b"user.overlay.opaque", b"user.overlay.overlay.opaque"),
            (b"user.overlay.overlay.opaque", b"user.overlay.overlay.overlay.opaque"),
        ] {
            assert_eq!(kept(guest), disk);
            assert_eq!(seen(disk).as_deref(), Some(guest));
        }
        assert_eq!(seen(b"user.overlay.opaque"), None);
        assert!(is_private(b"user.overlay.opaque") && !is_private(b"user.overlayx"));
    }
}
