//! What a command does to files, read from what strace tells (`-f -y -xx`).

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The calls that are told.
pub const CALLS: &str = "openat,open,creat,mkdir,mkdirat,mknod,mknodat,symlink,symlinkat,link,linkat,unlink,unlinkat,\
    rmdir,rename,renameat,renameat2,truncate,ftruncate,fallocate,write,pwrite64,writev,pwritev,copy_file_range,sendfile,\
    lseek,fsync,fdatasync,chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,utimensat,setxattr,fsetxattr,lsetxattr";

/// A file that was open, whatever names it has.
pub type File = usize;

/// One change.
#[derive(Debug, Clone)]
pub enum Change {
    /// A file is opened; made when it is missing if `makes`, emptied if `cut`. It has no name when `path` is `None`.
    Open {
        file: File,
        path: Option<PathBuf>,
        makes: bool,
        cut: bool,
    },
    /// Bytes are written.
    Write {
        file: File,
        at: u64,
        bytes: Vec<u8>,
    },
    /// Bytes of one file are written to another.
    Copy {
        from: File,
        from_at: u64,
        file: File,
        at: u64,
        len: u64,
    },
    /// Its length is set.
    Resize {
        file: File,
        len: u64,
    },
    /// What was written to it is on the medium.
    Sync {
        file: File,
    },
    /// The names in a directory are on the medium.
    SyncNames,
    MakeDirectory {
        path: PathBuf,
        mode: u32,
    },
    MakeLink {
        target: PathBuf,
        path: PathBuf,
    },
    /// A file gets a name.
    Name {
        file: File,
        path: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    RemoveDirectory {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Mode {
        path: PathBuf,
        mode: u32,
    },
}

impl Change {
    /// Whether it changes which names there are, or what they stand for.
    pub fn is_of_names(&self) -> bool {
        !matches!(self, Self::Open { makes: false, .. })
    }

    /// The file that it opens.
    pub fn opens(&self) -> Option<File> {
        match self {
            Self::Open { file, .. } => Some(*file),
            _ => None,
        }
    }

    /// Whether it changes what a file holds, which reaches the medium when the file is synchronised or later, and which
    /// file.
    pub fn content(&self) -> Option<File> {
        match self {
            Self::Write { file, .. } | Self::Copy { file, .. } | Self::Resize { file, .. } => Some(*file),
            _ => None,
        }
    }
}

/// Reads the changes below `root`.
pub fn read(log: &str, root: &Path) -> Vec<Change> {
    let mut reader = Reader {
        root,
        changes: Vec::new(),
        files: HashMap::new(),
        descriptors: HashMap::new(),
        next: 0,
        positions: HashMap::new(),
    };
    let mut begun: HashMap<&str, String> = HashMap::new();
    for line in log.lines() {
        let (process, rest) = line.split_once(' ').unwrap_or(("", line));
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
            begun.insert(process, start.to_owned());
        } else if let Some((_, end)) = rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            let whole = begun.remove(process).unwrap_or_default() + end;
            reader.call(process, &whole);
        } else {
            reader.call(process, rest);
        }
    }
    reader.changes
}

struct Reader<'a> {
    root: &'a Path,
    changes: Vec<Change>,
    /// Files by the path that the kernel shows for them.
    files: HashMap<PathBuf, File>,
    /// What is open, by process and number.
    descriptors: HashMap<(String, String), PathBuf>,
    positions: HashMap<File, u64>,
    next: File,
}

/// `\x2f\x61` as bytes.
fn bytes(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).map(|digits| u8::from_str_radix(&digits[..2], 16).unwrap()).collect()
}

fn path(text: &str) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes(text)))
}

/// What stands between two marks.
fn between(text: &str, open: char, close: char) -> Option<&str> {
    let rest = &text[text.find(open)? + 1..];
    Some(&rest[..rest.find(close)?])
}

fn number(text: &str) -> u64 {
    let text = text.trim();
    match text.strip_prefix('0').filter(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit())) {
        Some(octal) => u64::from_str_radix(octal, 8).unwrap(),
        None => text.parse().unwrap_or_else(|_| panic!("no number: {text}")),
    }
}

