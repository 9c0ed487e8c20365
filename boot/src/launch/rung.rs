//! Which IDs a session has: the rung of the ladder, chosen once for a data directory and recorded in it, so that the
//! owners of its files never come from two rungs.
//!
//! A directory without a record holds files of its caller only, and fits every rung: an unprivileged caller's first
//! `fim-root` chooses. Real root, whose files have many owners from the beginning, chooses with the directory.

use std::fs;
use std::io;
use std::path::Path;

use runtime::commit::Owners;
use runtime::sandbox::id_map::{self, IdMap, Range};
use runtime::sandbox::plan::Account;
use runtime::sandbox::subordinate::{self, Helpers};

use super::facts::{Caller, Facts};
use crate::{Failure, Message};

/// The record in the data directory.
pub(crate) const NAME: &str = "ids";
/// Its first line; changing what follows needs another number.
const HEADER: &str = "fim-ids 1";
/// Longest record in bytes: a few lines for each range that the kernel takes (340).
const LIMIT: u64 = 64 * 1024;
/// Where the administrator grants subordinate IDs (subuid(5)).
const SUBUID: &str = "/etc/subuid";
const SUBGID: &str = "/etc/subgid";
/// Subordinate IDs that a session needs, besides the caller's own.
const NEEDED: u32 = 65_536;

const NO_HELPERS: &str = "newuidmap and newgidmap are missing";

/// How many IDs a session has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rung {
    /// Every ID of the host: real root.
    Every,
    /// The caller's as 0, and subordinate IDs.
    Subordinate {
        /// Users.
        uids: Vec<Range>,
        /// Groups.
        gids: Vec<Range>,
    },
    /// The caller's as 0, and no other; `fim-root` has others emulated.
    One,
}

impl std::fmt::Display for Rung {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Every => "every",
            Self::Subordinate { .. } => "subordinate",
            Self::One => "one",
        })
    }
}

impl Rung {
    fn encode(&self) -> String {
        let mut text = format!("{HEADER}\n{self}\n");
        if let Self::Subordinate { uids, gids } = self {
            for (kind, ranges) in [("uid", uids), ("gid", gids)] {
                for Range { inside, outside, count } in ranges {
                    text.push_str(&format!("{kind} {inside} {outside} {count}\n"));
                }
            }
        }
        text
    }

    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != HEADER {
            return None;
        }
        let mut rung = match lines.next()? {
            "every" => Self::Every,
            "one" => Self::One,
            "subordinate" => Self::Subordinate { uids: Vec::new(), gids: Vec::new() },
            _ => return None,
        };
        for line in lines {
            let Self::Subordinate { uids, gids } = &mut rung else { return None };
            let words: Vec<&str> = line.split(' ').collect();
            let [kind, inside, outside, count] = words[..] else { return None };
            let number = |word: &str| word.parse().ok();
            let range = Range { inside: number(inside)?, outside: number(outside)?, count: number(count)? };
            match kind {
                "uid" => uids.push(range),
                "gid" => gids.push(range),
                _ => return None,
            }
        }
        Some(rung)
    }

    /// IDs of the session's user namespace. For all but real root, 0 is the caller, so that the tree's owner is known.
    #[must_use]
    pub fn session(&self, caller: &Caller) -> IdMap {
        match self {
            Self::Every => IdMap::Full,
            Self::Subordinate { uids, gids } => IdMap::Ranges { uids: uids.clone(), gids: gids.clone() },
            Self::One => IdMap::Single { uid: 0, gid: 0, parent_uid: caller.uid, parent_gid: caller.gid },
        }
    }

    /// IDs of the user namespace of an instance whose command runs as this account: the session's, with 0 shown as the
    /// account's own.
    #[must_use]
    pub fn instance(&self, account: &Account) -> IdMap {
        let (uid, gid) = (account.uid, account.gid);
        match self {
            Self::Subordinate { uids, gids } if (uid, gid) != (0, 0) => {
                IdMap::Ranges { uids: with_own(uid, uids), gids: with_own(gid, gids) }
            }
            Self::One => IdMap::Single { uid, gid, parent_uid: 0, parent_gid: 0 },
            // Root that is to be somebody else (a stored UID) is that one only.
            Self::Every if (uid, gid) != (0, 0) => IdMap::Single { uid, gid, parent_uid: 0, parent_gid: 0 },
            Self::Every | Self::Subordinate { .. } => IdMap::Full,
        }
    }

    /// Whom the files of its writable layer belong to.
    #[must_use]
    pub fn owners(&self) -> Owners {
        match self {
            Self::Every => Owners::Stored,
            Self::Subordinate { uids, gids } => Owners::Below { uids: id_map::end(uids), gids: id_map::end(gids) },
            Self::One => Owners::Remembered,
        }
    }

    /// Whether root has to be emulated for a command that runs as root.
    #[must_use]
    pub fn emulates(&self, root: bool) -> bool {
        root && *self == Self::One
    }

    /// The programs that map the session's IDs, where some are needed.
    #[must_use]
    pub fn helpers(&self, caller: &Caller) -> Option<Helpers> {
        matches!(self, Self::Subordinate { .. }).then(|| Helpers::find(caller.variable("PATH")))?
    }
}

