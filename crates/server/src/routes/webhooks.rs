//! Webhooks: who outside is told of events, and what became of it.
//!
//! A secret is answered once, by the request that makes it. That answer is not kept for a repetition with the same `Idempotency-Key`: a
//! repetition is carried out again, and finds the webhook there.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use recache_api::{
    Because, CreateWebhook, DeliveryList, FieldProblem, Redeliver, Redelivered, RotateWebhook, Subscriber,
    SubscriberChange, SubscriberList, WebhookSecret,
};
use recache_model::event::{DeliveryState, EventFilter, delivery_policy};
use recache_model::ids::EventId;
use recache_model::retry::RetryPolicy;
use recache_model::webhook::Secret;
use recache_store::{DeliveryFilter, NewSubscriber, SubscriberKind, SubscriberRecord, SubscriberState};
use serde_json::json;
use utoipa_axum::routes;

use super::subscribers::{DeliveriesParams, OfNamespace, RemoveParams, deed};
use super::{Routes, reason_or, subscribers, wrong};
use crate::access::{Action, Caller, Permission};
use crate::audited::{Deed, audited};
use crate::documents;
use crate::frame::{NotKept, RequestId};
use crate::input::{Input, Params, Segments};
use crate::refusal::{Code, Refusal};
use crate::state::App;

const READ: Permission = Permission::new("webhooks", Action::Read);
const OPERATE: Permission = Permission::new("webhooks", Action::Operate);

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);
const OVERLAP_DEFAULT: Duration = Duration::from_hours(24);
/// Deliveries that one transaction makes once more.
const BATCH_ROWS: u32 = 500;

pub(super) fn routes() -> Routes {
    Routes::new()
        .read(READ, routes!(list))
        .write_once(OPERATE, routes!(create))
        .read(READ, routes!(show))
        .write_once(OPERATE, routes!(delete))
        .write_once(OPERATE, routes!(pause))
        .write_once(OPERATE, routes!(resume))
        .write_once(OPERATE, routes!(rotate))
        .read(READ, routes!(deliveries))
        .write_once(OPERATE, routes!(redeliver))
}

fn is_webhook(record: &SubscriberRecord) -> bool {
    record.url.is_some()
}

/// A webhook that the caller may see. What a program registers by itself is none.
async fn visible(app: &App, caller: &Caller, name: &str) -> Result<SubscriberRecord, Refusal> {
    subscribers::visible(app, caller, "webhook", name, is_webhook).await
}

/// Webhooks by name, without their secrets
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", operation_id = "list_webhooks", params(OfNamespace),
    responses((status = 200, description = "All of them: there are at most 1,000", body = SubscriberList)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<OfNamespace>,
) -> Result<Json<SubscriberList>, Refusal> {
    subscribers::listed(&app, &caller, asked, is_webhook).await
}

/// Tell another server of events; the secret that signs is answered now and never again
#[utoipa::path(post, path = "/v1/webhooks", tag = "webhooks", operation_id = "create_webhook", request_body = CreateWebhook,
    responses((status = 201, description = "It is there", body = WebhookSecret)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    request: RequestId,
    Input(asked): Input<CreateWebhook>,
) -> Result<Response, Refusal> {
    let namespace = caller.list_namespace(asked.namespace)?;
    let filter = EventFilter { types: asked.types, namespace: namespace.clone() };
    let mut problems = Vec::new();
    let mut problem = |pointer: &str, message: String| {
        problems.push(FieldProblem { pointer: pointer.to_owned(), message });
    };
    if let Err(why) = filter.check() {
        problem("/types", why.to_string());
    }
    match app.engine().courier() {
        Some(courier) => {
            if let Some(why) = courier.refuses(&asked.url, asked.plain) {
                problem("/url", why);
            }
        }
        // Nobody here can judge the address.
        None => return Err(Refusal::new(Code::Conflict, "this server sends no webhooks")),
    }
    if !problems.is_empty() {
        return Err(wrong(&problems));
    }
    let secret = Secret::new(rand::random());
    let new = NewSubscriber {
        name: asked.name.clone(),
        kind: SubscriberKind::Webhook { url: asked.url.clone(), secret: secret.clone() },
        filter,
        retry: RetryPolicy {
            attempts_max: asked.attempts_max.unwrap_or(delivery_policy().attempts_max),
            ..delivery_policy()
        },
        timeout: asked.timeout_ms.map_or(TIMEOUT_DEFAULT, Duration::from_millis),
    };
    let reason = reason_or(asked.reason, "created over HTTP");
    let target = asked.name.clone();
    let deed = Deed {
        action: "webhooks.create",
        namespace: namespace.as_deref(),
        target,
        reason: &reason,
        request: &request,
    };
    let record = audited(app.store(), &caller, deed, &json!(null), async {
        let record = app.store().events().subscriber_put(new).await?;
        let after = documents::subscriber(record.clone());
        Ok((record, after))
    })
    .await?;
    let place = format!(
        "/v1/webhooks/{}",
        form_urlencoded::byte_serialize(record.name.as_bytes()).collect::<String>()
    );
    let document = WebhookSecret::new(record.name, secret.reveal(), None);
    Ok(NotKept((StatusCode::CREATED, [(header::LOCATION, place.replace('+', "%20"))], Json(document)))
        .into_response())
}

