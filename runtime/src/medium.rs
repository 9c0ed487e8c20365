//! The medium that an image lies on, which may be pulled out while the image runs.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::source::ByteSource;

/// Bytes that are read to see whether the medium is still there.
const SAMPLE: usize = 4096;

/// What kernels and file systems answer when a medium is gone, or one of its blocks is bad.
const SIGNS: [i32; 7] =
    [libc::EIO, libc::ENODEV, libc::ENXIO, libc::ENOTCONN, libc::ESTALE, libc::ECONNABORTED, libc::ENOMEDIUM];

/// A file and a place in it that could be read when the image was opened.
#[derive(Debug, Clone)]
pub struct Medium {
    file: Arc<File>,
    at: u64,
}

impl Medium {
    /// `at` is the byte offset of a page that nobody maps: what is mapped stays readable.
    #[must_use]
    pub fn new(file: Arc<File>, at: u64) -> Self {
        Self { file, at }
    }

    /// The descriptor of the file.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Why not even what was readable can be read now; `None` while the medium is there, whatever else is wrong with it.
    #[must_use]
    pub fn lost(&self) -> Option<io::Error> {
        // From the medium, not from memory. Where the advice is not taken, memory answers, and nothing seems lost.
        let _ = posix_fadvise(
            &*self.file,
            self.at as libc::off_t,
            SAMPLE as libc::off_t,
            PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        );
        self.file.read_at(&mut [0; SAMPLE], self.at).err().filter(is_sign)
    }
}

fn is_sign(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|errno| SIGNS.contains(&errno))
}

/// Tells that a medium is gone.
#[derive(Debug)]
pub struct Alarm {
    event: EventFd,
    armed: AtomicBool,
}

impl Alarm {
    /// One that is not armed.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn new() -> io::Result<Arc<Self>> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Arc::new(Self { event, armed: AtomicBool::new(false) }))
    }

    /// From now on, whoever meets the end of the medium waits for the end of the process, of which somebody who watches
    /// [`Alarm::as_fd`] takes care. Before that, it gets an error.
    pub fn arm(&self) {
        self.armed.store(true, Ordering::Release);
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// A source that rings an alarm when its medium is gone.
pub struct Watched {
    inner: Arc<dyn ByteSource>,
    medium: Medium,
    alarm: Arc<Alarm>,
}

impl Watched {
    /// Bytes on a medium.
    #[must_use]
    pub fn new(inner: Arc<dyn ByteSource>, medium: Medium, alarm: Arc<Alarm>) -> Self {
        Self { inner, medium, alarm }
    }
}

impl ByteSource for Watched {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let read = self.inner.read_exact_at(buf, offset);
        if let Err(error) = &read
            && is_sign(error)
            && self.alarm.armed.load(Ordering::Acquire)
            && let Some(why) = self.medium.lost()
        {
            log::error!("the image file cannot be read any more: {why}");
            // An error would be the reader's last word, where the end of the session is the truth.
            if self.alarm.event.write(1).is_ok() {
                loop {
                    std::thread::park();
                }
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_medium_that_answers_is_not_lost() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        assert!(Medium::new(Arc::clone(&file), 0).lost().is_none());
        // A directory answers EISDIR, which is no sign of a lost medium.
        let directory = Arc::new(File::open("/").unwrap());
        assert!(Medium::new(directory, 0).lost().is_none());
    }

    #[test]
    fn errors_pass_while_the_alarm_is_not_armed() {
        struct Broken;
        impl ByteSource for Broken {
            fn len(&self) -> u64 {
                1
            }
            fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
        }
        let file = Arc::new(tempfile::tempfile().unwrap());
        let alarm = Alarm::new().unwrap();
        let source = Watched::new(Arc::new(Broken), Medium::new(file, 0), Arc::clone(&alarm));
        assert_eq!(source.read_exact_at(&mut [0], 0).unwrap_err().raw_os_error(), Some(libc::EIO));
        // One bad block of a medium that is there.
        alarm.arm();
        assert_eq!(source.read_exact_at(&mut [0], 0).unwrap_err().raw_os_error(), Some(libc::EIO));
    }
}
