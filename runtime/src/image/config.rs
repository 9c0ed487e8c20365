//! The configuration of an image, as the program works with it. `body` has its encoding.

use super::LayerEntry;
use super::declared::Declared;

/// Everything about an image that can be changed after it was built, and its layer index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Name of the application.
    pub name: String,
    /// What a start without a command runs; `None` is the shell.
    pub boot: Option<Boot>,
    /// Variables of the guest, unexpanded, in the order they were added.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// What the guest may reach.
    pub permissions: PermissionSet,
    /// Binds in the order they were added; the index is the position.
    pub binds: Vec<Bind>,
    /// Stored unshare options. They are listed; the default isolates everything anyway.
    pub unshare: UnshareSet,
    /// Stored overlay choice.
    pub overlay: OverlayKind,
    /// Look names up without regard to case.
    pub casefold: bool,
    /// Announce starts on the desktop.
    pub notify: bool,
    /// Where recipes come from (URL).
    pub remote: Option<String>,
    /// Desktop integration as its JSON text.
    pub desktop: Option<String>,
    /// Icon of the desktop integration.
    pub icon: Option<Icon>,
    /// Names of host programs that the guest may run.
    pub portal: Vec<String>,
    /// Files that a start reads, relative to the root: a session that begins reads them ahead.
    pub startup: Vec<Vec<u8>>,
    /// Layouts, services, shared content and the like.
    pub declared: Declared,
    /// The layer index in file order; bottom layer first. Not every entry is a layer of the root: see
    /// [`super::LayerKind`].
    pub layers: Vec<LayerEntry>,
}

impl Config {
    /// Adds files to those that a start reads.
    pub fn begin_with(&mut self, files: Vec<Vec<u8>>) {
        for file in files {
            if !self.startup.contains(&file) {
                self.startup.push(file);
            }
        }
    }
}

/// The boot command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Program as given.
    pub program: Vec<u8>,
    /// Arguments as given.
    pub args: Vec<Vec<u8>>,
}

/// A bind from the host into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Access.
    pub kind: BindKind,
    /// Path on the host, unexpanded.
    pub src: Vec<u8>,
    /// Path in the guest, unexpanded.
    pub dst: Vec<u8>,
    /// A missing source is an error instead of being skipped.
    pub required: bool,
}

/// Access through a bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindKind {
    /// Read only.
    Ro,
    /// Read and write.
    Rw,
    /// Read, write, and device nodes work.
    Dev,
}

impl BindKind {
    /// Name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ro => "ro",
            Self::Rw => "rw",
            Self::Dev => "dev",
        }
    }
}

/// Which implementation stacks the layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OverlayKind {
    /// The kernel's overlayfs (the name is historical).
    #[default]
    Bwrap,
    /// A userspace overlay.
    Overlayfs,
    /// A userspace union.
    Unionfs,
}

impl OverlayKind {
    /// Name as `fim-overlay show` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bwrap => "BWRAP",
            Self::Overlayfs => "OVERLAYFS",
            Self::Unionfs => "UNIONFS",
        }
    }
}

/// Where the desktop icon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Icon {
    /// Format: `png`, `svg`, `jpg` or `jpeg`.
    pub extension: String,
    /// Position in [`Config::layers`] of an entry of kind `Icon`.
    pub layer: u32,
}

/// An enumeration whose values are single bits of a set. Bit numbers are part of the format.
pub trait NamedBit: Copy + Sized + 'static {
    /// Every value, in bit order from bit 0 without a gap.
    const ALL: &'static [Self];
    /// Bit number, 0 to 31.
    fn bit(self) -> u32;
    /// Name on the command line, lower case.
    fn name(self) -> &'static str;
    /// The value with that name, in any case.
    #[must_use]
    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.name().eq_ignore_ascii_case(name))
    }
}

macro_rules! named_bits {
    ($(#[$doc:meta])* $name:ident: $($(#[$vdoc:meta])* $variant:ident $text:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl NamedBit for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn bit(self) -> u32 {
                self as u32
            }

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

named_bits! {
    /// Something of the host that the guest may be granted. New values go to the end.
    Permission:
    /// The home directory.
    Home "home",
    /// Removable and mounted media.
    Media "media",
    /// Sound sockets and devices.
    Audio "audio",
    /// The Wayland socket.
    Wayland "wayland",
    /// The X11 display.
    Xorg "xorg",
    /// The session bus.
    DbusUser "dbus_user",
    /// The system bus.
    DbusSystem "dbus_system",
    /// The udev database.
    Udev "udev",
    /// USB devices.
    Usb "usb",
    /// Input devices.
    Input "input",
    /// Graphics devices and drivers.
    Gpu "gpu",
    /// The network and resolver files.
    Network "network",
    /// All devices.
    Dev "dev",
    /// Shared memory of the host.
    Shm "shm",
    /// Optical drives.
    Optical "optical",
    /// Certificate stores.
    Certs "certs",
    /// Fonts.
    Fonts "fonts",
    /// Locale data.
    Locale "locale",
}

named_bits! {
    /// A namespace that `fim-unshare` names. New values go to the end.
    Unshare:
    /// User namespace.
    User "user",
    /// System V IPC namespace.
    Ipc "ipc",
    /// Process id namespace.
    Pid "pid",
    /// Network namespace.
    Net "net",
    /// Host name namespace.
    Uts "uts",
    /// Control group namespace.
    Cgroup "cgroup",
}

/// A set of [`Permission`]s.
pub type PermissionSet = NamedSet<Permission>;
/// A set of [`Unshare`] options.
pub type UnshareSet = NamedSet<Unshare>;

/// A set of named bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedSet<T> {
    bits: u32,
    of: std::marker::PhantomData<T>,
}

impl<T> Default for NamedSet<T> {
    fn default() -> Self {
        Self { bits: 0, of: std::marker::PhantomData }
    }
}

impl<T: NamedBit> NamedSet<T> {
    /// Every value.
    #[must_use]
    pub fn all() -> Self {
        T::ALL.iter().copied().collect()
    }

    /// The set with these bits; `None` when a bit has no name.
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        (bits & !Self::all().bits == 0).then_some(Self { bits, of: std::marker::PhantomData })
    }

    /// The set as bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// Whether `value` is in the set.
    #[must_use]
    pub fn contains(self, value: T) -> bool {
        self.bits & (1 << value.bit()) != 0
    }

    /// Adds `value`.
    pub fn insert(&mut self, value: T) {
        self.bits |= 1 << value.bit();
    }

    /// Removes `value`.
    pub fn remove(&mut self, value: T) {
        self.bits &= !(1 << value.bit());
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// The values in bit order.
    pub fn iter(self) -> impl Iterator<Item = T> {
        T::ALL.iter().copied().filter(move |value| self.contains(*value))
    }
}

impl<T: NamedBit> FromIterator<T> for NamedSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut set = Self::default();
        values.into_iter().for_each(|value| set.insert(value));
        set
    }
}
