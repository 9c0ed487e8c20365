//! Processes that a test started: waited for with a deadline, and ended with the test.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdin, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use runtime::sys::process::{pidfd_open, pidfd_signal};

use super::{DEADLINE, Outcome, TestCommand};

/// Waits until a descriptor is readable.
#[track_caller]
pub fn wait_readable(fd: impl AsFd, what: &str) {
    let end = Instant::now() + DEADLINE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => panic!("{what}: still waiting after {DEADLINE:?}"),
            Ok(_) => return,
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => panic!("{what}: poll: {errno}"),
        }
    }
}

/// Waits until a process waits in poll(2): then it has done all it does before.
#[track_caller]
pub fn wait_for_poll(pid: Pid) {
    let begin = Instant::now();
    loop {
        let at = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        if at.contains("poll") {
            return;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        assert!(!status.is_empty() && !status.contains("State:\tZ"), "process {pid} has ended");
        assert!(begin.elapsed() < DEADLINE, "process {pid} does not wait in poll(2) but in {at:?}");
        thread::yield_now();
    }
}

/// Bytes that a thread collects from a stream while the test goes on.
#[derive(Clone, Default)]
pub struct Collected(Arc<(Mutex<Stream>, Condvar)>);

#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    ended: bool,
}

impl Collected {
    pub fn from(stream: impl Read + Send + 'static) -> Self {
        Self::without(stream, None)
    }

    /// Collects all but one byte, such as the carriage returns of a terminal.
    pub fn without(mut stream: impl Read + Send + 'static, unwanted: Option<u8>) -> Self {
        let collected = Self::default();
        let theirs = collected.clone();
        thread::spawn(move || {
            let mut chunk = vec![0; 64 * 1024];
            loop {
                // A terminal that is hung up answers EIO.
                let len = stream.read(&mut chunk).unwrap_or(0);
                let mut stream = theirs.0.0.lock().unwrap();
                stream.bytes.extend(chunk[..len].iter().filter(|&&byte| Some(byte) != unwanted));
                stream.ended = len == 0;
                theirs.0.1.notify_all();
                if len == 0 {
                    return;
                }
            }
        });
        collected
    }

    /// Waits until `found` finds something in all that has come so far; it is also told whether more can come.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, found: impl FnMut(&[u8], bool) -> Option<T>) -> T {
        self.wait_within(DEADLINE, what, found)
    }

    #[track_caller]
    fn wait_within<T>(&self, limit: Duration, what: &str, mut found: impl FnMut(&[u8], bool) -> Option<T>) -> T {
        let end = Instant::now() + limit;
        let mut stream = self.0.0.lock().unwrap();
        loop {
            if let Some(result) = found(&stream.bytes, stream.ended) {
                return result;
            }
            let left = end.saturating_duration_since(Instant::now());
            if stream.ended || left.is_zero() {
                let why = if stream.ended { "the stream ended" } else { "still waiting" };
                let so_far = String::from_utf8_lossy(&stream.bytes).into_owned();
                // The thread that collects goes on.
                drop(stream);
                panic!("waiting for {what}: {why} after:\n{so_far}");
            }
            stream = self.0.1.wait_timeout(stream, left).unwrap().0;
        }
    }

    /// Everything up to the end of the stream.
    #[track_caller]
    pub fn all(&self, what: &str) -> Vec<u8> {
        self.wait(what, |bytes, ended| ended.then(|| bytes.to_vec()))
    }
}

/// Longest time for which a file that this process has written may be open in a child of another test.
const INHERITED: Duration = Duration::from_secs(10);

/// Starts a command. A file that a test has written and closed is still open for writing, and cannot be executed, in a
/// child that another test was just starting, until that child executes its own program.
fn begin(command: &mut Command) -> std::io::Result<Child> {
    let end = Instant::now() + INHERITED;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < end => thread::yield_now(),
            other => return other,
        }
    }
}

/// A process that runs. Dropping it kills it.
pub struct Running {
    child: Child,
    pidfd: OwnedFd,
    shown: String,
    stdin: Option<ChildStdin>,
    stdout: Option<Collected>,
    stderr: Option<Collected>,
    /// How much of stdout was expected already.
    seen: usize,
}

impl Running {
    pub(super) fn spawn(mut command: TestCommand) -> Self {
        let shown: String = format!("{:?}", command.command).chars().take(400).collect();
        let mut child = begin(&mut command.command).unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        let pidfd = pidfd_open(Pid::from_raw(child.id() as i32)).unwrap();
        let mut stdin = child.stdin.take();
        if !command.stdin.is_empty()
            && let Some(mut pipe) = stdin.take()
        {
            // A command that does not read it all is no failure of the test's.
            thread::spawn(move || drop(pipe.write_all(&command.stdin)));
        }
        let stdout = child.stdout.take().map(Collected::from);
        let stderr = child.stderr.take().map(Collected::from);
        Self { child, pidfd, shown, stdin, stdout, stderr, seen: 0 }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Waits until the next part of stdout holds `text`.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let from = self.seen;
        let stdout = self.stdout.as_ref().expect("stdout is collected");
        self.seen = stdout.wait(&format!("{text:?} of {}", self.shown), |bytes, _| {
            position(&bytes[from..], text.as_bytes()).map(|at| from + at + text.len())
        });
    }

    /// Waits until stderr holds `text`.
    #[track_caller]
    pub fn expect_complaint(&self, text: &str) {
        let stderr = self.stderr.as_ref().expect("stderr is collected");
        stderr.wait(&format!("{text:?} of {}", self.shown), |bytes, _| position(bytes, text.as_bytes()));
    }

