//! Hosts and what happens there: the rows that tests prove and that the README shows.

use std::fs;

/// What happens on a host.
pub enum Outcome {
    /// Everything works; what else the README says of it.
    Runs(&'static str),
    /// Everything works, and the first start says a line with these words; what the README says of it.
    Tells(&'static [&'static str], &'static str),
    /// Exit code 125 and one line with this cause and this fix.
    Refuses(&'static str, &'static str),
}

pub use Outcome::{Refuses, Runs, Tells};

/// One kind of host.
pub struct Row {
    /// What a test calls it.
    pub name: &'static str,
    /// What the README calls it.
    pub host: &'static str,
    pub outcome: Outcome,
}

const fn row(name: &'static str, host: &'static str, outcome: Outcome) -> Row {
    Row { name, host, outcome }
}

const ELSEWHERE: &str = "runs; data goes to `~/.local/share/fim`";

/// Every row, in the order of the README.
pub const ROWS: &[Row] = &[
    row("plain", "ordinary user, without a passwd entry, setuid helpers or a desktop", Runs("runs")),
    row("old-kernel", "Linux 6.1 (Debian 12)", Runs("runs")),
    row("few-descriptors", "64 descriptors a process (`ulimit -n`)", Runs("runs")),
    row("umask", "umask 077", Runs("runs")),
    row("closed-streams", "stdin, stdout or stderr closed", Runs("runs")),
    row(
        "odd-names",
        "image called by a relative path, through PATH or a link; blanks, newlines, any bytes in its name",
        Runs("runs"),
    ),
    row("no-home", "no HOME", Runs("runs")),
    row("no-runtime-dir", "no XDG_RUNTIME_DIR", Runs("runs; sessions lie in `/tmp/fim-UID`")),
    row("noexec-tmp", "/tmp mounted noexec", Runs("runs")),
    row("read-only-tmp", "/tmp read-only", Runs("runs")),
    row("full-tmp", "/tmp full", Runs("runs")),
    row("noexec-data", "data on a file system mounted noexec", Runs("runs")),
    row("memfd-noexec", "programs in memory forbidden (`vm.memfd_noexec=2`)", Runs("runs from the file")),
    row("hidepid", "/proc mounted with hidepid=2", Runs("runs")),
    row("read-only-file", "image file read-only", Runs("runs")),
    row("tmpfs", "image on a tmpfs", Runs("runs")),
    row(
        "no-attributes",
        "image and HOME on a file system without user extended attributes (tmpfs before Linux 6.6)",
        Runs("runs; writes go through fim's own overlay"),
    ),
    row(
        "read-only-medium",
        "image on a read-only medium",
        Tells(&["note: data of this image", "Read-only file system"], ELSEWHERE),
    ),
    row(
        "read-only-directory",
        "image in a directory that cannot be written",
        Tells(&["note: data of this image", "Permission denied"], ELSEWHERE),
    ),
    row(
        "overlay",
        "image on an overlay, as in containers",
        Tells(&["note: data of this image", "an overlay itself"], ELSEWHERE),
    ),
    row(
        "vfat",
        "image on a FAT stick, as desktops mount it (named `*.com`)",
        Tells(&["note: data of this image", "a FAT file system"], ELSEWHERE),
    ),
    row("exfat", "image on an exFAT stick", Tells(&["note: data of this image", "an exFAT file system"], ELSEWHERE)),
    row(
        "no-fuse",
        "no usable /dev/fuse",
        Tells(&["/dev/fuse", "its layers are extracted", "once"], "runs; layers are extracted once, to `~/.cache/fim`"),
    ),
    row("root-of-namespace", "inside another user namespace (`unshare -r`)", Runs("runs")),
    row("nested", "inside an image of fim's", Tells(&["/dev/fuse", "once"], "runs; layers are extracted once")),
    row("privileged-container", "privileged container (`podman run --privileged`)", Runs("runs")),
    row("pulled", "stick pulled out while it runs", Refuses("cannot be read any more", "attach the medium")),
    row(
        "userns-switch",
        "`kernel.unprivileged_userns_clone=0`",
        Refuses("kernel.unprivileged_userns_clone is 0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
    ),
    row(
        "userns-limit",
        "`user.max_user_namespaces=0`",
        Refuses("user.max_user_namespaces is 0", "sudo sysctl -w user.max_user_namespaces=15000"),
    ),
    row("too-deep", "32 user namespaces nested", Refuses("32 are nested", "fewer nested containers")),
    row(
        "seccomp",
        "container with a default system call filter",
        Refuses("system call filter (seccomp) forbids it", "--security-opt seccomp=unconfined"),
    ),
    row("chroot", "chroot", Refuses("this is a chroot", "sudo systemd-nspawn -D DIRECTORY")),
    row(
        "apparmor",
        "AppArmor that gives user namespaces no capability (Ubuntu 24.04)",
        Refuses("the security policy", "fim-doctor --apparmor | sudo apparmor_parser -r"),
    ),
    row(
        "masked-proc",
        "/proc masked in part, as in containers",
        Refuses("parts of /proc are masked", "--security-opt unmask=ALL (podman)"),
    ),
    row("no-proc", "no /proc", Refuses("/proc", "sudo mount -t proc proc /proc")),
];

/// The row of this name.
pub fn find(name: &str) -> &'static Row {
    ROWS.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no row {name:?}"))
}

fn markdown() -> String {
    let mut text = String::from("| on this host | an image |\n|---|---|\n");
    for row in ROWS {
        let what = match &row.outcome {
            Runs(what) | Tells(_, what) => (*what).to_owned(),
            Refuses(cause, fix) => format!("ends with 125: \"… {cause} …; {fix}\"").replace('|', "\\|"),
        };
        text.push_str(&format!("| {} | {what} |\n", row.host));
    }
    text
}

#[test]
fn the_readme_shows_what_is_proved() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- hosts: made by tests/hosts, BLESS=1 -->\n", "<!-- end of hosts -->");
    let from = readme.find(begin).expect("README.md has a place for the table") + begin.len();
    let to = readme.find(end).expect("the table has an end");
    let wanted = markdown();
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, [&readme[..from], &wanted, &readme[to..]].concat()).unwrap();
        return;
    }
    assert_eq!(&readme[from..to], wanted, "run it once with BLESS=1");
}
