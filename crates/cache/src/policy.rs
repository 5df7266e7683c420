//! How long a value counts as fresh, how long it is kept, and how it is written down.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::envelope::{COMPRESS_FROM_DEFAULT, TagSlots};

/// Nothing is kept longer than this: ten years.
pub const KEEP_FOR_MAX: Duration = Duration::from_hours(10 * 365 * 24);

/// How long a caller waits for another caller's load, unless the policy says otherwise.
pub const FOLLOW_FOR_DEFAULT: Duration = Duration::from_secs(30);

/// How long a fleet's lease on one load is good, unless the policy says otherwise. When the process that holds it dies,
/// the others wait this long.
pub const LEASE_FOR_DEFAULT: Duration = Duration::from_secs(10);

/// How long a load is not tried again after it failed while a stale value was there to serve, unless the policy says
/// otherwise.
pub const ERROR_THROTTLE_DEFAULT: Duration = Duration::from_secs(1);

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
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    fresh_for: Duration,
    keep_for: Duration,
    negative_for: Option<Duration>,
    jitter: f64,
    follow_for: Duration,
    lease_for: Duration,
    serve_stale: bool,
    stale_if_error: bool,
    error_throttle: Duration,
    soft_timeout: Option<Duration>,
    hard_timeout: Option<Duration>,
    early_refresh: Option<f64>,
    value_bytes_max: Option<usize>,
    tags: TagSlots,
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
            jitter: 0.0,
            follow_for: FOLLOW_FOR_DEFAULT,
            lease_for: LEASE_FOR_DEFAULT,
            serve_stale: false,
            stale_if_error: false,
            error_throttle: ERROR_THROTTLE_DEFAULT,
            soft_timeout: None,
            hard_timeout: None,
            early_refresh: None,
            value_bytes_max: None,
            tags: TagSlots::default(),
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

    /// Shortens each value's freshness by a random part of it, up to this one (0 to 1), so that values that were loaded
    /// together do not end together. Default 0. What is not a number between 0 and 1 is taken for the nearer of them.
    pub fn jitter(mut self, part: f64) -> Self {
        self.jitter = if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) };
        self
    }

    /// Serves a value that is kept beyond its freshness at once, and loads a new one beside it. Needs a
    /// [`keep_for`](Self::keep_for) beyond the freshness. Default: stale values are not served.
    ///
    /// The one who finds it stale loads: in the background with
    /// [`get_or_refresh`](crate::Cache::get_or_refresh), within his own call with
    /// [`get_or_load`](crate::Cache::get_or_load); everybody else gets the stale value.
    pub fn stale_while_revalidate(mut self) -> Self {
        self.serve_stale = true;
        self
    }

    /// When the load fails or is given up, a value that is still kept is served instead of the error; the load is then
    /// not tried again in this process for `throttle`. Default: the error is returned.
    pub fn stale_if_error(mut self, throttle: Duration) -> Self {
        self.stale_if_error = true;
        self.error_throttle = throttle;
        self
    }

    /// With [`get_or_refresh`](crate::Cache::get_or_refresh): when the load takes longer than this and a stale value is
    /// there, the caller gets that one, and the load goes on in the background. Default: callers wait.
    pub fn soft_timeout(mut self, soft_timeout: Duration) -> Self {
        self.soft_timeout = Some(soft_timeout);
        self
    }

    /// A load that takes longer is given up: [`LoadError::TimedOut`](crate::LoadError::TimedOut), or the stale value
    /// where [`stale_if_error`](Self::stale_if_error) allows it. With `get_or_refresh` the load itself goes on, and what
    /// it brings is stored. Default: no limit.
    pub fn hard_timeout(mut self, hard_timeout: Duration) -> Self {
        self.hard_timeout = Some(hard_timeout);
        self
    }

    /// Refreshes a value now and then a little before it ends, the sooner the more it costs to make, so that a busy key
    /// never has to be waited for: probabilistic early expiration (Vattani, Chierichetti, Lowenstein 2015) with this
    /// beta, 1 being a good one. Where the provider grants leases, one process of the fleet does it. Needs
    /// `get_or_refresh`. Default: off. Not a positive number: off.
    pub fn early_refresh(mut self, beta: f64) -> Self {
        self.early_refresh = (beta.is_finite() && beta > 0.0).then_some(beta);
        self
    }

    /// How long a fleet's lease on one load is good. Longer than loads take; when its holder dies the others wait this
    /// long. Default 10 s.
    pub fn lease_for(mut self, lease_for: Duration) -> Self {
        self.lease_for = lease_for;
        self
    }

    /// Values whose entry would be larger are not stored. Default: the provider's limit alone.
    pub fn value_bytes_max(mut self, bytes: usize) -> Self {
        self.value_bytes_max = Some(bytes);
        self
    }

    /// The entry ends when one of these tags is invalidated; see [`TagSlots::of`].
    pub fn tags(mut self, tags: TagSlots) -> Self {
        self.tags = tags;
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

    /// Fresh-for and keep-for of a present or an absent answer; `None` when it is not to be cached. `chance` is drawn
    /// from 0 to 1 by the caller.
    pub(crate) fn lifetime(&self, is_absent: bool, chance: f64) -> Option<(Duration, Duration)> {
        let (fresh, keep) = if is_absent {
            let negative = self.negative_for?;
            (negative, negative)
        } else {
            (self.fresh_for, self.keep_for)
        };
        let shortened = fresh.mul_f64(1.0 - self.jitter * chance.clamp(0.0, 1.0));
        let keep = if keep == fresh { shortened } else { keep };
        (!keep.is_zero()).then_some((shortened, keep))
    }

    /// Whether a value that cost `build_cost` and ends in `left` is to be refreshed now; `chance` is drawn from 0 to 1.
    pub(crate) fn is_early(&self, build_cost: Duration, left: Duration, chance: f64) -> bool {
        let Some(beta) = self.early_refresh else { return false };
        let ahead = build_cost.as_secs_f64() * beta * -chance.clamp(f64::MIN_POSITIVE, 1.0).ln();
        ahead >= left.as_secs_f64()
    }

    pub(crate) fn follow_limit(&self) -> Duration {
        self.follow_for
    }

    pub(crate) fn lease_limit(&self) -> Duration {
        self.lease_for
    }

    pub(crate) fn serves_stale(&self) -> bool {
        self.serve_stale
    }

    pub(crate) fn error_throttle(&self) -> Option<Duration> {
        self.stale_if_error.then_some(self.error_throttle)
    }

    pub(crate) fn soft_limit(&self) -> Option<Duration> {
        self.soft_timeout
    }

    pub(crate) fn hard_limit(&self) -> Option<Duration> {
        self.hard_timeout
    }

    pub(crate) fn without_hard_timeout(self) -> Self {
        Self { hard_timeout: None, ..self }
    }

    pub(crate) fn refreshes_early(&self) -> bool {
        self.early_refresh.is_some()
    }

    pub(crate) fn size_limit(&self) -> Option<usize> {
        self.value_bytes_max
    }

    pub(crate) fn tag_slots(&self) -> TagSlots {
        self.tags
    }

    pub(crate) fn codec_of(&self) -> Codec {
        self.codec
    }

    pub(crate) fn compress_from_bytes(&self) -> Option<usize> {
        self.compress_from
    }

    /// The same with the handle's fingerprint, unless it has its own.
    pub(crate) fn under(self, handle_schema: u32) -> Self {
        let schema = self.schema_under(handle_schema);
        self.schema(schema)
    }

    /// The fingerprint that it has then.
    pub(crate) fn schema_under(&self, handle_schema: u32) -> u32 {
        if self.schema == 0 { handle_schema } else { self.schema }
    }

    pub(crate) fn schema_of(&self) -> u32 {
        self.schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn jitter_shortens_freshness_by_at_most_its_part() {
        let policy = Policy::new(MINUTE).jitter(0.5);
        assert_eq!(policy.lifetime(false, 0.0), Some((MINUTE, MINUTE)));
        assert_eq!(policy.lifetime(false, 1.0), Some((MINUTE / 2, MINUTE / 2)));
        let kept = policy.keep_for(MINUTE * 2);
        assert_eq!(kept.lifetime(false, 1.0), Some((MINUTE / 2, MINUTE * 2)));
        assert_eq!(Policy::new(MINUTE).jitter(f64::NAN).lifetime(false, 1.0), Some((MINUTE, MINUTE)));
    }

    #[test]
    fn early_refresh_grows_likely_towards_the_end_and_with_the_cost() {
        let policy = Policy::new(MINUTE).early_refresh(1.0);
        let cost = Duration::from_secs(1);
        let share = |cost: Duration, left: u64| {
            (1..=1_000_u32)
                .filter(|n| policy.is_early(cost, Duration::from_secs(left), f64::from(*n) / 1_000.0))
                .count()
        };
        assert!(share(cost, 30) == 0 && share(cost, 1) > 300 && share(cost, 0) == 1_000);
        assert!(share(cost * 10, 10) > share(cost, 10));
        assert!(!Policy::new(MINUTE).is_early(cost, Duration::ZERO, 0.5));
        assert!(!policy.early_refresh(f64::NAN).is_early(cost, Duration::ZERO, 0.5));
    }
}
