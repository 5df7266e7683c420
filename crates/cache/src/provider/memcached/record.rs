//! What we put into an item: a kind beside it, so that nothing of ours is taken for something else, and for entries the
//! moment at which they end.
//!
//! memcached counts in whole seconds, 0 is for ever, and an item of *n* seconds lives for *n - 1* to *n*. So every item is
//! given its time rounded up and one second more: it never ends early. Entries never end late either: their first eight
//! bytes say until when they may be served, in microseconds since 1970 by the writer's clock, and who reads judges. Should
//! the clocks of two machines differ, the server still ends every entry at most two seconds late.

use std::time::Duration;

use bytes::Bytes;

use super::wire::Found;
use crate::clock::Timestamp;
use crate::provider::Item;

/// A cache entry: when it ends, then its bytes.
pub(super) const ENTRY: u32 = 0x5243_0001;
/// Bytes as they are, of `compare_and_swap`.
pub(super) const PLAIN: u32 = 0x5243_0002;
/// A lease: its token.
pub(super) const LEASE: u32 = 0x5243_0003;
/// A number. The server makes these by itself, and then leaves 0 here.
pub(super) const NUMBER: u32 = 0;

const ENDS_AT_BYTES: usize = 8;

/// What an item takes beside key and value, generously: the server's own header and ours.
pub(super) const OVERHEAD_BYTES: usize = 512;

/// Zero as it is stored. The server's numbers have no sign and stop at 0, so ours are moved up by 2^63: every `i64` fits,
/// and adding stays one atomic command instead of a loop.
pub(super) const NUMBER_ZERO: u64 = 1 << 63;

/// Whole seconds that are not shorter than `time`, whenever in its second the server begins to count.
pub(super) fn seconds_for(time: Duration) -> u32 {
    let whole = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    u32::try_from(whole.saturating_add(1)).unwrap_or(u32::MAX)
}

/// The first part of an entry's value.
pub(super) fn ends_at(now: Timestamp, keep_for: Duration) -> [u8; ENDS_AT_BYTES] {
    now.saturating_add(keep_for).as_micros().to_le_bytes()
}

/// The entry in `found`, if there is one and it may be served at `now`. A placeholder is none, nor is anything that was
/// marked as outdated.
pub(super) fn entry(found: &Found, now: Timestamp) -> Option<Item> {
    if found.kind != ENTRY || found.is_stale {
        return None;
    }
    let (ends_at, _) = found.value.split_first_chunk::<ENDS_AT_BYTES>()?;
    let is_alive = now < Timestamp::from_micros(i64::from_le_bytes(*ends_at));
    is_alive.then(|| Item::from(found.value.slice(ENDS_AT_BYTES..)))
}

/// What stands in an item for who changes it with others.
pub(super) fn shared_value(found: &Found) -> Option<Bytes> {
    match found.kind {
        NUMBER => stored_number(&found.value).map(|number| Bytes::from(number.to_string())),
        PLAIN => Some(found.value.clone()),
        ENTRY => found.value.get(ENDS_AT_BYTES..).map(Bytes::copy_from_slice),
        _ => None,
    }
}

/// `raw` as the server counts it, back to what was meant.
pub(super) fn number_of(raw: u64) -> i64 {
    (raw ^ NUMBER_ZERO).cast_signed()
}

/// As the server counts it.
pub(super) fn raw_number(number: i64) -> u64 {
    number.cast_unsigned() ^ NUMBER_ZERO
}

/// Of the digits that the server keeps; it may pad them.
fn stored_number(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok().map(number_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: u32, value: &[u8]) -> Found {
        Found { kind, value: Bytes::copy_from_slice(value), ..Found::default() }
    }

    #[test]
    fn no_time_becomes_for_ever_and_none_is_shortened() {
        let seconds = |millis| seconds_for(Duration::from_millis(millis));
        assert_eq!([0, 1, 999, 1_000, 1_001].map(seconds), [1, 2, 2, 2, 3]);
        assert_eq!(seconds_for(Duration::MAX), u32::MAX);
    }

    #[test]
    fn entry_is_served_until_its_end_and_not_at_it() {
        let now = Timestamp::from_micros(1_000);
        let value = [&ends_at(now, Duration::from_micros(5))[..], b"bytes"].concat();
        let at = |micros| {
            entry(&found(ENTRY, &value), Timestamp::from_micros(micros)).map(|item| item.bytes.clone())
        };
        assert_eq!(at(1_004).unwrap(), "bytes");
        assert_eq!(at(1_005), None);
    }

    #[test]
    fn nothing_but_an_entry_is_served() {
        let now = Timestamp::from_micros(0);
        let value = [&ends_at(now, Duration::from_secs(1))[..], b"v"].concat();
        for kind in [NUMBER, PLAIN, LEASE, 7] {
            assert!(entry(&found(kind, &value), now).is_none());
        }
        assert!(entry(&found(ENTRY, b"short"), now).is_none());
        assert!(entry(&Found { is_stale: true, ..found(ENTRY, &value) }, now).is_none());
    }

    #[test]
    fn every_number_has_its_place_in_order() {
        let numbers = [i64::MIN, -7, -1, 0, 1, 5, i64::MAX];
        let raw = numbers.map(raw_number);
        assert!(raw.is_sorted());
        assert_eq!(raw.map(number_of), numbers);
        assert_eq!((raw_number(i64::MIN), raw_number(0), raw_number(i64::MAX)), (0, NUMBER_ZERO, u64::MAX));
        assert_eq!(shared_value(&found(NUMBER, b"9223372036854775806 ")).unwrap(), "-2");
        assert_eq!(shared_value(&found(NUMBER, b"")), None);
    }
}
