//! A terminal with an interactive shell of the host in it, as a user sits before.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use nix::pty::openpty;

use super::process::{Collected, Running, position};
use super::{TestCommand, World, need};

/// What the outer shell shows when it waits for a command.
const PROMPT: &str = "outer> ";

/// The user's side of a terminal. Dropping it hangs up.
pub struct Terminal {
    keys: File,
    /// What the terminal showed.
    screen: Collected,
    seen: usize,
    /// Path of the terminal device.
    pub device: PathBuf,
    shell: Running,
}

impl Terminal {
    /// Opens a terminal of 24 rows and 80 columns with bash in it; `$IMAGE` there is the world's image.
    #[track_caller]
    pub fn open(world: &World) -> Self {
        Self::open_without(world, Some(b'\r'))
    }

    /// The same, but what it shows is collected with the carriage returns in it.
    #[track_caller]
    pub fn open_with_carriage_returns(world: &World) -> Self {
        Self::open_without(world, None)
    }

    #[track_caller]
    fn open_without(world: &World, unwanted: Option<u8>) -> Self {
        let pair = openpty(None, None).unwrap();
        let device = nix::unistd::ttyname(&pair.slave).unwrap();
        let side = || Stdio::from(pair.slave.try_clone().unwrap());
        let shell = world
            .equip(TestCommand::new(need("setsid")))
            .args(["--ctty", need("bash").to_str().unwrap(), "--norc", "--noprofile", "--noediting", "-i"])
            .env("PS1", PROMPT)
            .env("TERM", "vt100")
            .env("IMAGE", world.image())
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn();
        let keys = File::from(pair.master);
        let screen = Collected::without(keys.try_clone().unwrap(), unwanted);
        drop(pair.slave);
        let mut terminal = Self { keys, screen, seen: 0, device, shell };
        terminal.expect(PROMPT);
        terminal.resize(24, 80);
        terminal
    }

    /// Presses keys.
    #[track_caller]
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Types a line and Enter. The echo of the line is taken from the screen.
    #[track_caller]
    pub fn enter(&mut self, line: &str) {
        self.press(line);
        self.expect(line);
        self.press("\r");
    }

    /// Waits until the screen shows `text` behind all that was expected before; returns what came in between.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let from = self.seen;
        let (between, seen) = self.screen.wait(&format!("{text:?} on the screen"), |bytes, _| {
            let at = position(&bytes[from..], text.as_bytes())?;
            Some((String::from_utf8_lossy(&bytes[from..from + at]).into_owned(), from + at + text.len()))
        });
        self.seen = seen;
        between
    }

    /// Waits for the outer shell's prompt; returns what came before it.
    #[track_caller]
    pub fn prompt(&mut self) -> String {
        self.expect(PROMPT)
    }

    /// Runs a line in the outer shell up to the next prompt; returns what it showed.
    #[track_caller]
    pub fn run(&mut self, line: &str) -> String {
        self.enter(line);
        self.prompt().trim_matches('\n').to_owned()
    }

    /// Changes the window's size, as a terminal emulator does.
    #[track_caller]
    pub fn resize(&mut self, rows: u16, columns: u16) {
        let device = self.device.to_str().unwrap();
        TestCommand::new(need("stty"))
            .args(["-F", device, "rows", &rows.to_string(), "cols", &columns.to_string()])
            .run()
            .succeeds();
    }

    /// The settings of the terminal as stty(1) writes them.
    #[track_caller]
    pub fn settings(&self) -> String {
        TestCommand::new(need("stty")).args(["-F", self.device.to_str().unwrap(), "-g"]).prints()
    }

    /// The outer shell and all below it.
    pub fn tree(&self) -> super::Tree {
        self.shell.tree()
    }
}
