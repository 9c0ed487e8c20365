//! Calls that make something: what a process makes that believes to be somebody else belongs to that user; and device
//! nodes, which nobody but real root can make, become files that stand for them.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::calls::Name;
use super::identity::Identity;
use super::owner::{Device, DeviceKind, Owner};
use super::target::{Base, Target};
use super::{Answer, Supervisor};

/// What a call would make, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Request {
    base: Base,
    /// Address of the path.
    path: u64,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    File {
        flags: OFlag,
        mode: u64,
    },
    Directory {
        mode: u64,
    },
    /// `text` is the address of what the link holds.
    Symlink {
        text: u64,
    },
    Node {
        kind: SFlag,
        mode: u64,
        number: u64,
    },
    Device {
        device: Device,
        mode: u64,
    },
}

impl Request {
    fn of(name: Name, arguments: [u64; 6]) -> Self {
        let [one, two, three, four, ..] = arguments;
        let from_base = matches!(name, Name::Openat | Name::Mkdirat | Name::Mknodat);
        let (base, path, second, third) =
            if from_base { (Base::at(one), two, three, four) } else { (Base::Directory, one, two, three) };
        let what = match name {
            Name::Symlink => return Self { base: Base::Directory, path: two, what: What::Symlink { text: one } },
            Name::Symlinkat => return Self { base: Base::at(two), path: three, what: What::Symlink { text: one } },
            Name::Mkdir | Name::Mkdirat => What::Directory { mode: second },
            Name::Mknod | Name::Mknodat => match device(second, third) {
                Some(device) => What::Device { device, mode: second },
                None => {
                    let kind = SFlag::from_bits_truncate(second as u32 & libc::S_IFMT);
                    What::Node { kind, mode: second, number: third }
                }
            },
            _ => What::File { flags: OFlag::from_bits_retain(second as i32), mode: third },
        };
        Self { base, path, what }
    }
}

