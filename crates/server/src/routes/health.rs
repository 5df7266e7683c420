//! Health: for whoever restarts processes, whoever sends traffic, and whoever looks.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use recache_api::{
    DatabaseHealth, Health, HealthDetails, HealthStatus, LeaderHealth, LimitHealth, PoolAdvice, PoolHealth,
    ServerCacheHealth, SweepHealth, WorkHealth, WorkersHealth, WriterHealth,
};
use recache_cache::{Condition, Key, Policy, Usage};
use recache_engine::ClaimLimit;
use recache_model::time::Timestamp;
use recache_store::{PoolFigures, WriterFigures};
use serde::{Deserialize, Serialize};
use utoipa_axum::routes;

use super::Routes;
use crate::access::{Action, Permission};
use crate::documents;
use crate::health::{Around, PART_WITHIN};
use crate::state::App;

const READ: Permission = Permission::global("health", Action::Read);
/// What is told in detail of the store is no older. The usage would allow a minute; whoever looks at health is in a hurry.
const DETAIL_FRESH: Duration = Duration::from_secs(5);

pub(super) fn routes() -> Routes {
    Routes::new().open(routes!(live)).open(routes!(ready)).open(routes!(health)).read(READ, routes!(detailed))
}

/// The process answers; the store is not asked
#[utoipa::path(get, path = "/health/live", tag = "health",
    responses((status = 200, description = "It lives", body = String)))]
async fn live() -> &'static str {
    "live"
}

/// Whether a write would be accepted and committed; still ready when only the cache is gone
#[utoipa::path(get, path = "/health/ready", tag = "health", responses(
    (status = 200, description = "Ready", body = Health),
    (status = 503, description = "Not ready, with the reasons", body = Health)))]
async fn ready(State(app): State<App>) -> (StatusCode, Json<Health>) {
    answer(app.readiness().look(&app).await.health)
}

/// The same verdict, for people
#[utoipa::path(get, path = "/health", tag = "health", responses(
    (status = 200, description = "Ready", body = Health),
    (status = 503, description = "Not ready, with the reasons", body = Health)))]
async fn health(State(app): State<App>) -> (StatusCode, Json<Health>) {
    answer(app.readiness().look(&app).await.health)
}

fn answer(health: Health) -> (StatusCode, Json<Health>) {
    let status = match health.status {
        HealthStatus::Ready => StatusCode::OK,
        HealthStatus::NotReady => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health))
}

/// Database, cache and work, looked at closely, within a budget
#[utoipa::path(get, path = "/health/detailed", tag = "health",
    responses((status = 200, description = "What was found, whatever the verdict", body = HealthDetails)))]
async fn detailed(State(app): State<App>) -> Json<HealthDetails> {
    let looked = app.readiness().look(&app).await;
    let (store, around) =
        tokio::join!(look_closely(&app, looked.health.status), app.surroundings().look(&app));
    let store_now = around.store_now();
    let oldest = store.oldest_due_us.map(Timestamp::from_micros);
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let stats = app.engine().stats();
    let measured = app.store().measured();
    Json(HealthDetails {
        schema: HealthDetails::SCHEMA.to_owned(),
        health: looked.health,
        database: DatabaseHealth {
            kind: app.store().kind().to_owned(),
            schema_version: store.schema_version,
            commit_ms: looked.commit.map(documents::ms),
            pool: measured.pool.map(pool),
            writer: measured.writer.map(writer),
            clock_ahead_ms: around.clock_ahead_ms(),
        },
        cache: cache(&app, around.cache.as_ref()),
        work: WorkHealth {
            held: count(app.engine().held_count()),
            limit: limit(app.engine().claim_limit()),
            started: stats.started,
            completed: stats.completed,
            failed: stats.failed,
            swept: stats.swept,
            store_errors: stats.store_errors,
            events_unmade: store.events_unmade,
            oldest_due_ms: oldest.zip(store_now).map(|(due, now)| documents::ms(now.since(due))),
            requests_working: count(app.admission().working_count(app.settings())),
            requests_waiting: count(app.admission().waiting_count(app.settings())),
        },
        workers: workers(&around),
        leader: around.leader.as_ref().map(|leader| LeaderHealth {
            node: leader.node.clone(),
            since: leader.since.map(documents::instant),
            expires_at: documents::instant(leader.expires_at),
        }),
        sweep: SweepHealth {
            last_at: app.engine().last_sweep().map(documents::instant),
            overdue: around.sessions.as_ref().map(|seen| seen.overdue),
        },
    })
}

fn workers(around: &Around) -> Option<WorkersHealth> {
    let (seen, now) = (around.sessions.as_ref()?, around.store_now()?);
    let silent = |heard: Option<Timestamp>| heard.map(|heard| documents::ms(now.since(heard)));
    Some(WorkersHealth {
        nodes: seen.nodes,
        nodes_silent_ms: silent(seen.nodes_heard),
        remote: seen.remote,
        remote_silent_ms: silent(seen.remote_heard),
    })
}

