//! Health: for whoever restarts processes, whoever sends traffic, and whoever looks.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use recache_api::{DatabaseHealth, Health, HealthDetails, HealthStatus, ServerCacheHealth, WorkHealth};
use recache_cache::Condition;
use utoipa_axum::routes;

use super::Routes;
use crate::access::{Action, Permission};
use crate::documents;
use crate::state::App;

const READ: Permission = Permission::global("health", Action::Read);
/// The parts of a detailed look take no longer than this, each.
const PART_WITHIN: Duration = Duration::from_millis(500);

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
    let (schema_version, clock, queues) = tokio::join!(
        tokio::time::timeout(PART_WITHIN, app.store().schema_version()),
        tokio::time::timeout(PART_WITHIN, app.store().now()),
        tokio::time::timeout(PART_WITHIN, app.store().queues().queues_list()),
    );
    let store_now = clock.ok().and_then(Result::ok);
    let now = app.clock().now();
    let oldest = queues.ok().and_then(Result::ok).and_then(|queues| {
        queues.into_iter().filter(|queue| queue.pause.is_none()).filter_map(|queue| queue.due_since).min()
    });
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let stats = app.engine().stats();
    Json(HealthDetails {
        schema: HealthDetails::SCHEMA.to_owned(),
        health: looked.health,
        database: DatabaseHealth {
            kind: app.store().kind().to_owned(),
            schema_version: schema_version.ok().and_then(Result::ok),
            commit_ms: looked.commit.map(documents::ms),
            clock_ahead_ms: store_now.map(|store_now| (store_now.micros() - now.micros()) / 1_000),
        },
        cache: cache(&app).await,
        work: WorkHealth {
            held: count(app.engine().held_count()),
            started: stats.started,
            completed: stats.completed,
            failed: stats.failed,
            swept: stats.swept,
            store_errors: stats.store_errors,
            oldest_due_ms: oldest.zip(store_now).map(|(due, now)| documents::ms(now.since(due))),
            requests_working: count(app.admission().working_count(app.settings())),
            requests_waiting: count(app.admission().waiting_count(app.settings())),
        },
    })
}

async fn cache(app: &App) -> ServerCacheHealth {
    let cache = app.engine().cache();
    let stats = cache.stats();
    let health = tokio::time::timeout(PART_WITHIN, cache.health()).await.ok();
    let condition = match health.as_ref().map(|health| health.condition) {
        Some(Condition::Active) => "active",
        Some(Condition::Disabled) => "disabled",
        Some(_) | None => "degraded",
    };
    let (provider, reasons, breakers) = match health {
        Some(health) => {
            let open = health.breakers.iter().filter(|breaker| breaker.state != "closed");
            let breakers =
                open.map(|one| format!("{} of {:?}s is {}", one.backend, one.class, one.state)).collect();
            (health.provider.to_owned(), health.reasons, breakers)
        }
        None => ("unknown".to_owned(), vec!["it did not answer in time".to_owned()], Vec::new()),
    };
    let condition = condition.to_owned();
    ServerCacheHealth { provider, condition, reasons, breakers, hits: stats.hits, misses: stats.misses }
}
