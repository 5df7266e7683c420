//! One call of a worker, from its arrival to its answer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use recache_model::ids::SessionId;
use recache_model::job::{ErrorKind, JobError};
use recache_store::{ClaimRequest, ClaimedJob, LeaseToken, Outcome, Revoked, Settlement, Waiting};
use recache_worker::{Failure, Stop};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Remote;
use super::call::{Answer, Call, Report, Settle, Settled};
use super::judge::{self, Judged};
use super::memory::{Held, Known};
use super::offer::{Offer, offer};
use crate::engine::{Shared, deadline, workflow_key};
use crate::error::{Error, Result};
use crate::execute;
use crate::held::stop_for;
use crate::stats::{add, one};

/// The store is told that a worker lives at most so often, as a part of its lease: what is skipped only shortens the lease.
const BEAT_PART: u32 = 8;
/// Offers that are made at once.
const OFFERS_AT_ONCE: usize = 16;
/// How long a call may wait, whatever it asks for.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// For how many leases jobs are offered again to a worker that repeats its claim: the answers to it are lost. Then others have them.
const REPEATS_LEASES: u32 = 4;

impl Remote {
    /// Does what a worker asks for. After an error, and when no answer comes, the worker repeats the same call.
    pub async fn call(&self, session: SessionId, secret: &str, call: Call) -> Result<Answer> {
        call.check()?;
        let Some(known) = self.known(session, secret).await? else {
            let settled = settle_again(&self.shared, &call.settle).await?;
            return Ok(Answer { settled, ..Answer::default() });
        };
        let (reply, answer) = oneshot::channel();
        let calling = Calling { shared: Arc::clone(&self.shared), known };
        // In a task of its own: a caller who hangs up must not cut a claim off from what follows its commit.
        self.shared.tasks.spawn(async move { calling.answer(call, reply).await });
        answer.await.map_err(|_| Error::ShuttingDown)?
    }
}

/// Ends that a worker tells after its session has ended. Its tokens are void, so nothing changes; but what was accepted before is
/// accepted again.
async fn settle_again(shared: &Shared, settle: &[Settle]) -> Result<Vec<Settled>> {
    let asked: Vec<Settlement> = settle.iter().map(|settle| question(settle.token)).collect();
    let answer = shared.store.jobs_dispatch(asked, None).await?;
    Ok(answer.settled.into_iter().map(settled_as).collect())
}

/// A settlement with a token that is void: it changes nothing, and its answer tells whether the token settled the job before.
fn question(token: LeaseToken) -> Settlement {
    Settlement { token, outcome: Outcome::Released, linked: true, limited_queue: None }
}

fn settled_as(settled: recache_store::Settled) -> Settled {
    match settled {
        recache_store::Settled::Accepted => Settled::Accepted,
        recache_store::Settled::Refused(why) => Settled::Refused(why),
    }
}

type Reply = oneshot::Sender<Result<Answer>>;

/// What becomes of a call's claim.
#[derive(Default)]
struct Claiming {
    /// Its place among the worker's claims; `None`: the call claims nothing.
    place: Option<u64>,
    /// What was claimed for it.
    claimed: Vec<Arc<ClaimedJob>>,
    /// The session holds more that the worker does not know of.
    is_doubtful: bool,
    /// The worker asks again, because the answer to this claim was lost, and can take what was in it.
    is_repeated: bool,
}

struct Calling {
    shared: Arc<Shared>,
    known: Arc<Known>,
}

/// What an earlier answer may have brought in vain.
#[derive(Default)]
struct LostOffers {
    offers: Vec<Offer>,
    /// There are more than the worker asks for.
    are_more: bool,
    /// So many were handed back.
    given_up: usize,
}

/// What one exchange with the store brought.
#[derive(Default)]
struct Dispatch {
    settled: Vec<Settled>,
    claimed: Vec<Arc<ClaimedJob>>,
    /// More may be there than was asked for.
    is_full: bool,
}