/// One webhook, without its secrets
#[utoipa::path(get, path = "/v1/webhooks/{name}", tag = "webhooks", operation_id = "get_webhook",
    params(("name" = String, Path, description = "What it is called")),
    responses((status = 200, description = "It", body = Subscriber)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
) -> Result<Json<Subscriber>, Refusal> {
    Ok(Json(documents::subscriber(visible(&app, &caller, &name).await?)))
}

/// Remove a webhook with its deliveries
#[utoipa::path(delete, path = "/v1/webhooks/{name}", tag = "webhooks", operation_id = "delete_webhook",
    params(("name" = String, Path, description = "What it is called"), RemoveParams),
    responses((status = 200, description = "It is gone", body = SubscriberChange)))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    request: RequestId,
    Params(asked): Params<RemoveParams>,
) -> Result<Json<SubscriberChange>, Refusal> {
    let record = visible(&app, &caller, &name).await?;
    let reason = reason_or(asked.reason, "deleted over HTTP");
    subscribers::remove(&app, &caller, &record, deed("webhooks.delete", &record, &reason, &request)).await
}

/// Let what is for a webhook wait
#[utoipa::path(post, path = "/v1/webhooks/{name}/pause", tag = "webhooks", operation_id = "pause_webhook", request_body = Because,
    params(("name" = String, Path, description = "What it is called")),
    responses((status = 200, description = "It is paused, by this call or before", body = SubscriberChange)))]
async fn pause(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    request: RequestId,
    Input(asked): Input<Because>,
) -> Result<Json<SubscriberChange>, Refusal> {
    let record = visible(&app, &caller, &name).await?;
    let reason = reason_or(asked.reason, "paused over HTTP");
    let before = json!({ "state": record.state.as_str() });
    audited(app.store(), &caller, deed("webhooks.pause", &record, &reason, &request), &before, async {
        app.store().events().subscriber_pause(&name, caller.word(&reason)).await?;
        let changed = record.state != SubscriberState::Paused;
        let document = SubscriberChange::new(name.clone(), SubscriberState::Paused.to_string(), changed);
        Ok((Json(document), json!({ "state": "paused" })))
    })
    .await
}

/// End a pause, and a rest after failures
#[utoipa::path(post, path = "/v1/webhooks/{name}/resume", tag = "webhooks", operation_id = "resume_webhook", request_body = Because,
    params(("name" = String, Path, description = "What it is called")),
    responses((status = 200, description = "It is told again, by this call or before", body = SubscriberChange)))]
async fn resume(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    request: RequestId,
    Input(asked): Input<Because>,
) -> Result<Json<SubscriberChange>, Refusal> {
    let record = visible(&app, &caller, &name).await?;
    let reason = reason_or(asked.reason, "resumed over HTTP");
    let before = json!({ "state": record.state.as_str(), "failures": record.failures });
    audited(app.store(), &caller, deed("webhooks.resume", &record, &reason, &request), &before, async {
        let changed = app.store().events().subscriber_resume(&name, caller.actor()).await?;
        let document = SubscriberChange::new(name.clone(), SubscriberState::Active.to_string(), changed);
        Ok((Json(document), json!({ "state": "active" })))
    })
    .await
}

