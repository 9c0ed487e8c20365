//! Which producers serve the plugs of an image: consent, publishers, installations, and what does not fit.

mod harness;

use std::fs;
use std::sync::Arc;

use harness::content::{connect, consumer, content, image, on, producer, waiting};
use harness::http::{Answer, Server};
use harness::{FIM, Terminal, TestCommand, World, world};
use serde_json::{Value, json};

#[test]
fn a_default_provider_serves_what_nobody_connected() {
    let world = World::new();
    image(&world, "lib01604.flatimage", &[("lib/l", "library")], &["--version", "1.10"]);
    on(&world, "lib01604.flatimage", &["fim-content", "slot", "lib0-1604", "--read", "$SNAP/lib"]).run().succeeds();
    let plug = ["plug", "lib0-1604", "--target", "$SNAP/extra-libs", "--default-provider", "lib01604.flatimage"];
    content(&world, &plug).run().succeeds();
    // Unsigned images never connect by themselves: the user is asked, or told how.
    world.sh("cat /extra-libs/l").fails_naming(&[
        "default provider",
        "lib01604.flatimage",
        "same publisher",
        "fim-content connect lib0-1604",
    ]);
    let mut terminal = Terminal::open(&world);
    terminal.enter("$IMAGE fim-exec cat /extra-libs/l; echo");
    terminal.expect("Connect the plug 'lib0-1604'");
    terminal.enter("y");
    terminal.expect("library");
    // That was a consent for good.
    assert_eq!(world.sh("cat /extra-libs/l").prints(), "library");
    // Of the same publisher, nobody is asked.
    content(&world, &["disconnect", "lib0-1604"]).run().succeeds();
    world.equip(TestCommand::new(FIM)).args(["key-pair", "key"]).run().succeeds();
    for image in ["lib01604.flatimage", "app.flatimage"] {
        world.equip(TestCommand::new(FIM)).args(["sign", image, "--key", "key"]).run().succeeds();
    }
    assert_eq!(world.sh("cat /extra-libs/l").prints(), "library");
}

