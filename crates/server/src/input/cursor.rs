//! Where a list goes on: a place in it as opaque text.
//!
//! A cursor belongs to its list and to its filter. With another filter it would skip or repeat rows without a sign, so it is
//! refused there. It is not secret and gives no right: every page checks again who asks.

use std::fmt::Debug;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::refusal::{Code, Refusal};

const MARK_BYTES: usize = 8;
/// Longest cursor, in characters.
const CURSOR_CHARACTERS_MAX: usize = 4 * 1024;

/// The text of a place in a list with this filter.
pub(crate) fn write(list: &str, filter: &impl Debug, place: &str) -> String {
    let mut bytes = mark(list, filter).to_vec();
    bytes.extend_from_slice(place.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The place that a cursor names.
pub(crate) fn read(list: &str, filter: &impl Debug, cursor: &str) -> Result<String, Refusal> {
    let decoded = match cursor.len() {
        0..=CURSOR_CHARACTERS_MAX => URL_SAFE_NO_PAD.decode(cursor).ok(),
        _ => None,
    };
    let place = decoded.filter(|bytes| bytes.len() > MARK_BYTES).and_then(|bytes| {
        let (given, place) = bytes.split_at(MARK_BYTES);
        let place = std::str::from_utf8(place).ok()?;
        (given == mark(list, filter) && !place.contains('\0')).then(|| place.to_owned())
    });
    place.ok_or_else(|| {
        Refusal::field(Code::InvalidParameter, "?cursor", "is not a cursor of this list with this filter")
            .remedy("give `next` of the page before, and the same parameters as there")
    })
}

fn mark(list: &str, filter: &impl Debug) -> [u8; MARK_BYTES] {
    let digest = blake3::hash(format!("{list} {filter:?}").as_bytes());
    let mut mark = [0; MARK_BYTES];
    mark.copy_from_slice(&digest.as_bytes()[..MARK_BYTES]);
    mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_leads_to_its_place_in_its_own_list_only() {
        let cursor = write("jobs", &("a", 1), "job_7");
        assert_eq!(read("jobs", &("a", 1), &cursor).unwrap(), "job_7");
        for (list, filter) in [("jobs", ("a", 2)), ("workflows", ("a", 1))] {
            assert!(read(list, &filter, &cursor).is_err());
        }
        let long = "A".repeat(CURSOR_CHARACTERS_MAX + 1);
        for text in ["", "x", "!!", "AAAAAAAAAAA", "AAAAAAAAAAAA", cursor.trim_end_matches('3'), &long] {
            assert!(text == cursor || read("jobs", &("a", 1), text).is_err(), "{text}");
        }
    }
}
