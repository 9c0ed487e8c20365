//! The world of one test: a temporary directory with an image, a home and a runtime directory.

use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tempfile::TempDir;

use super::process::wait_readable;
use super::{DEADLINE, FIM, TestCommand, is_root, need};

/// The small image of most tests: busybox with all its applets, the probe, and some files.
///
/// It is built once. The file has no name any more, so that nothing has to be removed at the end of the test program.
fn small_image() -> &'static File {
    static IMAGE: OnceLock<File> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        small_tree(&tree);
        let image = directory.path().join("small.flatimage");
        build(&tree, &image, &["--name", "small"]).succeeds().quietly();
        File::open(image).unwrap()
    })
}

/// Runs `fim build` at a fast level.
#[track_caller]
pub fn build(source: &Path, image: &Path, options: &[&str]) -> super::Outcome {
    TestCommand::new(FIM)
        .arg("build")
        .arg(source)
        .arg("-o")
        .arg(image)
        .args(["--level", "3", "--quiet"])
        .args(options)
        .run()
}

/// Puts the tree of the small image into a directory.
pub fn small_tree(tree: &Path) {
    let busybox = Path::new("/bin/busybox");
    assert!(busybox.is_file(), "the tests need /bin/busybox; install the package busybox-static");
    for name in ["bin", "etc", "usr/share/dir/deep", "sbin"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    copy(busybox, &tree.join("bin/busybox"));
    for applet in TestCommand::new(busybox).arg("--list").prints().lines().filter(|name| *name != "busybox") {
        symlink("busybox", tree.join("bin").join(applet)).unwrap();
    }
    program(tree, "probe");
    for (name, content) in [
        ("etc/release", "small\n"),
        ("usr/share/dir/one", "one\n"),
        ("usr/share/dir/two", "two\n"),
        ("usr/share/dir/deep/three", "three\n"),
        ("usr/share/plain", "no program\n"),
    ] {
        fs::write(tree.join(name), content).unwrap();
    }
    for (name, content) in [("bin/no-interpreter-line", "echo \"script: $1\"\n"), ("bin/lost", "#!/no/such/thing\n")] {
        script(&tree.join(name), content);
    }
    // Bytes that no compressor shortens and that differ from block to block.
    let mut state = 1_u64;
    let noise = (0..1024 * 1024 / 8).flat_map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).to_le_bytes()
    });
    fs::write(tree.join("usr/share/noise"), noise.collect::<Vec<u8>>()).unwrap();
}

/// Compiles a program of the harness into a tree.
pub fn program(tree: &Path, name: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness").join(name).with_extension("c");
    TestCommand::new(need("gcc"))
        .env("PATH", "/usr/bin:/bin")
        .args(["-static", "-O1", "-o"])
        .arg(tree.join("bin").join(name))
        .arg(source)
        .run()
        .succeeds();
}

