//! Records of an extended header: POSIX.1-2017 `pax`, "pax Extended Header".

use std::io;

/// Nanoseconds in a second.
const SECOND: u32 = 1_000_000_000;

/// Records that override fields of the next header, and the rest by name. Later ones win.
#[derive(Debug, Default, Clone)]
pub struct Records {
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

fn bad(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

impl Records {
    /// Parses `LENGTH KEYWORD=VALUE\n` records, where LENGTH counts the whole record. Values are any bytes.
    ///
    /// # Errors
    /// When a record is not one.
    pub fn parse(mut data: &[u8]) -> io::Result<Self> {
        let mut records = Vec::new();
        // Some writers pad with zeros.
        while !data.is_empty() && data.iter().any(|&byte| byte != 0) {
            let (length, digits) = leading_number(data).ok_or_else(|| bad("a pax record without a length"))?;
            let length = usize::try_from(length).ok().filter(|&length| length <= data.len() && length > digits + 1);
            let (record, rest) = data.split_at(length.ok_or_else(|| bad("a pax record of an impossible length"))?);
            let body = record[digits..].strip_prefix(b" ").and_then(|body| body.strip_suffix(b"\n"));
            let body = body.ok_or_else(|| bad("a pax record that does not end where it says"))?;
            let equals = body.iter().position(|&byte| byte == b'=');
            let equals = equals.ok_or_else(|| bad("a pax record without a value"))?;
            records.push((body[..equals].to_vec(), body[equals + 1..].to_vec()));
            data = rest;
        }
        Ok(Self { records })
    }

    /// Adds records that win over those here.
    pub fn extend(&mut self, later: &Self) {
        self.records.extend_from_slice(&later.records);
    }

    /// The value of a keyword; an empty value takes it back.
    pub fn get(&self, keyword: &str) -> Option<&[u8]> {
        let found = self.records.iter().rev().find(|(key, _)| key == keyword.as_bytes());
        found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }

    /// A value that is a decimal number.
    ///
    /// # Errors
    /// When it is not.
    pub fn number(&self, keyword: &str) -> io::Result<Option<u64>> {
        self.get(keyword).map(|value| whole_number(value, keyword)).transpose()
    }

    /// A time in seconds, rounded down, and nanoseconds from there; the value may be negative and have a fraction.
    ///
    /// # Errors
    /// When the value is not a time.
    pub fn time(&self, keyword: &str) -> io::Result<Option<(i64, u32)>> {
        let Some(value) = self.get(keyword) else { return Ok(None) };
        let wrong = || bad(format!("the pax record {keyword} is not a time"));
        let text = std::str::from_utf8(value).map_err(|_| wrong())?;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = whole.parse().map_err(|_| wrong())?;
        if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(wrong());
        }
        let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
        let nanoseconds = digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
        if whole.starts_with('-') && fraction.bytes().any(|digit| digit != b'0') {
            return Ok(Some((seconds.saturating_sub(1), (SECOND - nanoseconds) % SECOND)));
        }
        Ok(Some((seconds, nanoseconds)))
    }

    /// The records in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.records.iter().map(|(key, value)| (&**key, &**value))
    }
}

/// The number at the beginning of `data` and how many digits it has.
pub fn leading_number(data: &[u8]) -> Option<(u64, usize)> {
    let digits = data.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&data[..digits]).ok()?.parse().ok()?;
    Some((number, digits))
}

/// All of `value` as a number.
pub fn whole_number(value: &[u8], what: &str) -> io::Result<u64> {
    let number = leading_number(value).filter(|&(_, digits)| digits == value.len());
    number.map(|(number, _)| number).ok_or_else(|| bad(format!("the pax record {what} is not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_and_equals_signs() {
        let records = Records::parse(b"20 SCHILY.xattr.u=a\n11 x=\n\0=\xff \n9 x=last\n").unwrap();
        assert_eq!(records.get("SCHILY.xattr.u"), Some(&b"a"[..]));
        assert_eq!(records.get("x"), Some(&b"last"[..]));
        assert_eq!(records.iter().nth(1), Some((&b"x"[..], &b"\n\0=\xff "[..])));
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        for data in
            [&b"x=1\n"[..], b"99 x=1\n", b"6 x=1\n\n", b"6 x=12\n", b"5 xx1\n", b"1 x", b"99999999999999999999 x=1\n"]
        {
            assert!(Records::parse(data).is_err(), "{}", data.escape_ascii());
        }
        assert!(Records::parse(b"\0\0\0").unwrap().iter().next().is_none());
    }

    #[test]
    fn times_are_rounded_down() {
        for (value, time) in [
            ("1.999", (1, 999_000_000)),
            ("1.0000000019", (1, 1)),
            ("-1.5", (-2, 500_000_000)),
            ("-1.0", (-1, 0)),
            ("-0.000000001", (-1, 999_999_999)),
            ("-1.0000000009", (-2, 0)),
            ("7", (7, 0)),
            ("7.", (7, 0)),
        ] {
            let record = format!("{:02} t={value}\n", value.len() + 6);
            let records = Records::parse(record.as_bytes()).unwrap();
            assert_eq!(records.time("t").unwrap(), Some(time), "{value}");
        }
        assert!(Records::parse(b"06 t=x\n").is_err());
        for record in [&b"07 t=x\n"[..], b"09 t=1.x\n", b"10 t=1.-2\n", b"10 t=1.2.\n"] {
            assert!(Records::parse(record).unwrap().time("t").is_err());
        }
    }
}
