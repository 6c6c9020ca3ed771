//! The rule that accepts a token.

use serde_json::Value;

use crate::claims::Claims;
use crate::compact::Compact;
use crate::header::Header;
use crate::json::{self, Fault};
use crate::key_set::KeySet;
use crate::rejection::Rejection;

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// So many keys are tried at the most: each costs a signature verification.
pub const MAX_KEYS_TRIED: usize = 8;

/// The time that tokens are measured by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    /// Seconds since the epoch.
    pub now: f64,
    /// Tolerance in seconds, for issuers whose clock is off.
    pub skew: f64,
}

/// Whose keys count.
#[derive(Debug, Clone, Copy)]
pub enum TrustedKeys<'a> {
    /// Nobody's: every token is rejected.
    None,
    /// Those of one set.
    Set(&'a KeySet),
}

/// A token that has been accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// How it was signed.
    pub header: Header,
    /// What it says.
    pub claims: Claims,
}

/// **The rule that accepts a token**: structure, header, key, signature, payload, time, in this
/// order. (RFC 7515 section 5.2, RFC 7519 section 7.2, RFC 8725 section 3.)
///
/// # Errors
/// The [`Rejection`] of the first stage that fails.
pub fn verify(token: &[u8], trusted: TrustedKeys, clock: Clock) -> Result<Token, Rejection> {
    let compact = Compact::parse(token)?;
    let header = Header::parse(&compact.header)?;
    let payload = read_payload(&compact.payload)?;
    check_signature(&compact, &header, trusted)?;
    let claims = check_payload(payload, compact.payload)?;
    claims.check_time(clock)?;
    Ok(Token { header, claims })
}

/// Reads the payload. A member that is there twice is a matter of structure and rejected at once;
/// any other fault waits until the signature has been found good.
fn read_payload(payload: &[u8]) -> Result<Result<Value, Fault>, Rejection> {
    match json::parse(payload, json::MAX_DEPTH) {
        Err(Fault::DuplicateMember(name)) => Err(Rejection::PayloadDuplicateMember(name)),
        read => Ok(read),
    }
}

/// Stages key and signature.
fn check_signature(
    compact: &Compact,
    header: &Header,
    trusted: TrustedKeys,
) -> Result<(), Rejection> {
    let TrustedKeys::Set(keys) = trusted else {
        return Err(Rejection::NoTrustedKeys);
    };
    let algorithm = header.algorithm;
    let mut to_try = keys.fitting(header).take(MAX_KEYS_TRIED);
    if to_try.any(|key| key.verifies(compact.signed, compact.signature, algorithm)) {
        return Ok(());
    }
    Err(match keys.fitting(header).count() {
        0 => Rejection::NoKeyFits {
            algorithm,
            key_id: header.key_id.clone(),
            trusted: keys.summary(),
        },
        fitting => Rejection::BadSignature { algorithm, fitting },
    })
}

/// Stage payload.
fn check_payload(payload: Result<Value, Fault>, text: Vec<u8>) -> Result<Claims, Rejection> {
    match payload {
        Ok(Value::Object(members)) => {
            let text = String::from_utf8(text).map_err(|_| {
                Rejection::PayloadNotObject(Some(Fault::Syntax("not UTF-8".into())))
            })?;
            Claims::from_members(&members, text)
        }
        Ok(_) => Err(Rejection::PayloadNotObject(None)),
        Err(fault) => Err(Rejection::PayloadNotObject(Some(fault))),
    }
}
