//! What this process remembers of workers elsewhere, to look at the store less often. Losing it loses nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use recache_model::ids::{JobId, SessionId};
use recache_store::{ClaimedJob, LeaseToken, NewRemoteWorker};
use recache_worker::Stop;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lobby::{Kind, Lobby};
use crate::rules::Rules;

/// A worker that has not been heard of here for this long beyond its lease is forgotten: it is elsewhere, or gone.
const FORGET_AFTER: Duration = Duration::from_mins(1);

/// A job that a worker holds.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) job: Arc<ClaimedJob>,
    /// When its attempt has run as long as it may.
    pub(super) deadline: Option<Instant>,
    /// What its template says about its result; `Err`: not looked at yet.
    pub(super) rules: Result<Option<Arc<Rules>>, ()>,
}

#[derive(Debug)]
struct State {
    /// When the last sign of life that reached the store was sent.
    confirmed: Option<Instant>,
    heard: Instant,
    /// The number of the last claim that was answered here; `None`: it may hold jobs that it does not know of.
    answered: Option<u64>,
    /// The number of the last claim that came here.
    asked: Option<u64>,
    jobs: HashMap<JobId, Held>,
    stops: Vec<(LeaseToken, Stop)>,
    /// Raised by every claiming call: only the newest one goes on.
    claims: u64,
    /// Raised whenever the worker ended something.
    moves: u64,
    has_ended: bool,
}

/// A worker as this process knows it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) worker: NewRemoteWorker,
    pub(super) kind: Arc<Kind>,
    /// Something happened that a waiting call should answer.
    pub(super) changed: Notify,
    /// One claim at a time.
    pub(super) claiming: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

