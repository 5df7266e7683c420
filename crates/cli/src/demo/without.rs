//! The same morning without version control: the same engine as a plain job queue.
//!
//! As applications commonly do it: every change submits a job that rebuilds the alliance; the job clears what is cached
//! and writes each item anew. Nothing is made worse than it need be: the job reads the newest members when it starts, and
//! a reader gets all the items it asks for under one lock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use recache_engine::Engine;
use recache_model::ids::JobId;
use recache_model::job::JobState;
use recache_store::{FlightStore, JobFilter, NewJob};
use recache_worker::{Context, Failure, Handlers};
use serde::Deserialize;
use tokio::time::Instant;

use super::figures::{self, Routes, SUMMARY};
use super::readers::{Readers, Source};
use super::schedule::{ALLIANCES, Change, Members};
use super::show::Bar;
use super::stage::{QUEUE, Stage};
use super::tally::{Figures, Tally, milliseconds};
use super::{Failed, check};

/// Tells these jobs from the views' in the job list.
const NAMESPACE: &str = "demo-without";
const HANDLER: &str = "rebuild";
/// Jobs of a killed run that are looked at in one go.
const LEFT_ROWS: u32 = 500;

/// A table of cached values in the process: alliance, item, JSON.
#[derive(Debug, Default)]
pub(super) struct Table(RwLock<HashMap<String, HashMap<String, Arc<String>>>>);

impl Table {
    pub(super) fn read(&self, alliance: &str, items: &[&str]) -> Vec<Option<Arc<String>>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let own = table.get(alliance);
        items.iter().map(|item| own.and_then(|own| own.get(*item)).cloned()).collect()
    }

    fn clear(&self, alliance: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(alliance);
    }

    fn put(&self, alliance: &str, item: &str, value: String) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.entry(alliance.to_owned()).or_default().insert(item.to_owned(), Arc::new(value));
    }

    fn all(&self, alliance: &str) -> BTreeMap<String, Arc<String>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table
            .get(alliance)
            .into_iter()
            .flatten()
            .map(|(item, value)| (item.clone(), Arc::clone(value)))
            .collect()
    }
}

/// The application's data: members, and how often they changed.
#[derive(Debug, Default)]
struct Rolls {
    members: Members,
    changes: HashMap<String, u64>,
    /// When a finished rebuild first showed the newest members.
    fresh_at: HashMap<String, Instant>,
}

#[derive(Debug)]
struct Workshop {
    flights: Arc<dyn FlightStore>,
    routes: Routes,
    tally: Tally,
    rolls: Mutex<Rolls>,
    table: Arc<Table>,
}

#[derive(Debug, Deserialize)]
struct Order {
    alliance: String,
}

impl Workshop {
    fn rolls(&self) -> MutexGuard<'_, Rolls> {
        self.rolls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn rebuild(self: Arc<Self>, order: Order) -> Result<u64, Failure> {
        let alliance = order.alliance.as_str();
        self.tally.started();
        let (members, seen) = {
            let rolls = self.rolls();
            let members = rolls.members.get(alliance).cloned().unwrap_or_default();
            (members, rolls.changes.get(alliance).copied())
        };
        let (computed, again) = self.write_all(alliance, &members).await?;
        let mut rolls = self.rolls();
        if rolls.changes.get(alliance).copied() == seen {
            rolls.fresh_at.entry(alliance.to_owned()).or_insert_with(Instant::now);
            self.tally.wasted(again);
        } else {
            // Out of date before it was done: the rebuild that the later change asked for makes all of it again.
            self.tally.wasted(computed);
        }
        Ok(computed)
    }

    /// How many items were computed, and how many of them from the same inputs as before.
    async fn write_all(&self, alliance: &str, members: &BTreeSet<String>) -> Result<(u64, u64), Failure> {
        let (mut computed, mut again) = (1, 0);
        let shared = self.routes.shared(members);
        self.table.clear(alliance);
        for (dest, serving) in &shared {
            let flights = self.flights.flights_to(dest, serving).await.map_err(Failure::retryable)?;
            let value = figures::destination(dest, serving, &flights);
            again += u64::from(self.tally.computed(alliance, dest, &value.fingerprint));
            self.table.put(alliance, dest, json(&value)?);
            computed += 1;
        }
        let fingerprint = figures::summary_fingerprint(members);
        again += u64::from(self.tally.computed(alliance, SUMMARY, &fingerprint));
        self.table.put(alliance, SUMMARY, json(&figures::summary(&shared))?);
        Ok((computed, again))
    }

