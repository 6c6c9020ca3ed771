//! Quoting untrusted text in messages.

/// Untrusted text, made fit for a message: in quotes, ASCII, escaped, at most 64 characters.
///
/// Escaping keeps line breaks out of the log, and keeps characters that the server encoding lacks out of
/// the protocol.
pub fn quoted(text: &str) -> String {
    const MOST: usize = 64;
    let shown: String = text
        .chars()
        .take(MOST)
        .flat_map(char::escape_default)
        .collect();
    let more = if text.chars().nth(MOST).is_some() {
        "..."
    } else {
        ""
    };
    format!("\"{shown}{more}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_quotes_can_neither_forge_a_log_line_nor_flood_it() {
        assert_eq!(quoted("a\nLOG:  b\u{e9}\""), r#""a\nLOG:  b\u{e9}\"""#);
        assert_eq!(quoted(&"x".repeat(64)), format!("\"{}\"", "x".repeat(64)));
        assert_eq!(
            quoted(&"x".repeat(65)),
            format!("\"{}...\"", "x".repeat(64))
        );
    }
}
