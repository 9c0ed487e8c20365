//! When a mount server ends: with the last instance, or with the medium of its image.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Lower, Request};
use crate::medium::Alarm;
use crate::session::lock;

/// What tells the server to end. Instances hold write ends of the liveness pipe; the server reads end of file when the
/// last one has gone.
pub(super) struct Alive {
    read: File,
    /// Held until the starter has joined or died, so that "no writer" means "no instance" from then on.
    write: Option<File>,
    /// Rings when the image cannot be read any more.
    alarm: Arc<Alarm>,
    /// Changes (proc_pid_mountinfo(5)) when the host unmounts something, as it does with a medium that was pulled out.
    mounts: Option<File>,
}

/// What has happened.
enum Event {
    Nothing,
    /// No instance is left.
    HungUp,
    /// The image cannot be read.
    Lost,
    /// The host has mounted or unmounted something.
    Mounts,
}

impl Alive {
    pub(super) fn new(read: File, write: Option<File>, alarm: Arc<Alarm>) -> Self {
        Self { read, write, alarm, mounts: None }
    }

    /// Blocks until no instance is left and none is joining, or the image's medium has gone. In the first case the start
    /// lock is held until the process has ended.
    pub(super) fn wait_for_end(&mut self, request: &Request, mut channel: UnixStream) {
        // The starter says that it holds its own write end by closing its side, or by dying.
        let _ = channel.read(&mut [0]);
        drop(channel);
        self.write = None;
        self.alarm.arm();
        // Without it, the end of a medium is seen when somebody reads.
        self.mounts = File::open("/proc/self/mountinfo").ok();
        loop {
            match self.wait(PollTimeout::NONE) {
                // Every instance sees this process end.
                Event::Lost => return,
                Event::Mounts if is_lost(&request.lower) => return,
                Event::Mounts | Event::Nothing => continue,
                Event::HungUp => {}
            }
            // Whoever joins holds the start lock until it holds a write end.
            let Ok(starting) = lock::wait(&request.data, lock::START) else { return };
            if let Event::HungUp = self.wait(PollTimeout::ZERO) {
                // The lock ends with the process, which has nothing left to do but to clean up.
                std::mem::forget(starting);
                return;
            }
        }
    }

    fn wait(&self, timeout: PollTimeout) -> Event {
        // A pipe has nothing urgent to say: it stands in for what could not be opened.
        let mounts = self.mounts.as_ref().unwrap_or(&self.read);
        loop {
            let mut fds = [
                PollFd::new(self.read.as_fd(), PollFlags::empty()),
                PollFd::new(self.alarm.as_fd(), PollFlags::POLLIN),
                PollFd::new(mounts.as_fd(), PollFlags::POLLPRI),
            ];
            match poll(&mut fds, timeout) {
                Ok(0) => return Event::Nothing,
                Ok(_) => {
                    let [hung_up, lost, mounts] = fds.map(|fd| fd.any().unwrap_or(false));
                    match (hung_up, lost, mounts) {
                        (_, true, _) => return Event::Lost,
                        (true, ..) => return Event::HungUp,
                        (.., true) => return Event::Mounts,
                        _ => {}
                    }
                }
                Err(_) => {}
            }
        }
    }
}

fn is_lost(lower: &Lower) -> bool {
    let Lower::Image(layers) = lower else { return false };
    layers.iter().any(|layer| layer.medium.lost().is_some())
}
