//! `fim_portal` inside an instance: the client side of a request to the host.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use runtime::instance::TerminalUse;
use runtime::portal::{self, IN_GUEST, XDG_OPEN};
use runtime::request;
use runtime::wire::VERSION;
use runtime::wire::body::{Request, Terminal};

use crate::instance::client::{Client, size_of};
use crate::launch::{terminal, terminal_use};
use crate::{Failure, Message};

/// Runs a host command; returns its exit code.
///
/// # Errors
/// When there is no portal, or it cannot serve this request.
pub fn run(args: &[OsString]) -> Result<i32, Failure> {
    let words = words(args);
    if words.is_empty() {
        crate::report(&"name a command: fim_portal COMMAND [ARGUMENT...]");
        return Ok(1);
    }
    let portal = Path::new(IN_GUEST);
    if !portal.is_dir() {
        return Err(Message::boxed(format!("{IN_GUEST} is missing: fim_portal works inside an instance only")));
    }
    let pipes = portal::claim(portal)?.ok_or_else(|| {
        Message::boxed(format!("{} host commands of this instance run already; wait for one to end", portal::COMMANDS))
    })?;
    let request = request(&words);
    let id = pipes.id;
    let announce = || match portal::ring(portal, id)? {
        Some(bell) => Ok(Some(bell)),
        None => Err(Message::boxed(
            "the host daemon of this session was killed; the next start of the image, or fim-instance exec, begins another",
        )),
    };
    Client::new(pipes, request, None, "the host's side of the portal".to_owned()).run(&announce).map_err(Message::boxed)
}

/// The command and its arguments. Under the name `xdg-open`, which is a link to this program, it is that command.
fn words(args: &[OsString]) -> Vec<OsString> {
    let name = args.first().map(Path::new).and_then(Path::file_name);
    let own = name.filter(|name| *name == OsStr::new(XDG_OPEN)).map(OsStr::to_owned);
    own.into_iter().chain(args.iter().skip(1).cloned()).collect()
}

/// Environment and directories stay empty: the host would not use the guest's.
fn request(words: &[OsString]) -> Request {
    let terminals = [std::io::stdin().is_terminal(), std::io::stdout().is_terminal(), std::io::stderr().is_terminal()];
    let terminal = match terminal_use(terminals, terminal::in_foreground(terminals)) {
        TerminalUse::Own { streams, foreground } if streams[0] => {
            Some(Terminal { streams, foreground, size: size_of(streams) })
        }
        _ => None,
    };
    Request {
        version: VERSION,
        argv: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        env: Vec::new(),
        directories: Vec::new(),
        merged: terminal.is_none() && request::same_file(std::io::stdout(), std::io::stderr()),
        terminal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_xdg_open_is_a_command() {
        let words = |line: &str| words(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(words("fim_portal ls -l"), ["ls", "-l"]);
        assert_eq!(words("/run/fim/bin/xdg-open x"), ["xdg-open", "x"]);
        assert_eq!(words("xdg-open"), ["xdg-open"]);
        assert!(words("renamed").is_empty());
    }
}
