//! LZO1X decompression.
//!
//! Our own, from the kernel's description of the stream (`Documentation/staging/lzo.rst`), because a hostile stream
//! must end in an error: bounded output, no panic.

/// Unpacks `input` into at most `limit` bytes.
pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>, &'static str> {
    let mut input = Input(input);
    let mut output = Output { bytes: Vec::with_capacity(limit), limit };
    // How many literals the last instruction copied; 4 stands for "4 or more".
    let mut state = 0;

    match input.0.first() {
        Some(&first @ 22..) => {
            input.byte()?;
            output.literals(&mut input, usize::from(first) - 17)?;
            state = 4;
        }
        Some(&first @ 18..=21) => {
            input.byte()?;
            state = usize::from(first) - 17;
            output.literals(&mut input, state)?;
        }
        _ => {} // the stream begins with a regular instruction
    }

    loop {
        let instruction = usize::from(input.byte()?);
        let (distance, length, literals) = match instruction {
            64.. => {
                let distance = (usize::from(input.byte()?) << 3) + ((instruction >> 2) & 7) + 1;
                (distance, (instruction >> 5) + 1, instruction & 3)
            }
            32.. => {
                let length = input.length(instruction & 31, 31, limit)? + 2;
                let word = input.word()?;
                ((word >> 2) + 1, length, word & 3)
            }
            16.. => {
                let length = input.length(instruction & 7, 7, limit)? + 2;
                let word = input.word()?;
                let distance = ((instruction & 8) << 11) + (word >> 2);
                if distance == 0 {
                    return if length == 3 && input.0.is_empty() {
                        Ok(output.bytes)
                    } else {
                        Err("the end mark is not at the end")
                    };
                }
                (distance + 16384, length, word & 3)
            }
            _ if state == 0 => {
                let length = input.length(instruction, 15, limit)? + 3;
                output.literals(&mut input, length)?;
                state = 4;
                continue;
            }
            _ if state == 4 => {
                let distance = (usize::from(input.byte()?) << 2) + (instruction >> 2) + 2049;
                (distance, 3, instruction & 3)
            }
            _ => {
                let distance = (usize::from(input.byte()?) << 2) + (instruction >> 2) + 1;
                (distance, 2, instruction & 3)
            }
        };
        output.repeat(distance, length)?;
        output.literals(&mut input, literals)?;
        state = literals;
    }
}

/// What is left of the stream.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, &'static str> {
        Ok(self.bytes(1)?[0])
    }

    fn word(&mut self) -> Result<usize, &'static str> {
        let low = self.byte()?;
        Ok(usize::from(u16::from_le_bytes([low, self.byte()?])))
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("the stream ends early")?;
        self.0 = rest;
        Ok(taken)
    }

    /// A length of which `bits` stand in the instruction; zero says that it exceeds `base` and follows.
    fn length(&mut self, bits: usize, base: usize, limit: usize) -> Result<usize, &'static str> {
        if bits != 0 {
            return Ok(bits);
        }
        let mut length = base;
        loop {
            match self.byte()? {
                0 => length += 255,
                last => return Ok(length + usize::from(last)),
            }
            if length > limit {
                return Err("a run exceeds the block");
            }
        }
    }
}

struct Output {
    bytes: Vec<u8>,
    limit: usize,
}

impl Output {
    fn literals(&mut self, input: &mut Input<'_>, count: usize) -> Result<(), &'static str> {
        let literals = input.bytes(count)?;
        self.reserve(count)?;
        self.bytes.extend_from_slice(literals);
        Ok(())
    }

    /// Appends `length` bytes, each equal to the one `distance` (at least 1) before it.
    fn repeat(&mut self, distance: usize, length: usize) -> Result<(), &'static str> {
        let start = self.bytes.len().checked_sub(distance).ok_or("a match begins before the block")?;
        self.reserve(length)?;
        let end = self.bytes.len() + length;
        while self.bytes.len() < end {
            let count = (end - self.bytes.len()).min(self.bytes.len() - start);
            self.bytes.extend_from_within(start..start + count);
        }
        Ok(())
    }

    fn reserve(&self, count: usize) -> Result<(), &'static str> {
        if count > self.limit - self.bytes.len() { Err("it unpacks to more than is allowed") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_stream_unpacks() {
        let stream = [17 + 5, b'h', b'e', b'l', b'l', b'o', 0x11, 0, 0];
        assert_eq!(decompress(&stream, 5).as_deref(), Ok(&b"hello"[..]));
        assert!(decompress(&stream, 4).is_err());
    }

    #[test]
    fn an_overlapping_match_repeats_its_bytes() {
        // Literals "abcd", then [M3] length 2 + 10 at distance 2, no literals; end mark.
        let stream = [17 + 4, b'a', b'b', b'c', b'd', 32 | 10, 1 << 2, 0, 0x11, 0, 0];
        // 21 is in 18..=21: four literals with state 4.
        assert_eq!(decompress(&stream, 64).as_deref(), Ok(&b"abcdcdcdcdcdcdcd"[..]));
    }

    #[test]
    fn every_damaged_stream_ends() {
        let stream = [17 + 4, b'a', b'b', b'c', b'd', 32 | 10, 1 << 2, 0, 0x11, 0, 0];
        for at in 0..stream.len() {
            for value in 0..=255 {
                let mut damaged = stream;
                damaged[at] = value;
                if let Ok(output) = decompress(&damaged, 64) {
                    assert!(output.len() <= 64);
                }
                assert!(decompress(&damaged[..at], 64).is_err());
            }
        }
    }
}
