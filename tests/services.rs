//! Services: commands of an image that run in detached instances, by name and per key.

mod harness;

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Instant;

use harness::process::wait_readable;
use harness::{DEADLINE, TestCommand, Tree, World, world};
use nix::unistd::Pid;
use runtime::sys::process::pidfd_open;
use serde_json::{Value, json};

/// An image of this name with the program `serve` (serve.c), and a link for the key `foo`.
struct Site {
    world: World,
    name: &'static str,
}

impl Site {
    fn new(name: &'static str) -> Self {
        let world = World::with_tree(|tree| world::program(tree, "serve"), &[]);
        let site = Self { world, name };
        std::fs::rename(site.world.image(), site.path("")).unwrap();
        symlink(format!("{name}.flatimage"), site.path("_foo")).unwrap();
        site
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.world.path(format!("{}{suffix}.flatimage", self.name))
    }

    /// A command of the default installation.
    fn app(&self, line: &str) -> TestCommand {
        self.world.equip(TestCommand::new(self.path(""))).args(line.split_whitespace())
    }

    /// A command of the key.
    fn foo(&self, line: &str) -> TestCommand {
        self.world.equip(TestCommand::new(self.path("_foo"))).args(line.split_whitespace())
    }

    #[track_caller]
    fn add(&self, name: &str, script: &str) {
        self.app("fim-service add").args([name, "sh", "-c", script]).run().succeeds().quietly();
    }
}

