//! Views: define, touch, read, look into, keep in hand.
//!
//! A view's key is one segment of the path, percent-encoded: `alliance/42` is `alliance%2F42`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use recache_api::{
    Because, DefineView, DeriveView, FieldProblem, Generation, ItemList, ItemRead, ReadItems, RollBackView,
    TouchView, TouchViews, Touched, TouchedViews, View, ViewChange, ViewDetails, ViewDiff, ViewExplanation,
    ViewHistory, ViewList, ViewRestored, ViewSources,
};
use recache_model::ids::JobId;
use recache_model::item_rules::ItemRules;
use recache_model::view::{OnTouch, ViewPolicy};
use recache_model::view_options::{BuildWorkflow, ItemsKept, Prefetch, ViewOptions};
use recache_store::{FLOW, NewView, Touch, ViewName, Word};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::routes;
use uuid::Uuid;

use super::jobs::retry_of;
use super::page::{Page, PageParams};
use super::{Routes, reason_or, wrong};
use crate::access::{Action, Caller, Permission};
use crate::audited::{Deed, audited};
use crate::documents;
use crate::etag;
use crate::frame::{RequestId, Trace, Turn};
use crate::input::{Input, Params, Segments, Wait};
use crate::refusal::{Code, Refusal};
use crate::state::App;

const READ: Permission = Permission::new("views", Action::Read);
const WRITE: Permission = Permission::new("views", Action::Write);
const OPERATE: Permission = Permission::new("views", Action::Operate);

/// Generations that are answered with a view.
const GENERATIONS_SHOWN: u32 = 10;
/// Items that one call reads by their keys.
const ITEMS_READ_MAX: usize = 1_000;
/// A value that is gone is made anew in about this time, if it is made quickly.
const GONE_RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) fn routes() -> Routes {
    Routes::new()
        .read(READ, routes!(list))
        .read(READ, routes!(show))
        .write_once(WRITE, routes!(define))
        .write_once(OPERATE, routes!(delete))
        .write_often(WRITE, routes!(touch))
        .write_often(WRITE, routes!(touch_many))
        .write_once(WRITE, routes!(rebuild))
        .write_once(WRITE, routes!(derive))
        .read(READ, routes!(explain))
        .read(READ, routes!(history))
        .read(READ, routes!(diff))
        .read(READ, routes!(items))
        .read(READ, routes!(item))
        .read(READ, routes!(read_items))
        .write_once(OPERATE, routes!(pause))
        .write_once(OPERATE, routes!(resume))
        .write_once(OPERATE, routes!(roll_back))
}

/// Which view, in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct ViewPath {
    /// Who it belongs to
    namespace: String,
    /// Its key there
    key: String,
}

type Named = Segments<ViewPath>;

/// The view that the path names, if it may exist for the caller.
fn named(caller: &Caller, Segments(ViewPath { namespace, key }): Named) -> Result<ViewName, Refusal> {
    let view = ViewName { namespace, key };
    caller.check_found(&view.namespace, "view", &view.to_string())?;
    Ok(view)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// Only of this namespace
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only those after this one, `NAMESPACE/KEY`; not together with `cursor`
    #[param(min_length = 1, max_length = 2048)]
    after: Option<String>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// List views by namespace and key
#[utoipa::path(get, path = "/v1/views", tag = "views", params(ListParams),
    responses((status = 200, description = "A page", body = ViewList)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<ListParams>,
) -> Result<Json<ViewList>, Refusal> {
    let namespace = caller.list_namespace(asked.namespace)?;
    let page = Page::new("views", &namespace, PageParams { limit: asked.limit, cursor: asked.cursor })?;
    let after = page.after_named(asked.after, "view", "NAMESPACE/KEY")?;
    let now = app.store().now().await?;
    let found = app.store().views_list(namespace.as_deref(), after, page.rows_max()).await?;
    let named = |view: View| (format!("{}/{}", view.namespace, view.key), view);
    let (views, next) =
        page.cut_placed(found.into_iter().map(|record| documents::view(record, now)).map(named));
    Ok(Json(ViewList::new(views, next)))
}

/// A view with its build and its last generations
#[utoipa::path(get, path = "/v1/views/{namespace}/{key}", tag = "views",
    params(ViewPath),
    responses((status = 200, description = "The view", body = ViewDetails)))]
