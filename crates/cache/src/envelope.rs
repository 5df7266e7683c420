//! What is stored: a header and the value's bytes. Anything wrong with stored bytes is a [`DecodeError`], which the
//! cache counts as a miss: a value is served only when it was written for this very key, in a known format, unharmed.
//!
//! Layout of format 1: one byte format number; 16 bytes checksum (BLAKE3, cut) over format number and all that follows
//! the checksum; the header in postcard, with the full key; the payload. About 55 bytes and the key.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::epochs::Slot;
use crate::key::Key;
use crate::policy::Codec;

/// The format that is written. Every older one that was ever released must still read, or be a counted miss.
pub const FORMAT: u8 = 1;

/// An entry that was written further than this in the future is not served: some clock has been set back, and nobody
/// can tell its age.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(5);

const CHECKSUM_BYTES: usize = 16;
const PREAMBLE_BYTES: usize = 1 + CHECKSUM_BYTES;

/// What is known about a value beside the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The value is based on data at least as new as this: the moment when its load began, or when it was set.
    pub written_at: Timestamp,
    /// Until here it is fresh.
    pub fresh_until: Timestamp,
    /// Until here it is kept, and given out marked as stale.
    pub keep_until: Timestamp,
    /// The epochs under which its load began, see [`epochs`](crate::epochs). Served only while they are the same.
    pub stamp: u64,
    /// The slots of its tags.
    pub tags: TagSlots,
    /// Fingerprint of the value's layout, by the writer's word; 0 when it gave none.
    pub schema: u32,
    /// What it cost to make.
    pub build_cost: Duration,
    /// How the payload is written.
    pub codec: Codec,
    /// The cached answer is "there is none"; the payload is empty.
    pub is_absent: bool,
}

/// An entry has at most this many tags.
pub const TAGS_MAX: usize = 16;

/// The slots of an entry's tags, at most [`TAGS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagSlots {
    slots: [Slot; TAGS_MAX],
    len: u8,
}

impl TagSlots {
    /// Those of `tags`, each once; `None` when there are more than [`TAGS_MAX`].
    pub fn of<T: AsRef<str>>(tags: impl IntoIterator<Item = T>) -> Option<Self> {
        let mut slots = Self::default();
        for tag in tags {
            if !slots.push(Slot::of_tag(tag.as_ref())) {
                return None;
            }
        }
        Some(slots)
    }

    /// Adds one unless it is there; false when there is no room.
    pub fn push(&mut self, slot: Slot) -> bool {
        if self.as_slice().contains(&slot) {
            return true;
        }
        let Some(place) = self.slots.get_mut(usize::from(self.len)) else {
            return false;
        };
        *place = slot;
        self.len += 1;
        true
    }

    /// In the order in which they were given.
    pub fn as_slice(&self) -> &[Slot] {
        self.slots.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Default for TagSlots {
    fn default() -> Self {
        Self { slots: [Slot::EVERYTHING; TAGS_MAX], len: 0 }
    }
}

/// What may be done with a value at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Serve it.
    Fresh,
    /// Past `fresh_until`: serve it only marked as stale.
    Stale,
    /// Do not serve it.
    Expired,
}

impl Header {
    /// What may be done with the value at `now` by a reader who takes nothing older than `age_max`.
    pub fn freshness(&self, now: Timestamp, age_max: Option<Duration>) -> Freshness {
        let oldest = age_max.map_or(Timestamp::MAX, |age| self.written_at.saturating_add(age));
        if now >= self.keep_until.min(oldest) || self.written_at.saturating_since(now) > CLOCK_SKEW_MAX {
            Freshness::Expired
        } else if now >= self.fresh_until {
            Freshness::Stale
        } else {
            Freshness::Fresh
        }
    }
}

/// Why stored bytes are not a value of this key. Not a failure of the backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Too short to be an entry.
    #[error("stored entry of {len} bytes is too short")]
    Truncated {
        /// Length of what was stored.
        len: usize,
    },
    /// Written in a format that this version does not read.
    #[error("stored entry has format {found}, this version reads {FORMAT}")]
    Format {
        /// The format number found.
        found: u8,
    },
    /// Harmed.
    #[error("stored entry does not match its checksum")]
    Checksum,
    /// The checksum holds and yet the header cannot be read.
    #[error("stored entry has an unreadable header")]
    Header,
    /// Written for another key.
    #[error("stored entry belongs to another key")]
    OtherKey,
    /// The payload is not a value of the type asked for.
    #[error("stored {codec:?} payload is not a value of the type asked for")]
    Payload {
        /// The codec that it claims.
        codec: Codec,
    },
}

/// The header as it is stored. The order of the fields is the format.
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

/// Header and payload as one run of bytes.
pub fn encode(key: &Key, header: &Header, payload: &[u8]) -> Bytes {
    let wire = Wire {
        written_at_us: header.written_at.as_micros(),
        fresh_until_us: header.fresh_until.as_micros(),
        keep_until_us: header.keep_until.as_micros(),
        generation: header.stamp,
        build_cost_us: u64::try_from(header.build_cost.as_micros()).unwrap_or(u64::MAX),
        codec: header.codec,
        is_absent: header.is_absent,
        key: key.as_str(),
    };
    let mut bytes = Vec::with_capacity(PREAMBLE_BYTES + 48 + key.as_str().len() + payload.len());
    bytes.push(FORMAT);
    bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
    // Integers, a bool and a string into a growing vector: postcard has nothing to refuse. Were it to, the entry
    // would be empty, which is a counted miss.
    let Ok(mut bytes) = postcard::to_extend(&wire, bytes) else {
        return Bytes::new();
    };
    bytes.extend_from_slice(payload);
    let sum = checksum(FORMAT, bytes.get(PREAMBLE_BYTES..).unwrap_or_default());
    if let Some(place) = bytes.get_mut(1..PREAMBLE_BYTES) {
        place.copy_from_slice(&sum);
    }
    bytes.into()
}

/// The header and the payload of an entry that was stored for `key`.
pub fn decode<'a>(key: &Key, stored: &'a [u8]) -> Result<(Header, &'a [u8]), DecodeError> {
    let truncated = DecodeError::Truncated { len: stored.len() };
    let (&format, rest) = stored.split_first().ok_or_else(|| truncated.clone())?;
    if format != FORMAT {
        return Err(DecodeError::Format { found: format });
    }
    let (sum, body) = rest.split_at_checked(CHECKSUM_BYTES).ok_or(truncated)?;
    if sum != checksum(format, body) {
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
        stamp: wire.generation,
        tags: TagSlots::default(),
        schema: 0,
        build_cost: Duration::from_micros(wire.build_cost_us),
        codec: wire.codec,
        is_absent: wire.is_absent,
    };
    Ok((header, payload))
}

fn checksum(format: u8, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = *blake3::Hasher::new().update(&[format]).update(body).finalize().as_bytes();
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(digest.split_at(CHECKSUM_BYTES).0);
    sum
}
