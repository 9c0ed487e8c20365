//! A mount of the example `serve`, for the tests of the FUSE server.

#![allow(dead_code, reason = "each test program uses a part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A directory with a source tree, images made of it, and a mount point.
pub struct Bench {
    dir: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, contents: &[u8]) {
        let path = self.path("src").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    /// Packs `src` as image `name` and empties it.
    pub fn pack(&self, name: &str, options: &[&str]) -> PathBuf {
        let image = self.path(name);
        let mut command = Command::new("mksquashfs");
        command.arg(self.path("src")).arg(&image).args(["-noappend", "-no-progress", "-quiet", "-comp", "zstd"]);
        succeed(command.args(options), "mksquashfs (package squashfs-tools)");
        image
    }

    pub fn empty_source(&self) {
        fs::remove_dir_all(self.path("src")).unwrap();
        fs::create_dir(self.path("src")).unwrap();
    }

    /// Runs a shell script with the mount on `mnt`, in the directory that holds all of it.
    pub fn serve(&self, options: &[&str], images: &[&Path], script: &str) -> Output {
        let mut command = Command::new(serve_program());
        command.current_dir(self.dir.path()).args(options).arg("mnt").args(images);
        command.args(["--", "sh", "-euc", script]);
        command.output().unwrap_or_else(|error| panic!("{}: {error}", serve_program().display()))
    }

    /// As `serve`, for scripts that must succeed; returns what they print.
    pub fn show(&self, options: &[&str], images: &[&Path], script: &str) -> String {
        let output = self.serve(options, images, script);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}\n{}\n{errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// A figure from `--stats stats`.
    pub fn figure(&self, name: &str) -> u64 {
        let stats = fs::read_to_string(self.path("stats")).unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {stats}"));
        line.trim().parse().unwrap()
    }
}

pub fn serve_program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().with_file_name("examples").join("serve");
    assert!(program.exists(), "{} is missing: cargo build -p runtime --example serve", program.display());
    program
}

pub fn succeed(command: &mut Command, what: &str) {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Bytes that compress about two to one and differ everywhere.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&(state & 0x0f0f_0f0f_0f0f_0f0f).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub fn test_program() -> String {
    std::env::current_exe().unwrap().to_str().unwrap().to_owned()
}

pub fn utf8(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