async fn show(State(app): State<App>, caller: Caller, name: Named) -> Result<Json<ViewDetails>, Refusal> {
    let view = named(&caller, name)?;
    let record = app.store().view_get(&view.namespace, &view.key).await?;
    let generations = app.store().generations_list(record.id, GENERATIONS_SHOWN).await?;
    let build = match record.build {
        Some(job) => Some(documents::job(app.store().job_get(job).await?)),
        None => None,
    };
    let now = app.store().now().await?;
    let generations: Vec<Generation> = generations.iter().map(documents::generation).collect();
    Ok(Json(ViewDetails::new(documents::view(record, now), build, generations)))
}

/// Create a view, or change how it is built; its versions and items stay
#[utoipa::path(put, path = "/v1/views/{namespace}/{key}", tag = "views", request_body = DefineView,
    params(ViewPath),
    responses((status = 200, description = "The view as it stands now", body = ViewDetails)))]
async fn define(
    State(app): State<App>,
    caller: Caller,
    Segments(ViewPath { namespace, key }): Named,
    Input(asked): Input<DefineView>,
) -> Result<Json<ViewDetails>, Refusal> {
    caller.check_namespace(&namespace)?;
    let definition = definition(namespace, key, asked).map_err(|problem| wrong(&[problem]))?;
    let record = app.engine().define_view(definition).await?;
    let now = app.store().now().await?;
    Ok(Json(ViewDetails::new(documents::view(record, now), None, Vec::new())))
}

pub(super) fn definition(namespace: String, key: String, asked: DefineView) -> Result<NewView, FieldProblem> {
    if asked.any_staleness && asked.max_staleness_ms.is_some() {
        let message = "must not be given together with `max_staleness_ms`".to_owned();
        return Err(FieldProblem { pointer: "/any_staleness".to_owned(), message });
    }
    let default = ViewPolicy::default();
    let on_touch = asked.on_touch.map_or(default.on_touch, |on_touch| match on_touch {
        recache_api::OnTouch::Abort => OnTouch::Abort,
        recache_api::OnTouch::Finish => OnTouch::Finish,
        recache_api::OnTouch::Auto => OnTouch::Auto,
    });
    let max_staleness_ms =
        asked.max_staleness_ms.or(default.max_staleness_ms).filter(|_| !asked.any_staleness);
    let (handler, queue, workflow) = builder(asked.handler, asked.queue, asked.workflow.as_deref())?;
    let prefetch = prefetch(asked.prefetch_first, asked.prefetch_items)?;
    let items = if asked.cache_only { ItemsKept::CacheOnly } else { ItemsKept::Durable };
    Ok(NewView {
        namespace,
        key,
        handler,
        queue,
        policy: ViewPolicy {
            debounce_quiet_ms: asked.debounce_quiet_ms.unwrap_or(default.debounce_quiet_ms),
            debounce_max_ms: asked.debounce_max_ms.unwrap_or(default.debounce_max_ms),
            on_touch,
            max_staleness_ms,
        },
        retry: asked.retry.as_ref().map(retry_of).unwrap_or_default(),
        timeout: asked.timeout_ms.map(Duration::from_millis),
        rules: ItemRules {
            key_schema: schema("/item_key_schema", asked.item_key_schema.as_ref())?,
            value_schema: schema("/item_value_schema", asked.item_value_schema.as_ref())?,
        },
        options: ViewOptions {
            workflow,
            items,
            prefetch,
            generation_keep_ms: asked.generation_keep_ms,
            lease_ms: asked.lease_ms,
            concurrency: asked.concurrency,
        },
    })
}

