//! Ports on the command line: `HOST:GUEST`, `HOST:GUEST/udp`.

use std::ffi::OsStr;
use std::fmt;

use runtime::image::declared::Port;

use crate::{Failure, Message};

/// A published port as somebody names it who knows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    host: u16,
    guest: Option<u16>,
    udp: bool,
}

impl Named {
    /// `HOST`, `HOST:GUEST`, either with `/udp` or `/tcp`.
    pub(super) fn parse(word: &OsStr) -> Result<Self, Failure> {
        let text = word.to_string_lossy();
        let (ports, udp) = protocol(&text)?;
        let (host, guest) = match ports.split_once(':') {
            Some((host, guest)) => (host, Some(number(guest, &text)?)),
            None => (ports, None),
        };
        Ok(Self { host: number(host, &text)?, guest, udp })
    }

    pub(super) fn is(&self, port: &Port) -> bool {
        (self.host, self.udp) == (port.host, port.udp) && self.guest.is_none_or(|guest| guest == port.guest)
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guest = self.guest.iter().map(|guest| format!(":{guest}")).collect::<String>();
        write!(f, "{}{guest}{}", self.host, suffix(self.udp))
    }
}

/// The port that a word asks for.
pub(super) fn parse(word: &OsStr) -> Result<Port, Failure> {
    let Named { host, guest, udp } = Named::parse(word)?;
    let guest =
        guest.ok_or_else(|| invalid(&word.to_string_lossy(), "it lacks the port of the guest, as in HOST:GUEST"))?;
    Ok(Port { host, guest, udp, service: None })
}

/// One port.
pub(crate) fn single(word: &OsStr) -> Result<u16, Failure> {
    let text = word.to_string_lossy();
    number(&text, &text)
}

/// A port as [`parse`] reads it.
pub(crate) fn shown(port: &Port) -> String {
    format!("{}:{}{}", port.host, port.guest, suffix(port.udp))
}

fn suffix(udp: bool) -> &'static str {
    if udp { "/udp" } else { "" }
}

fn protocol(text: &str) -> Result<(&str, bool), Failure> {
    match text.split_once('/') {
        None => Ok((text, false)),
        Some((ports, "tcp")) => Ok((ports, false)),
        Some((ports, "udp")) => Ok((ports, true)),
        Some((_, other)) => Err(invalid(text, &format!("'{}' is neither tcp nor udp", other.escape_debug()))),
    }
}

fn number(digits: &str, text: &str) -> Result<u16, Failure> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.parse().ok().filter(|port| *port > 0 && is_number);
    port.ok_or_else(|| invalid(text, &format!("'{}' is no number from 1 to 65535", digits.escape_debug())))
}

fn invalid(text: &str, reason: &str) -> Failure {
    Message::boxed(format!("Invalid port '{}': {reason}; see fim-help port", text.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let read = |word: &str| parse(OsStr::new(word)).map(|port| (port.host, port.guest, port.udp));
        for (word, port) in
            [("8080:80", (8080, 80, false)), ("1:65535/tcp", (1, 65535, false)), ("53:53/udp", (53, 53, true))]
        {
            assert_eq!(read(word).unwrap(), port);
        }
        for word in [
            "",
            "80",
            ":80",
            "80:",
            "0:80",
            "80:0",
            "65536:80",
            "80:80:80",
            "a:b",
            "+80:80",
            "-1:80",
            "80:80/",
            "80:80/sctp",
            " 80:80",
            "80 :80",
        ] {
            let error = read(word).unwrap_err().to_string();
            assert!(error.starts_with(&format!("Invalid port '{word}': ")), "{error}");
        }
    }

    #[test]
    fn names_of_published_ports() {
        let port = Port { host: 80, guest: 81, udp: true, service: None };
        let is = |word: &str| Named::parse(OsStr::new(word)).unwrap().is(&port);
        assert!(is("80/udp") && is("80:81/udp"));
        assert!(!is("80") && !is("80:80/udp") && !is("81/udp"));
        assert_eq!(shown(&port), "80:81/udp");
    }
}