/// A port of the host that nobody has.
fn free_port() -> u16 {
    static LAST: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    loop {
        let step = LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = 11_000 + (std::process::id() as u16).wrapping_mul(89) % 8_000 + step;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// What the server at a port of the host says.
#[track_caller]
fn said(port: u16) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.trim_end().to_owned()
}

fn is_free(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()
}

/// Waits until the log of the services holds `text`.
#[track_caller]
fn expect_log(logs: TestCommand, text: &str) {
    logs.args(["-f", "-n", "all"]).spawn().expect(text);
}

/// The services of a listing in JSON.
#[track_caller]
fn list(command: TestCommand) -> Vec<Value> {
    serde_json::from_str(&command.args(["list", "--json"]).prints()).unwrap()
}

/// Waits until a service of the listing has ended.
#[track_caller]
fn wait_inactive(command: impl Fn() -> TestCommand, service: &str) -> Value {
    let begin = Instant::now();
    loop {
        let found = list(command()).into_iter().find(|entry| entry["service"] == service).unwrap();
        match found["pid"].as_i64() {
            None => return found,
            Some(pid) => {
                if let Ok(ended) = pidfd_open(Pid::from_raw(pid as i32)) {
                    wait_readable(&ended, "the end of a service");
                }
            }
        }
        assert!(begin.elapsed() < DEADLINE, "{service} does not end");
    }
}

#[test]
fn two_keys_on_one_port_of_the_host_as_snap_tells_it() {
    let site = Site::new("xkcd-webserver");
    let port = free_port();
    site.app("fim-perms add network").run().succeeds();
    site.app(&format!("fim-service add xkcd-webserver serve who {port}")).run().succeeds().quietly();
    assert_eq!(site.app("fim-service start").prints(), "Started.");
    expect_log(site.app("fim-service logs"), "]: ready");
    assert_eq!(said(port), "xkcd-webserver");
    site.foo("fim-service start xkcd-webserver").run().succeeds().with_stdout("Started.\n").quietly();
    let ended = wait_inactive(|| site.foo("fim-service"), "xkcd-webserver_foo.xkcd-webserver");
    assert_eq!(ended["exit_code"], 1);
    assert_eq!(
        site.app("fim-service list").prints(),
        "Service                            Startup  Current\n\
         xkcd-webserver.xkcd-webserver      enabled  active\n\
         xkcd-webserver_foo.xkcd-webserver  enabled  inactive"
    );
    let log = site.foo("fim-service logs xkcd-webserver_foo.xkcd-webserver").prints();
    let (time, rest) = log.split_at(20);
    assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T' && time.starts_with("20"), "{log}");
    let (name, text) = rest.split_once("]: ").unwrap();
    assert!(name.strip_prefix(" xkcd-webserver_foo.xkcd-webserver[").unwrap().parse::<u32>().is_ok(), "{log}");
    assert_eq!(text, "serve: bind: Address already in use");
    // "The solution is to stop the service on one instance and start the service on the other."
    assert_eq!(site.app("fim-service stop xkcd-webserver.xkcd-webserver").prints(), "Stopped.");
    assert_eq!(site.foo("fim-service start xkcd-webserver_foo.xkcd-webserver").prints(), "Started.");
    expect_log(site.foo("fim-service logs"), "]: ready");
    assert_eq!(said(port), "xkcd-webserver_foo");
    assert_eq!(
        site.app("fim-service list").prints(),
        "Service                            Startup  Current\n\
         xkcd-webserver.xkcd-webserver      enabled  inactive\n\
         xkcd-webserver_foo.xkcd-webserver  enabled  active"
    );
    assert_eq!(site.foo("fim-service list").prints().lines().count(), 2);
    assert_eq!(site.foo("fim-service stop").prints(), "Stopped.");
    site.world.assert_nothing_left();
}

#[test]
fn with_networks_of_their_own_both_are_active_on_one_port() {
    let site = Site::new("xkcd-webserver");
    let (first, second) = (free_port(), free_port());
    site.app("fim-service add xkcd-webserver serve who 80").run().succeeds();
    site.app(&format!("fim-port publish {first}:80 --service xkcd-webserver")).run().succeeds();
    site.foo("fim-port clear").run().succeeds();
    site.foo(&format!("fim-port publish {second}:80")).run().succeeds();
    for command in [site.app("fim-service start"), site.foo("fim-service start")] {
        command.run().succeeds().with_stdout("Started.\n").quietly();
    }
    for logs in [site.app("fim-service logs"), site.foo("fim-service logs")] {
        expect_log(logs, "]: ready");
    }
    assert_eq!((said(first), said(second)), ("xkcd-webserver".to_owned(), "xkcd-webserver_foo".to_owned()));
    let table = site.app("fim-service list").prints();
    assert!(table.lines().skip(1).all(|line| line.ends_with("enabled  active")), "{table}");
    // Another key that publishes the same port hears whose it is.
    site.app("fim-key run bar fim-service start xkcd-webserver").fails_naming(&[
        "cannot start the service xkcd-webserver_bar.xkcd-webserver",
        &format!("port {first} of the host is in use by the service 'xkcd-webserver' of the default installation"),
    ]);
    assert_eq!(site.app("fim-service stop").prints(), "Stopped.");
    assert_eq!(site.foo("fim-service stop").prints(), "Stopped.");
    assert!(is_free(first) && is_free(second));
}

#[test]
fn a_service_whose_port_is_taken_says_who_has_it() {
    let site = Site::new("app");
    let port = free_port();
    site.app("fim-perms add network").run().succeeds();
    site.app(&format!("fim-service add --listens {port} web serve who {port}")).run().succeeds();
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    let holder = format!("in use by process {} (", std::process::id());
    site.app("fim-service start web").fails_naming(&[
        "the service app.web",
        &format!("port {port}"),
        &holder,
        "end that",
    ]);
    drop(taken);
    assert_eq!(site.app("fim-service start web").prints(), "Started.");
    expect_log(site.app("fim-service logs"), "]: ready");
    let image = site.path("").to_str().unwrap().to_owned();
    site.foo("fim-service start").fails_naming(&[
        "the service app_foo.web",
        &format!("in use by the service 'web' of the default installation of {image} (instance 0, process "),
    ]);
    assert_eq!(site.app("fim-service stop").prints(), "Stopped.");
    assert_eq!(site.foo("fim-service start").prints(), "Started.");
    expect_log(site.foo("fim-service logs"), "]: ready");
    site.app("fim-service start").fails_naming(&["the service 'web' of the instance key 'foo'", &image]);
    assert_eq!(site.foo("fim-service stop").prints(), "Stopped.");
    // With a network of its own, nobody is in the way.
    let _taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    site.app("fim-perms del network").run().succeeds();
    assert_eq!(site.app("fim-service start").prints(), "Started.");
    expect_log(site.app("fim-service logs"), "]: ready");
    site.app("fim-service stop").run().succeeds();
}

#[test]
fn a_service_starts_once_and_again_after_its_end() {
    let site = Site::new("app");
    site.add("job", "echo up; trap 'exit 7' USR1; while :; do sleep 1000 & wait; done");
    site.app("fim-service start job").prints();
    expect_log(site.app("fim-service logs job"), ": up\n");
    let first = list(site.app("fim-service"));
    assert_eq!(first[0]["current"], "active");
    assert_eq!((&first[0]["instance"], &first[0]["exit_code"]), (&json!(0), &Value::Null));
    // Idempotent, also for many at once.
    let starts: Vec<_> = (0..4).map(|_| site.app("fim-service start job").spawn()).collect();
    for start in starts {
        start.wait().succeeds().with_stdout("Started.\n").quietly();
    }
    assert_eq!(list(site.app("fim-service")), first);
    assert_eq!(site.app("fim-instance list").prints().lines().count(), 1);
    let instances: Value = serde_json::from_str(&site.app("fim-instance list --json").prints()).unwrap();
    assert_eq!(instances[0]["service"], "job");
    site.app("fim-instance logs 0").fails_naming(&["instance 0 is the service 'job'", "fim-service logs job"]);
    // It ends by itself; its code is known although its session has gone with it.
    site.app("fim-instance kill 0 USR1").run().succeeds();
    let ended = wait_inactive(|| site.app("fim-service"), "app.job");
    assert_eq!((&ended["exit_code"], &ended["current"]), (&json!(7), &json!("inactive")));
    site.world.wait_for_end();
    assert_eq!(site.app("fim-service start job").prints(), "Started.");
    let again = list(site.app("fim-service"));
    assert_eq!((&again[0]["exit_code"], &again[0]["current"]), (&Value::Null, &json!("active")));
    // Restarting makes another process of it.
    assert_eq!(site.app("fim-service restart").prints(), "Restarted.");
    let restarted = list(site.app("fim-service"));
    assert!(restarted[0]["pid"] != again[0]["pid"] && restarted[0]["current"] == "active", "{restarted:?}");
    // A supervisor that is killed leaves no code behind, and the service can be started.
    let tree = Tree::of(Pid::from_raw(restarted[0]["pid"].as_i64().unwrap() as i32));
    tree.0[0].kill();
    tree.0[0].wait_gone();
    assert_eq!(wait_inactive(|| site.app("fim-service"), "app.job")["exit_code"], Value::Null);
    assert_eq!(site.app("fim-service start job").prints(), "Started.");
    assert_eq!(site.app("fim-service stop job").prints(), "Stopped.");
    assert_eq!(site.app("fim-service stop job").prints(), "Stopped.");
    assert_eq!(wait_inactive(|| site.app("fim-service"), "app.job")["exit_code"], 143);
    assert_eq!(site.app("fim-service restart job").prints(), "Restarted.");
    site.app("fim-service stop").run().succeeds();
    site.world.assert_nothing_left();
}

#[test]
fn only_what_is_enabled_starts_without_being_named() {
    let site = Site::new("app");
    site.app("fim-service add one sleep 1000").run().succeeds();
    site.app("fim-service add --disabled two sleep 1000").run().succeeds();
    let states = |expected: [&str; 2]| {
        let table = site.app("fim-service list").prints();
        let rows: Vec<String> =
            table.lines().skip(1).take(2).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(rows, expected);
    };
    site.app("fim-service start").run().succeeds();
    states(["app.one enabled active", "app.two disabled inactive"]);
    site.app("fim-service start two").run().succeeds();
    states(["app.one enabled active", "app.two disabled active"]);
    site.app("fim-service stop").run().succeeds();
    site.app("fim-service disable one").run().succeeds();
    site.app("fim-service start").fails_naming(&["no service is enabled"]);
    site.app("fim-service enable two").run().succeeds();
    site.app("fim-service start").run().succeeds();
    states(["app.one disabled inactive", "app.two enabled active"]);
    site.app("fim-service stop two one two").run().succeeds().with_stdout("Stopped.\n");
    states(["app.one disabled inactive", "app.two enabled inactive"]);
}

#[test]
fn logs_of_services_outlive_their_sessions() {
    let site = Site::new("app");
    site.add("one", "seq 1 30; printf 'no end'");
    site.add("two", "echo from two; echo error >&2; read line || echo no input");
    site.app("fim-service logs").run().succeeds().with_stdout("").quietly();
    site.app("fim-service logs -f").fails_naming(&["no log to follow"]);
    for name in ["one", "two"] {
        site.app("fim-service start").arg(name).run().succeeds();
        wait_inactive(|| site.app("fim-service"), &format!("app.{name}"));
    }
    site.world.wait_for_end();
    let texts = |command: TestCommand| -> Vec<String> {
        command.prints().lines().map(|line| line.split_once("]: ").unwrap().1.to_owned()).collect()
    };
    assert_eq!(texts(site.app("fim-service logs two")), ["from two", "error", "no input"]);
    assert_eq!(texts(site.app("fim-service logs one -n 2")), ["30", "no end"]);
    assert_eq!(texts(site.app("fim-service logs one")).len(), 10);
    assert_eq!(texts(site.app("fim-service logs -n all")).len(), 34);
    assert_eq!(texts(site.app("fim-service logs two one -n 1")).len(), 1);
    // A second run goes on behind the first, on a line of its own.
    let mut follower = site.app("fim-service logs one -f -n 1").spawn();
    follower.expect(": no end");
    site.app("fim-service start one").run().succeeds();
    follower.expect(": 30\n");
    wait_inactive(|| site.app("fim-service"), "app.one");
    let all = texts(site.app("fim-service logs one -n all"));
    assert_eq!((all.len(), all[30].as_str(), all[31].as_str()), (62, "no end", "1"));
    // The key has a log of its own, and a program that is not found says so there.
    site.foo("fim-service logs").run().succeeds().with_stdout("");
    site.foo("fim-service add lost /no/such/program").run().succeeds();
    site.foo("fim-service start lost").run().succeeds();
    assert_eq!(wait_inactive(|| site.foo("fim-service"), "app_foo.lost")["exit_code"], 127);
    assert!(site.foo("fim-service logs").prints().contains("/no/such/program: no such file or directory"));
}

#[test]
fn a_key_has_the_images_services_until_it_declares_its_own() {
    let site = Site::new("app");
    site.app("fim-service add web sleep 1000").run().succeeds();
    site.foo("fim-service add db sleep 1000").run().succeeds();
    let names = |command: TestCommand| -> Vec<String> {
        list(command).iter().map(|entry| entry["service"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(site.foo("fim-service")), ["app_foo.web", "app_foo.db"]);
    assert_eq!(names(site.app("fim-service")), ["app.web", "app_foo.web", "app_foo.db"]);
    site.foo("fim-service inherit").run().succeeds();
    assert_eq!(names(site.foo("fim-service")), ["app_foo.web"]);
    site.app("fim-service stop app_foo.web")
        .fails_naming(&["'app_foo.web' is no service of this installation, app", "fim-key run"]);
    // A clone begins without the log of the other.
    site.foo("fim-service start").run().succeeds();
    site.foo("fim-service stop").run().succeeds();
    site.world.wait_for_end();
    site.app("fim-key clone foo bar").run().succeeds();
    assert_eq!(list(site.app("fim-key run bar fim-service"))[0]["exit_code"], Value::Null);
    assert_eq!(list(site.foo("fim-service"))[0]["exit_code"], 143);
}

#[test]
fn a_port_of_a_service_waits_for_it() {
    let site = Site::new("app");
    let port = free_port();
    site.app("fim-service add web serve who 80").run().succeeds();
    site.app(&format!("fim-port publish {port}:80 --service web")).run().succeeds();
    assert_eq!(site.app("fim-port list").prints(), format!("{port}:80 web"));
    let mut other = site.app("fim-exec sh -c").arg("echo up; read line").spawn();
    other.expect("up\n");
    assert!(is_free(port));
    site.app("fim-service start web").run().succeeds().quietly();
    expect_log(site.app("fim-service logs"), "]: ready");
    assert_eq!(said(port), "app");
    other.say("\n");
    other.wait().succeeds();
    site.app("fim-service del web")
        .fails_naming(&["the service 'web' is running (instance 1)", "fim-service stop web"]);
    site.app("fim-service clear").fails_naming(&["the service 'web' is running"]);
    site.app("fim-service stop").run().succeeds();
    site.app("fim-service del web").fails_naming(&[&format!("port {port}:80 is published for the service 'web'")]);
    site.app("fim-port clear").run().succeeds();
    site.app("fim-service del web").run().succeeds().quietly();
    assert_eq!(site.app("fim-service list").prints(), "");
    site.app("fim-service list --json").run().succeeds().with_stdout("[]\n");
}

#[test]
fn words_that_are_no_services_change_nothing() {
    let site = Site::new("app");
    site.app("fim-service add web sleep 1000").run().succeeds();
    let before = site.app("fim-service list --json").prints();
    for (line, words) in [
        ("", &["Missing op for 'fim-service'", "fim-help service"][..]),
        ("frobnicate", &["Invalid service operation 'frobnicate'"]),
        ("add", &["Missing name for 'add'"]),
        ("add db", &["Missing program for the service 'db'"]),
        ("add web sleep 1", &["there is a service 'web' already", "fim-service del web"]),
        ("add a.b sleep 1", &["Invalid service name 'a.b'", "single hyphens"]),
        ("add ../x sleep 1", &["Invalid service name '../x'"]),
        ("add --listens 0 db sleep 1", &["Invalid port '0'"]),
        ("del", &["Missing name for 'del'"]),
        ("del db", &["there is no service 'db'", "these are: web"]),
        ("del web x", &["Trailing arguments", "'x'"]),
        ("enable db", &["there is no service 'db'"]),
        ("disable", &["Missing name for 'disable'"]),
        ("start web db", &["there is no service 'db'"]),
        ("start other.web", &["'other.web' is no service of this installation, app"]),
        ("stop db", &["there is no service 'db'"]),
        ("restart db", &["there is no service 'db'"]),
        ("logs db", &["there is no service 'db'"]),
        ("logs -n", &["-n takes a number of lines"]),
        ("list web", &["Trailing arguments"]),
        ("clear web", &["Trailing arguments"]),
        ("inherit", &["'inherit' is for installations with an instance key"]),
    ] {
        site.app("fim-service").args(line.split_whitespace()).fails_naming(words);
        assert_eq!(site.app("fim-service list --json").prints(), before, "{line}");
    }
    site.app("fim-service start").env("FIM_EPHEMERAL", "1").fails_naming(&["the service app.web", "FIM_EPHEMERAL=1"]);
    assert_eq!(site.app("fim-service list --json").prints(), before);
    site.world.assert_nothing_left();
}
