//! Stored bytes: what was written reads back, and nothing else is ever taken for a value.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use recache_cache::envelope::{
    CLOCK_SKEW_MAX, DecodeError, Freshness, Header, STAMP_NEVER, TAGS_MAX, TagSlots, decode, encode,
};
use recache_cache::epochs::Slot;
use recache_cache::{Codec, Key, KeyPrefix, Timestamp};

/// Written by format 1 and format 2. Each must read for as long as its format is supported, so they are never
/// regenerated.
const FORMAT_1: &[u8] = include_bytes!("fixtures/envelope_format_1.bin");
const FORMAT_2: &[u8] = include_bytes!("fixtures/envelope_format_2.bin");
const FORMAT_2_TAGGED_ZSTD: &[u8] = include_bytes!("fixtures/envelope_format_2_tagged_zstd.bin");
const FORMAT_2_ABSENT: &[u8] = include_bytes!("fixtures/envelope_format_2_absent.bin");
const FORMAT_2_LZ4: &[u8] = include_bytes!("fixtures/envelope_format_2_lz4.bin");

const PAYLOAD: &[u8] = br#"{"price":1299}"#;

fn key() -> Key {
    KeyPrefix::new("tasker").template("shop", "price list", "1.2.0")
}

fn header() -> Header {
    Header {
        written_at: Timestamp::from_micros(1_795_000_000_000_000),
        fresh_until: Timestamp::from_micros(1_795_003_600_000_000),
        keep_until: Timestamp::from_micros(1_795_003_600_000_000),
        tags: TagSlots::default(),
        schema: 0,
        stamp: 0x1234_5678_9abc,
        build_cost: Duration::from_micros(123_456),
        codec: Codec::Json,
        is_absent: false,
    }
}

/// What the stored bytes of format 1 were made of.
fn header_1() -> Header {
    Header {
        fresh_until: Timestamp::from_micros(1_795_000_060_000_000),
        stamp: STAMP_NEVER,
        build_cost: Duration::from_micros(12_345),
        ..header()
    }
}

fn tags(slots: [u16; 3]) -> TagSlots {
    let mut tags = TagSlots::default();
    assert!(slots.into_iter().all(|slot| tags.push(Slot::from_number(slot).unwrap())));
    tags
}

/// Entries carry the numbers, and epochs are kept under them: they must never change.
#[test]
fn slots_of_names_stay_what_they_are() {
    assert_eq!(TagSlots::of(["red", "green", "blue"]), Some(tags([1990, 358, 656])));
    assert_eq!((Slot::of_key(&key()).number(), Slot::of_space(&key().space()).number()), (544, 94));
}

fn header_tagged() -> Header {
    Header { tags: tags([1989, 357, 655]), schema: 0xdead_beef, codec: Codec::Postcard, ..header() }
}

fn header_absent() -> Header {
    let until = Timestamp::from_micros(1_795_000_010_000_000);
    Header { is_absent: true, fresh_until: until, keep_until: until, build_cost: Duration::ZERO, ..header() }
}

fn text(len: usize) -> Vec<u8> {
    b"the same words again and again, ".iter().copied().cycle().take(len).collect()
}

fn read(key: &Key, stored: &[u8]) -> Result<(Header, Bytes), DecodeError> {
    decode(key, stored).map(|(header, payload)| (header, Bytes::copy_from_slice(&payload)))
}

#[test]
fn bytes_of_format_1_still_read_and_are_never_served() {
    let (header, payload) = read(&key(), FORMAT_1).unwrap();
    assert_eq!(header, header_1());
    assert_eq!(payload, PAYLOAD);
    assert!(header.stamp >= 1 << 48, "no epochs give it");
}

#[test]
fn bytes_of_format_2_still_read() {
    let stored = [
        (FORMAT_2, header(), PAYLOAD.to_vec()),
        (FORMAT_2_TAGGED_ZSTD, header_tagged(), text(20_000)),
        (FORMAT_2_ABSENT, header_absent(), Vec::new()),
        (FORMAT_2_LZ4, header(), text(2_000)),
    ];
    for (stored, header, payload) in stored {
        assert_eq!(read(&key(), stored), Ok((header, Bytes::from(payload))));
    }
}

/// Compressors may find better ways; the rest is fixed.
#[test]
fn format_2_is_written_as_it_was() {
    assert_eq!(encode(&key(), &header(), PAYLOAD, None), FORMAT_2);
    assert_eq!(encode(&key(), &header_absent(), &[], None), FORMAT_2_ABSENT);
}

#[test]
fn payload_is_not_copied() {
    let stored = encode(&key(), &header(), PAYLOAD, None);
    let (_, payload) = decode(&key(), &stored).unwrap();
    assert!(stored.as_ptr_range().contains(&payload.as_ptr()));
    assert_eq!(payload.as_ptr_range().end, stored.as_ptr_range().end);
}

#[test]
fn an_entry_lives_no_longer_once_it_was_stored() {
    let odd = Header {
        written_at: Timestamp::from_micros(1_000_999),
        fresh_until: Timestamp::from_micros(2_000_999),
        keep_until: Timestamp::from_micros(3_000_999),
        ..header()
    };
    let (header, _) = decode(&key(), &encode(&key(), &odd, &[], None)).unwrap();
    assert_eq!(header.written_at, Timestamp::from_micros(1_000_000));
    assert_eq!(header.fresh_until, Timestamp::from_micros(2_000_000));
    assert_eq!(header.keep_until, Timestamp::from_micros(3_000_000));
}

#[test]
fn value_of_another_key_is_refused() {
    let other = KeyPrefix::new("tasker").template("shop", "price list", "1.2.1");
    assert_eq!(read(&other, FORMAT_1), Err(DecodeError::OtherKey));
    assert_eq!(read(&other, FORMAT_2), Err(DecodeError::OtherKey));
}

