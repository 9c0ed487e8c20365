//! Messages between clients, the host daemon and guest daemons. `docs/WIRE.md` specifies every one.
//!
//! Named pipes that several writers share carry only [`Doorbell`]s of one fixed size, which the kernel writes whole
//! (pipe(7), PIPE_BUF). Everything else travels in length-prefixed frames ([`frame`]) through the private pipes of one
//! request. Encoding and decoding are functions over bytes.

pub mod body;
pub mod frame;

/// Version of the messages; a peer of another version is answered with an error that says so.
pub const VERSION: u16 = 1;

/// Name of a request: 128 random bits, so that a client can send it again and it still runs once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub [u8; 16]);

impl RequestId {
    /// A new one.
    ///
    /// # Errors
    /// When the kernel has no randomness to give (getrandom(2)).
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        let file = std::fs::File::open("/dev/urandom")?;
        loop {
            std::io::Read::read_exact(&mut &file, &mut bytes)?;
            // So that a doorbell holds them at its beginning only.
            if !bytes.windows(Doorbell::MAGIC.len()).any(|window| window == Doorbell::MAGIC) {
                return Ok(Self(bytes));
            }
        }
    }

    /// The name of its directory: 32 hexadecimal digits.
    #[must_use]
    pub fn name(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }

    /// The request that a directory is named after.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let id = Self(u128::from_str_radix(name, 16).ok()?.to_be_bytes());
        (id.name() == name).then_some(id)
    }
}

/// What a doorbell asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// Look at the registry: an instance has started.
    Look,
    /// Run this request in this instance.
    Exec {
        /// Instance ID.
        instance: u64,
        /// Which request.
        request: RequestId,
    },
    /// Run this request of this instance on the host.
    Portal {
        /// Instance ID.
        instance: u64,
        /// Which request.
        request: RequestId,
    },
    /// Send this signal to the command of this instance; nobody answers.
    Signal {
        /// Instance ID.
        instance: u64,
        /// Signal number.
        number: i32,
    },
    /// A message of another version. These fields stand where every version has them, so that it can be refused.
    Foreign {
        /// The sender's version.
        version: u16,
        /// Instance ID.
        instance: u64,
        /// Which request.
        request: RequestId,
    },
}

/// A message of fixed size on a shared pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doorbell;

impl Doorbell {
    /// Its size in bytes, far below PIPE_BUF.
    pub const LEN: usize = 32;
    const MAGIC: [u8; 4] = *b"FIMD";
    const LOOK: u16 = 1;
    const EXEC: u16 = 2;
    const PORTAL: u16 = 3;
    const SIGNAL: u16 = 4;

    /// `FIMD`, version and kind (u16), instance (u64), request (16 bytes; a signal number, i32, begins them);
    /// numbers little-endian.
    #[must_use]
    pub fn encode(ring: Ring) -> [u8; Self::LEN] {
        let mut version = VERSION;
        let (kind, instance, request) = match ring {
            Ring::Look => (Self::LOOK, 0, RequestId([0; 16])),
            Ring::Exec { instance, request } => (Self::EXEC, instance, request),
            Ring::Portal { instance, request } => (Self::PORTAL, instance, request),
            Ring::Signal { instance, number } => {
                let mut body = [0; 16];
                body[..4].copy_from_slice(&number.to_le_bytes());
                (Self::SIGNAL, instance, RequestId(body))
            }
            Ring::Foreign { version: theirs, instance, request } => {
                version = theirs;
                (Self::EXEC, instance, request)
            }
        };
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&Self::MAGIC);
        bytes[4..6].copy_from_slice(&version.to_le_bytes());
        bytes[6..8].copy_from_slice(&kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&instance.to_le_bytes());
        bytes[16..].copy_from_slice(&request.0);
        bytes
    }

    fn decode(bytes: &[u8; Self::LEN]) -> Ring {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[8..16]);
        let instance = u64::from_le_bytes(number);
        let mut request = [0; 16];
        request.copy_from_slice(&bytes[16..]);
        let number = i32::from_le_bytes([request[0], request[1], request[2], request[3]]);
        let request = RequestId(request);
        match (u16_at(4), u16_at(6)) {
            (VERSION, Self::EXEC) => Ring::Exec { instance, request },
            (VERSION, Self::PORTAL) => Ring::Portal { instance, request },
            (VERSION, Self::SIGNAL) => Ring::Signal { instance, number },
            // Kinds that a later program of this version may add mean at least this much.
            (VERSION, _) => Ring::Look,
            (version, _) => Ring::Foreign { version, instance, request },
        }
    }
}

