//! Damaged images, hosts that say no, and builds that cannot work: each is one line that names what, which object, why
//! and what to do, with exit code 125 and nothing changed.

mod harness;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use harness::{TestCommand, World, is_root, need, world};

/// Where the parts of an image stand, in bytes (docs/FORMAT.md).
struct Layout {
    superblock: u64,
    slots: [u64; 2],
    payload: u64,
    len: u64,
}

impl Layout {
    fn of(image: &Path) -> Self {
        let bytes = fs::read(image).unwrap();
        // The superblock stands at a page boundary behind the program, and the first page with its magic is it.
        let magic: &[u8] = &runtime::image::Image::open(File::open(image).unwrap(), image)
            .unwrap()
            .map(|image| bytes[image.superblock.offset() as usize..][..8].to_vec())
            .unwrap();
        let at = bytes.chunks(4096).position(|page| page.starts_with(magic)).unwrap() * 4096;
        let u64_at = |offset: usize| u64::from_le_bytes(bytes[at + offset..][..8].try_into().unwrap());
        Self { superblock: at as u64, slots: [u64_at(40), u64_at(48)], payload: u64_at(64), len: bytes.len() as u64 }
    }
}

/// Changes one byte of a file.
fn flip(path: &Path, at: u64) {
    // The file is not executed while this descriptor is open, as every test has its own copy; see `world::copy` for why
    // the change is made to a copy that nobody has executed yet.
    let script = "printf \"\\\\$(printf %o $(( $(od -An -tu1 -j $1 -N 1 \"$0\") ^ 85 )))\" | dd of=\"$0\" bs=1 seek=$1 conv=notrunc status=none";
    TestCommand::new(need("bash"))
        .env("PATH", "/usr/bin:/bin")
        .args(["-c", script])
        .arg(path)
        .arg(at.to_string())
        .run()
        .succeeds()
        .quietly();
}

/// Nothing was made beside the image.
fn nothing_was_made(world: &World) {
    assert!(!world.data().exists() && !world.sessions().exists(), "a refused start made something");
}

#[test]
fn a_truncated_image_is_refused_at_any_length() {
    let world = World::new();
    let layout = Layout::of(world.image());
    let lengths = [
        layout.superblock,
        layout.superblock + 1,
        layout.superblock + 4095,
        layout.slots[0],
        layout.slots[0] + 100,
        layout.slots[1],
        layout.slots[1] + 64,
        layout.payload,
        layout.payload + 1,
        layout.payload + 96,
        layout.payload + 100_000,
        (layout.payload + layout.len) / 2,
        layout.len - 4096,
        layout.len - 1,
    ];
    for len in lengths {
        let cut = world.path(format!("cut-{len}"));
        world
            .host_sh("head -c $LEN \"$IMAGE\" > \"$CUT\"; chmod 755 \"$CUT\"")
            .env("LEN", len.to_string())
            .env("CUT", &cut)
            .run()
            .succeeds();
        let start = world.equip(TestCommand::new(&cut)).args(["fim-exec", "true"]).run();
        assert_ne!(start.status.code(), Some(0), "{len} of {} bytes: {start:?}", layout.len);
        if len > layout.superblock {
            let start = start.exits(125);
            assert!(start.stderr().starts_with("fim: ") && start.stderr().lines().count() == 1, "{start:?}");
            assert!(start.stderr().contains(&format!("cut-{len}")), "{start:?}");
        }
        fs::remove_file(cut).unwrap();
    }
    nothing_was_made(&world);
}

#[test]
fn a_damaged_superblock_is_refused() {
    let pristine = World::new();
    let layout = Layout::of(pristine.image());
    for offset in [0, 7, 8, 12, 16, 32, 40, 56, 64, 72, 200, 4064, 4095] {
        let world = World::empty();
        world::copy(pristine.image(), world.image());
        flip(world.image(), layout.superblock + offset);
        world.exec(&["true"]).fails_naming(&["app.flatimage", "restore"]);
        nothing_was_made(&world);
    }
}

/// Writes the configuration of slot A into slot B with the next generation, as a change of it would.
fn second_slot(image: &Path, layout: &Layout) {
    let file = File::options().read(true).write(true).open(image).unwrap();
    let mut header = [0; 64];
    file.read_exact_at(&mut header, layout.slots[0]).unwrap();
    let mut body = vec![0; u32::from_le_bytes(header[16..20].try_into().unwrap()) as usize];
    file.read_exact_at(&mut body, layout.slots[0] + 64).unwrap();
    header[8] += 1;
    let digest = blake3::Hasher::new().update(&header[..32]).update(&body).finalize();
    header[32..].copy_from_slice(digest.as_bytes());
    file.write_all_at(&[&header[..], &body].concat(), layout.slots[1]).unwrap();
}

