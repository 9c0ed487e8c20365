//! Stored binds as the plan needs them: expanded, and looked for on the host.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use runtime::image::{Bind, BindKind};
use runtime::sandbox::plan::{Access, Step};

use super::expansion::{Outputs, expand};
use super::facts::Caller;

/// A bind with its variables replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    /// Position in the stored list.
    pub index: usize,
    /// Path on the host, absolute.
    pub source: PathBuf,
    /// Path in the guest.
    pub target: PathBuf,
    /// How it may be used.
    pub access: Access,
    /// Whether a missing source is an error.
    pub required: bool,
    /// Why the source cannot be used.
    pub fault: Option<io::ErrorKind>,
}

/// A bind that cannot be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It would be anywhere.
    #[error("bind {index}: the destination '{}' is not an absolute path without '..'; fim-bind del {index} removes it", target.display())]
    Target {
        /// Position in the stored list.
        index: usize,
        /// Path in the guest.
        target: PathBuf,
    },
    /// It would hide everything.
    #[error("bind {0}: nothing can be bound over the root of the image; fim-bind del {0} removes it")]
    Root(usize),
    /// It has to be there.
    #[error("bind {index}: '{}' is required, and it cannot be used: {why}; put it there, or fim-bind del {index}", source_path.display())]
    Required {
        /// Position in the stored list.
        index: usize,
        /// Path on the host.
        source_path: PathBuf,
        /// Why not.
        why: io::ErrorKind,
    },
}

/// Replaces variables and a leading `~`, and looks for each source.
#[must_use]
pub fn expand_all(binds: &[Bind], caller: &Caller, own: &[(&str, OsString)], cwd: Option<&Path>) -> Vec<Expanded> {
    let variable = |name: &[u8]| {
        let name = OsStr::from_bytes(name);
        own.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.as_os_str())
            .or_else(|| name.to_str().and_then(|name| caller.variable(name)))
    };
    let path = |word: &[u8]| {
        let word = match word.strip_prefix(b"~") {
            Some(rest) if rest.is_empty() || rest.starts_with(b"/") => [b"${HOME}", rest].concat(),
            _ => word.to_vec(),
        };
        PathBuf::from(OsString::from_vec(expand(&word, &variable, &Outputs::new())))
    };
    let one = |(index, bind): (usize, &Bind)| {
        let source = path(&bind.src);
        // A source that expands to nothing is missing; the working directory must not take its place.
        let source = if source.as_os_str().is_empty() { source } else { cwd.unwrap_or(Path::new("/")).join(source) };
        let access = match bind.kind {
            BindKind::Ro => Access::ReadOnly,
            BindKind::Rw => Access::ReadWrite,
            BindKind::Dev => Access::Device,
        };
        let fault = std::fs::metadata(&source).err().map(|error| error.kind());
        Expanded { index, source, target: path(&bind.dst), access, required: bind.required, fault }
    };
    binds.iter().enumerate().map(one).collect()
}

/// Tells the user what is passed over.
pub fn warn_of_missing(binds: &[Expanded]) {
    for Expanded { index, source, fault, .. } in binds {
        if let Some(why) = fault {
            let source = source.display();
            crate::report(&format!("warning: bind {index} is passed over: '{source}' cannot be used: {why}"));
        }
    }
}

/// What the guest gets of them, in order.
///
/// # Errors
/// A bind that cannot be made, or whose source is required and missing.
pub fn steps(binds: &[Expanded]) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    for bind in binds {
        let Expanded { index, source, target, access, required, fault } = bind.clone();
        let plain = |component: Component| matches!(component, Component::RootDir | Component::Normal(_));
        if !target.has_root() || !target.components().all(plain) {
            return Err(Error::Target { index, target });
        }
        if target.parent().is_none() {
            return Err(Error::Root(index));
        }
        match fault {
            Some(why) if required => return Err(Error::Required { index, source_path: source, why }),
            Some(_) => {}
            None => steps.push(Step::Bind { source, target, access, optional: !required }),
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::facts;
    use super::*;

    fn expanded(src: &str, dst: &str, required: bool) -> Expanded {
        let bind = Bind { kind: BindKind::Ro, src: src.into(), dst: dst.into(), required };
        let facts = facts(&[("HOME", "/h o"), ("X", "etc")]);
        expand_all(&[bind], &facts.caller, &[("FIM_DIR_SELF", "/self".into())], Some(Path::new("/cwd"))).remove(0)
    }

    #[test]
    fn words_are_paths_of_the_caller() {
        for (word, path) in [
            ("$HOME/a  b", "/h o/a  b"),
            ("~/x", "/h o/x"),
            ("~", "/h o"),
            ("~ann/x", "/cwd/~ann/x"),
            ("/$X", "/etc"),
            ("x", "/cwd/x"),
            ("${FIM_DIR_SELF}/x", "/self/x"),
            ("$NOTHING", ""),
            ("$(id)", "/cwd/$(id)"),
        ] {
            assert_eq!(expanded(word, "/t", false).source, Path::new(path), "{word}");
        }
        assert_eq!(expanded("/", "$HOME/t", false).target, Path::new("/h o/t"));
    }

    #[test]
    fn what_is_missing_is_passed_over_unless_it_is_required() {
        assert_eq!(steps(&[expanded("/no/such", "/t", false)]), Ok(Vec::new()));
        assert_eq!(steps(&[expanded("/", "/t", false)]).map(|steps| steps.len()), Ok(1));
        let error = steps(&[expanded("/no/such", "/t", true)]).unwrap_err().to_string();
        assert!(error.contains("bind 0: '/no/such' is required") && error.contains("not found"), "{error}");
    }

    #[test]
    fn a_destination_is_a_place_below_the_root() {
        for wrong in ["", "t", "/a/../b", "../t", "$NOTHING"] {
            assert!(matches!(steps(&[expanded("/", wrong, false)]), Err(Error::Target { .. })), "{wrong}");
        }
        assert_eq!(steps(&[expanded("/", "/", false)]), Err(Error::Root(0)));
    }
}
