//! Format 2: at most 32 bytes beside key and payload for an entry without tags and schema that took less than 2 s to
//! build, of which an entry with a day to live and a build of 100 ms needs 29.
//!
//! | Bytes | What |
//! |---|---|
//! | 1 | the number 2 |
//! | 6 | checksum over all else: xxh3-64 of what follows it, seeded with the format's number, cut to 48 bits |
//! | 1 | flags, see [`Flags`] |
//! | 4 | schema fingerprint, if any |
//! | 6 | stamp |
//! | 6 | written: milliseconds since the epoch |
//! | 1 to 10 | varint: milliseconds from then on for which it is fresh |
//! | 1 to 10 | varint: milliseconds from then on for which it is still kept |
//! | 1 to 10 | varint: microseconds that it took to build |
//! | 1 + 2n | tag slots, if any: their number, then each |
//! | 1 + n | the key: its length, its text |
//! | the rest | the payload |
//!
//! Numbers of fixed width are little-endian. Varints carry 7 bits a byte, the lowest first, and bit 7 says that another
//! byte follows. The checksum finds harm, not malice: who can write to the backend can forge an entry.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::compression::{self, Compression};
use super::{DecodeError, Header, TAGS_MAX, TagSlots};
use crate::clock::Timestamp;
use crate::epochs::Slot;
use crate::key::Key;
use crate::policy::Codec;

pub(super) const NUMBER: u8 = 2;

const CHECKSUM_BYTES: usize = 6;
const PREAMBLE_BYTES: usize = 1 + CHECKSUM_BYTES;
/// The most that may come before the key: all varints at their longest, all tags.
const HEADER_BYTES_MAX: usize = PREAMBLE_BYTES + 1 + 4 + 6 + 6 + 3 * 10 + 1 + 2 * TAGS_MAX + 1;
/// The largest number that 6 bytes hold.
const MAX_48: u64 = (1 << 48) - 1;

/// Bits 0 and 1: codec. Bits 2 and 3: compression. Bit 7 is zero; so is every value of the first two that is not
/// listed here refused.
struct Flags {
    codec: Codec,
    compression: Compression,
    is_absent: bool,
    has_tags: bool,
    has_schema: bool,
}

impl Flags {
    fn to_byte(&self) -> u8 {
        let codec = match self.codec {
            Codec::Json => 0,
            Codec::Postcard => 1,
        };
        let compression = match self.compression {
            Compression::None => 0,
            Compression::Lz4 => 1,
            Compression::Zstd => 2,
        };
        codec
            | compression << 2
            | u8::from(self.is_absent) << 4
            | u8::from(self.has_tags) << 5
            | u8::from(self.has_schema) << 6
    }

    fn from_byte(byte: u8) -> Option<Self> {
        let codec = match byte & 0b11 {
            0 => Codec::Json,
            1 => Codec::Postcard,
            _ => return None,
        };
        let compression = match byte >> 2 & 0b11 {
            0 => Compression::None,
            1 => Compression::Lz4,
            2 => Compression::Zstd,
            _ => return None,
        };
        let has = |bit: u8| byte >> bit & 1 == 1;
        (!has(7)).then_some(Self {
            codec,
            compression,
            is_absent: has(4),
            has_tags: has(5),
            has_schema: has(6),
        })
    }
}

