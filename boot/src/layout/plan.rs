//! Planning layouts: pure functions of what is declared. Everything that can be known without the image is found here.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use runtime::image::declared::{Layout, LayoutKind};
use runtime::sandbox::layout::{Entry, Kept, Layouts, Source, What};

use super::kept::KEPT;
use super::word::{Invalid, Places, Word};

/// Most layouts of an installation.
pub const MAX: usize = 1000;

/// A layout that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A word.
    #[error("layout '{name}': the {word} '{text}' cannot be used: {why}")]
    Word {
        /// The target.
        name: String,
        /// Which word.
        word: &'static str,
        /// Its text.
        text: String,
        /// Why.
        why: Invalid,
    },
    /// The source is anywhere.
    #[error(
        "layout '{name}': the source '{text}' must begin with $FIM_ROOT_DIR, $FIM_DATA or $FIM_COMMON: only files of the application and of its data can appear"
    )]
    Source {
        /// The target.
        name: String,
        /// The source.
        text: String,
    },
    /// The target is where none may be.
    #[error("layout '{name}': no layout may be at or below {place}: {reason}; choose another target")]
    Kept {
        /// The target.
        name: String,
        /// The place.
        place: String,
        /// Why.
        reason: &'static str,
    },
    /// There is another one.
    #[error("there is a layout for '{name}' already; fim-layout del '{name}' removes it")]
    Twice {
        /// The target.
        name: String,
    },
    /// It lies in what cannot hold anything.
    #[error("layout '{name}': it lies below layout '{other}', which is {kind}; put it below the source of that one")]
    Below {
        /// The target.
        name: String,
        /// The other one.
        other: String,
        /// What the other one makes.
        kind: &'static str,
    },
    /// Its source lies behind a link of another one.
    #[error(
        "layout '{name}': its source '{text}' lies behind layout '{other}', a symbolic link; name the place that it leads to"
    )]
    ThroughLink {
        /// The target.
        name: String,
        /// The source.
        text: String,
        /// The other one.
        other: String,
    },
    /// Each needs another first.
    #[error("layouts lead to each other in a circle: {}; remove one of them", names.join(" -> "))]
    Cycle {
        /// The targets, the first once more at the end.
        names: Vec<String>,
    },
    /// It would be made on the host, or in another image.
    #[error("layout '{name}': its target lies in {place}, which {owner}; layouts change nothing outside")]
    Shared {
        /// The target.
        name: String,
        /// The place.
        place: String,
        /// Who shares it, and with whom.
        owner: String,
    },
    /// It would hide something that was granted.
    #[error("layout '{name}': it would hide {place}, which {owner}; remove one of the two")]
    Hides {
        /// The target.
        name: String,
        /// The place.
        place: String,
        /// Who shares it, and with whom.
        owner: String,
    },
    /// There are too many.
    #[error("there are {0} layouts, and at most {MAX} can be made; bind directories in place of single files")]
    Many(usize),
}

/// Everything that is wrong with layouts; at least one problem.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.told())]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    fn told(&self) -> String {
        let first = self.0.first().map(ToString::to_string).unwrap_or_default();
        match self.0.len() {
            0 | 1 => first,
            more => format!("{first} (fim-layout check tells all {more} problems)"),
        }
    }
}

/// A place of the guest that shows the host, or another image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Its path in the guest.
    pub path: PathBuf,
    /// Who shares it, and with whom: "bind 0 shares with the host".
    pub owner: String,
}

/// A layout with its words understood.
struct Parsed {
    name: String,
    target: PathBuf,
    /// With its path in the guest; `None` for a tmpfs.
    source: Option<(Word, PathBuf)>,
    kind: LayoutKind,
    replace: bool,
}

