//! Key pairs and the files that hold them: one line of text each, `fim-secret-key 1 HEX` or `fim-public-key 1 HEX`.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// How the line of a secret key begins. Changing it breaks every stored key.
const SECRET: &str = "fim-secret-key 1 ";
/// How the line of a public key begins.
const PUBLIC: &str = "fim-public-key 1 ";

/// Most bytes that the file of a key has.
pub const MAX_FILE: u64 = 256;

/// Why something is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Another kind of file.
    #[error("it does not begin with '{0}'")]
    Prefix(&'static str),
    /// Not 64 hexadecimal digits.
    #[error("64 hexadecimal digits must follow '{0}', and nothing else")]
    Digits(&'static str),
    /// No point of the curve.
    #[error("it is no Ed25519 public key")]
    Point,
    /// The kernel gave no random numbers.
    #[error("the kernel gives no random numbers (getrandom(2)): {0}")]
    Random(getrandom::Error),
}

/// An Ed25519 public key (RFC 8032); prints as 64 lower-case hexadecimal digits. Not every value is one that can have
/// signed anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Reads the content of a public key file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let key = Self(hex_line(text, PUBLIC)?);
        VerifyingKey::from_bytes(&key.0).map(|_| key).map_err(|_| InvalidKey::Point)
    }

    /// The content of a public key file.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{PUBLIC}{self}\n")
    }

    /// Whether `signature` of `message` is by this key. Keys and signatures that fit several messages are refused.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let key = VerifyingKey::from_bytes(&self.0);
        key.is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An Ed25519 secret key. It is wiped from memory when it is dropped, and never printed by accident.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new one.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub fn generate() -> Result<Self, InvalidKey> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(InvalidKey::Random)?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads the content of a secret key file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        hex_line(text, SECRET).map(|seed| Self(SigningKey::from_bytes(&seed)))
    }

    /// The content of a secret key file.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{SECRET}{}\n", PublicKey(self.0.to_bytes()))
    }

    /// The public key that belongs to it.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey of {}", self.public())
    }
}

/// The 32 bytes behind `prefix` in a text of one line.
fn hex_line(text: &str, prefix: &'static str) -> Result<[u8; 32], InvalidKey> {
    let digits = text.strip_prefix(prefix).ok_or(InvalidKey::Prefix(prefix.trim_end()))?;
    let digits = digits.strip_suffix('\n').unwrap_or(digits).as_bytes();
    let wrong = InvalidKey::Digits(prefix.trim_end());
    let mut bytes = [0; 32];
    if digits.len() != 64 {
        return Err(wrong);
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or(wrong);
        *byte = (nibble(pair[0])? << 4 | nibble(pair[1])?) as u8;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2.
    const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const KEY: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";

    #[test]
    fn keys_and_signatures_are_those_of_the_standard() {
        let secret = SecretKey::parse(&format!("{SECRET}{SEED}\n")).unwrap();
        assert_eq!(secret.public().to_string(), KEY);
        assert_eq!(secret.line(), format!("{SECRET}{SEED}\n"));
        let signature = secret.sign(&[0x72]);
        assert_eq!(signature[..4], [0x92, 0xa0, 0x09, 0xa9]);
        assert!(secret.public().has_signed(&[0x72], &signature));
        assert!(!secret.public().has_signed(&[0x73], &signature));
        let mut bent = signature;
        bent[63] ^= 1;
        assert!(!secret.public().has_signed(&[0x72], &bent));
        assert!(!format!("{secret:?}").contains(&SEED[..8]));
    }

    #[test]
    fn files_are_one_line() {
        let key = PublicKey::parse(&format!("{PUBLIC}{KEY}")).unwrap();
        assert_eq!(PublicKey::parse(&key.line()), Ok(key));
        assert_ne!(SecretKey::generate().unwrap().line(), SecretKey::generate().unwrap().line());
        for (text, why) in [
            (String::new(), InvalidKey::Prefix("fim-public-key 1")),
            (format!("{SECRET}{SEED}\n"), InvalidKey::Prefix("fim-public-key 1")),
            (format!("{PUBLIC}{}", &KEY[1..]), InvalidKey::Digits("fim-public-key 1")),
            (format!("{PUBLIC}{KEY}\n\n"), InvalidKey::Digits("fim-public-key 1")),
            (format!("{PUBLIC}g{}", &KEY[1..]), InvalidKey::Digits("fim-public-key 1")),
            (format!("{PUBLIC}é{}", &KEY[2..]), InvalidKey::Digits("fim-public-key 1")),
            (format!("{PUBLIC}02{}", "00".repeat(31)), InvalidKey::Point),
        ] {
            assert_eq!(PublicKey::parse(&text), Err(why), "{text}");
        }
    }

    #[test]
    fn keys_of_small_order_have_signed_nothing() {
        // With the neutral element as key, a signature of zeros fits every message unless it is refused.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!PublicKey(neutral).has_signed(b"anything", &signature));
    }
}