/// Times are cut to whole milliseconds, never up: an entry that is read lives no longer than the one that was written.
pub(super) fn encode(key: &Key, header: &Header, payload: &[u8], compress_from: Option<usize>) -> Bytes {
    let (compression, payload) = compression::compress(payload, compress_from);
    let flags = Flags {
        codec: header.codec,
        compression,
        is_absent: header.is_absent,
        has_tags: !header.tags.as_slice().is_empty(),
        has_schema: header.schema != 0,
    };
    let written = millis(header.written_at).min(MAX_48);
    let keep = millis(header.keep_until).saturating_sub(written);
    let fresh = millis(header.fresh_until).saturating_sub(written).min(keep);

    let mut bytes = Vec::with_capacity(HEADER_BYTES_MAX + key.as_str().len() + payload.len());
    bytes.push(NUMBER);
    bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
    bytes.push(flags.to_byte());
    if flags.has_schema {
        bytes.extend_from_slice(&header.schema.to_le_bytes());
    }
    put_48(&mut bytes, header.stamp);
    put_48(&mut bytes, written);
    put_varint(&mut bytes, fresh);
    put_varint(&mut bytes, keep - fresh);
    put_varint(&mut bytes, u64::try_from(header.build_cost.as_micros()).unwrap_or(u64::MAX));
    if flags.has_tags {
        let slots = header.tags.as_slice();
        bytes.push(u8::try_from(slots.len()).unwrap_or(u8::MAX));
        for slot in slots {
            bytes.extend_from_slice(&slot.number().to_le_bytes());
        }
    }
    // No key is longer than 200 bytes; were one, its entry would not decode, which is a counted miss.
    bytes.push(u8::try_from(key.as_str().len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(key.as_str().as_bytes());
    bytes.extend_from_slice(&payload);
    let sum = checksum(bytes.get(PREAMBLE_BYTES..).unwrap_or_default());
    if let Some(place) = bytes.get_mut(1..PREAMBLE_BYTES) {
        place.copy_from_slice(&sum);
    }
    bytes.into()
}

pub(super) fn decode<'a>(key: &Key, stored: &'a [u8]) -> Result<(Header, Cow<'a, [u8]>), DecodeError> {
    let truncated = DecodeError::Truncated { len: stored.len() };
    let (preamble, body) = stored.split_at_checked(PREAMBLE_BYTES).ok_or(truncated)?;
    if preamble.get(1..) != Some(&checksum(body)) {
        return Err(DecodeError::Checksum);
    }
    let mut rest = Rest(body);
    let (header, compression) = rest.header().ok_or(DecodeError::Header)?;
    let named = rest.byte().and_then(|len| rest.take(usize::from(len))).ok_or(DecodeError::Header)?;
    if named != key.as_str().as_bytes() {
        return Err(DecodeError::OtherKey);
    }
    Ok((header, compression::decompress(compression, rest.0)?))
}

/// Of the bytes behind it. The seed covers the format's number.
fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    low_48(xxh3_64_with_seed(body, u64::from(NUMBER)))
}

/// Whole milliseconds since the epoch; zero before it.
fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.as_micros().div_euclid(1_000)).unwrap_or(0)
}

/// `None` beyond what a moment can be: that nobody has written.
fn time_of(millis: u64) -> Option<Timestamp> {
    i64::try_from(millis.checked_mul(1_000)?).ok().map(Timestamp::from_micros)
}

fn low_48(number: u64) -> [u8; 6] {
    let bytes = number.to_le_bytes();
    std::array::from_fn(|place| bytes.get(place).copied().unwrap_or(0))
}

fn put_48(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&low_48(number));
}

pub(super) fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

/// What has not been read yet. Every method takes from the front, or nothing when it is not there.
pub(super) struct Rest<'a>(pub(super) &'a [u8]);

impl<'a> Rest<'a> {
    fn header(&mut self) -> Option<(Header, Compression)> {
        let flags = Flags::from_byte(self.byte()?)?;
        let schema = if flags.has_schema { self.number::<4>()? } else { 0 };
        let stamp = self.number::<6>()?;
        let written = self.number::<6>()?;
        let fresh = written.checked_add(self.varint()?)?;
        let keep = fresh.checked_add(self.varint()?)?;
        let build_cost = Duration::from_micros(self.varint()?);
        let tags = if flags.has_tags { self.tags()? } else { TagSlots::default() };
        let header = Header {
            written_at: time_of(written)?,
            fresh_until: time_of(fresh)?,
            keep_until: time_of(keep)?,
            stamp,
            tags,
            schema: u32::try_from(schema).ok()?,
            build_cost,
            codec: flags.codec,
            is_absent: flags.is_absent,
        };
        Some((header, flags.compression))
    }

    fn tags(&mut self) -> Option<TagSlots> {
        let mut tags = TagSlots::default();
        for _ in 0..self.byte()? {
            let number = u16::try_from(self.number::<2>()?).ok()?;
            if !tags.push(Slot::from_number(number)?) {
                return None;
            }
        }
        Some(tags)
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number<const LEN: usize>(&mut self) -> Option<u64> {
        let mut number = [0; 8];
        number.get_mut(..LEN)?.copy_from_slice(self.take(LEN)?);
        Some(u64::from_le_bytes(number))
    }

    /// `None` also for a number beyond 64 bits.
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            let shifted = part << shift;
            if shifted >> shift != part {
                return None;
            }
            number |= shifted;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}
