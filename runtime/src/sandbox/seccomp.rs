//! The system call filter. `docs/SECURITY.md` gives the reason for each entry.
//!
//! One program serves every instruction set that the kernel takes calls of: 64-bit x86 also takes i386 and x32 calls,
//! which have numbers of their own. The kernel runs a program for all numbers there are when it is installed, so a
//! search tree finds the answer. Conditions on arguments are compiled by seccompiler, which knows 64-bit calls only.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::Error;
use super::bpf::{self, Answer, Answers};
#[cfg(target_arch = "x86_64")]
use super::bpf::{ARCHITECTURE, JUMP_EQUAL, JUMP_SET, NUMBER, allow, argument, jump, kill, load, refuse, skip};

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

/// Refused with EPERM, whatever the arguments.
const DENIED: Answer = Answer::Errno(libc::EPERM);
/// As if the kernel did not know the call: clone3 passes its flags in memory, where a filter cannot see them, and
/// libraries fall back to clone.
const ABSENT: Answer = Answer::Errno(libc::ENOSYS);
/// The places of the two conditions among those of [`native_conditions`] and, for i386, [`compat_conditions`].
const TERMINAL: Answer = Answer::Condition(0);
const FAMILY: Answer = Answer::Condition(1);

fn condition(argument: u8, operator: SeccompCmpOp, value: u32) -> Result<SeccompCondition, Error> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, u64::from(value)).map_err(filter_error)
}

fn filter_error(error: impl std::fmt::Display) -> Error {
    Error::Filter(error.to_string())
}

fn compile(call: i64, rules: Vec<SeccompRule>, errno: i32) -> Result<BpfProgram, Error> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(filter_error)?;
    SeccompFilter::new([(call, rules)].into(), SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)
        .and_then(BpfProgram::try_from)
        .map_err(filter_error)
}

/// The programs that look at arguments.
fn native_conditions() -> Result<Vec<BpfProgram>, Error> {
    let mut injection = Vec::new();
    for request in TERMINAL_INJECTION {
        injection.push(SeccompRule::new(vec![condition(1, SeccompCmpOp::Eq, request)?]).map_err(filter_error)?);
    }
    let mut others = Vec::new();
    for family in FAMILIES {
        others.push(condition(0, SeccompCmpOp::Ne, family)?);
    }
    let others = vec![SeccompRule::new(others).map_err(filter_error)?];
    Ok(vec![compile(libc::SYS_ioctl, injection, libc::EPERM)?, compile(libc::SYS_socket, others, libc::EAFNOSUPPORT)?])
}

fn native() -> Result<BpfProgram, Error> {
    let mut answers: Answers = forbidden().into_iter().map(|call| (call as u32, DENIED)).collect();
    answers.insert(libc::SYS_clone3 as u32, ABSENT);
    answers.insert(libc::SYS_ioctl as u32, TERMINAL);
    answers.insert(libc::SYS_socket as u32, FAMILY);
    bpf::by_number(&answers, &native_conditions()?)
}

/// What [`native_conditions`] says, for i386.
#[cfg(target_arch = "x86_64")]
fn compat_conditions() -> Vec<BpfProgram> {
    let mut injection = vec![load(argument(1))];
    for request in TERMINAL_INJECTION {
        injection.extend([jump(JUMP_EQUAL, request, 0, 1), refuse(libc::EPERM)]);
    }
    injection.push(allow());
    let mut family = vec![load(argument(0))];
    for known in FAMILIES {
        family.extend([jump(JUMP_EQUAL, known, 0, 1), allow()]);
    }
    family.push(refuse(libc::EAFNOSUPPORT));
    vec![injection, family]
}

#[cfg(target_arch = "x86_64")]
fn compat() -> Result<BpfProgram, Error> {
    let mut answers: Answers = FORBIDDEN_I386.iter().map(|&call| (call, DENIED)).collect();
    answers.extend([(435, ABSENT), (54, TERMINAL), (359, FAMILY)]); // clone3, ioctl, socket
    bpf::by_number(&answers, &compat_conditions())
}

#[cfg(target_arch = "x86_64")]
fn program() -> Result<BpfProgram, Error> {
    const X86_64: u32 = 0xC000_003E; // AUDIT_ARCH_X86_64
    const I386: u32 = 0x4000_0003; // AUDIT_ARCH_I386
    const X32_BIT: u32 = 0x4000_0000; // __X32_SYSCALL_BIT
    let (native, i386) = (native()?, compat()?);
    let head =
        [jump(JUMP_EQUAL, X86_64, 1, 0), kill(), load(NUMBER), jump(JUMP_SET, X32_BIT, 0, 1), refuse(libc::ENOSYS)];
    let to_i386 = skip(head.len() + native.len());
    let mut program = vec![load(ARCHITECTURE), jump(JUMP_EQUAL, I386, 0, 1), to_i386];
    program.extend(head);
    program.extend(native);
    program.extend(i386);
    Ok(program)
}

#[cfg(not(target_arch = "x86_64"))]
fn program() -> Result<BpfProgram, Error> {
    native()
}

/// Installs the filter for the calling process and all it will start.
///
/// # Errors
/// [`Error::Filter`] when the kernel has no seccomp filters.
pub fn install() -> Result<(), Error> {
    seccompiler::apply_filter(&program()?).map_err(filter_error)
}
