//! What can go wrong, in one sentence for an administrator.

use std::fmt;

use crate::{Refused, SourceError};

/// Why there are no keys.
///
/// As text it is one sentence: ASCII, without line breaks, at most 300 characters. What a server sent is
/// quoted and escaped in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchError {
    /// The row does not say where its keys are.
    Source(SourceError),
    /// `fetch_hosts` cannot be read.
    Hosts(String),
    /// The request may not go there.
    Refused(Refused),
    /// It was tried, and failed.
    Failed(String),
}

impl FetchError {
    /// A failure, in one sentence.
    pub(crate) fn failed(sentence: impl Into<String>) -> Self {
        Self::Failed(sentence.into())
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 300;
        let sentence = match self {
            Self::Source(error) => error.detail.clone(),
            Self::Hosts(error) => format!("fetch_hosts: {error}"),
            Self::Refused(refused) => refused.to_string(),
            Self::Failed(sentence) => sentence.clone(),
        };
        formatter.write_str(&shortened(&sentence, MOST))
    }
}

impl std::error::Error for FetchError {}

impl From<SourceError> for FetchError {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<Refused> for FetchError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// Untrusted text in quotes, escaped, and not too long.
pub(crate) fn quoted(text: &str) -> String {
    let mut inner = String::new();
    for character in text.chars().take(101) {
        inner.extend(character.escape_default());
    }
    format!("\"{}\"", shortened(&inner, 100))
}

/// A text of at most `most` visible ASCII characters and spaces; others are escaped, and `...` stands for
/// what is left out. The system's own messages can be in any language.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        if character == ' ' || character.is_ascii_graphic() {
            shown.push(character);
        } else {
            shown.extend(character.escape_default());
        }
        if shown.len() > most {
            shown.truncate(most.saturating_sub(3));
            shown.push_str("...");
            break;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_said_is_one_short_line_of_ascii() {
        for (text, shown) in [
            ("plain", "plain"),
            ("a\nLOG:  b", "a\\nLOG:  b"),
            ("\u{e9}\u{1b}[0m", "\\u{e9}\\u{1b}[0m"),
        ] {
            assert_eq!(FetchError::failed(text).to_string(), shown);
        }
        for long in [
            "x".repeat(301),
            "\u{10ffff}".repeat(100),
            "\n".repeat(1_000_000),
        ] {
            let shown = FetchError::failed(long).to_string();
            assert!(shown.len() == 300 && shown.ends_with("..."), "{shown}");
        }
        assert_eq!(
            FetchError::failed("x".repeat(300)).to_string(),
            "x".repeat(300)
        );
    }

    #[test]
    fn what_a_server_sent_is_quoted() {
        assert_eq!(quoted("a\"b\n\u{e9}"), r#""a\"b\n\u{e9}""#);
        assert_eq!(quoted(&"x".repeat(100)), format!("\"{}\"", "x".repeat(100)));
        assert_eq!(
            quoted(&"x".repeat(101)),
            format!("\"{}...\"", "x".repeat(97))
        );
    }
}
