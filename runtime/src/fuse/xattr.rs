//! Extended attributes of nodes.
//!
//! Names are passed as stored, `trusted.*`, `security.*` and overlayfs's own included: an opaque directory of a
//! layer must be one in the overlay above.

use super::server::Owners;
use crate::extract::merge::{OPAQUE, WHITEOUT};
use crate::squashfs::{Archive, Error, Inode, Kind};

/// Holds `UID:GID` (decimal) of a regular file or directory of which the mount shows another owner ([`Owners`]); `0:0`
/// goes without saying where it shows one owner for all.
pub const OWNER_XATTR: &str = "user.fim.owner";

/// The same for any other kind of node, where the kernel allows no `user.*` attribute (xattr(7)). It is told to who asks for
/// it and is in no list, for nobody without privileges could copy it.
pub const SPECIAL_OWNER_XATTR: &str = "security.fim.owner";

/// The value of the attribute, or `None` when the inode does not have it.
pub(super) fn value(archive: &Archive, inode: &Inode, owners: &Owners, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let hidden = owners.hides(inode.uid, inode.gid);
    if hidden && name == if carries_user(inode) { OWNER_XATTR } else { SPECIAL_OWNER_XATTR }.as_bytes() {
        return Ok(Some(format!("{}:{}", inode.uid, inode.gid).into_bytes()));
    }
    if inode.xattr.is_none() {
        return Ok(None);
    }
    let mut found = archive.xattrs(inode)?;
    let at = found.iter().position(|(stored, _)| stored == name).or_else(|| {
        let of_root = of_root(name)?;
        found.iter().position(|(stored, _)| stored == of_root)
    });
    Ok(at.map(|at| found.swap_remove(at).1))
}

/// The name under which an overlay that was mounted by root has stored a mark: an overlay of users, as the one above, asks
/// for it by another.
fn of_root(name: &[u8]) -> Option<&'static [u8]> {
    [OPAQUE, WHITEOUT].into_iter().find(|[of_users, _]| *of_users == name).map(|[_, of_root]| of_root)
}

/// The names, each ended by a zero byte, as `listxattr(2)` gives them.
pub(super) fn names(archive: &Archive, inode: &Inode, owners: &Owners) -> Result<Vec<u8>, Error> {
    let mut names = Vec::new();
    let mut push = |name: &[u8]| {
        names.extend_from_slice(name);
        names.push(0);
    };
    let owner = owners.hides(inode.uid, inode.gid) && carries_user(inode);
    if owner {
        push(OWNER_XATTR.as_bytes());
    }
    if inode.xattr.is_some() {
        for (name, _) in archive.xattrs(inode)? {
            if !(owner && name == OWNER_XATTR.as_bytes()) {
                push(&name);
            }
        }
    }
    Ok(names)
}

/// The kernel allows `user.*` on these two kinds only (xattr(7)).
fn carries_user(inode: &Inode) -> bool {
    matches!(inode.kind, Kind::File { .. } | Kind::Directory { .. })
}