/// Plans layouts: each that can be made, in the order in which they are, or all that is wrong.
///
/// # Errors
/// Every problem, in the order of the list.
pub fn plan(layouts: &[Layout], places: &Places, shared: &[Shared]) -> Result<Layouts, Problems> {
    if layouts.len() > MAX {
        return Err(Problems(vec![Problem::Many(layouts.len())]));
    }
    let mut problems = Vec::new();
    let mut parsed: Vec<Parsed> = Vec::new();
    let mut targets: HashMap<PathBuf, usize> = HashMap::new();
    for layout in layouts {
        match parse(layout, places) {
            Err(problem) => problems.push(problem),
            Ok(one) if targets.contains_key(&one.target) => problems.push(Problem::Twice { name: one.name }),
            Ok(one) => {
                targets.insert(one.target.clone(), parsed.len());
                parsed.push(one);
            }
        }
    }
    problems.extend(parsed.iter().filter_map(|one| meets_shared(one, shared)));
    let graph = Graph { parsed: &parsed, targets: &targets };
    problems.extend((0..parsed.len()).filter_map(|index| graph.misplaced(index)));
    let order = match graph.order() {
        Ok(order) => order,
        Err(cycle) => {
            problems.push(cycle);
            Vec::new()
        }
    };
    problems.extend(graph.link_cycle());
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let entries = order.into_iter().map(|index| entry(&parsed[index], places)).collect();
    let data = vec![places.data.clone(), places.common.clone()];
    Ok(Layouts { entries, view: places.root.clone(), data, kept: KEPT })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn parse(layout: &Layout, places: &Places) -> Result<Parsed, Problem> {
    let name = text(&layout.target);
    let word = |word: &'static str, bytes: &[u8]| {
        Word::parse(bytes).map_err(|why| Problem::Word { name: name.clone(), word, text: text(bytes), why })
    };
    let target = word("target", &layout.target)?;
    let name = target.to_string();
    let kept = |place: &Path, reason| Problem::Kept { name: name.clone(), place: place.display().to_string(), reason };
    let path = target.path(places);
    if target.rest.as_os_str().is_empty() {
        let reason = match target.base {
            None => "it would hide everything",
            Some(_) => "it is where the files of the installation are",
        };
        return Err(kept(&path, reason));
    }
    if target.base.is_none()
        && let Some(found) = Kept::find(KEPT, &path)
    {
        return Err(kept(Path::new(found.path), found.reason));
    }
    let source = match layout.kind {
        LayoutKind::Tmpfs => None,
        _ => {
            let source = word("source", &layout.source)?;
            if source.base.is_none() {
                return Err(Problem::Source { name, text: source.to_string() });
            }
            let path = source.path(places);
            Some((source, path))
        }
    };
    Ok(Parsed { name, target: path, source, kind: layout.kind, replace: layout.replace })
}

fn meets_shared(one: &Parsed, shared: &[Shared]) -> Option<Problem> {
    let name = one.name.clone();
    let below = shared.iter().find(|place| one.target.starts_with(&place.path));
    let above = || shared.iter().find(|place| place.path.starts_with(&one.target));
    let told = |place: &Shared| (place.path.display().to_string(), place.owner.clone());
    if let Some((place, owner)) = below.map(told) {
        return Some(Problem::Shared { name, place, owner });
    }
    above().map(told).map(|(place, owner)| Problem::Hides { name, place, owner })
}

fn entry(one: &Parsed, places: &Places) -> Entry {
    let what = match (&one.source, one.kind) {
        (Some((_, path)), LayoutKind::Symlink) => What::Symlink(path.clone()),
        (Some((word, _)), kind) => {
            let source =
                Source { name: word.to_string(), base: places.of(word.base).to_owned(), rest: word.rest.clone() };
            if kind == LayoutKind::BindFile { What::File(source) } else { What::Directory(source) }
        }
        (None, _) => What::Tmpfs,
    };
    Entry { name: one.name.clone(), target: one.target.clone(), what, replace: one.replace }
}

/// Which layouts have to be made before which.
struct Graph<'a> {
    parsed: &'a [Parsed],
    targets: &'a HashMap<PathBuf, usize>,
}

/// How far the ordering of a layout is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    Not,
    Begun,
    Done,
}

