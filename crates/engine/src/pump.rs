//! Settles what has ended and claims what comes next, in one call to the store, over and over.
//!
//! Batches form by themselves: while one call is under way, settlements gather for the next one. An idle engine settles a
//! single job at once, a busy one hundreds together; there is nothing to tune and no timer to wait for. A call that waits for the disk leaves
//! the database idle: with enough to do, a second one is under way beside it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use recache_model::dispatch::claim_size;
use recache_model::ids::JobId;
use recache_model::limiter::WINDOW;
use recache_store::{ClaimRequest, ClaimedJob, FLOW, LeaseToken, Outcome, Settled, Settlement, Waiting};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::dispatch::{self, Answer, Call, Done, RETRY_PAUSE};
use crate::engine::{Shared, deadline, workflow_key};
use crate::execute::{self, Ended};
use crate::limit::{Measuring, Share};
use crate::stats::one;

/// Settlements in one call.
const SETTLEMENTS_MAX: usize = 1_000;
/// Calls under way at once.
const CALLS_MAX: usize = 2;
/// A call beside another one is worth it for so many settlements and claimed jobs; fewer wait for the other one's end.
const SIDE_CALL_MIN: usize = 64;
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
    /// Something became claimable while a claim was under way, which may not have seen it.
    missed: bool,
    mean_run: Option<Duration>,
    calls: FuturesUnordered<BoxFuture<'static, Done>>,
    /// What these settle, and what they may claim.
    under_way: UnderWay,
    /// Before the store is called again after a failed call.
    pause: Duration,
    /// When a job that was retried here is due again, or a rate lets more begin: earlier than polling would find it.
    next_due: Option<Instant>,
}

#[derive(Debug, Default)]
struct UnderWay {
    settlements: usize,
    claims: usize,
    rows_max: usize,
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
        missed: false,
        mean_run: None,
        calls: FuturesUnordered::new(),
        under_way: UnderWay::default(),
        pause: RETRY_PAUSE,
        next_due: None,
        shared,
    };
    let mut settling: Vec<Ended> = Vec::new();
    loop {
        while settling.len() < SETTLEMENTS_MAX
            && let Ok(ended) = waiting.try_recv()
        {
            pump.ended(&ended);
            settling.push(ended);
        }
        pump.measure();
        if pump.calls.len() < CALLS_MAX {
            let is_claiming = pump.under_way.claims > 0;
            let may_claim = clear_doubt(&pump.shared, is_claiming).await;
            let claim = if may_claim { pump.claim(&settling) } else { None };
            if pump.is_worth_a_call(settling.len(), claim.as_ref()) {
                pump.call(std::mem::take(&mut settling), claim);
                continue;
            }
        }
        if pump.calls.is_empty() && pump.shared.ending.is_cancelled() {
            return;
        }
        let shared = Arc::clone(&pump.shared);
        // Never later than that, and not all processes at once.
        let poll = Instant::now() + shared.options.poll.mul_f64(1.0 - rand::random::<f64>() * 0.5);
        let mut look_at = pump.next_due.map_or(poll, |due| due.min(poll));
        if pump.measuring.is_some() && !pump.calls.is_empty() {
            // A call may be repeated for long: what follows from that must not wait for its end.
            look_at = look_at.min(Instant::now() + WINDOW);
        }
        tokio::select! {
            () = shared.ending.cancelled(), if pump.calls.is_empty() => return,
            Some(done) = pump.calls.next() => pump.answered(done),
            Some(ended) = waiting.recv(), if pump.calls.len() < CALLS_MAX => {
                pump.ended(&ended);
                settling.push(ended);
            }
            () = shared.work.notified() => pump.look_for_work(),
            () = tokio::time::sleep_until(look_at) => pump.time_came(poll, Instant::now()),
        }
    }
}

fn with_own(mut names: Vec<String>) -> Vec<String> {
    names.push(FLOW.to_owned());
    names
}

