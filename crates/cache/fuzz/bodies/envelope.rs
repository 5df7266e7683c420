//! Stored bytes are hostile: whoever can write to the backend can write anything. They are refused or they are an entry
//! that can be written again; nothing else may come of them.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use recache_cache::envelope::{DECOMPRESSED_BYTES_MAX, Freshness, STAMP_NEVER, decode, encode};
use recache_cache::{Key, KeyPrefix, Timestamp};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const FORMAT_2: u8 = 2;
/// How long its header may be, without tags that take more.
const HEADER_BYTES: RangeInclusive<usize> = 16..=34;

fn key() -> Key {
    KeyPrefix::new("p").space("s").key(["k"])
}

/// As they are, then with a checksum that holds, then also with the right key wherever a header may end, so that what
/// lies behind these guards is reached. Returns how many of these were an entry.
pub(crate) fn any_bytes(data: &[u8]) -> usize {
    let text = key().as_str().to_owned();
    let len = u8::try_from(text.len()).unwrap_or(u8::MAX);
    let with_key = |at: usize| {
        let (header, payload) = data.split_at(at.min(data.len()));
        sealed(&[header, &[len], text.as_bytes(), payload].concat())
    };
    let stored = [Bytes::copy_from_slice(data), sealed(data)].into_iter().chain(HEADER_BYTES.map(with_key));
    stored.filter(is_entry).count()
}

fn sealed(body: &[u8]) -> Bytes {
    let sum = xxh3_64_with_seed(body, u64::from(FORMAT_2)).to_le_bytes();
    [&[FORMAT_2], &sum[..6], body].concat().into()
}

fn is_entry(stored: &Bytes) -> bool {
    let Ok((header, payload)) = decode(&key(), stored) else {
        return false;
    };
    assert!(payload.len() <= stored.len().max(DECOMPRESSED_BYTES_MAX));
    assert!(header.written_at <= header.fresh_until && header.fresh_until <= header.keep_until);
    assert_ne!(header.stamp, STAMP_NEVER);
    assert_eq!(header.freshness(header.keep_until, Some(Duration::MAX)), Freshness::Expired);
    assert_eq!(header.freshness(Timestamp::MAX, None), Freshness::Expired);
    for compress_from in [None, Some(0)] {
        let written = encode(&key(), &header, &payload, compress_from);
        assert_eq!(decode(&key(), &written), Ok((header, payload.clone())), "what was read can be written");
    }
    let other = KeyPrefix::new("p").space("s").key(["other"]);
    assert!(decode(&other, stored).is_err(), "and is nobody else's");
    true
}
