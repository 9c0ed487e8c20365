//! `fim-instance stats`: a table of the live instances, renewed every second on a terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use runtime::session::registry::Instance;
use runtime::sys::pty;
use serde_json::json;

use super::usage::{self, Usage};
use super::{session, words};
use crate::{Failure, Invocation};

/// Prints the table once, as JSON with `as_json`; on a terminal renews it until q or an interrupt.
pub(super) fn run(invocation: &Invocation, as_json: bool) -> Result<i32, Failure> {
    if !as_json && io::stdin().is_terminal() && io::stdout().is_terminal() {
        return live(invocation);
    }
    let rows = look(invocation, &mut BTreeMap::new())?;
    let text = if as_json {
        let entries: Vec<_> = rows.iter().map(Row::json).collect();
        format!("{:#}\n", serde_json::Value::from(entries))
    } else {
        table(&rows, usize::MAX)
    };
    crate::cli::print(&text)?;
    Ok(0)
}

/// One line of the table.
struct Row {
    id: u64,
    pid: i32,
    user: &'static str,
    /// Seconds.
    uptime: u64,
    /// Percent of one processor.
    cpu: f64,
    /// Bytes.
    memory: u64,
    command: Vec<String>,
}

/// Processor time of an instance when it was last looked at, in ticks, and when that was.
type Seen = BTreeMap<u64, (u64, Instant)>;

fn look(invocation: &Invocation, seen: &mut Seen) -> Result<Vec<Row>, Failure> {
    let instances = match session::find(invocation) {
        Some(session) => session.registry.live()?,
        None => Vec::new(),
    };
    let clock = usage::clock();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let mut latest = Seen::new();
    let rows = instances.iter().map(|instance| row(instance, now, clock, seen, &mut latest)).collect();
    *seen = latest;
    Ok(rows)
}

/// Processor use since the last look, at the first one since the instance's start.
fn row(instance: &Instance, now: u64, (boot, ticks): (f64, f64), seen: &Seen, latest: &mut Seen) -> Row {
    let Usage { memory, ticks: used } = usage::of(instance);
    let (before, time) = match seen.get(&instance.id) {
        Some((before, when)) => (*before, when.elapsed().as_secs_f64()),
        None => (0, boot - instance.started as f64 / ticks),
    };
    latest.insert(instance.id, (used, Instant::now()));
    let cpu = if time > 0.0 { used.saturating_sub(before) as f64 / ticks / time * 100.0 } else { 0.0 };
    Row {
        id: instance.id,
        pid: instance.pid.as_raw(),
        user: instance.kind.word(),
        uptime: now.saturating_sub(instance.since),
        cpu,
        memory,
        command: words(instance),
    }
}

impl Row {
    fn json(&self) -> serde_json::Value {
        json!({
            "command": self.command,
            "cpu_percent": (self.cpu * 10.0).round() / 10.0,
            "id": self.id,
            "memory_bytes": self.memory,
            "pid": self.pid,
            "uptime_seconds": self.uptime,
            "user": self.user,
        })
    }
}

/// The table, its lines cut to this width.
fn table(rows: &[Row], width: usize) -> String {
    let mut text = String::new();
    let mut line = |fields: [&str; 7]| {
        let [id, pid, user, uptime, cpu, memory, command] = fields;
        let line = format!("{id:>4} {pid:>8} {user:<5} {uptime:>9} {cpu:>6} {memory:>9} {command}");
        // Control characters of a command must not reach the terminal. Writing to a String cannot fail.
        let shown = line.chars().map(|char| if char.is_control() { '?' } else { char }).take(width);
        let _ = writeln!(text, "{}", shown.collect::<String>().trim_end());
    };
    line(["ID", "PID", "USER", "UPTIME", "CPU%", "MEM", "COMMAND"]);
    for row in rows {
        line([
            &row.id.to_string(),
            &row.pid.to_string(),
            row.user,
            &duration(row.uptime),
            &format!("{:.1}", row.cpu),
            &bytes(row.memory),
            &row.command.join(" "),
        ]);
    }
    text
}

fn duration(seconds: u64) -> String {
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    match hours / 24 {
        0 => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        days => format!("{days}d{:02}:{minutes:02}", hours % 24),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes / 1024),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// The terminal while the table is shown: keys come at once and unseen, the screen is a second one.
struct Screen(Termios);

impl Screen {
    fn take() -> Result<Self, Failure> {
        let saved = termios::tcgetattr(io::stdin())?;
        let mut keys = saved.clone();
        keys.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &keys)?;
        crate::cli::print("\x1b[?1049h\x1b[?25l")?;
        Ok(Self(saved))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs neither.
        let _ = crate::cli::print("\x1b[?25h\x1b[?1049l");
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

fn live(invocation: &Invocation) -> Result<i32, Failure> {
    let ends = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT]);
    ends.thread_block()?;
    let signals = SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC)?;
    let _screen = Screen::take()?;
    let mut seen = Seen::new();
    loop {
        let size = pty::window_size(io::stdout()).ok();
        let rows = look(invocation, &mut seen)?;
        let text = table(&rows, size.map_or(80, |size| usize::from(size.ws_col.max(1))));
        let height = size.map_or(24, |size| usize::from(size.ws_row.max(2)));
        let shown: Vec<&str> = text.lines().take(height - 1).collect();
        let mut stdout = io::stdout().lock();
        write!(stdout, "\x1b[H{}\x1b[K\r\n\x1b[J", shown.join("\x1b[K\r\n"))?;
        stdout.flush()?;
        drop(stdout);
        let next = Instant::now() + Duration::from_secs(1);
        loop {
            let left = next.saturating_duration_since(Instant::now());
            let (stdin, timeout) = (io::stdin(), PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
            let mut fds = [signals.as_fd(), stdin.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            if !poll(&mut fds, timeout).is_ok_and(|ready| ready > 0) {
                break;
            }
            let mut keys = [0; 64];
            let interrupted = fds[0].any().unwrap_or(false);
            if interrupted
                || nix::unistd::read(&stdin, &mut keys).map_or(true, |len| len == 0 || keys[..len].contains(&b'q'))
            {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_and_shows_no_control_characters() {
        let row = Row {
            id: 7,
            pid: 12345,
            user: "exec",
            uptime: 3725,
            cpu: 12.34,
            memory: 5 << 20,
            command: vec!["sleep".into(), "1\x1b[2J".into()],
        };
        assert_eq!(
            table(&[row], usize::MAX),
            "  ID      PID USER     UPTIME   CPU%       MEM COMMAND\n   7    12345 exec   01:02:05   12.3   5.0 MiB sleep 1?[2J\n"
        );
        assert_eq!(table(&[], 5), "  ID\n");
    }

    #[test]
    fn quantities_keep_their_width() {
        assert_eq!([duration(59), duration(86_400 * 400 + 3600)], ["00:00:59", "400d01:00"]);
        assert_eq!([bytes(1023), bytes(2048), bytes(3 << 30)], ["0 KiB", "2 KiB", "3.0 GiB"]);
    }
}
