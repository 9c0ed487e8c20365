//! Options of `fim build` that need more than a look.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::builder::{OsStringValueParser, TypedValueParser};
use runtime::pack::Platform;

/// One variable of the environment; the value need not be text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// A size in bytes, with K, M, G or T.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let units = [(['K', 'k'], 10), (['M', 'm'], 20), (['G', 'g'], 30), (['T', 't'], 40)];
    let unit = units.iter().find_map(|(letters, shift)| Some((text.strip_suffix(letters)?, *shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "a number of bytes is needed, with K, M, G or T for units of 1024".to_owned())
}

/// A block size in bytes, with K or M.
pub(super) fn block_size(text: &str) -> Result<u32, String> {
    let bytes = size(text).ok().and_then(|bytes| u32::try_from(bytes).ok());
    bytes
        .filter(|bytes| bytes.is_power_of_two() && (4096..=1_048_576).contains(bytes))
        .ok_or_else(|| "a power of two from 4K to 1M is needed".to_owned())
}

/// A platform: `OS/ARCHITECTURE[/VARIANT]`.
pub(super) fn platform(text: &str) -> Result<Platform, String> {
    Platform::parse(text).ok_or_else(|| "OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT is needed".to_owned())
}

/// Parses `NAME=VALUE` of any bytes.
pub(super) fn variable() -> impl TypedValueParser<Value = Variable> {
    OsStringValueParser::new().try_map(|text: OsString| assignment(&text))
}

fn assignment(text: &OsStr) -> Result<Variable, String> {
    let bytes = text.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) if at > 0 => Ok(Variable { name: bytes[..at].to_vec(), value: bytes[at + 1..].to_vec() }),
        _ => Err(format!("Variable assignment '{}' is invalid; NAME=VALUE is needed", text.to_string_lossy())),
    }
}

/// A command line split at blanks, and then one argument each.
pub(super) fn words(command: Option<&OsString>, more: &[OsString]) -> Vec<Vec<u8>> {
    let command = command.map(|command| command.as_bytes()).unwrap_or_default();
    let words = command.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(<[u8]>::to_vec);
    words.chain(more.iter().map(|word| word.clone().into_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_are_powers_of_two_in_range() {
        for (text, bytes) in [("4096", 4096), ("4K", 4096), ("128k", 131_072), ("1M", 1_048_576), ("1024K", 1_048_576)]
        {
            assert_eq!(block_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "5K", "2K", "2M", "-4K", "4096M", "4294967297", "0"] {
            assert!(block_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("0", 0), ("12", 12), ("3k", 3 << 10), ("2M", 2 << 20), ("5G", 5 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "-1", "1.5G", "1P", "99999999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_bytes_and_names_are_not_empty() {
        let parsed = assignment(OsStr::from_bytes(b"A=\xff=b")).unwrap();
        assert_eq!(parsed, Variable { name: b"A".into(), value: b"\xff=b".into() });
        assert_eq!(assignment(OsStr::new("A=")).unwrap().value, b"");
        for text in ["=x", "A", ""] {
            assert!(assignment(OsStr::new(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn commands_are_split_and_arguments_are_not() {
        assert_eq!(words(Some(&" a  b\t".into()), &["c d".into(), "".into()]), [&b"a"[..], b"b", b"c d", b""]);
        assert!(words(None, &[]).is_empty());
    }
}
