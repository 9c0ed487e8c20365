//! `fim-service logs`: what services have written, over all their runs.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use runtime::session::service;

use super::chosen;
use crate::instance::logs::Reader;
use crate::launch::{data, facts};
use crate::{Failure, Invocation, Message, cli};

/// Lines that are shown when nobody says how many.
const USUAL: usize = 10;
/// Characters of the time that begins a line.
const TIME: usize = 20;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    names: Vec<OsString>,
    /// At most so many lines; all without.
    lines: Option<usize>,
    follow: bool,
}

/// Prints the last lines of services, all when none is named, and with `-f` those that come until it is interrupted.
pub(super) fn run(invocation: &Invocation, words: &[OsString]) -> Result<i32, Failure> {
    let asked = parse(words)?;
    let services = chosen(invocation, &asked.names, |_| true)?;
    let data = data::existing(invocation, &facts::caller()).unwrap_or_default();
    let places = services.iter().map(|service| service::directory(&data, &service.name));
    let places: Vec<PathBuf> = places.filter(|place| place.is_dir()).collect();
    if asked.follow && places.is_empty() {
        return Err(Message::boxed("there is no log to follow yet: none of these services has been started"));
    }
    let changes = asked.follow.then(|| Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)).transpose()?;
    if let Some(changes) = &changes {
        // Before the first look, so that nothing is written unseen in between.
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE;
        places.iter().try_for_each(|place| changes.add_watch(place, flags).map(drop))?;
    }
    let mut readers = places.iter().map(|place| Reader::open(place)).collect::<io::Result<Vec<_>>>()?;
    let mut logs = Vec::new();
    for reader in &mut readers {
        let mut log = Vec::new();
        reader.pass(&mut log)?;
        logs.push(log);
    }
    cli::print_bytes(&last(&logs, asked.lines))?;
    let Some(changes) = changes else { return Ok(0) };
    loop {
        let _interrupted = poll(&mut [PollFd::new(changes.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
        let _none = changes.read_events();
        for reader in &mut readers {
            if !reader.pass(&mut io::stdout().lock())? {
                return Ok(0);
            }
        }
    }
}

fn parse(words: &[OsString]) -> Result<Asked, Failure> {
    let mut asked = Asked { names: Vec::new(), lines: Some(USUAL), follow: false };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("-f" | "--follow") => asked.follow = true,
            Some("-n") => {
                asked.lines = match words.next().and_then(|word| word.to_str()) {
                    Some("all") => None,
                    value => Some(value.and_then(|value| value.parse().ok()).ok_or_else(|| {
                        Message::boxed("-n takes a number of lines, or 'all': fim-service logs [NAME...] -n LINES")
                    })?),
                };
            }
            _ => asked.names.push(word.clone()),
        }
    }
    Ok(asked)
}

/// The last lines of all logs, by their times; lines of one log keep their order.
fn last(logs: &[Vec<u8>], count: Option<usize>) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = logs.iter().flat_map(|log| log.split_inclusive(|&byte| byte == b'\n')).collect();
    lines.sort_by_key(|line| &line[..line.len().min(TIME)]);
    let from = count.map_or(0, |count| lines.len().saturating_sub(count));
    let mut shown = Vec::new();
    for line in &lines[from..] {
        // One that is being written stands alone, too.
        if !shown.is_empty() && !shown.ends_with(b"\n") {
            shown.push(b'\n');
        }
        shown.extend_from_slice(line);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let read = |line: &str| {
            let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            parse(&words).map_err(|error| error.to_string())
        };
        let names = |names: &[&str]| names.iter().map(OsString::from).collect();
        assert_eq!(read(""), Ok(Asked { names: names(&[]), lines: Some(10), follow: false }));
        assert_eq!(read("web -n 3 -f"), Ok(Asked { names: names(&["web"]), lines: Some(3), follow: true }));
        assert_eq!(read("-n all a b"), Ok(Asked { names: names(&["a", "b"]), lines: None, follow: false }));
        for line in ["-n", "-n x", "-n -1"] {
            assert!(read(line).unwrap_err().contains("number of lines"), "{line}");
        }
    }

    #[test]
    fn lines_of_several_logs_go_by_their_times() {
        let log = |text: &str| text.as_bytes().to_vec();
        let logs = [
            log("2018-10-03T12:31:59Z a: 1\n2018-10-03T12:32:01Z a: 2\n2018-10-03T12:32:01Z a: 1\n"),
            log("2018-10-03T12:32:00Z b: x\n"),
        ];
        let text = |count| String::from_utf8(last(&logs, count)).unwrap();
        assert_eq!(text(Some(3)), "2018-10-03T12:32:00Z b: x\n2018-10-03T12:32:01Z a: 2\n2018-10-03T12:32:01Z a: 1\n");
        assert_eq!(text(None).lines().count(), 4);
        assert_eq!(text(Some(0)), "");
        let unended = [log("1 a"), log("2 b\n")];
        assert_eq!(last(&unended, None), b"1 a\n2 b\n");
    }
}
