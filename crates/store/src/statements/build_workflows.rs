//! Builds that a workflow does: the build job's turns, and the parts of its steps.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use recache_model::ids::{JobId, ViewId, WorkflowId};
use recache_model::job::JobEvent;
use recache_model::time::Timestamp;
use recache_model::view_options::{ItemsKept, ViewOptions};
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, Row, texts};
use super::effects::Effects;
use super::jobs::{self, Change, Locked};
use super::workflows::{self, Above, OfBuild};
use super::{items, views};
use crate::build_workflows::{
    BuildSituation, BuildWorkflows, Gathered, KEEP_ITEMS_MAX, Keep, Kept, PREVIOUS_BYTES_MAX,
    PREVIOUS_ITEMS_MAX, PartStart, gather,
};
use crate::error::{Error, Result};
use crate::flow::Waiting;
use crate::records::{LeaseToken, NewWorkflow, Revoked, ViewRecord};

/// A build that waits for its workflow is looked at again after this long, whether or not anybody woke it.
const LOOK_AGAIN: Duration = Duration::from_mins(5);

type Held<T> = std::result::Result<T, Revoked>;

#[async_trait]
impl BuildWorkflows for Driver {
    async fn build_situation(&self, token: LeaseToken) -> Result<Held<BuildSituation>> {
        self.write(work!([] db, now, effects => situation(db, token).await)).await
    }

    async fn build_take_version(&self, token: LeaseToken) -> Result<Held<PartStart>> {
        self.write(work!([] db, now, effects => take_version(db, now, token).await)).await
    }

    async fn build_gather(&self, token: LeaseToken) -> Result<Held<Gathered>> {
        self.write(work!([] db, now, effects => gathered(db, token).await)).await
    }

    async fn part_begin(&self, token: LeaseToken) -> Result<Held<PartStart>> {
        self.write(work!([] db, now, effects => part_begin(db, token).await)).await
    }

    async fn part_keep(&self, token: LeaseToken, keep: Keep) -> Result<Held<Vec<bool>>> {
        self.write(work!([keep] db, now, effects => part_keep(db, token, &keep).await)).await
    }

    async fn previous_read(
        &self,
        token: LeaseToken,
        items: Vec<String>,
    ) -> Result<Held<Vec<(String, String)>>> {
        self.read(look!([items] db, now => previous(db, token, &items).await)).await
    }
}

/// As it is kept: nothing for none.
pub(super) fn options_text(options: &ViewOptions) -> Result<Option<String>> {
    if options.is_empty() { Ok(None) } else { jobs::to_json(options).map(Some) }
}

/// The options of a row of views or of patterns.
pub(super) fn options(row: &Row) -> Result<ViewOptions> {
    let text: Option<String> = row.try_get("options")?;
    Ok(text.map(|text| jobs::json("options", &text)).transpose()?.unwrap_or_default())
}

// --- the build job --------------------------------------------------------------------------------------------

async fn situation(db: &mut Connection, token: LeaseToken) -> Result<Held<BuildSituation>> {
    let view = match items::held_view(db, token).await? {
        Ok(view) => view,
        Err(revoked) => return Ok(Err(revoked)),
    };
    let row = sqlx::query(
        "SELECT w.id, w.state FROM jobs j JOIN workflows w ON w.id = j.sub_workflow_id WHERE j.id = $1",
    )
    .bind(token.job.uuid())
    .fetch_optional(db)
    .await?;
    let running = match row {
        None => None,
        Some(row) => {
            let state: String = row.try_get("state")?;
            let state = state.parse().map_err(|error| Error::broken(format!("state: {error}")))?;
            Some((WorkflowId::from_uuid(row.try_get("id")?), state))
        }
    };
    let definition = view.definition;
    Ok(Ok(BuildSituation {
        namespace: definition.namespace,
        running,
        workflow: definition.options.workflow,
        queue: definition.queue,
        handler: definition.handler,
    }))
}

async fn take_version(db: &mut Connection, now: Timestamp, token: LeaseToken) -> Result<Held<PartStart>> {
    let view = match items::take_version(db, now, token).await? {
        Ok(view) => view,
        Err(revoked) => return Ok(Err(revoked)),
    };
    // Of builds that came to nothing. What they put stays staged.
    sqlx::query("DELETE FROM view_kept WHERE view_id = $1").bind(view.id.uuid()).execute(&mut *db).await?;
    start(db, view).await.map(Ok)
}

