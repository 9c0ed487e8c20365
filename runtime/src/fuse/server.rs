//! Starting and ending the server.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use fuser::{BackgroundSession, Config, Filesystem, Notifier, Session, SessionACL};

use super::blocks::Blocks;
use super::filesystem::LayerFs;
use super::node::MAX_LAYERS;
use super::recording::Recording;
use crate::squashfs::{Archive, InodeRef};
use crate::sys::{heap, process};

/// Whom the files belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Every file belongs to this id, as seen in the user namespace of the mount; the real owner of a regular file
    /// or directory is kept in [`super::OWNER_XATTR`].
    Single {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// Every file belongs to whom the layer says, as far as the user namespace of the mount knows that ID: users
    /// below `uids` and groups below `gids`. What belongs to others shows [`NOBODY`], with its real owner in
    /// [`super::OWNER_XATTR`].
    Below {
        /// The first user that is not known.
        uids: u32,
        /// The first group that is not known.
        gids: u32,
    },
    /// Every file belongs to whom the layer says.
    Real,
}

/// User and group that stand for one that a namespace does not know (`DEFAULT_OVERFLOWUID`).
pub const NOBODY: u32 = 65_534;

impl Owners {
    /// Whom the mount shows as the owner of what belongs to this user and group.
    pub(super) fn shown(self, uid: u32, gid: u32) -> (u32, u32) {
        match self {
            Self::Single { uid, gid } => (uid, gid),
            Self::Below { uids, gids } => {
                (if uid < uids { uid } else { NOBODY }, if gid < gids { gid } else { NOBODY })
            }
            Self::Real => (uid, gid),
        }
    }

    /// Whether the real owner is told in an attribute.
    pub(super) fn hides(self, uid: u32, gid: u32) -> bool {
        match self {
            Self::Single { .. } => (uid, gid) != (0, 0),
            _ => self.shown(uid, gid) != (uid, gid),
        }
    }
}

/// How to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whom the files belong to.
    pub owners: Owners,
    /// Threads that answer requests; 0 is one for each processor.
    pub threads: usize,
    /// Most bytes of decompressed blocks to hold.
    pub cache_bytes: usize,
    /// Whether to decompress ahead of sequential readers.
    pub read_ahead: bool,
    /// How many layers each directory of the root shows together, `0` the first so many, as an overlay of them would show
    /// them. Where this is empty, each layer is a directory of its own.
    pub merged: Vec<usize>,
    /// Whether to keep note of which files are read, for [`Server::files_read`].
    pub record: bool,
}

impl Default for Options {
    /// Real owners, one thread for each processor, 64 MiB of cache, read-ahead, no record.
    fn default() -> Self {
        Self {
            owners: Owners::Real,
            threads: 0,
            cache_bytes: 64 << 20,
            read_ahead: true,
            merged: Vec::new(),
            record: false,
        }
    }
}

/// A running server. Dropping it does not stop the threads: they end with the mount, or with the process.
pub struct Server {
    session: BackgroundSession,
    blocks: Arc<Blocks>,
}

/// Figures of a running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Data and fragment blocks read from the layers so far, also those that turned out to be damaged.
    pub blocks_loaded: u64,
    /// Bytes of decompressed blocks held now.
    pub cache_bytes: usize,
    /// Most bytes of decompressed blocks ever held.
    pub cache_peak: usize,
}

/// Serves `layers` as directories `0`, `1`, … of one read-only mount, or merged as [`Options::merged`] has it.
///
/// `device` is an open `/dev/fuse` whose `mount(2)` the caller has already made with [`mount_data`]. The handshake
/// (`FUSE_INIT`) is done when this returns, so whoever touches the mount is answered. No other process may keep a
/// copy of `device`: the kernel fails pending and later requests once the last copy is closed.
///
/// # Errors
/// More than [`MAX_LAYERS`] layers, a device that is not mounted, a kernel without FUSE 7.31, no more threads.
pub fn serve(device: OwnedFd, layers: Vec<Arc<Archive>>, options: &Options) -> io::Result<Server> {
    let blocks = blocks_of(layers, options)?;
    let files = LayerFs::new(Arc::clone(&blocks), options, read_ahead_threads(options));
    start(device, blocks, files, options)
}

