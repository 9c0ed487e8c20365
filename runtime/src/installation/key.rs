//! Instance keys.

use std::ffi::OsStr;
use std::fmt;

/// An instance key: one to ten lower-case letters and digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// A word that is no instance key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid instance key '{}': it must be 1 to 10 characters long and have lower-case letters and digits only", .0.escape_debug())]
pub struct InvalidKey(String);

impl Key {
    /// Longest key in characters.
    pub const LIMIT: usize = 10;

    /// Reads a key.
    ///
    /// # Errors
    /// When the word does not match `^[a-z0-9]{1,10}$`.
    pub fn parse(word: impl AsRef<OsStr>) -> Result<Self, InvalidKey> {
        let word = word.as_ref();
        let fits = |text: &&str| {
            (1..=Self::LIMIT).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        match word.to_str().filter(fits) {
            Some(text) => Ok(Self(text.to_owned())),
            None => Err(InvalidKey(word.to_string_lossy().into_owned())),
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn one_to_ten_lower_case_letters_and_digits() {
        for good in ["a", "foo", "0123456789", "prod", "29"] {
            assert_eq!(Key::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "01234567890", "Foo", "a_b", "a-b", "a b", "ä", "../x", "foo\n", "/"] {
            assert!(Key::parse(bad).unwrap_err().to_string().starts_with("Invalid instance key '"), "{bad}");
        }
        assert!(Key::parse(OsStr::from_bytes(b"\xff")).is_err());
    }
}
