//! What stands in the store for a value that only the cache has: its digest, behind a mark that begins no JSON.

/// Begins what stands for a value: one letter, with which no JSON begins.
pub const STANDS: &str = "@";

/// What stands for a value of this digest.
pub fn standing_for(digest: &str) -> String {
    format!("{STANDS}{digest}")
}

/// The digest of the value that this stands for; `None`: it is a value itself.
pub fn digest_of(stored: &str) -> Option<&str> {
    stored.strip_prefix(STANDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_a_value_is_no_value() {
        let stands = standing_for("abc");
        assert_eq!(digest_of(&stands), Some("abc"));
        assert!(serde_json::from_str::<serde_json::Value>(&stands).is_err());
        for value in ["null", "\"@abc\"", "{}", "1"] {
            assert_eq!(digest_of(value), None);
        }
    }
}