fn pool(figures: PoolFigures) -> PoolHealth {
    let state = figures.state;
    let advice = recache_model::pool::advice(&figures.used);
    PoolHealth {
        max: state.max,
        size: state.size,
        busy: state.busy,
        waiting: state.waiting,
        utilisation: state.utilisation(),
        band: state.band().as_str().to_owned(),
        taken: figures.used.taken,
        waited: figures.used.waited,
        waited_ms: documents::ms(figures.waited),
        opened: figures.opened,
        age_max_ms: documents::ms(figures.age_max),
        advice: advice.map(|advice| PoolAdvice { connections: advice.connections, why: advice.why }),
    }
}

fn writer(figures: WriterFigures) -> WriterHealth {
    let WriterFigures { state, used } = figures;
    WriterHealth {
        utilisation: state.utilisation,
        waiting: state.waiting,
        group_max: state.group_max,
        band: state.band().as_str().to_owned(),
        calls: used.calls,
        transactions: used.groups,
        waited_ms: documents::ms(used.waited),
        busy_ms: documents::ms(used.busy),
        advice: recache_model::pool::writer_advice(&used),
    }
}

fn limit(limit: ClaimLimit) -> LimitHealth {
    LimitHealth {
        limit: limit.limit,
        slots: limit.slots,
        is_adaptive: limit.is_adaptive,
        reason: limit.reason.as_str().to_owned(),
    }
}

/// What all queues have to be looked at for, and what hardly ever changes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct StoreLook {
    schema_version: Option<i64>,
    /// Since when the job has been due that waits longest in a queue that is not paused. An instant, so that it does not age.
    oldest_due_us: Option<i64>,
    /// Events that wait for their publishers.
    events_unmade: Option<u64>,
}

/// A look that did not see everything in time: it is shown, and not kept.
#[derive(Debug, thiserror::Error)]
#[error("the store was not seen in full")]
struct Incomplete(StoreLook);

/// A close look at the store, through the cache: as of [`DETAIL_FRESH`] ago at most, not from before the verdict changed, nor from before
/// a queue was paused or resumed through a server.
async fn look_closely(app: &App, status: HealthStatus) -> StoreLook {
    let cache = app.engine().cache().for_usage(&Usage::HealthDetail);
    let load = || async {
        let (version, queues, unmade) = tokio::join!(
            tokio::time::timeout(PART_WITHIN, app.store().schema_version()),
            tokio::time::timeout(PART_WITHIN, app.store().queues().queues_list()),
            tokio::time::timeout(PART_WITHIN, app.store().event_drafts().drafts_waiting()),
        );
        let version = version.ok().and_then(Result::ok);
        let queues = queues.ok().and_then(Result::ok);
        let unmade = unmade.ok().and_then(Result::ok);
        let is_complete = version.is_some() && queues.is_some() && unmade.is_some();
        let oldest = queues.into_iter().flatten().filter(|queue| queue.pause.is_none());
        let look = StoreLook {
            schema_version: version,
            oldest_due_us: oldest.filter_map(|queue| queue.due_since).min().map(Timestamp::micros),
            events_unmade: unmade.map(|waiting| waiting.iter().map(|one| one.count).sum()),
        };
        if is_complete { Ok(Some(look)) } else { Err(Incomplete(look)) }
    };
    match cache.get_or_load(&detail_key(app, status), &Policy::new(DETAIL_FRESH), load).await {
        Ok(look) => look.map(Arc::unwrap_or_clone).unwrap_or_default(),
        Err(error) => error.loader_error().map(|Incomplete(look)| look.clone()).unwrap_or_default(),
    }
}

/// Each verdict has a key of its own: when it changes, what was seen before is not shown.
fn detail_key(app: &App, status: HealthStatus) -> Key {
    let status = match status {
        HealthStatus::Ready => "ready",
        HealthStatus::NotReady => "not_ready",
    };
    app.engine().cache().keys().space("health").key(["detail", status])
}

/// A queue was paused or resumed: what waits in it counts no more, or again.
pub(super) async fn detail_changed(app: &App) {
    for status in [HealthStatus::Ready, HealthStatus::NotReady] {
        app.engine().cache().invalidate(&detail_key(app, status)).await;
    }
}

fn cache(app: &App, health: Option<&recache_cache::Health>) -> ServerCacheHealth {
    let cache = app.engine().cache();
    let stats = cache.stats();
    let (tiers, capabilities) =
        (documents::cache_tiers(cache, health), documents::cache_capabilities(&cache.capabilities()));
    let condition = match health.map(|health| health.condition) {
        Some(Condition::Active) => "active",
        Some(Condition::Disabled) => "disabled",
        Some(_) | None => "degraded",
    };
    let (provider, reasons, breakers) = match health {
        Some(health) => {
            let open = health.breakers.iter().filter(|breaker| breaker.state != "closed");
            let breakers =
                open.map(|one| format!("{} of {:?}s is {}", one.backend, one.class, one.state)).collect();
            (health.provider.to_owned(), health.reasons.clone(), breakers)
        }
        None => ("unknown".to_owned(), vec!["it did not answer in time".to_owned()], Vec::new()),
    };
    let condition = condition.to_owned();
    let (hits, misses) = (stats.hits, stats.misses);
    ServerCacheHealth { provider, condition, reasons, breakers, hits, misses, tiers, capabilities }
}
