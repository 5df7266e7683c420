//! The worker's session: beat, and the sweep of sessions that no longer do.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recache_model::ids::SessionId;
use recache_store::Swept;
use recache_worker::Stop;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use crate::engine::Shared;
use crate::error::Result;
use crate::held::stop_for;
use crate::registry;
use crate::stats::{add, one};

/// Jobs that one sweep takes away at most.
const SWEEP_ROWS_MAX: u32 = 500;
/// Removals that follow each other while there is more to remove: then the dead are looked for again.
const GENERATIONS_ROUNDS_MAX: usize = 20;
/// Between two removals of old generations.
const GENERATIONS_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct State {
    session: Option<SessionId>,
    /// When the last beat that was answered was sent, by this process's monotonic clock.
    confirmed: Option<Instant>,
    /// Jobs may be with the session that this process does not know of.
    doubtful: bool,
    /// When what the session holds was last asked for, or the session opened.
    compared: Option<Instant>,
    /// What this process can do is in the registry under this session.
    is_offered: bool,
}

/// What this process knows of its right to work.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    state: Mutex<State>,
    confirmed: Notify,
}

impl Lease {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn current(&self) -> Option<SessionId> {
        self.state().session
    }

    /// The session, if it was confirmed within two thirds of the lease: without that nothing new is begun.
    pub(crate) fn sure(&self, lease: Duration) -> Option<SessionId> {
        let state = self.state();
        let sure = state.confirmed.is_some_and(|at| at.elapsed() < lease * 2 / 3);
        state.session.filter(|_| sure)
    }

    /// Waits until nothing speaks against beginning something.
    pub(crate) async fn wait_until_sure(&self, lease: Duration) {
        loop {
            let confirmed = self.confirmed.notified();
            if self.sure(lease).is_some() {
                return;
            }
            confirmed.await;
        }
    }

    /// The answer to a claim was lost: the session may hold jobs that nobody runs. A session that was replaced
    /// needs no doubt: the sweep takes what it held.
    pub(crate) fn doubt(&self, session: SessionId) {
        let mut state = self.state();
        state.doubtful |= state.session == Some(session);
    }

    /// The session, if it is in doubt what it holds.
    pub(crate) fn doubtful(&self) -> Option<SessionId> {
        let state = self.state();
        state.session.filter(|_| state.doubtful)
    }

    /// The session, if what it holds was not asked for within `lease`. A claim that was given up may be carried out after it was asked
    /// for because of the doubt: the connection is gone, and the database still at work. Without another look such a job would be with
    /// a session that is alive, and nobody would run it, for as long as that is so.
    pub(crate) fn long_unasked(&self, lease: Duration) -> Option<SessionId> {
        let state = self.state();
        state.session.filter(|_| state.compared.is_none_or(|at| at.elapsed() >= lease))
    }

    /// What the session holds is known again, as of `asked`.
    pub(crate) fn trust(&self, session: SessionId, asked: Instant) {
        let mut state = self.state();
        if state.session == Some(session) {
            state.doubtful = false;
            state.compared = Some(asked);
        }
    }

    /// Opened by hand, just now.
    pub(crate) fn take(&self, session: SessionId) {
        self.opened(session, Instant::now());
    }

    fn opened(&self, session: SessionId, sent: Instant) {
        *self.state() =
            State { session: Some(session), confirmed: Some(sent), compared: Some(sent), ..State::default() };
        self.confirmed.notify_waiters();
    }

    fn is_offered(&self) -> bool {
        self.state().is_offered
    }

    fn offered(&self, session: SessionId) {
        let mut state = self.state();
        state.is_offered |= state.session == Some(session);
    }

    fn confirm(&self, sent: Instant) {
        self.state().confirmed = Some(sent);
        self.confirmed.notify_waiters();
    }
}

pub(crate) async fn open(shared: &Shared) -> Result<()> {
    let session = SessionId::make();
    let sent = Instant::now();
    shared.store.session_open(session, &shared.options.node, shared.options.lease).await?;
    shared.lease.opened(session, sent);
    tracing::debug!(session = %session, "session opened");
    Ok(())
}

/// Says in the registry what this process can do. Nothing rests on it but what people see: what fails is tried again with the
/// next beat.
async fn offer(shared: &Shared, session: SessionId) {
    match registry::offer(shared, session).await {
        Ok(()) => shared.lease.offered(session),
        Err(error) => tracing::debug!(%error, "not in the registry of handlers yet"),
    }
}

pub(crate) async fn beat(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(shared.options.beat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.ending.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = beat_once(&shared).await {
            one(&shared.counters.store_errors);
            tracing::warn!(%error, "beat not answered");
        }
    }
}

