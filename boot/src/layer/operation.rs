//! The words of `fim-layer`: all that can be wrong with them is found here.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::level::Level;
use super::rebase::Choice;
use crate::settings::{invalid_operation, no_more, operation};
use crate::{Failure, Message};

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A layer file from a directory.
    Create { directory: PathBuf, file: PathBuf, level: Level },
    /// A layer file into the image.
    Add { file: PathBuf },
    /// The writable layer becomes a read-only one.
    Commit { target: Target, level: Level },
    /// The stack.
    List { json: bool },
    /// The last embedded layer goes.
    Remove { index: usize },
    /// One layer as a directory.
    Extract { index: usize, directory: PathBuf },
    /// What the writable layer changes.
    Diff { json: bool },
    /// Several layers become one.
    Squash { stack: Stack, level: Level },
    /// The writable layer is emptied.
    Reset { yes: bool },
    /// What becomes of a writable layer that was made on other layers.
    Rebase { choice: Choice },
}

/// Where a committed layer goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// Into the image.
    Binary,
    /// Among the managed layers of the data directory.
    Layer,
    /// To a file.
    File(PathBuf),
}

/// Which layers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stack {
    /// Those in the image.
    Binary,
    /// The managed ones.
    Layer,
}

const MISSING: &str = "Missing op for 'fim-layer' (create,add,commit,list)";

impl Operation {
    /// # Errors
    /// Wrong words, with the texts that scripts know.
    pub(super) fn parse(words: &[OsString]) -> Result<Self, Failure> {
        let (operation, rest) = operation("layer", words, MISSING)?;
        let mut rest = Rest(rest.to_vec());
        let parsed = match operation.as_str() {
            "create" => {
                let level = rest.level()?;
                let [directory, file] =
                    rest.exactly("create requires exactly two arguments (/path/to/dir /path/to/file.layer)")?;
                Self::Create { directory: directory.into(), file: file.into(), level }
            }
            "add" => {
                let [file] = rest.exactly("add requires exactly one argument (/path/to/file.layer)")?;
                Self::Add { file: file.into() }
            }
            "commit" => {
                let level = rest.level()?;
                let target = rest.target()?;
                rest.end("layer commit")?;
                Self::Commit { target, level }
            }
            "list" => {
                let json = rest.flag("--json");
                rest.end("layer list")?;
                Self::List { json }
            }
            "remove" => {
                let [index] = rest.exactly("remove requires exactly one argument (<index>)")?;
                Self::Remove { index: number(&index)? }
            }
            "extract" => {
                let [index, directory] =
                    rest.exactly("extract requires exactly two arguments (<index> /path/to/dir)")?;
                Self::Extract { index: number(&index)?, directory: directory.into() }
            }
            "diff" => {
                let json = rest.flag("--json");
                rest.end("layer diff")?;
                Self::Diff { json }
            }
            "squash" => {
                let level = rest.level()?;
                let stack = match rest.word().as_deref() {
                    None | Some("binary") => Stack::Binary,
                    Some("layer") => Stack::Layer,
                    Some(other) => return Err(invalid("squash", other, "use binary or layer")),
                };
                rest.end("layer squash")?;
                Self::Squash { stack, level }
            }
            "reset" => {
                let yes = rest.flag("--yes");
                rest.end("layer reset")?;
                Self::Reset { yes }
            }
            "rebase" => {
                let Some(word) = rest.word() else {
                    return Err(Message::boxed("Missing op for 'rebase' (keep,commit,reset); see fim-help layer"));
                };
                let choice = Choice::of(&word).ok_or_else(|| invalid("rebase", &word, "use keep, commit or reset"))?;
                rest.end("layer rebase")?;
                Self::Rebase { choice }
            }
            other => return Err(invalid_operation("layer", other)),
        };
        Ok(parsed)
    }
}

/// The words behind the operation that were not understood yet.
struct Rest(Vec<OsString>);

impl Rest {
    /// Whether this word is there.
    fn flag(&mut self, name: &str) -> bool {
        let at = self.0.iter().position(|word| word == name);
        at.map(|at| self.0.remove(at)).is_some()
    }

    /// `--level` and its value, or what the environment says.
    fn level(&mut self) -> Result<Level, Failure> {
        let Some(at) = self.0.iter().position(|word| word == "--level") else { return Ok(Level::from_environment()) };
        self.0.remove(at);
        if at == self.0.len() {
            return Err(Message::boxed("Missing value for '--level'; use 0 (fast) to 9 (small)"));
        }
        Level::given(&self.0.remove(at))
    }

