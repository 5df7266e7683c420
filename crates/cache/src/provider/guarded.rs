//! A provider behind two breakers, one for what reads and one for what writes.
//!
//! While a breaker is open its calls end at once in [`Error::CutOff`]: nothing is sent. [`peek`](Provider::peek),
//! copies and what only listens ([`Leases::ended`], [`EpochStore::changed`],
//! [`Messages::subscribe`]) pass by: they make no call of the backend.
//!
//! Each call has a time limit of its own, so that its end is known: a call that runs into it has failed. Who stops
//! waiting earlier drops the call, and with it the breaker's permit, which then knows how long it took.

use std::fmt;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{error, info};

use super::{
    Atomics, Capabilities, Copies, Entry, EpochStore, Error, Item, Lease, Leased, Leases, Message, Messages,
    Provider, Scope,
};
use crate::breaker::{Breaker, Monotonic, Observer, Outcome, Phase, Report, Settings, Tick, Transition};
use crate::clock::Timestamp;
use crate::epochs::{EpochRecord, Slot};
use crate::key::Key;
use crate::limit::{Limit, within};

/// How long one call of a guarded provider may take, unless it is told otherwise.
pub const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_millis(50);

/// The operating system's monotonic clock, as the runtime tells it: a test that pauses the runtime's time moves it.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock {
    origin: Instant,
}

impl MonotonicClock {
    /// Its origin is now.
    #[expect(clippy::new_without_default, reason = "two of them do not agree: making one is not a default")]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }

    fn moment(&self, tick: Tick) -> Instant {
        self.origin + tick.since(Tick::ZERO)
    }
}

impl Monotonic for MonotonicClock {
    fn now(&self) -> Tick {
        Tick::ZERO.after(self.origin.elapsed())
    }
}

/// Calls of one kind, which fail together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CallClass {
    /// Those that change nothing.
    Read,
    /// All others.
    Write,
}

impl CallClass {
    /// For logs and metrics: `read`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// One breaker of a backend at one moment, for health, statistics and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct BreakerReport {
    /// Name of the provider behind it.
    pub backend: &'static str,
    /// Which calls it guards.
    pub class: CallClass,
    /// `closed`, `open`, `half-open`, `forced open`, `disabled`.
    pub state: &'static str,
    /// Whether it refuses calls: all of them, or all but a few while half-open.
    pub is_refusing: bool,
    /// For how long it has been in this state.
    pub since: Duration,
    /// In how long a call may be tried again; present only while it is open.
    pub next_probe_in: Option<Duration>,
    /// Failed calls per call in the window, 0 to 1.
    pub failure_rate: f64,
    /// Slow calls per call in the window, 0 to 1.
    pub slow_rate: f64,
    /// Calls in the window.
    pub window_calls: u64,
    /// Failures since the last success.
    pub failures_in_a_row: u32,
    /// Times that it opened.
    pub opened: u64,
    /// Calls that it refused.
    pub refused: u64,
}

/// Logs each change of a breaker.
#[derive(Debug)]
struct Log {
    backend: &'static str,
    class: CallClass,
}

impl Observer for Log {
    fn changed(&self, transition: &Transition) {
        let (backend, class, reason) = (self.backend, self.class.name(), transition.reason.name());
        match transition.to {
            Phase::Open => {
                let open_ms =
                    u64::try_from(transition.open_for.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
                error!(backend, class, reason, open_ms, "breaker opened: calls of this class are cut off");
            }
            Phase::ForcedOpen => {
                error!(
                    backend,
                    class, reason, "breaker forced open: calls of this class are cut off until it is reset"
                );
            }
            Phase::HalfOpen => info!(backend, class, reason, "breaker half-open: a few calls are tried"),
            Phase::Closed => info!(backend, class, reason, "breaker closed"),
            Phase::Disabled => info!(backend, class, reason, "breaker disabled"),
        }
    }
}

type Gate = Breaker<MonotonicClock, Log>;

/// The breakers of one backend. Cheap to clone; all clones are the same breakers.
#[derive(Debug, Clone)]
pub struct Breakers {
    read: Arc<Gate>,
    write: Arc<Gate>,
    backend: &'static str,
}

impl Breakers {
    fn new(backend: &'static str, settings: &Settings) -> Self {
        let gate =
            |class| Arc::new(Gate::new(settings.clone(), MonotonicClock::new(), Log { backend, class }));
        Self { read: gate(CallClass::Read), write: gate(CallClass::Write), backend }
    }

    fn of(&self, class: CallClass) -> &Gate {
        match class {
            CallClass::Read => &self.read,
            CallClass::Write => &self.write,
        }
    }

    /// Both, reads first.
    pub fn reports(&self) -> [BreakerReport; 2] {
        [CallClass::Read, CallClass::Write].map(|class| self.report(class))
    }

