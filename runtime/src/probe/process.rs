//! Programs in memory, processes as descriptors, system call filters.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitStatus, waitpid};

use super::{CHECK, Refusal, Verdict, isolated};
use crate::emulation;
use crate::sandbox::seccomp;
use crate::sys::process::{self, Side};
use crate::sys::{descriptor, memfd};

/// Copies the first `len` bytes of a file to memory and executes the copy with these words, which must make it succeed at
/// once. It inherits the file.
pub fn program(file: &File, len: u64, words: &[CString]) -> Verdict {
    const FIX: &str = "sudo sysctl -w vm.memfd_noexec=0";
    isolated(|| {
        let copy =
            memfd::copy_program(file, len).map_err(|error| Refusal::io("copy the program to memory", error, FIX))?;
        match process::fork().map_err(|errno| Refusal::io("make a process", errno, CHECK))? {
            Side::Child => {
                let ready = descriptor::detach_standard_streams()
                    .and_then(|()| descriptor::keep_across_exec(file).map_err(Into::into));
                let failed = ready.map(|()| process::exec_descriptor(&copy, words, &[]) as i32);
                std::process::exit(failed.unwrap_or(libc::EIO))
            }
            Side::Parent(pid) => match waitpid(pid, None) {
                Ok(WaitStatus::Exited(_, 0)) => Ok("the program runs from a sealed copy".to_owned()),
                Ok(WaitStatus::Exited(_, errno)) => {
                    Err(Refusal::io("execute the program from memory", std::io::Error::from_raw_os_error(errno), FIX))
                }
                other => Err(Refusal::new(format!("the program in memory ended by {other:?}"), CHECK)),
            },
        }
    })
}

/// Names a process by a descriptor, signals it, and sees it end.
pub fn pidfd() -> Verdict {
    const FIX: &str = "install a kernel of 5.3 or newer, or allow pidfd_open in the system call filter";
    isolated(|| match process::fork().map_err(|errno| Refusal::io("make a process", errno, CHECK))? {
        Side::Child => loop {
            nix::unistd::pause();
        },
        Side::Parent(pid) => {
            let seen = process::pidfd_open(pid).and_then(|pidfd| {
                process::pidfd_signal(&pidfd, libc::SIGKILL)?;
                poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)
            });
            process::kill(pid, libc::SIGKILL);
            // It has been killed, one way or the other.
            let _ = waitpid(pid, None);
            seen.map(|_| "processes can be named by descriptors".to_owned())
                .map_err(|errno| Refusal::io("watch a process", errno, FIX))
        }
    })
}

/// Installs the system call filter of an instance.
pub fn filter() -> Verdict {
    isolated(|| {
        let installed = nix::sys::prctl::set_no_new_privs().map_err(crate::sandbox::Error::step("set", "no_new_privs"));
        installed.and_then(|()| seccomp::install())?;
        Ok("can be installed".to_owned())
    })
}

/// Installs a filter whose calls are answered by another process, as root emulation does.
pub fn notifier() -> Verdict {
    const WITHOUT: &str = "start it outside of the program that answers system calls already";
    isolated(|| {
        let prepared = nix::sys::prctl::set_no_new_privs().and_then(|()| emulation::install());
        match prepared {
            Ok(Some(_)) => Ok("system calls can be answered".to_owned()),
            Ok(None) => Err(Refusal::new("another program answers the system calls of this one", WITHOUT)),
            Err(errno) => Err(Refusal::io("install a filter that asks", errno, "install a kernel of 5.9 or newer")),
        }
    })
}