fn prefetch(first: Option<u32>, items: Option<Vec<String>>) -> Result<Option<Prefetch>, FieldProblem> {
    match (first, items) {
        (Some(_), Some(_)) => Err(FieldProblem {
            pointer: "/prefetch_items".to_owned(),
            message: "must not be given together with `prefetch_first`".to_owned(),
        }),
        (first, items) => Ok(first.map(Prefetch::First).or(items.map(Prefetch::Items))),
    }
}

/// What builds it: a handler in a queue, or a workflow.
fn builder(
    handler: Option<String>,
    queue: Option<String>,
    workflow: Option<&str>,
) -> Result<(String, String, Option<BuildWorkflow>), FieldProblem> {
    let problem = |pointer: &str, message: String| FieldProblem { pointer: pointer.to_owned(), message };
    let Some(workflow) = workflow else {
        let handler =
            handler.ok_or_else(|| problem("/handler", "is missing: give it, or `workflow`".to_owned()))?;
        return Ok((handler, queue.unwrap_or_else(|| "default".to_owned()), None));
    };
    if handler.is_some() {
        return Err(problem("/handler", "must not be given together with `workflow`".to_owned()));
    }
    if queue.is_some() {
        let why = "must not be given together with `workflow`, whose template says where its steps wait";
        return Err(problem("/queue", why.to_owned()));
    }
    let workflow = workflow.parse().map_err(|why| problem("/workflow", why))?;
    Ok((FLOW.to_owned(), FLOW.to_owned(), Some(workflow)))
}

fn schema(
    pointer: &str,
    schema: Option<&recache_api::Json>,
) -> Result<Option<serde_json::Value>, FieldProblem> {
    let read = |schema: &recache_api::Json| {
        serde_json::from_str(schema.text()).map_err(|error| FieldProblem {
            pointer: pointer.to_owned(),
            message: format!("cannot be read: {error}"),
        })
    };
    schema.map(read).transpose()
}

/// Say that a view's inputs changed
///
/// When this is answered, the version that it names will be built, or a newer one: whoever reads with that as `min_version` sees
/// the change.
#[utoipa::path(post, path = "/v1/views/{namespace}/{key}/touch", tag = "views", request_body = TouchView,
    params(ViewPath),
    responses((status = 200, description = "Which version is wanted now", body = Touched)))]
async fn touch(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    trace: Trace,
    Input(asked): Input<TouchView>,
) -> Result<Json<Touched>, Refusal> {
    let ViewName { namespace, key } = named(&caller, name)?;
    let word = asked.reason.map(|reason| caller.word(&reason));
    let touch = Touch {
        namespace: namespace.clone(),
        key: key.clone(),
        items: asked.items,
        at_once: asked.at_once,
        word,
        traces: trace.kept(),
    };
    let outcome = app.engine().touch(touch).await?;
    Ok(Json(documents::touched(namespace, key, &outcome)))
}

/// Touch up to 1,000 views, all or none
#[utoipa::path(post, path = "/v1/touches", tag = "views", request_body = TouchViews,
    responses((status = 200, description = "Which versions are wanted now", body = TouchedViews)))]
async fn touch_many(
    State(app): State<App>,
    caller: Caller,
    trace: Trace,
    Input(asked): Input<TouchViews>,
) -> Result<Json<TouchedViews>, Refusal> {
    let word: Option<Word> = asked.reason.map(|reason| caller.word(&reason));
    let mut touches = Vec::with_capacity(asked.views.len());
    for one in asked.views {
        caller.check_found(&one.namespace, "view", &format!("{}/{}", one.namespace, one.key))?;
        let word = word.clone();
        touches.push(Touch {
            namespace: one.namespace,
            key: one.key,
            items: one.items,
            at_once: false,
            word,
            traces: trace.kept(),
        });
    }
    let outcomes = app.store().views_touch(touches.clone()).await?;
    let answers = touches.into_iter().zip(&outcomes);
    Ok(Json(TouchedViews::new(
        answers.map(|(touch, outcome)| documents::touched(touch.namespace, touch.key, outcome)).collect(),
    )))
}

