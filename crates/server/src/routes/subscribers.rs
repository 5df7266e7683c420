//! Subscribers: all who are told of events, webhooks and functions in programs. Webhooks have [routes](super::webhooks) of their own for what
//! only they can do; what those have in common with these is here.

use axum::Json;
use axum::extract::State;
use recache_api::{DeliveryList, Subscriber, SubscriberChange, SubscriberList};
use recache_model::event::DeliveryState;
use recache_model::ids::EventId;
use recache_store::{DeliveryFilter, DeliveryPlace, SubscriberRecord, SubscriberState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::page::{Page, PageParams};
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
    Routes::new()
        .read(READ, routes!(list))
        .read(READ, routes!(show))
        .write_once(OPERATE, routes!(forget))
        .read(READ, routes!(deliveries))
}

/// Which of a namespace are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct OfNamespace {
    /// Only those that are told of events of this namespace alone
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
}

/// Why one is removed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveParams {
    /// Why; kept in the audit
    #[param(min_length = 1, max_length = 1000)]
    pub(super) reason: Option<String>,
}

/// Who is told of events, by name: webhooks, without their secrets, and functions in programs
#[utoipa::path(get, path = "/v1/subscribers", tag = "events", operation_id = "list_subscribers", params(OfNamespace),
    responses((status = 200, description = "All of them: there are at most 1,000", body = SubscriberList)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<OfNamespace>,
) -> Result<Json<SubscriberList>, Refusal> {
    listed(&app, &caller, asked, |_| true).await
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
    let record = visible(&app, &caller, "subscriber", &name, |_| true).await?;
    Ok(Json(documents::subscriber(record)))
}

/// Forget a program's subscriber with what waits for it
///
/// A program that still has it makes it known again at its next start. A webhook is removed at `/v1/webhooks/{name}`.
#[utoipa::path(delete, path = "/v1/subscribers/{name}", tag = "events", operation_id = "forget_subscriber",
    params(("name" = String, Path, description = "What it is called"), RemoveParams),
    responses((status = 200, description = "It is gone", body = SubscriberChange)))]
async fn forget(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    request: RequestId,
    Params(asked): Params<RemoveParams>,
) -> Result<Json<SubscriberChange>, Refusal> {
    let record = visible(&app, &caller, "subscriber", &name, |_| true).await?;
    if record.url.is_some() {
        let refusal = Refusal::new(Code::Conflict, format!("`{name}` is a webhook"));
        return Err(refusal.remedy("remove it at `/v1/webhooks/{name}`"));
    }
    let reason = reason_or(asked.reason, "forgotten over HTTP");
    remove(&app, &caller, &record, deed("subscribers.forget", &record, &reason, &request)).await
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StateWanted {
    Pending,
    Delivered,
    Dead,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct AllDeliveriesParams {
    /// Only to those that are told of events of this namespace alone
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
    /// Only in this state
    #[param(inline)]
    state: Option<StateWanted>,
    /// Only of this event, with each try
    event: Option<String>,
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// What became of telling anybody, newest first
///
/// Those to one webhook are at `/v1/webhooks/{name}/deliveries`.
#[utoipa::path(get, path = "/v1/deliveries", tag = "events", operation_id = "list_all_deliveries",
    params(AllDeliveriesParams),
    responses((status = 200, description = "A page", body = DeliveryList)))]
async fn deliveries(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<AllDeliveriesParams>,
) -> Result<Json<DeliveryList>, Refusal> {
    let AllDeliveriesParams { namespace, state, event, limit, cursor } = asked;
    let to = DeliveryFilter { namespace: caller.list_namespace(namespace)?, ..DeliveryFilter::default() };
    let which = DeliveriesParams { state, event, limit, cursor };
    delivered(&app, to, which).await
}

/// Those that the caller may see and that are of one kind, by name.
pub(super) async fn listed(
    app: &App,
    caller: &Caller,
    asked: OfNamespace,
    is_one: fn(&SubscriberRecord) -> bool,
) -> Result<Json<SubscriberList>, Refusal> {
    let namespace = caller.list_namespace(asked.namespace)?;
    let mut records = app.store().events().subscribers_list().await?;
    records.retain(|record| is_one(record) && (namespace.is_none() || record.filter.namespace == namespace));
    Ok(Json(SubscriberList::new(records.into_iter().map(documents::subscriber).collect())))
}

/// One that the caller may see, of the kind that `what` names.
pub(super) async fn visible(
    app: &App,
    caller: &Caller,
    what: &str,
    name: &str,
    is_one: fn(&SubscriberRecord) -> bool,
) -> Result<SubscriberRecord, Refusal> {
    let record = match app.store().events().subscriber_get(name).await {
        Ok(record) if is_one(&record) => record,
        Ok(_) | Err(recache_store::Error::NotFound { .. }) => return Err(Refusal::not_found(what, name)),
        Err(error) => return Err(error.into()),
    };
    caller.check_found_in(record.filter.namespace.as_deref(), what, name)?;
    Ok(record)
}

/// What is done to one of them.
pub(super) fn deed<'a>(
    action: &'a str,
    record: &'a SubscriberRecord,
    reason: &'a str,
    request: &'a RequestId,
) -> Deed<'a> {
    let namespace = record.filter.namespace.as_deref();
    Deed { action, namespace, target: record.name.clone(), reason, request }
}

/// Removes one, however much waits for it.
pub(super) async fn remove(
    app: &App,
    caller: &Caller,
    record: &SubscriberRecord,
    deed: Deed<'_>,
) -> Result<Json<SubscriberChange>, Refusal> {
    let before = documents::subscriber(record.clone());
    audited(app.store(), caller, deed, &before, async {
        while !app.store().events().subscriber_remove(&record.name, BATCH_ROWS).await? {}
        let gone = SubscriberState::Gone.to_string();
        Ok((Json(SubscriberChange::new(record.name.clone(), gone, true)), json!({ "deleted": true })))
    })
    .await
}

/// Which deliveries are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct DeliveriesParams {
    /// Only in this state
    #[param(inline)]
    state: Option<StateWanted>,
    /// Only of this event, with each try
    event: Option<String>,
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// The deliveries to those whom `to` names, newest first.
pub(super) async fn delivered(
    app: &App,
    to: DeliveryFilter,
    asked: DeliveriesParams,
) -> Result<Json<DeliveryList>, Refusal> {
    let event = asked.event.map(|id| id.parse::<EventId>()).transpose();
    let event = event.map_err(|error| Refusal::field(Code::InvalidParameter, "?event", error.to_string()))?;
    let state = asked.state.map(|state| match state {
        StateWanted::Pending => DeliveryState::Pending,
        StateWanted::Delivered => DeliveryState::Delivered,
        StateWanted::Dead => DeliveryState::Dead,
    });
    let events = app.store().events();
    let filter = DeliveryFilter { event, state, ..to };
    let page = Page::new("deliveries", &filter, PageParams { limit: asked.limit, cursor: asked.cursor })?;
    let before = page.before::<DeliveryPlace>()?;
    let filter = DeliveryFilter { before, ..filter };
    let found = events.deliveries_list(filter, page.rows_max()).await?;
    let (found, next) = page.cut_placed(found.into_iter().map(|record| (record.place().to_string(), record)));
    let mut deliveries = Vec::with_capacity(found.len());
    for record in found {
        let tries = match event {
            Some(event) => events.delivery_attempts(&record.subscriber, event).await?,
            None => Vec::new(),
        };
        deliveries.push(documents::delivery(record, tries));
    }
    Ok(Json(DeliveryList::new(deliveries, next)))
}
