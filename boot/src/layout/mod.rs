//! `fim-layout`: files of the application at the places where a program expects them.

mod check;
mod explain;
mod import;
mod kept;
pub(crate) mod plan;
mod surroundings;
pub(crate) mod word;
mod yaml;

use std::ffi::OsString;

use runtime::image::Config;
use runtime::image::declared::{Layout, LayoutKind};
use runtime::installation::Setting;
use serde_json::json;

use crate::launch::{data, facts, revision};
use crate::settings::{bytes, change, invalid_operation, json_flag, no_more, operation, print_json, text};
use crate::{Failure, Invocation, Message, cli};
use word::{Places, Word};

/// Puts the layout in the place of an object of another type.
const REPLACE: &str = "--replace";

/// Runs `fim-layout` with the words after it; returns its exit code.
///
/// # Errors
/// Wrong words, layouts that cannot be made, and an image that cannot be changed; nothing is changed then.
pub fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let missing = "Missing op for 'fim-layout' (<add|del|list|clear|check|explain|import>)";
    let (operation, rest) = operation("layout", words, missing)?;
    match operation.as_str() {
        "add" => {
            let layout = parse(rest)?;
            edit(invocation, |layouts| {
                layouts.push(layout);
                Ok(())
            })
        }
        "del" => {
            let [target] = rest else {
                return Err(Message::boxed(
                    "Incorrect number of arguments for 'del' (<target>); fim-layout list shows them",
                ));
            };
            change(invocation, Setting::Layout, |config| delete(config, &bytes(target))).map(|()| 0)
        }
        "clear" => {
            no_more("layout", rest)?;
            change(invocation, Setting::Layout, |config| {
                config.declared.layouts.clear();
                Ok(0)
            })
        }
        "list" => list(&invocation.image.config.declared.layouts, json_flag("layout", rest)?),
        "check" => {
            no_more("layout", rest)?;
            check::run(invocation)
        }
        "explain" => {
            no_more("layout", rest)?;
            explain::run(invocation)
        }
        "import" => {
            let [file] = rest else {
                return Err(Message::boxed("Incorrect number of arguments for 'import' (<file>); see fim-help layout"));
            };
            let layouts = import::read(file.as_ref())?;
            let count = layouts.len();
            edit(invocation, |all| {
                all.extend(layouts);
                Ok(())
            })?;
            cli::print(&format!("{count} layouts imported\n")).map(|()| 0)
        }
        other => Err(invalid_operation("layout", other)),
    }
}

/// Changes the layouts, when all of them can be made afterwards.
fn edit(invocation: &Invocation, edit: impl FnOnce(&mut Vec<Layout>) -> Result<(), Failure>) -> Result<i32, Failure> {
    let places = places(invocation)?;
    change(invocation, Setting::Layout, |config| {
        edit(&mut config.declared.layouts)?;
        plan::plan(&config.declared.layouts, &places, &[])?;
        Ok(0)
    })
}

/// Where the next start has the directories of the installation.
fn places(invocation: &Invocation) -> Result<Places, Failure> {
    let caller = facts::caller();
    let revision = revision::decide(data::candidates(invocation, &caller), &invocation.image.config)?;
    Ok(revision::places(&revision.now))
}

/// The layout of `add`.
fn parse(rest: &[OsString]) -> Result<Layout, Failure> {
    let replace = rest.iter().any(|word| word == REPLACE);
    let words: Vec<&OsString> = rest.iter().filter(|word| *word != REPLACE).collect();
    let (target, kind, source) = match *words {
        [target, kind] => (target, kind, None),
        [target, kind, source] => (target, kind, Some(source)),
        _ => {
            return Err(Message::boxed(
                "Incorrect number of arguments for 'add' (<target> <symlink,bind,bind-file> <source>, or <target> tmpfs); \
                 see fim-help layout",
            ));
        }
    };
    let kind = kind_named(&kind.to_string_lossy()).ok_or_else(|| {
        Message::boxed(format!(
            "Invalid layout type '{}'; use symlink, bind, bind-file or tmpfs",
            kind.to_string_lossy().escape_debug()
        ))
    })?;
    match (kind, source) {
        (LayoutKind::Tmpfs, Some(_)) => Err(Message::boxed("a tmpfs has no source; leave it out")),
        (LayoutKind::Tmpfs, None) => made(&bytes(target), kind, b"", replace),
        (_, None) => {
            Err(Message::boxed(format!("a {} needs a source behind its type; see fim-help layout", kind.name())))
        }
        (_, Some(source)) => made(&bytes(target), kind, &bytes(source), replace),
    }
}