#[test]
fn one_damaged_slot_is_a_warning_and_two_are_an_error() {
    let pristine = World::new();
    let layout = Layout::of(pristine.image());
    second_slot(pristine.image(), &layout);
    // The header's magic, the generation, the digest, the body.
    for offset in [0, 8, 40, 64, 70] {
        for damaged in [&[0][..], &[1], &[0, 1]] {
            let world = World::empty();
            world::copy(pristine.image(), world.image());
            damaged.iter().for_each(|&slot: &usize| flip(world.image(), layout.slots[slot] + offset));
            let start = world.exec(&["echo", "runs"]);
            if damaged.len() == 2 {
                start.fails_naming(&["app.flatimage", "both config slots are damaged", "restore the file"]);
                nothing_was_made(&world);
            } else {
                let start = start.run().succeeds().with_stdout("runs\n");
                // B is the newer one; what is older need not be looked at.
                if damaged == [0] {
                    continue;
                }
                let warning = start.complains_of(&["fim: warning: a config slot of", "the other one is used"]).stderr();
                assert_eq!(warning.lines().count(), 1, "{warning}");
            }
        }
    }
}

#[test]
fn a_damaged_block_is_an_error_for_the_reader_of_that_file_alone() {
    let world = World::new();
    let bytes = fs::read(world.image()).unwrap();
    let tree = World::empty();
    fs::create_dir(tree.path("tree")).unwrap();
    world::small_tree(&tree.path("tree"));
    let noise = fs::read(tree.path("tree/usr/share/noise")).unwrap();
    // What cannot be compressed stands in the image as it is.
    let at = harness::process::position(&bytes, &noise[600_000..600_064]).expect("noise is stored uncompressed");
    flip(world.image(), at as u64);
    let sum = world.sh("cat /usr/share/noise | wc -c; cat /usr/share/noise > /dev/null").run().exits(1);
    sum.complains_of(&["read error: I"]);
    assert_eq!(world.sh("cat /usr/share/dir/* /etc/release 2>/dev/null").run().text(), "one\ntwo\nsmall");
    // The part before the damage is right, and not one wrong byte follows.
    let read = world.sh("cat /usr/share/noise 2>/dev/null").run();
    assert!(noise.starts_with(&read.stdout) && read.stdout.len() < noise.len());
    // `fim-verify` finds it without running anything.
    world.app(&["fim-verify"]).run().exits(125);
}

#[test]
fn damage_anywhere_in_the_payload_never_hangs_or_lies() {
    let pristine = World::new();
    let layout = Layout::of(pristine.image());
    let sums = "find / -xdev -type f -exec sha256sum {} + 2>/dev/null | sort";
    let right = pristine.sh(sums).prints();
    let steps = 12;
    for step in 0..steps {
        let world = World::empty();
        world::copy(pristine.image(), world.image());
        flip(world.image(), layout.payload + (layout.len - layout.payload - 1) * step / (steps - 1));
        let start = world.sh(sums).run();
        match start.status.code() {
            Some(125) => assert!(start.stderr().starts_with("fim: "), "{start:?}"),
            // The shell itself may be in the damaged part.
            Some(126 | 127 | 135) => {}
            _ => {
                for line in
                    start.text().lines().filter(|line| !line.ends_with("/etc/passwd") && !line.ends_with("/etc/group"))
                {
                    assert!(right.contains(line), "step {step}: a wrong file: {line}");
                }
            }
        }
    }
}

#[test]
fn newer_formats_are_refused_by_name() {
    let pristine = World::new();
    let layout = Layout::of(pristine.image());
    let mut bytes = fs::read(pristine.image()).unwrap();
    // A page with a digest that matches, as a later version would write it.
    let page = &mut bytes[layout.superblock as usize..][..4096];
    page[8..12].copy_from_slice(&2_u32.to_le_bytes());
    page[12..16].copy_from_slice(&2_u32.to_le_bytes());
    let digest = blake3::hash(&page[..4064]);
    page[4064..].copy_from_slice(digest.as_bytes());
    let newer = pristine.path("bytes");
    fs::write(&newer, &bytes).unwrap();
    let world = World::empty();
    world::copy(&newer, world.image());
    world.exec(&["true"]).fails_naming(&["format version 2", "use a newer fim"]);
    nothing_was_made(&world);
}

#[test]
fn a_newer_configuration_is_refused_by_name() {
    let pristine = World::new();
    let layout = Layout::of(pristine.image());
    let file = File::options().read(true).write(true).open(pristine.image()).unwrap();
    for slot in layout.slots {
        let mut header = [0; 64];
        file.read_exact_at(&mut header, slot).unwrap();
        if header.iter().all(|byte| *byte == 0) {
            continue;
        }
        let len = u32::from_le_bytes(header[16..20].try_into().unwrap()) as usize;
        let mut body = vec![0; len];
        file.read_exact_at(&mut body, slot + 64).unwrap();
        header[20..24].copy_from_slice(&99_u32.to_le_bytes());
        let digest = blake3::Hasher::new().update(&header[..32]).update(&body).finalize();
        header[32..].copy_from_slice(digest.as_bytes());
        file.write_all_at(&header, slot).unwrap();
    }
    drop(file);
    let world = World::empty();
    world::copy(pristine.image(), world.image());
    world.exec(&["true"]).fails_naming(&["config version 99", "use a newer fim"]);
    nothing_was_made(&world);
}

