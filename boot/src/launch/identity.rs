//! Who the guest's user is: a pure function of the caller, the image and the command line.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use runtime::image::{Config, Permission};
use runtime::sandbox::account;
use runtime::sandbox::plan::Account;

use super::environment;
use super::facts::Facts;

/// Stored variables, expanded with the caller's environment.
struct Stored(BTreeMap<OsString, OsString>, Vec<OsString>);

impl Stored {
    fn of(config: &Config, facts: &Facts) -> Self {
        use std::os::unix::ffi::OsStringExt;
        if config.env.is_empty() {
            return Self(BTreeMap::new(), Vec::new());
        }
        let mut env = facts.caller.env.iter().cloned().collect();
        environment::add_stored(&mut env, &config.env, &facts.outputs);
        Self(env, config.env.iter().map(|(name, _)| OsString::from_vec(name.clone())).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let stored = self.1.iter().any(|key| key == name);
        self.0.get(OsStr::new(name)).filter(|_| stored)?.to_str()
    }

    /// The number that a value begins with.
    fn id(&self, name: &str) -> Option<u32> {
        let text = self.get(name)?;
        let digits = text.len() - text.trim_start_matches(|char: char| char.is_ascii_digit()).len();
        // The greatest number means "no ID" to the kernel.
        text[..digits].parse().ok().filter(|id| *id != u32::MAX)
    }
}

/// Whether the command runs as root of the instance: asked for by `fim-root`, by the caller's `FIM_ROOT=1`, or by the
/// stored `UID=0`.
#[must_use]
pub fn is_root(config: &Config, asked: bool, facts: &Facts) -> bool {
    asked
        || facts.caller.variable("FIM_ROOT").is_some_and(|value| value == "1")
        || Stored::of(config, facts).id("UID") == Some(0)
}

/// The user of the guest. What is stored goes before the caller's variables, and they before the host's passwd.
#[must_use]
pub fn account(config: &Config, root: bool, facts: &Facts) -> Account {
    let stored = Stored::of(config, facts);
    let shell = account::field(stored.get("SHELL").unwrap_or_default(), "/bin/sh");
    if root {
        return Account { name: "root".into(), uid: 0, gid: 0, home: "/root".into(), shell };
    }
    let caller = &facts.caller;
    let variable = |name: &str| caller.variable(name).and_then(OsStr::to_str).map(str::to_owned);
    let (passwd_name, passwd_home) = caller.account.clone().map(|(name, home, _)| (name, home)).unzip();
    let uid = stored.id("UID").unwrap_or(caller.uid);
    let gid = stored.id("GID").unwrap_or(caller.gid);
    let given = |name: &str| stored.get(name).map(str::to_owned);
    // A caller that is root is called so whatever its environment says, which sudo may have left as it was.
    let is_root = uid == 0;
    let name = if is_root {
        Some("root".to_owned())
    } else {
        variable("USER").or(passwd_name).or_else(|| variable("LOGNAME"))
    };
    let name = account::field(&given("USER").or(name).unwrap_or_default(), &format!("user{uid}"));
    let own_home = variable("HOME").or(passwd_home);
    let home = if is_root && !config.permissions.contains(Permission::Home) { None } else { own_home };
    let home = given("HOME").or(home).filter(|home| home.starts_with('/')).unwrap_or_default();
    let otherwise = if is_root { "/root".to_owned() } else { format!("/home/{name}") };
    Account { home: account::field(&home, &otherwise), name, uid, gid, shell }
}

/// What the shell of an image calls itself when nothing else is stored (bash(1), PROMPTING).
fn prompt(distribution: &str) -> String {
    format!("[flatimage-{}] \\W > ", distribution.to_lowercase())
}

/// A file that shells read when they are used by hand: it sets the prompt, which is the stored PS1 or the image's own.
#[must_use]
pub fn shell_start(config: &Config, facts: &Facts) -> Vec<u8> {
    let stored = Stored::of(config, facts);
    let prompt = stored.get("PS1").map_or_else(|| prompt(&config.name), str::to_owned);
    // In single quotes nothing is read by the shell but their end.
    format!("export PS1='{}'\n", prompt.replace('\'', "'\\''")).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::facts;
    use super::*;

    fn config(env: &[(&str, &str)]) -> Config {
        let env = env.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        Config { env, name: "Small".to_owned(), ..Config::default() }
    }

    #[test]
    fn stored_identity_goes_before_the_callers_and_that_before_passwd() {
        let mut facts = facts(&[("USER", "ann"), ("HOME", "/home/ann"), ("SHELL", "/bin/zsh")]);
        facts.caller.account = Some(("other".into(), "/home/other".into(), "/bin/sh".into()));
        let of = |env: &[(&str, &str)], facts: &Facts| {
            let account = account(&config(env), false, facts);
            (account.name, account.uid, account.gid, account.home, account.shell)
        };
        assert_eq!(of(&[], &facts), ("ann".into(), 1000, 100, "/home/ann".into(), "/bin/sh".into()));
        let stored = [("USER", "app"), ("HOME", "$HOME/app"), ("SHELL", "/bin/bash"), ("UID", "77x"), ("GID", "x")];
        assert_eq!(of(&stored, &facts), ("app".into(), 77, 100, "/home/ann/app".into(), "/bin/bash".into()));
        facts.caller.env.clear();
        assert_eq!(of(&[], &facts).3, "/home/other");
        facts.caller.account = None;
        assert_eq!(
            of(&[("USER", "a:b")], &facts),
            ("user1000".into(), 1000, 100, "/home/user1000".into(), "/bin/sh".into())
        );
        for id in ["", "-1", "4294967295", "99999999999"] {
            assert_eq!(of(&[("UID", id)], &facts).1, 1000, "{id}");
        }
    }

    #[test]
    fn root_can_be_asked_for_in_three_ways() {
        assert!(is_root(&config(&[]), true, &facts(&[])));
        assert!(is_root(&config(&[("UID", "0")]), false, &facts(&[])));
        assert!(is_root(&config(&[]), false, &facts(&[("FIM_ROOT", "1")])));
        assert!(!is_root(&config(&[("UID", "1")]), false, &facts(&[("FIM_ROOT", "0"), ("UID", "0")])));
        let account = account(&config(&[("USER", "x"), ("HOME", "/x")]), true, &facts(&[]));
        assert_eq!((account.name.as_str(), account.uid, account.home.as_str()), ("root", 0, "/root"));
    }

    #[test]
    fn the_prompt_is_no_script() {
        assert_eq!(shell_start(&config(&[]), &facts(&[])), b"export PS1='[flatimage-small] \\W > '\n");
        let stored = config(&[("PS1", "it's $(id)> ")]);
        assert_eq!(shell_start(&stored, &facts(&[])), b"export PS1='it'\\''s $(id)> '\n");
    }
}
