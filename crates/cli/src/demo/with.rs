//! The morning with Recache: each alliance is a view, each change a touch in the same transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use recache_engine::Engine;
use recache_model::retry::RetryPolicy;
use recache_model::view::{OnTouch, ViewPolicy};
use recache_store::{FlightStore, NewView};
use recache_worker::{BuildContext, Failure, Handlers};
use serde_json::Value;
use tokio::time::Instant;

use super::figures::{self, Routes, SUMMARY};
use super::history::{self, History};
use super::readers::{NAMESPACE, Readers, Source};
use super::schedule::{ALLIANCES, Change, Members, Moment};
use super::show::Bar;
use super::stage::{QUEUE, Stage};
use super::tally::{Figures, Progress, Tally, milliseconds};
use super::{Failed, check};

/// No change waits longer than this for a build to get near its end.
const BEFORE_FINISH_MAX: Duration = Duration::from_millis(150);
/// A view that has not become fresh after this long never will.
const FRESH_MAX: Duration = Duration::from_mins(2);
/// A change whose outcome is unknown, or that found the database busy, is made again this often.
const CHANGE_TRIES_MAX: u32 = 20;

/// Build when no change came for 20 ms, at the latest 200 ms after the first; stop a build that a change overtakes,
/// unless readers' data is more than 2 s old.
const POLICY: ViewPolicy = ViewPolicy {
    debounce_quiet_ms: 20,
    debounce_max_ms: 200,
    on_touch: OnTouch::Abort,
    max_staleness_ms: Some(2_000),
};

/// What the build handler works with.
#[derive(Debug)]
struct Workshop {
    flights: Arc<dyn FlightStore>,
    routes: Routes,
    tally: Tally,
    progress: Progress,
}

impl Workshop {
    /// The build handler. Everything that makes a view right is in these lines: read the inputs, name each item with the
    /// fingerprint of its inputs, compute what is asked for.
    async fn build(self: Arc<Self>, build: BuildContext) -> Result<(), Failure> {
        let alliance = build.key();
        self.tally.published(alliance, build.live_version());
        self.tally.started();
        let members = self.flights.alliance_members(alliance).await.map_err(Failure::retryable)?;
        let members: BTreeSet<String> = members.into_iter().collect();
        let shared = self.routes.shared(&members);
        let mut items: Vec<(String, String)> = figures::summary(&shared).into_iter().collect();
        items.push((SUMMARY.to_owned(), figures::summary_fingerprint(&members)));
        self.progress.begin(alliance, items.len());
        let marked: BTreeMap<&str, &str> =
            items.iter().map(|(item, fingerprint)| (item.as_str(), fingerprint.as_str())).collect();
        let (workshop, shared, marked) = (&self, &shared, &marked);
        let compute = |item: String| async move {
            let value = workshop.compute(&item, shared).await?;
            let fingerprint = marked.get(item.as_str()).copied().unwrap_or_default();
            workshop.tally.computed(alliance, &item, fingerprint);
            Ok::<Value, Failure>(value)
        };
        // Taken one by one, so taking an item says that those before it are done.
        let watched = items.iter().cloned().inspect(|_| self.progress.advance(alliance));
        build.for_each(watched, 1, compute).await?;
        self.tally.complete(alliance, build.version(), items);
        Ok(())
    }

    async fn compute(&self, item: &str, shared: &BTreeMap<String, Vec<String>>) -> Result<Value, Failure> {
        let value = match shared.get(item) {
            None => serde_json::to_value(figures::summary(shared)),
            Some(serving) => {
                let flights = self.flights.flights_to(item, serving).await.map_err(Failure::retryable)?;
                serde_json::to_value(figures::destination(item, serving, &flights))
            }
        };
        value.map_err(|error| Failure::permanent("item_value", error))
    }
}

/// What the run with Recache leaves for the one without.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) figures: Figures,
    /// When each change was made, from the start.
    pub(super) moments: Vec<Duration>,
    /// Items that the self-check compared.
    pub(super) items_checked: usize,
    /// What it found wrong.
    pub(super) differences: Vec<String>,
    /// What the view over the job history came to.
    pub(super) history: history::Figures,
}

