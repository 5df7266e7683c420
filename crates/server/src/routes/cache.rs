//! The cache of this process and what it shares with others: looked at, and outdated.
//!
//! None of these fails because the cache is away: it then says so. Keys belong to no namespace, so the permission is one for all.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use recache_api::{
    CacheChange, CacheExplanation, CacheHealth, CacheOverview, CacheStats, CacheValue, Changed,
    InvalidateCache, TtlExplanation,
};
use recache_cache::{Cache, Key};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::routes;

use super::{Routes, reason_or};
use crate::access::{Action, Caller, Permission};
use crate::audited::{Deed, audited};
use crate::documents;
use crate::frame::RequestId;
use crate::input::{Input, Params};
use crate::refusal::{Code, Refusal};
use crate::state::App;

const READ: Permission = Permission::global("cache", Action::Read);
const OPERATE: Permission = Permission::global("cache", Action::Operate);
/// What the other processes counted is not waited for longer.
const FLEET_WITHIN: Duration = Duration::from_secs(1);

pub(super) fn routes() -> Routes {
    Routes::new()
        .read(READ, routes!(overview))
        .read(READ, routes!(stats))
        .read(READ, routes!(health))
        .read(READ, routes!(explain))
        .read(READ, routes!(inspect))
        .read(READ, routes!(ttl))
        .write_once(OPERATE, routes!(invalidate))
}

/// What the configured cache can do, how that is known, and for what it is used
#[utoipa::path(get, path = "/v1/cache", tag = "cache", operation_id = "cache_overview",
    responses((status = 200, description = "As it is now", body = CacheOverview)))]
async fn overview(State(app): State<App>) -> Json<CacheOverview> {
    Json(documents::cache_overview(app.engine().cache()))
}

/// What this process counted, what the backend tells, and what the caches of all processes answered
///
/// Each process shares what it counted every few seconds and when it ends; the one that is asked does so at once.
#[utoipa::path(get, path = "/v1/cache/stats", tag = "cache", operation_id = "cache_stats",
    responses((status = 200, description = "Since the process began", body = CacheStats)))]
async fn stats(State(app): State<App>) -> Json<CacheStats> {
    let (cache, reads) = (app.engine().cache(), app.engine().fleet_reads());
    let fleet = tokio::time::timeout(FLEET_WITHIN, async {
        reads.share().await?;
        reads.read().await
    });
    let fleet = match fleet.await {
        Ok(fleet) => fleet.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the backend did not say within {FLEET_WITHIN:?}")),
    };
    Json(documents::cache_stats(cache.provider().name(), &cache.stats(), fleet))
}

/// How long cached values live where that is chosen, and why
///
/// What was seen of each class of keys, in this process and, where the backend carries it, in the others, and the life that follows from it
/// within the budget.
#[utoipa::path(get, path = "/v1/cache/ttl", tag = "cache", operation_id = "explain_ttl",
    responses((status = 200, description = "By class; none where lives are not chosen", body = TtlExplanation)))]
async fn ttl(State(app): State<App>) -> Json<TtlExplanation> {
    Json(documents::ttl_explanation(app.engine().adaptive()))
}

/// Whether the cache can be used, and why not
#[utoipa::path(get, path = "/v1/cache/health", tag = "cache", operation_id = "cache_health",
    responses((status = 200, description = "Whatever its condition", body = CacheHealth)))]
async fn health(State(app): State<App>) -> Json<CacheHealth> {
    Json(documents::cache_health(&app.engine().cache().health().await))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct KeyParams {
    /// The key as it is stored, prefix included
    #[param(min_length = 1, max_length = 4096)]
    key: String,
}

/// Why a key is answered as it is, and what each tier holds
#[utoipa::path(get, path = "/v1/cache/explain", tag = "cache", operation_id = "explain_cache_key", params(KeyParams),
    responses((status = 200, description = "Without its value", body = CacheExplanation)))]
