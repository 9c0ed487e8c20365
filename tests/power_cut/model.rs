//! What a cut leaves of a sequence of changes.
//!
//! Names change in the order in which they were changed, up to some change, as file systems with a journal keep them; only
//! what a directory was synchronised for is certain. What was written to a file is certain once that was synchronised;
//! before that, any part of it may be there.

use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt};
use std::path::Path;

use super::trace::{Change, File};

/// How much of a change has reached the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reached {
    No,
    /// The first half of what was written.
    Half,
    All,
}

/// What has reached the medium of each change of a sequence.
pub type State = Vec<Reached>;

/// All states that a cut can leave, each once; first that without any change, last that with all.
pub fn states(changes: &[Change]) -> Vec<State> {
    let (mut seen, mut states) = (HashSet::new(), Vec::new());
    for cut in (0..=changes.len()).filter(|cut| !is_amid_removals(changes, *cut)) {
        let synced = changes[..cut].iter().rposition(|change| matches!(change, Change::SyncNames)).unwrap_or(0);
        for names_until in [cut, synced] {
            for kept in [Kept::All, Kept::Synchronised, Kept::Last, Kept::Torn] {
                let reached = |(at, change): (usize, &Change)| match change.content() {
                    Some(file) if at < cut => kept.of(changes, cut, at, file),
                    None if at < if change.is_of_names() { names_until } else { cut } => Reached::All,
                    _ => Reached::No,
                };
                let state = without_nameless(changes, changes.iter().enumerate().map(reached).collect());
                if seen.insert(state.clone()) {
                    states.push(state);
                }
            }
        }
    }
    let all = without_nameless(changes, vec![Reached::All; changes.len()]);
    states.retain(|state| *state != all);
    states.push(all);
    states
}

/// Whether it is inside of a long row of removals, of which the first and the last stand for all.
fn is_amid_removals(changes: &[Change], cut: usize) -> bool {
    let removes = |change: &Change| matches!(change, Change::Remove { .. } | Change::RemoveDirectory { .. });
    cut >= 2 && changes[cut - 2..].len() > 3 && changes[cut - 2..cut + 2].iter().all(removes)
}

/// What is kept of what was written and not synchronised.
#[derive(Clone, Copy)]
enum Kept {
    All,
    Synchronised,
    /// Of each file the last write, and not those before.
    Last,
    /// Of each file everything but the second half of the last write.
    Torn,
}

impl Kept {
    fn of(self, changes: &[Change], cut: usize, at: usize, file: File) -> Reached {
        let later = &changes[at + 1..cut];
        let synced = later.iter().any(|change| matches!(change, Change::Sync { file: synced } if *synced == file));
        let is_last = || !later.iter().any(|change| change.content() == Some(file));
        match self {
            _ if synced => Reached::All,
            Self::Torn if is_last() => Reached::Half,
            Self::All | Self::Torn => Reached::All,
            Self::Last if is_last() => Reached::All,
            Self::Synchronised | Self::Last => Reached::No,
        }
    }
}

/// What was written to a file that never gets a name is nothing, and neither is what changes nothing by itself.
fn without_nameless(changes: &[Change], mut state: State) -> State {
    let mut nameless = HashSet::new();
    for (change, _) in changes.iter().zip(&state).filter(|(_, reached)| **reached != Reached::No) {
        match change {
            Change::Open { file, path: None, .. } => drop(nameless.insert(*file)),
            Change::Name { file, .. } => drop(nameless.remove(file)),
            _ => {}
        }
    }
    for (change, reached) in changes.iter().zip(&mut state) {
        let file = match change {
            Change::Open { file, path: None, .. } => Some(*file),
            other => other.content(),
        };
        let nothing = matches!(change, Change::Sync { .. } | Change::SyncNames | Change::Open { makes: false, .. });
        if nothing || file.is_some_and(|file| nameless.contains(&file)) {
            *reached = Reached::No;
        }
    }
    state
}

/// Does the changes of a state to the tree at which they were traced. Files without a name lie in `aside` meanwhile.
pub fn apply(changes: &[Change], state: &State, aside: &Path) {
    let mut open: HashMap<File, fs::File> = HashMap::new();
    for (change, reached) in changes.iter().zip(state) {
        let opens = matches!(change, Change::Open { makes: false, .. });
        if *reached == Reached::No && !opens {
            continue;
        }
        let part = |len: usize| if *reached == Reached::Half { len / 2 } else { len };
        let done = match change {
            // It may have another name by now than in this state.
            Change::Open { file, makes: false, .. } if open.contains_key(file) => Ok(()),
            Change::Open { file, path, makes, cut } => {
                let place = path.clone().unwrap_or_else(|| aside.join(file.to_string()));
                let opened = OpenOptions::new().read(true).write(true).create(*makes).truncate(*cut).open(&place);
                match opened {
                    // Its name is not there, or it is a directory.
                    Err(_) if !makes => Ok(()),
                    opened => opened.map(|opened| drop(open.insert(*file, opened))),
                }
            }
            // Of a file whose name is not there, nothing is.
            Change::Write { file, at, bytes } => {
                open.get(file).map_or(Ok(()), |file| file.write_all_at(&bytes[..part(bytes.len())], *at))
            }
            Change::Copy { from, from_at, file, at, len } => match (open.get(from), open.get(file)) {
                (Some(from), Some(file)) => {
                    let mut bytes = vec![0; part(*len as usize)];
                    from.read_exact_at(&mut bytes, *from_at).and_then(|()| file.write_all_at(&bytes, *at))
                }
                _ => Ok(()),
            },
            Change::Resize { file, len } => open.get(file).map_or(Ok(()), |file| file.set_len(*len)),
            Change::Sync { .. } | Change::SyncNames => Ok(()),
            Change::MakeDirectory { path, mode } => fs::DirBuilder::new().mode(*mode).create(path),
            Change::MakeLink { target, path } => std::os::unix::fs::symlink(target, path),
            Change::Name { file, path } => fs::hard_link(aside.join(file.to_string()), path),
            Change::Remove { path } => fs::remove_file(path),
            Change::RemoveDirectory { path } => fs::remove_dir(path),
            Change::Rename { from, to } => fs::rename(from, to),
            Change::Mode { path, mode } => match fs::set_permissions(path, Permissions::from_mode(*mode)) {
                // A file without a name.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => other,
            },
        };
        done.unwrap_or_else(|error| panic!("{error}: {change:?}"));
    }
}