/// The layers and their cache.
pub(super) fn blocks_of(layers: Vec<Arc<Archive>>, options: &Options) -> io::Result<Arc<Blocks>> {
    if layers.len() > MAX_LAYERS {
        let reason = format!("{} layers, and one mount shows at most {MAX_LAYERS}", layers.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    Ok(Arc::new(Blocks::new(layers, options.cache_bytes, options.record)))
}

/// The kernel's own read-ahead keeps two requests of a reader under way, so the threads that answer decompress in
/// parallel already; as many again would only take the processors from them and from the reader.
pub(super) fn read_ahead_threads(options: &Options) -> usize {
    if options.read_ahead { (process::processors() / 2).max(1) } else { 0 }
}

/// Serves a file system on a mounted device.
pub(super) fn start(
    device: OwnedFd,
    blocks: Arc<Blocks>,
    files: impl Filesystem,
    options: &Options,
) -> io::Result<Server> {
    let threads = if options.threads == 0 { process::processors() } else { options.threads };
    // 64 readers of blocks of 1 MiB: 73 instead of 105 MiB.
    heap::share_one();
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(threads);
    // One queue of answers for each thread, where the device can be opened again (FUSE_DEV_IOC_CLONE).
    config.clone_fd = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok();
    let session = Session::from_fd(files, device, SessionACL::All, config)?.spawn()?;
    Ok(Server { session, blocks })
}

impl Server {
    /// The way to notify the kernel of changes.
    pub(super) fn notifier(&self) -> Notifier {
        self.session.notifier()
    }

    /// Waits for the end of the mount.
    ///
    /// # Errors
    /// What ended a thread other than the end of the mount.
    pub fn join(self) -> io::Result<()> {
        self.session.join()
    }

    /// The files of which contents were read so far, in the order of their first reads: the index of the layer, and the
    /// inode. Empty unless [`Options::record`] was set.
    #[must_use]
    pub fn files_read(&self) -> Vec<(usize, InodeRef)> {
        self.blocks.recording().map(Recording::files).unwrap_or_default()
    }

    /// Figures as of now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let cache = self.blocks.cache();
        Stats { blocks_loaded: cache.loads(), cache_bytes: cache.held(), cache_peak: cache.peak() }
    }
}

/// The data of the `mount(2)` of file system type `fuse` (`Documentation/filesystems/fuse.rst`, "Mount options").
///
/// `fd` is the open `/dev/fuse`; `uid` and `gid` are those of the mounting process, as seen in its user namespace.
/// Every user may look (`allow_other`), and the kernel checks modes (`default_permissions`).
#[must_use]
pub fn mount_data(fd: RawFd, uid: u32, gid: u32) -> String {
    format!("fd={fd},rootmode=40000,user_id={uid},group_id={gid},default_permissions,allow_other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_the_mount_shows() {
        let below = Owners::Below { uids: 100, gids: 10 };
        assert_eq!((below.shown(99, 9), below.hides(99, 9)), ((99, 9), false));
        assert_eq!((below.shown(100, 9), below.hides(100, 9)), ((NOBODY, 9), true));
        assert_eq!(below.shown(5, 10), (5, NOBODY));
        let single = Owners::Single { uid: 7, gid: 8 };
        assert_eq!((single.shown(1, 0), single.hides(1, 0), single.hides(0, 0)), ((7, 8), true, false));
        assert!(!Owners::Real.hides(1, 1));
    }

    #[test]
    fn the_mount_data_is_what_the_kernel_parses() {
        let data = "fd=7,rootmode=40000,user_id=0,group_id=5,default_permissions,allow_other";
        assert_eq!(mount_data(7, 0, 5), data);
    }

    #[test]
    fn a_device_that_is_not_fuse_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        assert!(serve(file.into(), Vec::new(), &Options::default()).is_err());
    }
}
