//! Dead letters: jobs that failed for good, and what is done about them.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use recache_api::{
    BulkChange, Letter as LetterDocument, LetterDetails, LetterList, LetterStatus as StatusDocument,
    LetterWord, NoteLetter, RedriveLetters,
};
use recache_model::ids::JobId;
use recache_model::letter::LetterStatus;
use recache_store::{Letter, LetterFilter};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa_axum::routes;

use super::page::{Page, PageParams};
use super::{Routes, steps};
use crate::access::{Action, Caller, Permission};
use crate::audited::{Deed, audited};
use crate::documents;
use crate::frame::RequestId;
use crate::input::{Id, Input, Params, cursor};
use crate::refusal::{Code, Refusal};
use crate::state::App;

const READ: Permission = Permission::new("dead_letters", Action::Read);
const OPERATE: Permission = Permission::new("dead_letters", Action::Operate);

/// Jobs that one transaction redrives.
const REDRIVEN_ROWS: u32 = 100;
/// No preview counts further.
const PREVIEW_MAX: u32 = 100_000;
/// The list that the cursors of a redrive belong to.
const REDRIVE: &str = "redriven dead letters";

pub(super) fn routes() -> Routes {
    Routes::new()
        .read(READ, routes!(list))
        .read(READ, routes!(show))
        .write_once(OPERATE, routes!(investigate))
        .write_once(OPERATE, routes!(resolve))
        .write_once(OPERATE, routes!(discard))
        .write_once(OPERATE, routes!(note))
        .write_once(OPERATE, routes!(redrive))
        .write_once(OPERATE, routes!(redrive_many))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// Only of this namespace
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
    /// Only of this queue
    #[param(min_length = 1, max_length = 256)]
    queue: Option<String>,
    /// Only of this handler
    #[param(min_length = 1, max_length = 256)]
    handler: Option<String>,
    /// Only in this status; without it pending and investigating
    #[param(inline)]
    status: Option<StatusDocument>,
    /// Only those whose status is at least this old
    #[param(maximum = 315_360_000_000_i64)]
    stale_ms: Option<u64>,
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only of jobs older than this one, `job_…`; not together with `cursor`
    #[param(min_length = 1, max_length = 2048)]
    before: Option<String>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// List dead letters, newest jobs first
#[utoipa::path(get, path = "/v1/dead-letters", tag = "dead letters", operation_id = "list_dead_letters",
    params(ListParams), responses((status = 200, description = "A page", body = LetterList)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<ListParams>,
) -> Result<Json<LetterList>, Refusal> {
    let filter = LetterFilter {
        job: None,
        namespace: caller.list_namespace(asked.namespace)?,
        queue: asked.queue,
        handler: asked.handler,
        status: asked.status.map(status_of),
        stale_for: asked.stale_ms.map(Duration::from_millis),
        before: None,
    };
    let page = Page::new("dead letters", &filter, PageParams { limit: asked.limit, cursor: asked.cursor })?;
    let filter = LetterFilter { before: page.before_or("before", asked.before)?, ..filter };
    let found = app.store().letters().letters_list(filter, page.rows_max()).await?;
    let letters: Vec<LetterDocument> = found.into_iter().map(documents::letter).collect();
    let (letters, next) = page.cut(letters, |letter| &letter.job_id);
    Ok(Json(LetterList::new(letters, next)))
}

/// A dead letter with its attempts and notes
#[utoipa::path(get, path = "/v1/dead-letters/{id}", tag = "dead letters", operation_id = "show_dead_letter",
    params(("id" = String, Path, description = "`job_…`")),
    responses((status = 200, description = "The newest letter of the job", body = LetterDetails)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<JobId>,
) -> Result<Json<LetterDetails>, Refusal> {
    visible(&app, &caller, id).await?;
    details(&app, id).await.map(Json)
}

/// Say that somebody looks at a dead letter
#[utoipa::path(post, path = "/v1/dead-letters/{id}/investigate", tag = "dead letters",
    operation_id = "investigate_dead_letter",
    params(("id" = String, Path, description = "`job_…`")), request_body = LetterWord,
    responses((status = 200, description = "As it stands now", body = LetterDetails)))]
async fn investigate(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<JobId>,
    request: RequestId,
    Input(asked): Input<LetterWord>,
) -> Result<Json<LetterDetails>, Refusal> {
    let status = LetterStatus::Investigating;
    mark(&app, &caller, id, &request, "dead_letters.investigate", status, &asked.reason).await
}

