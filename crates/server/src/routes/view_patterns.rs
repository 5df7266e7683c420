//! Patterns of views: definitions that cover many, and touches of many.
//!
//! A pattern is one segment of the path, percent-encoded: `alliance/*` is `alliance%2F*`.

use axum::Json;
use axum::extract::State;
use recache_api::{DefineView, TouchMatching, ViewChange, ViewPattern, ViewPatternList, ViewsMatching};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::routes;

use super::page::{Page, PageParams};
use super::views::definition;
use super::{Routes, reason_or, wrong};
use crate::access::{Action, Caller, Permission};
use crate::audited::{Deed, audited};
use crate::documents;
use crate::frame::RequestId;
use crate::input::{Input, Params, Segments};
use crate::refusal::Refusal;
use crate::state::App;

const READ: Permission = Permission::new("views", Action::Read);
const WRITE: Permission = Permission::new("views", Action::Write);
const OPERATE: Permission = Permission::new("views", Action::Operate);

pub(super) fn routes() -> Routes {
    Routes::new()
        .read(READ, routes!(list))
        .write_once(WRITE, routes!(define))
        .write_once(WRITE, routes!(touch))
        .write_once(OPERATE, routes!(delete))
}

/// Which pattern, in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct PatternPath {
    /// Who it belongs to
    namespace: String,
    /// `*` stands for any text, all else for itself
    pattern: String,
}

type Named = Segments<PatternPath>;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// Only of this namespace
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only those after this one, `NAMESPACE/PATTERN`; not together with `cursor`
    #[param(min_length = 1, max_length = 2048)]
    after: Option<String>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// List patterns of views by namespace and pattern
#[utoipa::path(get, path = "/v1/view-patterns", tag = "views", params(ListParams),
    operation_id = "list_view_patterns",
    responses((status = 200, description = "A page", body = ViewPatternList)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<ListParams>,
) -> Result<Json<ViewPatternList>, Refusal> {
    let namespace = caller.list_namespace(asked.namespace)?;
    let page =
        Page::new("view patterns", &namespace, PageParams { limit: asked.limit, cursor: asked.cursor })?;
    let after = page.after_named(asked.after, "pattern", "NAMESPACE/PATTERN")?;
    let found =
        app.store().view_patterns().patterns_list(namespace.as_deref(), after, page.rows_max()).await?;
    let named = |pattern: ViewPattern| (format!("{}/{}", pattern.namespace, pattern.pattern), pattern);
    let (patterns, next) = page.cut_placed(found.into_iter().map(documents::view_pattern).map(named));
    Ok(Json(ViewPatternList::new(patterns, next)))
}

/// Create a pattern of views, or change it and every view that was made from it
///
/// A view whose key it covers is made by its first touch. Of several patterns that cover a key the one with most letters of its own is meant. Answers
/// how many views were changed.
#[utoipa::path(put, path = "/v1/view-patterns/{namespace}/{pattern}", tag = "views", request_body = DefineView,
    operation_id = "define_view_pattern", params(PatternPath),
    responses((status = 200, description = "It stands", body = ViewsMatching)))]
async fn define(
    State(app): State<App>,
    caller: Caller,
    Segments(PatternPath { namespace, pattern }): Named,
    Input(asked): Input<DefineView>,
) -> Result<Json<ViewsMatching>, Refusal> {
    caller.check_namespace(&namespace)?;
    let definition =
        definition(namespace.clone(), pattern.clone(), asked).map_err(|problem| wrong(&[problem]))?;
    let views = app.engine().define_view_pattern(definition).await?;
    Ok(Json(ViewsMatching::new(namespace, pattern, views)))
}

/// Touch every view that is there and that the pattern covers
///
/// In steps, each all or none; after an error some may be touched, and repeating it touches them again.
#[utoipa::path(post, path = "/v1/view-patterns/{namespace}/{pattern}/touch", tag = "views",
    operation_id = "touch_views_matching", request_body = TouchMatching, params(PatternPath),
    responses((status = 200, description = "How many were touched, perhaps none", body = ViewsMatching)))]
async fn touch(
    State(app): State<App>,
    caller: Caller,
    Segments(PatternPath { namespace, pattern }): Named,
    Input(asked): Input<TouchMatching>,
) -> Result<Json<ViewsMatching>, Refusal> {
    caller.check_found(&namespace, "pattern of views", &format!("{namespace}/{pattern}"))?;
    let word = asked.reason.map(|reason| caller.word(&reason));
    let views = app.engine().touch_matching(&namespace, &pattern, asked.items, word).await?;
    Ok(Json(ViewsMatching::new(namespace, pattern, views)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct DeleteParams {
    /// Why; kept in the audit
    #[param(min_length = 1, max_length = 1000)]
    reason: Option<String>,
}

/// Remove a pattern; the views that were made from it stay as they are
#[utoipa::path(delete, path = "/v1/view-patterns/{namespace}/{pattern}", tag = "views",
    operation_id = "delete_view_pattern", params(PatternPath, DeleteParams),
    responses((status = 200, description = "It is gone", body = ViewChange)))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Segments(PatternPath { namespace, pattern }): Named,
    request: RequestId,
    Params(asked): Params<DeleteParams>,
) -> Result<Json<ViewChange>, Refusal> {
    let target = format!("{namespace}/{pattern}");
    caller.check_found(&namespace, "pattern of views", &target)?;
    let reason = reason_or(asked.reason, "deleted over HTTP");
    let deed = Deed {
        action: "view_patterns.delete",
        namespace: Some(&namespace),
        target,
        reason: &reason,
        request: &request,
    };
    audited(app.store(), &caller, deed, &json!({ "deleted": false }), async {
        app.store().view_patterns().pattern_delete(&namespace, &pattern).await?;
        app.engine().handlers_wanted_changed();
        Ok((Json(ViewChange::new(namespace.clone(), pattern.clone(), true)), json!({ "deleted": true })))
    })
    .await
}
