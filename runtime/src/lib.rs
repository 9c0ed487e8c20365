//! Vocabulary and mechanism of fim, without policy: system calls, image format, squashfs, FUSE, wire
//! format, named pipes, sandbox, exit codes and errors.

pub mod base;
pub mod cache;
pub mod commit;
pub mod content;
pub mod control;
pub mod copy;
pub mod emulation;
pub mod error;
pub mod export;
pub mod extract;
pub mod fuse;
pub mod host;
#[macro_use]
pub mod image;
pub mod installation;
pub mod instance;
pub mod journal;
pub mod line_ends;
pub mod medium;
pub mod monitor;
pub mod mount_server;
pub mod pack;
pub mod portal;
pub mod ports;
pub mod probe;
pub mod progress;
pub mod publisher;
pub mod request;
pub mod root;
pub mod sandbox;
pub mod session;
pub mod source;
pub mod spawn;
pub mod squashfs;
pub mod sys;
pub mod time;
pub mod version;
pub mod wire;
