//! The registry of handlers.
//!
//! Whoever may look at one namespace sees its handlers as they are for that namespace: its own templates, views, schedules and figures, and
//! the workers that may have its jobs.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use recache_api::{HandlerDetails, HandlerGraph, HandlerList};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::routes;

use super::drawn::HandlersForm;
use super::{Routes, drawn};
use crate::access::{Action, Caller, Permission};
use crate::documents;
use crate::input::{Accepted, Params, Segments};
use crate::refusal::Refusal;
use crate::state::App;

const READ: Permission = Permission::new("handlers", Action::Read);

pub(super) fn routes() -> Routes {
    Routes::new().read(READ, routes!(list)).read(READ, routes!(graph)).read(READ, routes!(show))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct NamespaceParams {
    /// Only as this namespace sees them
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
}

/// Handlers: versions, workers, who uses them, how they fare
///
/// Of templates the newest version counts; figures are of the last 24 hours. Workers and templates are told as they are, figures as of two
/// minutes ago at most.
#[utoipa::path(get, path = "/v1/handlers", tag = "handlers", operation_id = "list_handlers", params(NamespaceParams),
    responses((status = 200, description = "By namespace and name", body = HandlerList)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<NamespaceParams>,
) -> Result<Json<HandlerList>, Refusal> {
    let namespace = caller.list_namespace(asked.namespace)?;
    let found = app.engine().handlers().await?;
    Ok(Json(documents::handler_list(&found, namespace.as_deref())))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct GraphParams {
    /// Only as this namespace sees them
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
    /// As data or drawn; without it as `Accept` says
    #[param(inline)]
    format: Option<HandlersForm>,
}

/// How handlers hang together: whose steps follow whose
///
/// As data, or drawn: `format` or `Accept` says how.
#[utoipa::path(get, path = "/v1/handlers/graph", tag = "handlers", operation_id = "handler_graph", params(GraphParams),
    responses((status = 200, description = "Handlers and what follows what",
        content((HandlerGraph = "application/json"), (String = "text/plain"), (String = "text/vnd.mermaid")))))]
async fn graph(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<GraphParams>,
    accepted: Accepted,
) -> Result<Response, Refusal> {
    let namespace = caller.list_namespace(asked.namespace)?;
    let found = app.engine().handlers().await?;
    Ok(drawn::handlers(documents::handler_graph(&found, namespace.as_deref()), asked.format, &accepted))
}

/// A handler of a namespace, with its workers, its steps and its failures
#[utoipa::path(get, path = "/v1/handlers/{namespace}/{name}", tag = "handlers", operation_id = "show_handler",
    params(("namespace" = String, Path, description = "Its namespace; `*` for one that no namespace is known to use"),
        ("name" = String, Path, description = "As jobs name it")),
    responses((status = 200, description = "All that is known of it", body = HandlerDetails)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Segments((namespace, name)): Segments<(String, String)>,
) -> Result<Json<HandlerDetails>, Refusal> {
    let id = format!("{namespace}/{name}");
    caller.check_found(&namespace, "handler", &id)?;
    let found = app.engine().handlers().await?;
    documents::handler_details(&found, &namespace, &name)
        .map(Json)
        .ok_or_else(|| Refusal::not_found("handler", &id))
}
