//! Versions of applications, and which of two is the later one.

use std::cmp::Ordering;
use std::fmt;

/// Most bytes of a version.
const MAX: usize = 64;

/// A version: parts of ASCII letters, digits and `+ - _ ~`, joined by points.
///
/// Parts are compared from the left: first the numbers that they begin with, then what follows the number, byte by byte.
/// What begins with `-` or `~` is earlier than nothing: `1.0-rc1` comes before `1.0`, and `1.0a` behind it. A part that is
/// missing counts as 0 with nothing behind it, so that `1.2` and `1.2.0` are the same.
#[derive(Debug, Clone)]
pub struct Version(String);

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "Invalid version '{}': 1 to {MAX} letters, digits and the signs + - _ ~ are needed, in parts joined by points",
    .0.escape_debug()
)]
pub struct InvalidVersion(pub String);

impl Version {
    /// Reads a version.
    ///
    /// # Errors
    /// Texts that are none.
    pub fn parse(text: &str) -> Result<Self, InvalidVersion> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-_~".contains(&byte);
        let part = |part: &str| !part.is_empty() && part.bytes().all(allowed);
        if text.len() <= MAX && text.split('.').all(part) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidVersion(text.chars().take(2 * MAX).collect()))
        }
    }

    /// The version as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this version is `least` or a later one.
    #[must_use]
    pub fn is_at_least(&self, least: &Self) -> bool {
        self.compare(least) != Ordering::Less
    }

    /// Which of the two is the later one. Versions that are written differently can be the same.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        let (mut ours, mut theirs) = (self.0.split('.'), other.0.split('.'));
        loop {
            let (our, their) = (ours.next(), theirs.next());
            if our.is_none() && their.is_none() {
                return Ordering::Equal;
            }
            match part(our.unwrap_or_default()).cmp(&part(their.unwrap_or_default())) {
                Ordering::Equal => {}
                order => return order,
            }
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A part as it is compared: digits of its number, of which more are a greater number; the digits; whether what follows
/// them makes it no earlier; what follows them.
fn part(text: &str) -> (usize, &str, bool, &str) {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let number = number.trim_start_matches('0');
    (number.len(), number, !rest.starts_with(['-', '~']), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_versions_are_greater() {
        let version = |text: &str| Version::parse(text).unwrap();
        let order = "0 0.1 0.9 0.10 1.0-rc1 1.0-rc2 1.0~1 1.0 1.0.1 1.0a 1.2 1.2a 1.2b 1.3 2.9 10 20240101 99999999999999999999999";
        let versions: Vec<Version> = order.split(' ').map(version).collect();
        for (index, earlier) in versions.iter().enumerate() {
            for later in &versions[index + 1..] {
                assert_eq!(earlier.compare(later), Ordering::Less, "{earlier} {later}");
                assert_eq!(later.compare(earlier), Ordering::Greater, "{earlier} {later}");
                assert!(later.is_at_least(earlier) && !earlier.is_at_least(later));
            }
        }
        for (one, other) in [("1.2", "1.2.0"), ("1.2", "1.2.0.0"), ("01.2", "1.02"), ("1.2", "1.2")] {
            assert_eq!(version(one).compare(&version(other)), Ordering::Equal, "{one} {other}");
            assert!(version(one).is_at_least(&version(other)));
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", ".", "1.", ".1", "1..2", "1 2", "1/2", "é", "1\n", ">=1", &"1".repeat(65)] {
            assert!(Version::parse(text).unwrap_err().to_string().starts_with("Invalid version '"), "{text}");
        }
        assert_eq!(Version::parse("2.0~beta+dfsg_1-1").unwrap().as_str(), "2.0~beta+dfsg_1-1");
    }
}
