//! The JWS compact serialization: three base64url parts separated by dots (RFC 7515 section 7.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::rejection::{Looks, Part, Rejection};

/// The longest token that is read, in bytes.
pub const MAX_TOKEN_BYTES: usize = 64 * 1024;

/// A token taken apart. Nothing about it has been verified.
#[derive(Debug)]
pub(crate) struct Compact<'a> {
    /// What is signed: the first two parts as they are, with the dot between (RFC 7515 section 5.2).
    pub signed: &'a [u8],
    /// The third part, decoded.
    pub signature: Vec<u8>,
    /// The first part, decoded.
    pub header: Vec<u8>,
    /// The second part, decoded.
    pub payload: Vec<u8>,
}

impl<'a> Compact<'a> {
    /// Takes a token apart.
    ///
    /// A token has only one spelling: the decoder refuses padding, whitespace and unused bits that are
    /// set, or a rejected token could come back spelled differently (RFC 4648 section 3.5).
    ///
    /// # Errors
    /// Only those of the structure stage.
    pub fn parse(token: &'a [u8]) -> Result<Self, Rejection> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Rejection::TooLong {
                limit: MAX_TOKEN_BYTES,
            });
        }
        let is_dot = |byte: &u8| *byte == b'.';
        let three_parts = || {
            // From both ends, since the middle part is the longest.
            let first = token.iter().position(is_dot)?;
            let last = token.iter().rposition(is_dot)?;
            let payload = token.get(first + 1..last)?;
            let (header, signature) = (token.get(..first)?, token.get(last + 1..)?);
            let signed = token.get(..last)?;
            (!payload.contains(&b'.')).then_some((header, payload, signature, signed))
        };
        let Some((header, payload, signature, signed)) = three_parts() else {
            let found = token.split(is_dot).count();
            let looks = dress(token).or(match found {
                1 if !token.is_empty() => Some(Looks::Opaque),
                5 => Some(Looks::Encrypted),
                _ => None,
            });
            return Err(Rejection::NotThreeParts { found, looks });
        };
        let decode = |part, name| {
            let looks = || Rejection::NotBase64Url(name, dress(token));
            URL_SAFE_NO_PAD.decode(part).map_err(|_| looks())
        };
        Ok(Self {
            header: decode(header, Part::Header)?,
            payload: decode(payload, Part::Payload)?,
            signature: decode(signature, Part::Signature)?,
            signed,
        })
    }
}

/// What a token came in that does not belong to it.
fn dress(token: &[u8]) -> Option<Looks> {
    let ends = [token.first()?, token.last()?];
    let has = |which: fn(&u8) -> bool| ends.into_iter().any(which);
    let scheme = token.first_chunk::<7>();
    if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer ")) {
        Some(Looks::Bearer)
    } else if has(u8::is_ascii_whitespace) {
        Some(Looks::Blank)
    } else if has(|byte| b"\"'`".contains(byte)) {
        Some(Looks::Quoted)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(token: &str) -> Rejection {
        Compact::parse(token.as_bytes()).expect_err(token)
    }

    #[test]
    fn three_parts_and_no_other_number() {
        for (token, found) in [
            ("", 1),
            ("e30", 1),
            ("e30.e30", 2),
            ("a.b.c.d", 4),
            ("a.b.c.d.e", 5),
        ] {
            let rejected = rejection(token);
            assert!(matches!(rejected, Rejection::NotThreeParts { found: n, .. } if n == found));
        }
        let parts = Compact::parse(b"e30.e30.AA").expect("well formed");
        assert_eq!(
            (parts.signed, parts.header.as_slice()),
            (&b"e30.e30"[..], &b"{}"[..])
        );
    }

    #[test]
    fn every_part_has_one_spelling() {
        let is_not_base64url = |token: &str, part| matches!(rejection(token), Rejection::NotBase64Url(found, _) if found == part);
        for (bad, why) in [
            ("e30=", "padding"),
            ("e3 0", "white space"),
            ("e30\n", "line end"),
            ("e31", "unused bits that are set"),
            ("e3+", "the standard alphabet"),
            ("e", "a length no bytes have"),
            ("é30", "not ASCII"),
        ] {
            assert!(
                is_not_base64url(&format!("{bad}.e30.AA"), Part::Header),
                "{why}"
            );
            assert!(
                is_not_base64url(&format!("e30.{bad}.AA"), Part::Payload),
                "{why}"
            );
            assert!(
                is_not_base64url(&format!("e30.e30.{bad}"), Part::Signature),
                "{why}"
            );
        }
    }

    #[test]
    fn what_is_around_a_token_is_named() {
        for (token, expected) in [
            ("Bearer e30.e30.AA", Looks::Bearer),
            ("bearer e30.e30.AA", Looks::Bearer),
            ("Bearer x", Looks::Bearer),
            ("\"e30.e30.AA\"", Looks::Quoted),
            ("'e30.e30.AA'", Looks::Quoted),
            ("e30.e30.AA\n", Looks::Blank),
            (" e30.e30.AA", Looks::Blank),
            ("a.b.c.d.e", Looks::Encrypted),
            ("sk_live_abc", Looks::Opaque),
        ] {
            let (Rejection::NotThreeParts { looks, .. } | Rejection::NotBase64Url(_, looks)) =
                rejection(token)
            else {
                panic!("{token}")
            };
            assert_eq!(looks, Some(expected), "{token}");
        }
    }

    #[test]
    fn the_size_limit_is_exact() {
        let token = |bytes: usize| format!("e30.{}.AAAA", "A".repeat(bytes - 9));
        assert!(Compact::parse(token(MAX_TOKEN_BYTES).as_bytes()).is_ok());
        assert_eq!(
            rejection(&token(MAX_TOKEN_BYTES + 1)),
            Rejection::TooLong {
                limit: MAX_TOKEN_BYTES
            }
        );
    }
}
