//! Shows squashfs images as one mount while a command runs, as the mount server of a session does.
//!
//! ```text
//! serve [--single UID:GID] [--cache BYTES] [--threads N] [--no-read-ahead] [--stats FILE] DIR IMAGE... -- COMMAND...
//! ```
//! The mount exists in namespaces of its own, on DIR, image 0 as `DIR/0`. The exit status is that of the command.
//! `--stats` writes one `name value` line for each figure once the command has ended.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use runtime::fuse::{Options, Owners, mount_data, serve};
use runtime::source::FileRange;
use runtime::squashfs::Archive;

struct Arguments {
    options: Options,
    stats: Option<String>,
    dir: String,
    images: Vec<String>,
    command: Vec<String>,
}

fn main() -> ExitCode {
    log::set_logger(&StandardError).map(|()| log::set_max_level(log::LevelFilter::Warn)).ok();
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("serve: {error}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = arguments()?;
    let mut layers = Vec::new();
    for image in &arguments.images {
        let file = File::open(image).map_err(|error| format!("{image}: {error}"))?;
        layers.push(Arc::new(Archive::open(Arc::new(FileRange::whole(Arc::new(file))?))?));
    }

    own_namespaces()?;
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let device = device.map_err(|error| format!("/dev/fuse: {error}"))?;
    let data = mount_data(device.as_raw_fd(), 0, 0);
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("fim"), arguments.dir.as_str(), Some("fuse"), flags, Some(data.as_str()))
        .map_err(|error| format!("mounting FUSE on {}: {error}", arguments.dir))?;
    let server = serve(device.into(), layers, &arguments.options)?;

    let (program, rest) = arguments.command.split_first().ok_or("no command")?;
    let status = Command::new(program).args(rest).status().map_err(|error| format!("{program}: {error}"))?;
    if let Some(path) = arguments.stats {
        let stats = server.stats();
        let text = format!(
            "blocks_loaded {}\ncache_bytes {}\ncache_peak {}\nprivate_bytes {}\n",
            stats.blocks_loaded,
            stats.cache_bytes,
            stats.cache_peak,
            private_bytes()?
        );
        fs::write(&path, text).map_err(|error| format!("{path}: {error}"))?;
    }
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(125);
    Ok(ExitCode::from(code as u8))
}

/// A user namespace in which the caller is root and every other id is unmapped, and a mount namespace.
fn own_namespaces() -> Result<(), Box<dyn Error>> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    Ok(())
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut options = Options::default();
    let mut stats = None;
    let mut places = Vec::new();
    let mut all = std::env::args().skip(1);
    while let Some(argument) = all.next() {
        let mut value = || all.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--single" => {
                let value = value()?;
                let (uid, gid) = value.split_once(':').ok_or("--single needs UID:GID")?;
                options.owners = Owners::Single { uid: uid.parse()?, gid: gid.parse()? };
            }
            "--cache" => options.cache_bytes = value()?.parse()?,
            "--threads" => options.threads = value()?.parse()?,
            "--no-read-ahead" => options.read_ahead = false,
            "--stats" => stats = Some(value()?),
            "--" => break,
            _ => places.push(argument),
        }
    }
    let command: Vec<_> = all.collect();
    if places.len() < 2 || command.is_empty() {
        return Err("usage: serve [OPTION...] DIR IMAGE... -- COMMAND...".into());
    }
    let dir = places.remove(0);
    Ok(Arguments { options, stats, dir, images: places, command })
}

/// Memory that only this process has, in bytes.
fn private_bytes() -> Result<u64, Box<dyn Error>> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let kib = rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()));
    Ok(kib.sum::<u64>() * 1024)
}

/// Prints log lines.
struct StandardError;

impl log::Log for StandardError {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("serve: {}", record.args());
        }
    }

    fn flush(&self) {}
}
