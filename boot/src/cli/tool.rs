//! The builder's command line: `fim build`, `extract`, `inspect`, `verify`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use runtime::error::FAILURE;

use crate::{Failure, Invocation, build, doctor, extract};

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
        Command::Verify { image, json } => {
            let sound = crate::verify::run(&image, json, &mut std::io::stdout().lock())?;
            Ok(if sound { 0 } else { FAILURE })
        }
    }
}
