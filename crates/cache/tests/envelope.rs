//! Stored bytes: what was written reads back, and nothing else is ever taken for a value.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::time::Duration;

use proptest::prelude::*;
use recache_cache::envelope::{CLOCK_SKEW_MAX, DecodeError, Freshness, Header, TagSlots, decode, encode};
use recache_cache::{Codec, Key, KeyPrefix, Timestamp};

/// Written by format 1. It must read for as long as format 1 is supported, so it is never regenerated.
const FORMAT_1: &[u8] = include_bytes!("fixtures/envelope_format_1.bin");

fn key() -> Key {
    KeyPrefix::new("tasker").template("shop", "price list", "1.2.0")
}

fn header() -> Header {
    Header {
        written_at: Timestamp::from_micros(1_795_000_000_000_000),
        fresh_until: Timestamp::from_micros(1_795_000_060_000_000),
        keep_until: Timestamp::from_micros(1_795_003_600_000_000),
        tags: TagSlots::default(),
        schema: 0,
        stamp: 1_795_000_000_000_007,
        build_cost: Duration::from_micros(12_345),
        codec: Codec::Json,
        is_absent: false,
    }
}

#[test]
fn bytes_of_format_1_still_read() {
    let (read, payload) = decode(&key(), FORMAT_1).unwrap();
    assert_eq!(read, header());
    assert_eq!(payload, br#"{"price":1299}"#);
}

#[test]
fn format_1_is_still_written_as_it_was() {
    assert_eq!(encode(&key(), &header(), br#"{"price":1299}"#), FORMAT_1);
}

#[test]
fn value_of_another_key_is_refused() {
    let other = KeyPrefix::new("tasker").template("shop", "price list", "1.2.1");
    assert_eq!(decode(&other, FORMAT_1), Err(DecodeError::OtherKey));
}

#[test]
fn other_format_is_refused_by_its_number() {
    let mut bytes = FORMAT_1.to_vec();
    bytes[0] = 2;
    assert_eq!(decode(&key(), &bytes), Err(DecodeError::Format { found: 2 }));
}

#[test]
fn too_few_bytes_are_refused() {
    assert_eq!(decode(&key(), &[]), Err(DecodeError::Truncated { len: 0 }));
    assert_eq!(decode(&key(), &FORMAT_1[..16]), Err(DecodeError::Truncated { len: 16 }));
    assert_eq!(decode(&key(), &FORMAT_1[..17]), Err(DecodeError::Checksum));
}

#[test]
fn header_is_small() {
    let overhead = FORMAT_1.len() - key().as_str().len() - br#"{"price":1299}"#.len();
    assert!(overhead <= 60, "{overhead} bytes");
}

#[test]
fn freshness_ends_at_its_times() {
    let header = header();
    let at = |time: Timestamp| header.freshness(time, None);
    let just_before = |time: Timestamp| Timestamp::from_micros(time.as_micros() - 1);
    assert_eq!(at(header.written_at), Freshness::Fresh);
    assert_eq!(at(just_before(header.fresh_until)), Freshness::Fresh);
    assert_eq!(at(header.fresh_until), Freshness::Stale);
    assert_eq!(at(just_before(header.keep_until)), Freshness::Stale);
    assert_eq!(at(header.keep_until), Freshness::Expired);
}

#[test]
fn age_limit_ends_freshness_earlier_and_never_later() {
    let header = header();
    let limit = Some(Duration::from_secs(10));
    assert_eq!(
        header.freshness(header.written_at.saturating_add(Duration::from_secs(9)), limit),
        Freshness::Fresh
    );
    assert_eq!(
        header.freshness(header.written_at.saturating_add(Duration::from_secs(10)), limit),
        Freshness::Expired
    );
    assert_eq!(header.freshness(header.keep_until, Some(Duration::MAX)), Freshness::Expired);
}

#[test]
fn entry_from_beyond_the_clock_skew_is_not_served() {
    let mut header = header();
    let now = header.written_at;
    header.written_at = now.saturating_add(CLOCK_SKEW_MAX);
    assert_eq!(header.freshness(now, None), Freshness::Fresh);
    header.written_at = header.written_at.saturating_add(Duration::from_micros(1));
    assert_eq!(header.freshness(now, None), Freshness::Expired);
}

fn any_header() -> impl Strategy<Value = Header> {
    let times = (any::<i64>(), any::<i64>(), any::<i64>(), any::<u64>(), any::<u64>());
    (times, any::<bool>(), any::<bool>()).prop_map(
        |((written, fresh, keep, stamp, cost), json, is_absent)| Header {
            written_at: Timestamp::from_micros(written),
            fresh_until: Timestamp::from_micros(fresh),
            keep_until: Timestamp::from_micros(keep),
            stamp,
            tags: TagSlots::default(),
            schema: 0,
            build_cost: Duration::from_micros(cost),
            codec: if json { Codec::Json } else { Codec::Postcard },
            is_absent,
        },
    )
}

proptest! {
    #[test]
    fn round_trip(header in any_header(), part in ".{0,60}", payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let key = KeyPrefix::new("p").space("s").key([part]);
        let stored = encode(&key, &header, &payload);
        prop_assert_eq!(decode(&key, &stored), Ok((header, payload.as_slice())));
    }

    #[test]
    fn cut_or_lengthened_bytes_are_never_a_value(len in 0..FORMAT_1.len(), more in prop::collection::vec(any::<u8>(), 1..9)) {
        prop_assert!(decode(&key(), &FORMAT_1[..len]).is_err());
        let longer = [FORMAT_1, &more].concat();
        prop_assert!(decode(&key(), &longer).is_err());
    }

    #[test]
    fn any_bytes_at_all_are_never_a_value(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&key(), &bytes).is_err());
    }

    #[test]
    fn flipped_bits_never_yield_a_value(
        payload in prop::collection::vec(any::<u8>(), 0..100),
        flips in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let mut stored = encode(&key(), &header(), &payload).to_vec();
        let bits: std::collections::BTreeSet<_> = flips.iter().map(|flip| flip.index(stored.len() * 8)).collect();
        for bit in bits {
            stored[bit / 8] ^= 1 << (bit % 8);
        }
        prop_assert!(decode(&key(), &stored).is_err());
    }
}

#[test]
fn each_single_flipped_bit_is_noticed() {
    for bit in 0..FORMAT_1.len() * 8 {
        let mut bytes = FORMAT_1.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&key(), &bytes).is_err(), "bit {bit}");
    }
}
