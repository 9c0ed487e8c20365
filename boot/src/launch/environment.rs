//! The guest's environment: a pure function of the caller's, the image's and the identity.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use runtime::portal;
use runtime::sandbox::plan::Account;

use super::expansion::{Outputs, expand};

/// Where programs lie in any image.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds the environment in which a command starts.
///
/// It is the caller's, without what would make a foreign loader load foreign code (`LD_*`) and without our own
/// internals (`FIM_*`); the image's directories come first in PATH; identity, stored variables and ours follow.
#[must_use]
pub fn build(
    caller: &[(OsString, OsString)],
    stored: &[(Vec<u8>, Vec<u8>)],
    account: &Account,
    ours: &[(&str, OsString)],
    outputs: &Outputs,
) -> BTreeMap<OsString, OsString> {
    let mut env: BTreeMap<OsString, OsString> = caller
        .iter()
        .filter(|(name, _)| {
            let name = name.as_bytes();
            !name.is_empty() && !name.starts_with(b"LD_") && !name.starts_with(b"FIM_")
        })
        .cloned()
        .collect();
    let path = path(env.get(OsStr::new("PATH")).map(OsString::as_os_str));
    identify(&mut env, account);
    let mut set = |name: &str, value: OsString| drop(env.insert(OsString::from(name), value));
    set("PATH", path);
    set("LOGNAME", account.name.clone().into());
    set("XDG_RUNTIME_DIR", format!("/run/user/{}", account.uid).into());
    for (name, value) in ours {
        set(name, value.clone());
    }
    env.entry(OsString::from("TERM")).or_insert_with(|| OsString::from("xterm"));
    if !stored.is_empty() {
        add_stored(&mut env, stored, outputs);
        // Stored words that passwd cannot hold, and those of a user that root is not, have not become the identity.
        identify(&mut env, account);
    }
    env
}

/// Sets the variables that say who the user is.
fn identify(env: &mut BTreeMap<OsString, OsString>, account: &Account) {
    for (name, value) in [("USER", &account.name), ("HOME", &account.home), ("SHELL", &account.shell)] {
        env.insert(name.into(), value.into());
    }
}

/// The image's directories, then those of the caller that are not among them: a program of the image may lie in one
/// that only the user's PATH names. The portal's come last, so that the image's own programs go before the host's.
fn path(caller: Option<&OsStr>) -> OsString {
    let mut directories: Vec<&[u8]> = PATH.as_bytes().split(|&byte| byte == b':').collect();
    for directory in caller.map(OsStr::as_bytes).unwrap_or_default().split(|&byte| byte == b':') {
        if directory.starts_with(b"/") && !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories.retain(|directory| *directory != portal::PROGRAMS.as_bytes());
    directories.push(portal::PROGRAMS.as_bytes());
    OsString::from_vec(directories.join(&b':'))
}

/// Adds the stored variables in order; each may refer to those that are there by then.
pub(crate) fn add_stored(env: &mut BTreeMap<OsString, OsString>, stored: &[(Vec<u8>, Vec<u8>)], outputs: &Outputs) {
    for (name, value) in stored {
        let value = expand(value, &|name| env.get(OsStr::from_bytes(name)).map(OsString::as_os_str), outputs);
        env.insert(OsString::from_vec(name.clone()), OsString::from_vec(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account { name: "ann".into(), uid: 1000, gid: 1000, home: "/home/ann".into(), shell: "/bin/sh".into() }
    }

    fn caller(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn get<'a>(env: &'a BTreeMap<OsString, OsString>, name: &str) -> Option<&'a str> {
        env.get(OsStr::new(name)).and_then(|value| value.to_str())
    }

    #[test]
    fn loader_and_internal_variables_stay_outside() {
        let caller = caller(&[("LD_PRELOAD", "/x.so"), ("FIM_DIR_DATA", "/d"), ("EDITOR", "vi"), ("TERM", "vt100")]);
        let env = build(&caller, &[], &account(), &[("FIM_PID", "7".into())], &Outputs::new());
        assert_eq!(get(&env, "LD_PRELOAD"), None);
        assert_eq!(get(&env, "FIM_DIR_DATA"), None);
        assert_eq!(get(&env, "FIM_PID"), Some("7"));
        assert_eq!((get(&env, "EDITOR"), get(&env, "TERM")), (Some("vi"), Some("vt100")));
        assert_eq!(get(&build(&[], &[], &account(), &[], &Outputs::new()), "TERM"), Some("xterm"));
    }

    #[test]
    fn the_images_directories_come_first() {
        let env = build(&caller(&[("PATH", "/opt/x/bin:/usr/bin:relative:")]), &[], &account(), &[], &Outputs::new());
        assert_eq!(get(&env, "PATH").unwrap(), format!("{PATH}:/opt/x/bin:/run/fim/bin"));
    }

    #[test]
    fn stored_values_are_expanded_but_never_cut_or_run() {
        let stored = [
            (&b"A"[..], &b"two  words"[..]),
            (b"B", b"$A and ${HOME}/x"),
            (b"C", b"$(touch /tmp/x) `id` $ ${} ${A"),
            (b"D", b"<$NOTHING>"),
            (b"E", b""),
        ]
        .map(|(name, value)| (name.to_vec(), value.to_vec()));
        let env = build(&[], &stored, &account(), &[], &Outputs::new());
        assert_eq!(get(&env, "A"), Some("two  words"));
        assert_eq!(get(&env, "B"), Some("two  words and /home/ann/x"));
        assert_eq!(get(&env, "C"), Some("$(touch /tmp/x) `id` $ ${} ${A"));
        assert_eq!(get(&env, "D"), Some("<>"));
        assert_eq!(get(&env, "E"), Some(""));
    }
}
