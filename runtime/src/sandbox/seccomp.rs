//! The system call filter. `docs/SECURITY.md` gives the reason for each entry.
//!
//! seccompiler compiles the filter for the machine's own instruction set. A 64-bit x86 kernel also takes i386 and x32
//! calls, which it would kill; the programs are therefore put behind a prologue that looks at the architecture first.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use self::bpf::{ALLOW, ARCHITECTURE, JUMP_EQUAL, JUMP_SET, NUMBER, argument, give, jump, load};
use super::Error;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that answer EPERM whatever their arguments.
fn forbidden() -> Vec<i64> {
    let mut calls = vec![
        // The kernel itself: modules, other kernels, its log, its accounting, its clock.
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_syslog,
        libc::SYS_acct,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_clock_adjtime,
        libc::SYS_adjtimex,
        libc::SYS_quotactl,
        libc::SYS_quotactl_fd,
        libc::SYS_vhangup,
        // Large attack surfaces that programs can do without.
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        // Objects that know nothing of namespaces: keyrings and file handles.
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        libc::SYS_open_by_handle_at,
        libc::SYS_name_to_handle_at,
        libc::SYS_lookup_dcookie,
        libc::SYS_move_pages,
    ];
    #[cfg(target_arch = "x86_64")]
    calls.extend([libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_uselib, libc::SYS_nfsservctl]);
    calls
}

/// The same calls by their i386 numbers (arch/x86/entry/syscalls/syscall_32.tbl), EPERM whatever their arguments.
#[cfg(target_arch = "x86_64")]
const FORBIDDEN_I386: &[u32] = &[
    128, // init_module
    350, // finit_module
    129, // delete_module
    127, // create_module
    283, // kexec_load
    103, // syslog
    51,  // acct
    88,  // reboot
    87,  // swapon
    115, // swapoff
    79,  // settimeofday
    25,  // stime
    264, // clock_settime
    404, // clock_settime64
    343, // clock_adjtime
    405, // clock_adjtime64
    124, // adjtimex
    131, // quotactl
    443, // quotactl_fd
    111, // vhangup
    357, // bpf
    336, // perf_event_open
    374, // userfaultfd
    425, 426, 427, // io_uring_setup, io_uring_enter, io_uring_register
    286, 287, 288, // add_key, request_key, keyctl
    342, // open_by_handle_at
    341, // name_to_handle_at
    253, // lookup_dcookie
    317, // move_pages
    101, // ioperm
    110, // iopl
    86,  // uselib
    169, // nfsservctl
];

/// Pushes a byte into a terminal's input, as if typed (TIOCSTI), and the console's own paste (TIOCLINUX).
const TERMINAL_INJECTION: [u32; 2] = [0x5412, 0x541C];

/// Socket families a guest may use; any other reaches the host past its network namespace or is a rare one.
const FAMILIES: [u32; 5] = [
    libc::AF_UNIX as u32,
    libc::AF_INET as u32,
    libc::AF_INET6 as u32,
    libc::AF_NETLINK as u32,
    libc::AF_PACKET as u32,
];

fn condition(argument: u8, operator: SeccompCmpOp, value: u32) -> Result<SeccompCondition, Error> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, u64::from(value)).map_err(filter_error)
}

fn filter_error(error: impl std::fmt::Display) -> Error {
    Error::Filter(error.to_string())
}

fn compile(rules: Rules, errno: i32) -> Result<BpfProgram, Error> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(filter_error)?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)
        .and_then(BpfProgram::try_from)
        .map_err(filter_error)
}

/// The filters in the order they are installed.
fn programs() -> Result<Vec<BpfProgram>, Error> {
    let mut denied: Rules = forbidden().into_iter().map(|call| (call, Vec::new())).collect();
    let mut injection = Vec::new();
    for request in TERMINAL_INJECTION {
        injection.push(SeccompRule::new(vec![condition(1, SeccompCmpOp::Eq, request)?]).map_err(filter_error)?);
    }
    denied.insert(libc::SYS_ioctl, injection);

    let mut others = Vec::new();
    for family in FAMILIES {
        others.push(condition(0, SeccompCmpOp::Ne, family)?);
    }
    let family: Rules = [(libc::SYS_socket, vec![SeccompRule::new(others).map_err(filter_error)?])].into();

    // clone3 passes its flags in memory, where a filter cannot see them; libraries fall back to clone on ENOSYS.
    let absent: Rules = [(libc::SYS_clone3, Vec::new())].into();

    Ok(vec![
        with_prologue(compile(denied, libc::EPERM)?, Compat::Denied),
        with_prologue(compile(family, libc::EAFNOSUPPORT)?, Compat::Family),
        with_prologue(compile(absent, libc::ENOSYS)?, Compat::Absent),
    ])
}

