//! Fetching images that another one needs, from servers of every kind.

mod harness;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use harness::http::{Answer, Server};
use harness::{DEADLINE, FIM, Terminal, TestCommand, World, need, world};
use nix::sys::signal::Signal;

/// A world whose image has a remote URL, with the bytes of a provider that its publisher has signed, too.
struct Remote {
    world: World,
    provider: Arc<Vec<u8>>,
    server: Server,
}

impl Remote {
    fn new() -> Self {
        let world = World::new();
        need("curl");
        need("wget");
        world::copy(world.image(), &world.path("provider"));
        let fim = |args: &[&str]| world.equip(TestCommand::new(FIM)).args(args).run().succeeds();
        fim(&["key-pair", "key"]);
        fim(&["sign", "provider", "--key", "key"]);
        fim(&["sign", "app.flatimage", "--key", "key"]);
        let provider = Arc::new(fs::read(world.path("provider")).unwrap());
        let server = Server::start(Answer::Content(Arc::clone(&provider)));
        world.app(&["fim-remote", "set", &format!("{}/a/", server.url())]).run().succeeds();
        Self { world, provider, server }
    }

    fn fetch(&self, args: &[&str]) -> TestCommand {
        self.world.app(&["fim-remote", "fetch", "libs/my lib.flatimage"]).args(args)
    }

    fn digest(&self) -> String {
        blake3::hash(&self.provider).to_hex().to_string()
    }

    /// What is kept, complete or not.
    fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.world.path(".app.flatimage.data/fetched")).into_iter().flatten();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| !path.ends_with("lock")).collect()
    }

    fn assert_complete(&self, printed: &str) {
        assert_eq!(self.kept(), [Path::new(printed)]);
        assert!(fs::read(printed).unwrap() == **self.provider, "the content differs");
    }
}

/// The path that is asked for.
const PATH: &str = "/a/libs/my%20lib.flatimage";

fn asked(range: Option<&str>) -> (String, Option<String>) {
    (PATH.to_owned(), range.map(str::to_owned))
}

