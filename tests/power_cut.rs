//! Commands whose machine loses its power, between every two changes: each tree that this can leave is that from before or
//! that from after, and what was not committed is never lost.
//!
//! A command is traced once. `model` then says what a cut may leave of its changes: names up to some point, of what was
//! written and not synchronised all, nothing or the last piece. Each such tree is made in the place of the traced one,
//! and used.

mod harness;
#[path = "power_cut/model.rs"]
mod model;
#[path = "power_cut/trace.rs"]
mod trace;

use std::fs;
use std::path::PathBuf;

use harness::layers::{add_tree_program, assert_same, seen, without_counts};
use harness::{TestCommand, World, need};
use trace::Change;

/// A world whose image, with all that lies beside it, is put back for each state.
struct Machine {
    world: World,
    changes: Vec<Change>,
}

impl Machine {
    /// Traces a command in this world.
    fn trace(world: World, words: &[&str]) -> Self {
        world.wait_for_end();
        fs::create_dir(world.path("aside")).unwrap();
        keep(&world, "before");
        let log = world.path("aside/log");
        let traced = world.equip(TestCommand::new(need("strace")));
        let calls = format!("trace={}", trace::CALLS);
        let traced = traced.args(["-f", "-qq", "-y", "-xx", "-s", "1000000000", "-e", &calls, "-o"]).arg(&log);
        traced.arg(world.image()).args(words).run().succeeds();
        let changes = trace::read(&fs::read_to_string(&log).unwrap(), world.image().parent().unwrap());
        // What is in a lock means nothing to whoever comes after a cut.
        let directory = |name: &str| format!("{}/", world.path(name).display());
        let elsewhere = [directory("aside"), directory("runtime"), directory("home"), ".lock\"".to_owned()];
        let text = |change: &Change| format!("{change:?}");
        let locks: Vec<_> = changes.iter().filter(|change| text(change).contains(".lock\"")).collect();
        let locks: Vec<_> = locks.iter().filter_map(|change| change.opens()).collect();
        let ours = |change: &&Change| {
            let text = text(change);
            !elsewhere.iter().any(|path| text.contains(path.as_str()))
                && !change.content().is_some_and(|file| locks.contains(&file))
        };
        let changes = changes.iter().filter(ours).cloned().collect();
        Self { world, changes }
    }

    /// Has `check` look at each state, of which it says whether it is that from before.
    fn each(&self, check: impl Fn(&World, &str) -> bool) {
        let states = model::states(&self.changes);
        let mut befores = 0;
        for (number, state) in states.iter().enumerate() {
            self.restore(state);
            let what = self.describe(number, state);
            let is_before = check(&self.world, &what);
            self.world.wait_for_end();
            befores += usize::from(is_before);
            if number == 0 {
                assert!(is_before, "nothing was done");
            } else if number + 1 == states.len() {
                assert!(!is_before, "everything was done: {what}");
            }
        }
        let count = states.len();
        assert!(count >= 3 && befores < count, "{befores} of {count} states are those from before");
    }

    /// Makes the tree that a cut leaves.
    fn restore(&self, state: &model::State) {
        for name in ours(&self.world) {
            let removed = if name.is_dir() { fs::remove_dir_all(&name) } else { fs::remove_file(&name) };
            removed.unwrap_or_else(|error| panic!("{}: {error}", name.display()));
        }
        let cp = self.world.equip(TestCommand::new(need("cp")));
        cp.args(["-a", "before/.", "."]).run().succeeds();
        model::apply(&self.changes, state, &self.world.path("aside"));
        // A program that another test is just starting may have inherited the image, open for writing, and it could not
        // be executed.
        let image = self.world.path("aside/image");
        let cp = self.world.equip(TestCommand::new(need("cp"))).arg("-a");
        cp.args([self.world.image(), &image]).run().succeeds();
        fs::rename(image, self.world.image()).unwrap();
    }

    fn describe(&self, number: usize, state: &model::State) -> String {
        let short = |change: &Change| format!("{change:?}").chars().take(160).collect::<String>();
        let done = self.changes.iter().zip(state).map(|(change, done)| format!("{done:?} {}", short(change)));
        format!("state {number}:\n{}", done.collect::<Vec<_>>().join("\n"))
    }
}

/// Everything that lies in the world's directory but what is the test's own.
fn ours(world: &World) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().path());
    let own = ["aside", "before", "home", "runtime", "tree"];
    entries.filter(|path| !own.iter().any(|own| path.ends_with(own))).collect()
}

/// Copies all of it.
fn keep(world: &World, name: &str) {
    fs::create_dir(world.path(name)).unwrap();
    let cp = world.equip(TestCommand::new(need("cp"))).arg("-a");
    cp.args(ours(world)).arg(world.path(name)).run().succeeds();
}

/// A world with changes that were not committed.
fn changed() -> World {
    let world = World::with_tree(add_tree_program, &[]);
    change(&world, "one");
    world
}

fn change(world: &World, word: &str) {
    let script = format!(
        "echo {word} > /etc/changed; rm -rf /srv; mkdir /srv; echo {word} > /srv/only; rm -f /opt/app/share/first; \
         mkdir /opt/app/{word}; ln /etc/changed /opt/app/{word}/hard"
    );
    world.root_sh(&script).run().succeeds();
    world.wait_for_end();
}

/// How many layers there are, in the image and beside it.
fn layers(world: &World) -> usize {
    world.app(&["fim-layer", "list"]).run().succeeds().text().lines().count()
}