fn kind_named(name: &str) -> Option<LayoutKind> {
    LayoutKind::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
}

/// A layout with its words as they are stored.
fn made(target: &[u8], kind: LayoutKind, source: &[u8], replace: bool) -> Result<Layout, Failure> {
    let word = |what: &str, bytes: &[u8]| {
        Word::parse(bytes).map(|word| word.stored()).map_err(|error| {
            Message::boxed(format!("the {what} '{}' of a layout cannot be used: {error}", text(bytes).escape_debug()))
        })
    };
    let target = word("target", target)?;
    let source = if kind == LayoutKind::Tmpfs { Vec::new() } else { word("source", source)? };
    Ok(Layout { target, kind, source, replace })
}

/// Takes a target away, however it is spelled.
fn delete(config: &mut Config, target: &[u8]) -> Result<(), Failure> {
    let meant = Word::parse(target).map(|word| word.stored()).ok();
    let is_meant = |layout: &Layout| layout.target == target || meant.as_ref() == Some(&layout.target);
    let layouts = &mut config.declared.layouts;
    match layouts.iter().position(is_meant) {
        Some(at) => {
            layouts.remove(at);
            Ok(())
        }
        None => Err(Message::boxed(format!(
            "there is no layout for '{}'; fim-layout list shows them",
            text(target).escape_debug()
        ))),
    }
}

fn list(layouts: &[Layout], as_json: bool) -> Result<i32, Failure> {
    if as_json {
        let one = |layout: &Layout| {
            let mut value =
                json!({"target": text(&layout.target), "type": layout.kind.name(), "replace": layout.replace});
            if layout.kind != LayoutKind::Tmpfs {
                value["source"] = text(&layout.source).into();
            }
            value
        };
        return print_json(&layouts.iter().map(one).collect());
    }
    let lines: Vec<Vec<u8>> = layouts.iter().map(line).collect();
    cli::print_bytes(&lines.concat()).map(|()| 0)
}

/// A layout as the words of `add`.
fn line(layout: &Layout) -> Vec<u8> {
    let mut words = vec![layout.target.clone(), layout.kind.name().into()];
    if layout.kind != LayoutKind::Tmpfs {
        words.push(layout.source.clone());
    }
    if layout.replace {
        words.push(REPLACE.into());
    }
    [words.join(&b' '), b"\n".to_vec()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<String, String> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&words).map(|layout| text(&super::line(&layout))).map_err(|error| error.to_string())
    }

    #[test]
    fn words_of_add() {
        for (given, stored) in [
            ("/etc/foo.conf bind-file $SNAP_DATA/etc/foo.conf", "/etc/foo.conf bind-file $FIM_DATA/etc/foo.conf\n"),
            ("/a// Symlink $SNAP/a --replace", "/a symlink $FIM_ROOT_DIR/a --replace\n"),
            ("--replace /a tmpfs", "/a tmpfs --replace\n"),
        ] {
            assert_eq!(parsed(given).as_deref(), Ok(stored));
        }
        for (given, error) in [
            ("", "Incorrect number"),
            ("/a", "Incorrect number"),
            ("/a bind $FIM_DATA/a b", "Incorrect number"),
            ("/a link $FIM_DATA/a", "Invalid layout type 'link'"),
            ("/a bind", "needs a source"),
            ("/a tmpfs $FIM_DATA/a", "has no source"),
            ("a tmpfs", "the target 'a' of a layout cannot be used"),
            ("/a bind x", "the source 'x' of a layout cannot be used"),
        ] {
            assert!(parsed(given).unwrap_err().contains(error), "{given}");
        }
    }

    #[test]
    fn a_layout_is_deleted_by_any_spelling() {
        let mut config = Config::default();
        let mut add = |target: &[u8]| {
            config.declared.layouts.push(Layout {
                target: target.to_vec(),
                kind: LayoutKind::Tmpfs,
                source: Vec::new(),
                replace: false,
            });
        };
        add(b"$FIM_DATA/a");
        add(b"no path");
        delete(&mut config, b"$SNAP_DATA//a/").unwrap();
        delete(&mut config, b"no path").unwrap();
        assert!(delete(&mut config, b"/a").unwrap_err().to_string().contains("no layout for '/a'"));
        assert!(config.declared.layouts.is_empty());
    }
}
