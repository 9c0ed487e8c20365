//! The registry of live instances: one directory an instance, and the next ID. All changes happen under the start
//! lock; IDs are given by the registry itself, so that no death of a daemon can give one twice.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::claims::{self, Claims};
use super::index::{self, Entry, Index};
use super::{Error, lock, log, pipe};
use crate::sys::process;

/// File of an instance that holds its exit code once it has one. Whoever has it open can read it after the instance
/// has been removed.
const OUTCOME: &str = "outcome";
/// Directory of the session that keeps the logs of detached instances that have ended.
const ENDED: &str = "ended";
/// How many of them it keeps.
const KEPT: usize = 32;

/// Who an instance's command runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The caller's own user and group (`fim-exec`, the boot command).
    Exec,
    /// User and group 0 of the instance (`fim-root`).
    Root,
}

impl Kind {
    /// The word used in records and listings.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Root => "root",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Exec, Self::Root].into_iter().find(|kind| kind.word() == word)
    }
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its ID: 0, 1, 2, … in start order, never given twice in a session.
    pub id: u64,
    /// The process that the user started and that ends the instance.
    pub pid: Pid,
    /// Start time of that process in clock ticks since boot.
    pub started: u64,
    /// Wall-clock time of the start in seconds since the epoch.
    pub since: u64,
    /// Who its command runs as.
    pub kind: Kind,
    /// Name of the service that it is, if it is one.
    pub service: Option<String>,
    /// The command, for listings: words joined by NUL.
    pub command: Vec<u8>,
}

/// What a process registers itself as.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    /// Who its command runs as.
    pub kind: Kind,
    /// Wall-clock time of the start in seconds since the epoch.
    pub since: u64,
    /// The command: words joined by NUL.
    pub command: &'a [u8],
    /// Name of the service that it is: letters, digits and hyphens.
    pub service: Option<&'a str>,
    /// Host commands that its guest may run.
    pub portal: &'a [String],
    /// What it has of the host for itself.
    pub claims: Option<&'a Claims>,
}

impl Instance {
    fn encode(&self) -> Vec<u8> {
        let Self { pid, started, since, kind, .. } = self;
        let service = self.service.iter().map(|name| format!(" {name}")).collect::<String>();
        let mut bytes = format!("fim-instance 1\n{pid} {started} {since} {}{service}\n", kind.word()).into_bytes();
        bytes.extend_from_slice(&self.command);
        bytes
    }

    fn decode(id: u64, bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(b"fim-instance 1\n")?;
        let end = rest.iter().position(|&byte| byte == b'\n')?;
        let mut words = std::str::from_utf8(&rest[..end]).ok()?.split(' ');
        let instance = Self {
            id,
            pid: Pid::from_raw(words.next()?.parse().ok()?),
            started: words.next()?.parse().ok()?,
            since: words.next()?.parse().ok()?,
            kind: Kind::parse(words.next()?)?,
            service: words.next().map(str::to_owned),
            command: rest[end + 1..].to_vec(),
        };
        words.next().is_none().then_some(instance)
    }

    /// Whether the process of this record still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        process::start_time(self.pid) == Some(self.started)
    }
}

/// Where the exit code of one instance stands once it has ended.
#[derive(Debug)]
pub struct Outcome(File);

impl Outcome {
    /// The exit code; `None` when the instance has not ended, or its starter was killed before it could write it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        use std::os::unix::fs::FileExt;
        let mut bytes = [0; 5];
        self.0.read_exact_at(&mut bytes, 0).ok()?;
        std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
    }
}

/// The registry inside a session directory.
#[derive(Debug, Clone)]
pub struct Registry {
    session: PathBuf,
}

impl Registry {
    /// The registry of a session directory.
    #[must_use]
    pub fn new(session: &Path) -> Self {
        Self { session: session.to_owned() }
    }

    /// The session directory.
    #[must_use]
    pub fn session(&self) -> &Path {
        &self.session
    }

