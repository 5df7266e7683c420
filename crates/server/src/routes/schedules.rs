//! Schedules: jobs that begin at the ticks of a clock.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use recache_api::{Because, DefineSchedule, OnMissed, OnOverlap, ScheduleAnswer, ScheduleList, Ticks};
use recache_model::ids::JobId;
use recache_model::schedule::{CatchUp, CronSpec, Overlap};
use recache_store::{NewSchedule, ScheduleRecord};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa_axum::routes;

use super::jobs::retry_of;
use super::page::{Page, PageParams};
use super::{Routes, reason_or};
use crate::access::{Action, Caller, Permission};
use crate::audited::{Deed, audited};
use crate::documents;
use crate::frame::{RequestId, Seed};
use crate::input::{Input, Params, Segments};
use crate::refusal::{Code, Refusal};
use crate::state::App;

const READ: Permission = Permission::new("schedules", Action::Read);
const WRITE: Permission = Permission::new("schedules", Action::Write);
const OPERATE: Permission = Permission::new("schedules", Action::Operate);

/// Ticks that are shown where the caller does not say how many.
const TICKS_DEFAULT: u16 = 5;

pub(super) fn routes() -> Routes {
    Routes::new()
        .read(READ, routes!(list))
        .read(READ, routes!(show))
        .write_once(WRITE, routes!(define))
        .write_once(OPERATE, routes!(delete))
        .write_once(OPERATE, routes!(pause))
        .write_once(OPERATE, routes!(resume))
        .write_once(OPERATE, routes!(run))
        .read(READ, routes!(ticks))
        .read(READ, routes!(ticks_of_cron))
}

/// Which schedule, in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct SchedulePath {
    /// Who it belongs to
    namespace: String,
    /// Its name there
    schedule: String,
}

type Named = Segments<SchedulePath>;

/// The schedule that the path names, if it exists for the caller.
async fn visible(
    app: &App,
    caller: &Caller,
    Segments(SchedulePath { namespace, schedule }): Named,
) -> Result<ScheduleRecord, Refusal> {
    caller.check_found(&namespace, "schedule", &format!("{namespace}/{schedule}"))?;
    Ok(app.store().schedules().schedule_get(&namespace, &schedule).await?)
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
    /// `next` of the page before
    cursor: Option<String>,
}

/// List schedules by namespace and name
#[utoipa::path(get, path = "/v1/schedules", tag = "schedules", operation_id = "list_schedules",
    params(ListParams), responses((status = 200, description = "A page", body = ScheduleList)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<ListParams>,
) -> Result<Json<ScheduleList>, Refusal> {
    let namespace = caller.list_namespace(asked.namespace)?;
    let page = Page::new("schedules", &namespace, PageParams { limit: asked.limit, cursor: asked.cursor })?;
    let place: Option<String> = page.before()?;
    let not_ours = |_| Refusal::field(Code::InvalidParameter, "?cursor", "is not a cursor of this list");
    let after = place.map(|place| serde_json::from_str(&place).map_err(not_ours)).transpose()?;
    let found = app.store().schedules().schedules_list(namespace.as_deref(), after, page.rows_max()).await?;
    let place = |record: &ScheduleRecord| json!([record.definition.namespace, record.definition.name]);
    let placed = |record: ScheduleRecord| (place(&record).to_string(), documents::schedule(record));
    let (schedules, next) = page.cut_placed(found.into_iter().map(placed));
    Ok(Json(ScheduleList::new(schedules, next)))
}

/// A schedule
#[utoipa::path(get, path = "/v1/schedules/{namespace}/{schedule}", tag = "schedules",
    operation_id = "show_schedule", params(SchedulePath),
    responses((status = 200, description = "As it stands", body = ScheduleAnswer)))]
async fn show(State(app): State<App>, caller: Caller, name: Named) -> Result<Json<ScheduleAnswer>, Refusal> {
    let record = visible(&app, &caller, name).await?;
    Ok(Json(ScheduleAnswer::new(documents::schedule(record), false)))
}

/// Add a schedule, or change the one of this name; a pause stays
#[utoipa::path(put, path = "/v1/schedules/{namespace}/{schedule}", tag = "schedules",
    operation_id = "define_schedule", params(SchedulePath), request_body = DefineSchedule,
    responses((status = 200, description = "As it stands now, with its first tick", body = ScheduleAnswer)))]