/// Say that nothing will be done about a dead letter
#[utoipa::path(post, path = "/v1/dead-letters/{id}/discard", tag = "dead letters",
    operation_id = "discard_dead_letter",
    params(("id" = String, Path, description = "`job_…`")), request_body = LetterWord,
    responses((status = 200, description = "As it stands now", body = LetterDetails)))]
async fn discard(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<JobId>,
    request: RequestId,
    Input(asked): Input<LetterWord>,
) -> Result<Json<LetterDetails>, Refusal> {
    let status = LetterStatus::Discarded;
    mark(&app, &caller, id, &request, "dead_letters.discard", status, &asked.reason).await
}

async fn mark(
    app: &App,
    caller: &Caller,
    id: JobId,
    request: &RequestId,
    action: &str,
    status: LetterStatus,
    reason: &str,
) -> Result<Json<LetterDetails>, Refusal> {
    let letter = visible(app, caller, id).await?;
    audited(app.store(), caller, deed(action, &letter, reason, request), &state(&letter), async {
        app.store().letters().letter_mark(id, status, caller.word(reason)).await?;
        Ok((Json(details(app, id).await?), json!({ "status": status.as_str() })))
    })
    .await
}

/// Declare a failed job settled
///
/// The job becomes `resolved`; in a workflow what waits for it goes on.
#[utoipa::path(post, path = "/v1/dead-letters/{id}/resolve", tag = "dead letters",
    operation_id = "resolve_dead_letter",
    params(("id" = String, Path, description = "`job_…`")), request_body = LetterWord,
    responses((status = 200, description = "As it stands now", body = LetterDetails)))]
async fn resolve(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<JobId>,
    request: RequestId,
    Input(asked): Input<LetterWord>,
) -> Result<Json<LetterDetails>, Refusal> {
    let letter = visible(&app, &caller, id).await?;
    let deed = deed("dead_letters.resolve", &letter, &asked.reason, &request);
    audited(app.store(), &caller, deed, &state(&letter), async {
        app.store().letters().job_resolve(id, caller.word(&asked.reason)).await?;
        Ok((Json(details(&app, id).await?), json!({ "status": "resolved" })))
    })
    .await
}

/// Add a note to a dead letter
#[utoipa::path(post, path = "/v1/dead-letters/{id}/notes", tag = "dead letters", operation_id = "note_dead_letter",
    params(("id" = String, Path, description = "`job_…`")), request_body = NoteLetter,
    responses((status = 200, description = "As it stands now", body = LetterDetails)))]
async fn note(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<JobId>,
    request: RequestId,
    Input(asked): Input<NoteLetter>,
) -> Result<Json<LetterDetails>, Refusal> {
    let letter = visible(&app, &caller, id).await?;
    let deed = deed("dead_letters.note", &letter, &asked.text, &request);
    audited(app.store(), &caller, deed, &state(&letter), async {
        app.store().letters().letter_note(id, caller.word(&asked.text)).await?;
        Ok((Json(details(&app, id).await?), state(&letter)))
    })
    .await
}

/// Put a dead job back to the queue, with new attempts
#[utoipa::path(post, path = "/v1/dead-letters/{id}/redrive", tag = "dead letters",
    operation_id = "redrive_dead_letter",
    params(("id" = String, Path, description = "`job_…`")), request_body = LetterWord,
    responses((status = 200, description = "Its job is queued", body = LetterDetails)))]
async fn redrive(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<JobId>,
    request: RequestId,
    Input(asked): Input<LetterWord>,
) -> Result<Json<LetterDetails>, Refusal> {
    let letter = visible(&app, &caller, id).await?;
    let deed = deed("dead_letters.redrive", &letter, &asked.reason, &request);
    audited(app.store(), &caller, deed, &state(&letter), async {
        let filter = LetterFilter { job: Some(id), ..LetterFilter::default() };
        let done = app.store().letters().letters_redrive(filter, 1, caller.word(&asked.reason)).await?;
        let now = details(&app, id).await?;
        if done.changed == 0 {
            let detail = format!(
                "the dead letter of job `{id}` is no longer open, or another job of its unique key is there: it was not redriven"
            );
            return Err(Refusal::new(Code::Conflict, detail));
        }
        Ok((Json(now), json!({ "status": "redriven" })))
    })
    .await
}

