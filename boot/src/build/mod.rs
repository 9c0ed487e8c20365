//! `fim build`: an image from a directory, a tar, a container image, a squashfs or another image.

mod child;
mod config;
mod debian;
mod options;
mod profile;

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

pub use debian::Debian;
pub use options::Variable;
use options::{block_size, platform, size, variable};
use profile::Profile;
use runtime::image::{ImageWriter, LayerFacts, PermissionSet, WriterOptions};
use runtime::mount_server::MAX_LAYERS;
use runtime::pack::{self, Choice, Epoch, Input, Intake, Platform, Source};

use crate::draft::{Draft, Use, is_disk_full};
use crate::interrupt::Interrupt;
use crate::progress::Listener;
use crate::settings::sets;
use crate::{Failure, Message};

/// What to build.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A directory, a tar archive (plain, gzip, xz or zstd), a container image (an OCI image layout as a directory or an
    /// archive, or what docker save writes), a squashfs file, an AppImage or an image of fim's own; of several, each
    /// lies on top of those before it
    #[arg(required_unless_present = "debian", value_name = "SOURCE")]
    pub sources: Vec<PathBuf>,
    /// A Debian below the sources
    #[command(flatten)]
    pub debian: Debian,
    /// The image file to make
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Name of the application [default: the output's name without its ending]
    #[arg(long)]
    pub name: Option<String>,
    /// Version of the application: letters, digits and the signs + - _ ~, in parts joined by points [default: the
    /// source's own]
    #[arg(long, value_parser = crate::publisher::version)]
    pub version: Option<String>,
    /// Boot command, split at blanks; use --boot-arg for arguments that hold some [default: the source's own]
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
    /// What the guest may reach: names separated by commas, or all
    #[arg(long, value_name = "NAMES", value_parser = sets::permissions)]
    pub perms: Vec<PermissionSet>,
    /// A variable of the guest's environment; may be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable())]
    pub env: Vec<Variable>,
    /// Of a source with several images, the one with this name
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,
    /// Of a source with several images, the one for this platform [default: this program's]
    #[arg(long, value_name = "OS/ARCH", value_parser = platform)]
    pub platform: Option<Platform>,
    /// Bytes that a compressed source may unpack to, with K, M, G or T [default: 200 times its size, at least 1G]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_unpacked: Option<u64>,
    /// Merge all layers into one
    #[arg(long)]
    pub squash: bool,
    /// Compress what a start reads first like everything else
    #[arg(long, conflicts_with = "profile")]
    pub no_startup_set: bool,
    /// Run this command once, split at blanks, in the image and with data of its own, and store what it reads as a start
    /// reads it best: uncompressed, next to each other, and first, as far as 3 % or 3 MiB of growth allow. What it prints
    /// goes to stderr; it must succeed
    #[arg(long, value_name = "COMMAND", value_parser = profile::command)]
    pub profile: Option<String>,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    /// No progress bar and no result line
    #[arg(short, long)]
    pub quiet: bool,
}

/// An image.
const OUTPUT: Use = Use { mode: 0o777, fix: "give another --output, or --force to replace it" };

/// Builds.
///
/// # Errors
/// Whatever keeps the image from being complete; the output is then as it was before.
pub fn run(arguments: &Arguments) -> Result<i32, Failure> {
    let output = &arguments.output;
    refuse_unwanted(arguments)?;
    if arguments.profile.is_some() {
        profile::check()?;
    }
    let mut sources = arguments.sources.iter().map(|path| Source::detect(path)).collect::<Result<Vec<_>, _>>()?;
    let program =
        fs::read("/proc/self/exe").map_err(|error| Message::boxed(format!("cannot read this program: {error}")))?;
    // Dropped last, so that a signal finds the draft gone.
    let interrupt = Interrupt::hold()?;
    let draft = Draft::create(output, OUTPUT)?;
    // Dropped when it is packed.
    let base = arguments.debian.make(output, &interrupt)?;
    sources.splice(0..0, base.iter().map(|base| base.source.clone()));
    let mut listener = Listener::new(arguments.quiet, &interrupt);
    let opened = open(arguments, sources, &mut listener);
    drop(listener);
    let written = opened.and_then(|input| {
        let profile = arguments.profile(&input, &program, &interrupt)?;
        let target = Target { file: &draft.file, path: output, level: arguments.level, profile: Some(&profile) };
        write(arguments, input, &program, &target, &mut Listener::new(arguments.quiet, &interrupt))
    });
    drop(base);
    let built = written.map_err(|error| explain(error, arguments, &draft))?;
    draft.complete(arguments.force)?;
    drop(interrupt);
    if !built.unkept.is_empty() && !arguments.quiet {
        let sources: Vec<String> = arguments.sources.iter().map(|path| path.display().to_string()).collect();
        crate::report(&format!("note: of {}, an image does not keep {}", sources.join(" "), built.unkept));
    }
    if built.shell == Some(false) && !built.boots {
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
    // How far a directory or a tar gets smaller is not known before; a squashfs is copied as it is.
    let sizes: Option<Vec<u64>> = arguments
        .sources
        .iter()
        .map(|path| fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len()))
        .collect();
    let needed = sizes.map_or_else(String::new, |sizes| {
        format!("; the source has {} bytes", sizes.iter().fold(0, |sum: u64, size| sum.saturating_add(*size)))
    });
    Message::boxed(format!(
        "cannot write {}: the file system is full or over quota after {written} bytes{needed}; free some space or \
         choose another --output; nothing was left",
        arguments.output.display()
    ))
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
    for source in arguments.sources.iter().filter(|source| source.is_dir()) {
        if pack::contains(source, output).map_err(unfound)? {
            return Err(Message::boxed(format!(
                "the output {} lies inside the source {}; it would pack itself: choose a place outside",
                output.display(),
                source.display()
            )));
        }
    }
    Ok(())
}

