//! The routes of workers.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use recache_api::{
    BeginBuild, KeepItems, PutItems, ReadPrevious, RegisterWorker, WorkerAnswer, WorkerBuild, WorkerCall,
    WorkerDone, WorkerKept, WorkerList, WorkerPart, WorkerPrevious, WorkerSession, WorkerShown,
};
use recache_engine::remote::Remote;
use recache_model::handlers::Worker;
use recache_model::ids::SessionId;
use recache_store::Revoked;
use utoipa_axum::routes;

use super::{answers, calls};
use crate::access::{Action, Caller, Permission, Reach};
use crate::documents;
use crate::frame::Turn;
use crate::input::{Id, Input};
use crate::refusal::{Code, Refusal};
use crate::routes::Routes;
use crate::state::App;

const RUN: Permission = Permission::new("workers", Action::Run);
const READ: Permission = Permission::new("workers", Action::Read);

/// Workers that one list shows.
const LISTED_MAX: u32 = 10_000;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .repeatable(RUN, routes!(register_worker))
        .read(READ, routes!(list_workers))
        .read(READ, routes!(show_worker))
        .repeatable(RUN, routes!(worker_call))
        .repeatable(RUN, routes!(begin_build))
        .repeatable(RUN, routes!(put_items))
        .repeatable(RUN, routes!(begin_part))
        .repeatable(RUN, routes!(keep_items))
        .repeatable(RUN, routes!(read_previous))
        .repeatable(RUN, routes!(end_worker))
}

/// The session's secret.
struct Secret(String);

impl FromRequestParts<App> for Secret {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Refusal> {
        let given = parts.headers.get(WorkerSession::SECRET_HEADER).and_then(|value| value.to_str().ok());
        given.map(|secret| Self(secret.to_owned())).ok_or_else(|| {
            Refusal::field(
                Code::InvalidParameter,
                "Recache-Session-Secret",
                "is missing: it is the `secret` of the session's registration",
            )
        })
    }
}

/// Register a worker
///
/// Opens a session that lives while the worker is heard of. Safe to repeat: a session that nobody uses ends by itself.
#[utoipa::path(post, path = "/v1/workers", tag = "workers", request_body = RegisterWorker, responses(
    (status = 201, description = "The session; its secret is not shown again", body = WorkerSession)))]
async fn register_worker(
    State(app): State<App>,
    caller: Caller,
    Input(asked): Input<RegisterWorker>,
) -> Result<(StatusCode, Json<WorkerSession>), Refusal> {
    for namespace in asked.namespaces.iter().flatten() {
        caller.check_namespace(namespace)?;
    }
    let of_key = match caller.identity.grants.reach(RUN) {
        Reach::All => None,
        Reach::Only(namespaces) => Some(namespaces.into_iter().collect()),
    };
    let worker = calls::new_worker(asked, of_key);
    let opened = app.engine().remote().open(worker).await?;
    let lease_ms = u64::try_from(opened.lease.as_millis()).unwrap_or(u64::MAX);
    let document = WorkerSession::new(opened.session.to_string(), opened.secret, lease_ms);
    Ok((StatusCode::CREATED, Json(document)))
}

/// List workers whose sessions have not ended, the newest first
///
/// Remote ones, and processes at the database that have handlers; of a namespace's key those that serve its namespaces alone.
#[utoipa::path(get, path = "/v1/workers", tag = "workers",
    responses((status = 200, description = "The workers", body = WorkerList)))]
async fn list_workers(State(app): State<App>, caller: Caller) -> Result<Json<WorkerList>, Refusal> {
    let workers = visible(&app, &caller).await?;
    Ok(Json(WorkerList::new(workers.into_iter().map(documents::worker).collect())))
}

async fn visible(app: &App, caller: &Caller) -> Result<Vec<Worker>, Refusal> {
    let mut workers = app.store().handler_offers().handlers_workers(LISTED_MAX).await?;
    workers.retain(|worker| serves(caller, worker.namespaces.as_deref()));
    Ok(workers)
}

/// A worker by its session
#[utoipa::path(get, path = "/v1/workers/{session}", tag = "workers",
    params(("session" = String, Path, description = "`ses_…`")),
    responses((status = 200, description = "The worker", body = WorkerShown)))]
async fn show_worker(
    State(app): State<App>,
    caller: Caller,
    Id(session): Id<SessionId>,
) -> Result<Json<WorkerShown>, Refusal> {
    let workers = visible(&app, &caller).await?;
    let found = workers.into_iter().find(|worker| worker.session == session);
    let worker = found.ok_or_else(|| Refusal::not_found("worker", &session.to_string()))?;
    Ok(Json(WorkerShown::new(documents::worker(worker))))
}

