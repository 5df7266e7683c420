//! Figures for Prometheus.

use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use recache_api::HealthStatus;
use recache_cache::Condition;
use recache_cache::provider::CallClass;
use tokio::time::timeout;
use utoipa_axum::routes;

use super::Routes;
use crate::access::{Action, Permission};
use crate::metrics::{Looked, Unmade};
use crate::refusal::Refusal;
use crate::state::App;

const READ: Permission = Permission::global("metrics", Action::Read);
/// What is asked of others for the figures takes no longer than this, each.
const PART_WITHIN: Duration = Duration::from_millis(500);

pub(super) fn routes() -> Routes {
    Routes::new().read(READ, routes!(metrics))
}

/// Counts and times since the start, for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "OpenMetrics text", body = String,
        content_type = "application/openmetrics-text")))]
async fn metrics(State(app): State<App>) -> Result<Response, Refusal> {
    let text = text(&app).await?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// All figures, as they are now.
pub(crate) async fn text(app: &App) -> Result<String, Refusal> {
    let (looked, (is_cache_degraded, open), oldest, unmade) =
        tokio::join!(app.readiness().look(app), cache(app), oldest_due(app), unmade(app));
    let looked = Looked {
        is_ready: looked.health.status == HealthStatus::Ready,
        is_cache_degraded,
        breakers_open: open,
        oldest_due: oldest,
        unmade,
    };
    app.metrics().text(app, &looked)
}

/// Whether the cache is degraded, and which breakers refuse. One that does not answer is degraded.
async fn cache(app: &App) -> (bool, Vec<CallClass>) {
    let Ok(health) = timeout(PART_WITHIN, app.engine().cache().health()).await else {
        return (true, Vec::new());
    };
    let open = health.breakers.iter().filter(|one| !matches!(one.state, "closed" | "disabled"));
    let is_degraded = !matches!(health.condition, Condition::Active | Condition::Disabled);
    (is_degraded, open.map(|one| one.class).collect())
}

/// For how long the oldest job has been due; zero when none is.
async fn oldest_due(app: &App) -> Option<Duration> {
    let queues = timeout(PART_WITHIN, app.store().queues().queues_list()).await.ok()?.ok()?;
    let now = timeout(PART_WITHIN, app.store().now()).await.ok()?.ok()?;
    let due =
        queues.into_iter().filter(|queue| queue.pause.is_none()).filter_map(|queue| queue.due_since).min();
    Some(due.map_or(Duration::ZERO, |due| now.since(due)))
}

/// How many events wait for their publishers, and for how long the oldest one.
async fn unmade(app: &App) -> Option<Unmade> {
    let waiting = timeout(PART_WITHIN, app.store().event_drafts().drafts_waiting()).await.ok()?.ok()?;
    let Some(oldest) = waiting.iter().map(|one| one.oldest_at).min() else { return Some(Unmade::default()) };
    let now = timeout(PART_WITHIN, app.store().now()).await.ok()?.ok()?;
    Some(Unmade { count: waiting.iter().map(|one| one.count).sum(), oldest: now.since(oldest) })
}