/// Which list the i386 half of a program enforces.
#[derive(Clone, Copy)]
enum Compat {
    Denied,
    Family,
    Absent,
}

/// Instructions of classic BPF as seccomp uses them (linux/filter.h, linux/seccomp.h).
pub(crate) mod bpf {
    use seccompiler::sock_filter;

    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    pub(crate) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    pub(crate) const JUMP_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    pub(crate) const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    /// Offsets into `struct seccomp_data` (linux/seccomp.h); the low half of an argument comes first on these machines.
    pub(crate) const NUMBER: u32 = 0;
    pub(crate) const ARCHITECTURE: u32 = 4;
    pub(crate) const fn argument(index: u32) -> u32 {
        16 + 8 * index
    }

    pub(crate) fn load(offset: u32) -> sock_filter {
        sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: offset }
    }

    pub(crate) fn give(value: u32) -> sock_filter {
        sock_filter { code: RETURN, jt: 0, jf: 0, k: value }
    }

    pub(crate) fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
        sock_filter { code, jt, jf, k }
    }
}

fn refuse(errno: i32) -> sock_filter {
    give(libc::SECCOMP_RET_ERRNO | errno as u32)
}

#[cfg(target_arch = "x86_64")]
fn with_prologue(native: BpfProgram, compat: Compat) -> BpfProgram {
    const X86_64: u32 = 0xC000_003E; // AUDIT_ARCH_X86_64
    const I386: u32 = 0x4000_0003; // AUDIT_ARCH_I386
    const X32_BIT: u32 = 0x4000_0000; // __X32_SYSCALL_BIT
    let i386 = match compat {
        Compat::Denied => {
            // Each entry is followed by its own answer, so that no jump is longer than BPF's 255 instructions.
            let mut body = vec![load(NUMBER)];
            for &call in FORBIDDEN_I386 {
                body.extend([jump(JUMP_EQUAL, call, 0, 1), refuse(libc::EPERM)]);
            }
            body.extend([
                jump(JUMP_EQUAL, 54, 0, 4), // ioctl, else allow
                load(argument(1)),
                jump(JUMP_EQUAL, TERMINAL_INJECTION[0], 1, 0),
                jump(JUMP_EQUAL, TERMINAL_INJECTION[1], 0, 1),
                refuse(libc::EPERM),
                give(ALLOW),
            ]);
            body
        }
        Compat::Family => {
            let mut body = vec![load(NUMBER), jump(JUMP_EQUAL, 359, 1, 0), give(ALLOW), load(argument(0))]; // socket
            for family in FAMILIES {
                body.extend([jump(JUMP_EQUAL, family, 0, 1), give(ALLOW)]);
            }
            body.push(refuse(libc::EAFNOSUPPORT));
            body
        }
        Compat::Absent => {
            vec![load(NUMBER), jump(JUMP_EQUAL, 435, 0, 1), refuse(libc::ENOSYS), give(ALLOW)] // clone3
        }
    };
    // A conditional jump reaches 255 instructions; the unconditional one (BPF_JMP | BPF_JA) over the i386 body any.
    let over = sock_filter { code: 0x05, jt: 0, jf: 0, k: i386.len() as u32 };
    let mut program = vec![load(ARCHITECTURE), jump(JUMP_EQUAL, I386, 1, 0), over];
    program.extend(i386);
    program.extend([
        load(ARCHITECTURE),
        jump(JUMP_EQUAL, X86_64, 1, 0),
        give(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
        jump(JUMP_SET, X32_BIT, 0, 1),
        refuse(libc::ENOSYS),
    ]);
    program.extend(native);
    program
}

#[cfg(not(target_arch = "x86_64"))]
fn with_prologue(native: BpfProgram, _compat: Compat) -> BpfProgram {
    native
}

/// Installs the filter for the calling process and all it will start.
///
/// # Errors
/// [`Error::Filter`] when the kernel has no seccomp filters.
pub fn install() -> Result<(), Error> {
    for program in programs()? {
        seccompiler::apply_filter(&program).map_err(filter_error)?;
    }
    Ok(())
}
