//! `fim build --profile`: one run of the image, to see what it reads.
//!
//! Everything is packed at the fastest level into an image that nobody but this run sees, with a data directory of its
//! own. Its mount server notes which files are read. Then everything is packed as it is wanted, those files first.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use runtime::image::Image;
use runtime::mount_server::{diagnose, reads};
use runtime::pack::{Input, files_read};
use runtime::session::lock;

use super::{Arguments, Target, child, write};
use crate::draft::Scratch;
use crate::interrupt::Interrupt;
use crate::progress::Listener;
use crate::{Failure, Message};

/// zstd level of the image that is run and thrown away.
const LEVEL: i32 = 1;
/// Most files of a profile: what they are called has to fit into the configuration.
const FILES_MAX: usize = 512;

/// What a run has read: for each layer, paths relative to its root in the order of first reads. Empty without a run.
#[derive(Debug, Default)]
pub(super) struct Profile(Vec<Vec<Vec<u8>>>);

impl Profile {
    /// Whether nothing was read, or nothing was run.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    /// The files of a layer.
    pub(super) fn files(&self, layer: usize) -> &[Vec<u8>] {
        self.0.get(layer).map(Vec::as_slice).unwrap_or_default()
    }
}

/// A command line that begins with a program.
pub(super) fn command(text: &str) -> Result<String, String> {
    let program = text.split_ascii_whitespace().next().filter(|word| !word.starts_with('-'));
    program.map(|_| text.to_owned()).ok_or_else(|| "a program and its arguments are needed".to_owned())
}

/// Whether a run could be watched here at all, before anything is packed for it.
///
/// # Errors
/// When the host has no FUSE.
pub(super) fn check() -> Result<(), Failure> {
    let opened = diagnose::open_fuse().map_err(|error| {
        Message::boxed(format!(
            "cannot profile the start, which the file server of a running image records: {error}; or build without --profile"
        ))
    })?;
    drop(opened);
    Ok(())
}

impl Arguments {
    /// Runs the command of `--profile` in an image of `input`; nothing is run without one.
    ///
    /// # Errors
    /// When the image cannot be made or run, and when the command fails.
    pub(super) fn profile(&self, input: &Input, program: &[u8], interrupt: &Interrupt) -> Result<Profile, Failure> {
        let Some(command) = &self.profile else { return Ok(Profile::default()) };
        let scratch = Scratch::create(&self.output, "profile")?;
        let run = Run { command, place: scratch.path() };
        run.pack(self, input.clone(), program, interrupt)?;
        run.run(self.quiet, interrupt)?;
        run.profile()
    }
}

/// A run of the command, and the directory that holds everything it needs.
struct Run<'a> {
    command: &'a str,
    place: &'a Path,
}

impl Run<'_> {
    fn pack(
        &self,
        arguments: &Arguments,
        mut input: Input,
        program: &[u8],
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let path = self.place.join("image");
        let file = File::options().read(true).write(true).create_new(true).mode(0o700).open(&path);
        let file =
            file.map_err(|error| Message::boxed(format!("cannot create the file {}: {error}", path.display())))?;
        let target = Target { file: &file, path: &path, level: LEVEL, profile: None };
        // Nothing may be read that the command does not read.
        input.config.startup.clear();
        let mut listener = Listener::new(arguments.quiet, interrupt);
        write(arguments, input, program, &target, &mut listener).map(drop)
    }

    /// Runs the command to its end and to that of its session. What it prints goes to stderr.
    fn run(&self, quiet: bool, interrupt: &Interrupt) -> Result<(), Failure> {
        let failed =
            |why: String| Message::boxed(format!("cannot profile `{}`: {why}; nothing was built", self.command));
        let data = self.place.join("data");
        DirBuilder::new().mode(0o700).create(&data).map_err(|error| failed(format!("{}: {error}", data.display())))?;
        let mut command = Command::new(self.place.join("image"));
        command.arg("fim-exec").args(self.command.split_ascii_whitespace()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"FIM_")) {
            command.env_remove(name);
        }
        command.env("FIM_DIR_DATA", &data).env(reads::VARIABLE, self.list());
        if quiet {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        } else {
            command.stdout(io::stderr());
        }
        // The instance ends with its starter, whatever it does to signals.
        let status = child::run(&mut command, Signal::SIGKILL, interrupt);
        // The list is complete, and the data directory in use no more, when the mount server has gone.
        drop(lock::wait(&data, lock::SESSION)?);
        let status = status.map_err(|error| failed(error.to_string()))?;
        if status.success() {
            return Ok(());
        }
        let reason = match status.code() {
            Some(runtime::error::NOT_FOUND) => "there is no such program in the image",
            Some(runtime::error::NOT_EXECUTABLE) => "it cannot be executed",
            Some(runtime::error::FAILURE) => "the image could not be run, see above",
            _ => "it must succeed to be a profile",
        };
        Err(failed(format!("{}: {reason}", child::end(status))))
    }

    fn list(&self) -> std::path::PathBuf {
        self.place.join("reads")
    }

    fn profile(&self) -> Result<Profile, Failure> {
        let mut read = reads::read(&self.list()).map_err(|error| {
            Message::boxed(format!(
                "cannot profile `{}`: the list of files that it has read: {error}; try again, or build without --profile",
                self.command
            ))
        })?;
        read.truncate(FILES_MAX);
        let path = self.place.join("image");
        let file =
            File::open(&path).map_err(|error| Message::boxed(format!("cannot open {}: {error}", path.display())))?;
        let image =
            Image::open(file, &path)?.ok_or_else(|| Message::boxed("the image for the profile has no payload"))?;
        Ok(Profile(files_read(&image, &read)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_needs_a_program() {
        for text in ["true", " sh -c x", "a"] {
            assert!(command(text).is_ok(), "{text:?}");
        }
        for text in ["", "  ", "--detach sleep 1000", " -x"] {
            assert!(command(text).is_err(), "{text:?}");
        }
    }
}