    fn report(&self, class: CallClass) -> BreakerReport {
        let report: Report = self.of(class).report();
        BreakerReport {
            backend: self.backend,
            class,
            state: report.phase.name(),
            is_refusing: !matches!(report.phase, Phase::Closed | Phase::Disabled),
            since: report.since,
            next_probe_in: report.next_probe_in,
            failure_rate: report.failure_rate(),
            slow_rate: report.slow_rate(),
            window_calls: report.results,
            failures_in_a_row: report.failures_in_a_row,
            opened: report.opened,
            refused: report.refused,
        }
    }

    /// Cuts the class off until it is reset.
    pub fn force_open(&self, class: CallClass) {
        self.of(class).force_open();
    }

    /// Lets every call of the class through until it is reset.
    pub fn disable(&self, class: CallClass) {
        self.of(class).disable();
    }

    /// Closes the breaker of the class, as if new.
    pub fn reset(&self, class: CallClass) {
        self.of(class).reset();
    }
}

/// A provider behind two breakers, one for reads and one for writes. A call that is cut off is refused at once, without I/O.
pub struct Guarded {
    inner: Arc<dyn Provider>,
    breakers: Breakers,
    limit: Limit,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Guarded {
    /// Puts `inner` behind two closed breakers. A call may take [`CALL_TIMEOUT_DEFAULT`].
    pub fn new(inner: Arc<dyn Provider>, settings: &Settings) -> Self {
        let breakers = Breakers::new(inner.name(), settings);
        Self { inner, breakers, limit: Limit::new(CALL_TIMEOUT_DEFAULT) }
    }

    /// How long one call may take.
    #[must_use]
    pub fn call_timeout(mut self, call_timeout: Duration) -> Self {
        self.limit = Limit::new(call_timeout);
        self
    }

    /// Its breakers, to be shown and told.
    pub fn breakers(&self) -> Breakers {
        self.breakers.clone()
    }

    /// Makes one call, if the breaker of its class lets it through. One that is answered at its first poll costs neither
    /// a timer nor a look at the clock.
    async fn call<T, F>(&self, class: CallClass, call: impl FnOnce() -> F + Send) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let provider = self.inner.name();
        let gate = self.breakers.of(class);
        let mut permit = match gate.admit() {
            Ok(permit) => permit,
            Err(refusal) => return Err(Error::CutOff { provider, state: refusal.phase.name() }),
        };
        // Called inside, so that a panic before the first poll is caught too.
        let call = AssertUnwindSafe(async { call().await }).catch_unwind();
        let since = || gate.monotonic().moment(permit.waits());
        let result = match within(Some(&self.limit), since, call).await {
            Some(Ok(result)) => result,
            Some(Err(panic)) => {
                permit.settle(Outcome::Failed);
                resume_unwind(panic)
            }
            None => Err(Error::Unavailable {
                provider,
                reason: format!("no answer within {:?}", self.limit.time()),
            }),
        };
        permit.settle(outcome_of(&result));
        result
    }

