//! Bytes without the C library: `==` on slices and copies of them would call it.

use core::mem::MaybeUninit;

#[inline(always)]
pub(crate) fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a == b)
}

#[inline(always)]
pub(crate) fn after<'a>(bytes: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = bytes.split_at_checked(prefix.len())?;
    equal(start, prefix).then_some(rest)
}

/// The bytes before the first `end`, and those behind it.
#[inline(always)]
pub(crate) fn until(bytes: &[u8], end: u8) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|&byte| byte == end)?;
    Some((bytes.get(..place)?, bytes.get(place + 1..)?))
}

#[inline(always)]
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first()?;
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let mut value = digit(*first)?;
    for &byte in rest {
        value = value.checked_mul(10)?.checked_add(digit(byte)?)?;
    }
    Some(value)
}

/// The little-endian integer at `offset`, of as many bytes as asked for.
#[inline(always)]
pub(crate) fn integer(bytes: &[u8], offset: usize, len: usize) -> Option<u64> {
    let field = bytes.get(offset..offset.checked_add(len)?)?;
    Some(field.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// A string that is put together piece by piece, on the stack.
pub(crate) struct Text<const SIZE: usize> {
    bytes: [MaybeUninit<u8>; SIZE],
    len: usize,
}

impl<const SIZE: usize> Text<SIZE> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self { bytes: [MaybeUninit::uninit(); SIZE], len: 0 }
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, more: &[u8]) -> Option<&mut Self> {
        for &byte in more {
            self.bytes.get_mut(self.len)?.write(byte);
            self.len += 1;
        }
        Some(self)
    }

    #[inline(always)]
    pub(crate) fn push_number(&mut self, number: u64) -> Option<&mut Self> {
        // From the last digit to the first; no 64-bit number has more than twenty.
        let mut digits = [0; 20];
        let (mut rest, mut first) = (number, digits.len());
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            first -= 1;
            if rest == 0 {
                break;
            }
        }
        self.push(digits.get(first..)?)
    }

    #[inline(always)]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes have been written by `push`.
        unsafe { core::slice::from_raw_parts(self.bytes.as_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_and_out() {
        for value in [0, 7, 10, 99, 100, 4_294_967_296, u64::MAX] {
            let mut text = Text::<24>::new();
            text.push(b"x").unwrap().push_number(value).unwrap();
            assert_eq!(text.as_bytes(), format!("x{value}").as_bytes());
            assert_eq!(number(&text.as_bytes()[1..]), Some(value));
        }
        for bad in ["", "-1", "1x", "18446744073709551616", " 1"] {
            assert_eq!(number(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn text_that_does_not_fit_is_refused() {
        let mut text = Text::<3>::new();
        assert!(text.push(b"abc").is_some());
        assert!(text.push(b"d").is_none());
        assert!(Text::<1>::new().push_number(10).is_none());
    }

    #[test]
    fn pieces() {
        assert_eq!(after(b"fim-exec", b"fim-"), Some(&b"exec"[..]));
        assert_eq!(after(b"fim", b"fim-"), None);
        assert_eq!(until(b"77 12\n", b' '), Some((&b"77"[..], &b"12\n"[..])));
        assert_eq!(until(b"77", b' '), None);
        assert_eq!(integer(b"\x00\x01\x02\x03", 1, 2), Some(0x0201));
        assert_eq!(integer(b"\x00", 0, 2), None);
        assert_eq!(integer(b"\x00", usize::MAX, 2), None);
        assert!(equal(b"", b"") && !equal(b"a", b"ab"));
    }
}
