//! A real Debian and some of its packages, fetched once by root and kept in a cache: other callers read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::{TestCommand, is_root, need};

fn cache() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-cache");
    PathBuf::from(std::env::var_os("FIM_TEST_CACHE").unwrap_or_else(|| default.into()))
}

/// A minimal Debian with these packages, made by root under `name` in the cache: other callers read it.
#[track_caller]
pub fn tree(name: &str, packages: &[&str]) -> PathBuf {
    let cache = cache();
    let tree = cache.join(name);
    if tree.join("etc/debian_version").exists() {
        return tree;
    }
    let include = if packages.is_empty() { String::new() } else { format!("--include={}", packages.join(",")) };
    let options: Vec<&str> = ["--variant=minbase", &include].into_iter().filter(|word| !word.is_empty()).collect();
    assert!(
        is_root(),
        "{} is missing and only root can make it: sudo debootstrap {} stable {0}",
        tree.display(),
        options.join(" ")
    );
    fs::create_dir_all(&cache).unwrap();
    let draft = cache.join(format!("{name}.{}.part", std::process::id()));
    // Downloads and unpacks: longer than anything else that is waited for. It mounts /proc inside the tree, in a
    // mount namespace of its own, so that nothing stays mounted there when it is interrupted.
    let made = Command::new(need("timeout"))
        .args(["1800", need("unshare").to_str().unwrap(), "--mount", "--", need("debootstrap").to_str().unwrap()])
        .args(options)
        .arg("stable")
        .arg(&draft)
        .stdout(Stdio::null())
        .status();
    assert!(made.unwrap().success(), "debootstrap failed; its log is {}/debootstrap/debootstrap.log", draft.display());
    // Everybody may read all of it, so that every caller packs the same tree.
    TestCommand::new(need("chmod")).args(["-R", "a+rX"]).arg(&draft).run().succeeds();
    fs::rename(&draft, &tree).unwrap();
    tree
}

/// A minimal Debian.
pub fn minimal() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| tree("debian", &[]))
}

/// apt with nothing of the host's but its programs.
struct Apt(Vec<String>);

impl Apt {
    /// `sources` is what it knows, `status` what is installed, `draft` where it keeps its files; it trusts the keys that
    /// came with the tree.
    fn new(sources: &Path, status: &Path, draft: &Path) -> Self {
        for name in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(draft.join(name)).unwrap();
        }
        let setting = |name: &str, value: &Path| ["-o".to_owned(), format!("{name}={}", value.display())];
        let settings = [
            setting("Dir::Etc::SourceList", sources),
            setting("Dir::Etc::SourceParts", Path::new("/dev/null")),
            setting("Dir::Etc::TrustedParts", &minimal().join("etc/apt/trusted.gpg.d")),
            setting("Dir::State::Lists", &draft.join("lists")),
            setting("Dir::State::Status", status),
            setting("Dir::Cache", draft),
            setting("Dir::Cache::Archives", &draft.join("archives")),
            setting("APT::Sandbox::User", Path::new("root")),
        ];
        let apt = Self(settings.concat());
        apt.get(&["update"]);
        apt
    }

    fn get(&self, words: &[&str]) {
        self.run("apt-get", &[&["-q", "-y"], words].concat());
    }

    fn run(&self, program: &str, words: &[&str]) -> String {
        let mut command = Command::new(need("timeout"));
        command.arg("600").arg(need(program)).args(&self.0).args(words);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The packages that a package of Debian 12 for virtual machines' kernels depends on, unpacked into one directory.
pub fn kernel() -> &'static Path {
    static KERNEL: OnceLock<PathBuf> = OnceLock::new();
    KERNEL.get_or_init(|| {
        let directory = cache().join("kernel-12");
        if directory.is_dir() {
            return directory;
        }
        assert!(is_root(), "{} is missing; run this test as root once: it downloads a kernel", directory.display());
        let draft = cache().join(format!("kernel.{}.part", std::process::id()));
        fs::create_dir_all(&draft).unwrap();
        let sources = draft.join("sources.list");
        let main = "deb http://deb.debian.org/debian bookworm main\n";
        fs::write(&sources, main).unwrap();
        let status = draft.join("status");
        fs::write(&status, "").unwrap();
        let apt = Apt::new(&sources, &status, &draft);
        let depends = apt.run("apt-cache", &["depends", "--important", "linux-image-cloud-amd64"]);
        let name = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).expect("it has a kernel");
        apt.get(&["install", "--download-only", "--no-install-recommends", name]);
        let mut archives = fs::read_dir(draft.join("archives")).unwrap().map(|entry| entry.unwrap().path());
        let archive = archives.find(|path| path.to_string_lossy().contains("/linux-image-")).unwrap();
        TestCommand::new(need("dpkg-deb")).arg("-x").args([&archive, &draft.join("tree")]).run().succeeds();
        TestCommand::new(need("chmod")).args(["-R", "a+rX"]).arg(&draft).run().succeeds();
        fs::rename(draft.join("tree"), &directory).unwrap();
        fs::remove_dir_all(draft).unwrap();
        directory
    })
}

