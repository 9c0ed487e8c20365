//! Launchers: shell scripts that run a command of one installation, and say whose they are.
//!
//! The second line is `# fim-alias 1 NOTE KEY IMAGE WORD…`, each word escaped so that it holds no blank; `-` stands for no
//! key. The script does not depend on the directory or the variables that it is started with.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use runtime::installation::{Asked, Installation, Key};

use crate::percent::{escape, unescape};

/// How every launcher begins. Changing what follows needs another number.
const HEADER: &[u8] = b"#!/bin/sh\n# fim-alias 1 ";
/// Most bytes of a launcher that tell whose it is.
pub(super) const MAX: u64 = 128 * 1024;
/// What stays as it is in the second line.
const KEPT: &[u8] = b"/-._+=@:,";

/// The installation that a launcher runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Absolute path of the image.
    pub(crate) image: PathBuf,
    /// Key of the installation.
    pub(crate) key: Option<Key>,
}

impl Owner {
    /// Name of the installation.
    pub(crate) fn name(&self) -> OsString {
        let plain = Installation::choose(&self.image, Asked::default());
        // Nothing that was asked for can be unclear.
        plain.map(|plain| plain.with_key(self.key.clone()).instance_name()).unwrap_or_default()
    }

    /// Name of the launcher for a command that the image declares.
    pub(super) fn launcher_name(&self, declared: &str) -> OsString {
        let mut name = self.name();
        if self.image.file_stem().is_none_or(|stem| stem != declared) {
            name.push(".");
            name.push(declared);
        }
        name
    }
}

/// A launcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launcher {
    pub(crate) owner: Owner,
    /// The command in the image; the boot command when empty.
    pub(super) words: Vec<Vec<u8>>,
    /// The declared name that it was made for; of one that the user has named, nothing.
    pub(super) declared: Option<String>,
}

impl Launcher {
    /// The script.
    pub(super) fn script(&self) -> Vec<u8> {
        let note =
            self.declared.as_ref().map_or("manual".to_owned(), |name| format!("of:{}", escape(name.as_bytes(), KEPT)));
        let key = self.owner.key.as_ref().map_or("-", Key::as_str);
        let image = self.owner.image.as_os_str().as_bytes();
        let mut fields = vec![note, key.to_owned(), escape(image, KEPT)];
        // An empty word is nothing but its mark.
        fields.extend(self.words.iter().map(|word| format!("={}", escape(word, KEPT))));
        let mut line = [b"exec ", &quote(image)[..]].concat();
        if let Some(key) = &self.owner.key {
            line.extend_from_slice(format!(" fim-key run {key}").as_bytes());
        }
        if !self.words.is_empty() {
            line.extend_from_slice(b" fim-exec");
        }
        for word in &self.words {
            line.push(b' ');
            line.extend(quote(word));
        }
        [HEADER, fields.join(" ").as_bytes(), b"\nunset FIM_INSTANCE_KEY\n", &line, b" \"$@\"\n"].concat()
    }

    /// What [`Launcher::script`] wrote; `None` for any other file.
    pub(super) fn parse(script: &[u8]) -> Option<Self> {
        let line = script.strip_prefix(HEADER)?.split(|byte| *byte == b'\n').next()?;
        let mut fields = line.split(|byte| *byte == b' ');
        let declared = match fields.next()? {
            b"manual" => None,
            note => Some(String::from_utf8(unescape(note.strip_prefix(b"of:")?)?).ok()?),
        };
        let key = match fields.next()? {
            b"-" => None,
            key => Some(Key::parse(OsStr::from_bytes(key)).ok()?),
        };
        let image = PathBuf::from(OsString::from_vec(unescape(fields.next()?)?));
        let words = fields.map(|word| unescape(word.strip_prefix(b"=")?)).collect::<Option<_>>()?;
        image.is_absolute().then_some(Self { owner: Owner { image, key }, words, declared })
    }

    /// The installation, and what of it the launcher runs.
    pub(super) fn command(&self) -> String {
        let words = self.words.iter().map(|word| format!(" {}", String::from_utf8_lossy(word).escape_debug()));
        format!("{}{}", self.owner.name().to_string_lossy().escape_debug(), words.collect::<String>())
    }
}

/// One word for sh(1), whatever it holds.
fn quote(word: &[u8]) -> Vec<u8> {
    let mut quoted = b"'".to_vec();
    for byte in word {
        match byte {
            b'\'' => quoted.extend_from_slice(br"'\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launcher(image: &str, key: &str, words: &[&str], declared: Option<&str>) -> Launcher {
        Launcher {
            owner: Owner { image: image.into(), key: Key::parse(key).ok() },
            words: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
            declared: declared.map(str::to_owned),
        }
    }

    #[test]
    fn a_script_runs_the_installation_and_says_whose_it_is() {
        let script = launcher("/i/my app.flatimage", "foo", &["env", "it's", ""], None).script();
        assert_eq!(
            String::from_utf8(script).unwrap(),
            "#!/bin/sh\n# fim-alias 1 manual foo /i/my%20app.flatimage =env =it%27s =\nunset FIM_INSTANCE_KEY\n\
             exec '/i/my app.flatimage' fim-key run foo fim-exec 'env' 'it'\\''s' '' \"$@\"\n"
        );
        let script = launcher("/i/app", "", &[], Some("a b")).script();
        assert_eq!(
            String::from_utf8(script).unwrap(),
            "#!/bin/sh\n# fim-alias 1 of:a%20b - /i/app\nunset FIM_INSTANCE_KEY\nexec '/i/app' \"$@\"\n"
        );
    }

    #[test]
    fn a_script_is_read_as_it_is_written() {
        for one in [
            launcher("/i/a\n'\"$(x) \\.flatimage", "a1", &["sh", "-c", "echo \"$1\"\n# x", ""], None),
            launcher("/i/app", "", &[], Some("app")),
        ] {
            assert_eq!(Launcher::parse(&one.script()), Some(one));
        }
        for other in [
            "",
            "#!/bin/sh\necho\n",
            "#!/bin/sh\n# fim-alias 2 manual - /i\n",
            "#!/bin/sh\n# fim-alias 1 manual - relative\n",
            "#!/bin/sh\n# fim-alias 1 manual BAD /i\n",
            "#!/bin/sh\n# fim-alias 1 manual -\n",
            "#!/bin/sh\n# fim-alias 1 other - /i\n",
            "#!/bin/sh\n# fim-alias 1 manual - /i word\n",
        ] {
            assert_eq!(Launcher::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn names_are_those_of_the_documentation() {
        for (image, key, declared, expected) in [
            ("/i/hello-world.flatimage", "", "env", "hello-world.env"),
            ("/i/hello-world.flatimage", "foo", "env", "hello-world_foo.env"),
            ("/i/hello-world.flatimage", "foo", "hello-world", "hello-world_foo"),
            ("/i/hello-world.flatimage", "", "hello-world", "hello-world"),
        ] {
            let owner = launcher(image, key, &[], None).owner;
            assert_eq!(owner.launcher_name(declared), expected);
        }
    }
}
