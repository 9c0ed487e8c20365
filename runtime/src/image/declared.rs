//! What an image declares beside its root and its grants: layouts, aliases, services, ports, hooks, content that it
//! shares and uses, and who published it.

use super::{Digest, NamedBit};

/// Everything that is declared; nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// Files of the application that appear elsewhere, in the order they were added.
    pub layouts: Vec<Layout>,
    /// Names under which commands of the application are reached on the host.
    pub aliases: Vec<Alias>,
    /// Commands that run in instances of their own.
    pub services: Vec<Service>,
    /// Ports of the guest that the host's loopback reaches.
    pub ports: Vec<Port>,
    /// Commands that the application runs when it is installed, configured and removed; at most one of each kind.
    pub hooks: Vec<Hook>,
    /// Content for other images.
    pub slots: Vec<Slot>,
    /// Content of other images.
    pub plugs: Vec<Plug>,
    /// Which image's slot serves which plug.
    pub connections: Vec<Connection>,
    /// Version of the application.
    pub version: Option<String>,
    /// Who vouches for the image.
    pub publisher: Option<Publisher>,
}

/// A file or directory of the application that appears at another place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Where it appears, unexpanded.
    pub target: Vec<u8>,
    /// How.
    pub kind: LayoutKind,
    /// What appears, unexpanded; empty for [`LayoutKind::Tmpfs`].
    pub source: Vec<u8>,
    /// Whether an object of another type at the target is replaced.
    pub replace: bool,
}

/// How a layout makes its source appear. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LayoutKind {
    /// A symbolic link to the source.
    Symlink = 0,
    /// The directory is bound.
    Bind = 1,
    /// The file is bound.
    BindFile = 2,
    /// An empty file system in memory.
    Tmpfs = 3,
}

impl LayoutKind {
    /// Every kind, by its number.
    pub const ALL: [Self; 4] = [Self::Symlink, Self::Bind, Self::BindFile, Self::Tmpfs];

    /// Name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Symlink => "symlink",
            Self::Bind => "bind",
            Self::BindFile => "bind-file",
            Self::Tmpfs => "tmpfs",
        }
    }
}

/// A command of the application by a name on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The name.
    pub name: String,
    /// The command; the boot command when empty.
    pub words: Vec<Vec<u8>>,
}

/// A command that runs in an instance of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The command.
    pub words: Vec<Vec<u8>>,
    /// Whether `fim-service start` without a name starts it.
    pub enabled: bool,
    /// TCP ports that it is known to listen on.
    pub listens: Vec<u16>,
}

/// A port of the guest that the host's loopback reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Port of the host.
    pub host: u16,
    /// Port of the guest.
    pub guest: u16,
    /// Whether datagrams are meant instead of connections.
    pub udp: bool,
    /// The service whose port it is; that of whichever instance is first when `None`.
    pub service: Option<String>,
}

/// A command that the application runs at a turn of its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// When.
    pub kind: HookKind,
    /// The command.
    pub words: Vec<Vec<u8>>,
}

named_bits! {
    /// When a hook runs. The numbers are part of the format; new values go to the end.
    HookKind:
    /// Before anything else of an installation runs for the first time.
    Install "install",
    /// After that, and whenever the user asks for it.
    Configure "configure",
    /// Before an installation is removed.
    Remove "remove",
}

/// Content for other images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// What kind of content it is; a plug must name the same.
    pub content: String,
    /// Paths that others may read, unexpanded.
    pub read: Vec<Vec<u8>>,
    /// Paths that others may read and write, unexpanded.
    pub write: Vec<Vec<u8>>,
    /// Whether each path appears as a subdirectory of its own instead of all being merged.
    pub source: bool,
}

/// Content of other images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plug {
    /// Its name.
    pub name: String,
    /// What kind of content it is.
    pub content: String,
    /// Where it appears, unexpanded.
    pub target: Vec<u8>,
    /// The image that serves it when nothing else does: a path, or one below the remote URL.
    pub provider: Option<Vec<u8>>,
    /// Digest that a fetched provider must have.
    pub digest: Option<Digest>,
    /// Least version of the provider.
    pub least: Option<String>,
    /// Whether the application starts without it.
    pub optional: bool,
}

/// The image that serves a plug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Name of the plug.
    pub plug: String,
    /// The image file, absolute.
    pub file: Vec<u8>,
    /// Name of its slot.
    pub slot: String,
    /// What the user consented to.
    pub identity: Identity,
}

/// What a producer was when it was connected. A part for each thing that a message can say has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// UUID of the image.
    pub image: [u8; 16],
    /// BLAKE3-256 over the digests of its root layers, bottom first.
    pub layers: Digest,
    /// BLAKE3-256 over what the slot shares.
    pub slot: Digest,
}

/// Who vouches for the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publisher {
    /// Ed25519 public key.
    pub key: [u8; 32],
    /// Digest of the program that the image began with when it was signed.
    pub program: Digest,
    /// Ed25519 signature by it.
    pub signature: [u8; 64],
}
