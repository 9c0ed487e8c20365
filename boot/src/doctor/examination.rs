//! The probes in the order of a start, and which rung of each ladder a start would be on.

use std::path::Path;

use runtime::cache::Cache;
use runtime::probe::{self, Refusal, Verdict};
use runtime::session::{directory, pipe};

use crate::launch::facts::{self, Facts};
use crate::launch::{data, rung};
use crate::{Failure, Invocation, cache, stage};

/// What came of one probe.
#[derive(Debug)]
pub(super) enum State {
    /// It works; what was found.
    Works(String),
    /// It does not work.
    Refused(Refusal),
    /// What it needs does not work.
    Untried(&'static str),
}

/// One probe.
#[derive(Debug)]
pub(super) struct Check {
    pub name: &'static str,
    /// Whether an image cannot run without it.
    pub needed: bool,
    pub state: State,
}

impl Check {
    fn works(&self) -> bool {
        matches!(self.state, State::Works(_))
    }
}

/// Everything that was found.
#[derive(Debug)]
pub(super) struct Examination {
    pub checks: Vec<Check>,
    /// Each ladder, and the rung that a start would be on.
    pub rungs: Vec<(&'static str, String)>,
}

/// Names of checks that others depend on.
const USERS: &str = "user-namespaces";
const MOUNTS: &str = "mounts";
const FUSE: &str = "fuse";
const DATA: &str = "data";

impl Examination {
    /// Tries everything.
    ///
    /// # Errors
    /// When a standard stream is a directory.
    pub(super) fn make(invocation: &Invocation) -> Result<Self, Failure> {
        let facts = facts::gather(invocation)?;
        let mut found = Self { checks: Vec::new(), rungs: Vec::new() };
        found.add("kernel", false, probe::kernel::running());
        found.add(USERS, true, probe::user_namespace());
        found.depend(MOUNTS, true, USERS, probe::mounts);
        found.depend("instance", true, MOUNTS, probe::instance);
        found.add("seccomp", true, probe::filter());
        found.add("pidfd", true, probe::pidfd());
        found.program(invocation);
        found.layers(&facts);
        found.data(invocation, &facts);
        found.session(&facts);
        Ok(found)
    }

    /// Whether an image can run.
    pub(super) fn runs(&self) -> bool {
        self.checks.iter().all(|check| check.works() || !check.needed)
    }

    fn works(&self, name: &str) -> bool {
        self.checks.iter().any(|check| check.name == name && check.works())
    }

    fn add(&mut self, name: &'static str, needed: bool, verdict: Verdict) {
        let state = verdict.map_or_else(State::Refused, State::Works);
        self.checks.push(Check { name, needed, state });
    }

    /// Adds a check that makes sense only where another works.
    fn depend(&mut self, name: &'static str, needed: bool, on: &'static str, probe: impl FnOnce() -> Verdict) {
        if self.works(on) {
            self.add(name, needed, probe());
        } else {
            self.checks.push(Check { name, needed, state: State::Untried(on) });
        }
    }

    fn program(&mut self, invocation: &Invocation) {
        let image = &invocation.image;
        let words = stage::second_stage(invocation, &["fim-version".into(), "short".into()]);
        let verdict = match words {
            Ok(words) => probe::program(&image.file, image.elf_len(), &words),
            Err(error) => Err(Refusal::new(error.to_string(), "rename the file")),
        };
        self.add("memory-program", false, verdict);
        let rung = if self.works("memory-program") { "a sealed copy in memory" } else { "the image file itself" };
        self.rungs.push(("program", rung.to_owned()));
    }

    /// FUSE, or else the cache.
    fn layers(&mut self, facts: &Facts) {
        self.depend(FUSE, false, MOUNTS, probe::fuse);
        let fuse = self.works(FUSE);
        let place = cache::place(&facts.caller);
        let shown = place.as_ref().map_or_else(|_| "a cache".to_owned(), |place| place.display().to_string());
        self.add(
            "layer-cache",
            !fuse,
            place.map_err(refusal(XDG_CACHE_HOME)).and_then(|place| can_cache(&place, facts)),
        );
        let rung = if fuse { "mounted through FUSE".to_owned() } else { format!("extracted once, to {shown}") };
        self.rungs.push(("layers", rung));
    }

