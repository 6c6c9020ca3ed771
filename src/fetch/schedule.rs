//! When to ask again.

use std::time::Duration;

/// Between two requests for one provider, whatever asks for them.
pub const COOL_DOWN: Duration = Duration::from_secs(30);

/// However long a failure lasts, it is noticed that it is over.
const LONGEST_AFTER_FAILURES: Duration = Duration::from_secs(15 * 60);

/// What an answer may say about itself.
const SHORTEST_MAX_AGE: Duration = Duration::from_secs(5 * 60);
const LONGEST_MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// After a success: the interval that is set, or what the answer's `max_age` says, within reason.
#[must_use]
pub fn after_success(interval: Duration, max_age: Option<Duration>) -> Duration {
    let wanted = max_age.map_or(interval, |age| age.clamp(SHORTEST_MAX_AGE, LONGEST_MAX_AGE));
    wanted.max(COOL_DOWN)
}

/// After this many failures since the last success: 30 s, doubled for each after the first, up to 15 min.
#[must_use]
pub fn after_failures(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    COOL_DOWN
        .saturating_mul(1 << doublings)
        .min(LONGEST_AFTER_FAILURES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    #[test]
    fn an_answer_moves_the_interval_within_reason() {
        let second = Duration::from_secs(1);
        for (interval, max_age, expected) in [
            (minutes(10), None, minutes(10)),
            (minutes(120), None, minutes(120)),
            (second, None, COOL_DOWN),
            (Duration::ZERO, None, COOL_DOWN),
            (minutes(10), Some(Duration::ZERO), minutes(5)),
            (minutes(10), Some(minutes(7)), minutes(7)),
            (minutes(10), Some(minutes(24 * 60)), minutes(60)),
            (second, Some(second), minutes(5)),
            (Duration::MAX, None, Duration::MAX),
            (minutes(10), Some(Duration::MAX), minutes(60)),
        ] {
            let found = after_success(interval, max_age);
            assert_eq!(found, expected, "{interval:?} {max_age:?}");
        }
    }

    #[test]
    fn failures_double_the_time_up_to_a_quarter_of_an_hour() {
        let seconds = [0, 1, 2, 3, 4, 5, 6, 7, 1000, u32::MAX].map(|n| after_failures(n).as_secs());
        assert_eq!(seconds, [30, 30, 60, 120, 240, 480, 900, 900, 900, 900]);
    }
}
