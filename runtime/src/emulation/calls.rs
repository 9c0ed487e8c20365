//! Which system calls are answered, by their names and numbers.

/// A system call that is answered. Calls that differ in the width of their IDs only have one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Name {
    Stat,
    Lstat,
    Fstat,
    Fstatat,
    Statx,
    Chown,
    Lchown,
    Fchown,
    Fchownat,
    Open,
    Openat,
    Mkdir,
    Mkdirat,
    Symlink,
    Symlinkat,
    Mknod,
    Mknodat,
    Setuid,
    Setgid,
    Setreuid,
    Setregid,
    Setresuid,
    Setresgid,
    Setfsuid,
    Setfsgid,
    Setgroups,
    Getuid,
    Geteuid,
    Getgid,
    Getegid,
    Getresuid,
    Getresgid,
    Getgroups,
    Prctl,
}

/// How a call passes IDs and structures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abi {
    /// The machine's own.
    Native,
    /// i386 with IDs of 32 bits, and `struct stat64`.
    I386,
    /// i386 with IDs of 16 bits (`chown16` and others of linux/highuid.h).
    I386Narrow,
}

/// `AUDIT_ARCH_I386` of linux/audit.h.
pub const I386: u32 = 0x4000_0003;

/// One call by its numbers: the machine's own, and those of i386 (arch/x86/entry/syscalls/syscall_32.tbl), where 0 is
/// none (`restart_syscall`, which no program calls).
struct Entry {
    name: Name,
    native: Option<i64>,
    i386: u32,
    narrow: u32,
}

const fn entry(name: Name, native: i64, i386: u32, narrow: u32) -> Entry {
    Entry { name, native: Some(native), i386, narrow }
}

/// A call that only older architectures have: `$number` is none of the others'.
macro_rules! old {
    ($name:ident, $number:ident, $i386:expr, $narrow:expr) => {
        Entry {
            name: Name::$name,
            #[cfg(target_arch = "x86_64")]
            native: Some(libc::$number),
            #[cfg(not(target_arch = "x86_64"))]
            native: None,
            i386: $i386,
            narrow: $narrow,
        }
    };
}

/// The i386 calls `stat`, `lstat` and `fstat` of before Linux 2.4 are left out: what they fill holds no ID above 65535
/// and no file larger than 2 GiB, so no library calls them.
const CALLS: &[Entry] = &[
    old!(Stat, SYS_stat, 195, 0),
    old!(Lstat, SYS_lstat, 196, 0),
    entry(Name::Fstat, libc::SYS_fstat, 197, 0),
    entry(Name::Fstatat, libc::SYS_newfstatat, 300, 0),
    entry(Name::Statx, libc::SYS_statx, 383, 0),
    old!(Chown, SYS_chown, 212, 182),
    old!(Lchown, SYS_lchown, 198, 16),
    entry(Name::Fchown, libc::SYS_fchown, 207, 95),
    entry(Name::Fchownat, libc::SYS_fchownat, 298, 0),
    old!(Open, SYS_open, 5, 0),
    entry(Name::Openat, libc::SYS_openat, 295, 0),
    old!(Mkdir, SYS_mkdir, 39, 0),
    entry(Name::Mkdirat, libc::SYS_mkdirat, 296, 0),
    old!(Symlink, SYS_symlink, 83, 0),
    entry(Name::Symlinkat, libc::SYS_symlinkat, 304, 0),
    old!(Mknod, SYS_mknod, 14, 0),
    entry(Name::Mknodat, libc::SYS_mknodat, 297, 0),
    entry(Name::Setuid, libc::SYS_setuid, 213, 23),
    entry(Name::Setgid, libc::SYS_setgid, 214, 46),
    entry(Name::Setreuid, libc::SYS_setreuid, 203, 70),
    entry(Name::Setregid, libc::SYS_setregid, 204, 71),
    entry(Name::Setresuid, libc::SYS_setresuid, 208, 164),
    entry(Name::Setresgid, libc::SYS_setresgid, 210, 170),
    entry(Name::Setfsuid, libc::SYS_setfsuid, 215, 138),
    entry(Name::Setfsgid, libc::SYS_setfsgid, 216, 139),
    entry(Name::Setgroups, libc::SYS_setgroups, 206, 81),
    entry(Name::Getuid, libc::SYS_getuid, 199, 24),
    entry(Name::Geteuid, libc::SYS_geteuid, 201, 49),
    entry(Name::Getgid, libc::SYS_getgid, 200, 47),
    entry(Name::Getegid, libc::SYS_getegid, 202, 50),
    entry(Name::Getresuid, libc::SYS_getresuid, 209, 165),
    entry(Name::Getresgid, libc::SYS_getresgid, 211, 171),
    entry(Name::Getgroups, libc::SYS_getgroups, 205, 80),
    entry(Name::Prctl, libc::SYS_prctl, 172, 0),
];

/// Numbers of the machine's own calls, with their names.
pub fn native() -> impl Iterator<Item = (u32, Name)> {
    CALLS.iter().filter_map(|entry| Some((u32::try_from(entry.native?).ok()?, entry.name)))
}

/// Numbers of the i386 calls, with their names.
pub fn i386() -> impl Iterator<Item = (u32, Name)> {
    CALLS
        .iter()
        .flat_map(|entry| [(entry.i386, entry.name), (entry.narrow, entry.name)])
        .filter(|(number, _)| *number != 0)
}

/// Which call this is; `None` for one that is not answered.
#[must_use]
pub fn find(architecture: u32, number: i64) -> Option<(Name, Abi)> {
    CALLS.iter().find_map(|entry| {
        let abi = match () {
            () if architecture != I386 => (entry.native == Some(number)).then_some(Abi::Native),
            () if number == 0 => None,
            () if number == i64::from(entry.i386) => Some(Abi::I386),
            () if number == i64::from(entry.narrow) => Some(Abi::I386Narrow),
            () => None,
        };
        abi.map(|abi| (entry.name, abi))
    })
}

/// What an argument must be for a call to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// One of these bits is set.
    Set(u32),
    /// It is this.
    Equal(u32),
}

/// The condition of a call that is mostly none of our business, with the number of the argument: opening a file is the
/// commonest of all calls, but few make one.
#[must_use]
pub fn condition(name: Name) -> Option<(u32, Condition)> {
    match name {
        Name::Open => Some((1, Condition::Set(libc::O_CREAT as u32))),
        Name::Openat => Some((2, Condition::Set(libc::O_CREAT as u32))),
        Name::Prctl => Some((0, Condition::Equal(libc::PR_SET_KEEPCAPS as u32))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_found_by_its_numbers() {
        for (number, name) in native() {
            assert_eq!(find(0, i64::from(number)), Some((name, Abi::Native)));
        }
        for (number, name) in i386() {
            assert_eq!(find(I386, i64::from(number)).map(|(found, _)| found), Some(name), "{number}");
        }
        assert_eq!(find(I386, 198), Some((Name::Lchown, Abi::I386)));
        assert_eq!(find(I386, 16), Some((Name::Lchown, Abi::I386Narrow)));
        assert_eq!(find(I386, 0), None);
        assert_eq!(find(0, libc::SYS_close), None);
    }

    #[test]
    fn no_number_is_listed_twice() {
        for numbers in [native().collect::<Vec<_>>(), i386().collect()] {
            let mut sorted: Vec<u32> = numbers.iter().map(|(number, _)| *number).collect();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), numbers.len());
        }
    }
}
