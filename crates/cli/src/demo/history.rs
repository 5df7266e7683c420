//! The second demonstration: analytics over the demo's own job history, as a view that is derived from the alliances.
//!
//! Whenever an alliance is published with a change, the figures over its builds are made anew: how many came to which end, and how long they ran.
//! An engine of its own builds it, so that the figures of the morning are of the alliances alone. At the end every figure is
//! computed a second time, in another way, from another list.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use recache_engine::Engine;
use recache_model::ids::JobId;
use recache_model::job::JobState;
use recache_model::time::Timestamp;
use recache_model::view::{OnTouch, ViewPolicy};
use recache_store::{JobFilter, JobRecord, NewView, Store, Touch, ViewName};
use recache_worker::{BuildContext, Failure, Handlers};
use serde::Serialize;
use serde_json::{Value, json};

use super::Failed;
use super::check::differences;
use super::readers::NAMESPACE;
use super::schedule::ALLIANCES;
use super::stage::{HISTORY_QUEUE, QUEUE, Stage};

/// The view's key, and its handler's name.
const HISTORY: &str = "history";
/// The item that sums up all alliances.
const ALL: &str = "all";
/// Jobs of one page.
const ROWS: u32 = 500;
const FRESH_MAX: Duration = Duration::from_mins(1);

const POLICY: ViewPolicy = ViewPolicy {
    debounce_quiet_ms: 200,
    debounce_max_ms: 1_000,
    on_touch: OnTouch::Finish,
    max_staleness_ms: Some(5_000),
};

/// What the demo says about it.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// Builds of alliances that had ended, as the view's item `all` counts them.
    pub(super) builds: u64,
    /// Times that the view was published in this run.
    pub(super) published: i64,
    /// Its items, each computed a second time.
    pub(super) items: usize,
}

/// A view of the jobs that this run makes.
#[derive(Debug)]
pub(super) struct History {
    engine: Engine,
    /// Jobs of earlier runs do not count.
    since: Timestamp,
    live_before: i64,
}

impl History {
    /// Begins; the alliances' views must be defined.
    pub(super) async fn start(stage: &Stage) -> Result<Self, Failed> {
        let since = stage.store.now().await?;
        let mut handlers = Handlers::new();
        let store = Arc::clone(&stage.store);
        handlers.view(HISTORY, move |build| build_history(Arc::clone(&store), since, build))?;
        let engine = stage.engine_of(handlers, HISTORY_QUEUE, 1).await?;
        let view = NewView {
            queue: HISTORY_QUEUE.to_owned(),
            policy: POLICY,
            ..NewView::new(NAMESPACE, HISTORY, HISTORY)
        };
        let live_before = engine.define_view(view).await?.versions.live;
        let above = ALLIANCES.map(|alliance| ViewName::new(NAMESPACE, alliance)).to_vec();
        engine.derive_view(ViewName::new(NAMESPACE, HISTORY), above).await?;
        Ok(Self { engine, since, live_before })
    }

    /// Builds of the alliances have all ended: asks for the last version, and compares it.
    pub(super) async fn finish(self, store: &dyn Store) -> Result<(Figures, Vec<String>), Failed> {
        // What ended without a publication that changed anything touched nothing.
        let touch = Touch {
            namespace: NAMESPACE.to_owned(),
            key: HISTORY.to_owned(),
            at_once: true,
            ..Touch::default()
        };
        let version = self.engine.touch(touch).await?.version;
        let live = self.engine.wait_for_version(NAMESPACE, HISTORY, version, FRESH_MAX).await?;
        let names = items();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let read = self.engine.read_items(NAMESPACE, HISTORY, &names).await?;
        let mut found = BTreeMap::new();
        for (name, value) in names.iter().zip(read.values) {
            if let Some(value) = value {
                found.insert((*name).to_owned(), serde_json::from_str(&value).unwrap_or(Value::Null));
            }
        }
        let expected = counted(store, self.since).await?;
        let wrong = differences(&expected, &found).into_iter().map(|what| format!("{HISTORY}: {what}"));
        let figures = Figures {
            builds: found.get(ALL).and_then(|all| all["builds"].as_u64()).unwrap_or(0),
            published: live - self.live_before,
            items: expected.len(),
        };
        self.engine.shut_down().await;
        Ok((figures, wrong.collect()))
    }
}

fn items() -> Vec<String> {
    ALLIANCES.iter().copied().chain([ALL]).map(str::to_owned).collect()
}