#[test]
fn what_is_fetched_is_checked_and_kept() {
    let remote = Remote::new();
    // Signed by the publisher of the image that needs it.
    let path = remote.fetch(&["--yes"]).prints();
    assert!(path.ends_with("-my_lib.flatimage"), "{path}");
    remote.assert_complete(&path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(remote.server.requests(), [asked(None)]);
    // Once, and nobody is asked about what is there.
    assert_eq!(remote.fetch(&[]).prints(), path);
    assert_eq!(remote.server.requests(), []);
    // By its digest, whoever has signed it or not.
    let by_digest = remote.fetch(&["--digest", &remote.digest()]).env("FIM_FETCH", "1").prints();
    assert_ne!(by_digest, path);
    assert_eq!(remote.server.requests(), [asked(None)]);
    remote.world.app(&["fim-data", "clear", "--yes"]).run().succeeds();
    assert!(remote.kept().is_empty());
}

#[test]
fn nothing_is_fetched_without_consent() {
    let remote = Remote::new();
    let url = format!("{}{PATH}", remote.server.url());
    let words = [url.as_str(), "nobody can be asked", "fim-remote fetch PATH --yes", "FIM_FETCH=1"];
    remote.fetch(&[]).fails_naming(&words);
    remote.fetch(&[]).env("FIM_FETCH", "0").fails_naming(&words);
    let mut terminal = Terminal::open(&remote.world);
    let line = "$IMAGE fim-remote fetch 'libs/my lib.flatimage' | cat; echo code ${PIPESTATUS[0]}";
    terminal.enter(line);
    terminal.expect(&format!("Fetch {url} and keep it in"));
    terminal.press("n\r");
    terminal.expect("was not fetched");
    terminal.expect("code 125");
    assert_eq!(remote.server.requests(), []);
    terminal.enter(line);
    terminal.expect("[y/N] ");
    terminal.press("y\r");
    terminal.expect("-my_lib.flatimage");
    terminal.expect("code 0");
    assert_eq!(remote.server.requests(), [asked(None)]);
}

#[test]
fn what_is_not_what_is_wanted_is_not_kept() {
    let remote = Remote::new();
    let wrong = "0".repeat(64);
    let digest = remote.digest();
    remote.fetch(&["--yes", "--digest", &wrong]).fails_naming(&[&digest, &wrong, "nothing was kept", PATH]);
    let builder = Arc::new(fs::read(FIM).unwrap());
    let truncated = Arc::new(remote.provider[..remote.provider.len() / 2].to_vec());
    for (content, why) in [
        (Arc::new(b"<html>not found</html>".to_vec()), "not an ELF program"),
        (Arc::new(Vec::from([0; 100])), "not an ELF program"),
        (builder, "a program without an image"),
        (truncated, "it is truncated"),
    ] {
        remote.server.answer(Answer::Whole(content));
        remote.fetch(&["--yes"]).run().exits(125).complains_of(&[
            "cannot use what was fetched",
            why,
            "nothing was kept",
        ]);
        assert!(remote.kept().is_empty(), "{why}");
    }
    // One that somebody else has signed, or that was changed afterwards.
    let ours = fs::read_to_string(remote.world.path("key.pub")).unwrap();
    let ours = ours.trim().rsplit(' ').next().unwrap();
    let fim = |args: &[&str]| remote.world.equip(TestCommand::new(FIM)).args(args).run().succeeds().text();
    let theirs = fim(&["key-pair", "other"]);
    fim(&["sign", "provider", "--key", "other"]);
    remote.server.answer(Answer::Content(Arc::new(fs::read(remote.world.path("provider")).unwrap())));
    remote.fetch(&["--yes"]).fails_naming(&[&format!("its publisher is {theirs}, and {ours} is wanted")]);
    let mut changed = remote.provider.to_vec();
    changed[5000] ^= 1;
    remote.server.answer(Answer::Content(Arc::new(changed)));
    remote.fetch(&["--yes"]).fails_naming(&["its publisher is none; the image was changed", ours]);
    assert!(remote.kept().is_empty());
    // Of an image that nobody has signed, only what has a digest can be checked; that is known before.
    remote.server.requests();
    remote.server.answer(Answer::Content(Arc::clone(&remote.provider)));
    remote.world.sh("echo > /note").run().succeeds();
    remote.world.app(&["fim-layer", "commit", "binary"]).run().succeeds();
    remote.fetch(&["--yes"]).fails_naming(&["nothing could tell", "--digest", "sign this image"]);
    assert_eq!(remote.server.requests(), []);
    remote.assert_complete(&remote.fetch(&["--yes", "--digest", &remote.digest()]).prints());
}

#[test]
fn a_transfer_that_is_cut_off_goes_on_where_it_was() {
    let remote = Remote::new();
    let content = || Arc::clone(&remote.provider);
    remote.server.answer(Answer::Cut(content(), 1_000_000));
    remote.fetch(&["--yes"]).fails_naming(&["cannot fetch", PATH, "1000000 bytes are kept", "the next try goes on"]);
    remote.fetch(&["--yes"]).fails_naming(&["2000000 bytes are kept"]);
    remote.server.answer(Answer::Content(content()));
    let path = remote.fetch(&["--yes"]).prints();
    remote.assert_complete(&path);
    let ranges = [asked(None), asked(Some("bytes=1000000-")), asked(Some("bytes=2000000-"))];
    assert_eq!(remote.server.requests(), ranges);
    // A server that does not go on begins anew.
    let again = || {
        fs::remove_file(&path).unwrap();
        remote.server.answer(Answer::Cut(content(), 1_000_000));
        remote.fetch(&["--yes"]).fails_naming(&["1000000 bytes are kept"]);
    };
    again();
    remote.server.answer(Answer::Whole(content()));
    remote.assert_complete(&remote.fetch(&["--yes"]).prints());
    // What was there before may be of another file: it is seen, and all is fetched.
    again();
    let part = remote.kept().remove(0);
    fs::write(&part, vec![7; 1_000_000]).unwrap();
    remote.server.answer(Answer::Content(content()));
    remote.server.requests();
    remote.assert_complete(&remote.fetch(&["--yes"]).prints());
    assert_eq!(remote.server.requests(), [asked(Some("bytes=1000000-")), asked(None)]);
    // It was longer, even.
    again();
    fs::write(&part, vec![7; remote.provider.len() + 1]).unwrap();
    remote.server.answer(Answer::Content(content()));
    remote.assert_complete(&remote.fetch(&["--yes"]).prints());
}

#[test]
fn wget_will_do_and_neither_is_an_error() {
    let remote = Remote::new();
    let (only_wget, nothing) = (remote.world.path("only-wget"), remote.world.path("nothing"));
    for directory in [&only_wget, &nothing] {
        fs::create_dir(directory).unwrap();
    }
    symlink(need("wget"), only_wget.join("wget")).unwrap();
    remote.fetch(&["--yes"]).env("PATH", &nothing).fails_naming(&[
        "neither curl nor wget",
        "sudo apt install curl",
        PATH,
    ]);
    let wget = || remote.fetch(&["--yes"]).env("PATH", &only_wget);
    remote.server.answer(Answer::Cut(Arc::clone(&remote.provider), 1_000_000));
    wget().fails_naming(&["1000000 bytes are kept"]);
    remote.server.answer(Answer::head("404 Not Found"));
    wget().fails_naming(&["404: Not Found"]);
    remote.server.requests();
    remote.server.answer(Answer::Content(Arc::clone(&remote.provider)));
    remote.assert_complete(&wget().prints());
    assert_eq!(remote.server.requests(), [asked(None)]);
}

#[test]
fn odd_servers_are_told_of() {
    let remote = Remote::new();
    for (lines, why) in [
        ("404 Not Found", "the server answers: 404 Not Found"),
        ("500 \x1b[2J", "the server answers: 500 [2J"),
        ("204 No Content", "the server answers: 204 No Content"),
    ] {
        remote.server.answer(Answer::head(lines));
        remote.fetch(&["--yes"]).fails_naming(&["cannot fetch", PATH, why]);
    }
    remote.server.answer(Answer::head(&format!("302 Found\r\nLocation: {}/x", remote.server.url())));
    remote.server.requests();
    remote.fetch(&["--yes"]).fails_naming(&["redirects"]);
    assert_eq!(remote.server.requests().len(), 6);
    let secret = remote.world.path("key");
    remote.server.answer(Answer::head(&format!("302 Found\r\nLocation: file://{}", secret.display())));
    remote.fetch(&["--yes"]).fails_naming(&["file"]);
    for (raw, why) in [
        (&b""[..], "Empty reply"),
        (b"\0\xff\xfe junk\r\n\r\n", "HTTP/0.9"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n", "it has 99999999999999 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "3 bytes are kept"),
    ] {
        remote.server.answer(Answer::Raw(raw.to_vec()));
        remote.fetch(&["--yes"]).fails_naming(&["cannot fetch", why]);
    }
    // Elsewhere is good enough, when it is there.
    let elsewhere = Server::start(Answer::Content(Arc::clone(&remote.provider)));
    remote
        .server
        .answer(Answer::head(&format!("301 Moved\r\nLocation: {}/b c", elsewhere.url()).replace("b c", "b%20c")));
    for part in remote.kept() {
        fs::remove_file(part).unwrap();
    }
    remote.assert_complete(&remote.fetch(&["--yes"]).prints());
    assert_eq!(elsewhere.requests(), [("/b%20c".to_owned(), None)]);
    // Nobody listens.
    let gone = elsewhere.url();
    drop(elsewhere);
    remote.world.app(&["fim-remote", "set", &gone]).run().succeeds();
    remote.fetch(&["--yes"]).fails_naming(&["cannot fetch", &gone, "Failed to connect"]);
}

#[test]
fn urls_and_paths_that_cannot_be_are_errors() {
    let remote = Remote::new();
    let set = |url: &str| drop(remote.world.app(&["fim-remote", "set", url]).run().succeeds());
    for url in ["ftp://example.org", "example.org", "--output=/etc/passwd", "file:///etc/passwd#"] {
        set(url);
        remote.fetch(&["--yes"]).run().exits(125);
    }
    set("ftp://example.org");
    remote.fetch(&["--yes"]).fails_naming(&["ftp://example.org", "it must begin with https://"]);
    remote.world.app(&["fim-remote", "clear"]).run().succeeds();
    remote.fetch(&["--yes"]).fails_naming(&["libs/my lib.flatimage", "no remote URL", "fim-remote set URL"]);
    set(&remote.server.url());
    remote.world.app(&["fim-remote", "fetch", "../../key", "--yes"]).fails_naming(&["'../../key'", "'..' is in it"]);
    remote.world.app(&["fim-remote", "fetch"]).fails_naming(&["Missing path for 'fetch' operation"]);
    remote.fetch(&["--digest", "xy"]).fails_naming(&["Invalid digest 'xy'", "b3sum"]);
    assert_eq!(remote.server.requests(), []);
    // A directory of this host is a place, too.
    fs::create_dir_all(remote.world.path("srv dir/libs")).unwrap();
    let directory = remote.world.path("srv%20dir");
    set(&format!("file://{}", directory.display()));
    remote.fetch(&["--yes"]).fails_naming(&["cannot fetch", "No such file"]);
    fs::create_dir(remote.world.path("srv dir/libs/my lib.flatimage")).unwrap();
    remote.fetch(&["--yes"]).fails_naming(&["it is no regular file"]);
    fs::remove_dir(remote.world.path("srv dir/libs/my lib.flatimage")).unwrap();
    fs::write(remote.world.path("srv dir/libs/my lib.flatimage"), &**remote.provider).unwrap();
    remote.assert_complete(&remote.fetch(&["--yes"]).prints());
}

#[test]
fn a_full_disk_is_named_and_nothing_is_left() {
    let remote = Remote::new();
    let script = "mkdir small && mount -t tmpfs -o size=2m tmpfs small &&
        FIM_DIR_DATA=small/data \"$IMAGE\" fim-remote fetch libs/x --yes; echo code $?; ls small/data/fetched";
    let full = |answer: Answer| {
        remote.server.answer(answer);
        let outcome = remote.world.in_namespace(script).run().succeeds();
        assert_eq!(outcome.text(), "code 125\nlock", "{outcome:?}");
        fs::remove_dir(remote.world.path("small")).unwrap();
        outcome.complains_of(&["free some space", "FIM_DIR_DATA", "nothing was kept"])
    };
    full(Answer::Content(Arc::clone(&remote.provider))).complains_of(&["bytes are needed, and"]);
    // A server that does not say how much comes.
    let endless = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec(), vec![7; 8_000_000]].concat();
    full(Answer::Raw(endless)).complains_of(&["No space left"]);
}

