//! What is stored: a header and the value's bytes. Anything wrong with stored bytes is a [`DecodeError`], which the
//! cache counts as a miss: a value is served only when it was written for this very key, in a known format, unharmed.
//!
//! [`FORMAT`] 2 is written; its layout is in `envelope/format_2.rs`. Format 1 is read.

mod compression;
mod format_1;
mod format_2;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

pub use self::compression::{COMPRESS_FROM_DEFAULT, DECOMPRESSED_BYTES_MAX, ZSTD_FROM};
use crate::clock::Timestamp;
use crate::epochs::Slot;
use crate::key::Key;
use crate::policy::Codec;

/// The format that is written. Every older one that was ever released must still read, or be a counted miss.
pub const FORMAT: u8 = format_2::NUMBER;

/// A stamp that no epochs give: stamps have 48 bits.
pub const STAMP_NEVER: u64 = u64::MAX;

/// An entry that was written further than this in the future is not served: some clock has been set back, and nobody
/// can tell its age.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(5);

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
    #[inline]
    pub fn freshness(&self, now: Timestamp, age_max: Option<Duration>) -> Freshness {
        let oldest = age_max.map_or(Timestamp::MAX, |age| self.written_at.saturating_add(age));
        if now >= self.keep_until.min(oldest) || self.written_at > now.saturating_add(CLOCK_SKEW_MAX) {
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
    #[error("stored entry has format {found}, this version reads formats 1 to {FORMAT}")]
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
    /// Written by who lays the value out differently.
    #[error("stored value has schema {found:#010x}, the reader has {expected:#010x}")]
    Schema {
        /// The writer's fingerprint.
        found: u32,
        /// The reader's.
        expected: u32,
    },
    /// The payload would be larger than [`DECOMPRESSED_BYTES_MAX`].
    #[error("stored payload claims {claimed} bytes once decompressed, the limit is {DECOMPRESSED_BYTES_MAX}")]
    TooLarge {
        /// The length that it claims.
        claimed: u64,
    },
    /// The payload is not what its compressor makes, or not of the length that it claims.
    #[error("stored payload cannot be decompressed")]
    Compression,
    /// The payload is not a value of the type asked for.
    #[error("stored {codec:?} payload is not a value of the type asked for")]
    Payload {
        /// The codec that it claims.
        codec: Codec,
    },
}

/// Header and payload as one run of bytes. The payload is compressed when it has at least `compress_from` bytes and
/// becomes smaller by an eighth or more.
///
/// The stamp is stored with 48 bits, times with whole milliseconds, rounded down.
pub fn encode(key: &Key, header: &Header, payload: &[u8], compress_from: Option<usize>) -> Bytes {
    format_2::encode(key, header, payload, compress_from)
}

/// The header and the payload of an entry that was stored for `key`. The payload lies in `stored`, unless it was
/// compressed.
pub fn decode<'a>(key: &Key, stored: &'a [u8]) -> Result<(Header, Cow<'a, [u8]>), DecodeError> {
    match stored.first() {
        None => Err(DecodeError::Truncated { len: 0 }),
        Some(&format_2::NUMBER) => format_2::decode(key, stored),
        Some(&format_1::NUMBER) => format_1::decode(key, stored),
        Some(&found) => Err(DecodeError::Format { found }),
    }
}
