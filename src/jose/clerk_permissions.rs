//! Clerk's permissions, which its tokens carry as bit masks.

/// Clerk's version 2 of an organization's permissions: for the feature at each position of `fea`, the
/// bits of the integer at the same position of `o.fpm`, least significant first, say which names of
/// `o.per` it has (<https://clerk.com/docs/guides/sessions/session-tokens>, "Decode `o.fpm` manually").
///
/// Positions count all of `fea`, as that page says and as Clerk's libraries for Go and Python do. Its
/// library for JavaScript counts only the organization's features; the two differ if a user's feature
/// precedes an organization's.
pub(crate) struct Masks<'a> {
    /// `fea`: `scope:feature`, separated by commas.
    features: &'a str,
    /// `o.per`, by position. An empty name keeps its position and grants nothing.
    names: Vec<&'a str>,
    /// `o.fpm`, separated by commas; shorter than `features` if the last have no permissions.
    masks: &'a str,
}

impl<'a> Masks<'a> {
    /// From `fea`, `o.per` and `o.fpm`; empty if absent.
    pub fn new(features: &'a str, names: &'a str, masks: &'a str) -> Self {
        Self {
            features,
            names: names.split(',').map(str::trim).collect(),
            masks,
        }
    }

    /// Pairs of feature and permission. Takes time proportional to the length of the claims, since a
    /// mask has no more bits than its digits give: features times names would be too many.
    pub fn granted(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.features
            .split(',')
            .zip(self.masks.split(','))
            .filter_map(|(feature, mask)| {
                Some((
                    organization_feature(feature)?,
                    low_bits(mask.trim(), self.names.len())?,
                ))
            })
            .flat_map(|(feature, words)| {
                ones(words)
                    // A bit beyond the names has no name.
                    .filter_map(|bit| self.names.get(bit))
                    .filter(|name| !name.is_empty())
                    .map(move |&name| (feature, name))
            })
    }
}

/// The feature, if the organization has it: scopes are `o`, `u` (user), and both as `uo` (the
/// documentation) or `ou` (Clerk's tests). A colon in its name would make the permission's name
/// ambiguous, and slugs have none.
fn organization_feature(entry: &str) -> Option<&str> {
    let (scope, feature) = entry.trim().split_once(':')?;
    let usable = matches!(scope, "o" | "uo" | "ou") && !feature.is_empty();
    (usable && !feature.contains(':')).then_some(feature)
}

/// The lowest `width` bits (and those that fill the last word) of a decimal number of any size, least
/// significant word first. None unless it consists of digits only: a sign, for example, would come from
/// an issuer's overflow.
fn low_bits(decimal: &str, width: usize) -> Option<Vec<u64>> {
    /// The most digits that always fit a word.
    const DIGITS: usize = 19;

    if decimal.is_empty() || !decimal.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // A digit is worth less than four bits.
    let bits = width.min(decimal.len().saturating_mul(4));
    let mut words = vec![0_u64; bits.div_ceil(64)];
    for digits in decimal.as_bytes().chunks(DIGITS) {
        let (mut scale, mut carry) = (1_u64, 0_u64);
        for digit in digits {
            scale *= 10;
            carry = carry * 10 + u64::from(digit - b'0');
        }
        // words = words * scale + digits, modulo the width: the carry out of the last word is dropped.
        for word in &mut words {
            let product = u128::from(*word) * u128::from(scale) + u128::from(carry);
            #[expect(clippy::cast_possible_truncation, reason = "the low word is meant")]
            let low = product as u64;
            *word = low;
            carry = (product >> 64) as u64;
        }
    }
    Some(words)
}

/// Positions of the bits that are set, in order.
fn ones(words: Vec<u64>) -> impl Iterator<Item = usize> {
    words.into_iter().enumerate().flat_map(|(index, word)| {
        // Each step clears the lowest bit that is set.
        std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)))
            .take_while(|&word| word != 0)
            .map(move |word| index * 64 + word.trailing_zeros() as usize)
    })
}
