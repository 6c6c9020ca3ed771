//! The claims set (RFC 7519 section 4): the registered claims have the types that the RFC gives them,
//! and the token is valid now.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::rejection::Rejection;

/// The time by which tokens are judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    /// Seconds since the epoch.
    pub now: f64,
    /// Tolerance in seconds, for issuers whose clock is off.
    pub skew: f64,
    /// For so many seconds after they were fetched, an issuer's keys count.
    pub stale: f64,
}

impl Clock {
    /// Whether keys that were fetched then still count.
    #[must_use]
    pub fn is_fresh(self, fetched_at: f64) -> bool {
        self.now < fetched_at + self.stale
    }
}

/// The registered claims of a token.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// `aud`: one or several.
    pub audience: Vec<String>,
    /// `exp`, in seconds since the epoch.
    pub expires_at: Option<f64>,
    /// `nbf`, in seconds since the epoch.
    pub not_before: Option<f64>,
    /// `iat`, in seconds since the epoch.
    pub issued_at: Option<f64>,
    /// `jti` if it is an integer. One beyond 64 bits counts as the end of the range, so that it cannot
    /// escape the rule that it must increase.
    pub integer_id: Option<i64>,
}

impl Claims {
    /// Stage payload.
    pub(crate) fn from_members(members: &Map<String, Value>) -> Result<Self, Rejection> {
        // null is absent, but for `exp`: a token that is meant to end says when.
        let get = |name| {
            let value = members.get(name);
            value.filter(|value| !value.is_null() || name == "exp")
        };
        let number = |name| match get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => Ok(number.as_f64()),
            Some(_) => Err(Rejection::ClaimType {
                name,
                expected: "a number",
            }),
        };
        Ok(Self {
            expires_at: number("exp")?,
            not_before: number("nbf")?,
            issued_at: number("iat")?,
            issuer: issuer(members)?.map(str::to_owned),
            subject: subject(members)?.map(Cow::into_owned),
            audience: audience(get("aud"))?,
            integer_id: members.get("jti").and_then(integer),
        })
    }

    /// Stage time: whether the token is valid now. To be checked again whenever the token is used.
    ///
    /// # Errors
    /// [`Rejection::Expired`], [`Rejection::NotYetValid`] or [`Rejection::IssuedInFuture`].
    pub fn check_time(&self, clock: Clock) -> Result<(), Rejection> {
        let Clock { now, skew, .. } = clock;
        match *self {
            // RFC 7519 section 4.1.4: "on or after" exp is too late.
            Self {
                expires_at: Some(exp),
                ..
            } if now >= exp + skew => Err(Rejection::Expired { exp, now, skew }),
            Self {
                not_before: Some(nbf),
                ..
            } if now < nbf - skew => Err(Rejection::NotYetValid { nbf, now, skew }),
            Self {
                issued_at: Some(iat),
                ..
            } if now < iat - skew => Err(Rejection::IssuedInFuture { iat, now, skew }),
            _ => Ok(()),
        }
    }
}

/// `iss` (RFC 7519 section 4.1.1); null is absent.
///
/// # Errors
/// [`Rejection::ClaimType`]
pub(crate) fn issuer(members: &Map<String, Value>) -> Result<Option<&str>, Rejection> {
    match members.get("iss") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Rejection::ClaimType {
            name: "iss",
            expected: "a string",
        }),
    }
}

/// `sub` (RFC 7519 section 4.1.2); null is absent. The RFC wants a string; an integer, which frameworks that
/// number their users write, stands for its decimal text.
///
/// # Errors
/// [`Rejection::ClaimType`]
pub fn subject(members: &Map<String, Value>) -> Result<Option<Cow<'_, str>>, Rejection> {
    match members.get("sub") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(Cow::Borrowed(text))),
        Some(Value::Number(number)) if number.is_i64() || number.is_u64() => {
            Ok(Some(Cow::Owned(number.to_string())))
        }
        Some(_) => Err(Rejection::ClaimType {
            name: "sub",
            expected: "a string or an integer of 64 bits",
        }),
    }
}

fn audience(claim: Option<&Value>) -> Result<Vec<String>, Rejection> {
    let wrong = || Rejection::ClaimType {
        name: "aud",
        expected: "a string or an array of strings",
    };
    let string = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
    match claim {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(string).collect(),
        Some(value) => string(value).map(|one| vec![one]),
    }
}