/// Build a view anew at once, whether or not an input changed
#[utoipa::path(post, path = "/v1/views/{namespace}/{key}/rebuild", tag = "views", request_body = Because,
    params(ViewPath),
    responses((status = 200, description = "Which version is wanted now", body = Touched)))]
async fn rebuild(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    trace: Trace,
    request: RequestId,
    Input(asked): Input<Because>,
) -> Result<Json<Touched>, Refusal> {
    let view = named(&caller, name)?;
    let reason = reason_or(asked.reason, "rebuilt over HTTP");
    // One that a pattern covers is made by its first touch.
    let before = match app.store().view_get(&view.namespace, &view.key).await {
        Ok(record) => {
            json!({ "live_version": record.versions.live, "wanted_version": record.versions.wanted })
        }
        Err(recache_store::Error::NotFound { .. }) => json!(null),
        Err(error) => return Err(error.into()),
    };
    audited(app.store(), &caller, deed("views.rebuild", &view, &reason, &request), &before, async {
        let touch = Touch {
            namespace: view.namespace.clone(),
            key: view.key.clone(),
            items: Vec::new(),
            at_once: true,
            word: Some(caller.word(&reason)),
            traces: trace.kept(),
        };
        let outcome = app.engine().touch(touch).await?;
        let document = documents::touched(view.namespace.clone(), view.key.clone(), &outcome);
        let after = json!({ "wanted_version": document.recache_version });
        Ok((Json(document), after))
    })
    .await
}

/// Say from which other views a view is made, in place of what was said before
///
/// A publication of one of them that changed anything touches the view; one that changed nothing does not.
#[utoipa::path(put, path = "/v1/views/{namespace}/{key}/sources", tag = "views", request_body = DeriveView,
    params(ViewPath),
    responses((status = 200, description = "What it is made from", body = ViewSources)))]
async fn derive(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    Input(asked): Input<DeriveView>,
) -> Result<Json<ViewSources>, Refusal> {
    let view = named(&caller, name)?;
    let mut from = Vec::with_capacity(asked.from.len());
    let mut problems = Vec::new();
    for (place, source) in asked.from.iter().enumerate() {
        match source.split_once('/').filter(|(namespace, key)| !namespace.is_empty() && !key.is_empty()) {
            Some((namespace, key)) => {
                caller.check_found(namespace, "view", source)?;
                from.push(ViewName::new(namespace, key));
            }
            None => problems.push(FieldProblem {
                pointer: format!("/from/{place}"),
                message: "is no view: expected `namespace/key`".to_owned(),
            }),
        }
    }
    if !problems.is_empty() {
        return Err(wrong(&problems));
    }
    let changed = app.engine().derive_view(view, from).await?;
    Ok(Json(ViewSources::new(asked.from, changed)))
}

/// Why a view is behind, what will build it, and what that waits for
#[utoipa::path(get, path = "/v1/views/{namespace}/{key}/explain", tag = "views",
    params(ViewPath),
    responses((status = 200, description = "Why", body = ViewExplanation)))]
