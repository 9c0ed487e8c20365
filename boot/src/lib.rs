//! Command line, launch plan and client side of fim.

#![forbid(unsafe_code)]

mod agreement;
mod alias;
pub mod build;
mod cache;
pub mod cli;
mod content;
mod data;
pub mod doctor;
mod draft;
pub mod extract;
mod fetch;
mod hook;
mod host_program;
pub mod inspect;
pub mod instance;
mod interrupt;
mod key;
pub mod launch;
mod layer;
mod layout;
mod limit;
pub mod oci;
mod percent;
mod port;
pub mod portal;
mod progress;
mod publisher;
mod service;
pub mod settings;
mod stack;
pub mod stage;
pub mod verify;
pub mod version;

use std::ffi::OsString;
use std::fmt::Display;

use runtime::error::FAILURE;
use runtime::image::Config;
use runtime::installation::{Asked, Installation};

/// The programs of the other roles, which are entered by fork from here.
#[derive(Debug, Clone, Copy)]
pub struct Roles {
    /// PID 1 of an instance.
    pub guest: fn(&runtime::instance::Start) -> i32,
    /// The host daemon of a session.
    pub host: fn(runtime::host::Start) -> i32,
    /// The proxy of an instance's published ports.
    pub ports: fn(runtime::ports::Start) -> i32,
}

/// What a failing command prints; the exit code is 125.
pub type Failure = Box<dyn std::error::Error>;

/// Runs the program; returns its exit code.
#[must_use]
pub fn run(roles: Roles, build: version::Build) -> i32 {
    runtime::journal::install(std::env::var_os("FIM_DEBUG").is_some_and(|value| value == "1"));
    let outcome = stage::enter(std::env::args_os().collect()).and_then(|stage| match stage {
        stage::Stage::Tool { args } => cli::tool::run(&args),
        stage::Stage::PortalClient { args } => portal::client::run(&args),
        stage::Stage::Image { invocation } => cli::dispatch(&invocation, roles, build),
    });
    outcome.unwrap_or_else(|error| {
        report(&limit::with_remedy(runtime::error::chain(error.as_ref())));
        FAILURE
    })
}

/// Prints one line for the user on stderr. A closed stderr is the user's choice.
pub fn report(text: &dyn Display) {
    use std::io::Write;
    // By one system call: others write there, too.
    let _ = std::io::stderr().write_all(format!("fim: {text}\n").as_bytes());
}

/// An error that is just a message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Message(pub String);

impl Message {
    /// A boxed message.
    pub fn boxed(text: impl Into<String>) -> Failure {
        Box::new(Self(text.into()))
    }
}

/// The command line of an image, and what the program found out about itself on the way.
#[derive(Debug)]
pub struct Invocation {
    /// The image this program belongs to.
    pub image: runtime::image::Image,
    /// Absolute path of the image file, symlinks resolved.
    pub path: std::path::PathBuf,
    /// Everything after the program's name.
    pub args: Vec<OsString>,
    /// The program's name as the user typed it.
    pub name: OsString,
    /// Standard streams that the caller had closed.
    pub closed: [bool; 3],
    /// Which installation of the image this is about.
    pub installation: Installation,
    /// The configuration as the image itself has it, when `image.config` has settings of the installation's own.
    pub inherited: Option<Config>,
    /// Whether the program runs from a sealed copy, so that the image file is free to be written.
    pub sealed: bool,
}

impl Invocation {
    /// What the image lies on.
    #[must_use]
    pub fn medium(&self) -> runtime::medium::Medium {
        runtime::medium::Medium::new(self.image.file.clone(), self.image.superblock.offset())
    }

    /// The image at `path`, without a command line.
    ///
    /// # Errors
    /// When there is no image that can be used.
    pub fn of(path: &std::path::Path) -> Result<Self, Failure> {
        Self::through(path, Asked::default())
    }

    /// As [`Invocation::of`], of the installation that is asked for.
    ///
    /// # Errors
    /// When there is no image that can be used, or the installation cannot be told.
    fn through(path: &std::path::Path, asked: Asked<'_>) -> Result<Self, Failure> {
        let image = inspect::open(path)?;
        let path = std::fs::canonicalize(path)
            .map_err(|error| Message::boxed(format!("cannot find {}: {error}", path.display())))?;
        let name = path.clone().into_os_string();
        let installation = Installation::choose(&path, asked)?;
        let (args, closed) = (Vec::new(), [false; 3]);
        Ok(Self { image, path, args, name, closed, installation, inherited: None, sealed: false })
    }

    /// The same command line on the image as it is now.
    ///
    /// # Errors
    /// When the image is none any more, or the settings of the installation cannot be read.
    fn read_again(&self) -> Result<Self, Failure> {
        let path = self.path.clone();
        let gone = || Message::boxed(format!("{} is no image any more", path.display()));
        let image = runtime::image::Image::open(std::fs::File::open(&path)?, &path)?.ok_or_else(gone)?;
        let mut again = Self {
            image,
            path,
            args: self.args.clone(),
            name: self.name.clone(),
            closed: self.closed,
            installation: self.installation.clone(),
            inherited: None,
            sealed: self.sealed,
        };
        key::settle(&mut again)?;
        Ok(again)
    }
}
