//! Calls that show or change an owner.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};

use super::calls::{Abi, Name};
use super::identity::Identity;
use super::owner::Owner;
use super::target::{Place, Target};
use super::{Answer, Supervisor, layout};
use crate::fuse::{OWNER_XATTR, SPECIAL_OWNER_XATTR};
use crate::sys::status::{self, Status};

/// What is asked of every object: enough to know it again.
const KNOWN: u32 = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID;

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// The name of a descriptor in the directory of descriptors, in which every thread of the supervisor stays.
fn number(object: impl AsFd) -> String {
    object.as_fd().as_raw_fd().to_string()
}

impl Supervisor {
    /// What the kernel says of an object, and whether it lies on the writable root or on a file system that ends with
    /// the instance; `None` for an object of any other mount, whose owners are the host's business.
    pub(super) fn known(&self, object: impl AsFd) -> nix::Result<Option<(Status, bool)>> {
        let status = Status::of(object, 0, KNOWN)?;
        let kept = status.stx_mnt_id == self.mounts.root;
        let ours = kept || self.mounts.passing.contains(&status.stx_mnt_id);
        Ok(ours.then_some((status, kept)))
    }

    /// The remembered owner of an object; `None` for one without a mark.
    pub(super) fn owner(&self, object: &OwnedFd) -> Option<Owner> {
        let (status, kept) = self.known(object).ok()??;
        let carries = carries_attributes(u32::from(status.stx_mode));
        if !carries && let Some(owner) = self.recorded(&status, kept) {
            return Some(owner);
        }
        if !self.unmarked.lock().ok()?.holds(&status) {
            let name = if carries { OWNER_XATTR } else { SPECIAL_OWNER_XATTR };
            match xattr::get_deref(number(object), name) {
                Ok(Some(value)) => return Owner::decode(&value),
                Ok(None) => self.unmarked.lock().ok()?.learn(&status, SystemTime::now()),
                // A file system without attributes: the ledger knows.
                Err(_) => {}
            }
        }
        if carries { self.recorded(&status, kept) } else { None }
    }

    fn recorded(&self, status: &Status, kept: bool) -> Option<Owner> {
        let mut ledger = self.ledger.lock().ok()?;
        if ledger.is_empty() { None } else { ledger.get(status, kept) }
    }

    /// Remembers the owner of an object, of which `status` and `kept` are what [`Supervisor::known`] says.
    pub(super) fn remember(&self, object: &OwnedFd, status: Status, kept: bool, owner: Owner) -> nix::Result<()> {
        let name = number(object);
        if carries_attributes(u32::from(status.stx_mode)) {
            let written = if owner.is_default() {
                match xattr::remove_deref(&name, OWNER_XATTR) {
                    Err(error) if errno(&error) == Errno::ENODATA => Ok(()),
                    other => other,
                }
            } else {
                xattr::set_deref(&name, OWNER_XATTR, owner.encode().as_bytes())
            };
            match written {
                Err(error) if errno(&error) == Errno::EOPNOTSUPP && !kept => {}
                other => return other.map_err(|error| errno(&error)),
            }
        }
        // An object of a packed layer becomes one of the writable root, with a number of its own, by a change that
        // changes nothing.
        let status = if kept {
            let (root, group) = (Some(nix::unistd::Uid::from_raw(0)), Some(nix::unistd::Gid::from_raw(0)));
            nix::unistd::fchownat(object, "", root, group, AtFlags::AT_EMPTY_PATH)?;
            Status::of(object, 0, KNOWN)?
        } else {
            status
        };
        let mut ledger = self.ledger.lock().map_err(|_| Errno::EIO)?;
        // Until the session ends, the overlay shows what was an object of a layer with the number that it had there.
        if kept && let Some(lasting) = self.lasting(object, &status) {
            ledger.set(&lasting, kept, owner).map_err(|error| errno(&error))?;
        }
        ledger.set(&status, kept, owner).map_err(|error| errno(&error))
    }

    /// What the writable layer says of an object of the root, where its number is another one there.
    fn lasting(&self, object: &OwnedFd, status: &Status) -> Option<Status> {
        let path = nix::fcntl::readlinkat(&self.handles.descriptors, number(object).as_str()).ok()?;
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let file = openat2(&self.handles.upper, Path::new(&path).strip_prefix("/").ok()?, how).ok()?;
        let found = Status::of(file, 0, KNOWN).ok()?;
        // The path means something else to a guest that has changed its root, and may have been given away meanwhile.
        let identity = |status: &Status| {
            let time = |time: libc::statx_timestamp| (time.tv_sec, time.tv_nsec);
            (status.stx_mode, status.stx_size, time(status.stx_btime), time(status.stx_ctime), time(status.stx_mtime))
        };
        (found.stx_ino != status.stx_ino && identity(&found) == identity(status)).then_some(found)
    }