#[test]
fn consent_is_bound_to_what_the_producer_was() {
    let world = consumer("$FIM_ROOT_DIR/x", &[]);
    producer(&world, "one.flatimage", &[("d/f", "old")], &["--read", "$FIM_ROOT_DIR/d"]);
    connect(&world, "one.flatimage");
    assert_eq!(world.sh("cat /x/f").prints(), "old");
    // Settings of the producer do not matter.
    on(&world, "one.flatimage", &["fim-perms", "add", "network"]).run().succeeds();
    assert_eq!(world.sh("cat /x/f").prints(), "old");
    // What the slot shares does.
    on(&world, "one.flatimage", &["fim-content", "unslot", "s"]).run().succeeds();
    world.sh("true").fails_naming(&["'p'", "one.flatimage:s", "no slot 's'", "it has no slots", "disconnect p"]);
    let wider = ["fim-content", "slot", "s", "--content", "c", "--read", "$FIM_ROOT_DIR"];
    on(&world, "one.flatimage", &wider).run().succeeds();
    let accept = format!("fim-content connect p {}:s accepts it", world.path("one.flatimage").display());
    world.sh("true").fails_naming(&["is not what it was", "its slot shares something else", &accept]);
    connect(&world, "one.flatimage");
    assert_eq!(world.sh("cat /x/d/f").prints(), "old");
    // Another version of the application, another image.
    for (content, change) in [("same", "it is another image"), ("other", "it is another image")] {
        fs::remove_file(world.path("one.flatimage")).unwrap();
        image(&world, "one.flatimage", &[("d/f", content)], &[]);
        on(&world, "one.flatimage", &wider).run().succeeds();
        world.sh("true").fails_naming(&["is not what it was when it was connected", change]);
    }
    // On a terminal the user is asked; no is no.
    let mut terminal = Terminal::open(&world);
    terminal.enter("$IMAGE fim-exec cat /x/d/f; echo code $?");
    terminal.expect("is not what it was when it was connected");
    terminal.expect("Use it? [y/N]");
    terminal.enter("n");
    terminal.expect("code 125");
    terminal.prompt();
    terminal.enter("$IMAGE fim-exec cat /x/d/f; echo code $?");
    terminal.expect("[y/N]");
    terminal.enter("y");
    terminal.expect("other");
    terminal.expect("code 0");
    assert_eq!(world.sh("cat /x/d/f").prints(), "other");
    // A commit of the producer makes another version of it.
    world::copy(world.image(), &world.path("two.flatimage"));
    on(&world, "two.flatimage", &["fim-content", "unplug", "p"]).run().succeeds();
    on(&world, "two.flatimage", &["fim-content", "slot", "s", "--content", "c", "--read", "$SNAP/etc"])
        .run()
        .succeeds();
    content(&world, &["disconnect", "p"]).run().succeeds();
    connect(&world, "two.flatimage");
    on(&world, "two.flatimage", &["fim-root", "sh", "-c", "echo new > /etc/new"]).run().succeeds();
    assert_eq!(world.sh("ls /x").prints(), "release", "what is written is not shared");
    on(&world, "two.flatimage", &["fim-layer", "commit", "binary"]).run().succeeds();
    world.sh("true").fails_naming(&["its layers are others (a new version?)"]);
    connect(&world, "two.flatimage");
    assert_eq!(world.sh("cat /x/new").prints(), "new");
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let world = consumer("$FIM_ROOT_DIR/x", &["--least", "1.10"]);
    producer(&world, "one.flatimage", &[("d/f", "x")], &["--read", "$FIM_ROOT_DIR/d"]);
    let bytes = fs::read(world.image()).unwrap();
    let before = content(&world, &["list"]).prints();
    assert_eq!(before, "plug:p:c:--target $FIM_ROOT_DIR/x --least 1.10");
    for (words, complaints) in [
        (&[][..], &["Missing op for 'fim-content'"][..]),
        (&["frobnicate"], &["Invalid content operation 'frobnicate'"]),
        (&["slot"], &["Missing name for 'slot'"]),
        (&["slot", "a b", "--read", "$FIM_DATA"], &["Invalid name 'a b'", "letters"]),
        (&["slot", "../x", "--read", "$FIM_DATA"], &["Invalid name '../x'"]),
        (&["slot", "s"], &["share nothing", "--read"]),
        (&["slot", "s", "--read"], &["Missing value for '--read'"]),
        (&["slot", "s", "--read", "/etc"], &["'/etc'", "must begin with $FIM_ROOT_DIR"]),
        (&["slot", "s", "--read", "$FIM_DATA/../x"], &["holds '..'"]),
        (&["slot", "s", "--write", "$SNAP/x"], &["'$SNAP/x' cannot be shared for writing", "read-only"]),
        (&["slot", "s", "--read", "$SNAP", "--content", ""], &["Invalid content ID ''"]),
        (&["slot", "s", "--read", "$SNAP", "extra"], &["Trailing arguments for fim-content: ['extra',]"]),
        (&["slot", "s", "--read", "$SNAP", "--source", "--source"], &["'--source' was given twice"]),
        (&["plug", "q"], &["'q' has no target", "--target"]),
        (&["plug", "p", "--target", "$FIM_ROOT_DIR/y"], &["there is a plug 'p' already", "unplug p"]),
        (&["plug", "q", "--target", "$SNAP/x/"], &["the plug 'p' has $FIM_ROOT_DIR/x already"]),
        (&["plug", "q", "--target", "$SNAP"], &["hide the whole application"]),
        (&["plug", "q", "--target", "$SNAP/proc/1"], &["$FIM_ROOT_DIR/proc/1", "each instance's own"]),
        (&["plug", "q", "--target", "$SNAP/dev"], &["each instance's own"]),
        (&["plug", "q", "--target", "/x"], &["must begin with"]),
        (&["plug", "q", "--target", "$SNAP/y", "--least", ">=1"], &["Invalid version '>=1'"]),
        (&["plug", "q", "--target", "$SNAP/y", "--digest", "12"], &["Invalid digest '12'", "64 hexadecimal"]),
        (&["unslot", "s"], &["no slot 's'", "it has no slot at all"]),
        (&["unplug", "q"], &["no plug 'q': it has p"]),
        (&["connect", "p"], &["Incorrect number of arguments for 'connect'"]),
        (&["connect", "q", "one.flatimage"], &["no plug 'q': it has p"]),
        (&["connect", "p", "gone"], &["gone", "No such file"]),
        (&["connect", "p", "home"], &["home", "no regular file"]),
        (&["connect", "p", "one.flatimage.tree/d/f"], &["d/f cannot be used"]),
        (&["connect", "p", "one.flatimage"], &["does not fit", "no version", "1.10 or later"]),
        (&["connect", "p", "one.flatimage:t"], &["it has no slot 't' (its slots: s for c)"]),
        (&["disconnect", "p"], &["'p' is not connected"]),
        (&["connections", "x"], &["Trailing arguments"]),
        (&["inherit", "x"], &["Trailing arguments"]),
    ] {
        content(&world, words).fails_naming(complaints);
    }
    assert_eq!(content(&world, &["list"]).prints(), before);
    assert!(fs::read(world.image()).unwrap() == bytes && !world.data().exists());
    // Versions count by numbers.
    for (version, fits) in [("1.9", false), ("1.10-rc1", false), ("1.10", true), ("2", true)] {
        let name = format!("v{version}.flatimage");
        image(&world, &name, &[("d/f", version)], &["--version", version]);
        on(&world, &name, &["fim-content", "slot", "s", "--content", "c", "--read", "$SNAP/d"]).run().succeeds();
        let connect = content(&world, &["connect", "p", &name]);
        if fits {
            connect.run().succeeds();
            assert_eq!(world.sh("cat /x/f").prints(), version);
            content(&world, &["disconnect", "p", &name]).run().succeeds().quietly();
        } else {
            connect.fails_naming(&[&format!("its version is {version}, and the plug takes 1.10 or later")]);
        }
    }
    // Content IDs must match, also when the slot is named.
    let other = ["fim-content", "slot", "o", "--content", "other", "--read", "$SNAP/d"];
    on(&world, "v2.flatimage", &other).run().succeeds();
    content(&world, &["connect", "p", "v2.flatimage:o"]).fails_naming(&["content 'other'", "takes 'c'"]);
    on(&world, "v2.flatimage", &["fim-content", "slot", "t", "--content", "c", "--read", "$SNAP/d"]).run().succeeds();
    content(&world, &["connect", "p", "v2.flatimage"]).fails_naming(&["several slots", "s, t", "FILE:SLOT"]);
    content(&world, &["connect", "p", "v2.flatimage:t"]).run().succeeds();
}