#[test]
fn an_interrupted_fetch_ends_at_once_and_goes_on_later() {
    let remote = Remote::new();
    remote.server.answer(Answer::Stall(Arc::clone(&remote.provider), 1_000_000));
    let running = remote.fetch(&["--yes"]).spawn();
    // When the transfer has begun, its file is there; it is written to before anything more is waited for.
    let end = Instant::now() + DEADLINE;
    while remote.kept().first().is_none_or(|part| fs::metadata(part).unwrap().len() < 1_000_000) {
        assert!(Instant::now() < end, "{:?}", remote.kept());
        std::thread::yield_now();
    }
    let tree = running.tree();
    running.signal(Signal::SIGINT);
    running.wait().dies_of(Signal::SIGINT);
    tree.wait_gone();
    remote.server.answer(Answer::Content(Arc::clone(&remote.provider)));
    remote.server.requests();
    remote.assert_complete(&remote.fetch(&["--yes"]).prints());
    assert_eq!(remote.server.requests(), [asked(Some("bytes=1000000-"))]);
}

#[test]
fn fetches_at_once_are_one() {
    let remote = Remote::new();
    let running: Vec<_> = (0..4).map(|_| remote.fetch(&["--yes"]).spawn()).collect();
    let printed: Vec<String> = running.into_iter().map(|running| running.wait().succeeds().text()).collect();
    assert!(printed.iter().all(|path| *path == printed[0]), "{printed:?}");
    remote.assert_complete(&printed[0]);
    assert_eq!(remote.server.requests().len(), 1);
}