async fn define(
    State(app): State<App>,
    caller: Caller,
    Segments(SchedulePath { namespace, schedule }): Named,
    Input(asked): Input<DefineSchedule>,
) -> Result<Json<ScheduleAnswer>, Refusal> {
    caller.check_namespace(&namespace)?;
    let definition = NewSchedule {
        namespace,
        name: schedule,
        cron: asked.cron,
        zone: asked.zone,
        overlap: match asked.overlap {
            OnOverlap::Skip => Overlap::Skip,
            OnOverlap::Allow => Overlap::Allow,
            OnOverlap::Replace => Overlap::Replace,
        },
        catch_up: match asked.catch_up {
            OnMissed::Skip => CatchUp::Skip,
            OnMissed::Once => CatchUp::Once,
        },
        queue: asked.queue,
        handler: asked.handler,
        input: asked.input.text().to_owned(),
        priority: asked.priority,
        retry: asked.retry.as_ref().map(retry_of).unwrap_or_default(),
        timeout: asked.timeout_ms.map(Duration::from_millis),
    };
    let record = app.store().schedules().schedule_put(definition).await?;
    app.engine().handlers_wanted_changed();
    Ok(Json(ScheduleAnswer::new(documents::schedule(record), true)))
}

/// Let ticks lead to nothing
#[utoipa::path(post, path = "/v1/schedules/{namespace}/{schedule}/pause", tag = "schedules",
    operation_id = "pause_schedule", params(SchedulePath), request_body = Because,
    responses((status = 200, description = "It is paused", body = ScheduleAnswer)))]
async fn pause(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    request: RequestId,
    Input(asked): Input<Because>,
) -> Result<Json<ScheduleAnswer>, Refusal> {
    let record = visible(&app, &caller, name).await?;
    let reason = reason_or(asked.reason, "paused over HTTP");
    let (namespace, name) = (&record.definition.namespace, &record.definition.name);
    let deed = deed("schedules.pause", &record, &reason, &request);
    audited(app.store(), &caller, deed, &state(&record), async {
        app.store().schedules().schedule_pause(namespace, name, caller.word(&reason)).await?;
        now(&app, &record, true).await
    })
    .await
}

/// End a pause; the ticks in it are gone
#[utoipa::path(post, path = "/v1/schedules/{namespace}/{schedule}/resume", tag = "schedules",
    operation_id = "resume_schedule", params(SchedulePath), request_body = Because,
    responses((status = 200, description = "It ticks; `changed` is false when it was not paused", body = ScheduleAnswer)))]
async fn resume(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    request: RequestId,
    Input(asked): Input<Because>,
) -> Result<Json<ScheduleAnswer>, Refusal> {
    let record = visible(&app, &caller, name).await?;
    let reason = reason_or(asked.reason, "resumed over HTTP");
    let (namespace, name) = (&record.definition.namespace, &record.definition.name);
    let deed = deed("schedules.resume", &record, &reason, &request);
    audited(app.store(), &caller, deed, &state(&record), async {
        let changed = app.store().schedules().schedule_resume(namespace, name).await?;
        now(&app, &record, changed).await
    })
    .await
}

/// Make a job now, besides the ticks
///
/// While the former job has not ended this does what `overlap` says, and with `skip` it is refused. `last_job_id` is the job.
#[utoipa::path(post, path = "/v1/schedules/{namespace}/{schedule}/run", tag = "schedules",
    operation_id = "run_schedule", params(SchedulePath), request_body = Because,
    responses((status = 200, description = "Its job is queued", body = ScheduleAnswer)))]
