//! Reading a range of a file from its beginning, with jumps forward.

use crate::source::{ByteSource, FileRange};
use std::io::{self, BufRead, Read};

/// Bytes read at once.
const BUFFER: usize = 64 << 10;

/// A position in a range of a file.
pub struct Reader {
    range: FileRange,
    /// Offset in the range of the byte that is read next.
    at: u64,
    /// Bytes that stand before `at + ahead`, of which the last `ahead` are not read yet.
    buffer: Vec<u8>,
    ahead: usize,
}

impl Reader {
    pub fn new(range: FileRange) -> Self {
        Self { range, at: 0, buffer: Vec::new(), ahead: 0 }
    }

    /// Offset in the range of the byte that is read next.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Whether `count` bytes follow.
    ///
    /// # Errors
    /// `UnexpectedEof` when there are not so many.
    pub fn holds(&self, count: u64) -> io::Result<u64> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.range.len());
        end.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Leaves out `count` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` when there are not so many.
    pub fn skip(&mut self, count: u64) -> io::Result<()> {
        self.at = self.holds(count)?;
        self.ahead = usize::try_from(count).ok().and_then(|count| self.ahead.checked_sub(count)).unwrap_or(0);
        Ok(())
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.ahead == 0 {
            let left = self.range.len() - self.at;
            self.buffer.resize(usize::try_from(left).unwrap_or(BUFFER).min(BUFFER), 0);
            self.range.read_exact_at(&mut self.buffer, self.at)?;
            self.ahead = self.buffer.len();
        }
        Ok(&self.buffer[self.buffer.len() - self.ahead..])
    }

    fn consume(&mut self, count: usize) {
        self.ahead -= count;
        self.at += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Arc;

    #[test]
    fn jumps_and_reads_meet_the_bytes_of_the_range() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|index| (index / 7) as u8).collect();
        file.write_all(&bytes).unwrap();
        let mut reader = Reader::new(FileRange::new(Arc::new(file), 1000, 250_000));
        let (mut at, mut got) = (1000, [0; 700]);
        for jump in [0, 5, 64 << 10, 100_000, 3] {
            reader.skip(jump as u64).unwrap();
            at += jump;
            reader.read_exact(&mut got).unwrap();
            assert_eq!(got, bytes[at..at + 700]);
            at += 700;
            assert_eq!(reader.position(), at as u64 - 1000);
        }
        assert!(reader.skip(250_000).is_err() && reader.skip(u64::MAX).is_err());
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, bytes[at..251_000]);
    }
}