async fn explain(
    State(app): State<App>,
    Params(asked): Params<KeyParams>,
) -> Result<Json<CacheExplanation>, Refusal> {
    let cache = app.engine().cache();
    let key = key(cache, &asked.key, "?key", Code::InvalidParameter)?;
    Ok(Json(documents::cache_explanation(cache.explain(&key).await)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct InspectParams {
    /// The key as it is stored, prefix included
    #[param(min_length = 1, max_length = 4096)]
    key: String,
    /// Answer the value too, which may be anybody's data
    with_value: Option<bool>,
}

/// What is cached under a key; its value only where that is asked for
#[utoipa::path(get, path = "/v1/cache/inspect", tag = "cache", operation_id = "inspect_cache_key", params(InspectParams),
    responses((status = 200, description = "It is served", body = CacheValue),
        (status = 404, description = "Nothing is served under this key that can be shown")))]
async fn inspect(
    State(app): State<App>,
    Params(asked): Params<InspectParams>,
) -> Result<Json<CacheValue>, Refusal> {
    let cache = app.engine().cache();
    let key = key(cache, &asked.key, "?key", Code::InvalidParameter)?;
    let found = cache.explain(&key).await;
    // Its writer lays it out in some way of his own; as JSON it can be shown all the same.
    let layout = found.entry.as_ref().or(found.near_entry.as_ref()).map(|entry| entry.schema);
    let cache = layout.map_or_else(|| cache.clone(), |layout| cache.with_schema(layout));
    let Some(mut answer) = cache.lookup::<recache_api::Json>(&key).await else {
        let detail = format!("nothing is served under `{key}` that can be shown: {}", found.verdict);
        return Err(
            Refusal::new(Code::NotFound, detail).remedy("`/v1/cache/explain` says what each tier holds")
        );
    };
    let is_far = found.near_entry.is_none();
    let is_absent = answer.value.is_none();
    if asked.with_value != Some(true) {
        answer.value = None;
    }
    Ok(Json(CacheValue { is_absent, ..documents::cache_value(&found, &answer, is_far) }))
}

fn key(cache: &Cache, text: &str, pointer: &str, code: Code) -> Result<Key, Refusal> {
    cache.keys().parse(text).ok_or_else(|| {
        let message =
            format!("is no key of this cache: a stored key begins with `{}:`", cache.keys().as_str());
        Refusal::field(code, pointer, message)
    })
}

/// Outdate a key, a space, a tag or everything
///
/// `is_confirmed` is false where the backend could not be told: the server tells it when it is back, and until then other processes may
/// serve what was there.
#[utoipa::path(post, path = "/v1/cache/invalidate", tag = "cache", operation_id = "invalidate_cache", request_body = InvalidateCache,
    responses((status = 200, description = "It is outdated here", body = CacheChange)))]
async fn invalidate(
    State(app): State<App>,
    caller: Caller,
    request: RequestId,
    Input(asked): Input<InvalidateCache>,
) -> Result<Json<CacheChange>, Refusal> {
    let cache = app.engine().cache();
    let named = [asked.key.is_some(), asked.space.is_some(), asked.tag.is_some(), asked.all];
    if named.iter().filter(|named| **named).count() != 1 {
        return Err(Refusal::new(Code::Invalid, "give exactly one of `key`, `space`, `tag` and `all: true`"));
    }
    let stored = asked.key.as_deref().map(|text| key(cache, text, "/key", Code::Invalid)).transpose()?;
    let (changed, name) = match (&stored, &asked.space, &asked.tag) {
        (Some(key), ..) => (Changed::Key, key.as_str().to_owned()),
        (_, Some(space), _) => (Changed::Space, cache.keys().space(space).to_string()),
        (_, _, Some(tag)) => (Changed::Tag, tag.clone()),
        _ => (Changed::All, cache.keys().as_str().to_owned()),
    };
    let reason = reason_or(asked.reason, "invalidated over HTTP");
    let deed = Deed {
        action: "cache.invalidate",
        namespace: None,
        target: name.clone(),
        reason: &reason,
        request: &request,
    };
    audited(app.store(), &caller, deed, &json!({ "changed": changed }), async {
        let token = match (&stored, &asked.space, &asked.tag) {
            (Some(key), ..) => cache.invalidate(key).await,
            (_, Some(space), _) => cache.invalidate_space(&cache.keys().space(space)).await,
            (_, _, Some(tag)) => cache.invalidate_tag(tag).await,
            _ => cache.clear().await,
        };
        let document = documents::cache_change("invalidated", changed, &name, token);
        let after = json!({ "is_confirmed": document.is_confirmed });
        Ok((Json(document), after))
    })
    .await
}