/// Writes an executable file, through another process as [`copy`] does.
pub fn script(path: &Path, content: &str) {
    TestCommand::new(need("tee")).arg(path).input(content).run().succeeds();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// Copies a file through another process: a descriptor open for writing in this one could be inherited by a program
/// that another test is just starting, and the copy could then not be executed (ETXTBSY).
#[track_caller]
pub fn copy(from: &Path, to: &Path) {
    TestCommand::new(need("cp")).arg("--").arg(from).arg(to).run().succeeds().quietly();
    fs::set_permissions(to, Permissions::from_mode(0o755)).unwrap();
}

/// A temporary directory with an image, a home and a runtime directory. Dropping it waits for the session to end.
pub struct World {
    directory: TempDir,
    image: PathBuf,
}

impl World {
    /// A world with a copy of the small image.
    #[track_caller]
    pub fn new() -> Self {
        let world = Self::empty();
        let small = format!("/proc/{}/fd/{}", std::process::id(), small_image().as_raw_fd());
        copy(Path::new(&small), &world.image);
        world
    }

    /// A world with an image of the small tree, changed by `change` and built with these options.
    #[track_caller]
    pub fn with_tree(change: impl FnOnce(&Path), options: &[&str]) -> Self {
        let world = Self::empty();
        let tree = world.path("tree");
        fs::create_dir(&tree).unwrap();
        small_tree(&tree);
        change(&tree);
        build(&tree, &world.image, options).succeeds().quietly();
        world
    }

    /// A world without an image.
    #[track_caller]
    pub fn empty() -> Self {
        let directory = tempfile::Builder::new().prefix("fim-test-").tempdir().unwrap();
        let image = directory.path().join("app.flatimage");
        let world = Self { directory, image };
        for name in ["home", "runtime"] {
            fs::create_dir(world.path(name)).unwrap();
            fs::set_permissions(world.path(name), Permissions::from_mode(0o700)).unwrap();
        }
        world
    }

    /// A path in the test's directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn image(&self) -> &Path {
        &self.image
    }

    /// The data directory that lies beside the image.
    pub fn data(&self) -> PathBuf {
        self.path(".app.flatimage.data")
    }

    /// A file of the writable layer.
    pub fn upper(&self, name: &str) -> PathBuf {
        self.data().join("root").join(name)
    }

    /// Where the sessions of this world have their directories.
    pub fn sessions(&self) -> PathBuf {
        self.path("runtime/fim")
    }

    /// Gives a command the environment of this world, in its directory. `FIM_TEST_OVERLAY=unionfs` has any test run over
    /// our own overlay.
    pub fn equip(&self, command: TestCommand) -> TestCommand {
        let command = match std::env::var_os("FIM_TEST_OVERLAY") {
            Some(kind) => command.env("FIM_OVERLAY", kind),
            None => command,
        };
        command
            .current_dir(self.directory.path())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("runtime"))
    }

    /// The image with these arguments.
    pub fn app(&self, args: &[&str]) -> TestCommand {
        self.equip(TestCommand::new(&self.image)).args(args)
    }

    /// `fim-exec` with these words.
    pub fn exec(&self, words: &[&str]) -> TestCommand {
        self.app(&["fim-exec"]).args(words)
    }

    /// `fim-root` with these words.
    pub fn root(&self, words: &[&str]) -> TestCommand {
        self.app(&["fim-root"]).args(words)
    }

    /// A script for the image's shell, as the caller.
    pub fn sh(&self, script: &str) -> TestCommand {
        self.exec(&["sh", "-c", script])
    }

    /// A script for the image's shell, as root inside.
    pub fn root_sh(&self, script: &str) -> TestCommand {
        self.root(&["sh", "-c", script])
    }

    /// A script for the host's shell; `$IMAGE` is the image.
    pub fn host_sh(&self, script: &str) -> TestCommand {
        self.equip(TestCommand::new(need("bash"))).args(["-c", script]).env("IMAGE", &self.image)
    }

    /// A script for the host's shell in a mount namespace of its own, where it is root of what it mounts.
    pub fn in_namespace(&self, script: &str) -> TestCommand {
        need("unshare");
        let flag = if is_root() { "-m" } else { "-Urm" };
        self.host_sh("exec unshare $0 bash -c \"$1\"").args([flag, script])
    }

    /// Waits for the end of every session of this world and asserts that nothing is left on the host but the data
    /// directory.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        self.wait_for_end();
        self.assert_no_mounts();
    }

    /// Waits until the host daemon, which goes last, has removed the session's directory. The locks are left alone: a
    /// test that held one for a moment would look like a session.
    #[track_caller]
    pub fn wait_for_end(&self) {
        let end = Instant::now() + DEADLINE;
        let changes = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
        let watched = changes.add_watch(&self.sessions(), AddWatchFlags::IN_DELETE);
        while watched.is_ok() {
            let left: Vec<PathBuf> =
                fs::read_dir(self.sessions()).unwrap().map(|entry| entry.unwrap().path()).collect();
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < end, "session directories are left: {left:?}");
            wait_readable(&changes, &format!("the end of {left:?}"));
            changes.read_events().unwrap();
        }
        // The daemons go a moment after the directory; their titles name it.
        let title = format!(" of {}/", self.sessions().display());
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(pidfd) = runtime::sys::process::pidfd_open(nix::unistd::Pid::from_raw(pid)) else { continue };
            if fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&title))
            {
                wait_readable(&pidfd, &format!("the end of process {pid}"));
            }
        }
    }

    /// Asserts that the host's mount table does not know this world.
    #[track_caller]
    pub fn assert_no_mounts(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = self.directory.path().to_str().unwrap();
        let shown: Vec<&str> = mounts.lines().filter(|line| line.contains(ours) || line.contains("fuse.fim")).collect();
        assert!(shown.is_empty(), "the host sees mounts: {shown:#?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.wait_for_end();
        }
    }
}