/// After a claim whose answer was lost, and once a lease, hands back what this process does not know of. Done here, between
/// two claims, because a job whose claim is under way is not known yet either. False: nothing may be claimed yet.
async fn clear_doubt(shared: &Shared, is_claiming: bool) -> bool {
    let doubtful = shared.lease.doubtful();
    let Some(session) = doubtful.or_else(|| shared.lease.long_unasked(shared.options.lease)) else {
        return true;
    };
    if is_claiming {
        return false;
    }
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

impl Pump {
    fn measure(&mut self) {
        let shared = &self.shared;
        if let Some(measuring) = &mut self.measuring {
            measuring.look(&*shared.store, &self.slots, &shared.limit, Instant::now());
        }
    }

    /// `settling`: these have ended and wait to be settled.
    fn claim(&mut self, settling: &[Ended]) -> Option<ClaimRequest> {
        let shared = &self.shared;
        // What follows a step in its workflow is claimed with the step's end, in the same transaction.
        let is_followed = settling.iter().any(|ended| ended.workflow.is_some());
        if !(self.hungry || is_followed) || shared.draining.is_cancelled() {
            return None;
        }
        let session = shared.lease.sure(shared.options.lease)?;
        // What has ended takes no place any more; what is being claimed has one.
        let ended = settling.len() + self.under_way.settlements;
        let held = shared.held.count().saturating_sub(ended) + self.under_way.rows_max;
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

    /// A first call is begun for anything that is to be done, a second one only for much.
    fn is_worth_a_call(&self, settling: usize, claim: Option<&ClaimRequest>) -> bool {
        let rows_max = claim.map_or(0, |claim| claim.rows_max);
        let least = if self.calls.is_empty() { 1 } else { SIDE_CALL_MIN };
        settling + rows_max >= least
    }

    fn call(&mut self, settling: Vec<Ended>, claim: Option<ClaimRequest>) {
        self.under_way.settlements += settling.len();
        self.under_way.claims += usize::from(claim.is_some());
        self.under_way.rows_max += claim.as_ref().map_or(0, |claim| claim.rows_max);
        let failures = self.measuring.as_ref().map(Measuring::failures);
        let call = Call { settling, claim, pause: self.pause, failures };
        self.calls.push(Box::pin(dispatch::run(Arc::clone(&self.shared), call)));
    }

    fn answered(&mut self, done: Done) {
        let Done { settlements, answer, call: Call { settling, claim, pause, .. } } = done;
        self.under_way.settlements -= settling.len();
        self.under_way.claims -= usize::from(claim.is_some());
        self.under_way.rows_max -= claim.as_ref().map_or(0, |claim| claim.rows_max);
        self.pause = pause;
        let (answer, has_claimed) = match answer {
            Answer::Given { dispatched, has_claimed } => (dispatched, has_claimed),
            Answer::Failed => {
                for ended in &settling {
                    self.conclude(ended, false, false);
                }
                return;
            }
            Answer::Ending => return,
        };
        if let Some(measuring) = &mut self.measuring {
            measuring.answered();
        }
        let refused: HashMap<LeaseToken, bool> = settlements
            .iter()
            .zip(&answer.settled)
            .map(|(settlement, settled)| (settlement.token, matches!(settled, Settled::Refused(_))))
            .collect();
        for ended in settling {
            let is_refused = refused.get(&ended.token).copied().unwrap_or(false);
            self.conclude(&ended, is_refused, has_claimed);
        }
        match &claim {
            None => {}
            Some(_) if !has_claimed => self.hungry = true,
            Some(claim) => {
                let has_all = answer.claimed.len() >= claim.rows_max;
                let was_for_some = claim.queues.len() < self.queues.len();
                // The rest is for queues that have their share already.
                self.hungry = has_all || was_for_some || std::mem::take(&mut self.missed);
                if let Some(measuring) = &mut self.measuring {
                    measuring.claimed(was_for_some, has_all);
                }
            }
        }
        if let Some(pause) = answer.look_again {
            self.look_at(deadline(pause));
        }
        for job in answer.claimed {
            self.start(job);
        }
    }

    /// Something may have become claimable.
    fn look_for_work(&mut self) {
        self.hungry = true;
        self.missed |= self.under_way.claims > 0;
    }

    /// It is time to look: because some job is due, or because nobody has looked for long.
    fn time_came(&mut self, poll: Instant, now: Instant) {
        let is_due = self.next_due.is_some_and(|due| due <= now);
        if is_due {
            self.next_due = None;
        }
        if is_due || poll <= now {
            self.look_for_work();
        }
    }

    /// Looks for work then, if not sooner.
    fn look_at(&mut self, due: Instant) {
        self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
    }

    /// A job has ended here, and takes no place any more.
    fn ended(&mut self, ended: &Ended) {
        if let Some(measuring) = &mut self.measuring {
            measuring.ended(ended.token, ended.run_time);
            measuring.put_in_force(&self.slots);
            // The limit may have become one that is to be put into force.
            self.look_for_work();
        }
    }

    /// What became of it is in the store. `has_claimed`: and what it made claimable was claimed with it, as far as there was room.
    fn conclude(&mut self, ended: &Ended, is_refused: bool, has_claimed: bool) {
        let shared = Arc::clone(&self.shared);
        shared.held.remove(ended.token);
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
        if ended.is_limited {
            self.look_for_work();
        }
        shared.waiters.wake(ended.token.job.uuid());
        if let Some(workflow) = workflow_key(ended.workflow) {
            // Its other steps may be claimable now, and its waiters may be done.
            if !has_claimed {
                self.look_for_work();
            }
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