async fn run(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    Seed(seed): Seed,
    request: RequestId,
    Input(asked): Input<Because>,
) -> Result<Json<ScheduleAnswer>, Refusal> {
    let record = visible(&app, &caller, name).await?;
    let reason = reason_or(asked.reason, "run over HTTP");
    let (namespace, name) = (&record.definition.namespace, &record.definition.name);
    let deed = deed("schedules.run", &record, &reason, &request);
    audited(app.store(), &caller, deed, &state(&record), async {
        // In a repetition the store finds the job of the first time by this id.
        app.store().schedules().schedule_run(namespace, name, JobId::from_uuid(seed)).await?;
        now(&app, &record, true).await
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

/// Delete a schedule; its jobs stay
#[utoipa::path(delete, path = "/v1/schedules/{namespace}/{schedule}", tag = "schedules",
    operation_id = "delete_schedule", params(SchedulePath, DeleteParams),
    responses((status = 200, description = "It is gone; as it stood last", body = ScheduleAnswer)))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    request: RequestId,
    Params(asked): Params<DeleteParams>,
) -> Result<Json<ScheduleAnswer>, Refusal> {
    let record = visible(&app, &caller, name).await?;
    let reason = reason_or(asked.reason, "deleted over HTTP");
    let (namespace, name) = (&record.definition.namespace, &record.definition.name);
    let deed = deed("schedules.delete", &record, &reason, &request);
    audited(app.store(), &caller, deed, &state(&record), async {
        app.store().schedules().schedule_delete(namespace, name).await?;
        app.engine().handlers_wanted_changed();
        let document = ScheduleAnswer::new(documents::schedule(record.clone()), true);
        Ok((Json(document), json!({ "deleted": true })))
    })
    .await
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct TicksParams {
    /// So many ticks; default 5
    #[param(minimum = 1, maximum = 1000)]
    count: Option<u16>,
}

/// When a schedule ticks next
#[utoipa::path(get, path = "/v1/schedules/{namespace}/{schedule}/ticks", tag = "schedules",
    operation_id = "list_ticks", params(SchedulePath, TicksParams),
    responses((status = 200, description = "In order", body = Ticks)))]
async fn ticks(
    State(app): State<App>,
    caller: Caller,
    name: Named,
    Params(asked): Params<TicksParams>,
) -> Result<Json<Ticks>, Refusal> {
    let definition = visible(&app, &caller, name).await?.definition;
    let spec = CronSpec::parse(&definition.cron, &definition.zone)
        .map_err(|problem| Refusal::new(Code::Invalid, problem.to_string()))?;
    next_ticks(&app, &spec, definition.zone, asked.count).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct CronParams {
    /// When it would tick
    #[param(min_length = 1, max_length = 256)]
    cron: String,
    /// In which time zone; default UTC
    #[param(min_length = 1, max_length = 256)]
    zone: Option<String>,
    /// So many ticks; default 5
    #[param(minimum = 1, maximum = 1000)]
    count: Option<u16>,
}

/// When a schedule with this expression would tick
#[utoipa::path(get, path = "/v1/ticks", tag = "schedules", operation_id = "list_ticks_of_cron", params(CronParams),
    responses((status = 200, description = "In order", body = Ticks)))]
async fn ticks_of_cron(
    State(app): State<App>,
    Params(asked): Params<CronParams>,
) -> Result<Json<Ticks>, Refusal> {
    let zone = asked.zone.unwrap_or_else(|| "UTC".to_owned());
    let spec = CronSpec::parse(&asked.cron, &zone)
        .map_err(|problem| Refusal::new(Code::InvalidParameter, problem.to_string()))?;
    next_ticks(&app, &spec, zone, asked.count).await
}

async fn next_ticks(
    app: &App,
    spec: &CronSpec,
    zone: String,
    count: Option<u16>,
) -> Result<Json<Ticks>, Refusal> {
    let ticks = spec.next_ticks(app.store().now().await?, usize::from(count.unwrap_or(TICKS_DEFAULT)));
    Ok(Json(Ticks::new(zone, ticks.into_iter().map(documents::instant).collect())))
}

/// The answer to a change, and how it stands then for the audit.
async fn now(
    app: &App,
    record: &ScheduleRecord,
    changed: bool,
) -> Result<(Json<ScheduleAnswer>, Value), Refusal> {
    let (namespace, name) = (&record.definition.namespace, &record.definition.name);
    let record = app.store().schedules().schedule_get(namespace, name).await?;
    let after = state(&record);
    Ok((Json(ScheduleAnswer::new(documents::schedule(record), changed)), after))
}

fn state(record: &ScheduleRecord) -> Value {
    json!({ "paused": record.pause.is_some(), "last_job_id": record.last_job.map(|job| job.to_string()) })
}

fn deed<'a>(
    action: &'a str,
    record: &'a ScheduleRecord,
    reason: &'a str,
    request: &'a RequestId,
) -> Deed<'a> {
    let definition = &record.definition;
    let target = format!("{}/{}", definition.namespace, definition.name);
    Deed { action, namespace: Some(&definition.namespace), target, reason, request }
}