/// Say and ask everything in one call: ends, reports, a sign of life, a claim
///
/// Every part may be left out. The answer comes when there is something to do or to stop, or after `wait_ms`. When no answer comes, or
/// one of 5xx, the same call is to be repeated: that is safe.
#[utoipa::path(post, path = "/v1/workers/{session}/call", tag = "workers",
    params(("session" = String, Path, description = "`ses_…`"),
        ("Recache-Session-Secret" = String, Header, description = "The session's secret")),
    request_body = WorkerCall,
    responses((status = 200, description = "What became of it, and what is to be done", body = WorkerAnswer)))]
async fn worker_call(
    State(app): State<App>,
    caller: Caller,
    Id(session): Id<SessionId>,
    Secret(secret): Secret,
    turn: Turn,
    Input(asked): Input<WorkerCall>,
) -> Result<Json<WorkerAnswer>, Refusal> {
    let remote = app.engine().remote();
    check(&remote, &caller, session, &secret).await?;
    let tokens = calls::Tokens::of(&asked);
    let mut call = calls::call(asked)?;
    call.wait = call.wait.min(app.settings().wait_max);
    let _place = if call.wait.is_zero() { None } else { Some(turn.wait(app.admission())?) };
    let mut answering = std::pin::pin!(remote.call(session, &secret, call));
    let answer = tokio::select! {
        answer = &mut answering => answer,
        () = app.stop().cancelled() => {
            // Not cut off: what the worker said is taken, and it is told to go elsewhere.
            remote.retire();
            answering.await
        }
    };
    Ok(Json(answers::answer(answer?, &tokens)))
}

/// Begin the build of a view: what it starts from
///
/// It takes the newest version that is wanted. Safe to repeat.
#[utoipa::path(post, path = "/v1/workers/{session}/build", tag = "workers",
    params(("session" = String, Path, description = "`ses_…`"),
        ("Recache-Session-Secret" = String, Header, description = "The session's secret")),
    request_body = BeginBuild,
    responses((status = 200, description = "What it starts from", body = WorkerBuild)))]
async fn begin_build(
    State(app): State<App>,
    caller: Caller,
    Id(session): Id<SessionId>,
    Secret(secret): Secret,
    Input(asked): Input<BeginBuild>,
) -> Result<Json<WorkerBuild>, Refusal> {
    let remote = app.engine().remote();
    check(&remote, &caller, session, &secret).await?;
    let token = calls::token("/token", &asked.token)?;
    match remote.build_begin(session, &secret, token).await?.ok_or_else(ended)? {
        Ok(start) => Ok(Json(answers::build(start))),
        Err(why) => Err(lost(why)),
    }
}

/// Put items of a build where no reader looks
///
/// Safe to repeat: an item is put under its key.
#[utoipa::path(post, path = "/v1/workers/{session}/items", tag = "workers",
    params(("session" = String, Path, description = "`ses_…`"),
        ("Recache-Session-Secret" = String, Header, description = "The session's secret")),
    request_body = PutItems,
    responses((status = 200, description = "They are kept", body = WorkerDone)))]
async fn put_items(
    State(app): State<App>,
    caller: Caller,
    Id(session): Id<SessionId>,
    Secret(secret): Secret,
    Input(asked): Input<PutItems>,
) -> Result<Json<WorkerDone>, Refusal> {
    let remote = app.engine().remote();
    check(&remote, &caller, session, &secret).await?;
    let token = calls::token("/token", &asked.token)?;
    match remote.build_put(session, &secret, token, calls::items(asked.items)).await?.ok_or_else(ended)? {
        None => Ok(Json(WorkerDone::new(true))),
        Some(why) => Err(lost(why)),
    }
}

/// Begin a step's part of the build that its workflow does: what it starts from
///
/// Items are put with the step's token. A step of a workflow that builds no view is refused. Safe to repeat.
#[utoipa::path(post, path = "/v1/workers/{session}/part", tag = "workers",
    params(("session" = String, Path, description = "`ses_…`"),
        ("Recache-Session-Secret" = String, Header, description = "The session's secret")),
    request_body = BeginBuild,
    responses((status = 200, description = "What it starts from", body = WorkerPart)))]
