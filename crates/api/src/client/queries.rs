//! What lists can be asked for. Fields are the parameters of the routes; what is `None` does not choose.

use serde::Serialize;

use crate::instant::Instant;
use crate::job::JobState;
use crate::letter::LetterStatus;
use crate::tracked::TrackedState;

/// Of [`Client::jobs`](super::Client::jobs).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JobsQuery {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only in this state.
    pub state: Option<JobState>,
    /// Only of this queue.
    pub queue: Option<String>,
    /// Only of this handler.
    pub handler: Option<String>,
    /// Only members of this batch.
    pub batch: Option<String>,
    /// Only of what was asked for under this id.
    pub correlation_id: Option<String>,
    /// Only submitted at this instant or later, by the millisecond in their ids.
    pub created_from: Option<Instant>,
    /// Only submitted before this instant, likewise.
    pub created_before: Option<Instant>,
    /// At most so many, 1 to 1,000.
    pub limit: Option<u32>,
    /// Only older than this job.
    pub before: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Of [`Client::workflows`](super::Client::workflows).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct WorkflowsQuery {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only in this state: `running`, `completed`, `failed` or `cancelled`.
    pub state: Option<String>,
    /// Only of templates of this name.
    pub template: Option<String>,
    /// At most so many, 1 to 1,000.
    pub limit: Option<u32>,
    /// Only older than this workflow.
    pub before: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Of [`Client::performance`](super::Client::performance) and [`Client::explain_figure`](super::Client::explain_figure).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct WindowQuery {
    /// How far back, 1 to 744; 24 unless said.
    pub hours: Option<u32>,
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of workflows of the template of this name.
    pub template: Option<String>,
    /// Only of this handler; workflows have none.
    pub handler: Option<String>,
    /// Only of this queue; workflows have none.
    pub queue: Option<String>,
    /// Count all from the rows of jobs and workflows, believe no roll-up and no cache.
    pub exact: Option<bool>,
}

/// Of [`Client::bottlenecks`](super::Client::bottlenecks).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BottlenecksQuery {
    /// Which work.
    #[serde(flatten)]
    pub window: WindowQuery,
    /// Entries of each list, 1 to 100; 10 unless said.
    pub limit: Option<u32>,
    /// What ended less often is left out; 5 unless said.
    pub min_executions: Option<u64>,
}

/// Of [`Client::deliveries`](super::Client::deliveries).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeliveriesQuery {
    /// Only in this state: `pending`, `delivered` or `dead`.
    pub state: Option<String>,
    /// Only of this event, with each try.
    pub event: Option<String>,
    /// At most so many, 1 to 1,000.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Of [`Client::put_template`](super::Client::put_template).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PutTemplate {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Store it without the fields that are not known, which are otherwise refused.
    pub lenient: bool,
}

