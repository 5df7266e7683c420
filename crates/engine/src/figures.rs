//! Figures over what has ended: rolled up by the minute in the wake of the work, read through the cache.
//!
//! Nothing is added to settling: whoever leads folds the minutes that are over from the rows that settling wrote anyway. What
//! is not folded yet is counted when it is asked for, so that an answer is right up to now whether anybody folds or not.

use std::sync::Arc;
use std::time::Duration;

use recache_cache::{Key, Usage};
use recache_model::figures::{
    Bottlenecks, BottlenecksRequest, By, Filter, HOURS_MAX, MINUTE_US, Minute, MinuteTotals, Performance,
    PerformanceRequest, RequestProblem, bottlenecks, performance,
};
use recache_model::time::Timestamp;
use recache_store::{Error as StoreError, FoldLimits, Leadership, MinutesAsked, Store};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::adaptive;
use crate::engine::{Engine, Shared};
use crate::error::{Error, Result};
use crate::stats::one;

const ROLE: &str = "figures";
/// Between two looks for minutes that are over.
const PAUSE: Duration = Duration::from_secs(15);
/// The lead outlives so many pauses.
const LEASE_PAUSES: u32 = 4;
/// A minute is folded when it has been over for this long.
const SETTLED: Duration = Duration::from_secs(10);
/// Minutes that are folded again with the next one, for what was committed late.
const AGAIN: u32 = 3;
/// Minutes that one transaction folds.
const MINUTES_MAX: u32 = 60;
/// Rows that one transaction removes.
const ROWS_MAX: u32 = 1_000;
/// How long roll-ups are kept beyond the longest window.
const KEEP_BEYOND: Duration = Duration::from_secs(24 * 3_600);

/// Folds minutes for as long as the engine runs, when this process leads it.
pub(crate) async fn run(shared: Arc<Shared>) {
    fold_every(shared, PAUSE).await;
}

async fn fold_every(shared: Arc<Shared>, pause: Duration) {
    let holder = Uuid::new_v4();
    let mut lead: Option<Leadership> = None;
    loop {
        tokio::select! {
            () = shared.draining.cancelled() => break,
            () = tokio::time::sleep(pause.mul_f64(0.75 + rand::random::<f64>() * 0.5)) => {}
        }
        let store = &*shared.store;
        match store.maintenance().leader_take(ROLE, holder, PAUSE * LEASE_PAUSES).await {
            Ok(taken) => lead = taken,
            Err(error) => {
                one(&shared.counters.store_errors);
                tracing::warn!(%error, "figures wait: the store cannot be reached");
                continue;
            }
        }
        let Some(taken) = &lead else { continue };
        match pass(store, taken).await {
            Ok(()) => {}
            Err(StoreError::Conflict(why)) => {
                tracing::info!(why, "figures are folded elsewhere");
                lead = None;
            }
            Err(error) => {
                one(&shared.counters.store_errors);
                tracing::warn!(%error, "figures not folded");
            }
        }
    }
    if let Some(lead) = lead
        && let Err(error) = shared.store.maintenance().leader_release(&lead).await
    {
        tracing::debug!(%error, "the lead of figures was not given up; it ends by itself");
    }
}

/// Folds all minutes that are over, and removes what no window reaches any more.
pub(crate) async fn pass(store: &dyn Store, lead: &Leadership) -> std::result::Result<(), StoreError> {
    let figures = store.figures();
    let limits = FoldLimits { minutes: MINUTES_MAX, ..FoldLimits::default() };
    loop {
        let last = minute(store.now().await?.minus(SETTLED)) - 1;
        let before = figures.folded().await?;
        let after = figures.fold(lead, last, AGAIN, limits).await?;
        if after == before || after >= Some(last) {
            break;
        }
    }
    let keep = Duration::from_secs(u64::from(HOURS_MAX) * 3_600) + KEEP_BEYOND;
    let first = minute(store.now().await?.minus(keep));
    while figures.minutes_remove(lead, first, ROWS_MAX).await? >= u64::from(ROWS_MAX) {}
    Ok(())
}

fn minute(at: Timestamp) -> Minute {
    at.micros().div_euclid(MINUTE_US)
}

/// Minutes of a window, and what has not ended.
struct Window {
    start: Timestamp,
    end: Timestamp,
    minutes: Vec<MinuteTotals>,
}

/// How far a report tells minutes apart.
#[derive(Clone, Copy)]
enum Apart {
    /// By part of the window, for performance.
    Parts,
    /// By series, for what names them.
    Series,
}