/// The session's IDs with 0 shown as the caller's own number. Who has that number in the image is not shown.
fn with_own(own: u32, session: &[Range]) -> Vec<Range> {
    let end = session.iter().map(|range| range.inside.saturating_add(range.count)).max().unwrap_or(1);
    let same = |from: u32, to: u32| (from < to).then(|| Range { inside: from, outside: from, count: to - from });
    let own_range = Range { inside: own, outside: 0, count: 1 };
    [Some(own_range), same(1, own.clamp(1, end)), same(own.saturating_add(1).min(end), end)]
        .into_iter()
        .flatten()
        .collect()
}

/// The rung of a session: the recorded one, or the best that the host offers, which is recorded if this start makes
/// files of other owners. The caller holds the start lock; `live` is whether a session runs that this start joins.
///
/// # Errors
/// When the host cannot honour the recorded one: owners are never mixed.
pub fn settle(data: &Path, facts: &Facts, root: bool, live: bool) -> Result<Rung, Failure> {
    let path = data.join(NAME);
    let rung = match read(&path)? {
        Some(rung) => {
            honour(&rung, &facts.caller, facts.privileged).map_err(|(why, fix)| refusal(data, &rung, &why, &fix))?;
            rung
        }
        None if facts.privileged => record(&path, Rung::Every)?,
        None if !root => Rung::One,
        // A session that began without a choice has one ID.
        None if live => record(&path, Rung::One)?,
        None => {
            let best = offered(&facts.caller).unwrap_or_else(|(why, _)| {
                log::debug!("No subordinate IDs: {why}");
                Rung::One
            });
            record(&path, best)?
        }
    };
    let emulated = if rung.emulates(root) { ", root emulated" } else { "" };
    log::debug!("IDs of the session: {rung}{emulated}");
    Ok(rung)
}

/// Whether nothing has been chosen yet for a data directory.
///
/// # Errors
/// When the record cannot be read.
pub fn is_open(data: &Path) -> Result<bool, Failure> {
    Ok(read(&data.join(NAME))?.is_none())
}

/// The rung of what is in a data directory now: the recorded one, or the one that fits files which all belong to the
/// caller.
///
/// # Errors
/// As [`settle`].
pub(crate) fn recorded(data: &Path, caller: &Caller, privileged: bool) -> Result<Rung, Failure> {
    let Some(rung) = read(&data.join(NAME))? else { return Ok(if privileged { Rung::Every } else { Rung::One }) };
    honour(&rung, caller, privileged).map_err(|(why, fix)| refusal(data, &rung, &why, &fix))?;
    Ok(rung)
}

fn refusal(data: &Path, rung: &Rung, why: &str, fix: &str) -> Failure {
    Message::boxed(format!(
        "the files in {} have owners that cannot be kept on this host (IDs: {rung}): {why}; {fix}, or set FIM_DIR_DATA to another directory",
        data.display()
    ))
}

