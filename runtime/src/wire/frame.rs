//! Frames: a length in bytes (u32, little-endian), then that many bytes.

use std::io::{self, Read, Write};

/// Longest frame in bytes. execve(2) takes at most a quarter of the stack limit, 6 MiB at the most the kernel allows
/// by itself; this leaves room for raised limits.
pub const LIMIT: usize = 64 << 20;

/// A frame as bytes.
///
/// # Errors
/// `InvalidInput` when `body` is longer than [`LIMIT`].
pub fn encode(body: &[u8]) -> io::Result<Vec<u8>> {
    let len = u32::try_from(body.len()).ok().filter(|len| *len as usize <= LIMIT);
    let len = len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is longer than 64 MiB"))?;
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(body);
    Ok(bytes)
}

/// Writes one frame with one system call where the kernel allows, so that small frames arrive whole.
///
/// # Errors
/// I/O errors, `BrokenPipe` when nobody reads.
pub fn write(to: &mut impl Write, body: &[u8]) -> io::Result<()> {
    to.write_all(&encode(body)?)
}

/// Reads one frame; `None` at the end of the stream.
///
/// # Errors
/// `UnexpectedEof` inside a frame, `InvalidData` for one longer than [`LIMIT`].
pub fn read(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    read_at_most(from, LIMIT)
}

/// Like [`read`], with another limit in bytes.
///
/// # Errors
/// As [`read`].
pub fn read_at_most(from: &mut impl Read, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    let mut got = 0;
    while got < len.len() {
        match from.read(&mut len[got..]) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let len = u32::from_le_bytes(len) as usize;
    if len > limit {
        let text = format!("the message is longer than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    // Memory grows with what really arrives, whatever length is claimed.
    let mut body = Vec::with_capacity(len.min(64 * 1024));
    from.take(len as u64).read_to_end(&mut body)?;
    if body.len() == len { Ok(Some(body)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_follow_each_other() {
        let mut bytes = Vec::new();
        for body in [&b""[..], b"one", &[7; 100_000]] {
            write(&mut bytes, body).unwrap();
        }
        let mut from = &bytes[..];
        assert_eq!(read(&mut from).unwrap().unwrap(), b"");
        assert_eq!(read(&mut from).unwrap().unwrap(), b"one");
        assert_eq!(read(&mut from).unwrap().unwrap().len(), 100_000);
        assert!(read(&mut from).unwrap().is_none());
    }

    #[test]
    fn cut_and_oversized_frames_are_errors() {
        let bytes = encode(b"hello").unwrap();
        for len in 1..bytes.len() {
            assert_eq!(read(&mut &bytes[..len]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{len}");
        }
        assert_eq!(read(&mut &[0xff; 8][..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