    /// Waits for the next line of stdout.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.line_within(DEADLINE)
    }

    /// Waits this long for the next line of stdout.
    #[track_caller]
    pub fn line_within(&mut self, limit: Duration) -> String {
        let from = self.seen;
        let stdout = self.stdout.as_ref().expect("stdout is collected");
        let line = stdout.wait_within(limit, &format!("a line of {}", self.shown), |bytes, _| {
            let len = bytes[from..].iter().position(|&byte| byte == b'\n')?;
            Some(String::from_utf8_lossy(&bytes[from..from + len]).into_owned())
        });
        self.seen = from + line.len() + 1;
        line
    }

    /// Writes to the command's stdin.
    #[track_caller]
    pub fn say(&mut self, text: &str) {
        self.stdin.as_mut().expect("stdin is open").write_all(text.as_bytes()).unwrap();
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        pidfd_signal(&self.pidfd, signal as i32).unwrap_or_else(|errno| panic!("{signal} to {}: {errno}", self.shown));
    }

    /// Waits until the process is stopped or runs again, as its parent sees it.
    #[track_caller]
    pub fn wait_for_state(&self, flags: nix::sys::wait::WaitPidFlag) {
        use nix::sys::wait::{Id, WaitPidFlag, waitid};
        let flags = flags | WaitPidFlag::WNOWAIT;
        let (pid, shown) = (self.pid(), self.shown.clone());
        let (done, result) = std::sync::mpsc::channel();
        thread::spawn(move || done.send(waitid(Id::Pid(pid), flags | WaitPidFlag::WEXITED)));
        let status = result.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{shown} does not change its state"));
        use nix::sys::wait::WaitStatus::{Continued, Stopped};
        assert!(matches!(status, Ok(Stopped(..) | Continued(..))), "{shown}: {status:?}");
    }

    /// Closes stdin and waits for the end.
    #[track_caller]
    pub fn wait(mut self) -> Outcome {
        self.stdin = None;
        self.wait_as_it_is()
    }

    /// Waits for the end with stdin as it is.
    #[track_caller]
    pub fn wait_as_it_is(mut self) -> Outcome {
        wait_readable(&self.pidfd, &format!("the end of {}", self.shown));
        let status: ExitStatus = self.child.wait().unwrap();
        let all = |stream: &Option<Collected>| {
            stream.as_ref().map(|stream| stream.all(&format!("end of file after {}", self.shown))).unwrap_or_default()
        };
        Outcome { shown: self.shown.clone(), status, stdout: all(&self.stdout), stderr: all(&self.stderr) }
    }

    /// The process and all its descendants as of now.
    pub fn tree(&self) -> Tree {
        Tree::of(self.pid())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // ESRCH after the process was waited for.
        let _ = pidfd_signal(&self.pidfd, Signal::SIGKILL as i32);
        let _ = self.child.wait();
    }
}

/// Where `needle` first stands in `hay`.
pub fn position(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// One process of a [`Tree`].
pub struct Member {
    pub pid: Pid,
    /// The name that ps(1) shows.
    pub name: String,
    pidfd: OwnedFd,
}

impl Member {
    fn again(&self) -> Self {
        Self { pid: self.pid, name: self.name.clone(), pidfd: self.pidfd.try_clone().unwrap() }
    }

    pub fn kill(&self) {
        pidfd_signal(&self.pidfd, Signal::SIGKILL as i32).unwrap_or_else(|errno| panic!("kill {}: {errno}", self.name));
    }

    /// Keeps it from doing anything until [`Member::go_on`].
    pub fn hold(&self) {
        pidfd_signal(&self.pidfd, Signal::SIGSTOP as i32).unwrap_or_else(|errno| panic!("stop {}: {errno}", self.name));
    }

    pub fn go_on(&self) {
        pidfd_signal(&self.pidfd, Signal::SIGCONT as i32).unwrap_or_else(|errno| panic!("wake {}: {errno}", self.name));
    }

    /// Kills it unless it has gone.
    pub fn end(&self) {
        match pidfd_signal(&self.pidfd, Signal::SIGKILL as i32) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => panic!("kill {}: {errno}", self.name),
        }
    }

    #[track_caller]
    pub fn wait_gone(&self) {
        wait_readable(&self.pidfd, &format!("the end of process {} ({})", self.pid, self.name));
    }
}

/// A process and its descendants.
pub struct Tree(pub Vec<Member>);

impl Tree {
    pub fn of(root: Pid) -> Self {
        let mut members = Vec::new();
        let mut open = vec![root];
        while let Some(pid) = open.pop() {
            let Ok(pidfd) = pidfd_open(pid) else { continue };
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
            members.push(Member { pid, name, pidfd });
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            open.extend(children.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap())));
        }
        Self(members)
    }

    /// The one process of this name. One that was just forked takes its name a moment later: it is waited for.
    #[track_caller]
    pub fn named(&self, name: &str) -> Member {
        let find = |members: &[Member]| members.iter().find(|member| member.name == name).map(Member::again);
        let begin = Instant::now();
        let mut found = find(&self.0);
        while found.is_none() {
            let now = Self::of(self.0[0].pid);
            found = find(&now.0);
            let names: Vec<&str> = now.0.iter().map(|member| member.name.as_str()).collect();
            assert!(found.is_some() || begin.elapsed() < DEADLINE, "no {name} among {names:?}");
            thread::yield_now();
        }
        found.unwrap()
    }

    /// Waits until not one of them is left.
    #[track_caller]
    pub fn wait_gone(&self) {
        self.0.iter().for_each(Member::wait_gone);
    }
}
