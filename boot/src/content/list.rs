//! `fim-content list` and `connections`.

use runtime::image::declared::{Plug, Slot};
use serde_json::{Value, json};

use super::resolve::{Search, Without};
use crate::launch::facts;
use crate::settings::{print_json, text};
use crate::{Failure, Invocation, cli};

/// Prints `slot:NAME:CONTENT:paths` and `plug:NAME:CONTENT:target`, a line for each, or a JSON object.
pub(super) fn declared(invocation: &Invocation, as_json: bool) -> Result<i32, Failure> {
    let declared = &invocation.image.config.declared;
    if as_json {
        let slots: Vec<Value> = declared.slots.iter().map(slot_json).collect();
        let plugs: Vec<Value> = declared.plugs.iter().map(plug_json).collect();
        return print_json(&json!({"plugs": plugs, "slots": slots}));
    }
    let slots = declared.slots.iter().map(slot_line);
    let lines: String = slots.chain(declared.plugs.iter().map(plug_line)).collect();
    cli::print(&lines).map(|()| 0)
}

fn slot_line(slot: &Slot) -> String {
    let paths = |option: &str, paths: &[Vec<u8>]| {
        paths.iter().map(|path| format!(" {option} {}", text(path).escape_debug())).collect::<String>()
    };
    let source = if slot.source { " --source" } else { "" };
    let (read, write) = (paths("--read", &slot.read), paths("--write", &slot.write));
    format!("slot:{}:{}:{}\n", slot.name, slot.content, format!("{read}{write}{source}").trim_start())
}

fn plug_line(plug: &Plug) -> String {
    let mut options = format!("--target {}", text(&plug.target).escape_debug());
    if let Some(provider) = &plug.provider {
        options.push_str(&format!(" --default-provider {}", text(provider).escape_debug()));
    }
    if let Some(least) = &plug.least {
        options.push_str(&format!(" --least {least}"));
    }
    if let Some(digest) = &plug.digest {
        options.push_str(&format!(" --digest {digest}"));
    }
    if plug.optional {
        options.push_str(" --optional");
    }
    format!("plug:{}:{}:{options}\n", plug.name, plug.content)
}

fn slot_json(slot: &Slot) -> Value {
    let paths = |paths: &[Vec<u8>]| paths.iter().map(|path| text(path)).collect::<Vec<_>>();
    json!({
        "content": slot.content,
        "name": slot.name,
        "read": paths(&slot.read),
        "source": slot.source,
        "write": paths(&slot.write),
    })
}

fn plug_json(plug: &Plug) -> Value {
    json!({
        "content": plug.content,
        "default_provider": plug.provider.as_deref().map(text),
        "digest": plug.digest.map(|digest| digest.to_string()),
        "least": plug.least,
        "name": plug.name,
        "optional": plug.optional,
        "target": text(&plug.target),
    })
}

/// One line of `connections`.
struct Line {
    plug: String,
    content: String,
    /// File and slot.
    producer: Option<(String, String)>,
    /// Why it gets nothing.
    problem: Option<String>,
}

/// Prints `PLUG:CONTENT:FILE:SLOT`, a line for each producer that a start would use now, and what is wrong in place of the
/// last two; or a JSON array.
pub(super) fn connections(invocation: &Invocation, as_json: bool) -> Result<i32, Failure> {
    let caller = facts::caller();
    // Nobody is asked: this is no start.
    let mut search = Search::new(invocation, &caller);
    let mut lines = Vec::new();
    for plug in &invocation.image.config.declared.plugs {
        let line =
            |producer, problem| Line { plug: plug.name.clone(), content: plug.content.clone(), producer, problem };
        match search.producers(plug) {
            Ok(found) => lines.extend(found.iter().map(|(producer, slot)| {
                line(Some((producer.path.to_string_lossy().into_owned(), slot.name.clone())), None)
            })),
            Err(Without::Missing(text)) => lines.push(line(None, Some(text))),
            Err(Without::Unusable(why)) => lines.push(line(None, Some(runtime::error::chain(why.as_ref())))),
        }
    }
    if as_json {
        return print_json(&lines.iter().map(json).collect());
    }
    let shown = |line: &Line| {
        let rest = match (&line.producer, &line.problem) {
            (Some((file, slot)), _) => format!("{}:{slot}", file.escape_debug()),
            (None, problem) => format!("-:{}", problem.clone().unwrap_or_default()),
        };
        format!("{}:{}:{rest}\n", line.plug, line.content)
    };
    cli::print(&lines.iter().map(shown).collect::<String>()).map(|()| 0)
}

fn json(line: &Line) -> Value {
    json!({
        "content": line.content,
        "file": line.producer.as_ref().map(|(file, _)| file),
        "plug": line.plug,
        "problem": line.problem,
        "slot": line.producer.as_ref().map(|(_, slot)| slot),
    })
}
