//! Commands on a disk that has next to no room: what cannot be done is said in one line and changes nothing, and nothing is
//! left of it.

mod harness;

use harness::World;
use harness::layers::add_tree_program;

/// Two layers on those of the image, made by this operation, changes above them, and a layer file; in a small file system.
const SETUP: &str = r#"
    mkdir small; mount -t tmpfs -o size=200M none small; cp app.flatimage small/; cd small; A=./app.flatimage
    mkdir extra; mkdir extra/opt; cp ../tree/usr/share/noise extra/opt/; $A fim-layer create extra one.layer --level 0 >/dev/null
    rm -r extra
    for n in 1 2; do
        $A fim-root sh -c "cat /usr/share/noise > /srv/noise$n"
        $A fim-layer commit $WHERE --level 0 >/dev/null
    done
    $A fim-root sh -c 'cat /usr/share/noise > /srv/three; rm /srv/first'
    want=$($A fim-root tree tree | md5sum)
"#;

/// The command with less and more room: what came of it, whether the tree is the same, and what is left.
const ROUNDS: &str = r#"
    for room in 0 4096 8192 12288 20480 262144 700000 1500000; do
        code=0; said=0
        head -c 300M /dev/zero > fill 2>/dev/null; truncate -s -$room fill
        said=$({ $A $COMMAND >/dev/null || code=$?; echo $code >&3; } 3>../code 2>&1 | tee ../said | grep -c '^fim: ')
        code=$(cat ../code)
        rm fill
        same=other; [ "$($A fim-root tree tree | md5sum)" = "$want" ] && same=same
        echo "$room $code $said $same $(ls -A . .app.flatimage.data .app.flatimage.data/layers 2>/dev/null |
            grep -E 'part|\.new|draft|change|commit|fresh|ephemeral' | tr '\n' ' ')"
        [ $code = 0 ] && [ $same = other ] && break
    done
"#;

/// Runs a command with more and more room. `fails` where there is a room in which it cannot succeed.
fn with_little_room(place: &str, command: &str, fails: bool) {
    let world = World::with_tree(add_tree_program, &[]);
    let outcome = world.in_namespace(&format!("{SETUP}{ROUNDS}")).env("WHERE", place).env("COMMAND", command).run();
    let (mut rounds, mut failures) = (0, 0);
    for line in outcome.text().lines() {
        let [_, code, said, same, left @ ..] = &line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{outcome:?}")
        };
        rounds += 1;
        failures += u32::from(*code != "0");
        assert!(["0", "125"].contains(code), "{command}: {outcome:?}");
        assert!(*code == "0" || (*said == "1" && *same == "same"), "{command}: {outcome:?}");
        assert!(left.is_empty(), "{command}: {outcome:?}");
    }
    assert!(rounds > 0 && (failures > 0 || !fails), "{command}, {failures} failures: {outcome:?}");
}

#[test]
fn layers_are_merged_or_stay() {
    with_little_room("layer", "fim-layer squash layer --level 0", true);
    with_little_room("binary", "fim-layer squash binary --level 0", true);
}

#[test]
fn layers_are_added_and_removed_or_not() {
    with_little_room("binary", "fim-layer add one.layer", true);
    with_little_room("binary", "fim-layer remove 2", true);
    with_little_room("layer", "fim-layer extract 0 out", true);
}

#[test]
fn changes_are_committed_or_stay() {
    with_little_room("layer", "fim-layer commit layer --level 0", true);
    with_little_room("binary", "fim-layer commit binary --level 0", true);
    with_little_room("layer", "fim-layer commit file new.layer --level 0", true);
}

#[test]
fn changes_are_dropped_or_stay() {
    with_little_room("layer", "fim-layer reset --yes", false);
    with_little_room("layer", "fim-data clear --yes", false);
}

#[test]
fn settings_and_starts_need_next_to_nothing() {
    with_little_room("layer", "fim-env set A=1", false);
    with_little_room("layer", "fim-exec true", false);
    with_little_room("layer", "fim-exec --ephemeral true", false);
}