impl Reader<'_> {
    fn call(&mut self, process: &str, line: &str) {
        let Some((call, rest)) = line.split_once('(') else { return };
        let Some((args, result)) = rest.rsplit_once(") = ") else { return };
        if result.starts_with('-') || result.starts_with('?') {
            return;
        }
        let args: Vec<&str> = args.split(", ").collect();
        self.change(process, call.trim(), &args, result);
    }

    /// The path of a name (argument `at`), in the directory before it when `relative`.
    fn named(&self, args: &[&str], at: usize, relative: bool) -> PathBuf {
        let name = path(args[at]);
        match between(args[at.saturating_sub(1)], '<', '>').filter(|_| relative) {
            Some(directory) => path(directory).join(name),
            // Whoever names without a directory has the world's as its own.
            None => self.root.join(name),
        }
    }

    fn of(&mut self, shown: &str) -> Option<(PathBuf, File)> {
        let shown = path(between(shown, '<', '>')?);
        shown.starts_with(self.root).then(|| {
            let file = *self.files.entry(shown.clone()).or_insert_with(|| {
                self.next += 1;
                self.next
            });
            (shown, file)
        })
    }

    fn push(&mut self, change: Change, paths: &[&Path]) {
        if paths.iter().all(|path| path.starts_with(self.root)) {
            self.changes.push(change);
        }
    }

    fn change(&mut self, process: &str, call: &str, args: &[&str], result: &str) {
        match call {
            "openat" | "open" | "creat" => {
                let flags =
                    args.iter().find(|arg| arg.starts_with("O_")).copied().unwrap_or("O_CREAT|O_TRUNC|O_WRONLY");
                let Some((path, file)) = self.of(result) else { return };
                let descriptor = result.split('<').next().unwrap().to_owned();
                self.descriptors.insert((process.to_owned(), descriptor), path.clone());
                self.positions.insert(file, 0);
                if !flags.contains("O_DIRECTORY") && !flags.contains("O_PATH") || flags.contains("O_TMPFILE") {
                    let named = !flags.contains("O_TMPFILE");
                    let path = named.then_some(path);
                    let (makes, cut) = (flags.contains("O_CREAT") || !named, flags.contains("O_TRUNC"));
                    self.changes.push(Change::Open { file, path, makes, cut });
                }
            }
            "write" | "writev" | "pwrite64" | "pwritev" => {
                let Some((_, file)) = self.of(args[0]) else { return };
                let len: u64 = number(result);
                let text = args[1..].iter().filter(|arg| arg.contains('"'));
                let mut bytes: Vec<u8> = text.flat_map(|arg| bytes(between(arg, '"', '"').unwrap())).collect();
                bytes.truncate(len as usize);
                let at = if call.starts_with('p') { number(args[args.len() - 1]) } else { self.advance(file, len) };
                self.changes.push(Change::Write { file, at, bytes });
            }
            "lseek" => {
                let Some((_, file)) = self.of(args[0]) else { return };
                if args[2] == "SEEK_SET" {
                    self.positions.insert(file, number(result));
                }
            }
            "copy_file_range" | "sendfile" => {
                let (from, to) = if call == "sendfile" { (1, 0) } else { (0, 2) };
                let (Some((_, from)), Some((_, file))) = (self.of(args[from]), self.of(args[to])) else { return };
                let len = number(result);
                let (from_at, at) = (self.advance(from, len), self.advance(file, len));
                self.changes.push(Change::Copy { from, from_at, file, at, len });
            }
            "ftruncate" => {
                let Some((_, file)) = self.of(args[0]) else { return };
                self.changes.push(Change::Resize { file, len: number(args[1]) });
            }
            "fsync" | "fdatasync" => {
                let Some((path, file)) = self.of(args[0]) else { return };
                self.changes.push(if path.is_dir() { Change::SyncNames } else { Change::Sync { file } });
            }
            "mkdir" | "mkdirat" => {
                let path = self.named(args, args.len() - 2, call == "mkdirat");
                let mode = number(args[args.len() - 1]) as u32;
                self.push(Change::MakeDirectory { path: path.clone(), mode }, &[&path]);
            }
            "symlink" | "symlinkat" => {
                let path = self.named(args, args.len() - 1, call == "symlinkat");
                self.push(Change::MakeLink { target: self::path(args[0]), path: path.clone() }, &[&path]);
            }
            "linkat" => {
                let (from, to) = (self.named(args, 1, true), self.named(args, 3, true));
                let descriptor = from.file_name().unwrap().to_str().unwrap().to_owned();
                let shown = self.descriptors.get(&(process.to_owned(), descriptor)).cloned();
                let shown = shown.filter(|_| from.starts_with("/proc")).unwrap_or(from);
                let Some(&file) = self.files.get(&shown) else { return };
                self.files.insert(to.clone(), file);
                self.push(Change::Name { file, path: to.clone() }, &[&to]);
            }
            "unlink" | "rmdir" | "unlinkat" => {
                let path = if call == "unlinkat" { self.named(args, 1, true) } else { self.named(args, 0, false) };
                let directory = call == "rmdir" || args.last().is_some_and(|flags| flags.contains("AT_REMOVEDIR"));
                self.files.remove(&path);
                let change = if directory {
                    Change::RemoveDirectory { path: path.clone() }
                } else {
                    Change::Remove { path: path.clone() }
                };
                self.push(change, &[&path]);
            }
            "rename" | "renameat" | "renameat2" => {
                let (from, to) = if call == "rename" {
                    (self.named(args, 0, false), self.named(args, 1, false))
                } else {
                    (self.named(args, 1, true), self.named(args, 3, true))
                };
                assert!(!args.last().unwrap().contains("EXCHANGE"), "an exchange of names is not modelled");
                let moved: Vec<PathBuf> = self.files.keys().filter(|path| path.starts_with(&from)).cloned().collect();
                for path in moved {
                    let file = self.files.remove(&path).unwrap();
                    let rest = path.strip_prefix(&from).unwrap();
                    self.files.insert(if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) }, file);
                }
                self.push(Change::Rename { from: from.clone(), to: to.clone() }, &[&from, &to]);
            }
            "chmod" | "fchmod" | "fchmodat" => {
                let path = match call {
                    "chmod" => self.named(args, 0, false),
                    "fchmodat" => self.named(args, 1, true),
                    _ => match self.of(args[0]) {
                        Some((path, _)) => path,
                        None => return,
                    },
                };
                let mode = number(args[if call == "fchmodat" { 2 } else { 1 }]) as u32;
                self.push(Change::Mode { path: path.clone(), mode }, &[&path]);
            }
            // Times, owners and attributes decide nothing.
            _ => {}
        }
    }

    fn advance(&mut self, file: File, len: u64) -> u64 {
        let position = self.positions.entry(file).or_default();
        *position += len;
        *position - len
    }
}