async fn start(db: &mut Connection, view: ViewRecord) -> Result<PartStart> {
    let live_version = view.versions.live;
    let touched = items::touched(db, view.id, live_version).await?;
    let version = view.versions.processing.ok_or_else(|| Error::broken("a build began without a version"))?;
    Ok(PartStart {
        view: view.id,
        is_held: view.definition.options.items == ItemsKept::CacheOnly,
        namespace: view.definition.namespace,
        key: view.definition.key,
        version,
        live_version,
        touched,
    })
}

/// The build job waits without a lease for the workflow that does it. Its view is locked, and its token is good.
pub(super) async fn wait(
    db: &mut Connection,
    now: Timestamp,
    job: &Locked,
    waiting: &Waiting,
    effects: &mut Effects,
) -> Result<()> {
    if job.view.is_none() {
        return Err(Error::Invalid("only a step or a build can wait".to_owned()));
    }
    let mut due_at = now.plus(LOOK_AGAIN);
    match waiting {
        Waiting::Signal { .. } => {
            return Err(Error::Invalid("a build waits for no signal; a step of its workflow may".to_owned()));
        }
        Waiting::NewWorkflow(new) => insert(db, now, job, new, effects).await?,
        Waiting::Workflow => {
            if !workflows::is_below_running(db, job.id).await? {
                due_at = now;
            }
        }
    }
    let change = Change { due_at: Some(due_at), uncount_attempt: true, ..Change::default() };
    jobs::advance(db, now, job, JobEvent::Release, change, effects).await?;
    Ok(())
}

async fn insert(
    db: &mut Connection,
    now: Timestamp,
    job: &Locked,
    new: &NewWorkflow,
    effects: &mut Effects,
) -> Result<()> {
    jobs::check(new.steps.iter().map(|step| &step.job))?;
    workflows::template_put(db, now, &new.template, new.template_raise.as_ref(), effects).await?;
    let row =
        sqlx::query("SELECT v.lease_epoch FROM jobs j JOIN views v ON v.id = j.view_id WHERE j.id = $1")
            .bind(job.id.uuid())
            .fetch_one(&mut *db)
            .await?;
    let build = OfBuild { job: job.id, lease_epoch: row.try_get("lease_epoch")? };
    let above = Above { workflow: None, step: job.id, depth: 0, build: Some(build) };
    if !workflows::insert(db, now, new, Some(above), effects).await? {
        return Err(Error::Conflict(format!("workflow `{}` is there already", new.id)));
    }
    workflows::put_below(db, job.id, new.id).await
}

/// Before a build job is ended that a workflow may do, in the one order of locks: the workflow and all below it, locked. How far they have come is
/// kept with the job. Its view is locked.
pub(super) async fn before_end(db: &mut Connection, build: JobId) -> Result<()> {
    let row = sqlx::query(
        "SELECT sub_workflow_id FROM jobs WHERE id = $1 AND view_id IS NOT NULL AND sub_workflow_id IS NOT NULL",
    )
    .bind(build.uuid())
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(()) };
    let workflow: Uuid = row.try_get("sub_workflow_id")?;
    workflows::lock_tree(db, WorkflowId::from_uuid(workflow)).await?;
    sqlx::query(
        "UPDATE jobs SET progress = (SELECT CAST(w.steps_done AS DOUBLE PRECISION) / \
         NULLIF(w.steps_blocked + w.steps_active + w.steps_done + w.steps_failed + w.steps_cancelled, 0) \
         FROM workflows w WHERE w.id = $2) WHERE id = $1",
    )
    .bind(build.uuid())
    .bind(workflow)
    .execute(db)
    .await?;
    Ok(())
}

/// Locks the workflows that do the builds of these views, which are locked, in the one order.
pub(super) async fn lock_all(db: &mut Connection, views: &[Uuid]) -> Result<()> {
    sqlx::query(concat!(
        "SELECT id FROM workflows WHERE build_job_id IN (SELECT build_job_id FROM views WHERE build_job_id IS NOT NULL AND id ",
        in_ids!("$1"),
        ") AND state = 'running' ORDER BY id",
        for_update!()
    ))
    .bind(super::super::ids(views))
    .fetch_all(db)
    .await?;
    Ok(())
}

/// A workflow that did a build which is over does it no more: whatever it makes would be for nothing.
pub(super) async fn check_goes_on(db: &mut Connection, workflow: WorkflowId) -> Result<()> {
    let row = sqlx::query(
        "SELECT w.build_job_id FROM workflows w WHERE w.id = $1 AND w.build_job_id IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM views v WHERE v.build_job_id = w.build_job_id AND v.lease_epoch = w.build_epoch)",
    )
    .bind(workflow.uuid())
    .fetch_optional(db)
    .await?;
    match row {
        None => Ok(()),
        Some(_) => Err(Error::Conflict(format!(
            "workflow `{workflow}` did a build that is over: touch or rebuild the view instead"
        ))),
    }
}

