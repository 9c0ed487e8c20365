//! Publishers: key pairs, signatures, and what ends them.

mod harness;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use harness::{FIM, TestCommand, World, is_root, world};
use serde_json::{Value, json};

fn fim(world: &World, args: &[&str]) -> TestCommand {
    world.equip(TestCommand::new(FIM)).args(args)
}

/// Makes the key pair `name` in the world; returns the public key.
fn pair(world: &World, name: &str) -> String {
    fim(world, &["key-pair", name]).prints()
}

fn sign(world: &World, key: &str) -> TestCommand {
    fim(world, &["sign", "app.flatimage", "--key", key])
}

fn inspect(world: &World) -> Value {
    serde_json::from_str(&fim(world, &["inspect", "--json", "app.flatimage"]).prints()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_key_pair_is_two_files_and_the_secret_one_is_the_owners() {
    let world = World::new();
    let key = pair(&world, "pub lisher");
    assert!(key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
    assert_eq!(mode(&world.path("pub lisher")), 0o600);
    assert_eq!(fs::read_to_string(world.path("pub lisher.pub")).unwrap(), format!("fim-public-key 1 {key}\n"));
    let secret = fs::read_to_string(world.path("pub lisher")).unwrap();
    assert!(secret.starts_with("fim-secret-key 1 ") && !secret.contains(&key), "{secret}");
    // As a command of an image, and never the same twice.
    assert_ne!(world.app(&["fim-key-pair", "other"]).prints(), key);
    assert_eq!(mode(&world.path("other")), 0o600);
}

#[test]
fn no_key_is_ever_overwritten() {
    let world = World::new();
    pair(&world, "key");
    let before = fs::read(world.path("key")).unwrap();
    fim(&world, &["key-pair", "key"]).fails_naming(&["key exists", "never overwritten", "another name"]);
    world.app(&["fim-key-pair", "key"]).fails_naming(&["key exists"]);
    assert_eq!(fs::read(world.path("key")).unwrap(), before);
    // Half of a pair is none.
    fs::write(world.path("half.pub"), "mine").unwrap();
    fim(&world, &["key-pair", "half"]).fails_naming(&["half.pub exists"]);
    assert!(!world.path("half").exists() && fs::read(world.path("half.pub")).unwrap() == b"mine");
    fim(&world, &["key-pair", "nowhere/key"]).fails_naming(&["nowhere", "must exist and be writable"]);
    world.app(&["fim-key-pair"]).fails_naming(&["Missing file for 'fim-key-pair'"]);
    world.app(&["fim-key-pair", "a", "b"]).fails_naming(&["Trailing arguments for fim-key-pair: ['b',]"]);
}

#[test]
fn a_signature_tells_the_publisher() {
    let world = World::new();
    assert_eq!(inspect(&world)["publisher"], Value::Null);
    assert!(fim(&world, &["verify", "app.flatimage"]).prints().ends_with("\npublisher: none"));
    let (ann, ben) = (pair(&world, "ann"), pair(&world, "ben"));
    assert_eq!(sign(&world, "ann").prints(), format!("Signed by {ann}"));
    assert_eq!(inspect(&world)["publisher"], json!({ "key": ann, "valid": true }));
    assert!(fim(&world, &["inspect", "app.flatimage"]).prints().contains(&format!("\npublisher:    {ann}\n")));
    assert!(fim(&world, &["verify", "app.flatimage"]).prints().ends_with(&format!("\npublisher: {ann}")));
    let verified = fim(&world, &["verify", "--json", "app.flatimage"]).prints();
    assert_eq!(serde_json::from_str::<Value>(&verified).unwrap()["publisher"]["valid"], true);
    fim(&world, &["verify", "app.flatimage", "--key", "ann.pub"]).run().succeeds();
    let outcome = fim(&world, &["verify", "app.flatimage", "--key", "ben.pub"]).run().exits(125);
    assert!(outcome.text().contains(&format!("it is not signed by {ben}")), "{outcome:?}");
    assert_eq!(world.sh("echo runs").prints(), "runs");
    // By an image itself, and by another publisher.
    assert_eq!(world.app(&["fim-sign", "--key", "ben", "--version", "2.1"]).prints(), format!("Signed by {ben}"));
    let inspected = inspect(&world);
    assert_eq!((&inspected["publisher"]["key"], &inspected["version"]), (&json!(ben), &json!("2.1")));
    assert_eq!(inspected["publisher"]["valid"], true);
}

#[test]
fn what_users_set_keeps_the_signature() {
    let world = World::new();
    let key = pair(&world, "key");
    sign(&world, "key").run().succeeds();
    for args in [
        &["fim-perms", "set", "network,home"][..],
        &["fim-env", "add", "A=1"],
        &["fim-bind", "add", "ro", "/usr", "/host"],
        &["fim-boot", "set", "sh"],
        &["fim-overlay", "set", "unionfs"],
        &["fim-casefold", "on"],
        &["fim-remote", "set", "https://example.org"],
        &["fim-portal", "allow", "xdg-open"],
    ] {
        world.app(args).run().succeeds().quietly();
    }
    assert_eq!(inspect(&world)["publisher"], json!({ "key": key, "valid": true }));
    // Nor does an own setting of a key.
    world.app(&["fim-key", "run", "foo", "fim-perms", "set", "certs"]).run().succeeds();
    let shown = world.app(&["fim-key", "run", "foo", "fim-inspect"]).prints();
    assert!(shown.contains(&format!("publisher:    {key}\n")), "{shown}");
}

#[test]
fn another_layer_or_program_ends_the_signature_and_is_told() {
    let world = World::new();
    let key = pair(&world, "key");
    sign(&world, "key").run().succeeds();
    let told = [key.as_str(), "counts as unsigned from now on", "fim-sign --key FILE"];
    world.sh("echo new > /note").run().succeeds();
    world.app(&["fim-layer", "commit", "binary"]).run().succeeds().complains_of(&told);
    assert_eq!(inspect(&world)["publisher"], json!({ "key": key, "valid": false }));
    let verified = fim(&world, &["verify", "app.flatimage"]).prints();
    assert!(
        verified.ends_with(&format!("publisher: none; the image was changed after {key} had signed it")),
        "{verified}"
    );
    fim(&world, &["verify", "app.flatimage", "--key", "key.pub"]).run().exits(125);
    // It runs as any other, and says no more.
    assert_eq!(world.sh("cat /note").prints(), "new");
    // Without the layer it is what was signed; signed anew, with it.
    world.app(&["fim-layer", "remove", "1"]).run().succeeds().quietly();
    assert_eq!(inspect(&world)["publisher"]["valid"], true);
    fs::create_dir(world.path("tree")).unwrap();
    fs::write(world.path("tree/more"), "more").unwrap();
    world.app(&["fim-layer", "create", "tree", "more.layer"]).run().succeeds();
    world.app(&["fim-layer", "add", "more.layer"]).run().succeeds().complains_of(&told);
    sign(&world, "key").run().succeeds();
    world.app(&["fim-layer", "squash", "binary"]).run().succeeds().complains_of(&told);
    sign(&world, "key").run().succeeds();
    // A layer that does not go into the image does not matter.
    world.sh("echo newer > /note").run().succeeds();
    world.app(&["fim-layer", "commit", "layer"]).run().succeeds().quietly();
    assert_eq!(inspect(&world)["publisher"]["valid"], true);
    // A program by somebody else, whoever it is that tells.
    world.wait_for_end();
    let file = fs::File::options().write(true).open(world.image()).unwrap();
    let mut text = [0; 4];
    file.write_all_at(b"evil", 4_000_000).unwrap();
    fs::File::open(world.image()).unwrap().read_exact_at(&mut text, 4_000_000).unwrap();
    drop(file);
    assert_eq!((&text, &inspect(&world)["publisher"]["valid"]), (b"evil", &json!(false)));
}

#[test]
fn what_an_image_declares_is_covered_and_told() {
    let world = World::new();
    let key = pair(&world, "key");
    for args in [
        &["fim-alias", "declare", "tool", "sh"][..],
        &["fim-alias", "undeclare", "tool"],
        &["fim-hook", "set", "install", "true"],
        &["fim-hook", "clear"],
        &["fim-content", "slot", "s", "--read", "$FIM_ROOT_DIR/usr"],
        &["fim-content", "plug", "p", "--target", "$FIM_ROOT_DIR/p"],
    ] {
        sign(&world, "key").run().succeeds();
        let outcome = world.app(args).run().succeeds().complains_of(&["counts as unsigned from now on"]);
        assert_eq!(outcome.stderr().lines().count(), 1);
        assert_eq!(inspect(&world)["publisher"], json!({ "key": key, "valid": false }), "{args:?}");
    }
    // What changes nothing ends nothing.
    sign(&world, "key").run().succeeds();
    world.app(&["fim-hook", "clear"]).run().succeeds().quietly();
    assert_eq!(inspect(&world)["publisher"]["valid"], true);
}

#[test]
fn a_new_image_of_a_signed_one_is_not_signed() {
    let world = World::new();
    pair(&world, "key");
    sign(&world, "key").run().succeeds();
    let copy = world.path("copy.flatimage");
    world::build(world.image(), &copy, &["--version", "1.0-rc1"]).succeeds().quietly();
    let shown = fim(&world, &["inspect", "copy.flatimage"]).prints();
    assert!(shown.contains("\nversion:      1.0-rc1\npublisher:    none\n"), "{shown}");
    // A copied file is the same image.
    world::copy(world.image(), &copy);
    fim(&world, &["verify", "copy.flatimage", "--key", "key.pub"]).run().succeeds();
    let tree = world.path("tree");
    fs::create_dir(&tree).unwrap();
    world::build(&tree, &world.path("bad.flatimage"), &["--version", "1 0"])
        .exits(125)
        .complains_of(&["Invalid version '1 0'", "parts joined by points"]);
    assert!(!world.path("bad.flatimage").exists());
}

#[test]
fn instances_run_on_while_their_image_is_signed() {
    let world = World::new();
    pair(&world, "key");
    let mut running = world.sh("echo ready; cat").spawn();
    running.expect("ready");
    sign(&world, "key").run().succeeds();
    world.app(&["fim-sign", "--key", "key"]).run().succeeds();
    running.say("still here\n");
    running.expect("still here");
    running.close_stdin();
    running.wait().succeeds();
    assert_eq!(inspect(&world)["publisher"]["valid"], true);
}

#[test]
fn what_cannot_sign_changes_nothing() {
    let world = World::new();
    pair(&world, "key");
    let before = fs::read(world.image()).unwrap();
    fs::write(world.path("empty"), "").unwrap();
    fs::write(world.path("binary"), [0xff; 5000]).unwrap();
    for (key, why) in [
        ("nowhere", "cannot read the key nowhere: No such file"),
        ("home", "cannot read the key home: it is no file"),
        ("empty", "empty is no secret key: it does not begin with 'fim-secret-key 1'"),
        ("binary", "binary is no secret key"),
        ("key.pub", "key.pub is no secret key"),
        ("/dev/null", "it is no file"),
    ] {
        sign(&world, key).fails_naming(&[why]);
        world.app(&["fim-sign", "--key", key]).fails_naming(&[why]);
    }
    fim(&world, &["verify", "app.flatimage", "--key", "key"])
        .fails_naming(&["key is no public key", "fim key-pair FILE"]);
    sign(&world, "key").args(["--version", "1..2"]).run().exits(125).complains_of(&["Invalid version '1..2'"]);
    world.app(&["fim-sign"]).fails_naming(&["Missing --key", "fim-help sign"]);
    fim(&world, &["sign", FIM, "--key", "key"]).fails_naming(&["without an application"]);
    fim(&world, &["sign", "empty", "--key", "key"]).fails_naming(&["cannot use the image empty"]);
    assert_eq!(fs::read(world.image()).unwrap(), before);
    // A key that others can read still signs, with a warning.
    fs::set_permissions(world.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    sign(&world, "key").run().succeeds().complains_of(&["warning: others can use the secret key key", "chmod 600"]);
    if !is_root() {
        fs::set_permissions(world.path("key"), fs::Permissions::from_mode(0o000)).unwrap();
        sign(&world, "key").fails_naming(&["cannot read the key key: Permission denied"]);
    }
}