/// The tree in every state is the one from before; the number of layers tells which state it is.
fn shows_the_same_tree(world: World, words: &[&str]) {
    let before = without_counts(&seen(&world));
    let count = layers(&world);
    Machine::trace(world, words).each(|world, what| {
        let shown = world.root(&["tree", "tree"]).run().succeeds().text();
        assert_same(&before, &without_counts(&shown), what);
        for left in ["commit", "committed"] {
            assert!(!world.data().join(left).exists(), "{left} is left: {what}");
        }
        layers(world) == count
    });
}

#[test]
fn a_commit_to_the_image() {
    shows_the_same_tree(changed(), &["fim-layer", "commit", "binary", "--level", "0"]);
}

#[test]
fn a_commit_to_a_managed_layer() {
    shows_the_same_tree(changed(), &["fim-layer", "commit", "layer", "--level", "0"]);
}

#[test]
fn a_commit_to_a_file() {
    let world = changed();
    let before = without_counts(&seen(&world));
    let machine = Machine::trace(world, &["fim-layer", "commit", "file", "new.layer", "--level", "0"]);
    machine.each(|world, what| {
        let is_there = world.path("new.layer").exists();
        let layers = if is_there { "new.layer" } else { "" };
        let shown = world.root(&["tree", "tree"]).env("FIM_LAYERS", layers).run().succeeds().text();
        assert_same(&before, &without_counts(&shown), what);
        !is_there
    });
}

/// Two layers and changes above them, of which the layers are merged.
fn merged(stack: &str) {
    let world = changed();
    world.app(&["fim-layer", "commit", stack, "--level", "0"]).run().succeeds();
    change(&world, "two");
    world.app(&["fim-layer", "commit", stack, "--level", "0"]).run().succeeds();
    change(&world, "three");
    shows_the_same_tree(world, &["fim-layer", "squash", stack, "--level", "0"]);
}

#[test]
fn merging_the_layers_of_the_image() {
    merged("binary");
}

#[test]
fn merging_managed_layers() {
    merged("layer");
}

#[test]
fn adding_and_removing_a_layer() {
    let world = World::with_tree(add_tree_program, &[]);
    fs::create_dir_all(world.path("tree/layer/etc")).unwrap();
    fs::write(world.path("tree/layer/etc/added"), "added\n").unwrap();
    world.app(&["fim-layer", "create", "tree/layer", "added.layer", "--level", "0"]).run().succeeds();
    // Everything can be read, whichever slot counts.
    let whole = |world: &World, what: &str| {
        let read = world.root(&["tree", "tree"]).run();
        assert!(read.status.success(), "{read:?}\n{what}");
        read.text().contains("/etc/added")
    };
    let machine = Machine::trace(world, &["fim-layer", "add", "added.layer"]);
    machine.each(|world, what| !whole(world, what));
    let world = World::with_tree(add_tree_program, &[]);
    fs::create_dir_all(world.path("tree/layer/etc")).unwrap();
    fs::write(world.path("tree/layer/etc/added"), "added\n").unwrap();
    world.app(&["fim-layer", "create", "tree/layer", "added.layer", "--level", "0"]).run().succeeds();
    world.app(&["fim-layer", "add", "added.layer"]).run().succeeds();
    Machine::trace(world, &["fim-layer", "remove", "1"]).each(whole);
}

#[test]
fn a_setting() {
    let world = World::new();
    world.app(&["fim-env", "set", "WORD=old"]).run().succeeds();
    world.app(&["fim-env", "set", "WORD=before"]).run().succeeds();
    let machine = Machine::trace(world, &["fim-env", "set", "WORD=after"]);
    machine.each(|world, what| {
        let shown = world.app(&["fim-exec", "sh", "-c", "echo $WORD"]).run().succeeds().text();
        assert!(["before", "after"].contains(&shown.as_str()), "{shown}: {what}");
        shown == "before"
    });
}

#[test]
fn dropping_changes_and_data() {
    for words in [&["fim-layer", "reset", "--yes"][..], &["fim-data", "clear", "--yes"]] {
        let world = changed();
        // The directories that a start makes have its time.
        let timeless = |tree: &str| {
            let line =
                |line: &str| line.split(' ').filter(|word| !word.starts_with("time=")).collect::<Vec<_>>().join(" ");
            without_counts(tree).lines().map(line).collect::<Vec<_>>().join("\n")
        };
        let before = timeless(&seen(&world));
        let elsewhere = world.root(&["tree", "tree"]).env("FIM_DIR_DATA", world.path("home/none"));
        let after = timeless(&elsewhere.prints());
        Machine::trace(world, words).each(|world, what| {
            let shown = timeless(&world.root(&["tree", "tree"]).run().succeeds().text());
            if shown != before {
                assert_same(&after, &shown, what);
            }
            shown == before
        });
    }
}

#[test]
fn moving_data_along_with_its_image() {
    let world = changed();
    let before = without_counts(&seen(&world));
    world.wait_for_end();
    fs::rename(world.path(".app.flatimage.data"), world.path(".former.data")).unwrap();
    let record = runtime::installation::belongs_to::BelongsTo::read(&world.path(".former.data")).unwrap();
    let former = runtime::installation::belongs_to::BelongsTo { image: world.path("former"), ..record };
    former.write(&world.path(".former.data")).unwrap();
    let machine = Machine::trace(world, &["fim-exec", "true"]);
    machine.each(|world, what| {
        let is_before = world.path(".former.data").exists();
        let shown = world.root(&["tree", "tree"]).run().succeeds().text();
        assert_same(&before, &without_counts(&shown), what);
        is_before
    });
}
