//! How long a value counts as fresh, how long it is kept, and how it is written down.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::envelope::COMPRESS_FROM_DEFAULT;

/// Nothing is kept longer than this: ten years.
pub const KEEP_FOR_MAX: Duration = Duration::from_hours(10 * 365 * 24);

/// How long a caller waits for another caller's load, unless the policy says otherwise.
pub const FOLLOW_FOR_DEFAULT: Duration = Duration::from_secs(30);

/// How a value is turned into bytes. Written into each entry, so that a reader never guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Codec {
    /// JSON, the default. Fields carry their names, so every serde attribute works, and a type that has changed since
    /// the entry was written is either read rightly or not at all.
    #[default]
    Json,
    /// Postcard: small and fast, fields by position. Only for types without `skip_serializing_if`, `flatten` or
    /// `untagged`, and with a new key (a part that counts the type's versions) whenever the type changes: bytes of one
    /// layout may read as another.
    Postcard,
}

/// What a caller wants for one value.
///
/// Times count from the moment when the load *began*, so that a served value is never based on data older than
/// `fresh_for`. A load that takes longer than `keep_for` is therefore not cached at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    fresh_for: Duration,
    keep_for: Duration,
    negative_for: Option<Duration>,
    follow_for: Duration,
    codec: Codec,
    compress_from: Option<usize>,
    schema: u32,
}

impl Policy {
    /// Fresh for `fresh_for`, and kept no longer; absent answers are not cached. With `Duration::ZERO` nothing is
    /// cached, while concurrent loads of one key are still joined.
    pub fn new(fresh_for: Duration) -> Self {
        let fresh_for = fresh_for.min(KEEP_FOR_MAX);
        Self {
            fresh_for,
            keep_for: fresh_for,
            negative_for: None,
            follow_for: FOLLOW_FOR_DEFAULT,
            codec: Codec::default(),
            compress_from: Some(COMPRESS_FROM_DEFAULT),
            schema: 0,
        }
    }

    /// Keeps the value beyond its freshness, for [`Cache::lookup`](crate::Cache::lookup), which marks it stale. Never
    /// shorter than `fresh_for`, never longer than [`KEEP_FOR_MAX`].
    pub fn keep_for(mut self, keep_for: Duration) -> Self {
        self.keep_for = keep_for.clamp(self.fresh_for, KEEP_FOR_MAX);
        self
    }

    /// Caches the answer "there is none" for this long. Default: absent answers are not cached.
    pub fn negative_for(mut self, negative_for: Duration) -> Self {
        self.negative_for = Some(negative_for.min(KEEP_FOR_MAX));
        self
    }

    /// How long to wait for a load that another caller has begun before starting an own one. Default 30 s.
    pub fn follow_for(mut self, follow_for: Duration) -> Self {
        self.follow_for = follow_for;
        self
    }

    /// How the value is written down. Default [`Codec::Json`].
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Compresses values that are at least this long once they are written down. Default
    /// [`COMPRESS_FROM_DEFAULT`](crate::envelope::COMPRESS_FROM_DEFAULT). Values that stay in this process are never
    /// compressed, nor are those that would not become smaller by an eighth.
    pub fn compress_from(mut self, bytes: usize) -> Self {
        self.compress_from = Some(bytes);
        self
    }

    /// Compresses nothing.
    pub fn uncompressed(mut self) -> Self {
        self.compress_from = None;
        self
    }

    /// Fingerprint of the value's layout, to be changed with it: an entry that was written under another fingerprint is
    /// a counted miss. Default 0. Reads that take no policy use the handle's, see
    /// [`Cache::with_schema`](crate::Cache::with_schema); a policy without one uses it too.
    pub fn schema(mut self, fingerprint: u32) -> Self {
        self.schema = fingerprint;
        self
    }

    /// Fresh-for and keep-for of a present or an absent answer; `None` when it is not to be cached.
    pub(crate) fn lifetime(&self, is_absent: bool) -> Option<(Duration, Duration)> {
        let (fresh, keep) = if is_absent {
            let negative = self.negative_for?;
            (negative, negative)
        } else {
            (self.fresh_for, self.keep_for)
        };
        (!keep.is_zero()).then_some((fresh, keep))
    }

    pub(crate) fn follow_limit(&self) -> Duration {
        self.follow_for
    }

    pub(crate) fn codec_of(&self) -> Codec {
        self.codec
    }

    pub(crate) fn compress_from_bytes(&self) -> Option<usize> {
        self.compress_from
    }

    /// The same with the handle's fingerprint, unless it has its own.
    pub(crate) fn under(self, handle_schema: u32) -> Self {
        if self.schema == 0 { self.schema(handle_schema) } else { self }
    }

    pub(crate) fn schema_of(&self) -> u32 {
        self.schema
    }
}