/// Defines the views, founds the alliances, makes the changes under the eyes of the readers, and checks the result.
pub(super) async fn run(
    stage: &Stage,
    founding: &[Change],
    changes: &[Change],
    members: &Members,
    bar: &Bar,
) -> Result<Outcome, Failed> {
    let workshop = Arc::new(Workshop {
        flights: Arc::clone(&stage.flights),
        routes: stage.routes.clone(),
        tally: Tally::default(),
        progress: Progress::new(),
    });
    let mut handlers = Handlers::new();
    let at_work = Arc::clone(&workshop);
    handlers.view("alliance", move |build| Arc::clone(&at_work).build(build))?;
    let engine = stage.engine(handlers).await?;
    for alliance in ALLIANCES {
        let view = NewView {
            namespace: NAMESPACE.to_owned(),
            key: alliance.to_owned(),
            handler: "alliance".to_owned(),
            queue: QUEUE.to_owned(),
            policy: POLICY,
            retry: RetryPolicy::default(),
            timeout: None,
            rules: recache_model::item_rules::ItemRules::default(),
            options: recache_model::view_options::ViewOptions::default(),
        };
        engine.define_view(view).await?;
    }
    let history = History::start(stage).await?;
    for change in founding {
        make(stage, change).await?;
    }
    until_fresh(&engine).await?;
    for alliance in ALLIANCES {
        workshop.tally.published(alliance, live(&engine, alliance).await?);
    }
    workshop.tally.begin();
    let before = engine.stats();
    let readers = Readers::start(&Source::Views(engine.clone()), stage.seed);
    let began = Instant::now();
    let mut moments = Vec::with_capacity(changes.len());
    for change in changes {
        match change.moment {
            Moment::AtOnce => {}
            Moment::After(pause) => tokio::time::sleep(pause).await,
            Moment::BeforeFinish => workshop.progress.nearly_done(change.alliance, BEFORE_FINISH_MAX).await,
        }
        moments.push(began.elapsed());
        make(stage, change).await?;
        bar.step();
    }
    let last = Instant::now();
    until_fresh(&engine).await?;
    let fresh_after_ms = milliseconds(last.elapsed());
    let mut figures = Figures { fresh_after_ms, idle_after_ms: fresh_after_ms, ..Figures::default() };
    readers.finish(&mut figures).await?;
    for alliance in ALLIANCES {
        workshop.tally.published(alliance, live(&engine, alliance).await?);
    }
    workshop.tally.fill(&mut figures, true);
    let after = engine.stats();
    figures.builds_requested = u64::try_from(changes.len()).unwrap_or(u64::MAX);
    figures.builds_published = after.published - before.published;
    figures.builds_superseded = after.superseded - before.superseded;
    figures.items_reused = after.items_reused - before.items_reused;
    let (items_checked, mut differences) = self_check(stage, &engine, members, &mut figures).await?;
    let (history, wrong) = history.finish(&*stage.store).await?;
    differences.extend(wrong);
    engine.shut_down().await;
    Ok(Outcome { figures, moments, items_checked: items_checked + history.items, differences, history })
}

/// Makes a change. That it had been made already is no error where its first try may have got through.
async fn make(stage: &Stage, change: &Change) -> Result<(), Failed> {
    let mut is_repeated = false;
    for _ in 0..CHANGE_TRIES_MAX {
        let made =
            stage.flights.alliance_change(change.alliance, &change.carrier, change.joins, change.number);
        match made.await {
            Ok(Some(_)) => return Ok(()),
            Ok(None) if is_repeated => return Ok(()),
            Ok(None) => return Err(Failed::NotAlone { number: change.number }),
            Err(error) if error.is_retryable() => {
                is_repeated = true;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failed::ChangeRefused { number: change.number })
}

async fn live(engine: &Engine, alliance: &str) -> Result<i64, Failed> {
    Ok(engine.store().view_get(NAMESPACE, alliance).await?.versions.live)
}

/// Until every view shows what is wanted of it now.
async fn until_fresh(engine: &Engine) -> Result<(), Failed> {
    for alliance in ALLIANCES {
        let wanted = engine.store().view_get(NAMESPACE, alliance).await?.versions.wanted;
        engine.wait_for_version(NAMESPACE, alliance, wanted, FRESH_MAX).await?;
    }
    Ok(())
}

async fn self_check(
    stage: &Stage,
    engine: &Engine,
    members: &Members,
    figures: &mut Figures,
) -> Result<(usize, Vec<String>), Failed> {
    let (mut count, mut differences) = (0, Vec::new());
    for (alliance, members) in members {
        let mut found = BTreeMap::new();
        for (item, value) in engine.store().view_read(NAMESPACE, alliance, None).await?.items {
            found.insert(item, serde_json::from_str(&value).unwrap_or(Value::Null));
        }
        let expected = check::expected(&stage.legs, members);
        count += expected.len();
        let wrong = check::differences(&expected, &found);
        if !wrong.is_empty() {
            figures.alliances_wrong.push(alliance.clone());
        }
        differences.extend(wrong.into_iter().map(|what| format!("{alliance}: {what}")));
    }
    Ok((count, differences))
}
