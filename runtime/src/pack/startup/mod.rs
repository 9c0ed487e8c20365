//! The start-up set: files that the first start of an application reads, stored uncompressed and next to each other.
//!
//! A first start is mostly decompression of the dynamic linker and the C library. The set is found as a start would
//! find it: from the boot command and the shell over interpreters, ELF headers and the linker's search path.

mod elf;
mod libraries;
#[cfg(test)]
mod tests;
mod view;

pub(super) use view::View;
pub(crate) use view::{Entry, Names, resolve};

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use view::{File, file, joined};

/// Bytes that the set may add to any archive; to a large one it may add 3 %.
const BUDGET_MIN: u64 = 3 << 20;
/// How many times smaller an archive is than its files, at most. A guess on the safe side: the archive is not there
/// yet, and trees of programs get three to four times smaller.
const RATIO_MAX: u64 = 8;
/// Shells that a boot command may be, or that it may start.
const SHELLS: [&[u8]; 2] = [b"bin/bash", b"bin/sh"];
/// Small files that nearly every start reads.
const SETTINGS: [&[u8]; 4] = [b"etc/ld.so.cache", b"etc/passwd", b"etc/group", b"etc/nsswitch.conf"];
/// Largest such file in bytes.
const SETTING_MAX: u64 = 1 << 20;
/// Most files of a set.
const FILES_MAX: usize = 512;
/// Bytes of a script's first line that Linux reads (`BINPRM_BUF_SIZE`).
const SCRIPT_LINE: usize = 256;

/// What starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Startup {
    /// The boot command's program: a path, or a name that is looked up in `path`.
    pub command: Option<Vec<u8>>,
    /// Directories in which programs are looked up.
    pub path: Vec<Vec<u8>>,
    /// What a run has read, in the order of first reads: relative to the root, without links on the way. It goes before
    /// what is found.
    pub read: Vec<Vec<u8>>,
}

/// Bytes by which the set may make the archive of files of `stored` bytes grow.
pub(super) fn budget(stored: u64) -> u64 {
    (stored / RATIO_MAX / 100 * 3).max(BUDGET_MIN)
}

/// A file of the start-up set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct First {
    /// Where it is, without links on the way.
    pub path: PathBuf,
    /// The path a start opens, relative to the root.
    pub opened: Vec<u8>,
}

/// The files of the start-up set, whose growth fits into `budget` bytes: first what a run has read, in its order, then
/// what is found, the most important first. `growth` estimates
/// by how many bytes the archive grows when the file at a path, of this size, is not compressed.
pub(super) fn find(
    view: &dyn View,
    startup: &Startup,
    budget: u64,
    growth: &mut dyn FnMut(&[u8], u64) -> u64,
) -> Vec<First> {
    let mut search =
        Search { view, startup, configured: libraries::configured(view), files: Vec::new(), seen: HashSet::new() };
    for path in SETTINGS {
        if let Some(file) = file(view, path).filter(|file| file.size <= SETTING_MAX) {
            search.note(file);
        }
    }
    let command = startup.command.as_ref().and_then(|command| search.program(command));
    for program in command.into_iter().chain(SHELLS.iter().filter_map(|shell| file(view, shell))) {
        search.start(program);
    }
    let read = startup.read.iter().take(FILES_MAX).filter_map(|path| file(view, path));
    let (files, read) = in_order(search.files, read);
    let costs: Vec<u64> = files.iter().map(|file| growth(&file.path, file.size)).collect();
    let fits = fitting(&costs, read, budget);
    let chosen = files.into_iter().zip(fits).filter(|(_, fits)| *fits);
    chosen.map(|(file, _)| First { path: PathBuf::from(OsString::from_vec(file.path)), opened: file.opened }).collect()
}

/// Which files fit into the budget, by what each costs. Of the first `read`, which all are read, as many as can be: a
/// large program, of which a start reads a part, must not take the place of all libraries. Of the others the first ones.
fn fitting(costs: &[u64], read: usize, budget: u64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order[..read].sort_by_key(|&index| costs[index]);
    let (mut left, mut fits) = (budget, vec![false; costs.len()]);
    for index in order {
        if let Some(rest) = left.checked_sub(costs[index]) {
            left = rest;
            fits[index] = true;
        }
    }
    fits
}