/// The build handler: each alliance's build jobs, from its view's history.
async fn build_history(store: Arc<dyn Store>, since: Timestamp, build: BuildContext) -> Result<(), Failure> {
    let mut all = Vec::new();
    for alliance in ALLIANCES {
        build.checkpoint().await?;
        let view = store.view_get(NAMESPACE, alliance).await.map_err(Failure::retryable)?.id;
        let (mut runs, mut before) = (Vec::new(), None);
        loop {
            let page =
                store.view_control().view_builds(view, before, ROWS).await.map_err(Failure::retryable)?;
            runs.extend(page.iter().filter(|job| job.created_at >= since).filter_map(run_of));
            match page.last() {
                Some(last) if last.created_at >= since => before = Some(last.id),
                _ => break,
            }
        }
        build.put(alliance, None, &figures(&runs)).await?;
        all.extend(runs);
    }
    build.put(ALL, None, &figures(&all)).await
}

/// How a job ended, and how long it ran, in milliseconds; `None` while it has not ended.
fn run_of(job: &JobRecord) -> Option<(JobState, u64)> {
    let ended = job.finished_at.filter(|_| job.state.is_terminal())?;
    let ran = job.started_at.map_or(Duration::ZERO, |began| ended.since(began));
    Some((job.state, u64::try_from(ran.as_millis()).unwrap_or(u64::MAX)))
}

fn figures(runs: &[(JobState, u64)]) -> Value {
    let count = |state: JobState| runs.iter().filter(|(ended, _)| *ended == state).count();
    let mut times: Vec<u64> = runs.iter().map(|(_, ms)| *ms).collect();
    times.sort_unstable();
    json!({
        "builds": runs.len(),
        "published": count(JobState::Completed),
        "superseded": count(JobState::Superseded),
        "failed": count(JobState::Failed),
        "run_ms_p50": times.get(times.len().div_ceil(2).saturating_sub(1)),
        "run_ms_max": times.last(),
    })
}

/// How many came to each end, and how many ran so many milliseconds.
type Counted = (BTreeMap<&'static str, u64>, BTreeMap<u64, u64>);

/// The same by counting, from the list of all jobs: it knows neither views nor sorting.
async fn counted(store: &dyn Store, since: Timestamp) -> Result<BTreeMap<String, Value>, Failed> {
    let mut tables: BTreeMap<String, Counted> =
        items().into_iter().map(|item| (item, Default::default())).collect();
    let mut before: Option<JobId> = None;
    loop {
        let filter = JobFilter {
            queue: Some(QUEUE.to_owned()),
            handler: Some("alliance".to_owned()),
            before,
            rows_max: ROWS,
            ..JobFilter::default()
        };
        let page = store.jobs_list(filter).await?;
        for job in page.jobs.iter().filter(|job| job.created_at >= since) {
            let Some((state, ms)) = run_of(job) else { continue };
            let input: Value = serde_json::from_str(&job.input).unwrap_or(Value::Null);
            for item in [input["key"].as_str().unwrap_or_default(), ALL] {
                if let Some((states, times)) = tables.get_mut(item) {
                    *states.entry(state.as_str()).or_default() += 1;
                    *times.entry(ms).or_default() += 1;
                }
            }
        }
        let is_past = page.jobs.last().is_some_and(|last| last.created_at < since);
        match page.next {
            Some(next) if !is_past => before = Some(next),
            _ => break,
        }
    }
    let of = |(states, times): Counted| {
        let count = |state: JobState| states.get(state.as_str()).copied().unwrap_or(0);
        let builds: u64 = states.values().sum();
        let mut so_far = 0;
        let half = times.iter().find(|(_, count)| {
            so_far += **count;
            so_far * 2 >= builds
        });
        json!({
            "builds": builds,
            "published": count(JobState::Completed),
            "superseded": count(JobState::Superseded),
            "failed": count(JobState::Failed),
            "run_ms_p50": half.map(|(ms, _)| *ms),
            "run_ms_max": times.last_key_value().map(|(ms, _)| *ms),
        })
    };
    Ok(tables.into_iter().map(|(item, table)| (item, of(table))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_one_is_in_the_middle() {
        let runs = |times: &[u64]| times.iter().map(|ms| (JobState::Completed, *ms)).collect::<Vec<_>>();
        assert_eq!(figures(&[])["run_ms_p50"], Value::Null);
        assert_eq!(figures(&runs(&[7]))["run_ms_p50"], 7);
        assert_eq!(figures(&runs(&[9, 1, 5]))["run_ms_p50"], 5);
        assert_eq!(figures(&runs(&[9, 1, 5, 7]))["run_ms_p50"], 5);
    }
}
