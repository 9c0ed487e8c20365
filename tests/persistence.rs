//! The writable root: what is written, changed and deleted stays so between runs and is seen by every instance.

mod harness;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use harness::{World, is_root, need};

#[test]
fn what_is_written_stays() {
    let world = World::new();
    world.sh("echo kept > /etc/kept; mkdir -p /opt/a/b; ln -s kept /etc/link; mkfifo /opt/pipe").run().succeeds();
    assert_eq!(world.sh("cat /etc/link; ls -d /opt/a/b; ls -F /opt").prints(), "kept\n/opt/a/b\na/\npipe|");
    assert_eq!(fs::read_to_string(world.upper("etc/kept")).unwrap(), "kept\n");
}

#[test]
fn files_of_the_image_can_be_edited_and_keep_what_is_not() {
    let world = World::new();
    world.sh("echo more >> /etc/release; chmod 600 /usr/share/dir/one").run().succeeds();
    assert_eq!(
        world.sh("cat /etc/release; stat -c %a /usr/share/dir/one; cat /usr/share/dir/one").prints(),
        "small\nmore\n600\none"
    );
}

#[test]
fn deletions_stay() {
    let world = World::new();
    world.sh("rm /usr/share/dir/one; rm -r /usr/share/dir/deep").run().succeeds();
    assert_eq!(world.sh("ls /usr/share/dir").prints(), "two");
    world.exec(&["cat", "/usr/share/dir/one"]).run().exits(1);
    // And can be undone by hand.
    world.sh("echo new > /usr/share/dir/one").run().succeeds();
    assert_eq!(world.sh("cat /usr/share/dir/*").prints(), "new\ntwo");
}

#[test]
fn a_directory_made_anew_is_empty() {
    let world = World::new();
    world.sh("rm -r /usr/share/dir; mkdir /usr/share/dir; echo x > /usr/share/dir/only").run().succeeds();
    assert_eq!(world.sh("ls -A /usr/share/dir").prints(), "only");
}

#[test]
fn directories_of_the_image_can_be_renamed() {
    let world = World::new();
    world.sh("mv /usr/share/dir /usr/share/moved").run().succeeds();
    assert_eq!(
        world.sh("ls /usr/share/moved /usr/share/moved/deep; ls -d /usr/share/dir 2>&1 | wc -l").prints(),
        "/usr/share/moved:\ndeep\none\ntwo\n\n/usr/share/moved/deep:\nthree\n1"
    );
}

#[test]
fn fim_dir_data_names_another_place() {
    let world = World::new();
    let place = world.path("elsewhere/deep");
    world.sh("echo there > /etc/kept").env("FIM_DIR_DATA", &place).run().succeeds().quietly();
    assert_eq!(fs::read_to_string(place.join("root/etc/kept")).unwrap(), "there\n");
    assert!(!world.data().exists());
    // Relative to the caller's directory.
    assert_eq!(world.sh("cat /etc/kept").env("FIM_DIR_DATA", "elsewhere/deep").prints(), "there");
    world.exec(&["cat", "/etc/kept"]).run().exits(1);
}

#[test]
fn a_second_start_joins_and_sees_writes_at_once() {
    let world = World::new();
    let mut first = world.sh("echo ready; while read line; do echo \"$line\" > /etc/line; echo written; done").spawn();
    first.expect("ready");
    for round in ["one", "two", "three"] {
        first.say(&format!("{round}\n"));
        first.expect("written");
        assert_eq!(world.root(&["cat", "/etc/line"]).prints(), round);
    }
    world.sh("echo from the second > /etc/other").run().succeeds();
    // There is one mount server and one host daemon, those of the first start.
    let mut second = world.sh("echo ready; cat").spawn();
    second.expect("ready");
    assert!(!second.tree().0.iter().any(|member| member.name == "fim-mount" || member.name == "fim-host"));
    let tree = first.tree();
    tree.named("fim-mount");
    tree.named("fim-host");
    // The first ends, and the session goes on.
    first.wait().succeeds();
    second.say("still\n");
    second.expect("still");
    assert_eq!(world.exec(&["cat", "/etc/other"]).prints(), "from the second");
    second.wait().succeeds();
    tree.wait_gone();
    world.assert_nothing_left();
}

#[test]
fn the_user_can_delete_the_data() {
    let world = World::new();
    world
        .root_sh("rm -r /usr/share/dir; mkdir -m 700 /root/x; echo y > /root/x/y; echo z >> /etc/release")
        .run()
        .succeeds();
    world.assert_nothing_left();
    world.host_sh("rm -r -- .app.flatimage.data").run().succeeds().quietly();
    assert_eq!(world.sh("cat /etc/release; ls /usr/share/dir | wc -l").prints(), "small\n3");
}

#[test]
fn data_of_fim_root_belongs_to_the_caller() {
    let world = World::new();
    world.root_sh("echo x > /etc/made; [ $(stat -c %u:%g /etc/made) = 0:0 ]").run().succeeds();
    assert_eq!(fs::metadata(world.upper("etc/made")).unwrap().uid(), harness::uid());
}

#[test]
fn a_place_that_cannot_be_written_is_replaced_by_the_home() {
    let world = World::new();
    need("unshare");
    // A directory that even root cannot write: a read-only mount of it.
    let flag = if is_root() { "-m" } else { "-Urm" };
    let script = format!(
        "unshare {flag} sh -c 'mount --bind . . && mount -o remount,bind,ro . && mount --bind home home && \
         mount -o remount,bind,rw home && mount --bind runtime runtime && mount -o remount,bind,rw runtime && \
         cd \"$PWD\" && \"$0\" fim-exec sh -c \"echo kept > /etc/kept; cat /etc/kept\"' \"$IMAGE\""
    );
    let outcome = world.host_sh(&script).run().succeeds().with_stdout("kept\n");
    let outcome = outcome.complains_of(&["note: data of this image is kept in", "home/.local/share/fim/"]);
    assert_eq!(outcome.stderr().lines().count(), 1);
    // Not lost when the place becomes writable.
    assert_eq!(world.exec(&["cat", "/etc/kept"]).prints(), "kept");
    assert!(!world.data().exists());
}

#[test]
fn odd_modes_and_owners_in_the_image_do_not_hinder_root_inside() {
    let world = World::with_tree(
        |tree| {
            for (name, mode) in [("none", 0), ("read", 0o444), ("write", 0o222), ("all", 0o7777)] {
                let path = tree.join("etc").join(name);
                fs::write(&path, name).unwrap();
                // The owner could not pack what it cannot read.
                let mode = if is_root() { mode } else { mode | 0o400 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                if is_root() {
                    std::os::unix::fs::chown(&path, Some(4711), Some(4712)).unwrap();
                }
            }
        },
        &[],
    );
    let script = "cd /etc; for f in none read write all; do echo x >> $f && chmod 640 $f && mv $f $f.new && rm $f.new \
                  || echo $f failed; done; ls";
    let left = world.root_sh(script).prints();
    assert!(!left.contains("failed") && !left.contains("none"), "{left}");
}
