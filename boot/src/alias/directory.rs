//! The directory of the user's own programs, where launchers lie.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::{AccessFlags, access};

use super::launcher::{Launcher, MAX, Owner};
use crate::draft::{Draft, Use};
use crate::launch::facts::Caller;
use crate::{Failure, Message, report};

/// Longest name of a file in bytes.
const NAME_MAX: usize = 255;

/// The directory.
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// The directories in which shells look for programs.
    search: Vec<PathBuf>,
}

/// Who has a name already.
enum Taken {
    By(Launcher),
    Program(PathBuf),
}

impl Directory {
    /// `XDG_BIN_HOME`, or `.local/bin` of the user's home. It need not exist.
    pub(super) fn of(caller: &Caller) -> Result<Self, Failure> {
        let absolute = |name: &str| caller.variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let path = absolute("XDG_BIN_HOME").or_else(|| Some(absolute("HOME")?.join(".local/bin")));
        let path = path.ok_or_else(|| {
            Message::boxed("there is no place for aliases: neither XDG_BIN_HOME nor HOME is set; set one of them")
        })?;
        let search = caller.variable("PATH").map(std::env::split_paths).into_iter().flatten();
        Ok(Self { path, search: search.filter(|directory| directory.is_absolute()).collect() })
    }

    /// Every launcher in it, by its name.
    pub(super) fn launchers(&self) -> BTreeMap<OsString, Launcher> {
        let names = fs::read_dir(&self.path).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter_map(|name| Some((name.clone(), read(&self.path.join(name))?))).collect()
    }

    /// Refuses a name that no file can have, or that somebody else has, here or anywhere in PATH.
    pub(super) fn check(&self, name: &OsStr, owner: &Owner) -> Result<(), Failure> {
        let bytes = name.as_bytes();
        let plain = bytes.iter().all(|byte| *byte != b'/' && !byte.is_ascii_control());
        if bytes.is_empty() || bytes.len() > NAME_MAX || !plain || matches!(bytes[0], b'-' | b'.') {
            return Err(Message::boxed(format!(
                "Invalid alias '{}': it is the name of a file, of 1 to {NAME_MAX} bytes without / and control characters, and does not begin with - or a point",
                name.to_string_lossy().escape_debug()
            )));
        }
        let refused = |why: String| {
            let (alias, ours) = (name.to_string_lossy(), owner.name());
            Message::boxed(format!(
                "cannot enable alias \"{alias}\" for \"{}\", {why}; choose another name",
                ours.to_string_lossy()
            ))
        };
        match self.taken(name) {
            Some(Taken::By(other)) if other.owner != *owner => {
                let (theirs, image) = (other.owner.name(), other.owner.image);
                if image.exists() {
                    let theirs = theirs.to_string_lossy();
                    return Err(refused(format!("already enabled for \"{theirs}\" ({})", image.display())));
                }
                report(&format!("note: the alias {} was of {}, which is no more", name.display(), image.display()));
                Ok(())
            }
            Some(Taken::Program(program)) => Err(refused(format!("the name is taken by {}", program.display()))),
            Some(Taken::By(_)) | None => Ok(()),
        }
    }

    fn taken(&self, name: &OsStr) -> Option<Taken> {
        let here = self.path.join(name);
        let ours = fs::symlink_metadata(&here).is_ok().then(|| here.clone());
        let executable = |file: &PathBuf| file.is_file() && access(file, AccessFlags::X_OK).is_ok();
        let elsewhere = self.search.iter().map(|directory| directory.join(name)).find(executable);
        let file = ours.or(elsewhere)?;
        Some(read(&file).map_or(Taken::Program(file), Taken::By))
    }

    /// Writes a launcher. Its name was checked; what took it meanwhile is kept, unless that is of the same installation or
    /// of `other`.
    pub(super) fn put(&self, name: &OsStr, launcher: &Launcher, other: Option<&Owner>) -> Result<(), Failure> {
        let file = self.path.join(name);
        let failed = |error: &dyn std::fmt::Display| {
            Message::boxed(format!("cannot make the alias {}: {error}", file.display()))
        };
        let made = DirBuilder::new().mode(0o755).recursive(true).create(&self.path);
        made.map_err(|error| failed(&error))?;
        let mut draft = Draft::create(&file, Use { mode: 0o755, fix: "choose another name" })?;
        draft.file.write_all(&launcher.script()).map_err(|error| failed(&error))?;
        let there = read(&file).map(|there| there.owner);
        let replaced = there.as_ref().is_some_and(|there| *there == launcher.owner || Some(there) == other);
        if !replaced && there.is_some_and(|there| !there.image.exists()) {
            self.remove(name)?;
        }
        draft.complete(replaced)
    }

    /// Removes a launcher.
    pub(super) fn remove(&self, name: &OsStr) -> Result<(), Failure> {
        let file = self.path.join(name);
        fs::remove_file(&file)
            .map_err(|error| Message::boxed(format!("cannot remove the alias {}: {error}", file.display())))
    }

    /// Says so when no shell would find what is in it.
    pub(super) fn tell_unless_searched(&self) {
        if !self.search.contains(&self.path) {
            let path = self.path.display();
            report(&format!("note: {path} is not in PATH; add it, as with PATH=\"{path}:$PATH\" in ~/.profile"));
        }
    }
}

/// The launcher in a file, if it is one.
fn read(file: &Path) -> Option<Launcher> {
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(file).ok()?;
    opened.metadata().ok().filter(fs::Metadata::is_file)?;
    let mut script = Vec::new();
    opened.take(MAX).read_to_end(&mut script).ok()?;
    Launcher::parse(&script)
}
