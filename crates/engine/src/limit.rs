//! How many jobs may run here at once, when the process finds that out by itself ([`Options::adaptive_limit`]).
//!
//! The rule is [`Limiter`]; here is measured what it goes by, and its limit is put into force: on what is claimed, and on how many of
//! those that are held run.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recache_model::limiter::{Limiter, Observation, Reason, Runs, WINDOW, fair_claim};
use recache_store::{ClaimedJob, FLOW, LeaseToken, Store};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::options::Options;

/// How many jobs may run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimLimit {
    /// So many at once; 0: none may begin.
    pub limit: u32,
    /// The highest that it may be.
    pub slots: u32,
    /// Why it is as it is.
    pub reason: Reason,
    /// Whether it follows what is measured.
    pub is_adaptive: bool,
}

/// The limit as others in the process see it.
#[derive(Debug)]
pub(crate) struct Shown(Mutex<ClaimLimit>);

impl Shown {
    pub(crate) fn new(options: &Options) -> Self {
        let slots = whole(options.slots);
        let limit = if options.adaptive_limit { Limiter::new(slots).limit() } else { slots };
        let is_adaptive = options.adaptive_limit;
        Self(Mutex::new(ClaimLimit { limit, slots, reason: Reason::Steady, is_adaptive }))
    }

    pub(crate) fn read(&self) -> ClaimLimit {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, limit: u32, reason: Reason) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.reason != reason || shown.limit != limit {
            tracing::debug!(limit, reason = reason.as_str(), "limit of running jobs");
        }
        (shown.limit, shown.reason) = (limit, reason);
    }
}

/// What one claim may ask for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// The queues, by their numbers; `None`: all.
    pub(crate) queues: Option<Vec<usize>>,
    pub(crate) rows_max: usize,
}

/// Measures, and holds the limit.
#[derive(Debug)]
pub(crate) struct Measuring {
    limiter: Limiter,
    /// When the present stretch of time is over.
    ends_at: Instant,
    seen: Seen,
    /// Calls that failed meanwhile. One that is repeated counts each time, before it has an end.
    failed: Arc<AtomicU32>,
    /// What the pool had counted when it began.
    pool: (u64, Duration),
    /// What runs or waits for a slot here.
    jobs: HashMap<LeaseToken, (usize, String)>,
    /// How many of those come from which queue.
    by_queue: Vec<u32>,
    queues: Vec<String>,
    /// Permits that the slots have now.
    permits: usize,
    /// The last claim for queues below their share brought less than it could: the next one is for all.
    is_open: bool,
}

#[derive(Debug, Default)]
struct Seen {
    running_max: usize,
    runs: HashMap<String, (u32, Duration)>,
    answered: u32,
}

impl Measuring {
    pub(crate) fn new(options: &Options, store: &dyn Store, slots: &Semaphore, now: Instant) -> Self {
        let limiter = Limiter::new(whole(options.slots));
        let (taken, waited, _) = pool_of(store);
        let mut measuring = Self {
            ends_at: now + WINDOW,
            seen: Seen::default(),
            failed: Arc::default(),
            pool: (taken, waited),
            jobs: HashMap::new(),
            by_queue: vec![0; options.queues.len()],
            queues: options.queues.clone(),
            permits: options.slots,
            is_open: false,
            limiter,
        };
        measuring.put_in_force(slots);
        measuring
    }

    /// So many jobs may run.
    pub(crate) fn limit(&self) -> usize {
        usize::try_from(self.limiter.limit()).unwrap_or(usize::MAX)
    }

    /// Ends the stretch of time when it is over. Call it often.
    pub(crate) fn look(&mut self, store: &dyn Store, slots: &Semaphore, shown: &Shown, now: Instant) {
        if now < self.ends_at {
            return;
        }
        self.ends_at = now + WINDOW;
        let (taken, waited, waiting) = pool_of(store);
        let (taken_now, waited_now) = (taken.saturating_sub(self.pool.0), waited.saturating_sub(self.pool.1));
        self.pool = (taken, waited);
        let Seen { running_max, runs, answered } = std::mem::take(&mut self.seen);
        let runs = runs.into_iter().map(|(handler, (count, sum))| Runs { handler, count, sum });
        let limit = self.limiter.observe(&Observation {
            running_max: whole(running_max),
            runs: runs.collect(),
            taken: taken_now,
            pool_wait: u32::try_from(taken_now)
                .ok()
                .and_then(|taken| waited_now.checked_div(taken))
                .unwrap_or_default(),
            waiting,
            answered,
            failed: self.failed.swap(0, Ordering::Relaxed),
        });
        shown.set(limit, self.limiter.reason());
        self.note_running();
        self.put_in_force(slots);
    }

    /// Takes permits away as they come free, or gives them back.
    pub(crate) fn put_in_force(&mut self, slots: &Semaphore) {
        let limit = self.limit();
        if limit < self.permits {
            self.permits -= slots.forget_permits(self.permits - limit);
        } else if limit > self.permits {
            slots.add_permits(limit - self.permits);
            self.permits = limit;
        }
    }

    /// What a claim of `rows_max` rows may ask for: as long as queues are below their share, for those.
    pub(crate) fn share(&self, rows_max: usize) -> Share {
        let fair = if self.is_open { None } else { fair_claim(self.limiter.limit(), &self.by_queue) };
        match fair {
            Some(fair) => Share { queues: Some(fair.queues), rows_max: rows_max.min(fair.rows_max) },
            None => Share { queues: None, rows_max },
        }
    }

    /// A claim was answered. Where queues below their share had less than they could have had, others may have the rest.
    pub(crate) fn claimed(&mut self, was_for_some: bool, has_all: bool) {
        self.is_open = was_for_some && !has_all;
    }

    pub(crate) fn answered(&mut self) {
        self.seen.answered = self.seen.answered.saturating_add(1);
    }

    /// Where those who call the store count what fails.
    pub(crate) fn failures(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.failed)
    }

    pub(crate) fn started(&mut self, job: &ClaimedJob) {
        if job.handler == FLOW {
            return;
        }
        let queue = self.queues.iter().position(|queue| *queue == job.queue).unwrap_or_default();
        if self.jobs.insert(job.token, (queue, job.handler.clone())).is_none()
            && let Some(count) = self.by_queue.get_mut(queue)
        {
            *count += 1;
        }
        self.note_running();
    }

    pub(crate) fn ended(&mut self, token: LeaseToken, ran: Option<Duration>) {
        let Some((queue, handler)) = self.jobs.remove(&token) else { return };
        if let Some(count) = self.by_queue.get_mut(queue) {
            *count = count.saturating_sub(1);
        }
        if let Some(ran) = ran {
            let (count, sum) = self.seen.runs.entry(handler).or_default();
            *count = count.saturating_add(1);
            *sum = sum.saturating_add(ran);
        }
    }

    fn note_running(&mut self) {
        self.seen.running_max = self.seen.running_max.max(self.jobs.len().min(self.permits));
    }
}

/// Connections taken, and how long was waited for them, since the store was opened; and how many wait for one now.
fn pool_of(store: &dyn Store) -> (u64, Duration, u32) {
    let pool = store.measured().pool;
    pool.map(|pool| (pool.used.taken, pool.waited, pool.state.waiting)).unwrap_or_default()
}

fn whole(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
