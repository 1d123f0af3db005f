//! Keys: keyed hashes of facts, so that no subject, address or credential stands in a store.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::secret::Secret;

/// A record's key in a store: a keyed 128-bit hash (SipHash-2-4) of facts. Its first four bytes are the record's
/// [`Group`], which may be of other facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 16]);

impl Key {
    /// A key from its bytes, as a backend reads it back.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The key's bytes as two numbers.
    pub(crate) const fn halves(&self) -> [u64; 2] {
        let whole = u128::from_le_bytes(self.0);
        [whole as u64, (whole >> u64::BITS) as u64]
    }

    /// The group that the record belongs to.
    #[must_use]
    pub const fn group(&self) -> Group {
        let [a, b, c, d, ..] = self.0;
        Group([a, b, c, d])
    }
}

/// What belongs together: the records of one group are in one place of a store that is spread over several servers, where
/// they are charged all or none. An organisation's records and those of its members in it are one group.
///
/// Groups are only a place: two that share their four bytes share that, and no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group([u8; 4]);

/// The secret that keys every hash. Processes that share a store share it; without it, nobody can
/// tell whose record a key names, or choose subjects whose keys collide.
#[derive(Clone, Debug)]
pub struct Pepper(Secret<[u8; 16]>);

impl Pepper {
    /// A pepper from configuration: any secret text, the same in every process that shares a
    /// store. Only as good as the text is long and random.
    #[must_use]
    pub fn from_secret(text: &str) -> Self {
        let mut hasher = SipHasher24::new();
        hasher.write(text.as_bytes());
        Self(Secret::new(hasher.finish128().as_bytes()))
    }

    /// A random pepper, for a store that lives and dies with this process.
    #[must_use]
    pub fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        // The standard library seeds each `RandomState` from the operating system's generator.
        let mut bytes = [0; 16];
        let (low, high) = bytes.split_at_mut(8);
        low.copy_from_slice(&RandomState::new().hash_one(0_u8).to_le_bytes());
        high.copy_from_slice(&RandomState::new().hash_one(1_u8).to_le_bytes());
        Self(Secret::new(bytes))
    }

    /// Begins the key of a record of this `scope`: `subject`, `network`. Different scopes never share a key.
    #[must_use]
    pub fn key(&self, scope: &str) -> Keyed {
        let hasher = SipHasher24::new_with_key(self.0.expose());
        let mut key = Keyed { hasher, held: [0; HELD], len: 0 };
        key.add(scope.as_bytes());
        key
    }
}

/// A key in the making.
#[derive(Clone, Debug)]
pub struct Keyed {
    hasher: SipHasher24,
    /// Not hashed yet: the hasher is quick with much at once, and slow with many pieces.
    held: [u8; HELD],
    len: usize,
}

const HELD: usize = 120;

impl Keyed {
    /// Adds a fact. Facts are framed by their lengths: `("ab", "c")` is not `("a", "bc")`.
    #[must_use]
    pub fn with(mut self, fact: &[u8]) -> Self {
        self.add(fact);
        self
    }

    /// Adds a fact in place.
    pub(crate) fn add(&mut self, fact: &[u8]) {
        self.write(&(fact.len() as u64).to_le_bytes());
        self.write(fact);
    }

    fn write(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(place) = self.held.get_mut(self.len..end) {
            place.copy_from_slice(bytes);
            self.len = end;
        } else {
            self.hash_held();
            self.hasher.write(bytes);
        }
    }

    fn hash_held(&mut self) {
        self.hasher.write(self.held.get(..self.len).unwrap_or_default());
        self.len = 0;
    }

    fn hash(mut self) -> [u8; 16] {
        self.hash_held();
        self.hasher.finish128().as_bytes()
    }

    /// The key of all facts, in a group of its own.
    #[must_use]
    pub fn finish(self) -> Key {
        Key(self.hash())
    }

    /// The key of all facts, in that group. The facts alone must tell the record from all others.
    #[must_use]
    pub fn finish_in(self, group: Group) -> Key {
        let Group([a, b, c, d]) = group;
        let [_, _, _, _, rest @ ..] = self.hash();
        let [e, f, g, h, i, j, k, l, m, n, o, p] = rest;
        Key([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// The group of all facts.
    #[must_use]
    pub fn group(self) -> Group {
        self.finish().group()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_framed_scoped_and_keyed() {
        let pepper = Pepper::from_secret("pepper");
        let key = |scope: &str, facts: &[&str]| {
            let begun = pepper.key(scope);
            facts.iter().fold(begun, |key, fact| key.with(fact.as_bytes())).finish()
        };
        assert_eq!(key("subject", &["ab", "c"]), key("subject", &["ab", "c"]));
        assert_ne!(key("subject", &["ab", "c"]), key("subject", &["a", "bc"]));
        assert_ne!(key("subject", &["a"]), key("network", &["a"]));
        assert_ne!(
            Pepper::from_secret("other").key("subject").with(b"a").finish(),
            key("subject", &["a"])
        );
    }

    #[test]
    fn a_group_is_the_beginning_of_its_keys() {
        let pepper = Pepper::from_secret("pepper");
        let group = pepper.key("organisation").with(b"acme").group();
        let [alice, bob] = [b"alice".as_slice(), b"bob"].map(|it| pepper.key("subject").with(it));
        let grouped = alice.clone().finish_in(group);
        assert_eq!(grouped.group(), group);
        assert_eq!(bob.finish_in(group).group(), group);
        assert_ne!(alice.clone().finish().group(), group);
        assert_eq!(alice.clone().group(), alice.clone().finish().group());
        assert_eq!(grouped.as_bytes()[4..], alice.finish().as_bytes()[4..]);
    }
}