    fn change(&self, change: &Change) {
        let mut rolls = self.rolls();
        let own = rolls.members.entry(change.alliance.to_owned()).or_default();
        if change.joins {
            own.insert(change.carrier.clone());
        } else {
            own.remove(&change.carrier);
        }
        *rolls.changes.entry(change.alliance.to_owned()).or_default() += 1;
        rolls.fresh_at.remove(change.alliance);
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::permanent("item_value", error))
}

/// Makes the same changes at the same moments, each with its rebuild job.
pub(super) async fn run(
    stage: &Stage,
    before: &Members,
    changes: &[Change],
    moments: &[Duration],
    bar: &Bar,
) -> Result<Figures, Failed> {
    let workshop = Arc::new(Workshop {
        flights: Arc::clone(&stage.flights),
        routes: stage.routes.clone(),
        tally: Tally::default(),
        rolls: Mutex::new(Rolls { members: before.clone(), ..Rolls::default() }),
        table: Arc::default(),
    });
    for (alliance, members) in before {
        workshop.write_all(alliance, members).await.map_err(|failure| Failed::Rebuild {
            alliance: alliance.clone(),
            message: failure.to_string(),
        })?;
    }
    workshop.tally.begin();
    let mut handlers = Handlers::new();
    let at_work = Arc::clone(&workshop);
    handlers.job(HANDLER, move |_: Context, order: Order| Arc::clone(&at_work).rebuild(order))?;
    let engine = stage.engine(handlers).await?;
    let readers = Readers::start(&Source::Table(Arc::clone(&workshop.table)), stage.seed);
    let (jobs, last) = submit_all(&engine, &workshop, changes, moments, bar).await?;
    for (count, job) in jobs.iter().enumerate() {
        bar.say(&format!("{} rebuilds left", jobs.len() - count));
        let record = engine.wait_for_job(*job).await?;
        if record.state != JobState::Completed {
            let message = record.error.map_or_else(|| record.state.to_string(), |error| error.message);
            return Err(Failed::Rebuild { alliance: "one".to_owned(), message });
        }
    }
    let mut figures = Figures { idle_after_ms: milliseconds(last.elapsed()), ..Figures::default() };
    readers.finish(&mut figures).await?;
    workshop.tally.fill(&mut figures, false);
    let count = u64::try_from(jobs.len()).unwrap_or(u64::MAX);
    (figures.builds_requested, figures.builds_published) = (count, figures.builds_started);
    {
        let rolls = workshop.rolls();
        let fresh =
            rolls.fresh_at.values().max().map_or(Duration::ZERO, |at| at.saturating_duration_since(last));
        figures.fresh_after_ms = milliseconds(fresh);
        for alliance in ALLIANCES {
            let members = rolls.members.get(alliance).cloned().unwrap_or_default();
            let found =
                workshop.table.all(alliance).into_iter().map(|(item, value)| {
                    (item, serde_json::from_str(&value).unwrap_or(serde_json::Value::Null))
                });
            if !check::differences(&check::expected(&stage.legs, &members), &found.collect()).is_empty() {
                figures.alliances_wrong.push(alliance.to_owned());
            }
        }
    }
    engine.shut_down().await;
    Ok(figures)
}

async fn submit_all(
    engine: &Engine,
    workshop: &Workshop,
    changes: &[Change],
    moments: &[Duration],
    bar: &Bar,
) -> Result<(Vec<JobId>, Instant), Failed> {
    let began = Instant::now();
    let mut jobs = Vec::with_capacity(changes.len());
    for (change, moment) in changes.iter().zip(moments) {
        tokio::time::sleep_until(began + *moment).await;
        workshop.change(change);
        let input = serde_json::json!({ "alliance": change.alliance }).to_string();
        let job = NewJob {
            namespace: NAMESPACE.to_owned(),
            queue: QUEUE.to_owned(),
            ..NewJob::new(HANDLER, input)
        };
        jobs.push(engine.submit(job).await?);
        bar.step();
    }
    Ok((jobs, Instant::now()))
}

/// A run that was killed may have left rebuild jobs; nobody waits for them any more.
pub(super) async fn cancel_left(stage: &Stage) -> Result<(), Failed> {
    for state in [JobState::Queued, JobState::Running] {
        let mut before = None;
        loop {
            let filter = JobFilter {
                namespace: Some(NAMESPACE.to_owned()),
                state: Some(state),
                before,
                rows_max: LEFT_ROWS,
                ..JobFilter::default()
            };
            let left = stage.store.jobs_list(filter).await?;
            for job in &left.jobs {
                stage.store.job_cancel(job.id, "its run of the demo was killed").await?;
            }
            before = left.next;
            if before.is_none() {
                break;
            }
        }
    }
    Ok(())
}