impl Calling {
    async fn answer(self, call: Call, mut reply: Reply) {
        let mut claiming = Claiming::default();
        let numbered = call.claim.map(|claim| claim.number);
        // An older claim of the worker gives up, and what it brought is known or handed back before this one looks.
        if let Some(claim) = call.claim {
            let (place, is_repeated) = self.known.begin_claim(claim.number);
            claiming.place = Some(place);
            claiming.is_repeated = is_repeated && claim.max > 0;
        }
        let _one_at_a_time = match numbered {
            Some(_) => Some(self.known.claiming.lock().await),
            None => None,
        };
        let answer = self.run(call, &mut reply, &mut claiming).await;
        if let Some(number) = numbered {
            // After an error nobody knows what was claimed.
            self.known.answered(number.filter(|_| answer.is_ok() && !claiming.is_doubtful));
        }
        let claimed = claiming.claimed;
        let was_lost = match reply.send(answer) {
            Ok(()) => return,
            Err(_) => !claimed.is_empty(),
        };
        if was_lost {
            self.hand_back(claimed).await;
        }
    }

    /// The caller has hung up: what was claimed for it goes to others at once, and the attempt does not count.
    async fn hand_back(&self, claimed: Vec<Arc<ClaimedJob>>) {
        self.known.answered(None);
        let settlements = claimed.iter().map(|job| Settlement::of(job, Outcome::Released)).collect();
        match self.shared.store.jobs_dispatch(settlements, None).await {
            Ok(_) => {
                add(&self.shared.counters.released, claimed.len());
                for job in &claimed {
                    self.shared.remote.release(&self.known, job.token);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "jobs not handed back; they are offered to their worker again");
            }
        }
        self.known.kind.wake_one();
    }

    async fn run(&self, call: Call, reply: &mut Reply, claiming: &mut Claiming) -> Result<Answer> {
        let (shared, known) = (&self.shared, &self.known);
        let arrived = Instant::now();
        known.hear();
        if call.claim.is_some() && call.held.is_none() {
            return Err(Error::Invalid(
                "a claim names the jobs that the worker holds: say `held`, which may be empty".to_owned(),
            ));
        }
        let mut answer = Answer { is_alive: true, ..Answer::default() };
        for report in &call.reports {
            answer.reports.push(self.report(report).await?);
        }
        if !self.sign_of_life(&call, claiming.is_repeated).await? {
            known.end();
            shared.remote.forget(known.worker.session);
            answer.settled = settle_again(shared, &call.settle).await?;
            return Ok(Answer { is_alive: false, ..answer });
        }
        self.end_overdue().await?;

        let mut until = arrived + call.wait.min(WAIT_MAX);
        let mut wanted = call.claim.map_or(0, |claim| claim.max.min(shared.options.claim_rows_max));
        if let Some(claim) = call.claim
            && known.is_doubtful(claim.number)
        {
            let lost = self.lost_offers(&call, claim.max, claiming.is_repeated).await?;
            (answer.jobs, claiming.is_doubtful) = (lost.offers, lost.are_more);
            wanted = wanted.saturating_sub(answer.jobs.len());
            if lost.given_up > 0 {
                // Others are to have them: they would be this worker's again before anybody else has looked.
                wanted = 0;
                until = arrived;
            }
        }
        let dispatch = self.dispatch(&call.settle, wanted).await?;
        answer.settled = dispatch.settled;
        claiming.claimed.extend(dispatch.claimed.iter().cloned());
        self.offer_all(&dispatch.claimed, &mut answer.jobs).await;
        if dispatch.is_full {
            known.kind.wake_one();
        }

        let moves = known.moves();
        while answer.jobs.is_empty() && !known.has_stops() && !shared.remote.retiring.is_cancelled() {
            let mut changed = std::pin::pin!(known.changed.notified());
            // From here on nothing that happens is missed.
            changed.as_mut().enable();
            let is_newest = claiming.place.is_none_or(|place| known.is_newest_claim(place));
            if known.has_stops() || known.has_ended() || known.moves() != moves || !is_newest {
                break;
            }
            let mut answer_by = until.min(known.answer_by());
            if let Some(overdue) = known.first_deadline() {
                answer_by = answer_by.min(overdue);
            }
            if Instant::now() >= answer_by {
                break;
            }
            let next_look = if wanted > 0 { known.kind.next_look(shared.options.poll) } else { answer_by };
            tokio::select! {
                biased;
                () = reply.closed() => break,
                () = shared.remote.retiring.cancelled() => break,
                () = changed => break,
                () = known.kind.woken(), if wanted > 0 => {}
                () = tokio::time::sleep_until(next_look.min(answer_by)) => {
                    let is_time = wanted > 0 && known.kind.next_look(shared.options.poll) <= Instant::now();
                    if !is_time {
                        continue;
                    }
                }
            }
            let dispatch = self.dispatch(&[], wanted).await?;
            claiming.claimed.extend(dispatch.claimed.iter().cloned());
            self.offer_all(&dispatch.claimed, &mut answer.jobs).await;
            if dispatch.is_full {
                known.kind.wake_one();
            }
        }
        self.end_overdue().await?;
        answer.is_draining = shared.remote.retiring.is_cancelled();
        let settled: HashSet<LeaseToken> = call.settle.iter().map(|settle| settle.token).collect();
        answer.stops = known.take_stops();
        answer.stops.retain(|(token, _)| !settled.contains(token));
        Ok(answer)
    }

