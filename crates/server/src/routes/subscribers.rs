//! Subscribers: all who are told of events, webhooks and functions in programs. Webhooks have [routes](super::webhooks) of their own for what
//! only they can do.

use axum::Json;
use axum::extract::State;
use recache_api::{Subscriber, SubscriberChange, SubscriberList};
use recache_store::{SubscriberRecord, SubscriberState};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::routes;

use super::{Routes, reason_or};
use crate::access::{Action, Caller, Permission};
use crate::audited::{Deed, audited};
use crate::documents;
use crate::frame::RequestId;
use crate::input::{Params, Segments};
use crate::refusal::{Code, Refusal};
use crate::state::App;

const READ: Permission = Permission::new("subscribers", Action::Read);
const OPERATE: Permission = Permission::new("subscribers", Action::Operate);

/// Deliveries that one transaction removes.
const BATCH_ROWS: u32 = 500;

pub(super) fn routes() -> Routes {
    Routes::new().read(READ, routes!(list)).read(READ, routes!(show)).write_once(OPERATE, routes!(forget))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// Only those that are told of events of this namespace alone
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
}

/// Who is told of events, by name: webhooks, without their secrets, and functions in programs
#[utoipa::path(get, path = "/v1/subscribers", tag = "events", operation_id = "list_subscribers", params(ListParams),
    responses((status = 200, description = "All of them: there are at most 1,000", body = SubscriberList)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<ListParams>,
) -> Result<Json<SubscriberList>, Refusal> {
    let namespace = caller.list_namespace(asked.namespace)?;
    let mut records = app.store().events().subscribers_list().await?;
    records.retain(|record| namespace.is_none() || record.filter.namespace == namespace);
    Ok(Json(SubscriberList::new(records.into_iter().map(documents::subscriber).collect())))
}

/// One who is told of events
#[utoipa::path(get, path = "/v1/subscribers/{name}", tag = "events", operation_id = "get_subscriber",
    params(("name" = String, Path, description = "What it is called")),
    responses((status = 200, description = "It, without its secrets", body = Subscriber)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
) -> Result<Json<Subscriber>, Refusal> {
    Ok(Json(documents::subscriber(visible(&app, &caller, &name).await?)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ForgetParams {
    /// Why; kept in the audit
    #[param(min_length = 1, max_length = 1000)]
    reason: Option<String>,
}

/// Forget a program's subscriber with what waits for it
///
/// A program that still has it makes it known again at its next start. A webhook is removed at `/v1/webhooks/{name}`.
#[utoipa::path(delete, path = "/v1/subscribers/{name}", tag = "events", operation_id = "forget_subscriber",
    params(("name" = String, Path, description = "What it is called"), ForgetParams),
    responses((status = 200, description = "It is gone", body = SubscriberChange)))]
async fn forget(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    request: RequestId,
    Params(asked): Params<ForgetParams>,
) -> Result<Json<SubscriberChange>, Refusal> {
    let record = visible(&app, &caller, &name).await?;
    if record.url.is_some() {
        let refusal = Refusal::new(Code::Conflict, format!("`{name}` is a webhook"));
        return Err(refusal.remedy("remove it at `/v1/webhooks/{name}`"));
    }
    let reason = reason_or(asked.reason, "forgotten over HTTP");
    let before = documents::subscriber(record.clone());
    let deed = Deed {
        action: "subscribers.forget",
        namespace: record.filter.namespace.as_deref(),
        target: name.clone(),
        reason: &reason,
        request: &request,
    };
    audited(app.store(), &caller, deed, &before, async {
        while !app.store().events().subscriber_remove(&name, BATCH_ROWS).await? {}
        let gone = SubscriberState::Gone.to_string();
        Ok((Json(SubscriberChange::new(name.clone(), gone, true)), json!({ "deleted": true })))
    })
    .await
}

/// A subscriber that the caller may see.
async fn visible(app: &App, caller: &Caller, name: &str) -> Result<SubscriberRecord, Refusal> {
    let record = match app.store().events().subscriber_get(name).await {
        Ok(record) => record,
        Err(recache_store::Error::NotFound { .. }) => return Err(Refusal::not_found("subscriber", name)),
        Err(error) => return Err(error.into()),
    };
    caller.check_found_in(record.filter.namespace.as_deref(), "subscriber", name)?;
    Ok(record)
}
