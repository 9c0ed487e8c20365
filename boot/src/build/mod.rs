//! `fim build`: an image from a directory, a tar or a squashfs.

mod draft;
mod options;

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;

use draft::Draft;
pub use options::Variable;
use options::{block_size, permission, variable, words};
use runtime::image::{Boot, Config, ImageWriter, LayerFacts, LayerKind, Permission, WriterOptions};
use runtime::pack::{self, Epoch, Source, Startup};

use crate::interrupt::Interrupt;
use crate::launch::environment;
use crate::progress::Listener;
use crate::{Failure, Message};

/// What to build.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A directory, a tar archive (plain, gzip, xz or zstd) or a squashfs file
    pub source: PathBuf,
    /// The image file to make
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Name of the application [default: the output's name without its ending]
    #[arg(long)]
    pub name: Option<String>,
    /// Boot command, split at blanks; use --boot-arg for arguments that hold some
    #[arg(long, value_name = "COMMAND")]
    pub boot: Option<OsString>,
    /// One more argument of the boot command
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub boot_arg: Vec<OsString>,
    /// zstd level, 1 to 22
    #[arg(long, default_value_t = 19, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub level: i32,
    /// Block size: 4K to 1M, a power of two
    #[arg(long, default_value = "128K", value_parser = block_size)]
    pub block_size: u32,
    /// Threads that compress, 1 to 1024 [default: one a core]
    #[arg(long, value_name = "NUMBER")]
    pub threads: Option<usize>,
    /// What the guest may reach, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = permission)]
    pub perms: Vec<Permission>,
    /// A variable of the guest's environment; may be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable())]
    pub env: Vec<Variable>,
    /// Compress what a start reads first (found in directories only) like everything else
    #[arg(long)]
    pub no_startup_set: bool,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    /// No progress bar and no result line
    #[arg(short, long)]
    pub quiet: bool,
}

/// Builds.
///
/// # Errors
/// Whatever keeps the image from being complete; the output is then as it was before.
pub fn run(arguments: &Arguments) -> Result<i32, Failure> {
    let output = &arguments.output;
    refuse_unwanted(arguments)?;
    let source = Source::detect(&arguments.source)?;
    let program =
        fs::read("/proc/self/exe").map_err(|error| Message::boxed(format!("cannot read this program: {error}")))?;
    // Dropped last, so that a signal finds the draft gone.
    let interrupt = Interrupt::hold()?;
    let draft = Draft::create(output)?;
    let written = write(arguments, &source, &program, &draft, &interrupt);
    let built = written.map_err(|error| explain(error, arguments, &draft))?;
    draft.complete(arguments.force)?;
    drop(interrupt);
    if built.shell == Some(false) && arguments.boot.is_none() && arguments.boot_arg.is_empty() {
        crate::report(&format!(
            "warning: {} has neither a shell (/bin/bash, /bin/sh) nor a boot command; it starts with \
             `fim-exec PROGRAM` only: give --boot",
            output.display()
        ));
    }
    if !arguments.quiet {
        crate::cli::print(&built.line)?;
    }
    Ok(0)
}

/// The error, with the output's name where the disk is full.
fn explain(error: Failure, arguments: &Arguments, draft: &Draft) -> Failure {
    if !is_disk_full(error.as_ref()) {
        return error;
    }
    let written = draft.file.metadata().map_or(0, |metadata| metadata.len());
    let needed = fs::metadata(&arguments.source).ok().filter(fs::Metadata::is_file);
    // How far a directory or a tar gets smaller is not known before; a squashfs is copied as it is.
    let needed = needed.map_or_else(String::new, |metadata| format!("; the source has {} bytes", metadata.len()));
    Message::boxed(format!(
        "cannot write {}: the file system is full or over quota after {written} bytes{needed}; free some space or \
         choose another --output; nothing was left",
        arguments.output.display()
    ))
}

fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        next = error.source();
    }
    false
}

fn refuse_unwanted(arguments: &Arguments) -> Result<(), Failure> {
    let output = &arguments.output;
    if fs::symlink_metadata(output).is_ok() && !arguments.force {
        return Err(Message::boxed(format!(
            "{} exists; give another --output, or --force to replace it",
            output.display()
        )));
    }
    if fs::metadata(output).is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Message::boxed(format!("{} is a directory; name a file", output.display())));
    }
    let unfound = |error| {
        let shown = output.display();
        Message::boxed(format!("cannot create {shown}: {error}; the output's directory must exist and be writable"))
    };
    if arguments.source.is_dir() && pack::contains(&arguments.source, output).map_err(unfound)? {
        return Err(Message::boxed(format!(
            "the output {} lies inside the source {}; it would pack itself: choose a place outside",
            output.display(),
            arguments.source.display()
        )));
    }
    Ok(())
}

/// What came out.
struct Built {
    /// The result in one line.
    line: String,
    shell: Option<bool>,
}

fn write(
    arguments: &Arguments,
    source: &Source,
    program: &[u8],
    draft: &Draft,
    interrupt: &Interrupt,
) -> Result<Built, Failure> {
    let epoch = Epoch::from_environment()?;
    let created = match epoch {
        Epoch::Fixed(seconds) => u64::from(seconds),
        Epoch::Newest => 0,
    };
    let options = WriterOptions { created, ..WriterOptions::default() };
    let mut writer = ImageWriter::create(draft.file.try_clone()?, &arguments.output, program, options)?;
    let config = config(arguments);
    let mut packing = pack::Options { epoch, ..pack::Options::default() };
    packing.squashfs.block_size = arguments.block_size;
    packing.squashfs.level = arguments.level;
    if let Some(threads) = arguments.threads {
        packing.squashfs.threads = threads;
    }
    packing.startup = (!arguments.no_startup_set).then(|| startup(&config));
    let mut listener = Listener::new(arguments.quiet, interrupt);
    let packed = pack::pack(source, writer.file(), writer.layer_offset(), &packing, &mut listener)?;
    drop(listener);
    let facts = LayerFacts {
        kind: LayerKind::Squashfs,
        unpacked: packed.unpacked_bytes.unwrap_or_default(),
        inodes: u64::from(packed.inodes),
    };
    writer.seal_layer(packed.bytes_padded, facts)?;
    writer.finish(config)?;
    let size = draft.file.metadata()?.len();
    let content = packed.unpacked_bytes.map_or_else(String::new, |bytes| format!(" with {bytes} bytes"));
    let line = format!("{}: {} inodes{content} packed into {size}\n", arguments.output.display(), packed.inodes);
    Ok(Built { line, shell: packed.shell })
}

/// What the image starts with, looked up where a guest looks.
fn startup(config: &Config) -> Startup {
    let own = config.env.iter().find(|(name, _)| name == b"PATH").map(|(_, value)| value.clone());
    let path = own.unwrap_or_else(|| environment::PATH.into());
    Startup {
        command: config.boot.as_ref().map(|boot| boot.program.clone()),
        path: path.split(|byte| *byte == b':').map(<[u8]>::to_vec).collect(),
    }
}

fn config(arguments: &Arguments) -> Config {
    let stem = arguments.output.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut config = Config { name: arguments.name.clone().unwrap_or(stem), ..Config::default() };
    let boot = words(arguments.boot.as_ref(), &arguments.boot_arg);
    if let Some((program, args)) = boot.split_first() {
        config.boot = Some(Boot { program: program.clone(), args: args.to_vec() });
    }
    for permission in &arguments.perms {
        config.permissions.insert(*permission);
    }
    for Variable { name, value } in &arguments.env {
        config.env.retain(|(stored, _)| stored != name);
        config.env.push((name.clone(), value.clone()));
    }
    config
}
