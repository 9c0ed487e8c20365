//! The FUSE server, seen through a real mount in namespaces of its own (the example `serve` makes them).
//!
//! Needs: user namespaces, an accessible `/dev/fuse`, `mksquashfs`, `mount`, `sh`, `find`, `awk`, `cmp`, `perl`.
//! What is missing fails the test that needs it, by name.

mod fuse_bench;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use fuse_bench::{Bench, noise, succeed, test_program, utf8};

/// A tree with every type of file that needs no privilege, and the awkward sizes.
fn varied_tree(bench: &Bench) {
    for (index, size) in [0, 1, 4095, 4096, 131_071, 131_072, 131_073, 1_000_000].into_iter().enumerate() {
        bench.write(&format!("sizes/{size}"), &noise(size, index as u64));
    }
    for index in 0..300 {
        bench.write(&format!("many/{index:03}"), &noise(index * 37, 1000 + index as u64));
    }
    let src = bench.path("src");
    let sparse = fs::File::create(src.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 3 << 20).unwrap();
    sparse.write_all_at(b"middle", 1_500_000).unwrap();
    fs::create_dir_all(src.join("deep/er/still")).unwrap();
    symlink("../sizes/4096", src.join("deep/link")).unwrap();
    fs::hard_link(src.join("sizes/4096"), src.join("deep/er/hard")).unwrap();
    bench.write("spaces and \u{e4}\u{f6}", b"name");
    succeed(Command::new("mkfifo").arg(src.join("pipe")), "mkfifo");
    fs::set_permissions(src.join("sizes/1"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(src.join("many"), fs::Permissions::from_mode(0o1777)).unwrap();
}

/// One line for each file: what `stat` and `readlink` say.
const DESCRIBE: &str = r"find . -printf '%P\t%y\t%m\t%n\t%U\t%G\t%s\t%T@\t%l\n'";

/// Lines of `DESCRIBE` without what squashfs does not keep: sizes of directories and fractions of seconds. The
/// caller is root inside.
fn normal(described: &str) -> Vec<String> {
    let (uid, gid) = (nix::unistd::getuid().to_string(), nix::unistd::getgid().to_string());
    let mut lines: Vec<_> = described
        .lines()
        .map(|line| {
            let mut fields: Vec<_> = line.split('\t').collect();
            fields[4] = if fields[4] == uid { "0" } else { fields[4] };
            fields[5] = if fields[5] == gid { "0" } else { fields[5] };
            fields[6] = if fields[1] == "d" { "-" } else { fields[6] };
            fields[7] = fields[7].split('.').next().unwrap();
            fields.join(" ")
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn fuse_shows_contents_and_metadata_as_they_were_packed() {
    let bench = Bench::new();
    varied_tree(&bench);
    let source = Command::new("sh").args(["-euc", DESCRIBE]).current_dir(bench.path("src")).output().unwrap();
    for (name, block) in [("small.sqfs", "4096"), ("usual.sqfs", "131072"), ("large.sqfs", "1048576")] {
        let image = bench.pack(name, &["-b", block, "-all-root"]);
        let seen = bench.show(&[], &[&image], &format!("cd mnt/0; {DESCRIBE}"));
        assert_eq!(normal(&utf8(&source.stdout)), normal(&seen));
        bench.show(
            &[],
            &[&image],
            "cd src; find . -type f -exec cmp {} ../mnt/0/{} ';' > ../differences 2>&1; ! test -s ../differences",
        );
    }
}

#[test]
fn fuse_gives_hard_links_one_number_and_every_file_its_own() {
    let bench = Bench::new();
    varied_tree(&bench);
    let image = bench.pack("a.sqfs", &[]);
    let seen = bench.show(&[], &[&image, &image], "find mnt -printf '%i %p\\n'");
    let mut by_number = std::collections::HashMap::<_, Vec<_>>::new();
    for line in seen.lines() {
        let (number, path) = line.split_once(' ').unwrap();
        by_number.entry(number).or_default().push(path);
    }
    for (number, mut paths) in by_number {
        paths.sort_unstable();
        match paths[..] {
            [_] => {}
            [first, second] => assert!(first.ends_with("deep/er/hard") && second.ends_with("sizes/4096"), "{paths:?}"),
            _ => panic!("{number}: {paths:?}"),
        }
    }
    let listed = bench.show(&[], &[&image], "cd mnt/0/deep; ls -aid . ..; ls -ai | head -2");
    let numbers: Vec<_> = listed.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(numbers[..2], numbers[2..], "readdir and stat disagree on . and ..\n{listed}");
}

#[test]
fn fuse_layers_carry_an_overlay_that_is_written_to() {
    let bench = Bench::new();
    bench.write("both", b"lower");
    bench.write("only-lower", b"only lower");
    bench.write("hidden/old", b"must not show");
    let lower = bench.pack("lower.sqfs", &["-all-root"]);
    bench.empty_source();
    bench.write("both", b"upper");
    bench.write("dir/file", b"to be changed");
    bench.write("hidden/new", b"shows");
    let hidden = bench.path("src/hidden");
    xattr::set(hidden, "user.overlay.opaque", b"y").unwrap();
    // With a table of extended attributes and without one, the kernel takes different ways.
    for (options, opaque) in [(&["-all-root"][..], true), (&["-all-root", "-no-xattrs"][..], false)] {
        let upper = bench.pack("upper.sqfs", options);
        let script = "
            rm -rf upper work; mkdir -p upper work merged
            (cd mnt; mount -t overlay overlay -o userxattr,lowerdir=1:0,upperdir=../upper,workdir=../work ../merged)
            test \"$(cat merged/both)\" = upper
            test \"$(cat merged/only-lower)\" = 'only lower'
            echo more >> merged/dir/file
            test \"$(cat merged/dir/file)\" = 'to be changedmore'
            test \"$(cat mnt/1/dir/file)\" = 'to be changed'
            rm merged/both; ! test -e merged/both
            mkdir merged/new; echo x > merged/new/y; chmod 600 merged/only-lower; mv merged/new merged/renamed
            test -f upper/dir/file; test -f upper/renamed/y
            ls merged/hidden";
        let listed = bench.show(&[], &[&lower, &upper], script);
        assert_eq!(listed, if opaque { "new\n" } else { "new\nold\n" });
    }
}

#[test]
fn fuse_refuses_to_change_anything() {
    let bench = Bench::new();
    bench.write("file", b"text");
    let image = bench.pack("a.sqfs", &["-all-root"]);
    let script = "
        for command in 'touch mnt/new' 'touch mnt/0/new' 'rm mnt/0/file' 'mkdir mnt/0/dir' 'chmod 777 mnt/0/file' \
            'ln mnt/0/file mnt/0/hard' 'mv mnt/0/file mnt/0/moved' 'truncate -s 0 mnt/0/file' 'rmdir mnt/0'; do
            ! $command 2>> errors || echo \"$command succeeded\"
        done
        grep -vc 'Read-only file system' errors || true
        ls mnt mnt/0; stat -f -c %T mnt; df mnt > df";
    assert_eq!(bench.show(&[], &[&image], script), "0\nmnt:\n0\n\nmnt/0:\nfile\nfuseblk\n");
}

#[test]
fn fuse_gives_random_readers_the_right_bytes_within_its_budget() {
    let bench = Bench::new();
    for index in 0..4u64 {
        bench.write(&format!("{index}"), &noise(6 << 20, index));
    }
    let image = bench.pack("a.sqfs", &["-all-root"]);
    let budget = 1 << 20;
    let script = "
        for reader in 1 2 3 4 5 6; do
            awk -v seed=$reader 'BEGIN { srand(seed); for (i = 0; i < 150; i++) print int(rand()*4), int(rand()*1530) }' |
            while read file page; do
                dd if=mnt/0/$file bs=4096 skip=$page count=3 2>/dev/null | cksum > got.$reader
                dd if=src/$file bs=4096 skip=$page count=3 2>/dev/null | cksum | cmp - got.$reader
            done &
            readers=\"${readers:-} $!\"
        done
        for reader in $readers; do wait $reader; done
        for file in 0 1 2 3; do cmp src/$file mnt/0/$file; done";
    bench.show(&["--cache", &budget.to_string(), "--stats", "stats"], &[&image], script);
    assert!(bench.figure("cache_peak") <= budget, "{}", bench.figure("cache_peak"));
    assert!(bench.figure("blocks_loaded") > 4 * 48, "nothing was evicted, so nothing was tried");
}

#[test]
fn fuse_decompresses_every_block_once_for_concurrent_readers() {
    let bench = Bench::new();
    bench.write("file", &noise(10 << 20, 1));
    let image = bench.pack("a.sqfs", &["-all-root", "-b", "131072"]);
    let script = "for reader in 1 2 3 4; do cat mnt/0/file > copy.$reader & done; wait; cmp src/file copy.1; cmp src/file copy.4";
    for options in [&["--stats", "stats"][..], &["--stats", "stats", "--no-read-ahead"][..]] {
        bench.show(options, &[&image], script);
        assert_eq!(bench.figure("blocks_loaded"), 80);
        assert_eq!(bench.figure("cache_bytes"), 0, "delivered blocks stayed");
    }
}

#[test]
fn fuse_needs_little_memory_for_a_little_reading() {
    let bench = Bench::new();
    bench.write("file", &noise(1 << 20, 1));
    let image = bench.pack("a.sqfs", &["-all-root"]);
    bench.show(&["--stats", "stats"], &[&image], "cat mnt/0/file > copy");
    assert!(bench.figure("private_bytes") < 6 << 20, "{} bytes", bench.figure("private_bytes"));
}

#[test]
fn fuse_answers_damage_with_an_error_and_serves_the_rest() {
    let bench = Bench::new();
    for index in 0..8u64 {
        bench.write(&format!("{index}"), &noise(512 << 10, index));
    }
    let image = bench.pack("a.sqfs", &["-all-root", "-b", "131072", "-no-fragments"]);
    // The first data block follows the superblock. Zstandard notices damage to its header; what lies behind it is
    // the business of the layer's digests.
    let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
    file.write_all_at(&[0xff; 64], 96).unwrap();
    let script = "
        for file in 0 1 2 3 4 5 6 7; do cmp src/$file mnt/0/$file 2>&1 || echo $file is damaged; done
        dd if=mnt/0/0 of=tail bs=131072 skip=1 2>/dev/null; dd if=src/0 bs=131072 skip=1 2>/dev/null | cmp - tail
        for again in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do ! cat mnt/0/0 2>/dev/null; done >/dev/null";
    let output = bench.serve(&[], &[&image], script);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("Input/output error") && out.ends_with("0 is damaged\n"), "{out}");
    assert_eq!(out.matches("is damaged").count(), 1, "{out}");
    assert!(err.contains("layer 0") && err.contains("byte 96"), "{err}");
    assert!(err.lines().count() <= 10, "the log is flooded:\n{err}");
}

#[test]
fn fuse_lists_a_large_directory_and_finds_its_way_back() {
    let bench = Bench::new();
    for index in 0..10_000 {
        bench.write(&format!("dir/entry-number-{index:05}"), b"");
    }
    let image = bench.pack("a.sqfs", &["-all-root"]);
    let script = "ls -f mnt/0/dir | sort | uniq | wc -l; ls -l mnt/0/dir | wc -l";
    assert_eq!(bench.show(&[], &[&image], script), "10002\n10001\n");
    // Reopens the directory at remembered places: what follows must be what followed before.
    let output = bench.serve(&[], &[&image], &format!("exec {} --exact seek_helper --ignored", test_program()));
    assert!(output.status.success(), "{}{}", utf8(&output.stdout), utf8(&output.stderr));
}

/// Not a test of its own: runs inside the mount of `fuse_lists_a_large_directory_and_finds_its_way_back`.
#[test]
#[ignore = "runs inside the mount of another test"]
fn seek_helper() {
    let out = Command::new("perl")
        .arg("-e")
        .arg(
            "opendir(D, 'mnt/0/dir') or die $!; my (@at, @name);
             while (1) { push @at, telldir(D); my $n = readdir(D); last unless defined $n; push @name, $n; }
             die scalar(@name) unless @name == 10002;
             for (my $i = 0; $i < 2000; $i++) { my $k = ($i * 7919) % @name; seekdir(D, $at[$k]);
               my $n = readdir(D); die \"$k $n $name[$k]\" unless $n eq $name[$k]; }",
        )
        .output()
        .expect("perl");
    assert!(out.status.success(), "{}", utf8(&out.stderr));
}

/// Not a test of its own: prints the extended attributes of the files in `PATHS`, from inside a mount.
#[test]
#[ignore = "runs inside the mount of another test"]
fn xattr_helper() {
    for path in std::env::var("PATHS").unwrap().split(' ') {
        match xattr::list(path) {
            Ok(names) => {
                for name in names {
                    let value = xattr::get(path, &name).unwrap().expect("a listed attribute is there");
                    println!("@{path} {}={}", name.display(), utf8(&value));
                }
            }
            Err(error) => println!("@{path} {error}"),
        }
        match xattr::get(path, "user.absent") {
            Ok(None) => {}
            other => println!("@{path} absent: {other:?}"),
        }
    }
}

/// What `xattr_helper` prints.
fn xattrs(bench: &Bench, options: &[&str], images: &[&Path], paths: &str) -> Vec<String> {
    let script = format!("PATHS='{paths}' exec {} --exact xattr_helper --ignored --nocapture", test_program());
    let printed = bench.show(options, images, &script);
    let mut lines: Vec<_> =
        printed.lines().filter_map(|line| line.split_once('@')).map(|(_, l)| l.to_owned()).collect();
    lines.sort();
    lines
}

#[test]
fn fuse_shows_extended_attributes_as_stored() {
    let bench = Bench::new();
    bench.write("with", b"1");
    bench.write("without", b"2");
    let long = "x".repeat(3000);
    let with = bench.path("src/with");
    xattr::set(&with, "user.short", b"value").unwrap();
    xattr::set(&with, "user.long", long.as_bytes()).unwrap();
    let image = bench.pack("a.sqfs", &["-all-root"]);
    let seen = xattrs(&bench, &[], &[&image], "mnt mnt/0 mnt/0/with mnt/0/without");
    assert_eq!(seen, [format!("mnt/0/with user.long={long}"), "mnt/0/with user.short=value".to_owned()]);
}

#[test]
fn fuse_without_any_extended_attribute_says_that_there_are_none() {
    let bench = Bench::new();
    bench.write("file", b"1");
    let image = bench.pack("a.sqfs", &["-all-root", "-no-xattrs"]);
    let seen = xattrs(&bench, &[], &[&image], "mnt/0/file");
    assert!(seen.iter().any(|line| line.contains("not supported")), "{seen:?}");
}

#[test]
fn fuse_with_a_single_owner_keeps_the_real_one_in_an_attribute() {
    let bench = Bench::new();
    bench.write("dir/file", b"1");
    xattr::set(bench.path("src/dir/file"), "user.own", b"own").unwrap();
    symlink("file", bench.path("src/dir/link")).unwrap();
    let owned = bench.pack("owned.sqfs", &["-force-uid", "33", "-force-gid", "44"]);
    let root = bench.pack("root.sqfs", &["-all-root"]);
    let script = "stat -c '%u %g' mnt mnt/0 mnt/0/dir/file mnt/0/dir/link mnt/1/dir/file | sort -u";
    assert_eq!(bench.show(&["--single", "0:0"], &[&owned, &root], script), "0 0\n");
    let paths = "mnt mnt/0 mnt/0/dir/file mnt/1 mnt/1/dir/file";
    let seen = xattrs(&bench, &["--single", "0:0"], &[&owned, &root], paths);
    let wanted = [
        "mnt/0 user.fim.owner=33:44",
        "mnt/0/dir/file user.fim.owner=33:44",
        "mnt/0/dir/file user.own=own",
        "mnt/1/dir/file user.own=own",
    ];
    assert_eq!(seen, wanted);
    let seen = xattrs(&bench, &[], &[&owned], "mnt/0 mnt/0/dir/file");
    assert_eq!(seen, ["mnt/0/dir/file user.own=own"], "with real owners there is no such attribute");
}

#[test]
fn fuse_readers_get_an_error_at_once_when_the_server_is_killed() {
    let bench = Bench::new();
    bench.write("file", &noise(1 << 20, 1));
    let image = bench.pack("a.sqfs", &["-all-root"]);
    // The command outlives its parent, the server. Its death takes a moment; every name is asked for once only,
    // because the kernel remembers those that are not there.
    let script = "
        cat mnt/0/file > copy; kill -9 $PPID
        name=0
        until ls mnt/0/$name 2>&1 | grep 'not connected' > after; do name=$((name+1)); test $name -lt 10000; done
        ! cat mnt/0/other 2>> after; cmp src/file mnt/0/file; echo done > finished";
    let output = bench.serve(&[], &[&image], script);
    assert!(!output.status.success());
    assert_eq!(fs::read_to_string(bench.path("finished")).unwrap(), "done\n");
    let after = fs::read_to_string(bench.path("after")).unwrap();
    assert_eq!(after.matches("Transport endpoint is not connected").count(), 2, "{after}");
}

#[test]
fn fuse_shows_four_hundred_layers_and_no_more() {
    let bench = Bench::new();
    bench.write("file", b"x");
    let image = bench.pack("a.sqfs", &["-all-root"]);
    let images = vec![image.as_path(); 401];
    let seen = bench.show(&[], &images[..400], "ls mnt | wc -l; cat mnt/399/file; ! test -e mnt/400; ! test -e mnt/00");
    assert_eq!(seen, "400\nx");
    let output = bench.serve(&[], &images, "true");
    assert_eq!(output.status.code(), Some(125));
    assert!(utf8(&output.stderr).contains("at most 400"), "{}", utf8(&output.stderr));
}

#[test]
fn fuse_devices_are_shown_with_their_numbers() {
    let bench = Bench::new();
    bench.write("file", b"x");
    let pseudo = ["-p", "whiteout c 644 0 0 0 0", "-p", "null c 666 0 0 1 3", "-p", "disk b 600 0 0 259 300"];
    let image = bench.pack("a.sqfs", &[&["-all-root"][..], &pseudo].concat());
    let script = "cd mnt/0; stat -c '%n %F %t:%T' disk null whiteout";
    let seen = bench.show(&[], &[&image], script);
    assert_eq!(
        seen,
        "disk block special file 103:12c\nnull character special file 1:3\nwhiteout character special file 0:0\n"
    );
}

#[test]
fn the_source_of_a_test_file_is_what_the_test_wrote() {
    // Guards the comparison above: equal noise for different seeds would hide mixed-up blocks.
    assert_ne!(noise(4096, 1), noise(4096, 2));
    assert_ne!(noise(8192, 1)[..4096], noise(8192, 1)[4096..]);
    let bench = Bench::new();
    bench.write("a", &noise(10, 3));
    assert_eq!(fs::metadata(bench.path("src/a")).unwrap().size(), 10);
}