async fn window(store: &dyn Store, hours: u32, exact: bool, filter: &Filter, apart: Apart) -> Result<Window> {
    let end = store.now().await?;
    // Minutes are counted as a whole: the window begins with the one that holds the instant so many hours ago, up to a minute
    // before it. To leave that minute out would lose what ended in it, however long the window is.
    let first = minute(end.minus(Duration::from_secs(u64::from(hours) * 3_600)));
    let start = Timestamp::from_micros(first.saturating_mul(MINUTE_US));
    let by = match apart {
        Apart::Parts => By::Parts { start, end },
        Apart::Series => By::Series,
    };
    let asked =
        MinutesAsked { exact, filter: filter.clone(), ..MinutesAsked::new(first, minute(end) + 1, by) };
    let minutes = store.figures().minutes(&asked).await?;
    Ok(Window { start, end, minutes })
}

/// What ended in the last hours, by series.
pub(crate) async fn window_series(store: &dyn Store, hours: u32) -> Result<Vec<MinuteTotals>> {
    Ok(window(store, hours, false, &Filter::default(), Apart::Series).await?.minutes)
}

fn refuse(problems: &[RequestProblem]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Err(Error::Invalid(told.join("; ")))
}

/// How work went. With `exact` nothing that was rolled up is believed: all is counted from the rows themselves.
pub async fn performance_of(
    store: &dyn Store,
    request: &PerformanceRequest,
    exact: bool,
) -> Result<Performance> {
    refuse(&request.problems())?;
    let Window { start, end, minutes } =
        window(store, request.hours, exact, &request.filter, Apart::Parts).await?;
    let active = store.figures().active(&request.filter, start).await?;
    Ok(performance(request, start, end, &minutes, active))
}

/// What is slow and what fails, with the window's end.
pub async fn bottlenecks_of(
    store: &dyn Store,
    request: &BottlenecksRequest,
    exact: bool,
) -> Result<FoundBottlenecks> {
    refuse(&request.problems())?;
    let Window { start, end, minutes } =
        window(store, request.hours, exact, &request.filter, Apart::Series).await?;
    Ok(FoundBottlenecks { start, end, bottlenecks: bottlenecks(request, &minutes) })
}

/// What is slow and what fails in a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundBottlenecks {
    /// Where the window begins.
    pub start: Timestamp,
    /// Where it ends.
    pub end: Timestamp,
    /// What was found.
    pub bottlenecks: Bottlenecks,
}

impl Engine {
    /// How work went, as of at most [`Lifetimes::analytics`](recache_cache::Lifetimes::analytics) ago, whatever the cache's provider.
    pub async fn performance(&self, request: &PerformanceRequest) -> Result<Arc<Performance>> {
        refuse(&request.problems())?;
        let keys = self.shared.cache.keys();
        let key = if request.filter.is_all() {
            keys.analytics_performance(request.hours)
        } else {
            let hours = request.hours.to_string();
            keys.space("analytics").key(["performance", &hours].into_iter().chain(parts(&request.filter)))
        };
        self.cached_figures("analytics.performance", &key, || {
            performance_of(&*self.shared.store, request, false)
        })
        .await
    }

    /// What is slow and what fails, cached likewise.
    pub async fn bottlenecks(&self, request: &BottlenecksRequest) -> Result<Arc<FoundBottlenecks>> {
        refuse(&request.problems())?;
        let keys = self.shared.cache.keys();
        let plain = BottlenecksRequest {
            limit: request.limit,
            min_executions: request.min_executions,
            ..BottlenecksRequest::default()
        };
        let key = if *request == plain {
            keys.analytics_bottlenecks(request.limit, request.min_executions)
        } else {
            let numbers =
                [request.limit.to_string(), request.min_executions.to_string(), request.hours.to_string()];
            let numbers = numbers.iter().map(String::as_str);
            keys.space("analytics")
                .key(["bottlenecks"].into_iter().chain(numbers).chain(parts(&request.filter)))
        };
        self.cached_figures("analytics.bottlenecks", &key, || {
            bottlenecks_of(&*self.shared.store, request, false)
        })
        .await
    }

    async fn cached_figures<T, F>(&self, class: &str, key: &Key, load: impl FnOnce() -> F) -> Result<Arc<T>>
    where
        T: Serialize + serde::de::DeserializeOwned + Send + Sync + 'static,
        F: Future<Output = Result<T>>,
    {
        let loader = || {
            let loading = load();
            async move { loading.await.map(Some) }
        };
        adaptive::through(&self.shared, &Usage::Analytics, class, key, loader).await
    }
}

