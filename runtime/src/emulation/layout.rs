//! The structures that stat calls fill, with a remembered owner in them.

use super::owner::{DeviceKind, Owner};
use crate::sys::status::{self, Status};

/// `struct stat` of this machine.
pub(super) fn native(mut stat: libc::stat, owner: &Owner) -> Vec<u8> {
    apply(&mut stat, owner);
    status::stat_bytes(&stat)
}

fn apply(stat: &mut libc::stat, owner: &Owner) {
    (stat.st_uid, stat.st_gid) = (owner.uid, owner.gid);
    if let Some(device) = owner.device {
        stat.st_mode = (stat.st_mode & !libc::S_IFMT) | kind(device.kind);
        stat.st_rdev = libc::makedev(device.major, device.minor);
    }
}

fn kind(kind: DeviceKind) -> u32 {
    match kind {
        DeviceKind::Character => libc::S_IFCHR,
        DeviceKind::Block => libc::S_IFBLK,
    }
}

/// `struct statx`, the same on every machine.
pub(super) fn statx(mut status: Status, owner: &Owner) -> Vec<u8> {
    (status.stx_uid, status.stx_gid) = (owner.uid, owner.gid);
    if let Some(device) = owner.device {
        let mode = (u32::from(status.stx_mode) & !libc::S_IFMT) | kind(device.kind);
        // Type and permissions fill 16 bits.
        status.stx_mode = mode as u16;
        (status.stx_rdev_major, status.stx_rdev_minor) = (device.major, device.minor);
    }
    status.bytes()
}

/// `struct stat64` of i386 (arch/x86/include/uapi/asm/stat.h): 96 bytes, nothing aligned to more than 4. Numbers that
/// do not fit are cut, as the kernel cuts them.
#[cfg(target_arch = "x86_64")]
pub(super) fn stat64(mut stat: libc::stat, owner: &Owner) -> Vec<u8> {
    apply(&mut stat, owner);
    let mut bytes = Vec::with_capacity(96);
    let mut long = |value: u64| bytes.extend_from_slice(&(value as u32).to_le_bytes());
    long(stat.st_dev);
    long(stat.st_dev >> 32);
    long(0); // __pad0
    long(stat.st_ino); // __st_ino
    long(u64::from(stat.st_mode));
    long(stat.st_nlink);
    long(u64::from(stat.st_uid));
    long(u64::from(stat.st_gid));
    long(stat.st_rdev);
    long(stat.st_rdev >> 32);
    long(0); // __pad3
    long(stat.st_size as u64);
    long(stat.st_size as u64 >> 32);
    long(stat.st_blksize as u64);
    long(stat.st_blocks as u64);
    long(stat.st_blocks as u64 >> 32);
    for (seconds, nanoseconds) in
        [(stat.st_atime, stat.st_atime_nsec), (stat.st_mtime, stat.st_mtime_nsec), (stat.st_ctime, stat.st_ctime_nsec)]
    {
        long(seconds as u64);
        long(nanoseconds as u64);
    }
    long(stat.st_ino);
    long(stat.st_ino >> 32);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulation::owner::Device;

    fn root() -> libc::stat {
        status::stat(std::fs::File::open("/").unwrap()).unwrap()
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_owner_is_where_i386_programs_look() {
        let stat = root();
        let bytes = stat64(stat, &Owner { uid: 0x0102_0304, gid: 0x0506_0708, device: None });
        assert_eq!(bytes.len(), 96);
        assert_eq!(bytes[16..20], stat.st_mode.to_le_bytes());
        assert_eq!(bytes[24..32], [4, 3, 2, 1, 8, 7, 6, 5]);
        assert_eq!(bytes[44..52], stat.st_size.to_le_bytes());
        assert_eq!(bytes[88..96], stat.st_ino.to_le_bytes());
    }

    #[test]
    fn a_device_is_shown_as_one() {
        let device = Some(Device { kind: DeviceKind::Character, major: 1, minor: 3 });
        let mut stat = root();
        apply(&mut stat, &Owner { uid: 1, gid: 2, device });
        assert_eq!((stat.st_uid, stat.st_gid, stat.st_rdev), (1, 2, libc::makedev(1, 3)));
        assert_eq!(stat.st_mode & libc::S_IFMT, libc::S_IFCHR);
        let status = Status::of(std::fs::File::open("/").unwrap(), 0, libc::STATX_BASIC_STATS).unwrap();
        let bytes = statx(status, &Owner { uid: 1, gid: 2, device });
        // Offsets of linux/stat.h: stx_uid 20, stx_gid 24, stx_mode 28, stx_rdev_major 128.
        assert_eq!(bytes[20..28], [1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(u16::from_le_bytes([bytes[28], bytes[29]]) & 0o170_000, 0o020_000);
        assert_eq!(bytes[128..136], [1, 0, 0, 0, 3, 0, 0, 0]);
    }
}