    fn data(&mut self, invocation: &Invocation, facts: &Facts) {
        let mounts = self.works(MOUNTS);
        let mut stacked = None;
        let surveyed = data::survey(invocation, &facts.caller, |trial| {
            if !mounts {
                return Ok(());
            }
            let verdict = probe::overlay(trial);
            let outcome = verdict.as_ref().map(drop).map_err(|refusal| refusal.why.clone());
            stacked = Some(verdict);
            outcome
        });
        let place = match surveyed {
            Ok(survey) => {
                let refused = match &survey.refused[..] {
                    [] => String::new(),
                    refused => format!(" ({})", refused.join("; ")),
                };
                self.add(DATA, true, Ok(format!("{}{refused}", survey.place.display())));
                let rung = if survey.beside { "beside the image" } else { "elsewhere" };
                self.rungs.push(("data", format!("{rung}, in {}", survey.place.display())));
                Some(survey.place)
            }
            Err(error) => {
                self.add(DATA, true, Err(Refusal::new(error.to_string(), FIM_DIR_DATA)));
                None
            }
        };
        match stacked {
            Some(verdict) => self.add("overlay", true, verdict),
            None => self.depend("overlay", true, if mounts { DATA } else { MOUNTS }, || Ok(String::new())),
        }
        self.users(place.as_deref(), facts);
    }

    /// Which users there are inside.
    fn users(&mut self, data: Option<&Path>, facts: &Facts) {
        let rung = match rung::outlook(data, facts) {
            Ok((rung, None)) => {
                self.add("ids", true, Ok(rung.to_string()));
                rung
            }
            Ok((rung, Some((why, fix)))) => {
                self.add("subordinate-ids", false, Err(Refusal::new(why, fix)));
                self.add("root-emulation", false, probe::notifier());
                rung
            }
            Err(error) => return self.add("ids", true, Err(refusal(FIM_DIR_DATA)(error))),
        };
        let text = match rung {
            rung::Rung::Every => "every ID of the host",
            rung::Rung::Subordinate { .. } => "subordinate IDs for fim-root",
            rung::Rung::One => "one ID; fim-root is emulated",
        };
        self.rungs.push(("ids", text.to_owned()));
    }

    fn session(&mut self, facts: &Facts) {
        let (uid, base) = (facts.caller.uid, facts.caller.variable("XDG_RUNTIME_DIR"));
        let place = directory::runtime_place(uid, base);
        let existed = place.exists();
        let tried = directory::runtime(uid, base).and_then(|path| {
            let trial = path.join(format!("doctor-{}", std::process::id()));
            let made = pipe::create(&trial);
            // Their own file and, where nothing else is in it, directory.
            let _ = std::fs::remove_file(&trial);
            if !existed {
                let _ = std::fs::remove_dir(&path);
            }
            made.map(|()| path)
        });
        let verdict = match tried {
            Ok(path) => {
                self.rungs.push(("sessions", format!("in {}", path.display())));
                Ok(format!("{} holds named pipes", path.display()))
            }
            Err(error) => {
                Err(Refusal::new(runtime::error::chain(&error), "set XDG_RUNTIME_DIR to a directory of your own"))
            }
        };
        self.add("runtime-directory", true, verdict);
    }
}

const FIM_DIR_DATA: &str = "set FIM_DIR_DATA to a directory on another file system (ext4, xfs, btrfs)";
const XDG_CACHE_HOME: &str = "set XDG_CACHE_HOME to a directory of your own";

fn refusal(fix: &'static str) -> impl Fn(Failure) -> Refusal {
    move |error| Refusal::new(error.to_string(), fix)
}

/// Whether layers could be extracted; what is made for that is removed.
fn can_cache(place: &Path, facts: &Facts) -> Verdict {
    let failed = |error: String| Refusal::new(format!("{}: {error}", place.display()), XDG_CACHE_HOME);
    let missing: Vec<&Path> = place.ancestors().take_while(|path| !path.exists()).collect();
    let opened = Cache::open(place.to_owned(), facts.caller.uid).map_err(|error| failed(runtime::error::chain(&error)));
    let written = opened.and_then(|_| {
        let trial = place.join(format!("doctor-{}", std::process::id()));
        let made = std::fs::create_dir(&trial).map_err(|error| failed(error.to_string()));
        let _ = std::fs::remove_dir(&trial);
        made
    });
    // A directory that others have begun to use meanwhile stays.
    let _ = missing.iter().try_for_each(std::fs::remove_dir);
    written.map(|()| format!("{} can be written", place.display()))
}
