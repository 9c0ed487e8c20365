//! Bytes as printable text: those that stand for something else become `%` and two hexadecimal digits (RFC 3986,
//! section 2.1).

use std::fmt::Write;

/// The bytes as text. Letters, digits and the bytes in `kept` stay as they are.
pub(crate) fn escape(bytes: &[u8], kept: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || kept.contains(byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// The bytes that a text stands for; `None` when an escape is none.
pub(crate) fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut parts = text.split(|byte| *byte == b'%');
    let mut bytes = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let digits = std::str::from_utf8(part.get(..2)?).ok().filter(|digits| !digits.contains('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part[2..]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        for kept in [&b""[..], b"/-._"] {
            let text = escape(&all, kept);
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            assert_eq!(unescape(text.as_bytes()), Some(all.clone()));
        }
        assert_eq!(escape(b"a/b c%", b"/"), "a/b%20c%25");
        for text in ["%", "%2", "%zz", "%+1"] {
            assert_eq!(unescape(text.as_bytes()), None, "{text}");
        }
    }
}
