//! Content digests: OCI image specification, "Content Descriptors", section "Digests".

use crate::source::{ByteSource, FileRange};
use sha2::digest::DynDigest;
use std::fmt::{self, Write};
use std::io;

/// Bytes hashed at once.
const STEP: usize = 1 << 20;

/// The digest of a blob. Only digests that can be checked can be made, so its name in a store is safe, too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Digest {
    algorithm: &'static str,
    hex: String,
}

impl Digest {
    /// Parses `sha256:HEX` or `sha512:HEX`, hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let (algorithm, hex) = text.split_once(':')?;
        let (algorithm, len) = match algorithm {
            "sha256" => ("sha256", 64),
            "sha512" => ("sha512", 128),
            _ => return None,
        };
        let digits = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (digits && hex.len() == len).then(|| Self { algorithm, hex: hex.to_owned() })
    }

    /// The name of the blob in an image layout.
    pub fn path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm, self.hex)
    }

    /// Whether `range` has this digest. `None` when `stopped` says so before the end.
    pub fn fits(&self, range: &FileRange, stopped: &dyn Fn() -> bool) -> io::Result<Option<bool>> {
        let mut hasher: Box<dyn DynDigest> = match self.algorithm {
            "sha512" => Box::new(sha2::Sha512::default()),
            _ => Box::new(sha2::Sha256::default()),
        };
        let (mut at, mut buffer) = (0, vec![0; STEP]);
        while at < range.len() {
            if stopped() {
                return Ok(None);
            }
            let count = usize::try_from(range.len() - at).unwrap_or(STEP).min(STEP);
            range.read_exact_at(&mut buffer[..count], at)?;
            hasher.update(&buffer[..count]);
            at += count as u64;
        }
        let mut hex = String::with_capacity(self.hex.len());
        for byte in hasher.finalize() {
            // Writing to a string does not fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Ok(Some(hex == self.hex))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn only_digests_that_can_be_checked_are_taken() {
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(Digest::parse(&format!("sha256:{hex}")).unwrap().path(), format!("blobs/sha256/{hex}"));
        assert!(Digest::parse(&format!("sha512:{hex}{hex}")).is_some());
        for text in [
            hex.clone(),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{hex}0"),
            format!("sha512:{hex}"),
            format!("md5:{hex}"),
            format!("sha256:../{}", &hex[3..]),
            String::new(),
        ] {
            assert_eq!(Digest::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn a_digest_fits_its_bytes_only() {
        // FIPS 180-2, appendix B.1: "abc".
        let digest = Digest::parse("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        let fits = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, bytes).unwrap();
            digest.fits(&FileRange::whole(Arc::new(file)).unwrap(), &|| false).unwrap()
        };
        assert_eq!((fits(b"abc"), fits(b"abd"), fits(b"")), (Some(true), Some(false), Some(false)));
    }
}