async fn explain(
    State(app): State<App>,
    caller: Caller,
    name: Named,
) -> Result<Json<ViewExplanation>, Refusal> {
    let view = named(&caller, name)?;
    Ok(Json(documents::view_explanation(app.store(), &view).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ItemsParams {
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only items after this one; with `version`, not together with `cursor`
    #[param(min_length = 1, max_length = 2048)]
    after: Option<String>,
    /// Of this generation rather than the live one; not together with `cursor`
    #[param(minimum = 1)]
    version: Option<i64>,
    /// Of this version or a newer one: what a touch answered. With `Prefer: wait=SECONDS` it is waited for; 409 when it is not live. Not together with
    /// `version` or `cursor`
    #[param(minimum = 1)]
    min_version: Option<i64>,
    /// `next` of the page before
    cursor: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct HistoryParams {
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only builds older than this one, `job_…`; not together with `cursor`
    #[param(min_length = 1, max_length = 2048)]
    before: Option<String>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// The builds of a view, newest first: what became of each, and how much of its work was used
#[utoipa::path(get, path = "/v1/views/{namespace}/{key}/history", tag = "views",
    params(ViewPath, HistoryParams),
    responses((status = 200, description = "A page", body = ViewHistory)))]
async fn history(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    Params(asked): Params<HistoryParams>,
) -> Result<Json<ViewHistory>, Refusal> {
    let view = named(&caller, name)?;
    let id = app.store().view_get(&view.namespace, &view.key).await?.id;
    let page = Page::new("view builds", &id, PageParams { limit: asked.limit, cursor: asked.cursor })?;
    let before: Option<JobId> = page.before_or("before", asked.before)?;
    let builds = app.store().view_control().view_builds(id, before, page.rows_max()).await?;
    let builds: Vec<_> = builds.into_iter().map(|build| (build.id.to_string(), build)).collect();
    let (builds, next) = page.cut(builds, |(id, _)| id);
    let builds = builds.into_iter().map(|(_, build)| build).collect();
    Ok(Json(documents::view_history(app.store(), (&view, id), builds, next).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct DiffParams {
    /// The first generation
    #[param(minimum = 1)]
    from: i64,
    /// The second
    #[param(minimum = 1)]
    to: i64,
    /// At most so many items
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only items after this one; not together with `cursor`
    #[param(min_length = 1, max_length = 2048)]
    after: Option<String>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// At which items two generations differ
#[utoipa::path(get, path = "/v1/views/{namespace}/{key}/diff", tag = "views",
    params(ViewPath, DiffParams),
    responses((status = 200, description = "A page, by item", body = ViewDiff),
        (status = 409, description = "One of the versions is not kept")))]
async fn diff(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    Params(asked): Params<DiffParams>,
) -> Result<Json<ViewDiff>, Refusal> {
    let view = named(&caller, name)?;
    let id = app.store().view_get(&view.namespace, &view.key).await?.id;
    let (from, to) = (asked.from, asked.to);
    let page =
        Page::new("view diff", &(id, from, to), PageParams { limit: asked.limit, cursor: asked.cursor })?;
    let after: Option<String> = page.before_or("after", asked.after)?;
    let found = app.store().view_control().generations_diff(id, from, to, after, page.rows_max()).await?;
    let Some(items) = found else {
        let detail = format!("version {from} or {to} of view `{view}` is not kept");
        return Err(Refusal::new(Code::Conflict, detail)
            .remedy("look at `generations` of the view for those that are"));
    };
    let (items, next) = page.cut(items, |(item, _)| item);
    Ok(Json(documents::view_diff(&view, (from, to), items, next)))
}

/// The items of the live generation, in the order of their keys, through the cache
///
/// All pages are of the generation of the first one, whatever is published meanwhile; 409 when that is no longer kept. Items of a view whose
/// values are kept in the cache only are named in `gone` where it has them no more; such a page has no `ETag`. With that of a page in `If-None-Match` the
/// answer is 304 as long as the same generation is live; whether it is stale by now, 304 does not say.
#[utoipa::path(get, path = "/v1/views/{namespace}/{key}/items", tag = "views",
    params(ViewPath, ItemsParams,
        ("If-None-Match" = Option<String>, Header, description = "One or more `ETag`s of this page that were answered before, or `*`"),
        ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`")),
    responses((status = 200, description = "A page", body = ItemList), (status = 304, description = "The generation is the same"),
        (status = 409, description = "The generation of the first page is no longer kept")))]
async fn items(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    Params(asked): Params<ItemsParams>,
    Wait(wait): Wait,
    turn: Turn,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let view = named(&caller, name)?;
    let filter = view.to_string();
    let page = Page::new("view items", &filter, PageParams { limit: asked.limit, cursor: asked.cursor })?;
    let wrong = |name: &str, why: &str| Err(Refusal::field(Code::InvalidParameter, name, why));
    // Version and last key.
    let place: Option<String> = page.before()?;
    let from = match (place, asked.version, asked.after) {
        (Some(_), Some(_), _) => return wrong("?version", "must not be given together with `cursor`"),
        (Some(_), None, Some(_)) => return wrong("?after", "must not be given together with `cursor`"),
        (None, None, Some(_)) => return wrong("?version", "must be given with `after`"),
        (Some(place), None, None) => {
            place.split_once('/').and_then(|(version, item)| Some((version.parse().ok()?, item.to_owned())))
        }
        // No key is empty: all of them are after that.
        (None, Some(version), after) => Some((version, after.unwrap_or_default())),
        (None, None, None) => None,
    };
    if let Some(min_version) = asked.min_version {
        if from.is_some() {
            return wrong("?min_version", "must not be given together with `version` or `cursor`");
        }
        reach(&app, &turn, &view, min_version, wait).await?;
    }
    let found = app.engine().list_items(&view.namespace, &view.key, from, page.limit()).await?;
    let version = found.version;
    let (is_known, etag) = known(&headers, version, found.generation)?;
    let is_whole = found.gone.is_empty();
    if is_known && is_whole {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let next = found.last.as_ref().filter(|_| found.has_more);
    let next = next.map(|item| page.after(&format!("{version}/{item}")));
    let list = documents::item_page(view, found, next);
    if is_whole {
        Ok(([(header::ETAG, etag)], Json(list)).into_response())
    } else {
        Ok(Json(list).into_response())
    }
}

/// Whether the caller has what is read of this generation, and the tag that says so.
fn known(headers: &HeaderMap, version: i64, generation: Uuid) -> Result<(bool, HeaderValue), Refusal> {
    let etag = etag::of_generation(version, generation);
    let is_known = etag::is_known(headers, &etag);
    Ok((is_known, HeaderValue::try_from(etag).map_err(|_| Refusal::internal())?))
}

/// Items by their keys, all of one generation, through the cache
///
/// In the order in which they are asked for. What the generation does not have is left out; what was kept in the cache only and is gone there is named
/// in `gone`. It changes nothing.
#[utoipa::path(post, path = "/v1/views/{namespace}/{key}/read", tag = "views", request_body = ReadItems,
    params(ViewPath, ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`")),
    responses((status = 200, description = "Those that are there", body = ItemList),
        (status = 409, description = "`min_version` was not live in time")))]
async fn read_items(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    Wait(wait): Wait,
    turn: Turn,
    Input(asked): Input<ReadItems>,
) -> Result<Json<ItemList>, Refusal> {
    let view = named(&caller, name)?;
    let mut problems = Vec::new();
    let count = asked.items.len();
    if !(1..=ITEMS_READ_MAX).contains(&count) {
        let message = format!("must have 1 to {ITEMS_READ_MAX} elements, and has {count}");
        problems.push(FieldProblem { pointer: "/items".to_owned(), message });
    }
    if asked.min_version.is_some_and(|version| version < 1) {
        let message = "must be 1 or more".to_owned();
        problems.push(FieldProblem { pointer: "/min_version".to_owned(), message });
    }
    if !problems.is_empty() {
        return Err(wrong(&problems));
    }
    if let Some(min_version) = asked.min_version {
        reach(&app, &turn, &view, min_version, wait).await?;
    }
    let items: Vec<&str> = asked.items.iter().map(String::as_str).collect();
    let found = app.engine().read_items(&view.namespace, &view.key, &items).await?;
    Ok(Json(documents::items_read(view, asked.items, found)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ItemParams {
    /// Of this version or a newer one: what a touch answered. With `Prefer: wait=SECONDS` it is waited for; 409 when it is not live
    #[param(minimum = 1)]
    min_version: Option<i64>,
}

/// One item of the live generation, through the cache
///
/// `ETag` is the generation: with `If-None-Match` the answer is 304 as long as no other one is live. It is not its number alone: a view that is deleted
/// and defined anew begins again at 1. 503 with `Retry-After` when the value was kept
/// in the cache only and is gone there: it is made anew.
#[utoipa::path(get, path = "/v1/views/{namespace}/{key}/items/{item}", tag = "views",
    params(ViewPath,
        ("item" = String, Path, description = "The item's key"), ItemParams,
        ("If-None-Match" = Option<String>, Header, description = "One or more `ETag`s that were answered before, or `*`"),
        ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`")),
    responses((status = 200, description = "The item", body = ItemRead), (status = 304, description = "The generation is the same"),
        (status = 409, description = "`min_version` is not live")))]
async fn item(
    State(app): State<App>,
    caller: Caller,
    Segments((namespace, key, item)): Segments<(String, String, String)>,
    Params(asked): Params<ItemParams>,
    Wait(wait): Wait,
    turn: Turn,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let view = named(&caller, Segments(ViewPath { namespace, key }))?;
    if let Some(min_version) = asked.min_version {
        reach(&app, &turn, &view, min_version, wait).await?;
    }
    let found = app.engine().read_item(&view.namespace, &view.key, &item).await?;
    let (is_same, etag) = known(&headers, found.version, found.generation)?;
    let stale = found.is_stale();
    if found.is_gone {
        let said = format!(
            "version {} of view `{view}` has item `{item}`, but only the cache kept its value, and has it no more",
            found.version
        );
        let refusal = Refusal::new(Code::Unavailable, said).retry_after(GONE_RETRY_AFTER);
        return Err(refusal.remedy("ask again: the view is touched, and makes it anew"));
    }
    let Some(value) = found.value else {
        let said = if found.version == 0 {
            format!("view `{view}` has no generation yet")
        } else {
            format!("version {} of view `{view}` has no item `{item}`", found.version)
        };
        return Err(Refusal::new(Code::NotFound, said));
    };
    if is_same {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let ViewName { namespace, key } = view;
    let read = ItemRead {
        schema: ItemRead::SCHEMA.to_owned(),
        namespace,
        key,
        item,
        value: documents::json_text(&value),
        view_id: found.view.to_string(),
        version: found.version,
        recache_version: found.wanted,
        published_at: found.published_at.map(documents::instant),
        age_ms: found.age.map(documents::ms),
        staleness_ms: documents::ms(found.staleness),
        stale,
    };
    Ok(([(header::ETAG, etag)], Json(read)).into_response())
}

/// Waits, if it is to be waited for, until the version is live; a conflict when it is not.
async fn reach(
    app: &App,
    turn: &Turn,
    view: &ViewName,
    min_version: i64,
    wait: Option<Duration>,
) -> Result<(), Refusal> {
    let engine = app.engine();
    // One look first: what is live already costs no place among those who wait.
    let wait = wait.unwrap_or_default();
    let now = engine.wait_for_version(&view.namespace, &view.key, min_version, Duration::ZERO).await;
    let live = match now {
        Ok(_) => return Ok(()),
        Err(recache_engine::Error::TimedOut { .. }) if !wait.is_zero() => {
            let waiting = engine.wait_for_version(&view.namespace, &view.key, min_version, wait);
            match app.wait(turn, wait, waiting).await {
                Ok(reached) => reached,
                Err(refusal) if refusal.code() == Code::TimedOut => None,
                Err(refusal) => return Err(refusal),
            }
        }
        Err(recache_engine::Error::TimedOut { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    if live.is_some() {
        return Ok(());
    }
    let record = app.store().view_get(&view.namespace, &view.key).await?;
    let detail = format!(
        "version {min_version} of view `{view}` is not live: {} is, and {} is wanted",
        record.versions.live, record.versions.wanted
    );
    Err(Refusal::new(Code::Conflict, detail).remedy("wait for it with the header `Prefer: wait=10`"))
}

fn deed<'a>(action: &'a str, view: &'a ViewName, reason: &'a str, request: &'a RequestId) -> Deed<'a> {
    Deed { action, namespace: Some(&view.namespace), target: view.to_string(), reason, request }
}

/// Let no build of a view begin; one that has begun goes on to its end
#[utoipa::path(post, path = "/v1/views/{namespace}/{key}/pause", tag = "views", request_body = Because,
    params(ViewPath),
    responses((status = 200, description = "It is paused, by this call or before", body = ViewChange)))]
async fn pause(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    request: RequestId,
    Input(asked): Input<Because>,
) -> Result<Json<ViewChange>, Refusal> {
    let view = named(&caller, name)?;
    let reason = reason_or(asked.reason, "paused over HTTP");
    let before = paused_now(&app, &view).await?;
    audited(app.store(), &caller, deed("views.pause", &view, &reason, &request), &before, async {
        let changed = app.store().view_control().view_pause(view.clone(), caller.word(&reason)).await?;
        let document = ViewChange::new(view.namespace.clone(), view.key.clone(), changed);
        Ok((Json(document), json!({ "paused": true })))
    })
    .await
}

async fn paused_now(app: &App, view: &ViewName) -> Result<serde_json::Value, Refusal> {
    let record = app.store().view_get(&view.namespace, &view.key).await?;
    Ok(json!({ "paused": record.pause.is_some(), "live_version": record.versions.live }))
}

/// Let the builds of a view begin again
#[utoipa::path(post, path = "/v1/views/{namespace}/{key}/resume", tag = "views", request_body = Because,
    params(ViewPath),
    responses((status = 200, description = "Its builds begin", body = ViewChange)))]
async fn resume(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    request: RequestId,
    Input(asked): Input<Because>,
) -> Result<Json<ViewChange>, Refusal> {
    let view = named(&caller, name)?;
    let reason = reason_or(asked.reason, "resumed over HTTP");
    let before = paused_now(&app, &view).await?;
    audited(app.store(), &caller, deed("views.resume", &view, &reason, &request), &before, async {
        let changed = app.store().view_control().view_resume(view.clone()).await?;
        let document = ViewChange::new(view.namespace.clone(), view.key.clone(), changed);
        Ok((Json(document), json!({ "paused": false })))
    })
    .await
}

/// Make the content of an older generation live again, and pause the view
///
/// It becomes a version of its own, newer than every other. The view is paused, because its next build would undo it. 409 where values were kept
/// in the cache only and some of them are gone.
#[utoipa::path(post, path = "/v1/views/{namespace}/{key}/rollback", tag = "views", request_body = RollBackView,
    params(ViewPath),
    responses((status = 200, description = "It is live", body = ViewRestored)))]
async fn roll_back(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    request: RequestId,
    Input(asked): Input<RollBackView>,
) -> Result<Json<ViewRestored>, Refusal> {
    let view = named(&caller, name)?;
    let reason = reason_or(asked.reason, "rolled back over HTTP");
    let before = paused_now(&app, &view).await?;
    audited(app.store(), &caller, deed("views.rollback", &view, &reason, &request), &before, async {
        let word = caller.word(&reason);
        let restored = app.engine().restore_view(view.clone(), asked.to_version, word).await?;
        let document = documents::view_restored(&view, asked.to_version, &restored);
        Ok((Json(document), json!({ "paused": true, "live_version": restored.version })))
    })
    .await
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct DeleteParams {
    /// Why; kept in the audit
    #[param(min_length = 1, max_length = 1000)]
    reason: Option<String>,
}

/// Remove a view with all its generations
///
/// Its build is cancelled and nobody finds it any more. Refused while other views are made from it.
#[utoipa::path(delete, path = "/v1/views/{namespace}/{key}", tag = "views",
    params(ViewPath, DeleteParams),
    responses((status = 200, description = "It is gone", body = ViewChange)))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    request: RequestId,
    Params(asked): Params<DeleteParams>,
) -> Result<Json<ViewChange>, Refusal> {
    let view = named(&caller, name)?;
    let reason = reason_or(asked.reason, "deleted over HTTP");
    let before = paused_now(&app, &view).await?;
    audited(app.store(), &caller, deed("views.delete", &view, &reason, &request), &before, async {
        app.store().view_control().view_delete(view.clone(), caller.word(&reason)).await?;
        app.engine().handlers_wanted_changed();
        let document = ViewChange::new(view.namespace.clone(), view.key.clone(), true);
        Ok((Json(document), json!({ "deleted": true })))
    })
    .await
}