    /// Whether anything is left of the session.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.session.exists()
    }

    /// The directory of one instance.
    #[must_use]
    pub fn directory(&self, id: u64) -> PathBuf {
        self.instances().join(id.to_string())
    }

    /// Where each instance that begins makes its directory.
    #[must_use]
    pub fn instances(&self) -> PathBuf {
        self.session.join("instances")
    }

    /// Makes an empty registry; a new session begins at ID 0.
    ///
    /// # Errors
    /// I/O errors.
    pub fn create(&self, _starting: &lock::Held) -> Result<(), Error> {
        let path = self.instances();
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::io("make the directory", &path))?;
        index::create(&self.session).map_err(Error::io("make the index", self.session.join(index::FILE)))
    }

    /// Registers the calling process as the next instance. The number is used up before anything else is written.
    ///
    /// # Errors
    /// I/O errors, a full file system among them; the number is then a gap.
    pub fn register(&self, _starting: &lock::Held, new: New<'_>) -> Result<Instance, Error> {
        let entry = Entry::own().map_err(Error::io("look at", "this process"))?;
        let index = self.session.join(index::FILE);
        let id = index::append(&self.session, entry).map_err(Error::io("write the next instance ID to", index))?;
        let pid = entry.pid;
        let directory = self.directory(id);
        let started = process::start_time(pid)
            .ok_or_else(|| Error::io("read", format!("/proc/{pid}/stat"))(io::Error::from(io::ErrorKind::NotFound)))?;
        let New { kind, since, .. } = new;
        let (service, command) = (new.service.map(str::to_owned), new.command.to_vec());
        let instance = Instance { id, pid, started, since, kind, service, command };
        DirBuilder::new().mode(0o700).create(&directory).map_err(Error::io("make the directory", &directory))?;
        pipe::create(&directory.join(pipe::GUEST))?;
        // Its one page is there from now on, so that a full file system does not lose the exit code.
        let outcome = directory.join(OUTCOME);
        fs::write(&outcome, format!("{:4}\n", "")).map_err(Error::io("write", &outcome))?;
        crate::portal::create(&directory, new.portal)?;
        if let Some(claims) = new.claims {
            claims.write(&directory)?;
        }
        let record = directory.join("record");
        fs::write(&record, instance.encode()).map_err(Error::io("write", &record))?;
        Ok(instance)
    }

    /// Writes down the exit code (0 to 255) of an instance that is about to end.
    ///
    /// # Errors
    /// I/O errors.
    pub fn conclude(&self, id: u64, code: i32) -> Result<(), Error> {
        use std::os::unix::fs::FileExt;
        let path = self.directory(id).join(OUTCOME);
        let file = File::options().write(true).open(&path);
        file.and_then(|file| file.write_all_at(format!("{code:4}\n").as_bytes(), 0)).map_err(Error::io("write", &path))
    }

    /// Where the exit code of an instance will stand or stands; `None` when nothing is known of it.
    #[must_use]
    pub fn outcome(&self, id: u64) -> Option<Outcome> {
        let below = |directory: PathBuf| File::open(directory.join(OUTCOME)).ok();
        // In this order: an instance that ends in between moves from the first place to the second.
        below(self.directory(id)).or_else(|| below(self.ended(id))).map(Outcome)
    }

    /// The directory that keeps the log and the exit code of a detached instance that has ended.
    #[must_use]
    pub fn ended(&self, id: u64) -> PathBuf {
        self.session.join(ENDED).join(id.to_string())
    }

    /// Removes an instance that has ended. Being gone already is fine. The log of a detached one is kept while the
    /// session lives, or until [`KEPT`] later ones have ended.
    ///
    /// # Errors
    /// I/O errors.
    pub fn remove(&self, id: u64) -> Result<(), Error> {
        let directory = self.directory(id);
        if directory.join(log::FILE).exists() && self.keep(id).is_ok() {
            let ended = self.ended(id);
            let _ = fs::remove_dir_all(ended.join(crate::request::REQUESTS));
            for name in [pipe::GUEST, "record", claims::FILE] {
                let _ = fs::remove_file(ended.join(name));
            }
            self.forget_the_oldest();
        }
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", directory)(error)),
            _ => Ok(()),
        }
    }

    /// Moves an instance to those that have ended.
    fn keep(&self, id: u64) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(self.session.join(ENDED)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => fs::rename(self.directory(id), self.ended(id)),
        }
    }

    fn forget_the_oldest(&self) {
        let entries = fs::read_dir(self.session.join(ENDED)).into_iter().flatten().flatten();
        let mut ids: Vec<u64> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        ids.sort_unstable();
        for id in &ids[..ids.len().saturating_sub(KEPT)] {
            // Another process may be at it too.
            let _ = fs::remove_dir_all(self.ended(*id));
        }
    }

    /// Removes the session directory with all that can be removed; a session that ends has no use for errors.
    pub fn remove_all(&self) {
        for name in ["instances", ENDED] {
            let _ = fs::remove_dir_all(self.session.join(name));
        }
        for name in [index::FILE, "alive", "host.fifo", "host.log"] {
            let _ = fs::remove_file(self.session.join(name));
        }
        for name in ["layers", "root"] {
            let _ = fs::remove_dir(self.session.join(name));
        }
        if fs::remove_dir(&self.session).is_err_and(|error| error.kind() == io::ErrorKind::DirectoryNotEmpty) {
            // Few sessions have this one.
            let _ = fs::remove_dir(self.session.join("content"));
            let _ = fs::remove_dir(&self.session);
        }
    }

    /// The IDs of all that have a place here, dead or alive, in ascending order. Foreign names are passed over.
    ///
    /// # Errors
    /// When the registry cannot be read at all; a missing one is empty.
    pub fn ids(&self) -> Result<Vec<u64>, Error> {
        let instances = self.instances();
        let entries = match fs::read_dir(&instances) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", instances)(error)),
        };
        let mut ids: Vec<u64> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// The instance with this ID if it lives; `None` for one that is dead, half-written or unknown.
    #[must_use]
    pub fn instance(&self, id: u64) -> Option<Instance> {
        let bytes = read_record(&self.directory(id).join("record")).ok()?;
        Instance::decode(id, &bytes).filter(Instance::is_alive)
    }

    /// ID and process of every live instance in ID order, without what else is known of them.
    ///
    /// # Errors
    /// As [`Registry::ids`].
    pub fn pids(&self) -> Result<Vec<(u64, Pid)>, Error> {
        let index = Index::open(&self.session);
        let pid = |id| {
            let known = index.as_ref().and_then(|index| index.entry(id));
            match known.and_then(|entry| Some((entry.pid, entry.is_alive()?))) {
                Some((pid, alive)) => alive.then_some(pid),
                None => self.instance(id).map(|instance| instance.pid),
            }
        };
        Ok(self.ids()?.into_iter().filter_map(|id| Some((id, pid(id)?))).collect())
    }

    /// Every live instance in ID order.
    ///
    /// # Errors
    /// As [`Registry::ids`].
    pub fn live(&self) -> Result<Vec<Instance>, Error> {
        Ok(self.ids()?.into_iter().filter_map(|id| self.instance(id)).collect())
    }
}

