//! The FUSE server under load: right bytes for many readers of much data, within its memory, and an end when it is killed.
//!
//! Needs: user namespaces and an accessible `/dev/fuse`. What runs inside the mount is a test of this program, which is
//! ignored otherwise.

mod fuse_bench;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fuse_bench::{Bench, noise, test_program, utf8};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use runtime::squashfs::write::{Kind, Metadata, Options, Tree, Writer};

/// Longest wait for anything. Only a hang reaches it.
const DEADLINE: Duration = Duration::from_secs(180);

/// Bytes of the large file.
const SIZE: u64 = 2 << 30;
/// It begins anew after so many bytes, of which only the first quarter is no hole.
const PERIOD: u64 = 4 << 20;
/// Every so many bytes tell where they are.
const UNIT: usize = 512;

/// What the large file holds: a text with its own place in it, so that no two parts of it are equal, and holes.
struct Payload {
    text: Vec<u8>,
}

impl Payload {
    fn new() -> Self {
        Self { text: noise(UNIT, 7) }
    }

    /// The bytes from `offset` on.
    fn fill(&self, offset: u64, bytes: &mut [u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let skip = (at % UNIT as u64) as usize;
            let len = (UNIT - skip).min(bytes.len() - done);
            let part = &mut bytes[done..done + len];
            if at % PERIOD < PERIOD / 4 {
                let mut unit = self.text.clone();
                unit[..8].copy_from_slice(&(at / UNIT as u64).to_le_bytes());
                part.copy_from_slice(&unit[skip..skip + len]);
            } else {
                part.fill(0);
            }
            done += len;
        }
    }

    /// Packs it as the only file of an image, without ever having it on a disk.
    fn pack(&self, image: &Path) {
        let out = File::options().read(true).write(true).create_new(true).open(image).unwrap();
        let mut writer = Writer::new(&out, 0, &Options { level: 1, ..Options::default() }).unwrap();
        let mut content = writer.content(false);
        let mut bytes = vec![0; (PERIOD / 4) as usize];
        for period in 0..SIZE / PERIOD {
            self.fill(period * PERIOD, &mut bytes);
            content.write(&bytes).unwrap();
            content.hole(PERIOD - PERIOD / 4).unwrap();
        }
        let content = content.end().unwrap();
        let mut tree = Tree::new();
        let metadata = Metadata { mode: 0o644, ..Metadata::default() };
        let id = tree.add(Tree::ROOT, b"file", metadata, Kind::File(None)).unwrap();
        tree.set_content(id, content);
        writer.finish(&tree, 0).unwrap();
    }
}

/// Runs an ignored test of this program inside the mount of `image`.
#[track_caller]
fn inside(bench: &Bench, options: &[&str], image: &Path, helper: &str) {
    let script = format!("exec {} --exact {helper} --ignored --nocapture", test_program());
    let output = bench.serve(options, &[image], &script);
    assert!(output.status.success(), "{}\n{}{}", output.status, utf8(&output.stdout), utf8(&output.stderr));
}

/// Numbers that look random, the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

#[test]
fn random_readers_of_two_gigabytes_get_every_byte_right() {
    let bench = Bench::new();
    let image = bench.path("large.sqfs");
    Payload::new().pack(&image);
    let budget: u64 = 8 << 20;
    inside(&bench, &["--cache", &budget.to_string(), "--stats", "stats"], &image, "random_readers");
    assert!(bench.figure("cache_peak") <= budget, "{}", bench.figure("cache_peak"));
    let held = budget / (128 << 10);
    assert!(bench.figure("blocks_loaded") > 4 * held, "nothing was evicted, so nothing was tried");
}

