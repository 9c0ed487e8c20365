//! Who the guest's user is: from what is stored, the caller's environment, or the host's passwd.

mod harness;

use std::fs;

use harness::{Terminal, World, gid, is_root, uid};

const WHO: &str = "echo \"$(id -u):$(id -g):$(whoami):$USER:$HOME:$SHELL\"";

fn store(world: &World, variables: &[&str]) {
    world.app(&["fim-env", "set"]).args(variables).run().succeeds().quietly();
}

#[test]
fn what_is_stored_goes_first() {
    let world = World::new();
    store(&world, &["USER=app", "HOME=/home/my app", "SHELL=/bin/ash", "UID=1234", "GID=77"]);
    let who = || world.sh(WHO).env("USER", "ann").env("SHELL", "/bin/zsh");
    assert_eq!(who().prints(), "1234:77:app:app:/home/my app:/bin/ash");
    assert_eq!(world.sh("cd && pwd && echo x > made && stat -c %u made").prints(), "/home/my app\n1234");
    assert_eq!(world.sh("tail -n 1 /etc/passwd").prints(), "app:x:1234:77:app:/home/my app:/bin/ash");
    // A stored variable may refer to the caller's.
    store(&world, &["HOME=$BASE/app", "UID=55 and more"]);
    assert_eq!(world.sh("echo $HOME $(id -u)").env("BASE", "/srv").prints(), "/srv/app 55");
    // What is no number or cannot be in a passwd file does not count.
    store(&world, &["UID=none", "GID=-1", "USER=a:b", "HOME=relative"]);
    let home = if is_root() { "/root" } else { "/home/ann" };
    let name = if is_root() { "root" } else { "ann" };
    let prefix = format!("{}:{}:", uid(), gid());
    let who = world.sh(WHO).env("USER", "ann").prints();
    assert!(who.starts_with(&prefix) && who.contains(":/bin/sh"), "{who}");
    assert!(!who.contains("a:b") && !who.contains("relative"), "{who} instead of {name} in {home}");
}

#[test]
fn root_can_be_stored_or_asked_for_by_a_variable() {
    let world = World::new();
    let expected = "0:0:root:root:/root:/bin/sh";
    assert_eq!(world.sh(WHO).env("FIM_ROOT", "1").prints(), expected);
    for word in ["0", "", "yes"] {
        assert!(world.sh(WHO).env("FIM_ROOT", word).prints().starts_with(&format!("{}:", uid())), "{word}");
    }
    store(&world, &["UID=0", "USER=app", "HOME=/x"]);
    assert_eq!(world.sh(WHO).prints(), expected);
    // As with fim-root, it may change what belongs to the image, and nothing else.
    assert_eq!(world.sh("chmod 700 /etc/release; stat -c %a /etc/release").prints(), "700");
}

#[test]
fn a_caller_that_the_host_does_not_know() {
    let world = World::new();
    let (name, home) = if is_root() {
        ("root".to_owned(), "/root".to_owned())
    } else {
        (format!("user{}", uid()), format!("/home/user{}", uid()))
    };
    let who = world.sh(WHO).env_remove("HOME").prints();
    assert_eq!(who, format!("{}:{}:{name}:{name}:{home}:/bin/sh", uid(), gid()));
    if !is_root() {
        let who = world.sh(WHO).env("USER", "Ann Lee").env("HOME", "/no/such home").prints();
        assert_eq!(who, format!("{}:{}:Ann Lee:Ann Lee:/no/such home:/bin/sh", uid(), gid()));
        assert_eq!(world.exec(&["sh", "-c", "cd && pwd"]).env("HOME", "/no/such home").prints(), "/no/such home");
    }
}

#[test]
fn a_guest_with_one_program_and_nothing_else() {
    let world = World::with_tree(
        |tree| {
            fs::copy(tree.join("bin/probe"), tree.join("only")).unwrap();
            for name in ["bin", "etc", "usr", "sbin"] {
                fs::remove_dir_all(tree.join(name)).unwrap();
            }
        },
        &["--boot", "/only count"],
    );
    assert_eq!(world.app(&["a"]).prints(), "1 1");
    assert_eq!(world.exec(&["/only", "count", "a", "b"]).prints(), "2 2");
    assert_eq!(world.root(&["/only", "count", "a"]).prints(), "1 1");
    world.app(&["fim-boot", "clear"]).run().succeeds();
    world.app(&[]).run().exits(127).complains_of(&["the image has no shell"]);
    store(&world, &["PS1=x> ", "UID=5"]);
    assert_eq!(world.exec(&["/only", "count"]).prints(), "0 0");
}

#[test]
fn the_prompt_is_the_images_and_no_script() {
    let world = World::new();
    // Nobody types: nothing is prepared.
    let env = world.exec(&["env"]).prints();
    assert!(!env.contains("BASHRC_FILE") && !env.contains("PS1"), "{env}");
    assert_eq!(world.app(&["-c", "cat $BASHRC_FILE"]).prints(), "export PS1='[flatimage-small] \\W > '");
    store(&world, &["PS1=it's mine> "]);
    assert_eq!(
        world.sh("cat $BASHRC_FILE; . $BASHRC_FILE; echo \"$PS1\"").prints(),
        "export PS1='it'\\''s mine> '\nit's mine> "
    );
    let mut terminal = Terminal::open(&world);
    terminal.enter("$IMAGE; echo code=$?");
    terminal.expect("it's mine> ");
    terminal.enter("exit 3");
    terminal.expect("code=3");
}

#[test]
fn a_command_in_an_instance_has_its_identity() {
    let world = World::new();
    store(&world, &["USER=app", "UID=1234", "GID=5", "HOME=/home/app"]);
    let mut running = world.sh("echo ready; cat").spawn();
    running.expect("ready");
    let who = world.app(&["fim-instance", "exec", "0", "sh", "-c", WHO]).env("USER", "ann").prints();
    assert_eq!(who, "1234:5:app:app:/home/app:/bin/sh");
    // Which the image may not tell any more.
    world.app(&["fim-env", "clear"]).run().succeeds();
    assert_eq!(world.app(&["fim-instance", "exec", "0", "sh", "-c", WHO]).env("USER", "ann").prints(), who);
    running.wait().succeeds();
}