    /// `None`: all of it is kept.
    async fn report(&self, report: &Report) -> Result<Option<Revoked>> {
        let store = &self.shared.store;
        let token = report.token;
        if let Some((progress, message)) = &report.progress
            && let refused @ Some(_) = store.job_progress(token, *progress, message.clone()).await?
        {
            return Ok(refused);
        }
        if let Some((first, lines)) = &report.log
            && let refused @ Some(_) = store.remote_workers().remote_log(token, *first, lines.clone()).await?
        {
            return Ok(refused);
        }
        if let Some(checkpoint) = &report.checkpoint {
            return Ok(store.attempts().checkpoint_save(token, checkpoint).await?);
        }
        Ok(None)
    }

    /// Tells the store that the worker lives, if it was not told just now. False: its session has ended.
    ///
    /// What a repeated claim does not name was not lost by its worker, who never had it: it is offered again.
    async fn sign_of_life(&self, call: &Call, is_repeated: bool) -> Result<bool> {
        let (shared, known) = (&self.shared, &self.known);
        let remote = shared.store.remote_workers();
        let held = call.held.as_deref().unwrap_or_default();
        let unknown: Vec<LeaseToken> =
            held.iter().copied().filter(|token| known.job(*token).is_none()).collect();
        if !unknown.is_empty() {
            // Claimed through another engine, or before a restart. Known before it is asked about, so that no cancel falls between.
            for held in remote.remote_held_by(unknown.clone()).await? {
                let deadline = held.job.timeout.map(|timeout| deadline(timeout.saturating_sub(held.ran)));
                shared.remote.hold(known, Held { job: Arc::new(held.job), deadline, rules: Err(()) });
            }
        }
        let lease = known.worker.lease;
        if unknown.is_empty() && known.is_confirmed_within(lease / BEAT_PART) {
            return Ok(true);
        }
        let settled = call.settle.iter().map(|settle| settle.token);
        let named: Vec<LeaseToken> = held.iter().copied().chain(settled).collect();
        let sent = Instant::now();
        let are_all_named = call.held.is_some() && !is_repeated;
        let beat = remote.remote_beat(known.worker.session, lease, named, are_all_named).await?;
        if !beat.known {
            tracing::info!(session = %known.worker.session, worker = known.worker.name, "remote worker was silent for too long");
            return Ok(false);
        }
        known.confirm(sent);
        if beat.forgotten > 0 {
            add(&shared.counters.lease_lost, beat.forgotten);
            tracing::warn!(
                session = %known.worker.session,
                worker = known.worker.name,
                jobs = beat.forgotten,
                "remote worker does not know of jobs that it holds; they were taken away"
            );
        }
        for (job, why) in beat.revoked {
            if let Some(token) = held.iter().find(|token| token.job == job) {
                let why = stop_for(why);
                execute::count_stop(shared, why);
                shared.remote.stop(known, *token, why);
            }
        }
        Ok(true)
    }

    /// Ends attempts that have run as long as they may.
    async fn end_overdue(&self) -> Result<()> {
        for held in self.known.overdue() {
            let limit = held.job.timeout.unwrap_or_default().as_millis();
            let error = JobError::new(ErrorKind::Timeout, format!("ran longer than {limit} ms"));
            let outcome = execute::failed(&self.shared, &held.job, error);
            self.put_off(&outcome);
            let settlement = Settlement::of(&held.job, outcome);
            let ended = self.shared.store.remote_workers().remote_end(settlement).await?;
            match ended {
                recache_store::Settled::Accepted => {
                    self.shared.remote.stop(&self.known, held.job.token, Stop::Timeout);
                    self.tell_waiters(&held.job);
                }
                // Its worker was faster, or it was taken away, of which a sign of life tells.
                recache_store::Settled::Refused(_) => {
                    self.shared.remote.release(&self.known, held.job.token);
                }
            }
        }
        Ok(())
    }

