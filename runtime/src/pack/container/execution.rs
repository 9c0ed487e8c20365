//! What of an image's configuration an image of ours keeps.

use super::manifest::Execution;
use crate::image::{Boot, Config};
use std::fmt;

/// Something that an image of ours has no place for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unkept(String);

impl fmt::Display for Unkept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Goes to the working directory, its first argument, and becomes the command that follows.
const IN_DIRECTORY: &str = r#"cd -- "$1" && shift && exec "$@""#;

/// Boot command and environment of an image, and what is not kept. `shell` says whether the image has a shell, which
/// is what can change the working directory.
pub fn config(run: &Execution, shell: bool) -> (Config, Vec<Unkept>) {
    let mut unkept = Vec::new();
    let mut note = |text: String| unkept.push(Unkept(text));
    let mut config = Config::default();
    for text in run.env.iter().flatten() {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            note(format!("the variable {text:?}, which has no value"));
            continue;
        };
        if value.contains('$') {
            note(format!("that the value of {name} is literal: $NAME in it is replaced"));
        }
        config.env.retain(|(known, _)| known != name.as_bytes());
        config.env.push((name.into(), value.into()));
    }
    let command: Vec<&String> = run.entrypoint.iter().flatten().chain(run.cmd.iter().flatten()).collect();
    let directory = run.working_dir.as_deref().filter(|directory| !matches!(*directory, "" | "/"));
    let mut words: Vec<Vec<u8>> = command.iter().map(|word| word.as_bytes().to_vec()).collect();
    match (directory, shell) {
        (Some(directory), true) if !words.is_empty() => {
            let before = ["/bin/sh", "-c", IN_DIRECTORY, "sh", directory];
            words.splice(0..0, before.map(|word| word.as_bytes().to_vec()));
        }
        (Some(directory), _) => {
            note(format!("the working directory {directory}"));
            // A program that is relative to it can still be found.
            if let Some(program) = words.first_mut().filter(|word| word.contains(&b'/') && word[0] != b'/') {
                *program = [directory.as_bytes(), b"/", program].concat();
            }
        }
        (None, _) => {}
    }
    if let Some((program, args)) = words.split_first().filter(|(program, _)| !program.is_empty()) {
        config.boot = Some(Boot { program: program.clone(), args: args.to_vec() });
    }
    let user = run.user.as_deref().unwrap_or_default();
    if !matches!(user.split(':').next(), None | Some("" | "0" | "root")) {
        note(format!("the user {user}: programs run as the caller"));
    }
    if let Some(ports) = run.exposed_ports.as_ref().filter(|ports| !ports.is_empty()) {
        let ports: Vec<&str> = ports.keys().map(String::as_str).collect();
        note(format!("the ports {}: --perms network gives the host's network", ports.join(" ")));
    }
    if let Some(signal) = run.stop_signal.as_deref().filter(|signal| !matches!(*signal, "" | "SIGTERM" | "15")) {
        note(format!("the stop signal {signal}"));
    }
    if run.healthcheck.is_some() {
        note("the health check".to_owned());
    }
    (config, unkept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(json: &str, shell: bool) -> (Vec<String>, Vec<(String, String)>, String) {
        let (config, unkept) = config(&serde_json::from_str(json).unwrap(), shell);
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
        let boot = config.boot.iter().flat_map(|boot| std::iter::once(&boot.program).chain(&boot.args)).map(text);
        let env = config.env.iter().map(|(name, value)| (text(name), text(value)));
        let unkept: Vec<String> = unkept.iter().map(Unkept::to_string).collect();
        (boot.collect(), env.collect(), unkept.join("; "))
    }

    #[test]
    fn entrypoint_and_command_become_the_boot_command() {
        let (boot, env, unkept) = run(
            r#"{"Entrypoint":["/bin/app","-x"],"Cmd":["a b",""],"Env":["A=1","B=2=3","A=4"],"User":"0:0","WorkingDir":"/"}"#,
            true,
        );
        assert_eq!(boot, ["/bin/app", "-x", "a b", ""]);
        assert_eq!(env, [("B".into(), "2=3".into()), ("A".into(), "4".into())]);
        assert_eq!(unkept, "");
        assert_eq!(run(r#"{"Entrypoint":null,"Cmd":null,"Env":null}"#, true), (vec![], vec![], String::new()));
    }

    #[test]
    fn the_working_directory_needs_a_shell() {
        let json = r#"{"Cmd":["./app","x"],"WorkingDir":"/srv/my app"}"#;
        let (boot, _, unkept) = run(json, true);
        assert_eq!(
            (&boot[..2], &boot[3..]),
            (&["/bin/sh".into(), "-c".into()][..], &["sh", "/srv/my app", "./app", "x"].map(String::from)[..])
        );
        assert_eq!(unkept, "");
        let (boot, _, unkept) = run(json, false);
        assert_eq!(
            (boot, unkept),
            (vec!["/srv/my app/./app".into(), "x".into()], "the working directory /srv/my app".into())
        );
    }

    #[test]
    fn what_is_not_kept_is_said() {
        let (_, env, unkept) = run(
            r#"{"User":"www:www","ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGQUIT","Healthcheck":{"Test":[]},"Env":["X","P=a$B"]}"#,
            true,
        );
        for word in ["the user www:www", "80/tcp", "SIGQUIT", "health check", "\"X\"", "value of P is literal"] {
            assert!(unkept.contains(word), "{unkept}");
        }
        assert_eq!(env.len(), 1);
    }
}
