//! Which command runs. `argv[1]` that begins with `fim-` is a command of ours, everything else is the boot command's.

pub mod complete;
pub mod help;
mod man;
#[cfg(test)]
mod pages;
pub mod spec;
pub mod tool;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::launch::{self, Program};
use crate::version::Build;
use crate::{Failure, Invocation, Message, Roles, settings};

/// The `fim-` command of a command line, if it is one.
fn command(args: &[OsString]) -> Option<&OsStr> {
    args.first().map(OsString::as_os_str).filter(|word| word.as_bytes().starts_with(b"fim-"))
}

/// Whether the command runs something or changes the image, so that the image file must not be kept busy.
#[must_use]
pub fn needs_free_file(args: &[OsString]) -> bool {
    match command(args) {
        None => true,
        Some(word) => {
            let brief = word == "fim-instance" && crate::instance::is_brief(&args[1..]);
            let frees = spec::find(word).is_some_and(|spec| spec::frees_file(spec, &args[1..]));
            frees && !asks_for_help(args) && !brief
        }
    }
}

fn asks_for_help(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|word| word == "--help" || word == "-h")
}

/// Variable that asks where in the image file the configuration begins, in bytes.
const MAIN_OFFSET: &str = "FIM_MAIN_OFFSET";

/// Runs the command of an image; returns its exit code.
///
/// # Errors
/// Anything that makes the exit code 125, for the caller to print.
pub fn dispatch(invocation: &Invocation, roles: Roles, build: Build) -> Result<i32, Failure> {
    let args = &invocation.args;
    if std::env::var_os(MAIN_OFFSET).is_some_and(|value| !value.is_empty() && value != "0") {
        print(&format!("{}\n", invocation.image.superblock.slots[0]))?;
        return Ok(0);
    }
    let Some(word) = command(args) else {
        return launch::run(invocation, &Program::boot(&invocation.image.config, args), roles, build);
    };
    let Some(spec) = spec::find(word) else {
        let word = word.to_string_lossy();
        return Err(Message::boxed(format!(
            "Unknown command: {word}: Invalid fim command; `fim-help` lists the commands"
        )));
    };
    if asks_for_help(args) {
        print(&help::topic(spec))?;
        return Ok(0);
    }
    let rest = &args[1..];
    if let Some(code) = settings::inherit(invocation, spec.name, rest)? {
        return Ok(code);
    }
    match spec.name {
        "exec" | "root" => {
            let program = Program::given(rest, spec.name == "root").ok_or_else(|| {
                Message::boxed(format!(
                    "Incorrect number of arguments for fim-{0}; name a program: fim-{0} PROGRAM [ARGUMENT...]",
                    spec.name
                ))
            })?;
            launch::run(invocation, &program, roles, build)
        }
        "instance" => crate::instance::run(invocation, rest, roles, build),
        "key" => crate::key::run(invocation, rest),
        "port" => crate::port::run(invocation, rest),
        "service" => crate::service::run(invocation, rest, roles, build),
        "hook" => crate::hook::run(invocation, rest, roles, build),
        "alias" => crate::alias::run(invocation, rest),
        "portal" => crate::portal::configure::run(invocation, rest),
        "perms" => settings::sets::perms(invocation, rest),
        "env" => settings::env::run(invocation, rest),
        "bind" => settings::bind::run(invocation, rest),
        "layout" => crate::layout::run(invocation, rest),
        "boot" => settings::boot::run(invocation, rest),
        "unshare" => settings::sets::unshare(invocation, rest),
        "overlay" => settings::overlay::run(invocation, rest),
        "notify" => settings::switch::notify(invocation, rest),
        "casefold" => settings::switch::casefold(invocation, rest),
        "remote" => settings::remote::run(invocation, rest),
        "doctor" => crate::doctor::run(invocation, rest),
        "content" => crate::content::run(invocation, rest),
        "layer" => crate::layer::run(invocation, rest),
        "oci" => crate::oci::run(invocation, rest, build),
        "data" => crate::data::run(invocation, rest),
        "key-pair" => crate::publisher::pair_command(rest),
        "sign" => crate::publisher::sign_command(&invocation.path, rest),
        "cache" => crate::cache::run(rest),
        "version" => version(invocation, rest, build),
        "complete" => complete::run(invocation, rest),
        "help" => help_command(rest),
        "inspect" => {
            let json = only_flag(spec, rest, "--json")?;
            crate::inspect::run(&invocation.path, json, &mut std::io::stdout().lock())?;
            Ok(0)
        }
        "verify" => {
            let json = only_flag(spec, rest, "--json")?;
            let sound = crate::verify::run(&invocation.path, json, None, &mut std::io::stdout().lock())?;
            Ok(if sound { 0 } else { runtime::error::FAILURE })
        }
        other => Err(Message::boxed(format!("fim-{other} is not dispatched"))),
    }
}

