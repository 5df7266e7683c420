//! Instants, durations and foreign text as people read them.

use recache_api::Instant;

/// An instant, to the second, in UTC.
pub(crate) fn instant(instant: Instant) -> String {
    let text = instant.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

/// A duration with two of its units at most: `7 ms`, `1.250 s`, `2 m 3 s`, `4 d 1 h`.
pub(crate) fn duration(ms: u64) -> String {
    let (seconds, minutes, hours, days) = (ms / 1000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    if seconds == 0 {
        format!("{ms} ms")
    } else if minutes == 0 {
        format!("{seconds}.{:03} s", ms % 1000)
    } else if hours == 0 {
        format!("{minutes} m {} s", seconds % 60)
    } else if days == 0 {
        format!("{hours} h {} m", minutes % 60)
    } else {
        format!("{days} d {} h", hours % 24)
    }
}

/// Text from elsewhere for one place in a table: control characters are made visible, so that it cannot move the cursor
/// or change the terminal's colours.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_two_units_at_most() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_250, "1.250 s"),
            (59_999, "59.999 s"),
            (123_000, "2 m 3 s"),
            (3_600_000, "1 h 0 m"),
            (349_200_000, "4 d 1 h"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn instants_are_shown_to_the_second() {
        let at = Instant::from_micros(1_700_000_000_999_999).unwrap();
        assert_eq!(instant(at), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn control_characters_are_made_visible() {
        assert_eq!(visible("a\u{1b}[31m\nü"), "a\\u{1b}[31m\\nü");
    }
}
