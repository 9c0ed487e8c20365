//! The sequence that turns a fresh set of namespaces into an instance. It runs as PID 1 of the instance, with every
//! capability over the session's user namespace until [`seal`].

use std::ffi::{CStr, CString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::unistd::{chdir, pivot_root};

use super::plan::{Access, Fresh, Plan, Step};
use super::points::{self, Journal};
use super::{Error, account, content, layout, seccomp};
use crate::emulation;
use crate::portal;
use crate::sys::mount::{self, Detached, attr};
use crate::sys::notifier::Listener;
use crate::sys::{capability, network};

/// The first port that needs no privilege (ip-sysctl.rst); each network namespace has its own.
pub(crate) const FIRST_FREE_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// Mode bits that the creation mask of PID 1 takes away while it builds the instance.
pub const MASK: u32 = 0o022;

/// Brings up what an instance's own network namespace has: loopback, and the ports that servers know.
///
/// # Errors
/// When the kernel refuses.
pub fn network(plan: &Plan) -> Result<(), Error> {
    if plan.private_network {
        network::bring_loopback_up().map_err(Error::step("bring up", "the loopback interface"))?;
        if plan.low_ports {
            // Where /proc/sys is read-only (in containers), low ports are refused as on the host.
            let _ = fs::write(FIRST_FREE_PORT, "0\n");
        }
    }
    Ok(())
}

/// Puts the plan in place with `root`, a mount of the session, as the root; afterwards nothing of the host can be reached
/// by any path. Mount points that the image lacks are written down in `points`.
///
/// # Errors
/// The first step that fails, naming its object.
pub fn enter(plan: &Plan, root: &Path, points: Option<&Journal>) -> Result<(), Error> {
    // 1. While the host is still visible: every mount as a detached descriptor. A fresh proc must be made now, for
    //    the kernel wants one fully visible beside it.
    let prepared = plan.steps.iter().map(prepare).collect::<Result<Vec<_>, Error>>()?;
    // 2. The overlay becomes the root, and the host's tree, with every mount in it, is gone from this namespace.
    chdir(root).map_err(Error::step("enter", root))?;
    pivot_root(".", ".").map_err(Error::step("change the root to", root))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(Error::step("detach", "the host's root"))?;
    chdir("/").map_err(Error::step("enter", "/"))?;
    // 3. From here every path is the guest's, so that no symlink of the image leads anywhere else.
    for (step, mount) in plan.steps.iter().zip(prepared) {
        place(step, mount, points)?;
    }
    // 4. The caller needs a name.
    accounts(plan)
}

/// Gives up what the set-up needed, for good. The calling process has joined the instance's user namespace. Returns
/// where calls wait for an answer when root is to be emulated and can be.
///
/// # Errors
/// When the kernel refuses to give up a capability or to take the filter.
pub fn seal(plan: &Plan, emulate_root: bool) -> Result<Option<Listener>, Error> {
    if !plan.keep_capabilities {
        capability::drop_all().map_err(Error::step("drop", "capabilities"))?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(Error::step("set", "no_new_privs"))?;
    seccomp::install()?;
    if !emulate_root {
        return Ok(None);
    }
    emulation::install().map_err(Error::step("emulate", "the users of the image"))
}

fn prepare(step: &Step) -> Result<Option<Detached>, Error> {
    match step {
        Step::Fresh { kind, target } => fresh(kind).map(Some).map_err(|errno| match (kind, errno) {
            (Fresh::Proc, Errno::EPERM) => Error::MaskedProc,
            _ => Error::step("make the file system for", target)(errno),
        }),
        Step::Bind { source, access, optional, .. } => match bind(source, *access) {
            Ok(mount) => Ok(Some(mount)),
            Err(Errno::ENOENT | Errno::ENOTDIR) if *optional => Ok(None),
            Err(errno) => Err(Error::step("bind", source)(errno)),
        },
        Step::Content { source, .. } => bind(source, Access::ReadWrite).map(Some).map_err(Error::step("bind", source)),
        _ => Ok(None),
    }
}

pub(crate) fn fresh(kind: &Fresh) -> nix::Result<Detached> {
    match kind {
        Fresh::Proc => mount::new_filesystem(c"proc", &[], attr::NOSUID | attr::NODEV | attr::NOEXEC),
        Fresh::Devpts => mount::new_filesystem(
            c"devpts",
            &[(c"newinstance", None), (c"ptmxmode", Some(c"0666")), (c"mode", Some(c"0620"))],
            attr::NOSUID | attr::NOEXEC,
        ),
        Fresh::Tmpfs { mode, exec } => {
            // Octal digits hold no NUL.
            let mode = CString::new(format!("{mode:o}")).unwrap_or_default();
            let options: [(&CStr, Option<&CStr>); 1] = [(c"mode", Some(&mode))];
            let flags = attr::NOSUID | attr::NODEV | if *exec { 0 } else { attr::NOEXEC };
            mount::new_filesystem(c"tmpfs", &options, flags)
        }
    }
}

fn bind(source: &Path, access: Access) -> nix::Result<Detached> {
    let mount = mount::clone_tree(source, true)?;
    let attributes = match access {
        Access::ReadOnly => attr::RDONLY | attr::NOSUID | attr::NODEV,
        Access::ReadWrite => attr::NOSUID | attr::NODEV,
        Access::Device => attr::NOSUID,
    };
    mount::set_attributes(&mount, attributes, true)?;
    mount::make_slave(&mount, true)?;
    Ok(mount)
}

fn place(step: &Step, mount: Option<Detached>, points: Option<&Journal>) -> Result<(), Error> {
    match step {
        Step::Fresh { target, .. } | Step::Bind { target, .. } => {
            let Some(mount) = mount else { return Ok(()) };
            let is_directory = is_directory(&mount).map_err(Error::step("examine what to mount at", target))?;
            attach(mount, target, is_directory, points)
        }
        Step::Content { plug, target, .. } => {
            let Some(mount) = mount else { return Ok(()) };
            content::place(plug, mount, target, points)
        }
        Step::ReadOnly { target } => {
            let mount = match mount::clone_tree(target, true) {
                Err(Errno::ENOENT) => return Ok(()),
                other => other.map_err(Error::step("bind", target))?,
            };
            mount::set_attributes(&mount, attr::RDONLY, true).map_err(Error::step("make read-only", target))?;
            let point = open_point(target).map_err(Error::io("open the mount point", target))?;
            mount::attach(mount, point).map_err(Error::step("mount over", target))
        }
        Step::View { target } => {
            let mount = mount::clone_tree(Path::new("/"), false).map_err(Error::step("bind", "/"))?;
            let attributes = attr::RDONLY | attr::NOSUID | attr::NODEV;
            mount::set_attributes(&mount, attributes, false).map_err(Error::step("make read-only", target))?;
            attach(mount, target, true, points)
        }
        Step::Directory { target, mode } => {
            let made = DirBuilder::new().mode(*mode).create(target);
            if made.is_ok() && mode & MASK == 0 {
                return Ok(());
            }
            made.or_else(|_| make_directory(target)).map_err(Error::io("make the directory", target))?;
            fs::set_permissions(target, fs::Permissions::from_mode(*mode)).map_err(Error::io("set the mode of", target))
        }
        Step::Home { target } => {
            if fs::symlink_metadata(target).is_ok() {
                return Ok(());
            }
            make_directory(target)
                .and_then(|()| fs::set_permissions(target, fs::Permissions::from_mode(0o700)))
                .map_err(Error::io("make the home directory", target))
        }
        Step::Symlink { target, to } => {
            std::os::unix::fs::symlink(to, target).map_err(Error::io("make the symlink", target))
        }
        Step::File { target, content, mode } => fs::write(target, content)
            .and_then(|()| fs::set_permissions(target, fs::Permissions::from_mode(*mode)))
            .map_err(Error::io("write", target)),
        Step::Layouts(layouts) => Ok(layout::place(layouts, points)?),
        Step::PortalClient { target } => portal::copy_client(target).map_err(Error::io("write", target)),
    }
}

pub(super) fn attach(
    mount: Detached,
    target: &Path,
    is_directory: bool,
    points: Option<&Journal>,
) -> Result<(), Error> {
    let point = match open_point(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            points::make(target, is_directory, points).map_err(Error::io("make the mount point", target))?;
            open_point(target)
        }
        other => other,
    };
    let point = point.map_err(Error::io("open the mount point", target))?;
    mount::attach(mount, &point).map_err(|errno| {
        // The kernel says EINVAL of both; what the user can do something about is told apart here.
        let errno = match (is_directory, self::is_directory(&point)) {
            (true, Ok(false)) => Errno::ENOTDIR,
            (false, Ok(true)) => Errno::EISDIR,
            _ => errno,
        };
        Error::step("mount at", target)(errno)
    })
}

pub(super) fn is_directory(object: impl AsFd) -> nix::Result<bool> {
    nix::sys::stat::fstat(object).map(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

pub(super) fn open_point(target: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_PATH).open(target)
}

fn make_directory(path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(());
    }
    DirBuilder::new().mode(0o755).recursive(true).create(path)
}

/// Where files that the instance needs but the image lacks are kept; /run is the instance's own tmpfs.
const SYNTHESISED: &str = "/run/fim";

/// The content of an account file with an entry for the account; `None` when it has one already.
type WithEntry = fn(&[u8], &super::plan::Account) -> Option<Vec<u8>>;

fn accounts(plan: &Plan) -> Result<(), Error> {
    let files: [(&str, WithEntry); 2] = [("passwd", account::passwd), ("group", account::group)];
    for (name, with_entry) in files {
        let target = PathBuf::from("/etc").join(name);
        let existing = match fs::read(&target) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::io("read the guest's", target)(error)),
        };
        let Some(content) = with_entry(&existing, &plan.account) else { continue };
        let source = Path::new(SYNTHESISED).join(name);
        make_directory(Path::new(SYNTHESISED)).map_err(Error::io("make the directory", SYNTHESISED))?;
        fs::write(&source, content).map_err(Error::io("write", &source))?;
        let mount = mount::clone_tree(&source, false).map_err(Error::step("bind", &source))?;
        attach(mount, &target, false, None)?;
    }
    Ok(())
}