/// Reads a record, by one system call unless its command is long: a listing reads hundreds of them.
fn read_record(path: &Path) -> io::Result<Vec<u8>> {
    const USUAL: usize = 4096;
    let mut file = File::open(path)?;
    let mut bytes = vec![0; USUAL];
    let len = file.read(&mut bytes)?;
    bytes.truncate(len);
    if len == USUAL {
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(command: &[u8]) -> New<'_> {
        New { kind: Kind::Exec, since: 1, command, service: None, portal: &[], claims: None }
    }

    fn registry() -> (tempfile::TempDir, Registry, lock::Held) {
        let base = tempfile::tempdir().unwrap();
        let held = lock::wait(base.path(), lock::START).unwrap();
        let registry = Registry::new(base.path());
        registry.create(&held).unwrap();
        (base, registry, held)
    }

    #[test]
    fn ids_count_up_and_are_never_given_twice() {
        let (_base, registry, held) = registry();
        let ids: Vec<u64> = (0..4)
            .map(|_| {
                let instance = registry.register(&held, plain(b"sleep\x005")).unwrap();
                registry.remove(instance.id).unwrap();
                instance.id
            })
            .collect();
        assert_eq!(ids, [0, 1, 2, 3]);
        assert!(registry.live().unwrap().is_empty());
    }

    #[test]
    fn lists_the_living_in_order() {
        let (_base, registry, held) = registry();
        for _ in 0..12 {
            registry.register(&held, New { kind: Kind::Root, ..plain(b"x") }).unwrap();
        }
        registry.remove(3).unwrap();
        let ids: Vec<u64> = registry.live().unwrap().iter().map(|instance| instance.id).collect();
        assert_eq!(ids, [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]);
        let own = nix::unistd::getpid();
        assert_eq!(registry.pids().unwrap(), ids.iter().map(|id| (*id, own)).collect::<Vec<_>>());
        // Without the index, the records tell.
        fs::remove_file(registry.session.join(index::FILE)).unwrap();
        assert_eq!(registry.pids().unwrap().len(), ids.len());
    }

    #[test]
    fn the_exit_code_outlives_the_instance_for_whoever_waits() {
        let (_base, registry, held) = registry();
        registry.register(&held, plain(b"")).unwrap();
        let outcome = registry.outcome(0).unwrap();
        assert_eq!(outcome.code(), None);
        registry.conclude(0, 137).unwrap();
        registry.remove(0).unwrap();
        assert_eq!(outcome.code(), Some(137));
        assert!(registry.outcome(0).is_none());
    }

    #[test]
    fn logs_of_ended_instances_are_kept_up_to_a_number() {
        let (_base, registry, held) = registry();
        for id in 0..KEPT as u64 + 3 {
            registry.register(&held, plain(b"")).unwrap();
            log::Log::create(&registry.directory(id)).unwrap().append(b"text");
            registry.conclude(id, 3).unwrap();
            registry.remove(id).unwrap();
        }
        assert!(registry.live().unwrap().is_empty());
        assert!(registry.outcome(2).is_none() && !registry.ended(2).exists());
        assert_eq!(registry.outcome(3).unwrap().code(), Some(3));
        assert_eq!(fs::read(registry.ended(3).join(log::FILE)).unwrap(), b"text");
        assert_eq!(fs::read_dir(registry.ended(3)).unwrap().count(), 2);
    }

    #[test]
    fn long_commands_are_read_whole() {
        let (_base, registry, held) = registry();
        for len in [0, 4000, 4096, 100_000] {
            let command = vec![b'x'; len];
            let instance = registry.register(&held, plain(&command)).unwrap();
            assert_eq!(registry.instance(instance.id), Some(instance));
        }
    }

    #[test]
    fn a_reused_process_id_is_not_taken_for_the_instance() {
        let (_base, registry, held) = registry();
        let mut instance = registry.register(&held, plain(b"")).unwrap();
        instance.started += 1;
        fs::write(registry.directory(0).join("record"), instance.encode()).unwrap();
        assert!(registry.live().unwrap().is_empty());
    }

    #[test]
    fn garbage_in_the_registry_is_passed_over() {
        let (base, registry, held) = registry();
        registry.register(&held, New { service: Some("web"), ..plain(b"a\nb") }).unwrap();
        for name in ["x", "-1", "99"] {
            fs::create_dir(base.path().join("instances").join(name)).unwrap();
        }
        fs::write(base.path().join("instances/99/record"), "fim-instance 1\n1 2").unwrap();
        let live = registry.live().unwrap();
        assert_eq!(live.len(), 1);
        assert_eq!(live[0].command, b"a\nb");
        assert_eq!(live[0].service.as_deref(), Some("web"));
    }
}