async fn gathered(db: &mut Connection, token: LeaseToken) -> Result<Held<Gathered>> {
    let view = match items::held_view(db, token).await? {
        Ok(view) => view,
        Err(revoked) => return Ok(Err(revoked)),
    };
    let Some(version) = view.versions.processing else { return Ok(Err(Revoked::Superseded)) };
    let texts_of =
        |rows: Vec<Row>| rows.iter().map(|row| Ok(row.try_get("item")?)).collect::<Result<Vec<String>>>();
    let live = sqlx::query("SELECT item FROM view_items WHERE view_id = $1 AND died IS NULL ORDER BY item")
        .bind(view.id.uuid())
        .fetch_all(&mut *db)
        .await?;
    let put = sqlx::query("SELECT item FROM view_staged WHERE view_id = $1 AND lease_epoch = $2")
        .bind(view.id.uuid())
        .bind(view.versions.lease_epoch)
        .fetch_all(&mut *db)
        .await?;
    let said = sqlx::query("SELECT kind, items FROM view_kept WHERE view_id = $1 AND lease_epoch = $2")
        .bind(view.id.uuid())
        .bind(view.versions.lease_epoch)
        .fetch_all(db)
        .await?;
    let (mut kept, mut taken) = (Kept::default(), HashSet::new());
    for row in said {
        let items: Vec<String> = jobs::json("items", row.try_get("items")?)?;
        match row.try_get::<&str, _>("kind")? {
            "live" => kept.items.extend(items),
            "taken" => taken.extend(items),
            "dropped" => kept.dropped.extend(items),
            _ => kept.rest = true,
        }
    }
    let put: HashSet<String> = texts_of(put)?.into_iter().collect();
    Ok(Ok(gather(version, texts_of(live)?, &put, &taken, &kept)))
}

// --- the steps ------------------------------------------------------------------------------------------------

/// The view that the workflow of a step builds, locked, where the step's token is good; with whether it goes on from a checkpoint.
pub(super) async fn held_part(db: &mut Connection, token: LeaseToken) -> Result<Held<(ViewRecord, bool)>> {
    let row = sqlx::query(
        "SELECT w.build_job_id, w.build_epoch, b.view_id, j.checkpoint IS NOT NULL AS goes_on FROM jobs j \
         LEFT JOIN workflows w ON w.id = j.workflow_id LEFT JOIN jobs b ON b.id = w.build_job_id WHERE j.id = $1",
    )
    .bind(token.job.uuid())
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(Err(Revoked::Gone)) };
    let (build, view) =
        (row.try_get::<Option<Uuid>, _>("build_job_id")?, row.try_get::<Option<Uuid>, _>("view_id")?);
    let (goes_on, epoch): (bool, Option<i64>) = (row.try_get("goes_on")?, row.try_get("build_epoch")?);
    let Some((build, view)) = build.zip(view) else {
        return Err(Error::Invalid(format!("job `{}` is no part of a build", token.job)));
    };
    let view = views::lock(db, ViewId::from_uuid(view)).await?;
    let Some(job) = jobs::lock(db, token.job).await? else { return Ok(Err(Revoked::Gone)) };
    if let Err(revoked) = job.held_by(token) {
        return Ok(Err(revoked));
    }
    let goes_for = view.build == Some(JobId::from_uuid(build)) && Some(view.versions.lease_epoch) == epoch;
    if !goes_for || view.versions.processing.is_none() {
        // Its workflow was retried by hand after the build had ended, or had begun anew.
        return Err(Error::Invalid(format!("the build that job `{}` is a part of is over", token.job)));
    }
    Ok(Ok((view, goes_on)))
}

async fn part_begin(db: &mut Connection, token: LeaseToken) -> Result<Held<PartStart>> {
    let (view, goes_on) = match held_part(db, token).await? {
        Ok(held) => held,
        Err(revoked) => return Ok(Err(revoked)),
    };
    if !goes_on {
        // No build has the epoch 0: the rows can be taken over, and are published with none.
        for statement in [
            "UPDATE view_staged SET lease_epoch = 0 WHERE view_id = $1 AND put_by = $2 AND put_epoch <> $3 AND lease_epoch = $4",
            "DELETE FROM view_kept WHERE view_id = $1 AND put_by = $2 AND put_epoch <> $3 AND lease_epoch = $4",
        ] {
            sqlx::query(statement)
                .bind(view.id.uuid())
                .bind(token.job.uuid())
                .bind(token.epoch)
                .bind(view.versions.lease_epoch)
                .execute(&mut *db)
                .await?;
        }
    }
    start(db, view).await.map(Ok)
}

