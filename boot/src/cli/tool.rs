//! The builder's command line: `fim build`, `sign`, `extract`, `inspect`, `verify` and the like.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use runtime::error::FAILURE;

use crate::{Failure, Invocation, build, doctor, extract, publisher};

/// Makes and examines single-file applications.
#[derive(Debug, Parser)]
#[command(name = "fim", version, disable_help_subcommand = true)]
pub(super) struct Tool {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an image from a directory, an archive, a container image or another image
    Build(Box<build::Arguments>),
    /// Unpack the merged layers of an image into a directory
    Extract(extract::Arguments),
    /// Try on this host what a start of an image needs; exit code 125 when it cannot run here
    Doctor {
        /// The image
        image: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print what an image holds, without running it
    Inspect {
        /// The image
        image: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Re-compute every digest of an image; exit code 125 when it is damaged
    Verify {
        /// The image
        image: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Exit code 125 unless the owner of this public key has signed the image
        #[arg(long, value_name = "FILE.pub")]
        key: Option<PathBuf>,
    },
    /// Make the keys of a publisher: FILE, which is secret, and FILE.pub
    KeyPair {
        /// Where the secret key goes; no file is overwritten
        file: PathBuf,
    },
    /// Vouch for an image as its publisher
    Sign {
        /// The image
        image: PathBuf,
        /// The secret key, as fim key-pair makes it
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Give the application this version
        #[arg(long, value_parser = publisher::version)]
        version: Option<String>,
    },
}

/// Runs the builder's command line; returns its exit code.
///
/// # Errors
/// Whatever the command fails with.
pub fn run(args: &[OsString]) -> Result<i32, Failure> {
    let tool = match Tool::try_parse_from(args) {
        Ok(tool) => tool,
        Err(error) => {
            // Help and version are results; everything else is a wrong call.
            let code = if error.use_stderr() { FAILURE } else { 0 };
            let _ = error.print();
            return Ok(code);
        }
    };
    match tool.command {
        Command::Build(arguments) => build::run(&arguments),
        Command::Extract(arguments) => extract::run(&arguments),
        Command::Doctor { image, json } => doctor::examine(&Invocation::of(&image)?, json),
        Command::Inspect { image, json } => {
            crate::inspect::run(&image, json, &mut std::io::stdout().lock())?;
            Ok(0)
        }
        Command::Verify { image, json, key } => {
            let key = key.map(|key| publisher::public_key(&key)).transpose()?;
            let sound = crate::verify::run(&image, json, key, &mut std::io::stdout().lock())?;
            Ok(if sound { 0 } else { FAILURE })
        }
        Command::KeyPair { file } => publisher::pair(&file),
        Command::Sign { image, key, version } => publisher::sign(&image, &key, version),
    }
}