/// Looks into the sources and stacks them.
fn open(arguments: &Arguments, sources: Vec<Source>, listener: &mut Listener<'_>) -> Result<Input, Failure> {
    let mut stack: Option<Input> = None;
    for source in sources {
        let scratch = Draft::scratch(&arguments.output)?;
        let intake = Intake { scratch, limit: arguments.max_unpacked, choice: choice(arguments) };
        let input = source.open(intake, listener)?;
        match &mut stack {
            Some(stack) => stack.stack(input),
            None => stack = Some(input),
        }
    }
    let mut input = stack.ok_or_else(|| Message::boxed("there is no source to build from"))?;
    if arguments.squash {
        input.squash()?;
    }
    if input.layers.len() > MAX_LAYERS {
        return Err(Message::boxed(format!(
            "the image would have {} layers, and {MAX_LAYERS} can be mounted; give --squash to merge them",
            input.layers.len()
        )));
    }
    Ok(input)
}

fn choice(arguments: &Arguments) -> Choice {
    let default = Choice::default();
    Choice { name: arguments.tag.clone(), platform: arguments.platform.clone().unwrap_or(default.platform) }
}

/// What came out.
struct Built {
    /// The result in one line.
    line: String,
    shell: Option<bool>,
    /// Whether there is a boot command.
    boots: bool,
    /// What of the source is not in the image.
    unkept: String,
}

/// An image that is to be written.
struct Target<'a> {
    file: &'a File,
    /// What messages call it.
    path: &'a Path,
    /// zstd level.
    level: i32,
    /// What a run has read; without, there is no start-up set at all.
    profile: Option<&'a Profile>,
}

fn write(
    arguments: &Arguments,
    input: Input,
    program: &[u8],
    target: &Target<'_>,
    listener: &mut Listener<'_>,
) -> Result<Built, Failure> {
    let epoch = Epoch::from_environment()?;
    let created = match epoch {
        Epoch::Fixed(seconds) => u64::from(seconds),
        Epoch::Newest => 0,
    };
    let options = WriterOptions { created, ..WriterOptions::default() };
    let mut writer = ImageWriter::create(target.file.try_clone()?, target.path, program, options)?;
    let mut config = config::config(arguments, input.config);
    let mut packing = pack::Options { epoch, ..pack::Options::default() };
    packing.squashfs.block_size = arguments.block_size;
    packing.squashfs.level = target.level;
    if let Some(threads) = arguments.threads {
        packing.squashfs.threads = threads;
    }
    let profile = target.profile.filter(|_| !arguments.no_startup_set);
    // What a run has read goes before what an image among the sources brings along.
    let ran = profile.is_some_and(|profile| !profile.is_empty());
    let brought = if ran { std::mem::take(&mut config.startup) } else { Vec::new() };
    let (mut inodes, mut unpacked, mut shell) = (0, Some(0), Some(false));
    for (index, layer) in input.layers.into_iter().enumerate() {
        let read = profile.map(|profile| profile.files(index));
        packing.startup = read.map(|read| config::startup(&config, read));
        let kind = layer.kind();
        let packed = layer.pack(writer.file(), writer.layer_offset(), &packing, listener)?;
        let facts = LayerFacts { kind, unpacked: packed.unpacked_bytes.unwrap_or_default(), inodes: packed.inodes };
        writer.seal_layer(packed.bytes_padded, facts)?;
        // A layer that is copied has no start-up set of its own.
        let copied = read.filter(|_| packed.files.is_none()).unwrap_or_default();
        config.begin_with(packed.startup);
        config.begin_with(copied.to_vec());
        inodes += facts.inodes;
        unpacked = unpacked.zip(packed.unpacked_bytes).map(|(sum, bytes)| sum + bytes);
        // One layer that has a shell is enough, and one of which it is not known may have it.
        shell = match (shell, packed.shell) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), packed) => packed,
            (None, _) => None,
        };
    }
    config.begin_with(brought);
    let boots = config.boot.is_some();
    writer.finish(config)?;
    let size = target.file.metadata()?.len();
    let content = unpacked.map_or_else(String::new, |bytes| format!(" with {bytes} bytes"));
    let line = format!("{}: {inodes} inodes{content} packed into {size}\n", arguments.output.display());
    let unkept: Vec<String> = input.unkept.iter().map(ToString::to_string).collect();
    Ok(Built { line, shell, boots, unkept: unkept.join("; ") })
}
