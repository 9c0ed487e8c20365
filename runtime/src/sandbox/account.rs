//! The caller's entry in the guest's passwd and group files.

use super::plan::Account;

/// `passwd` with an entry for the account, or `None` when its user ID has one already.
#[must_use]
pub fn passwd(existing: &[u8], account: &Account) -> Option<Vec<u8>> {
    let Account { name, uid, gid, home, shell } = account;
    with_entry(existing, *uid, || format!("{name}:x:{uid}:{gid}:{name}:{home}:{shell}\n"))
}

/// `group` with an entry for the account's group, or `None` when its group ID has one already.
#[must_use]
pub fn group(existing: &[u8], account: &Account) -> Option<Vec<u8>> {
    let Account { name, gid, .. } = account;
    with_entry(existing, *gid, || format!("{name}:x:{gid}:\n"))
}

/// Both files have the numeric ID in their third field (passwd(5), group(5)).
fn with_entry(existing: &[u8], id: u32, entry: impl FnOnce() -> String) -> Option<Vec<u8>> {
    let id = id.to_string();
    let present = existing
        .split(|&byte| byte == b'\n')
        .any(|line| line.split(|&byte| byte == b':').nth(2) == Some(id.as_bytes()));
    if present {
        return None;
    }
    let mut bytes = existing.to_vec();
    if bytes.last().is_some_and(|&byte| byte != b'\n') {
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(entry().as_bytes());
    Some(bytes)
}

/// Makes a word fit for a passwd field: no separator, no control character, not empty.
#[must_use]
pub fn field(word: &str, otherwise: &str) -> String {
    let fits = !word.is_empty() && !word.chars().any(|char| char == ':' || char.is_control());
    if fits { word } else { otherwise }.to_owned()
}

/// Name, home and shell of a user in a passwd file. Read directly: a static program must not load NSS modules.
#[must_use]
pub fn lookup(passwd: &[u8], uid: u32) -> Option<(String, String, String)> {
    let id = uid.to_string();
    passwd.split(|&byte| byte == b'\n').find_map(|line| {
        let text = std::str::from_utf8(line).ok()?;
        let fields: Vec<&str> = text.split(':').collect();
        match fields[..] {
            [name, _, uid, _, _, home, shell] if uid == id => {
                Some((name.to_owned(), home.to_owned(), shell.to_owned()))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account { name: "ann".into(), uid: 1000, gid: 100, home: "/home/ann".into(), shell: "/bin/sh".into() }
    }

    #[test]
    fn an_entry_is_added_once() {
        let added = passwd(b"root:x:0:0:root:/root:/bin/sh", &account()).unwrap();
        assert_eq!(added, b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:100:ann:/home/ann:/bin/sh\n");
        assert_eq!(passwd(&added, &account()), None);
        assert_eq!(group(b"", &account()).unwrap(), b"ann:x:100:\n");
    }

    #[test]
    fn a_group_that_exists_stays() {
        assert_eq!(group(b"users:x:100:\n", &account()), None);
    }

    #[test]
    fn finds_the_caller() {
        let file = b"a:x:1:1::/a:/b\nann:x:1000:100:Ann,,:/home/ann:/bin/zsh\n";
        assert_eq!(lookup(file, 1000), Some(("ann".into(), "/home/ann".into(), "/bin/zsh".into())));
        assert_eq!(lookup(file, 7), None);
        assert_eq!(field("a:b", "user"), "user");
    }
}