async fn begin_part(
    State(app): State<App>,
    caller: Caller,
    Id(session): Id<SessionId>,
    Secret(secret): Secret,
    Input(asked): Input<BeginBuild>,
) -> Result<Json<WorkerPart>, Refusal> {
    let remote = app.engine().remote();
    check(&remote, &caller, session, &secret).await?;
    let token = calls::token("/token", &asked.token)?;
    match remote.part_begin(session, &secret, token).await?.ok_or_else(ended)? {
        Ok(start) => Ok(Json(answers::part(start))),
        Err(why) => Err(lost(why)),
    }
}

/// Keep items that a step of a workflow that builds a view does not put
///
/// Safe to repeat.
#[utoipa::path(post, path = "/v1/workers/{session}/keep", tag = "workers",
    params(("session" = String, Path, description = "`ses_…`"),
        ("Recache-Session-Secret" = String, Header, description = "The session's secret")),
    request_body = KeepItems,
    responses((status = 200, description = "Which of them stay", body = WorkerKept)))]
async fn keep_items(
    State(app): State<App>,
    caller: Caller,
    Id(session): Id<SessionId>,
    Secret(secret): Secret,
    Input(asked): Input<KeepItems>,
) -> Result<Json<WorkerKept>, Refusal> {
    let remote = app.engine().remote();
    check(&remote, &caller, session, &secret).await?;
    let token = calls::token("/token", &asked.token)?;
    let keep = calls::keep(asked)?;
    match remote.part_keep(session, &secret, token, keep).await?.ok_or_else(ended)? {
        Ok(kept) => Ok(Json(WorkerKept::new(kept))),
        Err(why) => Err(lost(why)),
    }
}

/// Read items of the live version, for a build or a step's part of one
///
/// At most 1,000 of them and 32 MiB of values.
#[utoipa::path(post, path = "/v1/workers/{session}/previous", tag = "workers",
    params(("session" = String, Path, description = "`ses_…`"),
        ("Recache-Session-Secret" = String, Header, description = "The session's secret")),
    request_body = ReadPrevious,
    responses((status = 200, description = "Those that there are", body = WorkerPrevious)))]
async fn read_previous(
    State(app): State<App>,
    caller: Caller,
    Id(session): Id<SessionId>,
    Secret(secret): Secret,
    Input(asked): Input<ReadPrevious>,
) -> Result<Json<WorkerPrevious>, Refusal> {
    let remote = app.engine().remote();
    check(&remote, &caller, session, &secret).await?;
    let token = calls::token("/token", &asked.token)?;
    match remote.previous_read(session, &secret, token, asked.items).await?.ok_or_else(ended)? {
        Ok(items) => Ok(Json(WorkerPrevious::new(items.into_iter().map(answers::item).collect()))),
        Err(why) => Err(lost(why)),
    }
}

/// End a session: what it still holds goes to others at once
#[utoipa::path(delete, path = "/v1/workers/{session}", tag = "workers",
    params(("session" = String, Path, description = "`ses_…`"),
        ("Recache-Session-Secret" = String, Header, description = "The session's secret")),
    responses((status = 200, description = "It has ended, by this call or before", body = WorkerDone)))]
async fn end_worker(
    State(app): State<App>,
    caller: Caller,
    Id(session): Id<SessionId>,
    Secret(secret): Secret,
) -> Result<Json<WorkerDone>, Refusal> {
    let remote = app.engine().remote();
    check(&remote, &caller, session, &secret).await?;
    Ok(Json(WorkerDone::new(remote.close(session, &secret).await?)))
}

/// Whether the caller may do this to something of all these namespaces.
fn serves(caller: &Caller, namespaces: Option<&[String]>) -> bool {
    let grants = &caller.identity.grants;
    match namespaces {
        Some(namespaces) => namespaces.iter().all(|one| grants.allow_in(caller.permission, one)),
        None => grants.reach(caller.permission) == Reach::All,
    }
}

/// A key that may no longer serve what its worker serves serves nothing.
async fn check(remote: &Remote, caller: &Caller, session: SessionId, secret: &str) -> Result<(), Refusal> {
    match remote.namespaces(session, secret).await? {
        Some(namespaces) if !serves(caller, namespaces.as_deref()) => {
            Err(Refusal::not_found("worker session", &session.to_string()))
        }
        // One that has ended holds nothing: there is nothing to guard.
        _ => Ok(()),
    }
}

fn ended() -> Refusal {
    Refusal::new(Code::SessionEnded, "the worker was silent for longer than its lease, or ended its session")
        .remedy("register again; the session's jobs are with others")
}

fn lost(why: Revoked) -> Refusal {
    let (word, _) = answers::loss(why);
    Refusal::new(Code::LeaseLost, format!("{word}: the job is no longer this worker's; nothing was changed"))
        .remedy("stop its handler, and do not settle it")
}