/// Of [`Client::templates`](super::Client::templates).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TemplatesQuery {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of this name: its versions.
    pub name: Option<String>,
    /// At most so many, 1 to 1,000.
    pub limit: Option<u32>,
    /// Only those behind this one, `NAMESPACE/NAME@VERSION`.
    pub after: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Of [`Client::schedules`](super::Client::schedules).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SchedulesQuery {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// At most so many, 1 to 1,000.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Of [`Client::events`](super::Client::events).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EventsQuery {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of this type.
    #[serde(rename = "type")]
    pub name: Option<String>,
    /// Only those whose payload was refused.
    pub refused: Option<bool>,
    /// Only those whose payload is yet to be made.
    pub waiting: Option<bool>,
    /// At most so many, 1 to 1,000.
    pub limit: Option<u32>,
    /// Only older than this event.
    pub before: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Of [`Client::event_stream`](super::Client::event_stream).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StreamQuery {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of these types, apart by commas: a whole name, `order.*`, `*` for all events of templates, `job.*`, `workflow.*`, `view.*`.
    pub types: Option<String>,
    /// Only of this job.
    pub job: Option<String>,
    /// Only of this workflow and its steps.
    pub workflow: Option<String>,
    /// Only of this view, `NAMESPACE/KEY`.
    pub view: Option<String>,
    /// Only changes of jobs in this queue.
    pub queue: Option<String>,
    /// Only changes of jobs of this handler.
    pub handler: Option<String>,
    /// Only of what belongs together under this id.
    pub correlation_id: Option<String>,
    /// Go on after this place, where a former stream was; without it with what happens from now on.
    pub after: Option<i64>,
    /// End after so many seconds; 0: with what has happened so far.
    pub seconds: Option<u32>,
}

/// Of [`Client::batches`](super::Client::batches).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BatchesQuery {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only those within this batch.
    pub parent: Option<String>,
    /// Only those that have not ended.
    pub unfinished: Option<bool>,
    /// At most so many, 1 to 1,000.
    pub limit: Option<u32>,
    /// Only older than this batch.
    pub before: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Of [`Client::batch_members`](super::Client::batch_members).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BatchMembersQuery {
    /// Only those that failed.
    pub failed: Option<bool>,
    /// At most so many, 1 to 1,000.
    pub limit: Option<u32>,
    /// Only those after this one.
    pub after: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Of [`Client::dead_letters`](super::Client::dead_letters).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LettersQuery {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of this queue.
    pub queue: Option<String>,
    /// Only of this handler.
    pub handler: Option<String>,
    /// Only in this status; without it pending and investigating.
    pub status: Option<LetterStatus>,
    /// Only those whose status is at least this old.
    pub stale_ms: Option<u64>,
    /// At most so many, 1 to 1,000.
    pub limit: Option<u32>,
    /// Only of jobs older than this one.
    pub before: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Of [`Client::tracked_jobs`](super::Client::tracked_jobs).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TrackedJobsQuery {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only about things of this type.
    pub context_type: Option<String>,
    /// Only about this one.
    pub context_id: Option<String>,
    /// Only about this part of it.
    pub context_field: Option<String>,
    /// Only in this state.
    pub state: Option<TrackedState>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only of this owner.
    pub owner: Option<String>,
    /// Only those that nobody has acknowledged.
    pub unacknowledged: Option<bool>,
    /// At most so many, 1 to 1,000.
    pub limit: Option<u32>,
    /// Only older than this job.
    pub before: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Of [`Client::views`](super::Client::views).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ViewsQuery {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// At most so many, 1 to 1,000.
    pub limit: Option<u32>,
    /// Only those after this one, `NAMESPACE/KEY`.
    pub after: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Of [`Client::view_history`](super::Client::view_history).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ViewBuildsQuery {
    /// At most so many, 1 to 1,000.
    pub limit: Option<u32>,
    /// Only builds older than this one.
    pub before: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Of [`Client::view_diff`](super::Client::view_diff).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ViewDiffQuery {
    /// The first generation.
    pub from: i64,
    /// The second.
    pub to: i64,
    /// At most so many items, 1 to 1,000.
    pub limit: Option<u32>,
    /// Only items after this one.
    pub after: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Of [`Client::view_items`](super::Client::view_items).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ViewItemsQuery {
    /// At most so many, 1 to 1,000.
    pub limit: Option<u32>,
    /// Only items after this one; with `version`.
    pub after: Option<String>,
    /// Of this generation rather than the live one.
    pub version: Option<i64>,
    /// Of this version or a newer one; not together with `version` or `cursor`.
    pub min_version: Option<i64>,
    /// `next` of the page before; in place of `after` and `version`.
    pub cursor: Option<String>,
}

/// Of [`Client::audit`](super::Client::audit).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AuditQuery {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of this actor.
    pub actor: Option<String>,
    /// Only to this thing.
    pub target: Option<String>,
    /// At most so many, 1 to 1,000.
    pub limit: Option<u32>,
    /// Only older than this row.
    pub before: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}