impl Graph<'_> {
    /// The layouts whose targets are above a path, the nearest first; with the path itself when `itself`.
    fn above<'b>(&'b self, path: &'b Path, itself: bool) -> impl Iterator<Item = usize> + 'b {
        path.ancestors().skip(usize::from(!itself)).filter_map(|path| self.targets.get(path).copied())
    }

    fn is_bind(&self, index: usize) -> bool {
        matches!(self.parsed[index].kind, LayoutKind::Bind | LayoutKind::BindFile)
    }

    /// What lies below a link or a file, or is taken from behind a link.
    fn misplaced(&self, index: usize) -> Option<Problem> {
        let one = &self.parsed[index];
        let name = one.name.clone();
        for above in self.above(&one.target, false) {
            let other = &self.parsed[above];
            let kind = match other.kind {
                LayoutKind::Symlink => "a symbolic link",
                LayoutKind::BindFile => "a file",
                _ => continue,
            };
            return Some(Problem::Below { name, other: other.name.clone(), kind });
        }
        let (word, path) = one.source.as_ref().filter(|_| self.is_bind(index))?;
        let link = self.above(path, true).find(|above| self.parsed[*above].kind == LayoutKind::Symlink)?;
        Some(Problem::ThroughLink { name, text: word.to_string(), other: self.parsed[link].name.clone() })
    }

    /// Parents come before children, and what lies on the way to a source, or in it, before what shows that.
    fn order(&self) -> Result<Vec<usize>, Problem> {
        let mut sources: HashMap<&OsStr, Vec<usize>> = HashMap::new();
        for index in (0..self.parsed.len()).filter(|index| self.is_bind(*index)) {
            if let Some((_, path)) = &self.parsed[index].source {
                sources.entry(path.as_os_str()).or_default().push(index);
            }
        }
        let mut before: Vec<Vec<usize>> = vec![Vec::new(); self.parsed.len()];
        for (index, one) in self.parsed.iter().enumerate() {
            before[index].extend(self.above(&one.target, false));
            if let Some((_, path)) = one.source.as_ref().filter(|_| self.is_bind(index)) {
                before[index].extend(self.above(path, true));
            }
            for showing in one.target.ancestors().skip(1).filter_map(|path| sources.get(path.as_os_str())).flatten() {
                before[*showing].push(index);
            }
        }
        let mut by_path: Vec<usize> = (0..self.parsed.len()).collect();
        by_path.sort_by(|a, b| self.parsed[*a].target.cmp(&self.parsed[*b].target));
        let (mut state, mut order, mut way) = (vec![Visit::Not; before.len()], Vec::new(), Vec::new());
        for index in by_path {
            self.visit(index, &before, &mut state, &mut order, &mut way)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        index: usize,
        before: &[Vec<usize>],
        state: &mut [Visit],
        order: &mut Vec<usize>,
        way: &mut Vec<usize>,
    ) -> Result<(), Problem> {
        match state[index] {
            Visit::Done => return Ok(()),
            Visit::Begun => {
                let from = way.iter().position(|on_way| *on_way == index).unwrap_or(0);
                return Err(self.cycle(&way[from..]));
            }
            Visit::Not => {}
        }
        state[index] = Visit::Begun;
        way.push(index);
        for first in &before[index] {
            self.visit(*first, before, state, order, way)?;
        }
        way.pop();
        state[index] = Visit::Done;
        order.push(index);
        Ok(())
    }

    fn cycle(&self, members: &[usize]) -> Problem {
        let name = |index: &usize| self.parsed[*index].name.clone();
        Problem::Cycle { names: members.iter().chain(members.first()).map(name).collect() }
    }

    /// Links that lead to each other.
    fn link_cycle(&self) -> Option<Problem> {
        let next = |index: &usize| {
            let (_, path) = self.parsed[*index].source.as_ref()?;
            self.above(path, true).find(|above| self.parsed[*above].kind == LayoutKind::Symlink)
        };
        let links = (0..self.parsed.len()).filter(|index| self.parsed[*index].kind == LayoutKind::Symlink);
        for first in links {
            let way: Vec<usize> = std::iter::successors(Some(first), next).take(self.parsed.len() + 1).collect();
            if let Some(back) = way.iter().skip(1).position(|index| *index == first) {
                return Some(self.cycle(&way[..=back]));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
