//! Debian trees for images, made from packages once and kept in a cache.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use super::{TestCommand, is_root, need};

/// A minimal Debian with these packages, made by root under `name` in the cache: other callers read it.
#[track_caller]
pub fn tree(name: &str, packages: &[&str]) -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-cache");
    let cache = PathBuf::from(std::env::var_os("FIM_TEST_CACHE").unwrap_or_else(|| default.into()));
    let tree = cache.join(name);
    if tree.join("etc/debian_version").exists() {
        return tree;
    }
    let include = if packages.is_empty() { String::new() } else { format!("--include={}", packages.join(",")) };
    let options: Vec<&str> = ["--variant=minbase", &include].into_iter().filter(|word| !word.is_empty()).collect();
    assert!(
        is_root(),
        "{} is missing and only root can make it: sudo debootstrap {} stable {0}",
        tree.display(),
        options.join(" ")
    );
    fs::create_dir_all(&cache).unwrap();
    let draft = cache.join(format!("{name}.{}.part", std::process::id()));
    // Downloads and unpacks: longer than anything else that is waited for. It mounts /proc inside the tree, in a
    // mount namespace of its own, so that nothing stays mounted there when it is interrupted.
    let made = std::process::Command::new(need("timeout"))
        .args(["1800", need("unshare").to_str().unwrap(), "--mount", "--", need("debootstrap").to_str().unwrap()])
        .args(options)
        .arg("stable")
        .arg(&draft)
        .stdout(Stdio::null())
        .status();
    assert!(made.unwrap().success(), "debootstrap failed; its log is {}/debootstrap/debootstrap.log", draft.display());
    // Everybody may read all of it, so that every caller packs the same tree.
    TestCommand::new(need("chmod")).args(["-R", "a+rX"]).arg(&draft).run().succeeds();
    fs::rename(&draft, &tree).unwrap();
    tree
}
