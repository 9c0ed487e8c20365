//! What every end-to-end test uses: a [`World`] with an image in it, commands on that image whose outcome is asserted
//! in sentences, and processes and terminals that end with the test.
//!
//! Nothing here sleeps. Every wait is for a condition and fails loudly after [`DEADLINE`].

// Each test program uses a part of the harness.
#![allow(dead_code, unused_imports)]

pub mod bus;
pub mod command;
pub mod content;
pub mod debian;
pub mod http;
mod initramfs;
pub mod layers;
pub mod layouts;
pub mod machine;
pub mod owners;
pub mod process;
pub mod terminal;
pub mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use command::{Outcome, TestCommand};
pub use process::{Running, Tree};
pub use terminal::Terminal;
pub use world::World;

/// Longest wait for anything. A machine with twenty times the load needs a part of it, so that only a hang reaches it.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// A program of the host that a test cannot do without.
pub fn need(program: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"])
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("this test needs the program {program:?}; install it"))
}

/// Whether the tests run as root. Every test runs for both kinds of caller.
pub fn is_root() -> bool {
    uid() == 0
}

/// The caller's user ID.
pub fn uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The caller's group ID.
pub fn gid() -> u32 {
    nix::unistd::getegid().as_raw()
}

/// The program under test.
pub const FIM: &str = env!("CARGO_BIN_EXE_fim");
