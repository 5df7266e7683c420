//! Hides secrets in what is shown: values in `config explain`, and the lines of the file in a report.
//!
//! It would rather hide too much than too little. A file that does not even parse is shown in a report too, so the
//! rules look at text, not at a parsed URL.

use std::ops::Range;

/// Words in a name that say that its value is secret.
const SECRET_WORDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "api_key",
    "apikey",
    "credential",
    "signing",
];

/// The value with each secret replaced by `***`, whatever its length.
pub(super) fn mask(value: &str) -> String {
    let mut shown = String::with_capacity(value.len());
    let mut end = 0;
    for range in secrets(value, Some('&')) {
        shown.push_str(&value[end..range.start]);
        shown.push_str("***");
        end = range.end;
    }
    shown.push_str(&value[end..]);
    shown
}

/// The text of a file with each secret's bytes replaced by as many stars, so that every offset keeps its meaning.
///
/// A string over several lines is hidden whole: the rules look at one line at a time, and no option needs one.
pub(super) fn mask_source(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((start, quotes)) =
        ["\"\"\"", "'''"].iter().filter_map(|quotes| Some((rest.find(quotes)?, *quotes))).min()
    {
        let (before, after) = rest.split_at(start + quotes.len());
        let (string, behind) = after.split_at(after.find(quotes).unwrap_or(after.len()));
        mask_lines(before, &mut shown);
        for character in string.chars() {
            if matches!(character, '\r' | '\n') {
                shown.push(character);
            } else {
                shown.push_str(&"*".repeat(character.len_utf8()));
            }
        }
        shown.push_str(&behind[..quotes.len().min(behind.len())]);
        rest = &behind[quotes.len().min(behind.len())..];
    }
    mask_lines(rest, &mut shown);
    shown
}

fn mask_lines(text: &str, shown: &mut String) {
    for line in text.split_inclusive('\n') {
        let mut end = 0;
        for range in secrets(line.trim_end_matches(['\r', '\n']), None) {
            shown.push_str(&line[end..range.start]);
            shown.push_str(&"*".repeat(range.len()));
            end = range.end;
        }
        shown.push_str(&line[end..]);
    }
}

/// Whether a name says that its value is secret.
pub(super) fn names_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| lower.contains(word))
}

/// Where the secrets of one line are: in order, not overlapping. `ends` is what a named secret cannot contain.
fn secrets(line: &str, ends: Option<char>) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = user_info(line).into_iter().collect();
    found.extend(named(line, ends));
    found.retain(|range| !range.is_empty() && !is_reference(&line[range.clone()]));
    found.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for range in found {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// From the first `:` behind `://` to the last `@`: whatever the password contains, it lies between them, also when
/// the line holds several URLs. Without `://` (a URL with a typing error) from the first `:` of the line.
fn user_info(line: &str) -> Option<Range<usize>> {
    let at = line.rfind('@')?;
    let start = match line.find("://") {
        Some(scheme) => scheme + 3,
        // A path may hold an `@`, and there is no password in it.
        None if line.contains("sqlite:") => return None,
        None => 0,
    };
    let colon = line.get(start..at)?.find(':')? + start;
    Some(colon + 1..at)
}

/// Behind `password=`, `token: ` and the like: to what ends it, else to the end of the line.
fn named(line: &str, ends: Option<char>) -> Vec<Range<usize>> {
    let lower = line.to_ascii_lowercase();
    let mut found = Vec::new();
    for word in SECRET_WORDS {
        for (start, _) in lower.match_indices(word) {
            let after = start + word.len();
            let name_rest = lower[after..].find(|character: char| {
                !(character.is_ascii_alphanumeric() || "_-\"' \t".contains(character))
            });
            let Some(sign) = name_rest.map(|length| after + length) else { continue };
            if !matches!(lower.as_bytes().get(sign), Some(b'=' | b':')) {
                continue;
            }
            let value = &line[sign + 1..];
            let blank = value.len() - value.trim_start_matches([' ', '\t']).len();
            let end = ends.and_then(|ends| value.find(ends)).unwrap_or(value.len());
            found.push(sign + 1 + blank..(sign + 1 + end).max(sign + 1 + blank));
        }
    }
    found
}

/// `${NAME}` alone, quoted or not, is not a secret; with a default it may be one.
fn is_reference(text: &str) -> bool {
    let bare = text.trim().trim_matches(['"', '\'']);
    bare.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_values_are_hidden() {
        for (value, shown) in [
            ("postgres://user:hunter2@host:5432/db", "postgres://user:***@host:5432/db"),
            ("redis://:hunter2@host", "redis://:***@host"),
            ("postgres://user:hun@ter:2@host/db", "postgres://user:***@host/db"),
            ("postgres:/user:hunter2@host", "postgres:***@host"),
            (
                "postgres://host/db?user=u&password=hunter2&sslmode=require",
                "postgres://host/db?user=u&password=***&sslmode=require",
            ),
            ("postgres://host/db?sslPASSWORD=hunter2", "postgres://host/db?sslPASSWORD=***"),
            ("postgres://user@host/db", "postgres://user@host/db"),
            ("redis://localhost:6379", "redis://localhost:6379"),
            ("sqlite:me@home.db", "sqlite:me@home.db"),
            ("tokens are fine", "tokens are fine"),
            ("", ""),
        ] {
            assert_eq!(mask(value), shown);
        }
    }

    #[test]
    fn passwords_in_a_file_are_hidden_and_offsets_stay() {
        for (text, shown) in [
            (
                "url = \"postgres://u:hunter2@h\"\nslots = 4\n",
                "url = \"postgres://u:*******@h\"\nslots = 4\n",
            ),
            ("url = \"postgres://u:hunter2@h\n", "url = \"postgres://u:*******@h\n"),
            ("password = \"hunter2\"\r\nslots = 4", "password = *********\r\nslots = 4"),
            ("url = \"postgres://u:${PASS}@h\"", "url = \"postgres://u:${PASS}@h\""),
            ("password = \"${PASS}\"", "password = \"${PASS}\""),
            ("url = \"${PASSWORD_URL:-hunter2}\"", "url = \"${PASSWORD_URL:**********"),
            ("url = \"postgres://u:${P:-hunter2}@h\"", "url = \"postgres://u:*************@h\""),
            (
                "a = \"redis://u@h\", b = \"redis://:hunter2@h\"",
                "a = \"redis://u@h\", b = \"redis:**********@h\"",
            ),
            ("a = \"\"\"x\nhünter2\"\"\" # b\n", "a = \"\"\"*\n********\"\"\" # b\n"),
            ("a = '''hunter2", "a = '''*******"),
            ("u = \"redis://u:pässe@h\"", "u = \"redis://u:******@h\""),
        ] {
            assert_eq!(mask_source(text), shown);
            assert_eq!(mask_source(text).len(), text.len());
        }
    }
}
