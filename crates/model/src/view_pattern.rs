//! Patterns of views' keys: `*` stands for any text, all else for itself.

/// The mark that makes a pattern of a key.
pub const ANY: char = '*';

/// Whether this is a pattern rather than a key.
pub fn is_pattern(text: &str) -> bool {
    text.contains(ANY)
}

/// Whether the pattern covers `key`. Needs at most as many steps as both are long, multiplied.
pub fn covers(pattern: &str, key: &str) -> bool {
    let (pattern, key) = (pattern.as_bytes(), key.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // After the last `*`: where the pattern goes on, and how much of the key that `*` stands for by now ends where.
    let mut retry: Option<(usize, usize)> = None;
    while seen < key.len() {
        match (pattern.get(at), retry) {
            (Some(b'*'), _) => {
                at += 1;
                retry = Some((at, seen));
            }
            (Some(byte), _) if *byte == key[seen] => {
                at += 1;
                seen += 1;
            }
            (_, Some((after_star, from))) => {
                at = after_star;
                seen = from + 1;
                retry = Some((after_star, seen));
            }
            (_, None) => return false,
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// How much of a pattern stands for itself, in bytes: of two patterns that cover a key, the one with more of it is meant.
pub fn literal_bytes(pattern: &str) -> usize {
    pattern.bytes().filter(|byte| *byte != b'*').count()
}

/// What every key that the pattern covers begins with.
pub fn prefix(pattern: &str) -> &str {
    pattern.split(ANY).next().unwrap_or("")
}

/// Of the patterns that cover `key`, the one that says most; of equal ones the first by name.
pub fn meant<'a>(patterns: impl Iterator<Item = &'a str>, key: &str) -> Option<&'a str> {
    patterns
        .filter(|pattern| covers(pattern, key))
        .min_by_key(|pattern| (std::cmp::Reverse(literal_bytes(pattern)), *pattern))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn star_stands_for_any_text_and_all_else_for_itself() {
        for (pattern, key, expected) in [
            ("alliance/*", "alliance/42", true),
            ("alliance/*", "alliance/", true),
            ("alliance/*", "alliance", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-c-d", false),
            ("a.c", "abc", false),
            ("%_", "xy", false),
            ("k", "k", true),
            ("ü*", "über", true),
        ] {
            assert_eq!(covers(pattern, key), expected, "{pattern} {key}");
        }
    }

    #[test]
    fn pattern_that_says_more_is_meant() {
        let patterns = ["*", "alliance/*", "alliance/4*", "guild/*"];
        assert_eq!(meant(patterns.into_iter(), "alliance/42"), Some("alliance/4*"));
        assert_eq!(meant(patterns.into_iter(), "alliance/7"), Some("alliance/*"));
        assert_eq!(meant(patterns.into_iter(), "x"), Some("*"));
        assert_eq!(meant(["guild/*"].into_iter(), "x"), None);
        assert_eq!(prefix("alliance/4*/x*"), "alliance/4");
    }

    /// By the definition, in exponential time.
    fn slowly(pattern: &[u8], key: &[u8]) -> bool {
        match pattern.split_first() {
            None => key.is_empty(),
            Some((b'*', rest)) => (0..=key.len()).any(|from| slowly(rest, &key[from..])),
            Some((byte, rest)) => {
                key.split_first().is_some_and(|(first, key)| first == byte && slowly(rest, key))
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*]{0,8}", key in "[ab]{0,8}") {
            prop_assert_eq!(covers(&pattern, &key), slowly(pattern.as_bytes(), key.as_bytes()));
        }
    }
}