    /// What the provider offered when it was asked for a part, and no longer has.
    fn gone(&self, part: &str) -> Error {
        Error::Refused { provider: self.inner.name(), reason: format!("it has no {part} any more") }
    }
}

fn outcome_of<T>(result: &Result<T, Error>) -> Outcome {
    match result {
        Ok(_) => Outcome::Succeeded,
        Err(error) if error.is_failure() => Outcome::Failed,
        Err(_) => Outcome::Refused,
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Provider for Guarded {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn peek(&self, key: &Key, now: Timestamp) -> Option<Item> {
        self.inner.peek(key, now)
    }

    fn glance(&self, key: &Key, now: Timestamp, see: &mut dyn FnMut(&Item)) {
        self.inner.glance(key, now, see);
    }

    async fn get(&self, key: &Key) -> Result<Option<Item>, Error> {
        self.call(CallClass::Read, || self.inner.get(key)).await
    }

    async fn set(&self, key: &Key, item: Item, keep_for: Duration) -> Result<(), Error> {
        self.call(CallClass::Write, || self.inner.set(key, item, keep_for)).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), Error> {
        // No backend is asked for nothing: the answer would say nothing of it.
        if keys.is_empty() {
            return Ok(());
        }
        self.call(CallClass::Write, || self.inner.delete(keys)).await
    }

    async fn replace(&self, key: &Key, seen: &Item, item: Item, keep_for: Duration) -> Result<bool, Error> {
        self.call(CallClass::Write, || self.inner.replace(key, seen, item, keep_for)).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.call(CallClass::Read, || self.inner.get_many(keys)).await
    }

    async fn set_many(&self, entries: Vec<Entry>) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        self.call(CallClass::Write, || self.inner.set_many(entries)).await
    }

    async fn clear(&self, scope: &Scope) -> Result<(), Error> {
        self.call(CallClass::Write, || self.inner.clear(scope)).await
    }

    /// A read like any other: asking for the health of an idle backend also finds out that it is back. Not well while
    /// reads are cut off, nor, though it may answer, while writes are.
    async fn health(&self) -> Result<(), Error> {
        self.call(CallClass::Read, || self.inner.health()).await?;
        let writes = self.breakers.report(CallClass::Write);
        if writes.is_refusing {
            return Err(Error::CutOff { provider: self.inner.name(), state: writes.state });
        }
        Ok(())
    }

    fn evictions(&self) -> Option<u64> {
        self.inner.evictions()
    }

    fn read_limit(&self) -> Option<Duration> {
        Some(self.limit.time())
    }

    fn copies(&self) -> Option<&dyn Copies> {
        self.inner.copies()
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.inner.leases().map(|_| -> &dyn Leases { self })
    }

    fn epochs(&self) -> Option<&dyn EpochStore> {
        self.inner.epochs().map(|_| -> &dyn EpochStore { self })
    }

    fn atomics(&self) -> Option<&dyn Atomics> {
        self.inner.atomics().map(|_| -> &dyn Atomics { self })
    }

    fn messages(&self) -> Option<&dyn Messages> {
        self.inner.messages().map(|_| -> &dyn Messages { self })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Leases for Guarded {
    async fn take(
        &self,
        key: &Key,
        token: u128,
        lease_for: Duration,
        seen: Option<&Item>,
    ) -> Result<Leased, Error> {
        let leases = self.inner.leases().ok_or_else(|| self.gone("leases"))?;
        self.call(CallClass::Write, || leases.take(key, token, lease_for, seen)).await
    }

    async fn fill(&self, key: &Key, lease: &Lease, item: Item, keep_for: Duration) -> Result<bool, Error> {
        let leases = self.inner.leases().ok_or_else(|| self.gone("leases"))?;
        self.call(CallClass::Write, || leases.fill(key, lease, item, keep_for)).await
    }

    async fn release(&self, key: &Key, lease: &Lease) -> Result<(), Error> {
        let leases = self.inner.leases().ok_or_else(|| self.gone("leases"))?;
        self.call(CallClass::Write, || leases.release(key, lease)).await
    }

    async fn ended(&self, key: &Key) {
        match self.inner.leases() {
            Some(leases) => leases.ended(key).await,
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl EpochStore for Guarded {
    async fn read(&self, incarnation: u64, version: u64) -> Result<Option<EpochRecord>, Error> {
        let epochs = self.inner.epochs().ok_or_else(|| self.gone("epochs"))?;
        self.call(CallClass::Read, || epochs.read(incarnation, version)).await
    }

    async fn raise(&self, slots: &[Slot]) -> Result<EpochRecord, Error> {
        let epochs = self.inner.epochs().ok_or_else(|| self.gone("epochs"))?;
        self.call(CallClass::Write, || epochs.raise(slots)).await
    }

    fn entered(&self) -> u64 {
        self.inner.epochs().map_or(0, EpochStore::entered)
    }

    async fn changed(&self) {
        match self.inner.epochs() {
            Some(epochs) => epochs.changed().await,
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Atomics for Guarded {
    async fn add(&self, key: &Key, delta: i64, keep_for: Duration) -> Result<i64, Error> {
        let atomics = self.inner.atomics().ok_or_else(|| self.gone("atomics"))?;
        self.call(CallClass::Write, || atomics.add(key, delta, keep_for)).await
    }

    async fn read(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let atomics = self.inner.atomics().ok_or_else(|| self.gone("atomics"))?;
        self.call(CallClass::Read, || atomics.read(key)).await
    }

    async fn compare_and_swap(
        &self,
        key: &Key,
        expected: Option<&[u8]>,
        new: Option<Bytes>,
        keep_for: Duration,
    ) -> Result<bool, Error> {
        let atomics = self.inner.atomics().ok_or_else(|| self.gone("atomics"))?;
        self.call(CallClass::Write, || atomics.compare_and_swap(key, expected, new, keep_for)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Messages for Guarded {
    async fn publish(&self, channel: &str, payload: Bytes) -> Result<(), Error> {
        let messages = self.inner.messages().ok_or_else(|| self.gone("messages"))?;
        self.call(CallClass::Write, || messages.publish(channel, payload)).await
    }

    /// Nothing ever comes from a provider that carries no messages any more.
    fn subscribe(&self, channel: &str) -> mpsc::Receiver<Message> {
        match self.inner.messages() {
            Some(messages) => messages.subscribe(channel),
            None => mpsc::channel(1).1,
        }
    }
}
