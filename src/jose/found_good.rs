//! The signatures that were found good, so that a token that is presented again is not verified again: a
//! digest takes a twentieth of the time.
//!
//! "This key made this signature" stays true for ever, so nothing here is ever taken back: whether the key is
//! trusted, the time and the policy are looked at each time. What is remembered is a digest of the key and of the
//! whole token. Of a forged one that is accepted, somebody would have to find the digest of a good one: 2^128
//! attempts at least, which is what the signatures themselves resist.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use ring::digest;

/// A SHA-256 of key and token, in words.
type Digest = [u64; WORDS];
const WORDS: usize = 4;

/// A place in shared memory where digests are remembered, for all processes that have it. Zeroes are empty.
///
/// There is no lock. Words are read and written one by one, so that a reader may meet an entry of which another
/// process has written a part: it then compares unequal, and the signature is computed. To compare equal by
/// accident, words of different good tokens would have to make up the digest of a forged one.
#[derive(Debug, Clone, Copy)]
pub struct Shared(&'static [AtomicU64]);

/// A digest has this many places, given by its first word: a reader looks at one cache line or two.
const WAYS: usize = 4;

impl Shared {
    /// The bytes of so many entries.
    pub const ENTRY_BYTES: usize = WORDS * size_of::<u64>();

    /// `None` for memory too small for any.
    #[must_use]
    pub fn new(memory: &'static [AtomicU64]) -> Option<Self> {
        (memory.len() >= WORDS * WAYS).then_some(Self(memory))
    }

    /// The places of a digest.
    fn places(self, digest: &Digest) -> &'static [AtomicU64] {
        const SET: usize = WORDS * WAYS;
        let sets = self.0.len() / SET;
        let [first, ..] = *digest;
        // The first word as a fraction of all.
        let number = (u128::from(first) * sets as u128) >> 64;
        let start = usize::try_from(number).unwrap_or(0) * SET;
        self.0.get(start..start + SET).unwrap_or_default()
    }

    fn contains(self, digest: &Digest) -> bool {
        let entries = self.places(digest).chunks_exact(WORDS);
        let mut entries = entries.map(|entry| entry.iter().zip(digest));
        entries.any(|mut words| words.all(|(word, wanted)| word.load(Relaxed) == *wanted))
    }

    /// Takes an empty place, or else one that the digest chooses: a flood of tokens pushes out at random.
    fn insert(self, digest: &Digest) {
        let places = self.places(digest);
        let is_empty = |entry: &[AtomicU64]| entry.iter().all(|word| word.load(Relaxed) == 0);
        let [.., last] = *digest;
        let chosen = usize::try_from(last % WAYS as u64).unwrap_or(0);
        let place = places
            .chunks_exact(WORDS)
            .position(is_empty)
            .unwrap_or(chosen);
        let entry = places.chunks_exact(WORDS).nth(place).unwrap_or_default();
        for (word, new) in entry.iter().zip(digest) {
            word.store(*new, Relaxed);
        }
    }
}

/// At most this many are remembered by a key alone, in 68 KiB (17 bytes each, in a table of 4,096, seven eighths
/// full).
const REMEMBERED: usize = 3584;

/// The first half of a digest.
type Half = [u64; WORDS / 2];

fn half([first, second, ..]: Digest) -> Half {
    [first, second]
}

/// The signatures that one key has made.
pub(crate) struct FoundGood {
    /// Those that this process alone remembers, where no memory is shared. They go with the key.
    own: RefCell<HashSet<Half>>,
    /// A SHA-256 that has begun with the key.
    of_key: digest::Context,
}