#[test]
fn an_image_beside_serves_when_it_has_the_same_publisher() {
    let world = consumer("$FIM_ROOT_DIR/x", &[]);
    let fim = |args: &[&str]| world.equip(TestCommand::new(FIM)).args(args).run().succeeds();
    for key in ["ann", "ben"] {
        fim(&["key-pair", key]);
    }
    // What else lies there does not matter.
    fs::write(world.path("junk.flatimage"), "junk").unwrap();
    world.host_sh("mkfifo pipe.flatimage; ln -s /dev/zero zero.flatimage; cp /bin/true program").run().succeeds();
    producer(&world, "one.flatimage", &[("d/f", "one")], &["--read", "$FIM_ROOT_DIR/d"]);
    producer(&world, "two.flatimage", &[("d/f", "two")], &["--read", "$FIM_ROOT_DIR/d"]);
    let unsigned = ["one.flatimage", "two.flatimage", "could serve it, and has not the same publisher"];
    world.sh("true").fails_naming(&unsigned);
    // Signed by one side only, by another publisher, and at last by the same.
    fim(&["sign", "app.flatimage", "--key", "ann"]);
    world.sh("true").fails_naming(&unsigned);
    fim(&["sign", "one.flatimage", "--key", "ben"]);
    world.sh("true").fails_naming(&unsigned);
    fim(&["sign", "two.flatimage", "--key", "ann"]);
    assert_eq!(world.sh("cat /x/f").prints(), "two");
    assert!(content(&world, &["connections"]).prints().ends_with("/two.flatimage:s"));
    // A connection goes first.
    connect(&world, "one.flatimage");
    assert_eq!(world.sh("cat /x/f").prints(), "one");
    content(&world, &["disconnect", "p"]).run().succeeds();
    // Which of two is meant, the user has to say.
    fim(&["sign", "one.flatimage", "--key", "ann"]);
    world.sh("true").fails_naming(&["one.flatimage", "two.flatimage", "only one is taken by itself"]);
    // A change of what the publisher has signed ends it.
    on(&world, "one.flatimage", &["fim-content", "slot", "more", "--read", "$FIM_ROOT_DIR"]).run().succeeds();
    assert_eq!(world.sh("cat /x/f").prints(), "two");
}

