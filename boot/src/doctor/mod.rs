//! `fim-doctor`: what a start needs of this host, tried out.

mod apparmor;
mod examination;

use std::ffi::OsString;
use std::fmt::Write;

use runtime::error::FAILURE;
use serde_json::{Value, json};

use self::examination::{Check, Examination, State};
use crate::cli::{print, print_bytes, trailing_arguments};
use crate::settings::print_json;
use crate::{Failure, Invocation};

/// `fim-doctor [--json]`, `fim-doctor --apparmor`.
///
/// # Errors
/// Wrong words; a standard stream that is a directory.
pub(crate) fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    match words {
        [] => examine(invocation, false),
        [word] if word == "--json" => examine(invocation, true),
        [word] if word == "--apparmor" => {
            let profile = apparmor::profile(&invocation.path, invocation.image.superblock.uuid, apparmor::mediates());
            print_bytes(&profile).map(|()| 0)
        }
        _ => Err(trailing_arguments("doctor", &words.iter().collect::<Vec<_>>())),
    }
}

/// Tries everything and prints what was found; the exit code says whether the image can run here.
///
/// # Errors
/// As [`run`].
pub fn examine(invocation: &Invocation, as_json: bool) -> Result<i32, Failure> {
    let examination = Examination::make(invocation)?;
    if as_json {
        print_json(&to_json(&examination))?;
    } else {
        print(&to_text(&examination))?;
    }
    Ok(if examination.runs() { 0 } else { FAILURE })
}

fn to_text(examination: &Examination) -> String {
    let mut text = String::new();
    let width = examination.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    for check in &examination.checks {
        let name = check.name;
        let (mark, found) = (mark(check), shown(check));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{mark:7} {name:width$}  {found}");
        if let State::Refused(refusal) = &check.state {
            let _ = writeln!(text, "        {:width$}  fix: {}", "", refusal.fix);
        }
    }
    let _ = writeln!(text);
    for (ladder, rung) in &examination.rungs {
        let _ = writeln!(text, "{ladder}: {rung}");
    }
    text.push_str(if examination.runs() { "\nThis image can run here.\n" } else { "\nThis image cannot run here.\n" });
    text
}

/// How the line of a check begins.
fn mark(check: &Check) -> &'static str {
    match (&check.state, check.needed) {
        (State::Works(_), _) => "ok",
        (State::Refused(_), true) => "FAILS",
        (State::Refused(_), false) => "missing",
        (State::Untried(_), _) => "-",
    }
}

fn shown(check: &Check) -> String {
    match &check.state {
        State::Works(found) => found.clone(),
        State::Refused(refusal) => refusal.why.clone(),
        State::Untried(needs) => format!("not tried: it needs {needs}"),
    }
}

fn to_json(examination: &Examination) -> Value {
    let check = |check: &Check| {
        let (result, fix) = match &check.state {
            State::Works(_) => ("works", None),
            State::Refused(refusal) => ("fails", Some(refusal.fix.as_str())),
            State::Untried(_) => ("untried", None),
        };
        json!({ "detail": shown(check), "fix": fix, "name": check.name, "needed": check.needed, "result": result })
    };
    let rungs: serde_json::Map<String, Value> =
        examination.rungs.iter().map(|(ladder, rung)| ((*ladder).to_owned(), rung.as_str().into())).collect();
    let checks: Vec<Value> = examination.checks.iter().map(check).collect();
    json!({ "checks": checks, "rungs": rungs, "runs": examination.runs() })
}

#[cfg(test)]
mod tests {
    use runtime::probe::Refusal;

    use super::*;

    fn examination(needed: bool) -> Examination {
        let refused = State::Refused(Refusal::new("why", "sudo fix"));
        let check = |name, needed, state| Check { name, needed, state };
        Examination {
            checks: vec![
                check("a", true, State::Works("found".to_owned())),
                check("long", needed, refused),
                check("c", true, State::Untried("long")),
            ],
            rungs: vec![("ids", "one".to_owned())],
        }
    }

    #[test]
    fn a_report_names_the_fix_and_the_verdict() {
        let text = to_text(&examination(true));
        assert_eq!(
            text,
            "ok      a     found\nFAILS   long  why\n              fix: sudo fix\n-       c     not tried: it needs long\n\
             \nids: one\n\nThis image cannot run here.\n"
        );
        let json = to_json(&examination(true));
        assert_eq!((&json["runs"], &json["checks"][1]["fix"]), (&json!(false), &json!("sudo fix")));
        assert_eq!(json["rungs"]["ids"], "one");
    }

    #[test]
    fn what_nothing_depends_on_may_be_missing() {
        let mut examination = examination(false);
        examination.checks.pop();
        assert!(examination.runs());
        assert!(to_text(&examination).contains("missing long"));
    }
}
