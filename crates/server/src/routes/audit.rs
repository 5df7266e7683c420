//! What operators did.

use axum::Json;
use axum::extract::State;
use recache_api::{AuditList, AuditRow};
use recache_store::AuditFilter;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::routes;

use super::Routes;
use super::page::{Page, PageParams};
use crate::access::{Action, Caller, Permission};
use crate::documents;
use crate::input::Params;
use crate::refusal::Refusal;
use crate::state::App;

const READ: Permission = Permission::new("audit", Action::Read);

pub(super) fn routes() -> Routes {
    Routes::new().read(READ, routes!(list))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// Only of this namespace
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
    /// Only of this actor
    #[param(min_length = 1, max_length = 256)]
    actor: Option<String>,
    /// Only to this thing
    #[param(min_length = 1, max_length = 1024)]
    target: Option<String>,
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only older than this row; not together with `cursor`
    #[param(min_length = 1, max_length = 2048)]
    before: Option<String>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// What operators did: who, what, to which thing, why, and how it stood before and after; newest first
#[utoipa::path(get, path = "/v1/audit", tag = "audit", operation_id = "list_audit", params(ListParams),
    responses((status = 200, description = "A page", body = AuditList)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<ListParams>,
) -> Result<Json<AuditList>, Refusal> {
    let filter = AuditFilter {
        namespace: caller.list_namespace(asked.namespace)?,
        actor: asked.actor,
        target: asked.target,
        before: None,
        rows_max: 0,
    };
    let page = Page::new("audit", &filter, PageParams { limit: asked.limit, cursor: asked.cursor })?;
    let filter =
        AuditFilter { before: page.before_or("before", asked.before)?, rows_max: page.rows_max(), ..filter };
    let found = app.store().audits().audits_list(filter).await?;
    let rows: Vec<AuditRow> = found.into_iter().map(documents::audit_row).collect();
    let (rows, next) = page.cut(rows, |row| &row.id);
    Ok(Json(AuditList::new(rows, next)))
}
