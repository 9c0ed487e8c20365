//! How much a new layer is compressed.

use std::ffi::OsStr;

use crate::{Failure, Message};

/// The variable that chooses where no `--level` does.
const VARIABLE: &str = "FIM_COMPRESSION_LEVEL";

/// A compression level as scripts know it, 0 (fast) to 9 (small).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level(u8);

impl Level {
    /// What counts when nothing is said: the level that `fim build` takes.
    const DEFAULT: Self = Self(7);
    /// The zstd level of each: near the bottom each step costs little time, near the top much.
    const ZSTD: [i32; 10] = [1, 2, 3, 5, 7, 10, 14, 19, 21, 22];

    /// The value of `--level`.
    ///
    /// # Errors
    /// When it is no digit.
    pub(super) fn given(word: &OsStr) -> Result<Self, Failure> {
        match word.as_encoded_bytes() {
            [digit @ b'0'..=b'9'] => Ok(Self(digit - b'0')),
            _ => Err(Message::boxed(format!(
                "Invalid compression level '{}'; use 0 (fast) to 9 (small)",
                word.to_string_lossy().escape_debug()
            ))),
        }
    }

    /// What the environment says. Numbers out of range count as the nearest, anything else as nothing.
    pub(super) fn from_environment() -> Self {
        Self::of_variable(std::env::var_os(VARIABLE).as_deref())
    }

    fn of_variable(value: Option<&OsStr>) -> Self {
        let number = value.and_then(|value| value.to_str()?.trim().parse::<i64>().ok());
        number.map_or(Self::DEFAULT, |number| Self(number.clamp(0, 9) as u8))
    }

    /// The level for zstd, 1 to 22.
    pub(super) fn zstd(self) -> i32 {
        Self::ZSTD[usize::from(self.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_clamped_and_nonsense_is_the_default() {
        for (value, level) in [("0", 0), ("9", 9), ("10", 9), ("-3", 0), ("", 7), ("best", 7), ("3.5", 7)] {
            assert_eq!(Level::of_variable(Some(OsStr::new(value))), Level(level), "{value:?}");
        }
        assert_eq!(Level::of_variable(None).zstd(), 19);
    }

    #[test]
    fn the_option_is_a_digit() {
        assert_eq!(Level::given(OsStr::new("0")).unwrap().zstd(), 1);
        assert_eq!(Level::given(OsStr::new("9")).unwrap().zstd(), 22);
        for word in ["", "10", "-1", "x"] {
            assert!(Level::given(OsStr::new(word)).is_err(), "{word:?}");
        }
    }
}