    /// stat(2) and its kin: the kernel answers for whatever has no mark.
    pub(super) fn show(&self, target: &Target<'_>, name: Name, abi: Abi) -> nix::Result<Answer> {
        let [one, two, three, four, five, _] = target.call.arguments;
        let (place, buffer) = match name {
            Name::Lstat => (Place::path(one, false), two),
            Name::Fstat => (Place::descriptor(one), two),
            Name::Fstatat => (Place::at(one, two, four, libc::AT_NO_AUTOMOUNT)?, three),
            Name::Statx => (Place::at(one, two, three, libc::AT_NO_AUTOMOUNT | libc::AT_STATX_SYNC_TYPE)?, five),
            _ => (Place::path(one, true), two),
        };
        let Ok(object) = target.object(&place) else { return Ok(Answer::CarryOn) };
        let Some(owner) = self.owner(&object) else { return Ok(Answer::CarryOn) };
        let bytes = match (name, abi) {
            (Name::Statx, _) => {
                let (flags, mask) = (three as i32 & libc::AT_STATX_SYNC_TYPE, four as u32);
                layout::statx(Status::of(&object, flags, mask)?, &owner)
            }
            (_, Abi::Native) => layout::native(status::stat(&object)?, &owner),
            #[cfg(target_arch = "x86_64")]
            _ => layout::stat64(status::stat(&object)?, &owner),
            // No other machine has the calls of i386.
            #[cfg(not(target_arch = "x86_64"))]
            _ => return Ok(Answer::CarryOn),
        };
        target.write(buffer, &bytes)?;
        Ok(Answer::Return(0))
    }

    /// chown(2) and its kin.
    pub(super) fn change_owner(&self, target: &Target<'_>, name: Name, abi: Abi) -> nix::Result<Answer> {
        let [one, two, three, four, five, _] = target.call.arguments;
        let (place, uid, gid) = match name {
            Name::Fchown => (Place::descriptor(one), two, three),
            Name::Fchownat => (Place::at(one, two, five, 0)?, three, four),
            Name::Lchown => (Place::path(one, false), two, three),
            _ => (Place::path(one, true), two, three),
        };
        let (uid, gid) = (super::ids::id(uid, abi), super::ids::id(gid, abi));
        // What cannot be found here gets the kernel's own error.
        let Ok(object) = target.object(&place) else { return Ok(Answer::CarryOn) };
        let Some((status, kept)) = self.known(&object)? else { return Ok(Answer::CarryOn) };
        let before = self.owner(&object).unwrap_or_default();
        let after = Owner { uid: uid.unwrap_or(before.uid), gid: gid.unwrap_or(before.gid), ..before };
        if uid.or(gid).is_some() {
            may_change(&self.identity(target), &before, &after)?;
        }
        if after != before {
            self.remember(&object, status, kept, after)?;
        }
        drop_set_id_bits(&object, u32::from(status.stx_mode))?;
        Ok(Answer::Return(0))
    }
}

/// `user.*` attributes exist on these two kinds only (xattr(7)).
fn carries_attributes(mode: u32) -> bool {
    matches!(mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR)
}

/// The rule of chown(2): root may do everything; the owner may give a file to a group of its own.
fn may_change(identity: &Identity, before: &Owner, after: &Owner) -> nix::Result<()> {
    let own = identity.user.files == before.uid && after.uid == before.uid;
    let allowed = identity.is_privileged() || (own && (after.gid == before.gid || identity.is_in(after.gid)));
    if allowed { Ok(()) } else { Err(Errno::EPERM) }
}

/// A file that changes its owner loses its set-user-ID and set-group-ID bits, as chown(2) says.
fn drop_set_id_bits(object: &OwnedFd, mode: u32) -> nix::Result<()> {
    let executable_group = mode & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP;
    if mode & libc::S_IFMT != libc::S_IFREG || (mode & libc::S_ISUID == 0 && !executable_group) {
        return Ok(());
    }
    let dropped = libc::S_ISUID | if executable_group { libc::S_ISGID } else { 0 };
    let mode = Mode::from_bits_truncate(mode & 0o7777 & !dropped);
    // By its name among the descriptors: an object that is open as a path only has no other way.
    fchmodat(nix::fcntl::AT_FDCWD, number(object).as_str(), mode, FchmodatFlags::FollowSymlink)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulation::identity::Change;

    pub(super) fn owner(uid: u32, gid: u32) -> Owner {
        Owner { uid, gid, device: None }
    }

    #[test]
    fn who_may_change_an_owner() {
        let root = Identity::default();
        assert_eq!(may_change(&root, &owner(7, 7), &owner(8, 9)), Ok(()));
        let in_group = root.with_groups(vec![100]).unwrap().change(false, &Change::One(1000)).unwrap();
        let ann = in_group.change(true, &Change::One(1000)).unwrap();
        assert_eq!(may_change(&ann, &owner(1000, 1000), &owner(1000, 100)), Ok(()));
        assert_eq!(may_change(&ann, &owner(1000, 1000), &owner(1000, 1000)), Ok(()));
        for (before, after) in [
            (owner(1000, 1000), owner(0, 1000)),
            (owner(1000, 1000), owner(1000, 0)),
            (owner(0, 0), owner(1000, 1000)),
            (owner(0, 1000), owner(0, 100)),
        ] {
            assert_eq!(may_change(&ann, &before, &after), Err(Errno::EPERM), "{before:?} {after:?}");
        }
    }
}
