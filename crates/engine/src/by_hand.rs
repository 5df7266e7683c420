//! An engine that does nothing by itself: for tests that move time and want everything that is due to have happened.

use std::time::Duration;

use futures_util::future::join_all;
use recache_model::ids::SessionId;
use recache_store::{ClaimRequest, FLOW, Settlement};
use recache_worker::StopSignal;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::{batches, deliver, execute, maintain, publishers};

/// By the store's clock: whoever moves that moves it less far, between two calls.
const LEASE: Duration = Duration::from_hours(24 * 365);
/// Jobs that one round takes.
const CLAIMED_MAX: usize = 100;
const ROWS_MAX: u32 = 100;
/// After so many rounds work that makes ever more work is taken to be endless.
const ROUNDS_MAX: usize = 10_000;

/// What [`ByHand::run_due`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ran {
    /// Attempts of jobs.
    pub attempts: usize,
    /// Turns of the engine's own with steps of workflows.
    pub turns: usize,
    /// Builds that became jobs.
    pub builds: usize,
    /// Jobs that schedules made.
    pub scheduled: usize,
    /// Payloads of events that publishers made or tried to make.
    pub payloads: usize,
    /// Deliveries that were made or tried.
    pub deliveries: usize,
    /// Limits of time that had passed.
    pub limits: usize,
}

/// An engine without tasks of its own: no polling, no beat, no pump. What is due happens in [`run_due`](Self::run_due), by the
/// code that runs it elsewhere; what is not due by the store's clock does not happen.
#[derive(Debug, Clone)]
pub struct ByHand {
    engine: Engine,
    session: SessionId,
    holder: Uuid,
}

impl ByHand {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, session: SessionId::make(), holder: Uuid::new_v4() }
    }

    /// To submit, touch, read. Its waits look again as usual, and nothing runs meanwhile unless somebody calls `run_due`.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Does all that is due now, and what becomes due by that, until nothing is. Retries, delays and ticks that lie in the future
    /// wait for the clock.
    pub async fn run_due(&self) -> Result<Ran> {
        let mut ran = Ran::default();
        for _ in 0..ROUNDS_MAX {
            let before = ran;
            self.reconcile(&mut ran).await?;
            batches::pass(&self.engine.shared).await;
            self.attempt(&mut ran).await?;
            self.publish(&mut ran).await?;
            self.deliver(&mut ran).await?;
            if ran == before {
                return Ok(ran);
            }
        }
        Err(Error::Invalid(format!("still not at rest after {ROUNDS_MAX} rounds: {ran:?}")))
    }

    /// Views whose builds are due, schedules whose ticks are, and limits of time that have passed.
    async fn reconcile(&self, ran: &mut Ran) -> Result<()> {
        let store = self.engine.store();
        ran.builds += store.views_reconcile(ROWS_MAX).await?.builds.len();
        if store.schedules().schedules_next().await?.is_some_and(|wait| wait.is_zero())
            && let Some(lead) = store.maintenance().leader_take("scheduler", self.holder, LEASE).await?
        {
            ran.scheduled += store.schedules().schedules_fire(&lead, ROWS_MAX, 0).await?.jobs.len();
        }
        if let Some(lead) = store.maintenance().leader_take(maintain::ROLE, self.holder, LEASE).await? {
            let passed = maintain::judge_limits(&self.engine.shared, &lead).await?;
            ran.limits += usize::try_from(passed).unwrap_or(usize::MAX);
        }
        Ok(())
    }

    /// The jobs that are due.
    async fn attempt(&self, ran: &mut Ran) -> Result<()> {
        let shared = &self.engine.shared;
        let with_own = |mut names: Vec<String>| {
            names.push(FLOW.to_owned());
            names
        };
        shared.store.session_open(self.session, &shared.options.node, LEASE).await?;
        shared.lease.take(self.session);
        let request = ClaimRequest {
            session: self.session,
            queues: with_own(shared.options.queues.clone()),
            handlers: with_own(shared.handlers.names()),
            rows_max: CLAIMED_MAX,
        };
        let claimed = shared.store.jobs_dispatch(Vec::new(), Some(request)).await?.claimed;
        if claimed.is_empty() {
            return Ok(());
        }
        let turns = claimed.iter().filter(|job| job.handler == FLOW).count();
        ran.turns += turns;
        ran.attempts += claimed.len() - turns;
        let slots = Semaphore::new(claimed.len());
        let runs = claimed.into_iter().map(|job| {
            let stop: StopSignal = shared.held.add(job.token);
            execute::run(shared, job, stop, &slots)
        });
        let ended = join_all(runs).await;
        let settlements: Vec<Settlement> =
            ended.iter().filter_map(|ended| ended.settlement.clone()).collect();
        shared.store.jobs_dispatch(settlements, None).await?;
        for one in ended {
            shared.held.remove(one.token);
        }
        Ok(())
    }

    /// The payloads of events that are due.
    async fn publish(&self, ran: &mut Ran) -> Result<()> {
        let shared = &self.engine.shared;
        if publishers::can_publish(shared) {
            ran.payloads += publishers::run_due(shared).await?;
        }
        Ok(())
    }

    /// The events that are new, and the deliveries that are due.
    async fn deliver(&self, ran: &mut Ran) -> Result<()> {
        let shared = &self.engine.shared;
        if !deliver::can_deliver(shared) {
            return Ok(());
        }
        ran.deliveries += deliver::run_due(shared).await?;
        Ok(())
    }
}