fn integer(value: &Value) -> Option<i64> {
    let number = value.as_number()?;
    let whole = |float: f64| (float.fract() == 0.0).then_some(float);
    #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
    let rounded = || number.as_f64().and_then(whole).map(|float| float as i64);
    number.as_i64().or_else(rounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Result<Claims, Rejection> {
        let value: Value = serde_json::from_str(json).expect("valid JSON");
        Claims::from_members(value.as_object().expect("an object"))
    }

    fn at(now: f64, skew: f64, json: &str) -> Result<(), Rejection> {
        claims(json).expect("well typed").check_time(Clock {
            now,
            skew,
            stale: 0.0,
        })
    }

    #[test]
    fn registered_claims_have_the_types_of_the_rfc() {
        for (json, name) in [
            (r#"{"exp":"1"}"#, "exp"),
            (r#"{"exp":null}"#, "exp"),
            (r#"{"nbf":[1]}"#, "nbf"),
            (r#"{"iat":true}"#, "iat"),
            (r#"{"iss":1}"#, "iss"),
            (r#"{"sub":{"id":1}}"#, "sub"),
            (r#"{"sub":1.5}"#, "sub"),
            (r#"{"sub":1e2}"#, "sub"),
            (r#"{"sub":18446744073709551616}"#, "sub"),
            (r#"{"sub":true}"#, "sub"),
            (r#"{"aud":1}"#, "aud"),
            (r#"{"aud":["a",1]}"#, "aud"),
        ] {
            let rejection = claims(json).expect_err(json);
            assert!(
                matches!(rejection, Rejection::ClaimType { name: n, .. } if n == name),
                "{json}"
            );
        }
        let all = claims(r#"{"iss":"i","sub":"","aud":["a","b"],"exp":1.5,"nbf":-1,"iat":0}"#);
        let all = all.expect("well typed");
        assert_eq!((all.subject.as_deref(), all.audience.len()), (Some(""), 2));
        assert_eq!((all.expires_at, all.not_before), (Some(1.5), Some(-1.0)));
    }

    #[test]
    fn null_is_absent_and_an_integer_sub_is_its_text() {
        let all = claims(r#"{"iss":null,"sub":null,"aud":null,"nbf":null,"iat":null,"jti":null}"#);
        let all = all.expect("absent");
        assert_eq!(
            (all.issuer, all.subject, all.audience.len()),
            (None, None, 0)
        );
        assert_eq!((all.not_before, all.issued_at), (None, None));
        for (json, text) in [
            (r#"{"sub":42}"#, "42"),
            (r#"{"sub":-7}"#, "-7"),
            (r#"{"sub":18446744073709551615}"#, "18446744073709551615"),
            (r#"{"sub":"042"}"#, "042"),
        ] {
            assert_eq!(claims(json).expect(json).subject.as_deref(), Some(text));
        }
    }

    #[test]
    fn only_an_integer_jti_can_increase() {
        for (json, id) in [
            (r#"{"jti":7}"#, Some(7)),
            (r#"{"jti":-1}"#, Some(-1)),
            (r#"{"jti":18446744073709551615}"#, Some(i64::MAX)),
            (r#"{"jti":1180591620717411303424}"#, Some(i64::MAX)),
            (r#"{"jti":7.0}"#, Some(7)),
            (r#"{"jti":"7"}"#, None),
            (r#"{"jti":7.5}"#, None),
            (r#"{"jti":null}"#, None),
            ("{}", None),
        ] {
            assert_eq!(claims(json).expect(json).integer_id, id, "{json}");
        }
    }

    #[test]
    fn a_token_lives_until_exp_plus_skew_and_not_a_moment_longer() {
        assert!(at(159.999, 60.0, r#"{"exp":100}"#).is_ok());
        assert!(matches!(
            at(160.0, 60.0, r#"{"exp":100}"#),
            Err(Rejection::Expired { .. })
        ));
        assert!(at(100.4, 0.0, r#"{"exp":100.5}"#).is_ok());
        assert!(at(100.5, 0.0, r#"{"exp":100.5}"#).is_err());
    }

    #[test]
    fn a_token_for_the_future_waits_for_nbf_and_iat_minus_skew() {
        assert!(at(40.0, 60.0, r#"{"nbf":100,"iat":100}"#).is_ok());
        assert!(matches!(
            at(39.999, 60.0, r#"{"nbf":100}"#),
            Err(Rejection::NotYetValid { .. })
        ));
        assert!(matches!(
            at(39.999, 60.0, r#"{"iat":100}"#),
            Err(Rejection::IssuedInFuture { .. })
        ));
    }

    #[test]
    fn absurd_times_are_answers_and_not_panics() {
        assert!(at(0.0, 60.0, r#"{"exp":1e308,"nbf":-1e308}"#).is_ok());
        assert!(at(0.0, 60.0, r#"{"exp":-1e308}"#).is_err());
        assert!(at(0.0, 60.0, "{}").is_ok());
    }
}
