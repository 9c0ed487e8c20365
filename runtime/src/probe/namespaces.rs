//! User namespaces, mounts in them, and the namespaces of an instance.

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::unistd::{getegid, geteuid, getpid};

use super::{Refusal, Verdict, apart, isolated};
use crate::mount_server::{Error, diagnose};
use crate::sandbox::id_map::IdMap;
use crate::sandbox::plan::Fresh;
use crate::sandbox::{self, MASKED_PROC, UNMASK_PROC, apply};
use crate::sys::network;
use crate::sys::process;

/// Where probes mount, in a namespace of their own.
pub(super) const POINT: &str = "/tmp";

/// Makes this process root of a user and mount namespace of its own, in which the caller is the only user.
pub(super) fn enter() -> Result<(), Error> {
    let ids = IdMap::Single { uid: 0, gid: 0, parent_uid: geteuid().as_raw(), parent_gid: getegid().as_raw() };
    diagnose::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    ids.write(getpid()).map_err(diagnose::id_map)
}

/// [`enter`], with propagation as a session has it.
pub(super) fn enter_slave() -> Result<(), Error> {
    enter()?;
    let none: Option<&str> = None;
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .map_err(diagnose::mount("change the propagation of", "/"))
}

/// Makes a user namespace and maps the caller in it.
pub fn user_namespace() -> Verdict {
    isolated(|| {
        enter()?;
        Ok("can be made, and the caller be mapped".to_owned())
    })
}

/// Mounts a tmpfs in a user namespace.
pub fn mounts() -> Verdict {
    isolated(|| {
        enter_slave()?;
        let none: Option<&str> = None;
        nix::mount::mount(Some("fim"), POINT, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, none)
            .map_err(diagnose::mount("mount", "a tmpfs"))?;
        Ok("work in it".to_owned())
    })
}

/// Makes every namespace of an instance, and in them a loopback and a /proc.
pub fn instance() -> Verdict {
    let namespaces = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWNET;
    let first = || {
        network::bring_loopback_up()
            .map_err(|errno| Refusal::io("bring up the loopback interface", errno, super::CHECK))?;
        apply::fresh(&Fresh::Proc).map_err(|errno| match errno {
            Errno::EPERM => Refusal::new(MASKED_PROC, UNMASK_PROC),
            other => Refusal::io("mount a /proc", other, super::CHECK),
        })?;
        Ok("PID, network, IPC, UTS and cgroup namespaces, and a /proc of their own".to_owned())
    };
    // PID 1 becomes a child of the isolated process, beside the one that makes it: as in a start.
    isolated(|| {
        isolated(|| {
            enter_slave()?;
            apart(|| process::clone_sibling(namespaces), false, first)
        })
    })
}

impl From<sandbox::Error> for Refusal {
    fn from(error: sandbox::Error) -> Self {
        Self::new(crate::error::chain(&error), super::CHECK)
    }
}