impl FoundGood {
    /// For this key.
    pub fn of(key: &DecodingKey) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        let (kind, parts): (&[u8], [&[u8]; 2]) = match key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => (b"one", [bytes, b""]),
            DecodingKeyKind::RsaModulusExponent { n, e } => (b"RSA", [n, e]),
        };
        // Each with its length, so that no two keys are written alike.
        let family = format!("{:?}", key.family());
        for part in [kind, family.as_bytes(), parts[0], parts[1]] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        // As one block of the hash (64 bytes), which need not be computed again for each token.
        let mut of_key = digest::Context::new(&digest::SHA256);
        of_key.update(hash.finish().as_ref());
        of_key.update(&[0; 32]);
        Self {
            own: RefCell::default(),
            of_key,
        }
    }

    /// Whether `signature` of `signed` was found good before, or `verify` finds it so now.
    pub fn or_if(
        &self,
        shared: Option<Shared>,
        signed: &[u8],
        signature: &[u8],
        verify: impl FnOnce() -> bool,
    ) -> bool {
        let digest = self.digest(signed, signature);
        match shared {
            Some(shared) => {
                shared.contains(&digest) || {
                    let good = verify();
                    if good {
                        shared.insert(&digest);
                    }
                    good
                }
            }
            None => {
                self.remembers(&digest) || {
                    let good = verify();
                    if good {
                        self.remember(digest);
                    }
                    good
                }
            }
        }
    }

    fn digest(&self, signed: &[u8], signature: &[u8]) -> Digest {
        let mut hash = self.of_key.clone();
        // The dot keeps the two apart: the signed part contains exactly one, and the signature follows
        // the second.
        for part in [signed, b".", signature] {
            hash.update(part);
        }
        let mut digest = Digest::default();
        let hash = hash.finish();
        for (word, bytes) in digest.iter_mut().zip(hash.as_ref().as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        digest
    }

    fn remembers(&self, digest: &Digest) -> bool {
        self.own.borrow().contains(&half(*digest))
    }

    fn remember(&self, digest: Digest) {
        let mut own = self.own.borrow_mut();
        if own.len() == REMEMBERED {
            own.clear();
        }
        own.insert(half(digest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bytes: &[u8]) -> FoundGood {
        FoundGood::of(&DecodingKey::from_ed_der(bytes))
    }

    fn memory(entries: usize) -> Shared {
        let words = (0..entries * WORDS).map(|_| AtomicU64::new(0));
        let words: Vec<_> = words.collect();
        Shared::new(Vec::leak(words)).expect("room for one set")
    }

    #[test]
    fn a_good_signature_is_computed_once_and_a_bad_one_each_time() {
        for shared in [None, Some(memory(64))] {
            let known = key(b"a");
            let computed = RefCell::new(0);
            let check = |signed: &str, signature: &str, good| {
                known.or_if(shared, signed.as_bytes(), signature.as_bytes(), || {
                    *computed.borrow_mut() += 1;
                    good
                })
            };
            assert!(check("h.p", "s", true) && check("h.p", "s", false));
            assert_eq!(computed.take(), 1);
            for other in [("h.q", "s"), ("h.p", "t"), ("h.p.s", "")] {
                assert!(!check(other.0, other.1, false) && !check(other.0, other.1, false));
                assert_eq!(computed.take(), 2, "{other:?}");
            }
        }
    }

    #[test]
    fn what_one_key_has_signed_another_has_not() {
        let shared = Some(memory(1024));
        let rsa = |n: &[u8], e: &[u8]| FoundGood::of(&DecodingKey::from_rsa_raw_components(n, e));
        let keys = [
            key(b"a"),
            key(b"b"),
            FoundGood::of(&DecodingKey::from_secret(b"a")),
            FoundGood::of(&DecodingKey::from_ec_der(b"a")),
            rsa(b"a", b""),
            rsa(b"", b"a"),
            rsa(b"aa", b"b"),
            rsa(b"a", b"ab"),
        ];
        for (place, one) in keys.iter().enumerate() {
            assert!(one.or_if(shared, b"h.p", b"s", || true));
            for other in keys.iter().skip(place + 1) {
                assert!(!other.or_if(shared, b"h.p", b"s", || false));
            }
        }
        // The same key, read again, as another process does.
        assert!(key(b"a").or_if(shared, b"h.p", b"s", || false));
    }

    #[test]
    fn no_more_than_so_many_are_remembered_by_a_key() {
        let known = key(b"a");
        for number in 0..=REMEMBERED {
            assert!(known.or_if(None, number.to_string().as_bytes(), b"s", || true));
        }
        assert_eq!(known.own.borrow().len(), 1);
        assert!(
            !known.or_if(None, b"0", b"s", || false),
            "forgotten, so computed"
        );
    }

    #[test]
    fn a_flood_of_tokens_pushes_out_some_and_not_all() {
        let (shared, known) = (memory(4096), key(b"a"));
        let of = |number: usize| number.to_string();
        for number in 0..1000 {
            known.or_if(Some(shared), of(number).as_bytes(), b"s", || true);
        }
        let kept = |numbers: std::ops::Range<usize>| {
            let is_kept = |number: &usize| {
                let digest = known.digest(of(*number).as_bytes(), b"s");
                shared.contains(&digest)
            };
            numbers.filter(is_kept).count()
        };
        assert!(kept(0..1000) > 950, "a quarter full: {}", kept(0..1000));
        for number in 1000..5000 {
            known.or_if(Some(shared), of(number).as_bytes(), b"s", || true);
        }
        assert!(kept(0..5000) > 2500, "{}", kept(0..5000));
    }

    #[test]
    fn memory_of_any_size_is_used_within_its_bounds() {
        assert!(Shared::new(&[]).is_none());
        for entries in [4, 5, 7, 8, 1000, 1001] {
            let (shared, known) = (memory(entries), key(b"a"));
            for number in 0..3000_usize {
                let token = number.to_string();
                assert!(known.or_if(Some(shared), token.as_bytes(), b"s", || true));
                assert!(
                    known.or_if(Some(shared), token.as_bytes(), b"s", || false),
                    "just stored"
                );
            }
        }
    }
}