impl Supervisor {
    /// open(2) with `O_CREAT`, mkdir(2), symlink(2), mknod(2) and their kin.
    pub(super) fn make(&self, target: &Target<'_>, name: Name) -> nix::Result<Answer> {
        let request = Request::of(name, target.call.arguments);
        let identity = self.identity(target);
        let is_device = matches!(request.what, What::Device { .. });
        if !is_device && (identity.user.files, identity.group.files) == (0, 0) {
            return Ok(Answer::CarryOn);
        }
        // The kernel's own error for what cannot be made here, and the kernel's own work for what exists already.
        let Ok((parent, last)) = target.parent(request.base, request.path) else { return Ok(Answer::CarryOn) };
        let Some(owner) = self.owner_of_new(&parent, &identity, request.what)? else { return Ok(Answer::CarryOn) };
        if fstatat(&parent, last.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) != Err(Errno::ENOENT) {
            return Ok(Answer::CarryOn);
        }
        if is_device && !identity.is_privileged() {
            return Err(Errno::EPERM);
        }
        let file = match create(target, &parent, &last, request.what) {
            // Made by somebody else meanwhile; whether that is an error depends on the call.
            Err(Errno::EEXIST) => return Ok(Answer::CarryOn),
            made => made?,
        };
        if let Err(errno) = self.give(&parent, &last, owner) {
            // Better no object than one of the wrong owner. Should this fail too, the error says that something is odd.
            let directory = matches!(request.what, What::Directory { .. });
            let flag = if directory { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
            let _ = unlinkat(&parent, last.as_c_str(), flag);
            return Err(errno);
        }
        Ok(file.map_or(Answer::Return(0), |(file, close_on_exec)| Answer::File { file, close_on_exec }))
    }

    /// Whom a new object in a directory belongs to; `None` where no owners are remembered.
    fn owner_of_new(&self, parent: &OwnedFd, identity: &Identity, what: What) -> nix::Result<Option<Owner>> {
        let Some((status, _)) = self.known(parent)? else { return Ok(None) };
        let inherits = u32::from(status.stx_mode) & libc::S_ISGID != 0;
        let gid = if inherits { self.owner(parent).unwrap_or_default().gid } else { identity.group.files };
        let device = if let What::Device { device, .. } = what { Some(device) } else { None };
        Ok(Some(Owner { uid: identity.user.files, gid, device }))
    }

    fn give(&self, parent: &OwnedFd, last: &CStr, owner: Owner) -> nix::Result<()> {
        let object = openat2(parent, last, beneath(OFlag::O_PATH | OFlag::O_NOFOLLOW))?;
        let (status, kept) = self.known(&object)?.ok_or(Errno::EIO)?;
        self.remember(&object, status, kept, owner)
    }
}

fn beneath(flags: OFlag) -> OpenHow {
    OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

/// Makes the object, which must not exist. Returns the file of open(2), and whether exec is to close it.
fn create(target: &Target<'_>, parent: &OwnedFd, last: &CStr, what: What) -> nix::Result<Option<(OwnedFd, bool)>> {
    let mode = |bits: u64| Ok::<_, Errno>(Mode::from_bits_truncate(bits as u32 & 0o7777 & !target.umask()?));
    match what {
        What::File { flags, mode: bits } => {
            let how = beneath(flags | OFlag::O_EXCL | OFlag::O_NOFOLLOW).mode(mode(bits)?);
            return Ok(Some((openat2(parent, last, how)?, flags.contains(OFlag::O_CLOEXEC))));
        }
        What::Directory { mode: bits } => mkdirat(parent, last, mode(bits)?)?,
        What::Symlink { text } => symlinkat(target.path(text)?.as_c_str(), parent, last)?,
        What::Node { kind, mode: bits, number } => mknodat(parent, last, kind, mode(bits)?, number)?,
        What::Device { mode: bits, .. } => mknodat(parent, last, SFlag::S_IFREG, mode(bits)?, 0)?,
    }
    Ok(None)
}

/// The device that mknod(2) is asked for, in the encoding of the system call; whiteouts of an overlay (0, 0) can be
/// made by anybody and stay what they are.
fn device(mode: u64, number: u64) -> Option<Device> {
    let kind = match mode as u32 & libc::S_IFMT {
        libc::S_IFCHR => DeviceKind::Character,
        libc::S_IFBLK => DeviceKind::Block,
        _ => return None,
    };
    let number = number as u32;
    let (major, minor) = ((number & 0xfff00) >> 8, (number & 0xff) | ((number >> 12) & 0xfff00));
    ((major, minor) != (0, 0)).then_some(Device { kind, major, minor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let null = Some(Device { kind: DeviceKind::Character, major: 1, minor: 3 });
        assert_eq!(device(0o020_666, libc::makedev(1, 3)), null);
        let large = Some(Device { kind: DeviceKind::Block, major: 259, minor: 70_000 });
        assert_eq!(device(0o060_600, libc::makedev(259, 70_000)), large);
        assert_eq!(device(0o020_000, 0), None);
        assert_eq!(device(0o010_600, 5), None);
    }

    #[test]
    fn arguments() {
        let words = [7, 16, 32, 0o644, 0, 0];
        let at = |base, path, what| Request { base, path, what };
        let flags = OFlag::from_bits_retain(32);
        let (here, seven) = (Base::Directory, Base::Descriptor(7));
        assert_eq!(Request::of(Name::Openat, words), at(seven, 16, What::File { flags, mode: 0o644 }));
        assert_eq!(Request::of(Name::Mkdir, words), at(here, 7, What::Directory { mode: 16 }));
        assert_eq!(Request::of(Name::Symlink, words), at(here, 16, What::Symlink { text: 7 }));
        assert_eq!(Request::of(Name::Symlinkat, [1, 7, 16, 0, 0, 0]), at(seven, 16, What::Symlink { text: 1 }));
        let node = What::Node { kind: SFlag::S_IFIFO, mode: 0o010_600, number: 0 };
        assert_eq!(Request::of(Name::Mknod, [16, 0o010_600, 0, 0, 0, 0]), at(here, 16, node));
    }
}
