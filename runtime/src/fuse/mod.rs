//! The multi-threaded FUSE server that shows every layer of a session.
//!
//! One read-only mount has the layers as directories `0`, `1`, … in its root; overlayfs takes those as lower
//! directories. Many layers are shown as one (`merged`). A request goes from [`fuser`]'s threads to `filesystem`, which finds the inode by its number
//! (`node`), and for contents on to `reader`, `blocks` and `cache`; `stream` and `order` see who reads on and have
//! `read_ahead` decompress what they will want next.

mod attr;
mod blocks;
mod cache;
mod filesystem;
mod listing;
mod merged;
mod node;
mod order;
pub mod overlay;
mod read_ahead;
mod reader;
mod recording;
mod report;
mod server;
mod stream;
mod xattr;

pub use node::MAX_LAYERS;
pub use server::{NOBODY, Options, Owners, Server, Stats, mount_data, serve};
pub use xattr::{OWNER_XATTR, SPECIAL_OWNER_XATTR};
