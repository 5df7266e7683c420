//! Settles what has ended and claims what comes next, in one call to the store, over and over.
//!
//! Batches form by themselves: while one call is under way, settlements gather for the next one. An idle engine settles a
//! single job at once, a busy one hundreds together; there is nothing to tune and no timer to wait for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use recache_model::dispatch::claim_size;
use recache_model::ids::JobId;
use recache_store::{ClaimRequest, ClaimedJob, FLOW, LeaseToken, Outcome, Settled, Settlement, Waiting};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::engine::{Shared, deadline, workflow_key};
use crate::execute::{self, Ended};
use crate::limit::{Measuring, Share};
use crate::stats::one;

/// Settlements in one call.
const SETTLEMENTS_MAX: usize = 1_000;
/// After a failed call to the store, the first wait; doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE: Duration = Duration::from_millis(20);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How much a new run time counts in the mean: one eighth.
const MEAN_WEIGHT: u32 = 8;

struct Pump {
    shared: Arc<Shared>,
    /// Those of the worker, and the engine's own.
    queues: Vec<String>,
    handlers: Vec<String>,
    slots: Arc<Semaphore>,
    /// `None`: the limit is the number of slots.
    measuring: Option<Measuring>,
    ended: mpsc::UnboundedSender<Ended>,
    /// There may be more to claim than the last claim brought.
    hungry: bool,
    mean_run: Option<Duration>,
    /// Before the store is called again after a failed call.
    pause: Duration,
    /// When a job that was retried here is due again, or a rate lets more begin: earlier than polling would find it.
    next_due: Option<Instant>,
}

pub(crate) async fn run(shared: Arc<Shared>) {
    // Bounded by the number of held jobs, which claiming bounds.
    let (ended, mut waiting) = mpsc::unbounded_channel();
    let slots = Arc::new(Semaphore::new(shared.options.slots));
    let measuring = shared
        .options
        .adaptive_limit
        .then(|| Measuring::new(&shared.options, &*shared.store, &slots, Instant::now()));
    let mut pump = Pump {
        queues: with_own(shared.options.queues.clone()),
        handlers: with_own(shared.handlers.names()),
        slots,
        measuring,
        ended,
        hungry: true,
        mean_run: None,
        pause: RETRY_PAUSE,
        next_due: None,
        shared,
    };
    let mut settling: Vec<Ended> = Vec::new();
    loop {
        while settling.len() < SETTLEMENTS_MAX
            && let Ok(ended) = waiting.try_recv()
        {
            settling.push(ended);
        }
        let claim = if pump.clear_doubt().await { pump.claim() } else { None };
        if settling.is_empty() && claim.is_none() {
            let shared = Arc::clone(&pump.shared);
            if shared.ending.is_cancelled() {
                return;
            }
            let poll = Instant::now() + shared.options.poll.mul_f64(0.75 + rand::random::<f64>() * 0.5);
            let look_at = pump.next_due.map_or(poll, |due| due.min(poll));
            tokio::select! {
                () = shared.ending.cancelled() => return,
                ended = waiting.recv() => settling.extend(ended),
                () = shared.work.notified() => pump.hungry = true,
                () = tokio::time::sleep_until(look_at) => {
                    pump.hungry = true;
                    pump.next_due = None;
                }
            }
            continue;
        }
        pump.turn(&mut settling, claim).await;
    }
}

fn with_own(mut names: Vec<String>) -> Vec<String> {
    names.push(FLOW.to_owned());
    names
}

impl Pump {
    fn claim(&mut self) -> Option<ClaimRequest> {
        let shared = &self.shared;
        if let Some(measuring) = &mut self.measuring {
            measuring.look(&*shared.store, &self.slots, &shared.limit, Instant::now());
        }
        if !self.hungry || shared.draining.is_cancelled() {
            return None;
        }
        let session = shared.lease.sure(shared.options.lease)?;
        let held = shared.held.count();
        let options = &shared.options;
        let slots = self.measuring.as_ref().map_or(options.slots, Measuring::limit);
        let rows_max = if self.measuring.is_some() && options.queues.len() > 1 {
            // What is claimed ahead has its place in the line already: a queue that has less than its share would stand behind it.
            slots.saturating_sub(held).min(options.claim_rows_max)
        } else {
            claim_size(slots, held, self.mean_run, options.claim_rows_max)
        };
        // Many small claims cost more than one that waits until a quarter of the buffer is free.
        let is_worth_it = held <= slots || rows_max * 4 >= options.claim_rows_max;
        if rows_max == 0 || !is_worth_it {
            return None;
        }
        let share = self
            .measuring
            .as_ref()
            .map_or(Share { queues: None, rows_max }, |measuring| measuring.share(rows_max));
        let queues = match share.queues {
            None => self.queues.clone(),
            Some(below) => {
                with_own(below.iter().filter_map(|queue| options.queues.get(*queue).cloned()).collect())
            }
        };
        Some(ClaimRequest { session, queues, handlers: self.handlers.clone(), rows_max: share.rows_max })
    }

