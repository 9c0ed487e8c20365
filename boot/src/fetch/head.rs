//! The heads of HTTP answers (RFC 9112), as curl and wget print them in front of the content.

/// Most bytes of a head.
pub(super) const MAX: usize = 64 * 1024;

/// What a head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// The status code.
    pub(super) status: u16,
    /// Code and reason, as in `404 Not Found`; printable.
    pub(super) line: String,
    /// Bytes of content that follow, when it says so.
    length: Option<u64>,
    /// First byte and length of all, of an answer with a part.
    range: Option<(u64, Option<u64>)>,
}

impl Head {
    /// The head at the beginning of `bytes`, and how long it is; `Ok(None)` when more bytes are needed.
    ///
    /// # Errors
    /// When what is there is none.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, &'static str> {
        const START: &[u8] = b"HTTP/";
        if !bytes.starts_with(&START[..START.len().min(bytes.len())]) {
            return Err("the answer is not HTTP");
        }
        let ends = [&b"\r\n\r\n"[..], b"\n\n"];
        let end = |end: &[u8]| bytes.windows(end.len()).position(|window| window == end).map(|at| at + end.len());
        let Some(len) = ends.iter().filter_map(|text| end(text)).min() else {
            return if bytes.len() > MAX { Err("the head of the answer has no end") } else { Ok(None) };
        };
        let text = String::from_utf8_lossy(&bytes[..len]);
        let mut lines = text.lines();
        let line = lines.next().and_then(|line| line.split_once(' ')).map(|(_, line)| line.trim());
        let line: String = line.unwrap_or_default().chars().filter(|char| !char.is_control()).take(100).collect();
        let status = line.get(..3).and_then(|digits| digits.parse().ok()).ok_or("the answer has no status")?;
        let mut head = Self { status, line, length: None, range: None };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("Content-Length") {
                head.length = value.parse().ok();
            } else if name.eq_ignore_ascii_case("Content-Range") {
                head.range = range(value);
            }
        }
        Ok(Some((head, len)))
    }

    /// Whether another head follows instead of content: of what was asked for next, or at last.
    pub(super) fn is_followed(&self) -> bool {
        matches!(self.status, 100..200 | 300..400)
    }

    /// Where the content begins in the whole, and how long the whole is; `None` unless it is content.
    pub(super) fn place(&self) -> Option<(u64, Option<u64>)> {
        match self.status {
            200 => Some((0, self.length)),
            206 => self.range,
            _ => None,
        }
    }
}

/// First byte and whole length in `bytes FIRST-LAST/LENGTH`.
fn range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, length) = value.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, length.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<(Head, usize)>, &'static str> {
        Head::parse(text.as_bytes())
    }

    #[test]
    fn a_head_tells_what_follows() {
        let (head, len) = parse("HTTP/1.1 200 OK\r\ncontent-length: 12\r\nX: y\r\n\r\ncontent").unwrap().unwrap();
        assert_eq!((head.place(), head.line.as_str(), len), (Some((0, Some(12))), "200 OK", 45));
        let (head, _) =
            parse("HTTP/2 206 \r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.place(), head.line.as_str()), (Some((5, Some(10))), "206"));
        let (head, _) = parse("HTTP/1.0 206 Part\nContent-Range: bytes 5-9/*\n\n").unwrap().unwrap();
        assert_eq!(head.place(), Some((5, None)));
        for (text, followed) in [("HTTP/1.1 302 Found\r\n\r\n", true), ("HTTP/1.1 404 Not Found\r\n\r\n", false)] {
            let (head, _) = parse(text).unwrap().unwrap();
            assert_eq!((head.is_followed(), head.place()), (followed, None));
        }
        // A part without its place is none.
        let (head, _) = parse("HTTP/1.1 206 Part\r\nContent-Range: bytes x\r\n\r\n").unwrap().unwrap();
        assert_eq!(head.place(), None);
    }

    #[test]
    fn heads_come_in_pieces_and_junk_is_none() {
        let text = "HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
        for len in 0..text.len() {
            assert_eq!(parse(&text[..len]), Ok(None), "{len}");
        }
        for junk in ["<html>", "HTTQ", "HTTP/1.1\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 2é0\r\n\r\n", "\r\n\r\n"]
        {
            assert!(parse(junk).is_err(), "{junk:?}");
        }
        assert!(parse(&format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(MAX))).is_err());
        let (head, _) = parse("HTTP/1.1 404 \x1b[2Jno\r\nContent-Length: -1\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.line.as_str(), head.length), ("404 [2Jno", None));
    }
}