    /// The next word in lower case.
    fn word(&mut self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.remove(0).to_string_lossy().to_lowercase())
    }

    fn target(&mut self) -> Result<Target, Failure> {
        match self.word().as_deref() {
            Some("binary") => Ok(Target::Binary),
            Some("layer") => Ok(Target::Layer),
            Some("file") if self.0.is_empty() => {
                Err(Message::boxed("Missing path for 'file' operation; name the file to make"))
            }
            Some("file") => Ok(Target::File(self.0.remove(0).into())),
            Some(other) => Err(invalid("commit", other, "use binary, layer or file")),
            None => Err(Message::boxed("Missing op for 'commit' (binary,layer,file); see fim-help layer")),
        }
    }

    fn exactly<const COUNT: usize>(self, otherwise: &str) -> Result<[OsString; COUNT], Failure> {
        self.0.try_into().map_err(|_| Message::boxed(format!("{otherwise}; see fim-help layer")))
    }

    fn end(self, command: &str) -> Result<(), Failure> {
        no_more(command, &self.0)
    }
}

fn invalid(operation: &str, word: &str, fix: &str) -> Failure {
    Message::boxed(format!("Invalid {operation} operation '{}'; {fix}", word.escape_debug()))
}

fn number(word: &OsStr) -> Result<usize, Failure> {
    let digits = word.to_str().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|word| word.parse().ok()).ok_or_else(|| {
        let word = word.to_string_lossy();
        Message::boxed(format!(
            "Index of a layer is not a number: '{}'; fim-layer list shows them",
            word.escape_debug()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Operation, String> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        Operation::parse(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn operations() {
        let level = |digit| Level::given(OsStr::new(digit)).unwrap();
        for (line, expected) in [
            ("ADD f", Operation::Add { file: "f".into() }),
            ("create --level 3 d f", Operation::Create { directory: "d".into(), file: "f".into(), level: level("3") }),
            ("create d f --level 9", Operation::Create { directory: "d".into(), file: "f".into(), level: level("9") }),
            ("commit Binary --level 0", Operation::Commit { target: Target::Binary, level: level("0") }),
            ("commit layer --level 1", Operation::Commit { target: Target::Layer, level: level("1") }),
            ("commit file --level 1 F", Operation::Commit { target: Target::File("F".into()), level: level("1") }),
            ("list", Operation::List { json: false }),
            ("list --json", Operation::List { json: true }),
            ("remove 12", Operation::Remove { index: 12 }),
            ("extract 0 d", Operation::Extract { index: 0, directory: "d".into() }),
            ("diff --json", Operation::Diff { json: true }),
            ("squash --level 2", Operation::Squash { stack: Stack::Binary, level: level("2") }),
            ("squash LAYER --level 2", Operation::Squash { stack: Stack::Layer, level: level("2") }),
            ("reset --yes", Operation::Reset { yes: true }),
            ("rebase keep", Operation::Rebase { choice: Choice::Keep }),
        ] {
            assert_eq!(parse(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn texts_that_scripts_know() {
        for (line, text) in [
            ("", "Missing op for 'fim-layer' (create,add,commit,list)"),
            ("burn", "Invalid layer operation"),
            ("create", "create requires exactly two arguments (/path/to/dir /path/to/file.layer)"),
            ("create a b c", "create requires exactly two arguments (/path/to/dir /path/to/file.layer)"),
            ("create a b --level", "Missing value for '--level'"),
            ("create a b --level 10", "Invalid compression level '10'"),
            ("add", "add requires exactly one argument (/path/to/file.layer)"),
            ("add a b", "add requires exactly one argument (/path/to/file.layer)"),
            ("commit", "Missing op for 'commit' (binary,layer,file)"),
            ("commit burn", "Invalid commit operation"),
            ("commit file", "Missing path for 'file' operation"),
            ("commit file a b", "Trailing arguments for fim-layer commit: ['b',]"),
            ("commit binary a", "Trailing arguments for fim-layer commit: ['a',]"),
            ("list all", "Trailing arguments for fim-layer list: ['all',]"),
            ("remove", "remove requires exactly one argument"),
            ("remove -1", "Index of a layer is not a number: '-1'"),
            ("remove +1", "Index of a layer is not a number: '+1'"),
            ("extract 1", "extract requires exactly two arguments"),
            ("squash burn", "Invalid squash operation"),
            ("rebase", "Missing op for 'rebase' (keep,commit,reset)"),
            ("rebase burn", "Invalid rebase operation"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(text), "{line}: {error}");
        }
    }
}
