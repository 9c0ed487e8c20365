//! The sandbox plan: data that says what an instance sees. It is made by a pure function elsewhere and holds no
//! decision that is still open.

use std::ffi::CString;
use std::path::PathBuf;

use super::layout::Layouts;

/// How a bind may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing below can be written.
    ReadOnly,
    /// As the host's permissions allow; device nodes cannot be opened.
    ReadWrite,
    /// As [`Access::ReadWrite`], and device nodes can be opened.
    Device,
}

/// A file system the kernel makes afresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fresh {
    /// procfs of the instance's PID namespace.
    Proc,
    /// A devpts instance of its own.
    Devpts,
    /// An empty tmpfs; `mode` are permission bits, `exec` whether programs may run from it.
    Tmpfs {
        /// Permission bits of its root.
        mode: u32,
        /// Whether programs may run from it.
        exec: bool,
    },
}

/// One thing put in place, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A fresh file system at `target`.
    Fresh {
        /// What.
        kind: Fresh,
        /// Where, in the guest.
        target: PathBuf,
    },
    /// A host object at `target`.
    Bind {
        /// The host's path.
        source: PathBuf,
        /// Where, in the guest.
        target: PathBuf,
        /// How it may be used.
        access: Access,
        /// Whether a missing source is passed over.
        optional: bool,
    },
    /// What a plug gets, at `target`.
    Content {
        /// Name of the plug, for messages.
        plug: String,
        /// Where the session has it.
        source: PathBuf,
        /// Where, in the guest.
        target: PathBuf,
    },
    /// A part of the guest's own /proc made read-only.
    ReadOnly {
        /// Where, in the guest.
        target: PathBuf,
    },
    /// The root once more, read-only and without what is mounted below it.
    View {
        /// Where, in the guest.
        target: PathBuf,
    },
    /// A directory; existing is fine.
    Directory {
        /// Where, in the guest.
        target: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// The home directory: made for the caller alone when the image has none, left as it is otherwise.
    Home {
        /// Where, in the guest.
        target: PathBuf,
    },
    /// A symlink on a file system made by an earlier step.
    Symlink {
        /// Where, in the guest.
        target: PathBuf,
        /// What it holds.
        to: PathBuf,
    },
    /// A small file on a file system made by an earlier step.
    File {
        /// Where, in the guest.
        target: PathBuf,
        /// Its bytes.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
    },
    /// Files of the application at other places; the last step.
    Layouts(Layouts),
    /// A copy of this program that is a portal client and nothing else, on a file system made by an earlier step.
    PortalClient {
        /// Where, in the guest.
        target: PathBuf,
    },
}

/// The caller as the guest's account files should know them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User ID inside the instance.
    pub uid: u32,
    /// Group ID inside the instance.
    pub gid: u32,
    /// Home directory inside the instance.
    pub home: String,
    /// Login shell inside the instance.
    pub shell: String,
}

/// What an instance sees and who it is.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is put in place, in order.
    pub steps: Vec<Step>,
    /// Entry for the guest's passwd and group when they lack one.
    pub account: Account,
    /// Whether the network namespace is the instance's own, with nothing but loopback.
    pub private_network: bool,
    /// Whether every user may listen on ports below 1024 of that namespace.
    pub low_ports: bool,
    /// Whether capabilities over the instance's own namespaces are kept (`fim-root`).
    pub keep_capabilities: bool,
}

impl Plan {
    /// Where the instance has a file system of its own that ends with it.
    #[must_use]
    pub fn passing(&self) -> Vec<PathBuf> {
        let fresh = |step: &Step| match step {
            Step::Fresh { kind: Fresh::Tmpfs { .. }, target } => vec![target.clone()],
            Step::Layouts(layouts) => layouts.passing(),
            _ => Vec::new(),
        };
        self.steps.iter().flat_map(fresh).collect()
    }
}

/// The command of an instance.
#[derive(Debug, Clone)]
pub struct Command {
    /// Program word and arguments; only the arguments when `shell` is set.
    pub argv: Vec<CString>,
    /// Whether the program is whichever shell the image has.
    pub shell: bool,
    /// Environment, `NAME=value`.
    pub env: Vec<CString>,
    /// Directories to start in; the first that can be entered is taken.
    pub directories: Vec<PathBuf>,
    /// Signals that stay ignored, because the caller ignored them.
    pub ignored: Vec<i32>,
    /// Standard streams that stay closed, because the caller had closed them.
    pub closed: [bool; 3],
}
