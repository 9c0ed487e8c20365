//! A minimal Debian as the lowest source, made by mmdebstrap or debootstrap of the host.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use runtime::pack::Source;

use super::child;
use crate::draft::{Draft, Scratch};
use crate::interrupt::Interrupt;
use crate::{Failure, Message, host_program};

/// Longest end of a log that a message shows, in bytes.
const SHOWN: usize = 400;

/// What to make.
#[derive(Debug, Clone, clap::Args)]
pub struct Debian {
    /// Put a minimal Debian with these packages below the sources, by mmdebstrap or debootstrap of the host
    #[arg(long, value_name = "PACKAGES", value_delimiter = ',', value_parser = package)]
    pub debian: Option<Vec<String>>,
    /// Its release
    #[arg(long, value_name = "NAME", default_value = "stable", requires = "debian", value_parser = word)]
    pub suite: String,
    /// Where its packages come from [default: that of the tool]
    #[arg(long, value_name = "URL", requires = "debian", value_parser = word)]
    pub mirror: Option<String>,
}

/// The name of a package, with a version or an architecture as apt takes them; empty for none.
fn package(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.:~=/_".contains(&byte);
    let begins = text.as_bytes().first().is_none_or(u8::is_ascii_alphanumeric);
    if begins && text.bytes().all(fits) { Ok(text.to_owned()) } else { Err("this is no name of a package".to_owned()) }
}

/// Something that cannot be taken for an option.
fn word(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && !text.starts_with('-') && !text.contains(char::is_whitespace);
    if fits { Ok(text.to_owned()) } else { Err("a word that does not begin with - is needed".to_owned()) }
}

/// A Debian that was made. Dropping it removes what it lies in.
pub(super) struct Made {
    /// What is packed.
    pub source: Source,
    _archive: Option<File>,
    _tree: Option<Scratch>,
}

impl Debian {
    /// Makes it, with `output`'s directory as the place for what is needed in between; `None` when it is not wanted.
    ///
    /// # Errors
    /// When the host has no tool that the caller can use, or the tool fails.
    pub(super) fn make(&self, output: &Path, interrupt: &Interrupt) -> Result<Option<Made>, Failure> {
        let Some(packages) = &self.debian else { return Ok(None) };
        let packages: Vec<&str> = packages.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        let include = (!packages.is_empty()).then(|| format!("--include={}", packages.join(",")));
        let made = match (host_program::find("mmdebstrap"), host_program::find("debootstrap")) {
            (Some(tool), _) => self.mmdebstrap(&tool, include, output, interrupt)?,
            (None, Some(tool)) if geteuid().is_root() => self.debootstrap(&tool, include, output, interrupt)?,
            (None, Some(_)) => {
                return Err(Message::boxed(
                    "cannot make a Debian: debootstrap needs root; run this as root, or install mmdebstrap, which does not",
                ));
            }
            (None, None) => {
                return Err(Message::boxed(
                    "cannot make a Debian: the host has neither mmdebstrap nor debootstrap; \
                     try: sudo apt-get install mmdebstrap (other distributions have both, too)",
                ));
            }
        };
        Ok(Some(made))
    }

    /// It writes a tar to its standard output, which is a file without a name.
    fn mmdebstrap(
        &self,
        tool: &Path,
        include: Option<String>,
        output: &Path,
        interrupt: &Interrupt,
    ) -> Result<Made, Failure> {
        let archive = Draft::scratch(output)?;
        let mut command = Command::new(tool);
        command.args(["--variant=minbase", "--format=tar"]).args(include).arg(&self.suite).arg("-").args(&self.mirror);
        command.stdout(archive.try_clone()?);
        run(command, tool, output, interrupt)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", archive.as_raw_fd()));
        Ok(Made { source: Source::Tar(path), _archive: Some(archive), _tree: None })
    }

    /// It makes a directory. In a mount namespace of its own, so that nothing it mounts there stays when it is killed.
    fn debootstrap(
        &self,
        tool: &Path,
        include: Option<String>,
        output: &Path,
        interrupt: &Interrupt,
    ) -> Result<Made, Failure> {
        let unshare = host_program::find("unshare")
            .ok_or_else(|| Message::boxed("cannot make a Debian: unshare is missing; install util-linux"))?;
        let scratch = Scratch::create(output, "debian")?;
        let tree = scratch.path();
        let mut command = Command::new(unshare);
        command.args(["--mount", "--"]).arg(tool).arg("--variant=minbase").args(include).arg(&self.suite).arg(tree);
        command.args(&self.mirror).stdout(Stdio::null());
        run(command, tool, output, interrupt)?;
        // What was downloaded would only make the image bigger.
        for entry in fs::read_dir(tree.join("var/cache/apt/archives")).into_iter().flatten().flatten() {
            if entry.path().extension() == Some(OsStr::new("deb")) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Made { source: Source::Directory(tree.to_owned()), _archive: None, _tree: Some(scratch) })
    }
}

/// Runs the tool to its end, or until a signal wants an end.
fn run(mut command: Command, tool: &Path, output: &Path, interrupt: &Interrupt) -> Result<(), Failure> {
    let shown = tool.display();
    let mut log = Draft::scratch(output)?;
    command.stdin(Stdio::null()).stderr(log.try_clone()?);
    command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
    // It cleans up when it is asked to end.
    let status = child::run(&mut command, Signal::SIGTERM, interrupt)
        .map_err(|error| Message::boxed(format!("cannot run {shown}: {error}")))?;
    if status.success() {
        return Ok(());
    }
    let end = child::end(status);
    let mut text = Vec::new();
    log.seek(SeekFrom::Start(0)).and_then(|_| log.read_to_end(&mut text))?;
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(SHOWN)..]).trim().replace('\n', " / ");
    Err(Message::boxed(format!(
        "{shown} failed with {end}: {text}; the packages and the release must exist, and the network must work"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_names_that_are_no_options() {
        for name in ["bash", "g++", "libc6:i386", "vim=2:9.0-1", "python3/stable", ""] {
            assert!(package(name).is_ok(), "{name}");
        }
        for name in ["-x", "--include", "a b", "a;b", "a,b", "$(x)", "ä"] {
            assert!(package(name).is_err(), "{name}");
        }
        assert!(word("stable").is_ok() && word("--help").is_err() && word("").is_err());
    }
}