/// The parts of a filter, each in its place.
fn parts(filter: &Filter) -> impl Iterator<Item = &str> {
    // No name is empty: an empty part is none.
    [&filter.namespace, &filter.template, &filter.handler, &filter.queue]
        .into_iter()
        .map(|part| part.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use recache_model::time::Clock as _;
    use recache_store::conformance::{Subject, sqlite_database};
    use recache_store::{ClaimRequest, NewJob, Outcome, Settlement};

    use super::*;

    /// One job that ends now.
    async fn end_one(subject: &Subject) {
        subject.store.jobs_submit(vec![NewJob::new("work", "{}")]).await.unwrap();
        let session = subject.session().await;
        let claim = ClaimRequest {
            session,
            queues: vec!["default".to_owned()],
            handlers: vec!["work".to_owned()],
            rows_max: 1,
        };
        let claimed = subject.store.jobs_dispatch(Vec::new(), Some(claim)).await.unwrap().claimed;
        let end = Settlement::of(&claimed[0], Outcome::Completed { output: "1".to_owned() });
        subject.store.jobs_dispatch(vec![end], None).await.unwrap();
        subject.store.session_close(session).await.unwrap();
    }

    async fn lead(subject: &Subject, holder: u128, lease: Duration) -> Option<Leadership> {
        let store = subject.store.maintenance();
        store.leader_take(ROLE, Uuid::from_u128(holder), lease).await.unwrap()
    }

    fn last_over(subject: &Subject) -> Minute {
        minute(subject.clock.now().minus(SETTLED)) - 1
    }

    /// Rows of minutes that no window reaches, more than one transaction removes, and those of the hours until now.
    async fn with_old_minutes() -> Subject {
        let subject = Subject::new(sqlite_database()).await;
        end_one(&subject).await;
        subject
            .tamper(
                "INSERT INTO figures_minutes (minute, series, totals) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL \
                 SELECT i + 1 FROM n WHERE i < 2500) SELECT i, '{\"kind\":\"job\",\"namespace\":\"old\",\"template\":\"\",\"step\":\"\",\
                 \"handler\":\"h\",\"queue\":\"q\"}', '{}' FROM n",
            )
            .await;
        // More minutes than one transaction folds.
        subject.advance(Duration::from_secs(u64::from(MINUTES_MAX) * 60 * 2));
        end_one(&subject).await;
        subject.advance(Duration::from_secs(90));
        subject
    }

    async fn rows(subject: &Subject) -> (usize, usize) {
        let asked = MinutesAsked::new(0, minute(subject.clock.now()) + 1, By::Minute);
        let all = subject.store.figures().minutes(&asked).await.unwrap();
        let old = all.iter().filter(|one| one.series.namespace == "old").count();
        (old, all.len() - old)
    }

    #[tokio::test]
    async fn a_pass_folds_all_minutes_that_are_over_and_removes_what_no_window_reaches() {
        let subject = with_old_minutes().await;
        let lead = lead(&subject, 1, Duration::from_secs(600)).await.unwrap();
        pass(&*subject.store, &lead).await.unwrap();
        assert_eq!(subject.store.figures().folded().await.unwrap(), Some(last_over(&subject)));
        assert_eq!(rows(&subject).await, (0, 2));
        let other = Leadership { token: lead.token + 1, ..lead };
        subject.advance(Duration::from_secs(120));
        let refused = pass(&*subject.store, &other).await;
        assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn folding_waits_for_the_lead_goes_on_without_it_and_gives_it_up_at_the_end() {
        let subject = with_old_minutes().await;
        let figures = subject.store.figures();
        let former = lead(&subject, 1, Duration::from_secs(3_600)).await;
        assert!(former.is_some());
        let engine = Engine::builder(Arc::clone(&subject.store)).start().await.unwrap();
        let folding = tokio::spawn(fold_every(Arc::clone(&engine.shared), Duration::from_millis(2)));
        assert_eq!(figures.folded().await.unwrap(), None, "another one leads");
        // Its lease ends, and it has not come back.
        subject.advance(Duration::from_secs(3_601));
        while figures.folded().await.unwrap() < Some(last_over(&subject)) || rows(&subject).await.0 > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(lead(&subject, 1, Duration::from_secs(3_600)).await, None, "the engine leads");
        engine.shut_down().await;
        folding.await.unwrap();
        assert!(lead(&subject, 1, Duration::from_secs(3_600)).await.is_some(), "it was given up");
    }
}