fn read(path: &Path) -> Result<Option<Rung>, Failure> {
    let bad = |why: &str| {
        Message::boxed(format!("cannot read {}: {why}; set FIM_DIR_DATA to another directory", path.display()))
    };
    match fs::File::open(path) {
        Ok(file) => {
            let text = io::read_to_string(io::Read::take(file, LIMIT)).map_err(|error| bad(&error.to_string()))?;
            Rung::decode(&text).map(Some).ok_or_else(|| bad("it is damaged, or of a newer version"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(bad(&error.to_string())),
    }
}

fn record(path: &Path, rung: Rung) -> Result<Rung, Failure> {
    // Whole or not at all.
    let draft = path.with_extension("new");
    fs::write(&draft, rung.encode()).and_then(|()| fs::rename(&draft, path)).map_err(|error| {
        Message::boxed(format!("cannot record the IDs of the session in {}: {error}", path.display()))
    })?;
    Ok(rung)
}

/// The maps that the host's grants make for a caller.
fn granted(caller: &Caller) -> Option<(Vec<Range>, Vec<Range>)> {
    let name = caller.account.as_ref().map(|(name, ..)| name.as_str());
    let ranges = |file: &str, own: u32| {
        let grants = subordinate::grants(&fs::read(file).unwrap_or_default(), name, caller.uid);
        subordinate::map(own, &grants, NEEDED)
    };
    Some((ranges(SUBUID, caller.uid)?, ranges(SUBGID, caller.gid)?))
}

/// Subordinate IDs, when they can really be mapped; otherwise why not, and what helps.
fn offered(caller: &Caller) -> Result<Rung, (String, String)> {
    let helpers = Helpers::find(caller.variable("PATH")).ok_or_else(|| {
        (NO_HELPERS.to_owned(), "sudo apt-get install uidmap (or the package of this system that has them)".to_owned())
    })?;
    let (uids, gids) = granted(caller).ok_or_else(|| {
        let who = caller.account.as_ref().map_or_else(|| caller.uid.to_string(), |(name, ..)| name.clone());
        let why = format!("{SUBUID} and {SUBGID} do not grant {NEEDED} IDs to {who}");
        (why, format!("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {who}"))
    })?;
    match helpers.probe(&uids, &gids) {
        Ok(()) => Ok(Rung::Subordinate { uids, gids }),
        Err(error) => {
            let fix = "see whether newuidmap and newgidmap are setuid or have file capabilities";
            Err((format!("subordinate IDs cannot be mapped: {error}"), fix.to_owned()))
        }
    }
}

/// The rung that a session on this data directory would have; beside it, why it is not a better one and what helps.
///
/// # Errors
/// When the recorded one cannot be had here.
pub fn outlook(data: Option<&Path>, facts: &Facts) -> Result<(Rung, Option<(String, String)>), Failure> {
    let recorded = data.map(|data| read(&data.join(NAME))).transpose()?.flatten();
    match (recorded, data) {
        (Some(rung), Some(data)) => match honour(&rung, &facts.caller, facts.privileged) {
            Ok(()) => Ok((rung, None)),
            Err((why, fix)) => Err(refusal(data, &rung, &why, &fix)),
        },
        _ if facts.privileged => Ok((Rung::Every, None)),
        _ => Ok(match offered(&facts.caller) {
            Ok(rung) => (rung, None),
            Err(reason) => (Rung::One, Some(reason)),
        }),
    }
}

/// Whether the host offers a recorded rung; otherwise why not, and what helps.
fn honour(rung: &Rung, caller: &Caller, privileged: bool) -> Result<(), (String, String)> {
    let refuse = |why: &str, fix: &str| Err((why.to_owned(), fix.to_owned()));
    match rung {
        Rung::One => Ok(()),
        Rung::Every if privileged => Ok(()),
        Rung::Every => refuse("they were made by real root", "start the image as root"),
        Rung::Subordinate { uids, gids } => {
            if Helpers::find(caller.variable("PATH")).is_none() {
                return refuse(NO_HELPERS, "install them (package uidmap)");
            }
            if granted(caller).as_ref() == Some(&(uids.clone(), gids.clone())) {
                return Ok(());
            }
            let wanted = |kind: &str, ranges: &[Range]| {
                let list: Vec<String> =
                    ranges.iter().skip(1).map(|range| format!("{}:{}", range.outside, range.count)).collect();
                format!("{kind} {}", list.join(", "))
            };
            let why = format!(
                "they were made with {} and {}, which {SUBUID} and {SUBGID} do not grant to this user now",
                wanted("users", uids),
                wanted("groups", gids)
            );
            Err((why, "grant them again".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(inside: u32, outside: u32, count: u32) -> Range {
        Range { inside, outside, count }
    }

    fn subordinate() -> Rung {
        let ranges = |own| vec![range(0, own, 1), range(1, 100_000, 65_536)];
        Rung::Subordinate { uids: ranges(1000), gids: ranges(100) }
    }

    #[test]
    fn golden_record() {
        let text = "fim-ids 1\nsubordinate\nuid 0 1000 1\nuid 1 100000 65536\ngid 0 100 1\ngid 1 100000 65536\n";
        assert_eq!(subordinate().encode(), text);
        assert_eq!(Rung::decode(text), Some(subordinate()));
        for rung in [Rung::Every, Rung::One] {
            assert_eq!(Rung::decode(&rung.encode()), Some(rung));
        }
    }

    #[test]
    fn damaged_records_are_errors() {
        for text in [
            "",
            "fim-ids 1\n",
            "fim-ids 2\none\n",
            "fim-ids 1\ntwo\n",
            "fim-ids 1\none\nuid 0 0 1\n",
            "fim-ids 1\nsubordinate\nuid 0 0\n",
            "fim-ids 1\nsubordinate\nuid 0 0 -1\n",
            "fim-ids 1\nsubordinate\npid 0 0 1\n",
        ] {
            assert_eq!(Rung::decode(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_caller_sees_its_own_number() {
        let session = [range(0, 1000, 1), range(1, 100_000, 10)];
        assert_eq!(with_own(5, &session), [range(5, 0, 1), range(1, 1, 4), range(6, 6, 5)]);
        assert_eq!(with_own(1, &session), [range(1, 0, 1), range(2, 2, 9)]);
        assert_eq!(with_own(10, &session), [range(10, 0, 1), range(1, 1, 9)]);
        assert_eq!(with_own(5000, &session), [range(5000, 0, 1), range(1, 1, 10)]);
        assert_eq!(with_own(0, &session), [range(0, 0, 1), range(1, 1, 10)]);
    }
}