#[test]
fn other_format_is_refused_by_its_number() {
    let mut bytes = FORMAT_2.to_vec();
    bytes[0] = 3;
    assert_eq!(read(&key(), &bytes), Err(DecodeError::Format { found: 3 }));
    bytes[0] = 1;
    assert_eq!(read(&key(), &bytes), Err(DecodeError::Checksum), "the number is part of the checksum");
}

#[test]
fn too_few_bytes_are_refused() {
    assert_eq!(read(&key(), &[]), Err(DecodeError::Truncated { len: 0 }));
    for (stored, preamble) in [(FORMAT_1, 17), (FORMAT_2, 7)] {
        let len = preamble - 1;
        assert_eq!(read(&key(), &stored[..len]), Err(DecodeError::Truncated { len }));
        assert_eq!(read(&key(), &stored[..preamble]), Err(DecodeError::Checksum));
    }
}

#[test]
fn header_takes_at_most_32_bytes_beside_key_and_payload() {
    let beside =
        |header: &Header| encode(&key(), header, PAYLOAD, None).len() - key().as_str().len() - PAYLOAD.len();
    assert_eq!(beside(&header()), 29);
    assert_eq!(beside(&Header { build_cost: Duration::from_micros(2_097_151), ..header() }), 29);
    assert_eq!(beside(&Header { build_cost: Duration::from_mins(4), ..header() }), 30);
    assert_eq!(beside(&Header { schema: 1, build_cost: Duration::from_millis(16), ..header() }), 32);
    let day = Header { keep_until: Timestamp::from_micros(1_795_086_400_000_000), ..header() };
    assert_eq!(beside(&day), 32);
}

#[test]
fn freshness_ends_at_its_times() {
    let header = header_1();
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
    let header = header_1();
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
    let mut header = header_1();
    let now = header.written_at;
    header.written_at = now.saturating_add(CLOCK_SKEW_MAX);
    assert_eq!(header.freshness(now, None), Freshness::Fresh);
    header.written_at = header.written_at.saturating_add(Duration::from_micros(1));
    assert_eq!(header.freshness(now, None), Freshness::Expired);
}

/// As it reads back: whole milliseconds since the epoch, in order, and 48 bits of stamp.
fn as_stored(header: Header) -> Header {
    let millis = |time: Timestamp| time.as_micros().div_euclid(1_000).max(0);
    let written = millis(header.written_at).min((1 << 48) - 1);
    let keep = millis(header.keep_until).max(written);
    let fresh = millis(header.fresh_until).clamp(written, keep);
    let time = |millis: i64| Timestamp::from_micros(millis * 1_000);
    Header {
        written_at: time(written),
        fresh_until: time(fresh),
        keep_until: time(keep),
        stamp: header.stamp & ((1 << 48) - 1),
        ..header
    }
}

fn any_header() -> impl Strategy<Value = Header> {
    let times = (any::<i64>(), any::<i64>(), any::<i64>(), any::<u64>(), any::<u64>());
    let tags = prop::collection::vec("[a-z]{0,9}", 0..TAGS_MAX);
    (times, any::<bool>(), any::<bool>(), tags, any::<u32>()).prop_map(
        |((written, fresh, keep, stamp, cost), json, is_absent, tags, schema)| Header {
            written_at: Timestamp::from_micros(written),
            fresh_until: Timestamp::from_micros(fresh),
            keep_until: Timestamp::from_micros(keep),
            stamp,
            tags: TagSlots::of(tags).unwrap(),
            schema,
            build_cost: Duration::from_micros(cost),
            codec: if json { Codec::Json } else { Codec::Postcard },
            is_absent,
        },
    )
}

proptest! {
    #[test]
    fn round_trip(
        header in any_header(),
        part in ".{0,60}",
        payload in prop::collection::vec(0..4_u8, 0..300),
        compress_from in prop::option::of(0..100_usize),
    ) {
        let key = KeyPrefix::new("p").space("s").key([part]);
        let stored = encode(&key, &header, &payload, compress_from);
        prop_assert_eq!(read(&key, &stored), Ok((as_stored(header), Bytes::from(payload))));
    }

    #[test]
    fn cut_or_lengthened_bytes_are_never_a_value(
        stored in prop::sample::select(vec![FORMAT_1, FORMAT_2, FORMAT_2_LZ4]),
        cut in any::<prop::sample::Index>(),
        more in prop::collection::vec(any::<u8>(), 1..9),
    ) {
        prop_assert!(read(&key(), &stored[..cut.index(stored.len())]).is_err());
        prop_assert!(read(&key(), &[stored, &more].concat()).is_err());
    }

    #[test]
    fn any_bytes_at_all_are_never_a_value(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(&key(), &bytes).is_err());
    }

    #[test]
    fn flipped_bits_never_yield_a_value(
        payload in prop::collection::vec(any::<u8>(), 0..100),
        flips in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let mut stored = encode(&key(), &header(), &payload, None).to_vec();
        let bits: std::collections::BTreeSet<_> = flips.iter().map(|flip| flip.index(stored.len() * 8)).collect();
        for bit in bits {
            stored[bit / 8] ^= 1 << (bit % 8);
        }
        prop_assert!(read(&key(), &stored).is_err());
    }
}

#[test]
fn each_single_flipped_bit_is_noticed() {
    for stored in [FORMAT_1, FORMAT_2, FORMAT_2_LZ4] {
        for bit in 0..stored.len() * 8 {
            let mut bytes = stored.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&key(), &bytes).is_err(), "bit {bit}");
        }
    }
}
