//! Where the programs of an instance are found.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Pid, execve};
use runtime::error::{NOT_EXECUTABLE, NOT_FOUND};
use runtime::sandbox::plan::Command;
use runtime::spawn::{self, Terminal};

/// Shells that take a word that is no file, in the order they are looked for.
pub(crate) const SHELLS: [&CStr; 2] = [c"/bin/bash", c"/bin/sh"];

/// Starts the command in a process group of its own.
pub(crate) fn start(command: &Command, terminal: Option<&Terminal>) -> nix::Result<Pid> {
    spawn::start(command, terminal, &become_program)
}

/// Replaces the process by the command's program; returns exit code and message when it cannot.
pub(crate) fn become_program(command: &Command, env: &[CString]) -> (i32, String) {
    if command.shell {
        if command.argv.is_empty()
            && let Some(file) = env.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"BASHRC_FILE="))
            && let Ok(file) = CString::new(file)
        {
            // By hand: with the image's prompt, which a system-wide file would replace if it came from the environment.
            let Err(_missing) = execve(SHELLS[0], &[SHELLS[0].to_owned(), c"--rcfile".into(), file], env);
        }
        run_shell(&command.argv, env);
        return (NOT_FOUND, "the image has no shell; name a program with fim-exec".to_owned());
    }
    let (code, message) = execute(&command.argv, env);
    let word = command.argv.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    (code, format!("{word}: {message}"))
}

/// Where a program word may lie: itself when it has a slash, else below each directory of PATH (execvp(3)).
fn candidates(word: &CStr, path: &[u8]) -> Vec<CString> {
    let bytes = word.to_bytes();
    if bytes.is_empty() {
        return Vec::new();
    }
    if bytes.contains(&b'/') {
        return vec![word.to_owned()];
    }
    let below = |directory: &[u8]| {
        let mut file = if directory.is_empty() { b"./".to_vec() } else { [directory, b"/"].concat() };
        file.extend_from_slice(bytes);
        CString::new(file).ok()
    };
    path.split(|&byte| byte == b':').filter_map(below).collect()
}

/// Tries every place; returns the exit code and message that a shell would give.
fn execute(argv: &[CString], env: &[CString]) -> (i32, &'static str) {
    let Some(word) = argv.first() else { return (NOT_FOUND, "no command") };
    let path = env.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH=")).unwrap_or(b"/usr/bin:/bin");
    let mut denied = None;
    for file in candidates(word, path) {
        let Err(errno) = execve(&file, argv, env);
        match errno {
            Errno::ENOENT | Errno::ENOTDIR if missing(&file) => {}
            Errno::ENOENT => return (NOT_EXECUTABLE, "its interpreter is missing in the image"),
            Errno::ENOTDIR => {}
            // A script without an interpreter line: a shell reads it, as execvp(3) does.
            Errno::ENOEXEC => {
                let mut words = vec![file];
                words.extend_from_slice(&argv[1..]);
                run_shell(&words, env);
                return (NOT_EXECUTABLE, "cannot execute: required file format not understood");
            }
            Errno::E2BIG => return (NOT_EXECUTABLE, "the argument list is too long"),
            errno if is_directory(&file) => denied = denied.or(Some((errno, "is a directory"))),
            errno => denied = denied.or(Some((errno, "permission denied"))),
        }
    }
    if let Some((_, message)) = denied {
        return (NOT_EXECUTABLE, message);
    }
    if word.to_bytes().contains(&b'/') {
        return (NOT_FOUND, "no such file or directory");
    }
    // Not a file: a word of the shell perhaps, `command` or `type`. It gets the arguments untouched.
    let mut words: Vec<CString> = vec![c"-c".into(), c"\"$@\"".into(), c"sh".into()];
    words.extend_from_slice(argv);
    run_shell(&words, env);
    (NOT_FOUND, "command not found")
}

/// Replaces the process by the image's shell with these arguments; returns when there is none.
fn run_shell(words: &[CString], env: &[CString]) {
    for shell in SHELLS {
        let mut argv: Vec<CString> = vec![shell.to_owned()];
        argv.extend_from_slice(words);
        let Err(_missing) = execve(shell, &argv, env);
    }
}

fn missing(file: &CStr) -> bool {
    !Path::new(std::ffi::OsStr::from_bytes(file.to_bytes())).exists()
}

fn is_directory(file: &CStr) -> bool {
    Path::new(std::ffi::OsStr::from_bytes(file.to_bytes())).is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_looked_for_along_path() {
        assert_eq!(candidates(c"ls", b"/a:/b"), [c"/a/ls".to_owned(), c"/b/ls".to_owned()]);
        assert_eq!(candidates(c"ls", b":/b"), [c"./ls".to_owned(), c"/b/ls".to_owned()]);
        assert_eq!(candidates(c"./ls", b"/a"), [c"./ls".to_owned()]);
        assert!(candidates(c"", b"/a").is_empty());
    }
}
