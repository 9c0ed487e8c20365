//! A real Debian: packed, run, and compared file by file.

mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use harness::{TestCommand, World, is_root, need, world};

/// A minimal Debian, made once by root and kept in a cache: other callers read it.
fn debian() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let default = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-cache");
        let cache = PathBuf::from(std::env::var_os("FIM_TEST_CACHE").unwrap_or_else(|| default.into()));
        let tree = cache.join("debian");
        if tree.join("etc/debian_version").exists() {
            return tree;
        }
        assert!(
            is_root(),
            "{} is missing and only root can make it: sudo debootstrap --variant=minbase stable {0}",
            tree.display()
        );
        fs::create_dir_all(&cache).unwrap();
        let draft = cache.join(format!("debian.{}.part", std::process::id()));
        // Downloads and unpacks: longer than anything else that is waited for. It mounts /proc inside the tree, in a
        // mount namespace of its own, so that nothing stays mounted there when it is interrupted.
        let made = std::process::Command::new(need("timeout"))
            .args(["1800", need("unshare").to_str().unwrap(), "--mount", "--"])
            .args([need("debootstrap").to_str().unwrap(), "--variant=minbase", "stable"])
            .arg(&draft)
            .stdout(std::process::Stdio::null())
            .status();
        assert!(
            made.unwrap().success(),
            "debootstrap failed; its log is {}/debootstrap/debootstrap.log",
            draft.display()
        );
        // Everybody may read all of it, so that every caller packs the same tree.
        TestCommand::new(need("chmod")).args(["-R", "a+rX"]).arg(&draft).run().succeeds();
        fs::rename(&draft, &tree).unwrap();
        tree
    })
}

/// A world whose image is that Debian.
fn debian_world() -> World {
    let world = World::empty();
    world::build(debian(), world.image(), &[]).succeeds().quietly();
    world
}

/// Digest and name of every regular file below a directory.
const SUMS: &str = "find . -xdev -type f ! -path ./etc/passwd ! -path ./etc/group ! -path './dev/*' ! -path './run/*' ! -path './tmp/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";

#[test]
fn every_file_reads_back_and_common_programs_run() {
    let world = debian_world();
    // Programs.
    assert_eq!(world.exec(&["/bin/bash", "-c", "echo $((6 * 7)) ${BASH_VERSION:+bash}"]).prints(), "42 bash");
    assert_eq!(world.exec(&["perl", "-e", "print join q(,), map { $_ ** 2 } 1 .. 4"]).prints(), "1,4,9,16");
    let packages = world.exec(&["dpkg", "-l"]).run().succeeds().text();
    assert!(packages.lines().filter(|line| line.starts_with("ii ")).count() > 50, "{packages}");
    assert!(world.exec(&["locale", "-a"]).run().text().contains("POSIX"));
    assert_eq!(world.exec(&["bash", "-c", "find / -xdev -printf x | wc -c"]).run().status.code(), Some(0));
    assert_eq!(world.app(&["-c", "echo $0 booted"]).prints(), "/bin/bash booted");
    // Content: the sums taken inside are those of the source.
    let inside = world.root(&["sh", "-c", &format!("cd /; {SUMS}")]).run().succeeds().text();
    let source = TestCommand::new(need("sh"))
        .env("PATH", "/usr/bin:/bin")
        .args(["-c", SUMS])
        .current_dir(debian())
        .run()
        .succeeds()
        .text();
    let missing = source.lines().find(|line| !inside.lines().any(|other| other == *line));
    let difference: Vec<&str> =
        inside.lines().filter(|line| !source.lines().any(|other| other == *line)).take(5).collect();
    assert!(
        inside == source,
        "{} and {} lines differ, first {difference:#?}, lacking {missing:?}",
        inside.lines().count(),
        source.lines().count()
    );
}

#[test]
fn root_inside_can_edit_and_delete_every_file() {
    let world = debian_world();
    // A program that runs cannot be written: perl is a copy in /tmp.
    let script = r#"
        use strict; my ($files, @failed) = (0);
        my $device = (stat "/")[0]; my (@all, @open) = (); push @open, "";
        while (defined(my $directory = pop @open)) {
            opendir(my $handle, "$directory/") or die "$directory: $!";
            for my $name (grep { !/^\.\.?$/ } readdir $handle) {
                my @stat = lstat(my $path = "$directory/$name");
                # Directories tell where a mount begins; the two files are shown to the instance, not the image's.
                if (-d _) { push @open, $path if $stat[0] == $device }
                elsif (-f _ && $path !~ m{^/etc/(passwd|group)$}) { push @all, $path }
            }
        }
        for my $file (@all) {
            $files++;
            my $mode = (stat $file)[2] & 07777;
            chmod($mode | 0600, $file) or push @failed, "chmod $file: $!";
            open(my $out, ">>", $file) or do { push @failed, "append $file: $!"; next };
            print $out "x"; close $out or push @failed, "close $file: $!";
            rename($file, "$file.moved") or push @failed, "rename $file: $!";
            unlink("$file.moved") or push @failed, "unlink $file: $!";
        }
        print "$files files\n", map { "$_\n" } @failed[0 .. ($#failed < 9 ? $#failed : 9)];
    "#;
    let printed =
        world.root(&["sh", "-c", "cp /usr/bin/perl /tmp && exec /tmp/perl -e \"$0\"", script]).run().succeeds().text();
    let (first, failed) = printed.split_once('\n').unwrap_or((&printed, ""));
    assert!(failed.is_empty(), "{printed}");
    let files: u32 = first.trim_end_matches(" files").parse().unwrap();
    assert!(files > 4000, "{files} files only");
}
