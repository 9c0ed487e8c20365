//! A real Debian: packed, run, and compared file by file.

mod harness;

use harness::debian::minimal;
use harness::{TestCommand, World, need, world};

/// A world whose image is that Debian.
fn debian_world() -> World {
    let world = World::empty();
    world::build(minimal(), world.image(), &[]).succeeds().quietly();
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
        .current_dir(minimal())
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