    /// Jobs that the session holds and the worker does not name: the answer that brought them was lost. Those that could not be brought to a
    /// worker that repeats its claim go to others in the end: it may be one that is heard and hears nothing.
    async fn lost_offers(&self, call: &Call, rows_max: usize, is_repeated: bool) -> Result<LostOffers> {
        let named: HashSet<LeaseToken> = call
            .held
            .iter()
            .flatten()
            .copied()
            .chain(call.settle.iter().map(|settle| settle.token))
            .collect();
        let known = &self.known;
        let mut held = self.shared.store.remote_workers().remote_held(known.worker.session).await?;
        held.retain(|held| !named.contains(&held.job.token));
        let mut lost = LostOffers::default();
        if is_repeated {
            let patience = known.worker.lease * REPEATS_LEASES;
            let late: Vec<ClaimedJob> =
                held.extract_if(.., |held| held.ran > patience).map(|held| held.job).collect();
            lost.given_up = late.len();
            self.give_up(&late).await?;
        }
        for held in held {
            if lost.offers.len() >= rows_max {
                lost.are_more = true;
                break;
            }
            let deadline = held.job.timeout.map(|timeout| deadline(timeout.saturating_sub(held.ran)));
            let job = Arc::new(held.job);
            self.shared.remote.hold(known, Held { job: Arc::clone(&job), deadline, rules: Err(()) });
            lost.offers.extend(self.offer(&job, true).await);
        }
        Ok(lost)
    }

