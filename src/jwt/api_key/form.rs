//! What a key looks like: a prefix, 256 random bits in base62, and a checksum in base62.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{BuildError, Secret};

/// How keys look and how they are hashed.
#[derive(Clone)]
pub(crate) struct Form {
    prefix: String,
    /// The pepper is worked in already.
    hasher: Hmac<Sha256>,
}

/// HMAC-SHA-256 of a key, under the pepper: all that is ever kept of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct KeyHash([u8; 32]);

impl Form {
    pub(crate) fn new(pepper: &Secret<Vec<u8>>) -> Result<Self, BuildError> {
        if pepper.expose().len() < MIN_PEPPER {
            return Err(BuildError::invalid("pepper", "less than 16 bytes"));
        }
        let hasher = Hmac::new_from_slice(pepper.expose());
        let hasher = hasher.map_err(|_| BuildError::invalid("pepper", "its length"))?;
        Ok(Self { prefix: DEFAULT_PREFIX.to_owned(), hasher })
    }

    pub(crate) fn with_prefix(mut self, prefix: String) -> Result<Self, BuildError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !prefix.bytes().all(plain) || !prefix.ends_with(['-', '_']) || prefix.len() > MAX_PREFIX
        {
            const RULE: &str = "up to 32 letters, digits, hyphens and underscores, the last of \
                                which is a hyphen or an underscore";
            return Err(BuildError::invalid("prefix", RULE));
        }
        // How every JWT begins: `{"` and `{ ` in base64url.
        if prefix.starts_with("ey") {
            return Err(BuildError::invalid("prefix", "a JWT may begin with it"));
        }
        self.prefix = prefix;
        Ok(self)
    }

    /// Whether a token says that it is one of these keys.
    pub(crate) fn claims(&self, token: &str) -> bool {
        token.starts_with(&self.prefix)
    }

    /// A new key.
    pub(crate) fn make(&self) -> Result<Secret<String>, getrandom::Error> {
        // In its full length from the start: growing would leave copies behind.
        let mut key = String::with_capacity(self.prefix.len() + RANDOM_DIGITS + CHECK_DIGITS);
        key.push_str(&self.prefix);
        push_random(&mut key, RANDOM_DIGITS)?;
        let check = check_digits(&key);
        key.extend(check.map(char::from));
        Ok(Secret::new(key))
    }

    /// What a key is kept as. `None` for what was never one, which no list need be asked to tell.
    pub(crate) fn hash(&self, key: &str) -> Option<KeyHash> {
        let digits = key.strip_prefix(&self.prefix)?;
        if digits.len() != RANDOM_DIGITS + CHECK_DIGITS
            || !digits.bytes().all(|digit| digit.is_ascii_alphanumeric())
        {
            return None;
        }
        let (body, check) = key.split_at_checked(key.len().checked_sub(CHECK_DIGITS)?)?;
        (check.as_bytes() == check_digits(body)).then(|| self.hash_any(key))
    }

    fn hash_any(&self, key: &str) -> KeyHash {
        let mut hasher = self.hasher.clone();
        hasher.update(key.as_bytes());
        KeyHash(hasher.finalize().into_bytes().into())
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Form").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl KeyHash {
    /// The key's name: made of its hash, so that either leads to the same record, and as little of a secret.
    /// 71 bits of it: among a million keys, two have one name once in billions.
    pub(crate) fn id(&self) -> [u8; ID_DIGITS] {
        let (halves, _) = self.0.as_chunks::<8>();
        let mut digits = [0; ID_DIGITS];
        for (half, digits) in halves.iter().zip(digits.chunks_mut(ID_DIGITS / 2)) {
            let mut rest = u64::from_le_bytes(*half);
            for place in digits {
                *place = digit(rest);
                rest /= BASE;
            }
        }
        digits
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

impl TryFrom<String> for KeyHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("a hash is not 32 bytes in base64url")
    }
}

impl From<KeyHash> for String {
    fn from(hash: KeyHash) -> Self {
        BASE64_URL_SAFE_NO_PAD.encode(hash.0)
    }
}

/// Adds digits, each as likely as all others: bytes past the last multiple of 62 are thrown away.
fn push_random(out: &mut String, count: usize) -> Result<(), getrandom::Error> {
    let mut left = count;
    while left > 0 {
        let mut bytes = Zeroizing::new([0; 64]);
        getrandom::fill(&mut *bytes)?;
        for byte in bytes.iter().filter(|byte| **byte < 248).take(left) {
            out.push(char::from(digit(u64::from(*byte))));
            left -= 1;
        }
    }
    Ok(())
}

