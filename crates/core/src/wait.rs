//! A time to wait, in words for a person, and the longest. It leaves out waiting.

use std::fmt;
use std::time::Duration;

/// As good as no limit, and no more than a clock can count: a hundred years.
pub const EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A time to wait. Shown in the unit that a person would use, rounded up: `7 s`, `5 minutes`, `an hour`, `3 hours`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait(pub Duration);

impl fmt::Display for Wait {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs().saturating_add(u64::from(self.0.subsec_nanos() > 0));
        match (seconds, seconds.div_ceil(MINUTE), seconds.div_ceil(HOUR)) {
            // Up to two minutes, seconds say more.
            (..=TWO_MINUTES, ..) => write!(formatter, "{seconds} s"),
            (_, minutes @ ..60, _) => write!(formatter, "{minutes} minutes"),
            (_, _, 1) => formatter.write_str("an hour"),
            (_, _, hours) => write!(formatter, "{hours} hours"),
        }
    }
}

const MINUTE: u64 = 60;
const TWO_MINUTES: u64 = 2 * MINUTE;
const HOUR: u64 = 60 * MINUTE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_words() {
        for (milliseconds, words) in [
            (0, "0 s"),
            (1, "1 s"),
            (7_000, "7 s"),
            (120_000, "120 s"),
            (120_001, "3 minutes"),
            (1_800_000, "30 minutes"),
            (3_540_001, "an hour"),
            (3_600_000, "an hour"),
            (3_600_001, "2 hours"),
            (86_400_000, "24 hours"),
        ] {
            assert_eq!(Wait(Duration::from_millis(milliseconds)).to_string(), words);
        }
        assert_eq!(Wait(Duration::MAX).to_string(), "5124095576030432 hours");
    }
}