/// Give a webhook a new secret, answered now and never again
///
/// For the time of the overlap every request is signed with both. While a former secret still signs, another change is refused unless
/// `again` says that it is meant.
#[utoipa::path(post, path = "/v1/webhooks/{name}/rotate", tag = "webhooks", operation_id = "rotate_webhook", request_body = RotateWebhook,
    params(("name" = String, Path, description = "What it is called")),
    responses((status = 200, description = "It signs with this one", body = WebhookSecret)))]
async fn rotate(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    request: RequestId,
    Input(asked): Input<RotateWebhook>,
) -> Result<Response, Refusal> {
    let record = visible(&app, &caller, &name).await?;
    let reason = reason_or(asked.reason, "rotated over HTTP");
    let before = json!({ "old_secret_until": record.old_secret_until.map(documents::instant) });
    let overlap = asked.overlap_seconds.map_or(OVERLAP_DEFAULT, Duration::from_secs);
    let secret = Secret::new(rand::random());
    let new = secret.clone();
    let rotated =
        audited(app.store(), &caller, deed("webhooks.rotate", &record, &reason, &request), &before, async {
            let now = app.store().now().await?;
            if !asked.again && record.old_secret_until.is_some_and(|until| until > now) {
                let detail =
                    format!("the secret of webhook `{name}` was changed, and the former one still signs");
                return Err(Refusal::new(Code::Conflict, detail).remedy(
                    "say `again` if it is to be changed once more: the former one is then no longer good",
                ));
            }
            let record = app.store().events().subscriber_rotate(&name, new, overlap).await?;
            let after = json!({ "old_secret_until": record.old_secret_until.map(documents::instant) });
            Ok((record, after))
        })
        .await?;
    let until = rotated.old_secret_until.map(documents::instant);
    Ok(NotKept(Json(WebhookSecret::new(rotated.name, secret.reveal(), until))).into_response())
}

/// What became of telling a webhook, newest first
#[utoipa::path(get, path = "/v1/webhooks/{name}/deliveries", tag = "webhooks", operation_id = "list_deliveries",
    params(("name" = String, Path, description = "What it is called"), DeliveriesParams),
    responses((status = 200, description = "A page", body = DeliveryList)))]
async fn deliveries(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    Params(asked): Params<DeliveriesParams>,
) -> Result<Json<DeliveryList>, Refusal> {
    visible(&app, &caller, &name).await?;
    let to = DeliveryFilter { subscriber: Some(name), ..DeliveryFilter::default() };
    subscribers::delivered(&app, to, asked).await
}

/// Have deliveries made once more, with the same ids: one event's, or all that were given up
#[utoipa::path(post, path = "/v1/webhooks/{name}/redeliver", tag = "webhooks", operation_id = "redeliver", request_body = Redeliver,
    params(("name" = String, Path, description = "What it is called")),
    responses((status = 200, description = "They are tried again", body = Redelivered)))]
async fn redeliver(
    State(app): State<App>,
    caller: Caller,
    Segments(name): Segments<String>,
    request: RequestId,
    Input(asked): Input<Redeliver>,
) -> Result<Json<Redelivered>, Refusal> {
    let record = visible(&app, &caller, &name).await?;
    let (event, state) = match (&asked.event, asked.dead) {
        (Some(event), false) => {
            let event = event.parse::<EventId>();
            (Some(event.map_err(|error| Refusal::field(Code::Invalid, "/event", error.to_string()))?), None)
        }
        (None, true) => (None, Some(DeliveryState::Dead)),
        _ => return Err(Refusal::new(Code::Invalid, "give one of `event` and `dead: true`")),
    };
    let reason = reason_or(asked.reason, "redelivered over HTTP");
    let before = json!({ "dead": record.dead, "event": asked.event });
    audited(app.store(), &caller, deed("webhooks.redeliver", &record, &reason, &request), &before, async {
        let filter =
            DeliveryFilter { subscriber: Some(name.clone()), event, state, ..DeliveryFilter::default() };
        let mut total = 0;
        loop {
            let count = app.store().events().deliveries_redrive(filter.clone(), BATCH_ROWS).await?;
            total += count;
            // One event has one delivery: what was made pending must not be counted again.
            if event.is_some() || count < u64::from(BATCH_ROWS) {
                break;
            }
        }
        if total == 0 && event.is_some() {
            let detail = format!("webhook `{name}` has no delivery of that event that has ended");
            return Err(Refusal::new(Code::NotFound, detail));
        }
        Ok((Json(Redelivered::new(name.clone(), total)), json!({ "redelivered": total })))
    })
    .await
}