/// Whether the one optional flag of a command was given; anything else is refused.
fn only_flag(spec: &spec::Spec, rest: &[OsString], flag: &str) -> Result<bool, Failure> {
    let trailing: Vec<&OsString> = rest.iter().filter(|word| flag.is_empty() || *word != flag).collect();
    if !trailing.is_empty() {
        return Err(trailing_arguments(spec.name, &trailing));
    }
    Ok(!rest.is_empty())
}

/// The error for arguments that a command does not take.
pub(crate) fn trailing_arguments(name: &str, words: &[&OsString]) -> Failure {
    let list: String = words.iter().map(|word| format!("'{}',", word.to_string_lossy())).collect();
    Message::boxed(format!("Trailing arguments for fim-{name}: [{list}]; remove them, or see fim-help {name}"))
}

fn version(invocation: &Invocation, rest: &[OsString], build: Build) -> Result<i32, Failure> {
    let operation = rest.first().map(|word| word.to_string_lossy().to_lowercase());
    if let (Some(_), Some(_)) = (&operation, rest.get(1)) {
        return Err(trailing_arguments("version", &rest[1..].iter().collect::<Vec<_>>()));
    }
    match operation.as_deref() {
        Some("short") => print(&format!("{}\n", build.short()))?,
        Some("full") => print(&format!("{}\n", build.full(&invocation.image.config.name)))?,
        Some("deps") => print(crate::version::DEPENDENCIES)?,
        Some(_) => return Err(Message::boxed("Invalid version operation; use fim-version short, full or deps")),
        None => return Err(Message::boxed("Missing op for 'fim-version' (<short|full|deps>)")),
    }
    Ok(0)
}

fn help_command(rest: &[OsString]) -> Result<i32, Failure> {
    if let Some(at) = rest.iter().position(|word| word == "--man") {
        let topic = rest.iter().enumerate().find(|(index, _)| *index != at).map(|(_, topic)| find_topic(topic));
        return print(&topic.transpose()?.map_or_else(man::overview, man::page)).map(|()| 0);
    }
    let Some(topic) = rest.first() else {
        // On stderr with exit code 0, as scripts written for FlatImage expect.
        eprint!("{}", help::overview());
        return Ok(0);
    };
    print(&help::topic(find_topic(topic)?)).map(|()| 0)
}

fn find_topic(topic: &OsStr) -> Result<&'static spec::Spec, Failure> {
    let name = [b"fim-", topic.as_bytes()].concat();
    spec::find(OsStr::from_bytes(&name)).filter(|spec| spec.name != "help").ok_or_else(|| {
        Message::boxed(format!(
            "Invalid argument for help command: {}; `fim-help` lists the topics",
            topic.to_string_lossy()
        ))
    })
}

/// Prints a result on stdout. A reader that has gone ends it quietly.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// As [`print`], of what need not be text.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Message::boxed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn only_commands_that_run_or_change_free_the_file() {
        for (line, expected) in [
            ("", true),
            ("ls -l", true),
            ("fim-exec ls", true),
            ("fim-root ls", true),
            ("fim-exec --help", false),
            ("fim-exec list", true),
            ("fim-perms add home", true),
            ("fim-perms LIST", false),
            ("fim-overlay show --json", false),
            ("fim-version short", false),
            ("fim-help", false),
            ("fim-nonsense", false),
            ("FIM-exec ls", true),
            ("fim-layer list", false),
            ("fim-layer add list", true),
            ("fim-instance list", false),
            ("fim-instance KILL 0", false),
            ("fim-instance stats", true),
            ("fim-instance wait 0", true),
        ] {
            assert_eq!(needs_free_file(&words(line)), expected, "{line}");
        }
    }
}