/// Packages for that Debian with files of several owners and with users of their own, and what they need.
pub const WANTED: [&str; 3] = ["at", "cron", "dbus"];

/// The directory of those packages.
pub fn packages() -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let (tree, directory) = (minimal(), cache().join("packages"));
        if directory.is_dir() {
            return directory;
        }
        assert!(is_root(), "{} is missing; run this test as root once: it downloads the packages", directory.display());
        let draft = cache().join(format!("packages.{}.part", std::process::id()));
        // The mirror that the tree was made from.
        let apt = Apt::new(&tree.join("etc/apt/sources.list"), &tree.join("var/lib/dpkg/status"), &draft);
        apt.get(&[&["install", "--download-only", "--no-install-recommends"], &WANTED[..]].concat());
        TestCommand::new(need("chmod")).args(["-R", "a+rX"]).arg(&draft).run().succeeds();
        fs::rename(draft.join("archives"), &directory).unwrap();
        fs::remove_dir_all(draft).unwrap();
        directory
    })
}

/// The package files.
pub fn package_files() -> Vec<PathBuf> {
    let entries = fs::read_dir(packages()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect();
    assert!(files.len() >= WANTED.len(), "{files:?}");
    files.sort();
    files
}

/// The packages as an archive for the image's tar.
pub fn archive() -> Vec<u8> {
    let names = package_files();
    let names = names.iter().map(|file| file.file_name().unwrap());
    let tar = TestCommand::new(need("tar")).arg("-C").arg(packages()).arg("-c").args(names).run().succeeds();
    tar.stdout
}

/// Installs that archive as root of the image. Some packages want others configured before they are unpacked, which dpkg
/// leaves to whoever calls it.
pub const INSTALL: &str = "cd /tmp && tar -x && export DEBIAN_FRONTEND=noninteractive
    for round in 1 2 3; do dpkg -i *.deb >log 2>&1 && exit; done; cat log; exit 1";

/// Prints mode, owner and name of what the packages bring along with owners and modes of their own.
pub const SHOW: &str = "stat -c '%a %U:%G %n' /usr/bin/at /usr/bin/crontab /var/spool/cron/atjobs /var/spool/cron/crontabs \
     /usr/lib/dbus-1.0/dbus-daemon-launch-helper";

/// What it prints then.
pub const SHOWN: &str = "6755 daemon:daemon /usr/bin/at
2755 root:crontab /usr/bin/crontab
1770 daemon:daemon /var/spool/cron/atjobs
1730 root:crontab /var/spool/cron/crontabs
4754 root:messagebus /usr/lib/dbus-1.0/dbus-daemon-launch-helper";