/// A build is the only one that replaces what is live while it goes on, so nothing need be locked: once the token is void, whatever was read is
/// for nothing.
async fn previous(
    db: &mut Connection,
    token: LeaseToken,
    items: &[String],
) -> Result<Held<Vec<(String, String)>>> {
    if items.len() > PREVIOUS_ITEMS_MAX {
        return Err(Error::Invalid(format!(
            "{} items of the generation before in one call; the limit is {PREVIOUS_ITEMS_MAX}",
            items.len()
        )));
    }
    if let Some((_, revoked)) = jobs::revoked(db, &[token]).await?.pop() {
        return Ok(Err(revoked));
    }
    let row = sqlx::query(
        "SELECT COALESCE(j.view_id, b.view_id) AS view_id FROM jobs j LEFT JOIN workflows w ON w.id = j.workflow_id \
         LEFT JOIN jobs b ON b.id = w.build_job_id WHERE j.id = $1",
    )
    .bind(token.job.uuid())
    .fetch_optional(&mut *db)
    .await?;
    let view = row.map(|row| row.try_get::<Option<Uuid>, _>("view_id")).transpose()?.flatten();
    let Some(view) = view else {
        return Err(Error::Invalid(format!("job `{}` builds no view", token.job)));
    };
    // Measured before it is read.
    let total = sqlx::query(concat!(
        "SELECT CAST(COALESCE(SUM(OCTET_LENGTH(value)), 0) AS BIGINT) AS bytes FROM view_items \
         WHERE view_id = $1 AND died IS NULL AND item ",
        in_texts!("$2")
    ))
    .bind(view)
    .bind(texts(items))
    .fetch_one(&mut *db)
    .await?;
    let bytes = u64::try_from(total.try_get::<i64, _>("bytes")?).unwrap_or(u64::MAX);
    if bytes > PREVIOUS_BYTES_MAX {
        return Err(Error::Invalid(format!(
            "the items of the generation before have {bytes} bytes together; the limit of one call is {PREVIOUS_BYTES_MAX}"
        )));
    }
    let rows = sqlx::query(concat!(
        "SELECT item, value FROM view_items WHERE view_id = $1 AND died IS NULL AND item ",
        in_texts!("$2")
    ))
    .bind(view)
    .bind(texts(items))
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("item")?, row.try_get("value")?))).collect::<Result<_>>().map(Ok)
}

/// Refuses an item that another step of this build has put: which of the two counted would be chance.
pub(super) async fn check_put_once(
    db: &mut Connection,
    view: &ViewRecord,
    token: LeaseToken,
    put: &[String],
) -> Result<()> {
    let row = sqlx::query(concat!(
        "SELECT s.item, j.step FROM view_staged s JOIN jobs j ON j.id = s.put_by WHERE s.view_id = $1 AND s.lease_epoch = $2 \
         AND s.put_by <> $3 AND s.item ",
        in_texts!("$4"),
        " LIMIT 1"
    ))
    .bind(view.id.uuid())
    .bind(view.versions.lease_epoch)
    .bind(token.job.uuid())
    .bind(texts(put))
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(()) };
    let (item, step): (String, Option<String>) = (row.try_get("item")?, row.try_get("step")?);
    Err(Error::Invalid(format!(
        "item `{}` was put by step `{}` of the same build; one step puts an item",
        item.escape_debug(),
        step.unwrap_or_default()
    )))
}

/// Says which step put these items.
pub(super) async fn mark_put(
    db: &mut Connection,
    view: ViewId,
    token: LeaseToken,
    put: &[String],
) -> Result<()> {
    sqlx::query(concat!(
        "UPDATE view_staged SET put_by = $2, put_epoch = $3 WHERE view_id = $1 AND item ",
        in_texts!("$4")
    ))
    .bind(view.uuid())
    .bind(token.job.uuid())
    .bind(token.epoch)
    .bind(texts(put))
    .execute(db)
    .await?;
    Ok(())
}