#[test]
fn each_installation_has_connections_of_its_own() {
    let world = consumer("$FIM_ROOT_DIR/x", &["--optional"]);
    for name in ["one", "two", "three"] {
        producer(&world, &format!("{name}.flatimage"), &[("d/f", name)], &["--read", "$FIM_ROOT_DIR/d"]);
    }
    let of = |key: &str, args: &[&str]| world.app(args).env("FIM_INSTANCE_KEY", key);
    let seen = |key: &str| of(key, &["fim-exec", "sh", "-c", "cat /x/f 2>/dev/null || echo none"]).prints();
    connect(&world, "one.flatimage");
    assert_eq!((seen(""), seen("foo")), ("one".to_owned(), "none".to_owned()));
    of("foo", &["fim-content", "connect", "p", "two.flatimage"]).run().succeeds();
    assert_eq!((seen(""), seen("foo"), seen("bar")), ("one".to_owned(), "two".to_owned(), "none".to_owned()));
    // What is embedded in the image is for whoever has none of its own.
    content(&world, &["connect", "p", "three.flatimage", "--embed"]).run().succeeds();
    assert_eq!((seen(""), seen("foo"), seen("bar")), ("one".to_owned(), "two".to_owned(), "three".to_owned()));
    of("foo", &["fim-content", "inherit"]).run().succeeds().quietly();
    content(&world, &["inherit"]).run().succeeds().quietly();
    assert_eq!((seen(""), seen("foo")), ("three".to_owned(), "three".to_owned()));
    // An own set may be empty.
    of("foo", &["fim-content", "disconnect", "p"]).run().succeeds();
    assert_eq!((seen(""), seen("foo")), ("three".to_owned(), "none".to_owned()));
    content(&world, &["disconnect", "p", "--embed"]).run().succeeds();
    assert_eq!((seen(""), seen("bar")), ("none".to_owned(), "none".to_owned()));
    let lines = content(&world, &["connections"]).prints();
    assert!(lines.starts_with("p:c:-:the plug 'p' (content 'c') has no producer"), "{lines}");
}

#[test]
fn a_link_that_stands_for_a_key_shares_the_data_of_that_key() {
    let world = consumer("$FIM_ROOT_DIR/x", &[]);
    world::copy(world.image(), &world.path("server.flatimage"));
    on(&world, "server.flatimage", &["fim-content", "unplug", "p"]).run().succeeds();
    let slot = ["fim-content", "slot", "s", "--content", "c", "--write", "$FIM_COMMON/box/"];
    on(&world, "server.flatimage", &slot).run().succeeds();
    on(&world, "server.flatimage", &["fim-key", "add", "foo"]).run().succeeds();
    connect(&world, "server_foo.flatimage");
    // The data directory that is chosen for this image is not that of the producer.
    world.sh("echo keyed > /x/f").env("FIM_DIR_DATA", world.path("elsewhere")).fails_naming(&["'p'", "no producer"]);
    world.sh("echo keyed > /x/f").run().succeeds().quietly();
    let read = ["fim-exec", "sh", "-c", "cat $FIM_COMMON/box/f"];
    assert_eq!(on(&world, "server_foo.flatimage", &read).prints(), "keyed");
    on(&world, "server.flatimage", &read).run().exits(1);
    // With an image of the key's own, too.
    world::copy(&world.path("server.flatimage"), &world.path("server-2.flatimage"));
    on(&world, "server.flatimage", &["fim-key", "add", "two", "--image", "server-2.flatimage"]).run().succeeds();
    content(&world, &["disconnect", "p"]).run().succeeds();
    connect(&world, "server_two.flatimage");
    world.sh("echo second > /x/f").run().succeeds().quietly();
    assert_eq!(on(&world, "server_two.flatimage", &read).prints(), "second");
    assert_eq!(on(&world, "server_foo.flatimage", &read).prints(), "keyed");
}

#[test]
fn instances_of_a_session_get_the_same() {
    let world = consumer("$FIM_ROOT_DIR/x", &["--optional"]);
    for name in ["one", "two"] {
        producer(&world, &format!("{name}.flatimage"), &[("d/f", name)], &["--read", "$FIM_ROOT_DIR/d"]);
    }
    connect(&world, "one.flatimage");
    let mut running = waiting(world.sh("echo ready; cat"));
    assert_eq!(world.sh("cat /x/f").prints(), "one");
    content(&world, &["connect", "p", "two.flatimage"]).run().succeeds();
    world.sh("true").fails_naming(&["in use by instances", "this start: content of plug p from", "two.flatimage:s"]);
    // A command in the instance that runs sees what that was started with.
    assert_eq!(world.app(&["fim-instance", "exec", "0", "cat", "/x/f"]).prints(), "one");
    running.close_stdin();
    running.wait().succeeds();
    world.wait_for_end();
    assert_eq!(world.sh("ls /x; cat /x/f").prints(), "f\none");
    world.assert_nothing_left();
}