/// Takes doorbells out of a stream of bytes that anybody may have written into. Bytes that begin no doorbell are
/// passed over and counted, so that garbage costs nothing but itself.
#[derive(Debug, Default)]
pub struct Doorbells {
    pending: Vec<u8>,
    /// Bytes passed over so far.
    pub garbage: u64,
}

impl Doorbells {
    /// Adds bytes and returns the doorbells that are complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Ring> {
        self.pending.extend_from_slice(bytes);
        let mut rings = Vec::new();
        let mut at = 0;
        while self.pending.len() - at >= Doorbell::LEN {
            let rest = &self.pending[at..];
            let skipped = match rest.first_chunk::<{ Doorbell::LEN }>() {
                Some(message) if message.starts_with(&Doorbell::MAGIC) => match Self::cut_short(rest) {
                    Some(len) => len,
                    None => {
                        rings.push(Doorbell::decode(message));
                        at += Doorbell::LEN;
                        continue;
                    }
                },
                _ => 1,
            };
            self.garbage += skipped as u64;
            at += skipped;
        }
        self.pending.drain(..at);
        rings
    }

    /// Where another doorbell begins inside the one that `bytes` begin with: that one was written only in part, and
    /// the next must not be lost with it. The random request IDs never hold the magic bytes.
    fn cut_short(bytes: &[u8]) -> Option<usize> {
        let inside = &bytes[1..bytes.len().min(Doorbell::LEN + Doorbell::MAGIC.len() - 1)];
        inside.windows(Doorbell::MAGIC.len()).position(|window| window == Doorbell::MAGIC).map(|at| at + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: RequestId = RequestId(*b"0123456789abcdef");

    #[test]
    fn golden_bytes() {
        let bytes = Doorbell::encode(Ring::Exec { instance: 0x0102, request: REQUEST });
        assert_eq!(&bytes, b"FIMD\x01\0\x02\0\x02\x01\0\0\0\0\0\x000123456789abcdef");
        assert_eq!(REQUEST.name(), "30313233343536373839616263646566");
        assert_eq!(RequestId::parse(&REQUEST.name()), Some(REQUEST));
        for name in ["", "+0313233343536373839616263646566", "3031", "x", "..", "A0313233343536373839616263646566"] {
            assert_eq!(RequestId::parse(name), None);
        }
    }

    #[test]
    fn doorbells_survive_any_cut() {
        let ring = Ring::Exec { instance: 7, request: REQUEST };
        let stream: Vec<u8> = (0..3).flat_map(|_| Doorbell::encode(ring)).collect();
        for cut in 0..stream.len() {
            let mut doorbells = Doorbells::default();
            let mut rings = doorbells.feed(&stream[..cut]);
            rings.extend(doorbells.feed(&stream[cut..]));
            assert_eq!(rings, [ring; 3], "{cut}");
        }
    }

    #[test]
    fn garbage_is_passed_over() {
        let ring = Ring::Portal { instance: 1, request: REQUEST };
        let mut doorbells = Doorbells::default();
        let mut stream = b"garbage FIM".to_vec();
        stream.extend(Doorbell::encode(ring));
        stream.extend(b"F");
        stream.extend(Doorbell::encode(Ring::Look));
        assert_eq!(doorbells.feed(&stream), [ring, Ring::Look]);
        assert_eq!(doorbells.garbage, 12);
    }

    #[test]
    fn a_doorbell_written_in_part_does_not_take_the_next_with_it() {
        let ring = Ring::Exec { instance: 7, request: REQUEST };
        let whole = Doorbell::encode(ring);
        for len in 1..Doorbell::LEN {
            let mut doorbells = Doorbells::default();
            let mut rings = doorbells.feed(&whole[..len]);
            rings.extend(doorbells.feed(&whole));
            rings.extend(doorbells.feed(&whole));
            assert_eq!(rings, [ring; 2], "{len}");
        }
    }

    #[test]
    fn signals_keep_their_number() {
        let ring = Ring::Signal { instance: 3, number: -1 };
        assert_eq!(&Doorbell::encode(ring)[6..20], b"\x04\0\x03\0\0\0\0\0\0\0\xff\xff\xff\xff");
        assert_eq!(Doorbells::default().feed(&Doorbell::encode(ring)), [ring]);
    }

    #[test]
    fn another_version_tells_what_to_refuse() {
        let foreign = Ring::Foreign { version: 9, instance: 5, request: REQUEST };
        let bytes = Doorbell::encode(foreign);
        assert_eq!(bytes[4..6], [9, 0]);
        assert_eq!(Doorbells::default().feed(&bytes), [foreign]);
    }
}
