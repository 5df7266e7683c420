//! Format 1, which is only read any more: one byte format number; 16 bytes checksum (BLAKE3, cut) over format number and
//! all that follows the checksum; the header in postcard, with the full key; the payload. About 55 bytes and the key.
//!
//! Its entries were numbered, not stamped. That number says nothing about the epochs of today, and so it reads as
//! [`STAMP_NEVER`]: the entry is known for what it is, and not served.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DecodeError, Header, STAMP_NEVER, TagSlots};
use crate::clock::Timestamp;
use crate::key::Key;
use crate::policy::Codec;

pub(super) const NUMBER: u8 = 1;

const CHECKSUM_BYTES: usize = 16;
const PREAMBLE_BYTES: usize = 1 + CHECKSUM_BYTES;

/// The header as it was stored. The order of the fields is the format.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    written_at_us: i64,
    fresh_until_us: i64,
    keep_until_us: i64,
    generation: u64,
    build_cost_us: u64,
    codec: Codec,
    is_absent: bool,
    key: &'a str,
}

pub(super) fn decode<'a>(key: &Key, stored: &'a [u8]) -> Result<(Header, Cow<'a, [u8]>), DecodeError> {
    let truncated = DecodeError::Truncated { len: stored.len() };
    let (preamble, body) = stored.split_at_checked(PREAMBLE_BYTES).ok_or(truncated)?;
    if preamble.get(1..) != Some(&checksum(body)) {
        return Err(DecodeError::Checksum);
    }
    let (wire, payload) = postcard::take_from_bytes::<Wire<'_>>(body).map_err(|_| DecodeError::Header)?;
    if wire.key != key.as_str() {
        return Err(DecodeError::OtherKey);
    }
    let header = Header {
        written_at: Timestamp::from_micros(wire.written_at_us),
        fresh_until: Timestamp::from_micros(wire.fresh_until_us),
        keep_until: Timestamp::from_micros(wire.keep_until_us),
        stamp: STAMP_NEVER,
        tags: TagSlots::default(),
        schema: 0,
        build_cost: Duration::from_micros(wire.build_cost_us),
        codec: wire.codec,
        is_absent: wire.is_absent,
    };
    Ok((header, Cow::Borrowed(payload)))
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = *blake3::Hasher::new().update(&[NUMBER]).update(body).finalize().as_bytes();
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(digest.split_at(CHECKSUM_BYTES).0);
    sum
}