#[test]
fn what_is_declared_and_connected_can_be_listed() {
    let world = consumer("$SNAP/x", &["--least", "1", "--optional", "--default-provider", "d.flatimage"]);
    image(&world, "one.flatimage", &[("d/f", "x")], &["--version", "1.0"]);
    let slot = ["fim-content", "slot", "s", "--content", "c", "--read", "$SNAP/d", "--write", "$SNAP_DATA", "--source"];
    on(&world, "one.flatimage", &slot).run().succeeds().quietly();
    let listed = |image: &str| on(&world, image, &["fim-content", "list"]).prints();
    assert_eq!(listed("one.flatimage"), "slot:s:c:--read $SNAP/d --write $SNAP_DATA --source");
    let plug = "plug:p:c:--target $SNAP/x --default-provider d.flatimage --least 1 --optional";
    assert_eq!(listed("app.flatimage"), plug);
    let parsed = |command: TestCommand| serde_json::from_str::<Value>(&command.prints()).unwrap();
    assert_eq!(
        parsed(on(&world, "one.flatimage", &["fim-content", "list", "--json"])),
        json!({"plugs": [], "slots": [{
            "content": "c", "name": "s", "read": ["$SNAP/d"], "source": true, "write": ["$SNAP_DATA"],
        }]})
    );
    assert_eq!(parsed(content(&world, &["list", "--json"]))["plugs"][0]["default_provider"], "d.flatimage");
    let file = world.path("one.flatimage");
    let connections = || parsed(content(&world, &["connections", "--json"]));
    assert_eq!(connections()[0]["file"], Value::Null);
    assert!(connections()[0]["problem"].as_str().unwrap().contains("no producer"));
    connect(&world, "one.flatimage");
    let expected = json!([{"content": "c", "file": file.to_str(), "plug": "p", "problem": null, "slot": "s"}]);
    assert_eq!(connections(), expected);
    assert_eq!(content(&world, &["connections"]).prints(), format!("p:c:{}:s", file.display()));
}

#[test]
fn a_default_provider_is_fetched_from_the_remote_url() {
    let world = World::new();
    image(&world, "provider", &[("d/f", "fetched")], &[]);
    on(&world, "provider", &["fim-content", "slot", "s", "--content", "c", "--read", "$SNAP/d"]).run().succeeds();
    let bytes = Arc::new(fs::read(world.path("provider")).unwrap());
    let digest = blake3::hash(&bytes).to_hex().to_string();
    fs::remove_file(world.path("provider")).unwrap();
    let server = Server::start(Answer::Content(bytes));
    world.app(&["fim-remote", "set", &server.url()]).run().succeeds();
    let plug = |digest: &str| {
        content(
            &world,
            &["plug", "p", "--content", "c", "--target", "$SNAP/x", "--default-provider", "libs/l.flatimage"],
        )
        .args(["--digest", digest])
        .run()
        .succeeds();
    };
    // Whatever else there is under that name is not used.
    plug(&"0".repeat(64));
    let refused = world.sh("true").env("FIM_FETCH", "1");
    refused.fails_naming(&["the plug 'p' (content 'c') has no producer", "libs/l.flatimage", "digest"]);
    content(&world, &["unplug", "p"]).run().succeeds();
    plug(&digest);
    server.requests();
    // Nothing is fetched without consent, or to be listed.
    world.sh("true").fails_naming(&["has no producer", "nothing is connected", "nobody can be asked", "FIM_FETCH=1"]);
    let listed = content(&world, &["connections"]).prints();
    assert!(listed.contains("a start would ask to fetch it") && server.requests().is_empty(), "{listed}");
    assert_eq!(world.sh("cat /x/f").env("FIM_FETCH", "1").prints(), "fetched");
    assert_eq!(server.requests().len(), 1);
    // Once, and for good.
    assert_eq!(world.sh("cat /x/f").prints(), "fetched");
    assert!(server.requests().is_empty());
    assert!(content(&world, &["connections"]).prints().contains(".app.flatimage.data/fetched/"));
}