#[test]
fn a_start_fetches_the_default_provider_of_a_plug() {
    let world = World::new();
    let tree = world.path("tree");
    fs::create_dir_all(tree.join("lib")).unwrap();
    fs::write(tree.join("lib/zero"), "library\n").unwrap();
    let provider = world.path("provider");
    world::build(&tree, &provider, &["--boot", "none"]).succeeds().quietly();
    let slot = ["fim-content", "slot", "libs", "--read", "$FIM_ROOT_DIR/lib"];
    world.equip(TestCommand::new(&provider)).args(slot).run().succeeds();
    let bytes = Arc::new(fs::read(&provider).unwrap());
    fs::remove_file(&provider).unwrap();
    let server = Server::start(Answer::Content(Arc::clone(&bytes)));
    let plug = |options: &[&str]| {
        let words =
            ["fim-content", "plug", "libs", "--target", "$FIM_ROOT_DIR/libs", "--default-provider", "x/libs.flatimage"];
        world.app(&words).args(options).run().succeeds();
    };
    plug(&["--digest", blake3::hash(&bytes).to_hex().as_str()]);
    let look = || world.sh("cat /libs/zero");
    look().fails_naming(&["the plug 'libs'", "does not exist", "no remote URL", "fim-remote set URL"]);
    world.app(&["fim-remote", "set", &server.url()]).run().succeeds();
    look().fails_naming(&["the plug 'libs'", "nobody can be asked", "FIM_FETCH=1"]);
    assert_eq!(server.requests(), []);
    // Ahead of a start, with the plug's digest; then no server is needed.
    world.app(&["fim-remote", "fetch", "x/libs.flatimage", "--yes"]).run().succeeds();
    assert_eq!(server.requests(), [("/x/libs.flatimage".to_owned(), None)]);
    assert_eq!(look().prints(), "library");
    world.wait_for_end();
    world.app(&["fim-data", "clear", "--yes"]).run().succeeds();
    assert_eq!(look().env("FIM_FETCH", "1").prints(), "library");
    assert_eq!(server.requests().len(), 1);
    drop(server);
    assert_eq!(look().prints(), "library");
    // One that is optional is done without, and said.
    world.wait_for_end();
    world.app(&["fim-data", "clear", "--yes"]).run().succeeds();
    world.app(&["fim-content", "unplug", "libs"]).run().succeeds();
    plug(&["--digest", &"0".repeat(64), "--optional"]);
    world.sh("echo runs").run().succeeds().with_stdout("runs\n").complains_of(&["'libs'", "was not fetched"]);
}
