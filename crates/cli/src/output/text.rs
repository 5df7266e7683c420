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

/// An instant, to the second, as clocks in a time zone show it; in UTC where the zone is not known.
pub(crate) fn instant_in(instant: Instant, zone: &str) -> String {
    let at = jiff::Timestamp::from_microsecond(instant.micros()).unwrap_or_default();
    match at.in_tz(zone) {
        Ok(there) => there.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        Err(_) => self::instant(instant),
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

/// JSON on a line of its own: control characters, which can only be in its strings, are written as JSON writes them.
pub(crate) fn visible_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\t' => shown.push(' '),
            _ if character.is_control() => escape(character, &mut shown),
            _ => shown.push(character),
        }
    }
    shown
}

/// As JSON escapes it; a control character is one UTF-16 unit.
fn escape(character: char, shown: &mut String) {
    let code = u32::from(character);
    shown.push_str("\\u");
    shown.extend([12, 8, 4, 0].iter().filter_map(|shift| char::from_digit((code >> shift) & 0xf, 16)));
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
    fn json_with_control_characters_stays_json() {
        let json = "{\t\"a\u{9b}\": \"\u{7f}ü\"}";
        let shown = visible_json(json);
        assert_eq!(shown, "{ \"a\\u009b\": \"\\u007fü\"}");
        let read = |text| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&shown), read(json));
    }

    #[test]
    fn control_characters_are_made_visible() {
        assert_eq!(visible("a\u{1b}[31m\nü"), "a\\u{1b}[31m\\nü");
    }
}
