//! Figures for Prometheus.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa_axum::routes;

use super::Routes;
use crate::access::{Action, Permission};
use crate::refusal::Refusal;
use crate::state::App;

const READ: Permission = Permission::global("metrics", Action::Read);

pub(super) fn routes() -> Routes {
    Routes::new().read(READ, routes!(metrics))
}

/// Counts and times since the start, for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "OpenMetrics text", body = String,
        content_type = "application/openmetrics-text")))]
async fn metrics(State(app): State<App>) -> Result<Response, Refusal> {
    let text = app.metrics().text(&app)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