/// Not a test of its own: reads at random in the mount of `random_readers_of_two_gigabytes_get_every_byte_right`.
#[test]
#[ignore = "runs inside the mount of another test"]
fn random_readers() {
    const READERS: u64 = 16;
    const READS: usize = 150;
    let payload = Payload::new();
    let read = |seed: u64| {
        let file = File::open("mnt/0/file").unwrap();
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (mut got, mut wanted) = (vec![0; 256 << 10], vec![0; 256 << 10]);
        for _ in 0..READS {
            // Half of the readers meet each other in one part, so that they wait for the same blocks.
            let room = if seed.is_multiple_of(2) { SIZE } else { 16 << 20 };
            let offset = random.below(room);
            let len = (1 + random.below(got.len() as u64)).min(SIZE - offset) as usize;
            file.read_exact_at(&mut got[..len], offset).unwrap();
            payload.fill(offset, &mut wanted[..len]);
            assert!(got[..len] == wanted[..len], "{len} bytes at {offset} are wrong");
            // What the kernel has forgotten the server is asked for again.
            let (offset, len) = (offset as i64, len as i64);
            posix_fadvise(&file, offset, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        }
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|seed| scope.spawn(move || read(seed))).collect();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    let file = File::open("mnt/0/file").unwrap();
    let mut end = [1; 16];
    assert_eq!(file.read_at(&mut end, SIZE - 8).unwrap(), 8, "the file ends where it ends");
    assert_eq!(file.read_at(&mut end, SIZE).unwrap(), 0);
}

#[test]
fn memory_stays_in_its_bound_for_sixty_four_readers_of_everything() {
    let bench = Bench::new();
    for index in 0..64 {
        bench.write(&format!("{index}"), &noise(3 << 20, index));
    }
    let image = bench.pack("a.sqfs", &["-all-root", "-b", "1M", "-Xcompression-level", "1"]);
    inside(&bench, &["--stats", "stats"], &image, "many_readers");
    assert!(bench.figure("cache_peak") <= 64 << 20, "{}", bench.figure("cache_peak"));
    assert!(bench.figure("blocks_loaded") >= 192, "not everything was read");
}

/// Not a test of its own: reads everything in the mount of
/// `memory_stays_in_its_bound_for_sixty_four_readers_of_everything`.
#[test]
#[ignore = "runs inside the mount of another test"]
fn many_readers() {
    const BOUND: u64 = 96 << 20;
    let (read, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let reader = |index: u64| {
        let (mut got, mut at) = (vec![0; 64 << 10], 0);
        let file = File::open(format!("mnt/0/{index}")).unwrap();
        let wanted = noise(3 << 20, index);
        while at < wanted.len() {
            let len = file.read_at(&mut got, at as u64).unwrap();
            assert!(len > 0 && got[..len] == wanted[at..at + len], "file {index} is wrong at {at}");
            at += len;
        }
        read.fetch_add(at as u64, Ordering::Relaxed);
    };
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(private_dirty(getppid()));
            }
            most.max(private_dirty(getppid()))
        });
        // In an order of its own for each, so that blocks of all files are wanted at once.
        let readers: Vec<_> = (0..64).map(|index| scope.spawn(move || reader(index * 37 % 64))).collect();
        let ended: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        done.store(true, Ordering::Relaxed);
        let most = watch.join().unwrap();
        assert!(ended.into_iter().all(|end| end.is_ok()));
        assert!(most > 0 && most <= BOUND, "{most} bytes of memory are the server's own");
    });
    assert_eq!(read.into_inner(), 64 * (3 << 20));
}

/// Bytes of memory that the process has written to and shares with no other.
fn private_dirty(process: Pid) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_reader_in_the_middle_of_a_read_gets_an_error_when_the_server_is_killed() {
    let bench = Bench::new();
    bench.write("file", &noise(4 << 20, 1));
    let image = bench.pack("a.sqfs", &["-all-root"]);
    let script = format!("exec {} --exact killed_while_reading --ignored --nocapture > log 2>&1", test_program());
    let output = bench.serve(&[], &[&image], &script);
    assert!(!output.status.success(), "the server was not killed");
    // The helper outlives the server.
    let end = Instant::now() + DEADLINE;
    while !bench.path("ended").exists() {
        assert!(Instant::now() < end, "{}", fs::read_to_string(bench.path("log")).unwrap());
        std::thread::yield_now();
    }
    assert_eq!(fs::read_to_string(bench.path("ended")).unwrap(), "an error", "{output:?}");
}

/// Not a test of its own: kills the server of
/// `a_reader_in_the_middle_of_a_read_gets_an_error_when_the_server_is_killed`.
#[test]
#[ignore = "runs inside the mount of another test"]
fn killed_while_reading() {
    let server = getppid();
    let file = File::open("mnt/0/file").unwrap();
    // It cannot answer any more, so that the read is not over when it is killed.
    kill(server, Signal::SIGSTOP).unwrap();
    wait("the server to stop", || states(server).iter().all(|state| *state == 'T'));
    let (tell, told) = mpsc::channel();
    let (end, ended) = mpsc::channel();
    std::thread::spawn(move || {
        tell.send(nix::unistd::gettid()).unwrap();
        end.send(file.read_at(&mut [0; 4096], 1 << 20)).unwrap();
    });
    let reader = told.recv_timeout(DEADLINE).unwrap();
    // Number of pread64(2) on x86-64.
    let call = format!("/proc/self/task/{reader}/syscall");
    wait("the read", || fs::read_to_string(&call).is_ok_and(|call| call.starts_with("17 ")));
    kill(server, Signal::SIGKILL).unwrap();
    let outcome: io::Result<usize> = ended.recv_timeout(DEADLINE).expect("the reader hangs");
    let name = PathBuf::from("ended.part");
    fs::write(&name, if outcome.is_err() { "an error" } else { "no error" }).unwrap();
    fs::rename(name, "ended").unwrap();
}

/// The states of all threads of a process, as proc_pid_stat(5) has them.
fn states(process: Pid) -> Vec<char> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let state = |thread: io::Result<fs::DirEntry>| {
        let stat = fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    };
    threads.filter_map(state).collect()
}

#[track_caller]
fn wait(what: &str, mut come: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !come() {
        assert!(Instant::now() < end, "waiting for {what}");
        std::thread::yield_now();
    }
}
