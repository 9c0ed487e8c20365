//! `fim build`: an image from a directory, a tar or a squashfs.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use runtime::image::{Boot, Config, ImageWriter, LayerFacts, LayerKind, NamedBit, Permission, WriterOptions};
use runtime::pack::{self, Epoch, Source};

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
    /// Threads that compress [default: one a core]
    #[arg(long)]
    pub threads: Option<usize>,
    /// What the guest may reach, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = permission)]
    pub perms: Vec<Permission>,
    /// A variable of the guest's environment; may be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<Variable>,
    /// Replace the output if it exists
    #[arg(short, long)]
    pub force: bool,
    /// No progress bar
    #[arg(short, long)]
    pub quiet: bool,
}

/// One variable of the environment.
#[derive(Debug, Clone)]
pub struct Variable(String, String);

fn block_size(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 1024),
        None => match text.strip_suffix(['M', 'm']) {
            Some(digits) => (digits, 1024 * 1024),
            None => (text, 1),
        },
    };
    let bytes = digits.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|bytes| bytes.is_power_of_two() && (4096..=1_048_576).contains(bytes))
        .ok_or_else(|| "a power of two from 4K to 1M is needed".to_owned())
}

fn permission(text: &str) -> Result<Permission, String> {
    Permission::ALL.iter().copied().find(|permission| permission.name() == text.to_ascii_lowercase()).ok_or_else(|| {
        let names: Vec<&str> = Permission::ALL.iter().map(|permission| permission.name()).collect();
        format!("Invalid permission; one of {}", names.join(" "))
    })
}

fn variable(text: &str) -> Result<Variable, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(Variable(name.to_owned(), value.to_owned())),
        _ => Err(format!("Variable assignment '{text}' is invalid")),
    }
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
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let draft = Draft::create(parent, output)?;
    let summary = write(arguments, &source, &program, &draft)?;
    draft.complete(output)?;
    if !arguments.quiet {
        crate::cli::print(&summary)?;
    }
    Ok(0)
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
    let inside = |error: std::io::Error| {
        Message::boxed(format!("cannot create {}: {error}; the output's directory must exist", output.display()))
    };
    if arguments.source.is_dir() && pack::contains(&arguments.source, output).map_err(inside)? {
        return Err(Message::boxed(format!(
            "the output {} lies inside the source {}; it would pack itself: choose a place outside",
            output.display(),
            arguments.source.display()
        )));
    }
    Ok(())
}

fn write(arguments: &Arguments, source: &Source, program: &[u8], draft: &Draft) -> Result<String, Failure> {
    let epoch = Epoch::from_environment()?;
    let created = match epoch {
        Epoch::Fixed(seconds) => u64::from(seconds),
        Epoch::Newest => 0,
    };
    let options = WriterOptions { created, ..WriterOptions::default() };
    let mut writer = ImageWriter::create(draft.file.try_clone()?, &arguments.output, program, options)?;
    let mut packing = pack::Options { epoch, ..pack::Options::default() };
    packing.squashfs.block_size = arguments.block_size;
    packing.squashfs.level = arguments.level;
    if let Some(threads) = arguments.threads {
        packing.squashfs.threads = threads.max(1);
    }
    let interrupt = crate::interrupt::Interrupt::hold()?;
    let mut bar = crate::progress::Listener::new(arguments.quiet, &interrupt);
    let packed = pack::pack(source, writer.file(), writer.layer_offset(), &packing, &mut bar)?;
    let facts = LayerFacts {
        kind: LayerKind::Squashfs,
        unpacked: packed.unpacked_bytes.unwrap_or_default(),
        inodes: u64::from(packed.inodes),
    };
    writer.seal_layer(packed.bytes_padded, facts)?;
    drop(bar);
    writer.finish(config(arguments))?;
    let size = draft.file.metadata()?.len();
    Ok(format!(
        "{}: {} inodes, {} bytes packed into {size}\n",
        arguments.output.display(),
        packed.inodes,
        packed.unpacked_bytes.unwrap_or_default()
    ))
}

fn config(arguments: &Arguments) -> Config {
    let stem = arguments.output.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut config = Config { name: arguments.name.clone().unwrap_or(stem), ..Config::default() };
    let boot: Vec<Vec<u8>> = arguments
        .boot
        .iter()
        .flat_map(|command| {
            let words = command.clone().into_vec();
            words
                .split(|byte| byte.is_ascii_whitespace())
                .filter(|word| !word.is_empty())
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>()
        })
        .chain(arguments.boot_arg.iter().map(|word| word.clone().into_vec()))
        .collect();
    if let Some((program, args)) = boot.split_first() {
        config.boot = Some(Boot { program: program.clone(), args: args.to_vec() });
    }
    for permission in &arguments.perms {
        config.permissions.insert(*permission);
    }
    for Variable(name, value) in &arguments.env {
        config.env.retain(|(stored, _)| stored != name.as_bytes());
        config.env.push((name.clone().into_bytes(), value.clone().into_bytes()));
    }
    config
}

/// The output while it is not complete: a file without a name that others could open, in the output's directory.
struct Draft {
    file: File,
    path: PathBuf,
}

impl Draft {
    fn create(parent: &Path, output: &Path) -> Result<Self, Failure> {
        let mut name = OsString::from(".");
        name.push(output.file_name().unwrap_or_default());
        name.push(format!(".{}.part", std::process::id()));
        let path = parent.join(name);
        let file =
            File::options().read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(|error| {
                Message::boxed(format!(
                    "cannot create {}: {error}; the output's directory must be writable",
                    path.display()
                ))
            })?;
        Ok(Self { file, path })
    }

    /// Gives the complete file its name.
    fn complete(self, output: &Path) -> Result<(), Failure> {
        let umask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o777));
        nix::sys::stat::umask(umask);
        self.file.set_permissions(fs::Permissions::from_mode(0o777 & !umask.bits()))?;
        let failed = |error: std::io::Error| Message::boxed(format!("cannot complete {}: {error}", output.display()));
        (&self.file).flush().and_then(|()| self.file.sync_all()).map_err(failed)?;
        fs::rename(&self.path, output).map_err(failed)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone already when it was completed.
        let _ = fs::remove_file(&self.path);
    }
}