#[test]
fn forbidden_user_namespaces_are_named_with_the_remedy() {
    let world = World::new();
    // The limit is one of the namespace in which it is set.
    let script =
        "exec unshare -Ur bash -c 'echo 0 > /proc/sys/user/max_user_namespaces && exec \"$IMAGE\" fim-exec true'";
    let outcome = world.host_sh(script).run().exits(125);
    outcome.complains_of(&["fim: cannot make a user namespace", "user.max_user_namespaces is 0", "sysctl -w"]);
}

/// `fim build` with a source and an output in the world.
fn build(world: &World, source: &str, output: &str, options: &[&str]) -> TestCommand {
    world
        .equip(TestCommand::new(harness::FIM))
        .args(["build", "--quiet", "--level", "1"])
        .arg(world.path(source))
        .arg("-o")
        .arg(world.path(output))
        .args(options)
}

fn source(world: &World) {
    fs::create_dir(world.path("tree")).unwrap();
    fs::write(world.path("tree/file"), "content\n").unwrap();
}

#[test]
fn an_output_that_exists_is_kept() {
    let world = World::empty();
    source(&world);
    fs::write(world.path("out"), "precious\n").unwrap();
    build(&world, "tree", "out", &[]).fails_naming(&["out exists", "--force"]);
    assert_eq!(fs::read_to_string(world.path("out")).unwrap(), "precious\n");
    build(&world, "tree", "out", &["--force", "--boot", "/file"]).run().succeeds().quietly();
    build(&world, "tree", "home", &["--force"]).fails_naming(&["home is a directory"]);
}

#[test]
fn an_output_inside_the_source_is_refused() {
    let world = World::empty();
    source(&world);
    build(&world, "tree", "tree/out", &[]).fails_naming(&["lies inside the source", "choose a place outside"]);
    assert_eq!(fs::read_dir(world.path("tree")).unwrap().count(), 1);
}

#[test]
fn sources_that_cannot_be_packed_are_refused() {
    let world = World::empty();
    source(&world);
    build(&world, "missing", "out", &[]).fails_naming(&["missing", "No such file"]);
    fs::write(world.path("text"), "neither tar nor squashfs\n").unwrap();
    build(&world, "text", "out", &[]).fails_naming(&["text", "squashfs"]);
    fs::write(world.path("empty"), "").unwrap();
    build(&world, "empty", "out", &[]).fails_naming(&["empty"]);
    build(&world, "tree", "no/such/directory/out", &[]).fails_naming(&["cannot create", "must exist"]);
    if !is_root() {
        // Root reads everything; that a file vanishes while it is packed is tested beside the packer.
        fs::write(world.path("tree/secret"), "x").unwrap();
        fs::set_permissions(world.path("tree/secret"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        build(&world, "tree", "out", &[]).fails_naming(&["tree/secret", "ermission denied"]);
    }
    let left: Vec<_> = fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 5, "a failed build left something: {left:?}");
}

#[test]
fn wrong_options_are_refused() {
    let world = World::empty();
    source(&world);
    for options in [
        &["--level", "0"][..],
        &["--level", "23"],
        &["--block-size", "5000"],
        &["--block-size", "2M"],
        &["--perms", "nonsense"],
        &["--env", "=x"],
        &["--env", "novalue"],
        &["--no-such-option"],
    ] {
        let refused = world
            .equip(TestCommand::new(harness::FIM))
            .args(["build", "--quiet", "tree", "-o", "out"])
            .args(options)
            .run()
            .exits(125);
        assert!(refused.stderr().contains(options[0]), "{refused:?}");
        assert!(!world.path("out").exists());
    }
    world.equip(TestCommand::new(harness::FIM)).run().exits(125);
    world.equip(TestCommand::new(harness::FIM)).arg("nonsense").run().exits(125);
}

#[test]
fn a_full_disk_while_building_leaves_nothing() {
    let world = World::empty();
    source(&world);
    let script = "mkdir small && mount -t tmpfs -o size=1m none small && \"$FIM\" build --quiet tree -o small/out; \
                  code=$?; ls -A small; exit $code";
    let outcome = world.in_namespace(script).env("FIM", harness::FIM).run().exits(125).with_stdout("");
    outcome.complains_of(&["fim: ", "small/out", "the file system is full"]);
}
