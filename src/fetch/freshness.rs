//! How long an answer says that it stays good.

use std::time::Duration;

/// Of the values of `Cache-Control` (RFC 9111 section 5.2.2). An answer that must not be kept, or always be
/// asked for again, stays good for no time. What cannot be read says nothing.
pub(crate) fn max_age<'a>(values: impl Iterator<Item = &'a str>) -> Option<Duration> {
    let mut found = None;
    for directive in values.flat_map(|value| value.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return Some(Duration::ZERO),
            "max-age" => {
                let digits = value.trim().trim_matches('"');
                if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    // More than can be counted is for ever.
                    let seconds = digits.parse().unwrap_or(u64::from(u32::MAX));
                    let age = Duration::from_secs(seconds.min(u64::from(u32::MAX)));
                    found = Some(found.map_or(age, |before: Duration| before.min(age)));
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_long_it_stays_good() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (values, expected) in [
            (&[][..], None),
            (&[""], None),
            (&["public, max-age=300, must-revalidate"], seconds(300)),
            (&["MAX-AGE = 60"], seconds(60)),
            (&["max-age=\"60\""], seconds(60)),
            (&["public", "max-age=5"], seconds(5)),
            (&["max-age=500, max-age=5"], seconds(5)),
            (&["no-cache"], seconds(0)),
            (&["max-age=300, no-store"], seconds(0)),
            (&["no-cache=\"set-cookie\", max-age=9"], seconds(0)),
            (&["s-maxage=5, x-max-age=3"], None),
            (&["max-age"], None),
            (&["max-age="], None),
            (&["max-age=-1"], None),
            (&["max-age=1.5"], None),
            (&["max-age=+1"], None),
            (
                &["max-age=99999999999999999999999999"],
                seconds(u64::from(u32::MAX)),
            ),
        ] {
            assert_eq!(max_age(values.iter().copied()), expected, "{values:?}");
        }
    }
}
