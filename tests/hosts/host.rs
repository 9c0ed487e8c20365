//! A host of this kernel, made in namespaces, and what an image does there.

use harness::{Outcome, TestCommand, World, is_root, need};

use super::harness;
use super::table::{self, Refuses, Runs, Tells};

/// What is run there.
pub const SMOKE: &str = include_str!("smoke.sh");
pub const REFUSAL: &str = include_str!("refusal.sh");

/// Whom root's tests let run images: nobody that the host knows.
const USER: &str = "63999";

/// Shell functions for what arranges a host. It runs as root of the host or of a namespace, in a mount namespace of its
/// own, in the world's directory.
const ARRANGE: &str = r#"
set -e
# Another /tmp, with these options, in which the world stays visible.
new_tmp() {
    mount --bind "$PWD" /mnt
    mount -t tmpfs -o "$1" none /tmp
    mkdir -p "$PWD"
    # Without a note in /run/mount, which a namespace's root may not write.
    mount -n --move /mnt "$PWD"
    cd "$PWD"
}
"#;

/// The end of the first process of a PID namespace is that of all others: the daemons are let go first.
const FIRST_PROCESS: &str = r#"
code=0
"$@" || code=$?
while [ -n "$(ls -A "$XDG_RUNTIME_DIR/fim" 2>/dev/null)" ]; do :; done
exit $code
"#;

/// Has the calls of these numbers (first argument, separated by commas) answer an error (the second), and executes what
/// follows. clone answers it when it is to make a user namespace.
pub const FILTER: &str = r#"
import ctypes, os, struct, sys
LOAD, EQUAL, SET, RETURN = 0x20, 0x15, 0x45, 0x06
refused, error = [int(call) for call in sys.argv[1].split(",")], int(sys.argv[2])
CLONE, CLONE_NEWUSER = 56, 0x10000000
# One line for each call, then those of clone, then the two answers.
plain = [call for call in refused if call != CLONE]
tail = [(EQUAL, 0, 2, CLONE), (LOAD, 0, 0, 16), (SET, 1, 0, CLONE_NEWUSER)] if CLONE in refused else []
program = [(LOAD, 0, 0, 0)]
for at, call in enumerate(plain):
    program.append((EQUAL, len(plain) - at - 1 + len(tail) + 1, 0, call))
program += tail + [(RETURN, 0, 0, 0x7fff0000), (RETURN, 0, 0, 0x50000 | error)]
code = b"".join(struct.pack("HBBI", *line) for line in program)
memory = ctypes.create_string_buffer(code)
header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(memory))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.create_string_buffer(header)):
    raise OSError(ctypes.get_errno(), "no filter")
os.execvp(sys.argv[3], sys.argv[3:])
"#;

/// A world whose image an ordinary user may start.
pub struct Host {
    pub world: World,
    arrange: String,
    processes: bool,
    root: bool,
    command: Vec<String>,
    env: Vec<(&'static str, Option<String>)>,
}

impl Host {
    pub fn new() -> Self {
        let command = ["sh", "-c"].map(str::to_owned).to_vec();
        Self { world: World::new(), arrange: String::new(), processes: false, root: false, command, env: Vec::new() }
    }

    /// Arranges it by this script; `$IMAGE` is the image.
    pub fn arranged(mut self, script: &str) -> Self {
        self.arrange = script.to_owned();
        self
    }

    /// Gives it processes of its own.
    pub fn with_processes(mut self) -> Self {
        self.processes = true;
        self
    }

    /// Keeps the privileges of whoever arranges it; the command gives them up.
    pub fn privileged(mut self) -> Self {
        self.root = true;
        self
    }

    /// What stands between the caller and the script that calls the image, instead of `sh -c`.
    pub fn through(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, Some(value.to_owned())));
        self
    }

    pub fn without(mut self, name: &'static str) -> Self {
        self.env.push((name, None));
        self
    }

    /// Runs a script there as an ordinary user.
    pub fn run(&self, script: &str) -> Outcome {
        let user = ["--reuid", USER, "--regid", USER, "--clear-groups"];
        let mut words: Vec<&str> = Vec::new();
        let end = if self.processes { FIRST_PROCESS } else { "exec \"$@\"" };
        let arrange = format!("{ARRANGE}\n{}\n{end}", self.arrange);
        // Of a run before, which goes on to remove its files.
        self.world.wait_for_end();
        if is_root() {
            let all = TestCommand::new(need("chown")).arg("-R").arg(format!("{USER}:{USER}")).arg(self.world.path(""));
            all.run().succeeds();
        }
        if !self.arrange.is_empty() {
            words.extend(["unshare", if is_root() { "-m" } else { "-Urm" }]);
            words.extend(if self.processes { &["-pf"][..] } else { &[] });
            words.extend(["--", "bash", "-c", &arrange, "bash"]);
        }
        if is_root() && !self.root {
            words.push("setpriv");
            words.extend(user);
        }
        words.extend(self.command.iter().map(String::as_str));
        words.push(script);
        let command = self.world.equip(TestCommand::new(need(words[0]))).args(&words[1..]);
        let mut command = command.env("IMAGE", self.world.image());
        for (name, value) in &self.env {
            command = match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.run()
    }

    /// Everything works there, as the row says.
    #[track_caller]
    pub fn runs(self, row: &str) {
        let outcome = self.run(SMOKE);
        judge(row, outcome.succeeds().with_stdout("smoke: all works\n").stderr());
        self.world.assert_nothing_left();
    }

    /// The image is refused there, as the row says, and fim-doctor says the same.
    #[track_caller]
    pub fn refuses(self, row: &str) {
        let outcome = self.run(REFUSAL).succeeds();
        refused(row, &outcome.text(), &outcome.stderr());
        self.world.assert_nothing_left();
    }
}

/// Whether what was said on stderr is what the row promises.
#[track_caller]
pub fn judge(row: &str, stderr: String) {
    match &table::find(row).outcome {
        Runs(_) => assert_eq!(stderr, "", "{row}"),
        Tells(words, _) => {
            assert_eq!(stderr.lines().count(), 1, "{row}: {stderr}");
            for word in *words {
                assert!(stderr.contains(word), "{row}: {word:?} is not in {stderr:?}");
            }
        }
        Refuses(..) => panic!("{row} is a row of hosts on which no image runs"),
    }
}

/// Whether the output of [`REFUSAL`] is the refusal that the row promises.
#[track_caller]
pub fn refused(row: &str, stdout: &str, stderr: &str) {
    let Refuses(cause, fix) = &table::find(row).outcome else { panic!("{row} is a row of hosts on which images run") };
    assert!(stderr.starts_with("fim: ") && stderr.trim_end().lines().count() == 1, "{row}: {stderr}");
    assert!(stderr.contains(cause) && stderr.contains(fix), "{row}: {stderr}");
    assert!(stdout.contains("start: 125") && stdout.contains("doctor: 125"), "{row}: {stdout}");
    assert!(stdout.contains(cause) && stdout.contains(fix), "{row}: the doctor says {stdout}");
}
