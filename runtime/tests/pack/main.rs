//! Packing, checked with `unsquashfs` (package squashfs-tools) and GNU tar.

mod pack_container;
mod pack_directory;
mod pack_failures;
mod pack_tar;
mod tree;

use runtime::pack::{Choice, Epoch, Error, Intake, Layer, Options, Source, Summary};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs a program; its absence or failure fails the test.
fn run(command: &mut Command, package: &str) -> Output {
    let program = command.get_program().to_owned();
    let output = command.env("TZ", "UTC").env("LC_ALL", "C").output();
    let output = output.unwrap_or_else(|error| panic!("{program:?}: {error} (these tests need the package {package})"));
    assert!(output.status.success(), "{program:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn unsquashfs() -> Command {
    let mut command = Command::new("unsquashfs");
    command.arg("-no-progress");
    command
}

/// The names, types, modes, owners, sizes and times in a squashfs, one a line.
fn listing(image: &Path) -> String {
    let output = run(unsquashfs().args(["-lln", "-d", "root"]).arg(image), "squashfs-tools");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Unpacks a squashfs that begins at `offset` and returns where.
fn unpack(image: &Path, offset: u64, work: &Path) -> PathBuf {
    let target = work.join("unpacked");
    let mut command = unsquashfs();
    // Only root makes device nodes; that it cannot is no fatal error to unsquashfs.
    if !nix::unistd::geteuid().is_root() {
        command.arg("-no-exit-code");
    }
    run(command.arg("-o").arg(offset.to_string()).arg("-d").arg(&target).arg(image), "squashfs-tools");
    target
}

/// Options that make tests quick.
fn options(threads: usize) -> Options {
    let squashfs = runtime::squashfs::write::Options { level: 3, threads, ..Default::default() };
    Options { squashfs, ..Options::default() }
}

/// Packs whatever is at `source` into a new file.
fn pack_to(source: &Path, image: &Path, options: &Options) -> Result<Summary, Error> {
    // A new file: some file systems write a truncated one to the disk at once, which takes long.
    let _ = std::fs::remove_file(image);
    let out = File::options().read(true).write(true).create_new(true).open(image).unwrap();
    layer(source)?.pack(&out, 0, options, &mut ())
}

/// What is at `source`, looked into. It must have one layer.
fn layer(source: &Path) -> Result<Layer, Error> {
    layer_within(source, None)
}

/// The same with a limit to what it may unpack to.
fn layer_within(source: &Path, limit: Option<u64>) -> Result<Layer, Error> {
    let intake = Intake { scratch: tempfile::tempfile().unwrap(), limit, choice: Choice::default() };
    let mut layers = Source::detect(source)?.open(intake, &mut ())?.layers;
    assert_eq!(layers.len(), 1);
    Ok(layers.remove(0))
}

/// Whether an archive has a table of nanoseconds.
fn has_nanoseconds(archive: &[u8]) -> bool {
    let inodes = u64::from_le_bytes(archive[64..72].try_into().unwrap()) as usize;
    archive[..inodes - 24].ends_with(b"FIMNSEC\n")
}

/// The error and its sources, as the program prints them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn fixed(epoch: u32, threads: usize) -> Options {
    Options { epoch: Epoch::Fixed(epoch), ..options(threads) }
}
