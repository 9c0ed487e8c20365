//! A remembered owner as text: the value of the attribute `user.fim.owner` and part of a line of the ledger
//! (docs/FORMAT.md).

/// What kind of device a file stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Character device.
    Character,
    /// Block device.
    Block,
}

/// A device node that a file stands for, which only real root could have made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its kind.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Whom a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// The device that it stands for.
    pub device: Option<Device>,
}

impl Owner {
    /// Whether it is what a file without any mark has.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// `UID:GID`, and `:c:MAJOR:MINOR` or `:b:MAJOR:MINOR` behind it for a device.
    #[must_use]
    pub fn encode(&self) -> String {
        let Self { uid, gid, device } = self;
        match device {
            None => format!("{uid}:{gid}"),
            Some(Device { kind, major, minor }) => {
                let kind = if *kind == DeviceKind::Block { 'b' } else { 'c' };
                format!("{uid}:{gid}:{kind}:{major}:{minor}")
            }
        }
    }

    /// Reads what [`Owner::encode`] wrote; `None` for anything else, which marks nothing. Any program can write the
    /// attribute.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut fields = text.split(':');
        let uid = number(fields.next()?)?;
        let gid = number(fields.next()?)?;
        let device = match fields.next() {
            None => None,
            Some(kind) => {
                let kind = match kind {
                    "c" => DeviceKind::Character,
                    "b" => DeviceKind::Block,
                    _ => return None,
                };
                Some(Device { kind, major: number(fields.next()?)?, minor: number(fields.next()?)? })
            }
        };
        (fields.next().is_none() && uid != u32::MAX && gid != u32::MAX).then_some(Self { uid, gid, device })
    }
}

/// Decimal digits only: `parse` would take a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_survive_as_text() {
        let device = Some(Device { kind: DeviceKind::Block, major: 8, minor: 1 });
        for (owner, text) in [
            (Owner { uid: 33, gid: 4, device: None }, "33:4"),
            (Owner { uid: 4_294_967_294, gid: 0, device }, "4294967294:0:b:8:1"),
        ] {
            assert_eq!(owner.encode(), text);
            assert_eq!(Owner::decode(text.as_bytes()), Some(owner));
        }
    }

    #[test]
    fn anything_else_marks_nothing() {
        for text in [
            "",
            "1",
            "1:",
            ":1",
            "1:2:",
            "+1:2",
            "-1:2",
            "1:2:3",
            "1:2:c:1",
            "1:2:c:1:2:3",
            "1:4294967295",
            "1:2\n",
            "\u{ff}:1",
        ] {
            assert_eq!(Owner::decode(text.as_bytes()), None, "{text:?}");
        }
    }
}