/// CRC-32 in six digits: a mistyped key is told without asking anybody, and scanners that look for
/// leaked keys can tell one from any other text. Protects nothing.
fn check_digits(text: &str) -> [u8; CHECK_DIGITS] {
    let mut rest = u64::from(crc32(text.as_bytes()));
    let mut digits = [0; CHECK_DIGITS];
    for place in digits.iter_mut().rev() {
        *place = digit(rest);
        rest /= BASE;
    }
    digits
}

/// The digit of `value` modulo 62.
fn digit(value: u64) -> u8 {
    const DIGITS: &[u8; BASE as usize] =
        b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    DIGITS.get((value % BASE) as usize).copied().unwrap_or_default()
}

/// CRC-32 of ISO-HDLC, as in gzip (RFC 1952, section 8).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let [low, ..] = (crc ^ u32::from(*byte)).to_le_bytes();
        (crc >> 8) ^ CRC_TABLE.get(usize::from(low)).copied().unwrap_or_default()
    };
    !bytes.iter().fold(!0, step)
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        #[allow(clippy::indexing_slicing)] // A constant: out of bounds would not compile.
        {
            table[index] = crc;
        }
        index += 1;
    }
    table
};

const DEFAULT_PREFIX: &str = "sk-pal-";
const MAX_PREFIX: usize = 32;
const MIN_PEPPER: usize = 16;
const BASE: u64 = 62;
/// 43 digits of base62 are 256 bits.
const RANDOM_DIGITS: usize = 43;
const CHECK_DIGITS: usize = 6;
/// Those of an id come from two halves.
const ID_DIGITS: usize = 12;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn form() -> Form {
        Form::new(&Secret::new(vec![7; 32])).unwrap()
    }

    #[test]
    fn keys_are_long_random_and_theirs() {
        let form = form();
        let keys: HashSet<String> =
            (0..200).map(|_| form.make().unwrap().expose().clone()).collect();
        assert_eq!(keys.len(), 200);
        let mut digits = HashSet::new();
        for key in &keys {
            assert_eq!(key.len(), "sk-pal-".len() + 49);
            assert!(form.claims(key) && form.hash(key).is_some());
            digits.extend(key.bytes().skip("sk-pal-".len()));
        }
        assert_eq!(digits.len(), 62, "every digit is drawn");
    }

    #[test]
    fn every_single_typing_error_is_told_without_a_list() {
        let form = form();
        let key = form.make().unwrap().expose().clone();
        for at in 0..key.len() {
            for other in *b"aZ0-." {
                let mut typed = key.clone().into_bytes();
                if typed[at] != other {
                    typed[at] = other;
                    assert_eq!(form.hash(std::str::from_utf8(&typed).unwrap()), None, "{at}");
                }
            }
        }
        for odd in ["", "sk-pal-", &key[..key.len() - 1], &format!("{key}0"), &key.to_lowercase()] {
            assert_eq!(form.hash(odd), None, "{odd}");
        }
        assert_eq!(form.hash(&"sk-pal-é".repeat(7)), None);
    }

    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(check_digits(""), *b"000000");
    }

    #[test]
    fn hashes_depend_on_the_pepper_and_show_nothing() {
        let key = form().make().unwrap().expose().clone();
        let other = Form::new(&Secret::new(vec![8; 32])).unwrap();
        let hash = form().hash(&key).unwrap();
        assert!(Some(hash) != other.hash(&key) && Some(hash) == form().hash(&key));
        assert_eq!(KeyHash::try_from(String::from(hash)), Ok(hash));
        assert!(KeyHash::try_from("AAAA".to_owned()).is_err());
        assert_eq!(format!("{hash:?}"), "KeyHash(..)");
        assert_eq!(format!("{:?}", form()), r#"Form { prefix: "sk-pal-", .. }"#);
    }

    #[test]
    fn prefixes_that_a_jwt_or_another_key_could_have_are_refused() {
        for bad in ["", "sk", "eyJ-", "s.k-", "s k-", "é-", &"a-".repeat(20)] {
            assert!(form().with_prefix(bad.into()).is_err(), "{bad}");
        }
        assert!(form().with_prefix("sk-".into()).is_ok());
        assert!(Form::new(&Secret::new(vec![7; 15])).is_err());
    }
}