async fn beat_once(shared: &Shared) -> Result<()> {
    let Some(session) = shared.lease.current() else { return open(shared).await };
    let held = shared.held.tokens();
    let sent = Instant::now();
    let beat = shared.store.session_beat(session, shared.options.lease, held.clone()).await?;
    if !beat.known {
        tracing::warn!(session = %session, held = held.len(), "session was swept while this process was silent");
        for token in held {
            shared.held.stop(token, Stop::LeaseLost);
        }
        return open(shared).await;
    }
    shared.lease.confirm(sent);
    if !shared.lease.is_offered() {
        offer(shared, session).await;
    }
    for (job, why) in beat.revoked {
        // A job that was settled between asking and answering is gone from here too.
        if let Some(token) = held.iter().find(|token| token.job == job) {
            shared.held.stop(*token, stop_for(why));
        }
    }
    Ok(())
}

/// Returns what dead workers held: as soon as a lease has ended, so that it is elsewhere within a lease of the worker's last sign of life.
/// Waits one lease after the start, and after every failed call: when the store was away, the others could not beat either.
pub(crate) async fn sweep(shared: Arc<Shared>) {
    let mut not_before = Instant::now() + shared.options.lease;
    let mut generations_at = Instant::now() + GENERATIONS_PAUSE;
    let mut found = Swept::default();
    loop {
        let pause = pause(shared.options.sweep, &found, rand::random());
        found = Swept::default();
        tokio::select! {
            () = shared.ending.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let now = match shared.store.now().await {
            Ok(now) => now,
            Err(error) => {
                not_before = Instant::now() + shared.options.lease;
                one(&shared.counters.store_errors);
                tracing::warn!(%error, "sweep waits: the store cannot be reached");
                continue;
            }
        };
        if Instant::now() < not_before {
            continue;
        }
        match shared.store.sessions_sweep(SWEEP_ROWS_MAX).await {
            Ok(swept) => {
                shared.swept_at.store(now.micros(), Ordering::Relaxed);
                found = swept;
                let count = swept.requeued + swept.failed;
                add(&shared.counters.swept, count);
                if swept.sessions > 0 {
                    registry::changed(&shared);
                }
                if count + swept.sessions > 0 {
                    tracing::info!(
                        requeued = swept.requeued,
                        failed = swept.failed,
                        sessions = swept.sessions,
                        "dead sessions swept"
                    );
                }
            }
            Err(error) => {
                not_before = Instant::now() + shared.options.lease;
                one(&shared.counters.store_errors);
                tracing::warn!(%error, "sweep failed");
            }
        }
        if Instant::now() >= generations_at {
            generations_at = Instant::now() + GENERATIONS_PAUSE;
            for _ in 0..GENERATIONS_ROUNDS_MAX {
                match shared.store.generations_remove(shared.options.generation_keep).await {
                    Ok(removed) if removed.is_more => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(%error, "old generations not removed");
                        break;
                    }
                }
            }
        }
    }
}

/// How long until the next look: as configured, no longer than until the next lease may have ended, and not at all where there is more
/// than one look takes. `chance`, from 0 to 1, keeps processes from looking all at once.
fn pause(configured: Duration, found: &Swept, chance: f64) -> Duration {
    /// An end is at the earliest one instant after it was due; and all processes wake for the same one.
    const AFTER_END: Duration = Duration::from_millis(2);
    const SPREAD: Duration = Duration::from_millis(20);
    if found.requeued + found.failed >= usize::try_from(SWEEP_ROWS_MAX).unwrap_or(usize::MAX) {
        return Duration::ZERO;
    }
    let regular = configured.mul_f64(0.75 + chance * 0.5);
    match found.next_in {
        Some(next) => regular.min(next + AFTER_END + SPREAD.mul_f64(chance)),
        None => regular,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_look_is_at_the_end_of_a_lease_or_as_configured_whichever_is_first() {
        let ms = Duration::from_millis;
        let of = |next_in| Swept { next_in, ..Swept::default() };
        let after = |next_in, chance| pause(ms(500), &of(next_in), chance);
        assert_eq!([after(None, 0.0), after(None, 1.0)], [ms(375), ms(625)]);
        assert_eq!([after(Some(ms(1_800)), 0.0), after(Some(ms(100)), 0.0)], [ms(375), ms(102)]);
        assert_eq!(after(Some(ms(100)), 1.0), ms(122));
        let full = Swept { requeued: 400, failed: 100, ..of(Some(ms(100))) };
        assert_eq!(pause(ms(500), &full, 0.5), Duration::ZERO, "there is more");
    }
}