    /// After a claim whose answer was lost, and once a lease, hands back what this process does not know of. Done here, between
    /// two claims, because a job whose claim is under way is not known yet either. False: nothing may be claimed yet.
    async fn clear_doubt(&self) -> bool {
        let shared = &self.shared;
        let doubtful = shared.lease.doubtful();
        let Some(session) = doubtful.or_else(|| shared.lease.long_unasked(shared.options.lease)) else {
            return true;
        };
        let (known, asked) = (shared.held.tokens(), Instant::now());
        let known: Vec<JobId> = known.iter().map(|token| token.job).collect();
        match shared.store.session_reclaim(session, known).await {
            Ok(count) => {
                shared.lease.trust(session, asked);
                if count > 0 {
                    tracing::info!(count, "jobs handed back whose claim had gone unanswered");
                }
                true
            }
            Err(error) => {
                one(&shared.counters.store_errors);
                tracing::warn!(%error, "what this process holds cannot be compared with the store");
                doubtful.is_none()
            }
        }
    }

    /// One call, repeated until every settlement is answered. A claim is not repeated: by then the right to it
    /// may be gone.
    async fn turn(&mut self, settling: &mut Vec<Ended>, mut claim: Option<ClaimRequest>) {
        let settlements: Vec<Settlement> =
            settling.iter().filter_map(|ended| ended.settlement.clone()).collect();
        let rows_max = claim.as_ref().map_or(0, |claim| claim.rows_max);
        let answer = loop {
            match self.shared.store.jobs_dispatch(settlements.clone(), claim.clone()).await {
                Ok(answer) => {
                    if let Some(measuring) = &mut self.measuring {
                        measuring.answered();
                    }
                    break answer;
                }
                Err(error) => {
                    one(&self.shared.counters.store_errors);
                    if let Some(measuring) = &mut self.measuring {
                        measuring.failed();
                        // A call may be repeated for long: what follows from that must not wait for its end.
                        measuring.look(&*self.shared.store, &self.slots, &self.shared.limit, Instant::now());
                    }
                    if let Some(claim) = claim.take()
                        && matches!(error, recache_store::Error::Unknown { .. })
                    {
                        self.shared.lease.doubt(claim.session);
                    }
                    tracing::warn!(%error, settlements = settlements.len(), "settlements wait for the store");
                    if self.shared.ending.is_cancelled() {
                        settling.clear();
                        return;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(self.pause) => {}
                        () = self.shared.ending.cancelled() => {}
                    }
                    self.pause = (self.pause * 2).min(RETRY_PAUSE_MAX);
                    if settlements.is_empty() {
                        settling.drain(..).for_each(|ended| self.conclude(&ended, false));
                        return;
                    }
                    // Repeating is safe: a settlement that got through is answered the same way again.
                }
            }
        };
        self.pause = RETRY_PAUSE;
        let refused: HashMap<LeaseToken, bool> = settlements
            .iter()
            .zip(&answer.settled)
            .map(|(settlement, settled)| (settlement.token, matches!(settled, Settled::Refused(_))))
            .collect();
        for ended in settling.drain(..) {
            let is_refused = refused.get(&ended.token).copied().unwrap_or(false);
            self.conclude(&ended, is_refused);
        }
        if let Some(claim) = &claim {
            let has_all = answer.claimed.len() >= rows_max;
            let was_for_some = claim.queues.len() < self.queues.len();
            // The rest is for queues that have their share already.
            self.hungry = has_all || was_for_some;
            if let Some(measuring) = &mut self.measuring {
                measuring.claimed(was_for_some, has_all);
            }
        }
        if let Some(pause) = answer.look_again {
            self.look_at(deadline(pause));
        }
        for job in answer.claimed {
            self.start(job);
        }
    }

    /// Looks for work then, if not sooner.
    fn look_at(&mut self, due: Instant) {
        self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
    }

    fn conclude(&mut self, ended: &Ended, is_refused: bool) {
        let shared = Arc::clone(&self.shared);
        shared.held.remove(ended.token);
        if let Some(measuring) = &mut self.measuring {
            measuring.ended(ended.token, ended.run_time);
            measuring.put_in_force(&self.slots);
            // Its place is free: the limit may have become one that is to be put into force.
            self.hungry = true;
        }
        if is_refused {
            one(&shared.counters.refused);
            tracing::debug!(job_id = %ended.token.job, "settlement refused: the job is no longer this worker's");
        }
        if let Some(Settlement {
            outcome:
                Outcome::Retry { after, .. }
                | Outcome::Snoozed { after }
                | Outcome::Waits(Waiting::Signal { timeout: Some(after), .. }),
            ..
        }) = &ended.settlement
        {
            self.look_at(deadline(*after));
        }
        if let Some(run) = ended.run_time {
            self.mean_run = Some(match self.mean_run {
                None => run,
                Some(mean) => (mean * (MEAN_WEIGHT - 1) + run) / MEAN_WEIGHT,
            });
        }
        if ended.waited_in_vain {
            // It was claimed too far ahead.
            self.mean_run = self.mean_run.max(Some(execute::WAIT_MAX));
        }
        // Its end may have made room for another one.
        self.hungry |= ended.is_limited;
        shared.waiters.wake(ended.token.job.uuid());
        if let Some(workflow) = workflow_key(ended.workflow) {
            // Its other steps may be claimable now, and its waiters may be done.
            self.hungry = true;
            shared.waiters.wake(workflow);
        }
    }

    fn start(&mut self, job: ClaimedJob) {
        if let Some(measuring) = &mut self.measuring {
            measuring.started(&job);
        }
        let stop = self.shared.held.add(job.token);
        let (shared, slots, ended) = (Arc::clone(&self.shared), Arc::clone(&self.slots), self.ended.clone());
        self.shared.tasks.spawn(async move {
            let outcome = execute::run(&shared, job, stop, &slots).await;
            let _ = ended.send(outcome);
        });
    }
}
