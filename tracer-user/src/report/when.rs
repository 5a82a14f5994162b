//! Times for people, in UTC, since a page is read anywhere.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A time for machines and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct When {
    /// RFC 3339, for `datetime`.
    pub(super) iso: String,
    /// For people.
    pub(super) text: String,
}

/// With its date.
pub(super) fn dated(time: Timestamp) -> When {
    as_in(time, "%Y-%m-%d %H:%M:%S%.3f")
}

/// As `strftime` has it.
pub(super) fn as_in(time: Timestamp, format: &str) -> When {
    // Milliseconds are what `datetime` takes at most.
    When {
        iso: format!("{time:.3}"),
        text: time.to_zoned(TimeZone::UTC).strftime(format).to_string(),
    }
}

/// `0 ms`, `340 ms`, `12.3 s`, `4 min 10 s`, `3 h 12 min`, `5 d 2 h`.
pub(super) fn span(nanoseconds: i128) -> String {
    let milliseconds = nanoseconds / 1_000_000;
    let seconds = milliseconds / 1000;
    let two = |large: i128, unit: &str, small: i128, part: &str| {
        if small == 0 {
            format!("{large} {unit}")
        } else {
            format!("{large} {unit} {small} {part}")
        }
    };
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..60 if milliseconds % 1000 < 100 => format!("{seconds} s"),
        1..60 => format!("{seconds}.{} s", milliseconds % 1000 / 100),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_well_at_every_length() {
        const MS: i128 = 1_000_000;
        for (nanoseconds, text) in [
            (0, "0 ms"),
            (340 * MS, "340 ms"),
            (2_000 * MS, "2 s"),
            (12_345 * MS, "12.3 s"),
            (250_000 * MS, "4 min 10 s"),
            (3_600_000 * MS, "1 h"),
            (11_520_000 * MS, "3 h 12 min"),
            (439_200_000 * MS, "5 d 2 h"),
        ] {
            assert_eq!(span(nanoseconds), text);
        }
    }

    #[test]
    fn a_time_is_for_machines_and_for_people() {
        let time: Timestamp = "2026-11-23T10:01:02.123456789Z".parse().unwrap();
        let when = dated(time);
        assert_eq!(when.iso, "2026-11-23T10:01:02.123Z");
        assert_eq!(when.text, "2026-11-23 10:01:02.123");
        assert_eq!(as_in(time, "%H:%M").text, "10:01");
    }
}