/// The files of a run first, in their order; a file that the search found too is opened by the path of the search, which
/// takes the links that a start takes. Also how many were read.
fn in_order(found: Vec<File>, read: impl Iterator<Item = File>) -> (Vec<File>, usize) {
    let mut found: Vec<Option<File>> = found.into_iter().map(Some).collect();
    let mut ordered: Vec<File> = Vec::new();
    for file in read {
        let known = found.iter_mut().find(|known| known.as_ref().is_some_and(|known| known.path == file.path));
        if ordered.iter().all(|known| known.path != file.path) {
            ordered.push(known.and_then(Option::take).unwrap_or(file));
        }
    }
    let read = ordered.len();
    ordered.extend(found.into_iter().flatten());
    (ordered, read)
}

/// The interactive shell, for an image without a boot command.
pub(crate) fn shell(names: &dyn Names) -> Option<&'static [u8]> {
    SHELLS.into_iter().find(|shell| file(names, shell).is_some())
}

struct Search<'a> {
    view: &'a dyn View,
    startup: &'a Startup,
    configured: Vec<Vec<u8>>,
    files: Vec<File>,
    seen: HashSet<Vec<u8>>,
}

impl Search<'_> {
    /// Adds a file; false when it is known already or there are too many.
    fn note(&mut self, file: File) -> bool {
        let new = self.files.len() < FILES_MAX && self.seen.insert(file.path.clone());
        if new {
            self.files.push(file);
        }
        new
    }

    /// The file that `name` starts.
    fn program(&self, name: &[u8]) -> Option<File> {
        if name.contains(&b'/') {
            return file(self.view, name);
        }
        self.startup.path.iter().find_map(|directory| file(self.view, &joined(directory, name)))
    }

    /// Adds everything that a start of the program at `path` reads: what a script is for, then the interpreter,
    /// the libraries in the order in which they are loaded, and last the program, of which a start reads a part only.
    fn start(&mut self, started: File) {
        if self.seen.contains(&started.path) {
            return;
        }
        let programs = self.script(&started.path);
        if let Some(program) = elf::parse(&|offset, len| self.view.read(&started.path, offset, len)) {
            let interpreter = program.interpreter.as_ref().and_then(|path| file(self.view, path));
            if let Some(interpreter) = interpreter {
                self.note(interpreter);
            }
            self.libraries(&started.path, program);
        }
        if self.note(started) {
            for program in programs {
                self.start(program);
            }
        }
    }

    /// Adds the libraries of a program, and theirs, breadth first.
    fn libraries(&mut self, path: &[u8], program: elf::Program) {
        let machine = program.machine;
        let mut waiting = std::collections::VecDeque::from([(path.to_vec(), program)]);
        while let Some((path, object)) = waiting.pop_front() {
            let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            let directories = libraries::search(&object, &path[..slash], &self.configured);
            for name in &object.needed {
                let found = if name.contains(&b'/') {
                    self.library(name, machine)
                } else {
                    directories.iter().find_map(|directory| self.library(&joined(directory, name), machine))
                };
                if let Some((file, library)) = found {
                    let path = file.path.clone();
                    if self.note(file) {
                        waiting.push_back((path, library));
                    }
                }
            }
        }
    }

    fn library(&self, path: &[u8], machine: elf::Machine) -> Option<(File, elf::Program)> {
        let file = file(self.view, path)?;
        let program = elf::parse(&|offset, len| self.view.read(&file.path, offset, len))?;
        (program.machine == machine).then_some((file, program))
    }

    /// The programs that run a script: its interpreter, and what env(1) then looks up.
    fn script(&self, path: &[u8]) -> Vec<File> {
        let start = self.view.read(path, 0, SCRIPT_LINE).unwrap_or_default();
        let Some(line) = start.strip_prefix(b"#!") else { return Vec::new() };
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let Some(interpreter) = words.next() else { return Vec::new() };
        let mut programs: Vec<_> = file(self.view, interpreter).into_iter().collect();
        if interpreter.ends_with(b"/env") {
            // Options and assignments may stand before the name.
            let name = words.find(|word| word[0] != b'-' && !word.contains(&b'='));
            programs.extend(name.and_then(|name| self.program(name)));
        }
        programs
    }
}