/// Put the jobs of open dead letters back to the queue, by filter
///
/// One call goes through some thousands, a hundred in a transaction; `next` says that there may be more. With `dry_run` it only counts.
#[utoipa::path(post, path = "/v1/dead-letters/redrive", tag = "dead letters", operation_id = "redrive_dead_letters",
    request_body = RedriveLetters,
    responses((status = 200, description = "How many were put back", body = BulkChange)))]
async fn redrive_many(
    State(app): State<App>,
    caller: Caller,
    request: RequestId,
    Input(asked): Input<RedriveLetters>,
) -> Result<Json<BulkChange>, Refusal> {
    let chooses = asked.job_id.is_some()
        || asked.namespace.is_some()
        || asked.queue.is_some()
        || asked.handler.is_some()
        || asked.stale_ms.is_some();
    if !chooses && !asked.all {
        return Err(Refusal::field(Code::Invalid, "/all", "must be true where no filter is given"));
    }
    let not_an_id = |_| Refusal::field(Code::Invalid, "/job_id", "is no id of a job");
    let filter = LetterFilter {
        job: asked.job_id.as_deref().map(|text| text.parse().map_err(not_an_id)).transpose()?,
        namespace: caller.list_namespace(asked.namespace)?,
        queue: asked.queue,
        handler: asked.handler,
        status: None,
        stale_for: asked.stale_ms.map(Duration::from_millis),
        before: None,
    };
    if asked.dry_run {
        let matching = app.store().letters().letters_count(filter, PREVIEW_MAX).await?;
        return Ok(Json(BulkChange::preview(matching)));
    }
    let before = asked.cursor.map(|text| from_cursor(&filter, &text)).transpose()?;
    let shown = json!({
        "job_id": asked.job_id, "queue": filter.queue, "handler": filter.handler, "stale_ms": asked.stale_ms,
    });
    let deed = Deed {
        action: "dead_letters.redrive_many",
        namespace: filter.namespace.as_deref(),
        target: "open dead letters".to_owned(),
        reason: &asked.reason,
        request: &request,
    };
    audited(app.store(), &caller, deed, &shown, async {
        let redrive = |before| {
            let filter = LetterFilter { before, ..filter.clone() };
            app.store().letters().letters_redrive(filter, REDRIVEN_ROWS, caller.word(&asked.reason))
        };
        let (sum, next) = steps::take("redrive by filter", REDRIVEN_ROWS, before, redrive).await?;
        let next = next.map(|last| cursor::write(REDRIVE, &filter, &last.to_string()));
        let after = json!({ "changed": sum.changed, "skipped": sum.skipped, "is_all": next.is_none() });
        Ok((Json(BulkChange { next, ..BulkChange::done(sum.changed, sum.skipped) }), after))
    })
    .await
}

fn from_cursor(filter: &LetterFilter, text: &str) -> Result<JobId, Refusal> {
    let not_ours =
        || Refusal::field(Code::Invalid, "/cursor", "is not a cursor of a redrive with this filter");
    cursor::read(REDRIVE, filter, text).ok().and_then(|place| place.parse().ok()).ok_or_else(not_ours)
}

/// The newest letter of the job, if it exists for the caller.
async fn visible(app: &App, caller: &Caller, id: JobId) -> Result<Letter, Refusal> {
    let (letter, _) = app.store().letters().letter_get(id).await?;
    caller.check_found(&letter.namespace, "dead letter", &id.to_string())?;
    Ok(letter)
}

async fn details(app: &App, id: JobId) -> Result<LetterDetails, Refusal> {
    let (letter, notes) = app.store().letters().letter_get(id).await?;
    Ok(LetterDetails {
        schema: LetterDetails::SCHEMA.to_owned(),
        letter: documents::letter(letter),
        notes: notes.into_iter().map(documents::letter_note).collect(),
    })
}

fn state(letter: &Letter) -> Value {
    json!({ "status": letter.status.as_str() })
}

fn deed<'a>(action: &'a str, letter: &'a Letter, reason: &'a str, request: &'a RequestId) -> Deed<'a> {
    Deed { action, namespace: Some(&letter.namespace), target: letter.job.to_string(), reason, request }
}

fn status_of(status: StatusDocument) -> LetterStatus {
    match status {
        StatusDocument::Pending => LetterStatus::Pending,
        StatusDocument::Investigating => LetterStatus::Investigating,
        StatusDocument::Redriven => LetterStatus::Redriven,
        StatusDocument::Resolved => LetterStatus::Resolved,
        StatusDocument::Discarded => LetterStatus::Discarded,
    }
}
