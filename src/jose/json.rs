//! A strict JSON reader.
//!
//! RFC 7515 section 4 and RFC 7519 section 4 want member names to be unique. One lenient reader keeps
//! the last of two equal names, another the first, and an attacker exploits the difference; this one
//! refuses the text.

use std::cell::RefCell;
use std::fmt;

use crate::quoted::quoted;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::{Entry, Map};
use serde_json::{Number, Value};

/// Why a text was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An object names this member twice.
    DuplicateMember(String),
    /// Nested deeper than the caller allows.
    TooDeep(usize),
    /// A string contains U+0000, which no Postgres text or jsonb can.
    NulCharacter,
    /// Not JSON (RFC 8259), or not representable, in the parser's words.
    Syntax(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateMember(name) => {
                write!(f, "member {} appears twice", quoted(name))
            }
            Self::TooDeep(limit) => write!(f, "nested more than {limit} levels deep"),
            Self::NulCharacter => f.write_str("a string contains U+0000"),
            Self::Syntax(why) => f.write_str(why),
        }
    }
}

/// The deepest nesting that `serde_json` allows (its recursion limit).
pub const MAX_DEPTH: usize = 127;

/// Reads one JSON text whose objects have unique member names at every depth.
///
/// `max_depth` counts objects and arrays: `{}` has depth 1.
///
/// # Errors
/// The first [`Fault`] in the text.
pub fn parse(text: &[u8], max_depth: usize) -> Result<Value, Fault> {
    // Checked once: serde_json would check each string separately.
    let text = std::str::from_utf8(text).map_err(|_| Fault::Syntax("not UTF-8".into()))?;
    let fault = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let strict = Strict {
        fault: &fault,
        max_depth,
        depth: 0,
    };
    let parsed = strict
        .deserialize(&mut deserializer)
        .and_then(|v| deserializer.end().map(|()| v));
    // serde's errors carry only text, so Strict stores its own faults here.
    parsed.map_err(|e| fault.take().unwrap_or_else(|| Fault::Syntax(e.to_string())))
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    fault: &'a RefCell<Option<Fault>>,
    max_depth: usize,
    depth: usize,
}

impl Strict<'_> {
    fn fail<E: de::Error>(&self, fault: Fault) -> E {
        self.fault.borrow_mut().get_or_insert(fault);
        E::custom("")
    }

    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth == self.max_depth {
            return Err(self.fail(Fault::TooDeep(self.max_depth)));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }

    fn text<E: de::Error>(&self, text: String) -> Result<String, E> {
        if text.contains('\0') {
            Err(self.fail(Fault::NulCharacter))
        } else {
            Ok(text)
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        number
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        self.text(value).map(Value::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            match object.entry(self.text(name)?) {
                Entry::Vacant(free) => {
                    free.insert(members.next_value_seed(inner)?);
                }
                Entry::Occupied(taken) => {
                    let name = taken.key().clone();
                    return Err(self.fail(Fault::DuplicateMember(name)));
                }
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_serde_json_reads() {
        let text = r#"{"a":[1,-2,3.5,true,null,"\u00e9"],"b":{"c":18446744073709551615}}"#;
        assert_eq!(
            parse(text.as_bytes(), MAX_DEPTH),
            Ok(serde_json::from_str(text).expect("valid"))
        );
    }

    #[test]
    fn two_members_of_one_name_are_refused_at_any_depth_and_however_they_are_spelt() {
        let twice = |name: &str| Err(Fault::DuplicateMember(name.into()));
        assert_eq!(parse(br#"{"sub":"a","sub":"b"}"#, MAX_DEPTH), twice("sub"));
        assert_eq!(
            parse(br#"{"sub":"a","\u0073ub":"a"}"#, MAX_DEPTH),
            twice("sub")
        );
        assert_eq!(parse(br#"{"x":[{"y":1,"y":1}]}"#, MAX_DEPTH), twice("y"));
        assert!(parse(br#"{"x":{"y":1},"y":{"x":1}}"#, MAX_DEPTH).is_ok());
    }

    #[test]
    fn depth_is_counted_in_objects_and_arrays() {
        assert!(parse(br#"{"a":[1]}"#, 2).is_ok());
        assert_eq!(parse(br#"{"a":[{}]}"#, 2), Err(Fault::TooDeep(2)));
        assert_eq!(parse(b"[]", 0), Err(Fault::TooDeep(0)));
    }

    #[test]
    fn nesting_past_the_parser_limit_is_a_fault_and_not_a_stack_overflow() {
        for depth in [MAX_DEPTH, MAX_DEPTH + 1, 100_000] {
            let text = ["[".repeat(depth), "]".repeat(depth)].concat();
            assert_eq!(
                parse(text.as_bytes(), usize::MAX).is_ok(),
                depth <= MAX_DEPTH,
                "{depth}"
            );
        }
    }

    #[test]
    fn what_postgres_cannot_hold_is_refused() {
        assert_eq!(parse(br#"{"a":"x\u0000y"}"#, 9), Err(Fault::NulCharacter));
        assert_eq!(parse(br#"{"\u0000":1}"#, 9), Err(Fault::NulCharacter));
        for text in [
            &br#"{"a":1e400}"#[..],
            br#"{"a":"\ud800"}"#,
            b"{\"a\":\"\xff\"}",
            b"",
            b"{} x",
        ] {
            assert!(matches!(parse(text, 9), Err(Fault::Syntax(_))), "{text:?}");
        }
    }
}