impl Known {
    fn new(worker: NewRemoteWorker, kind: Arc<Kind>, is_new: bool) -> Self {
        let now = Instant::now();
        Self {
            worker,
            kind,
            changed: Notify::new(),
            claiming: tokio::sync::Mutex::new(()),
            state: Mutex::new(State {
                confirmed: is_new.then_some(now),
                heard: now,
                answered: is_new.then_some(0),
                asked: None,
                jobs: HashMap::new(),
                stops: Vec::new(),
                claims: 0,
                moves: 0,
                has_ended: false,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave a struct of plain values half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call has come.
    pub(super) fn hear(&self) {
        self.state().heard = Instant::now();
    }

    /// Whether the store has been told lately enough that the worker lives.
    pub(super) fn is_confirmed_within(&self, time: Duration) -> bool {
        self.state().confirmed.is_some_and(|at| at.elapsed() < time)
    }

    pub(super) fn confirm(&self, sent: Instant) {
        self.state().confirmed = Some(sent);
    }

    /// When a waiting worker must be answered, so that it can be heard of again in time.
    pub(super) fn answer_by(&self) -> Instant {
        let confirmed = self.state().confirmed.unwrap_or_else(Instant::now);
        confirmed + self.worker.lease / 2
    }

    /// Whether it may hold jobs that it does not know of, now that it claims with this number.
    pub(super) fn is_doubtful(&self, number: Option<u64>) -> bool {
        let answered = self.state().answered;
        number.is_none() || answered.and_then(|answered| answered.checked_add(1)) != number
    }

    pub(super) fn answered(&self, number: Option<u64>) {
        self.state().answered = number;
    }

    /// A claiming call begins; older ones give up. Answers its place among the claims, and whether its number was used by the one before:
    /// then the worker has no answer to that one.
    pub(super) fn begin_claim(&self, number: Option<u64>) -> (u64, bool) {
        let begun = {
            let mut state = self.state();
            state.claims += 1;
            let before = std::mem::replace(&mut state.asked, number);
            (state.claims, number.is_some() && before == number)
        };
        self.changed.notify_waiters();
        begun
    }

    pub(super) fn is_newest_claim(&self, number: u64) -> bool {
        self.state().claims == number
    }

    pub(super) fn job(&self, token: LeaseToken) -> Option<Held> {
        self.state().jobs.get(&token.job).filter(|held| held.job.token == token).cloned()
    }

    /// The first of the deadlines of its jobs.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.state().jobs.values().filter_map(|held| held.deadline).min()
    }

    /// Jobs whose attempts have run as long as they may.
    pub(super) fn overdue(&self) -> Vec<Held> {
        let now = Instant::now();
        let state = self.state();
        let is_overdue = |held: &&Held| held.deadline.is_some_and(|deadline| deadline <= now);
        state.jobs.values().filter(is_overdue).cloned().collect()
    }

    pub(super) fn moves(&self) -> u64 {
        self.state().moves
    }

    /// The worker ended something.
    pub(super) fn moved(&self) {
        self.state().moves += 1;
        self.changed.notify_waiters();
    }

    fn stop(&self, token: LeaseToken, why: Stop) {
        {
            let mut state = self.state();
            if !state.stops.iter().any(|(known, _)| *known == token) {
                state.stops.push((token, why));
            }
        }
        self.changed.notify_waiters();
    }

    /// What it is to be told to stop; it is told once here, and again when it names the job after that.
    pub(super) fn take_stops(&self) -> Vec<(LeaseToken, Stop)> {
        std::mem::take(&mut self.state().stops)
    }

    pub(super) fn has_stops(&self) -> bool {
        !self.state().stops.is_empty()
    }

    /// The session has ended.
    pub(super) fn end(&self) {
        self.state().has_ended = true;
        self.changed.notify_waiters();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state().has_ended
    }
}

/// All workers that this process knows.
#[derive(Debug)]
pub(crate) struct Memory {
    /// No more jobs, and nobody waits.
    pub(super) retiring: CancellationToken,
    sessions: Mutex<HashMap<SessionId, Arc<Known>>>,
    /// Who holds a job.
    holders: Mutex<HashMap<JobId, SessionId>>,
    pub(super) lobby: Lobby,
}

impl Memory {
    pub(crate) fn new(retiring: CancellationToken) -> Self {
        Self { retiring, sessions: Mutex::default(), holders: Mutex::default(), lobby: Lobby::default() }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Known>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holders(&self) -> MutexGuard<'_, HashMap<JobId, SessionId>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known(&self, session: SessionId) -> Option<Arc<Known>> {
        self.sessions().get(&session).cloned()
    }

    /// `is_new`: its session began just now, and holds nothing.
    pub(super) fn remember(&self, worker: NewRemoteWorker, is_new: bool) -> Arc<Known> {
        self.forget_the_silent();
        let session = worker.session;
        let kind = self.lobby.kind(&worker);
        let known = Arc::new(Known::new(worker, kind, is_new));
        Arc::clone(self.sessions().entry(session).or_insert(known))
    }

    pub(super) fn forget(&self, session: SessionId) {
        if let Some(known) = self.sessions().remove(&session) {
            let jobs: Vec<JobId> = known.state().jobs.keys().copied().collect();
            let mut holders = self.holders();
            for job in jobs {
                if holders.get(&job) == Some(&session) {
                    holders.remove(&job);
                }
            }
        }
        self.lobby.forget_the_empty();
    }

    fn forget_the_silent(&self) {
        let silent: Vec<SessionId> = self
            .sessions()
            .values()
            .filter(|known| known.state().heard.elapsed() > known.worker.lease + FORGET_AFTER)
            .map(|known| known.worker.session)
            .collect();
        for session in silent {
            self.forget(session);
        }
    }

    /// The worker holds this job.
    pub(super) fn hold(&self, known: &Known, held: Held) {
        let job = held.job.token.job;
        self.holders().insert(job, known.worker.session);
        known.state().jobs.insert(job, held);
    }

    /// The worker holds this job no more.
    pub(super) fn release(&self, known: &Known, token: LeaseToken) {
        let held = {
            let mut state = known.state();
            let is_it = state.jobs.get(&token.job).is_some_and(|held| held.job.token == token);
            is_it && state.jobs.remove(&token.job).is_some()
        };
        if held {
            let mut holders = self.holders();
            if holders.get(&token.job) == Some(&known.worker.session) {
                holders.remove(&token.job);
            }
        }
    }

    /// The worker is to stop this job, which is no longer its own.
    pub(super) fn stop(&self, known: &Known, token: LeaseToken, why: Stop) {
        self.release(known, token);
        known.stop(token, why);
    }

    /// Who holds a job, and under which token.
    pub(super) fn holder(&self, job: JobId) -> Option<(Arc<Known>, LeaseToken)> {
        let session = *self.holders().get(&job)?;
        let known = self.known(session)?;
        let token = known.state().jobs.get(&job).map(|held| held.job.token)?;
        Some((known, token))
    }

    /// A queue has jobs.
    pub(crate) fn queued(&self, queue: &str) {
        self.lobby.queued(queue);
    }

    /// Hints were lost: everybody looks.
    pub(crate) fn wake_all(&self) {
        self.lobby.wake_all();
    }
}