    /// Jobs that never reached the worker go back to the queue, and their attempts do not count.
    async fn give_up(&self, jobs: &[ClaimedJob]) -> Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        let settlements = jobs.iter().map(|job| Settlement::of(job, Outcome::Released)).collect();
        self.shared.store.jobs_dispatch(settlements, None).await?;
        add(&self.shared.counters.released, jobs.len());
        for job in jobs {
            self.shared.remote.release(&self.known, job.token);
        }
        tracing::warn!(
            session = %self.known.worker.session,
            worker = self.known.worker.name,
            jobs = jobs.len(),
            "remote worker repeats its claim and gets no answer; its jobs go to others"
        );
        Ok(())
    }

    /// Settles, and claims up to `rows_max` jobs.
    async fn dispatch(&self, settle: &[Settle], rows_max: usize) -> Result<Dispatch> {
        let (shared, known) = (&self.shared, &self.known);
        let rows_max = if shared.remote.retiring.is_cancelled() || known.has_ended() { 0 } else { rows_max };
        if settle.is_empty() && rows_max == 0 {
            return Ok(Dispatch::default());
        }
        let held = self.held_of(settle).await?;
        let mut settled: Vec<Option<Settled>> = vec![None; settle.len()];
        let mut places = Vec::with_capacity(settle.len());
        let mut settlements = Vec::with_capacity(settle.len());
        for (place, (settle, held)) in settle.iter().zip(&held).enumerate() {
            let settlement = match held {
                None => question(settle.token),
                Some(held) => match judge::judge(shared, held, &settle.end).await? {
                    Judged::Outcome(outcome) => Settlement::of(&held.job, outcome),
                    Judged::Publication(publication) => {
                        settled[place] = Some(judge::publish(shared, settle.token, publication).await?);
                        continue;
                    }
                },
            };
            places.push(place);
            settlements.push(settlement);
        }
        let claim = (rows_max > 0).then(|| {
            known.kind.look();
            ClaimRequest {
                session: known.worker.session,
                queues: known.kind.queues.clone(),
                handlers: known.kind.handlers.clone(),
                rows_max,
            }
        });
        let outcomes: Vec<Outcome> =
            settlements.iter().map(|settlement| settlement.outcome.clone()).collect();
        let answer = shared.store.jobs_dispatch(settlements, claim).await.inspect_err(|_| {
            one(&shared.counters.store_errors);
        })?;
        for ((place, outcome), answer) in places.into_iter().zip(outcomes).zip(answer.settled) {
            if held[place].is_some() {
                self.put_off(&outcome);
            }
            settled[place] = Some(settled_as(answer));
        }
        for (settle, held) in settle.iter().zip(&held) {
            shared.remote.release(known, settle.token);
            if let Some(held) = held {
                self.tell_waiters(&held.job);
            }
        }
        if !settle.is_empty() {
            // Another call of the worker may wait: it has room for more now.
            known.moved();
        }
        let settled: Vec<Settled> = settled.into_iter().flatten().collect();
        let refused = settled.iter().filter(|settled| matches!(settled, Settled::Refused(_))).count();
        add(&shared.counters.refused, refused);
        if let Some(pause) = answer.look_again {
            shared.remote.lobby.look_at(deadline(pause));
        }
        let is_full = rows_max > 0 && answer.claimed.len() >= rows_max;
        let claimed: Vec<Arc<ClaimedJob>> = answer.claimed.into_iter().map(Arc::new).collect();
        for job in &claimed {
            // At once: a cancel may come while the offer is made.
            let deadline = job.timeout.map(deadline);
            shared.remote.hold(known, Held { job: Arc::clone(job), deadline, rules: Err(()) });
        }
        add(&shared.counters.started, claimed.len());
        Ok(Dispatch { settled, claimed, is_full })
    }

    /// The jobs of these ends, as far as the worker still holds them.
    async fn held_of(&self, settle: &[Settle]) -> Result<Vec<Option<Held>>> {
        let mut held: Vec<Option<Held>> = settle.iter().map(|settle| self.known.job(settle.token)).collect();
        let missing: Vec<LeaseToken> = settle
            .iter()
            .zip(&held)
            .filter(|(_, held)| held.is_none())
            .map(|(settle, _)| settle.token)
            .collect();
        if missing.is_empty() {
            return Ok(held);
        }
        for found in self.shared.store.remote_workers().remote_held_by(missing).await? {
            let place = settle.iter().position(|settle| settle.token == found.job.token);
            if let Some(place) = place {
                held[place] = Some(Held { job: Arc::new(found.job), deadline: None, rules: Err(()) });
            }
        }
        Ok(held)
    }

    async fn offer_all(&self, claimed: &[Arc<ClaimedJob>], offers: &mut Vec<Offer>) {
        // Several at once: of steps much is read, and their leases run already.
        for part in claimed.chunks(OFFERS_AT_ONCE) {
            let made = join_all(part.iter().map(|job| self.offer(job, false))).await;
            offers.extend(made.into_iter().flatten());
        }
    }

    /// The job as the worker gets it; `None` when it cannot be done, and is settled here.
    async fn offer(&self, job: &Arc<ClaimedJob>, is_again: bool) -> Option<Offer> {
        let (shared, known) = (&self.shared, &self.known);
        let outcome = match offer(shared, job, is_again).await {
            Ok((offer, rules)) => {
                if let Some(held) = known.job(job.token) {
                    shared.remote.hold(known, Held { rules: Ok(rules), ..held });
                }
                return Some(offer);
            }
            // The store's: the job goes back, and the attempt does not count.
            Err(Failure::Retryable { message, .. }) => {
                tracing::warn!(job_id = %job.token.job, error = message, "job not offered: the store cannot be read");
                Outcome::Released
            }
            Err(failure) => execute::failed(shared, job, judge::error_of(failure)),
        };
        shared.remote.release(known, job.token);
        if let Err(error) = shared.store.jobs_dispatch(vec![Settlement::of(job, outcome)], None).await {
            one(&shared.counters.store_errors);
            tracing::warn!(job_id = %job.token.job, %error, "job not settled; it is taken away when its worker does not name it");
        }
        self.tell_waiters(job);
        None
    }

    /// What is due later is looked for then, not only when it is polled for.
    fn put_off(&self, outcome: &Outcome) {
        if let Outcome::Retry { after, .. }
        | Outcome::Snoozed { after }
        | Outcome::Waits(Waiting::Signal { timeout: Some(after), .. }) = outcome
        {
            self.shared.remote.lobby.look_at(deadline(*after));
        }
    }

    fn tell_waiters(&self, job: &ClaimedJob) {
        self.shared.waiters.wake(job.token.job.uuid());
        if let Some(workflow) = workflow_key(job.workflow) {
            self.shared.waiters.wake(workflow);
        }
    }
}
