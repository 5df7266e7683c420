//! Calls of the provider: none takes longer than its limit, none fails or panics into the caller, and each change
//! between working and failing is said once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::{Instrument as _, debug_span, info, warn};

use crate::clock::{Clock, Timestamp};
use crate::key::Key;
use crate::limit::{Limit, within};
use crate::provider::{self, Capability, Item, Provider};
use crate::stats::{Counters, Tier};

/// A provider that has failed counts as working again with the first success that comes this long after its last
/// failure. Without the pause a provider that fails now and then would fill the log.
pub const QUIET_BEFORE_RECOVERED: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Calls {
    pub(super) provider: Arc<dyn Provider>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counters: Counters,
    tier: Tier,
    holds_here: bool,
    limit: Limit,
    is_failing: AtomicBool,
    last_failure_us: AtomicI64,
}

/// Why a call gave nothing. Already counted and said when it is returned.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Provider(#[from] provider::Error),
    #[error("the provider panicked")]
    Panic,
}

impl Failure {
    /// For spans: bounded, and without anything of keys and values.
    fn kind(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Panic => "panic",
            Self::Provider(error) => error.kind(),
        }
    }

    /// Whether it is sure that the backend was not asked, or did nothing.
    pub(super) fn was_not_sent(&self) -> bool {
        matches!(self, Self::Provider(error) if !error.is_failure())
    }
}

impl Calls {
    pub(super) fn new(provider: Arc<dyn Provider>, clock: Arc<dyn Clock>, limit: Duration) -> Self {
        // Once: whatever else becomes known of a provider, it does not move.
        let is_shared = provider.capabilities().has(Capability::Shared);
        Self {
            tier: if is_shared { Tier::Far } else { Tier::Near },
            holds_here: !is_shared || provider.copies().is_some(),
            provider,
            clock,
            counters: Counters::default(),
            limit: Limit::new(limit),
            is_failing: AtomicBool::new(false),
            last_failure_us: AtomicI64::new(0),
        }
    }

    /// Where the provider's answers come from.
    pub(super) fn tier(&self) -> Tier {
        self.tier
    }

    /// Whether anything of it can lie in this process, to be [glanced](Self::glance) at.
    pub(super) fn holds_here(&self) -> bool {
        self.holds_here
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit.time()
    }

    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// What lies in this process. Costs no wait, so there is nothing to bound but a panic.
    #[inline]
    pub(super) fn peek(&self, key: &Key, now: Timestamp) -> Option<Item> {
        let peeked = catch_unwind(AssertUnwindSafe(|| self.provider.peek(key, now)));
        peeked.unwrap_or_else(|_| {
            self.failed("peek", &Failure::Panic);
            None
        })
    }

    /// What `take` makes of what lies in this process; likewise.
    #[inline]
    pub(super) fn glance<T>(
        &self,
        key: &Key,
        now: Timestamp,
        take: impl FnOnce(&Item) -> Option<T>,
    ) -> Option<T> {
        let (mut take, mut taken) = (Some(take), None);
        let mut see = |item: &Item| taken = take.take().and_then(|take| take(item));
        if catch_unwind(AssertUnwindSafe(|| self.provider.glance(key, now, &mut see))).is_err() {
            self.failed("peek", &Failure::Panic);
            return None;
        }
        taken
    }

    /// Carries out one call of the provider.
    pub(super) async fn run<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, provider::Error>>,
    ) -> Result<T, Failure> {
        self.observed(operation, self.caught(call, Some(&self.limit))).await
    }

    /// Carries out one `get` or `get_many` of the provider, which may bound them itself.
    pub(super) async fn read<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, provider::Error>>,
    ) -> Result<T, Failure> {
        let is_bounded = self.provider.read_limit().is_some_and(|limit| limit <= self.limit.time());
        let limit = if is_bounded { None } else { Some(&self.limit) };
        self.observed(operation, self.caught(call, limit)).await
    }

    async fn observed<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let provider = self.provider.name();
        let span = debug_span!(
            "cache_call",
            provider,
            tier = self.tier.name(),
            operation,
            error = tracing::field::Empty
        );
        let began = self.clock.elapsed();
        // A span that nobody takes would only make the call's future larger.
        let result = if span.is_disabled() { call.await } else { call.instrument(span.clone()).await };
        self.counters.calls.record(self.tier, operation, self.clock.elapsed().saturating_sub(began));
        if let Err(failure) = &result {
            span.record("error", failure.kind());
        }
        match &result {
            Ok(_) => self.succeeded(),
            Err(failure) => self.failed(operation, failure),
        }
        result
    }

    async fn caught<T>(
        &self,
        call: impl Future<Output = Result<T, provider::Error>>,
        limit: Option<&Limit>,
    ) -> Result<T, Failure> {
        let call = AssertUnwindSafe(call).catch_unwind();
        match within(limit, Instant::now, call).await {
            Some(Ok(result)) => result.map_err(Failure::Provider),
            Some(Err(_)) => Err(Failure::Panic),
            None => Err(Failure::Timeout(self.limit.time())),
        }
    }

    fn failed(&self, operation: &'static str, failure: &Failure) {
        match failure {
            Failure::Timeout(_) => self.counters.timeouts.one(),
            Failure::Provider(_) | Failure::Panic => self.counters.provider_errors.one(),
        }
        self.last_failure_us.store(self.clock.now().as_micros(), Ordering::Relaxed);
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            let provider = self.provider.name();
            warn!(provider, operation, error = %failure, "cache provider fails: reads miss and writes are dropped until it recovers");
        }
    }

    fn succeeded(&self) {
        if !self.is_failing() {
            return;
        }
        let now = self.clock.now();
        let failed_at = Timestamp::from_micros(self.last_failure_us.load(Ordering::Relaxed));
        let is_quiet = now < failed_at || now.saturating_since(failed_at) >= QUIET_BEFORE_RECOVERED;
        if is_quiet && self.is_failing.swap(false, Ordering::Relaxed) {
            info!(provider = self.provider.name(), "cache provider works again");
        }
    }
}