async fn part_keep(db: &mut Connection, token: LeaseToken, keep: &Keep) -> Result<Held<Vec<bool>>> {
    let count = match keep {
        Keep::Unchanged(items) => items.len(),
        Keep::Live(items) | Keep::Dropped(items) => items.len(),
        Keep::Rest => 0,
    };
    if count > KEEP_ITEMS_MAX {
        return Err(Error::Invalid(format!("{count} items in one call; the limit is {KEEP_ITEMS_MAX}")));
    }
    let (view, _) = match held_part(db, token).await? {
        Ok(held) => held,
        Err(revoked) => return Ok(Err(revoked)),
    };
    match keep {
        Keep::Unchanged(wanted) => unchanged(db, &view, token, wanted).await.map(Ok),
        Keep::Live(wanted) => {
            let live = fingerprints(db, "view_items", view.id, wanted).await?;
            let kept: Vec<&String> = wanted.iter().filter(|item| live.contains_key(*item)).collect();
            say(db, &view, token, "live", &kept).await?;
            Ok(Ok(wanted.iter().map(|item| live.contains_key(item)).collect()))
        }
        Keep::Rest => {
            say_always(db, &view, token, "rest", &[]).await?;
            Ok(Ok(vec![true]))
        }
        Keep::Dropped(items) => {
            say(db, &view, token, "dropped", &items.iter().collect::<Vec<_>>()).await?;
            Ok(Ok(vec![true; items.len()]))
        }
    }
}

async fn unchanged(
    db: &mut Connection,
    view: &ViewRecord,
    token: LeaseToken,
    wanted: &[(String, String)],
) -> Result<Vec<bool>> {
    let names: Vec<String> = wanted.iter().map(|(item, _)| item.clone()).collect();
    let live = fingerprints(db, "view_items", view.id, &names).await?;
    let staged = fingerprints(db, "view_staged", view.id, &names).await?;
    let same = |known: &HashMap<String, Option<String>>, item: &str, fingerprint: &str| {
        known.get(item).is_some_and(|known| known.as_deref() == Some(fingerprint))
    };
    let (mut kept, mut taken, mut answers) = (Vec::new(), Vec::new(), Vec::with_capacity(wanted.len()));
    for (item, fingerprint) in wanted {
        let is_live = same(&live, item, fingerprint);
        let is_staged = !is_live && same(&staged, item, fingerprint);
        if is_live {
            kept.push(item);
        } else if is_staged {
            taken.push(item);
        }
        answers.push(is_live || is_staged);
    }
    if !taken.is_empty() {
        let names: Vec<String> = taken.iter().map(|item| (*item).clone()).collect();
        check_put_once(db, view, token, &names).await?;
        sqlx::query(concat!(
            "UPDATE view_staged SET lease_epoch = $2 WHERE view_id = $1 AND item ",
            in_texts!("$3")
        ))
        .bind(view.id.uuid())
        .bind(view.versions.lease_epoch)
        .bind(texts(&names))
        .execute(&mut *db)
        .await?;
        mark_put(db, view.id, token, &names).await?;
    }
    say(db, view, token, "live", &kept).await?;
    say(db, view, token, "taken", &taken).await?;
    Ok(answers)
}

/// Fingerprints of those of these items that are there: live ones, or staged ones.
async fn fingerprints(
    db: &mut Connection,
    table: &str,
    view: ViewId,
    wanted: &[String],
) -> Result<HashMap<String, Option<String>>> {
    let statement = if table == "view_items" {
        concat!(
            "SELECT item, fingerprint FROM view_items WHERE view_id = $1 AND died IS NULL AND gone_at IS NULL AND item ",
            in_texts!("$2")
        )
    } else {
        concat!("SELECT item, fingerprint FROM view_staged WHERE view_id = $1 AND item ", in_texts!("$2"))
    };
    let rows = sqlx::query(statement).bind(view.uuid()).bind(texts(wanted)).fetch_all(db).await?;
    rows.iter().map(|row| Ok((row.try_get("item")?, row.try_get("fingerprint")?))).collect()
}

async fn say(
    db: &mut Connection,
    view: &ViewRecord,
    token: LeaseToken,
    kind: &str,
    items: &[&String],
) -> Result<()> {
    if items.is_empty() { Ok(()) } else { say_always(db, view, token, kind, items).await }
}

async fn say_always(
    db: &mut Connection,
    view: &ViewRecord,
    token: LeaseToken,
    kind: &str,
    items: &[&String],
) -> Result<()> {
    sqlx::query(
        "INSERT INTO view_kept (id, view_id, lease_epoch, put_by, put_epoch, kind, items) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(Uuid::new_v4())
    .bind(view.id.uuid())
    .bind(view.versions.lease_epoch)
    .bind(token.job.uuid())
    .bind(token.epoch)
    .bind(kind)
    .bind(jobs::to_json(&items)?)
    .execute(db)
    .await?;
    Ok(())
}
