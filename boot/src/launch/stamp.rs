//! Lines of a service's log: each with its time and its service in front.

use runtime::time::rfc3339;

/// What stands in front of the lines of one run.
#[derive(Debug)]
pub(super) struct Stamp {
    /// `INSTALLATION.SERVICE[PID]`.
    name: String,
    /// Whether the last line has not ended.
    inside: bool,
}

impl Stamp {
    pub(super) fn new(name: String) -> Self {
        Self { name, inside: false }
    }

    /// A piece of output with what belongs in front of the lines that begin in it; `now` is in seconds since the epoch.
    pub(super) fn stamped(&mut self, bytes: &[u8], now: u64) -> Vec<u8> {
        let stamp = format!("{} {}: ", rfc3339(now), self.name);
        let mut stamped = Vec::with_capacity(bytes.len() + stamp.len());
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            if !self.inside {
                stamped.extend_from_slice(stamp.as_bytes());
            }
            stamped.extend_from_slice(line);
            self.inside = !line.ends_with(b"\n");
        }
        stamped
    }

    /// What ends a line that has not ended.
    pub(super) fn end_of_line(&mut self) -> &'static [u8] {
        if std::mem::take(&mut self.inside) { b"\n" } else { b"" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_time_and_service() {
        let mut stamp = Stamp::new("app_foo.web[1760]".to_owned());
        let mut text = |bytes: &str| String::from_utf8(stamp.stamped(bytes.as_bytes(), 1_538_569_919)).unwrap();
        assert_eq!(
            text("OSError\nmo"),
            "2018-10-03T12:31:59Z app_foo.web[1760]: OSError\n2018-10-03T12:31:59Z app_foo.web[1760]: mo"
        );
        assert_eq!(text("re\n"), "re\n");
        assert_eq!(text("\n"), "2018-10-03T12:31:59Z app_foo.web[1760]: \n");
        assert_eq!(text(""), "");
        assert_eq!(stamp.end_of_line(), b"");
        stamp.stamped(b"x", 0);
        assert_eq!((stamp.end_of_line(), stamp.end_of_line()), (&b"\n"[..], &b""[..]));
    }
}
