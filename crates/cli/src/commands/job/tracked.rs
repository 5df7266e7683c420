//! `recache job track|report|heartbeat|ack|tracked`: jobs that some other system runs.

use std::str::FromStr;
use std::time::Duration;

use recache_api::client::{Client, TrackedJobsQuery};
use recache_api::{
    JobContext, Json, ReportJob, TrackJob, TrackedJob, TrackedJobAnswer, TrackedJobList,
    TrackedState as State,
};
use recache_model::ids::{BatchId, JobId};
use recache_model::tracked::{Report as ModelReport, TrackedState};
use recache_store::{NewTrackedJob, Store, TrackedContext, TrackedFilter};

use super::super::against::{ms, no_actor};
use super::super::name::far;
use super::super::page;
use super::{Context, Outcome, percent};
use crate::cli_error::ExitStatus;
use crate::output::{self, Format, Tone};
use crate::run::read_input;

/// Keep a job that some other system runs
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache job track translate --context product/42/title --owner worker-7
  recache job track import --id 0190c7a2-7b5e-7000-8000-000000000001

No worker of Recache gets it: its owner says how it goes with job report and
job heartbeat. After --stale-after without a word it is failed.")]
pub(super) struct Track {
    /// What is done
    action: String,
    /// Its id, a UUID; made if not given
    #[arg(long)]
    id: Option<JobId>,
    /// Who it belongs to
    #[arg(long, default_value = "default")]
    namespace: String,
    /// What it is about: TYPE/ID or TYPE/ID/FIELD
    #[arg(long, value_name = "WHAT")]
    context: Option<About>,
    /// Make it a member of this batch
    #[arg(long, value_name = "ID")]
    batch: Option<BatchId>,
    /// Who runs it
    #[arg(long)]
    owner: Option<String>,
    /// JSON to keep with it, or @FILE, or - for stdin
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Failed after this long without a word: 60s, 2h
    #[arg(long, value_name = "TIME", value_parser = far, default_value = "1h")]
    stale_after: Duration,
}

/// Say how a tracked job goes
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache job report job_0190c7a2-7b5e-7000-8000-000000000001 \\
      --state processing --done 3 --total 10
  recache job report job_0190c7a2-7b5e-7000-8000-000000000001 \\
      --state failed --code quota --message \"no more translations today\"

States only move forward. A report that is late or repeated changes nothing and
prints what stands.")]
pub(super) struct Report {
    /// The job
    id: JobId,
    /// Where it stands: queued, processing, completed, failed or cancelled
    #[arg(long)]
    state: Option<TrackedState>,
    /// For people
    #[arg(long)]
    message: Option<String>,
    /// Why it failed, in one word
    #[arg(long)]
    code: Option<String>,
    /// JSON that it made, or @FILE, or - for stdin
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// 0 to 1; without it, --done of --total
    #[arg(long)]
    progress: Option<f64>,
    /// Things done
    #[arg(long, value_name = "COUNT")]
    done: Option<i64>,
    /// Things to do
    #[arg(long, value_name = "COUNT")]
    total: Option<i64>,
}

/// Say that the owner of a tracked job lives
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache job heartbeat job_0190c7a2-7b5e-7000-8000-000000000001

Prints what stands, so that the owner learns of a cancel.")]
pub(super) struct Heartbeat {
    /// The job
    id: JobId,
}

/// Take note of the end of a tracked job
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache job ack job_0190c7a2-7b5e-7000-8000-000000000001")]
pub(super) struct Ack {
    /// The job
    id: JobId,
    /// Who says so [default: the user who runs the command]
    #[arg(long)]
    actor: Option<String>,
}

/// List tracked jobs, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache job tracked --context product/42
  recache job tracked --state failed --unacknowledged")]
pub(super) struct TrackedList {
    /// Only about this: TYPE/ID, or TYPE/ID/FIELD
    #[arg(long, value_name = "WHAT")]
    context: Option<About>,
    /// Only in this state: queued, processing, completed, failed or cancelled
    #[arg(long)]
    state: Option<TrackedState>,
    /// Only of this action
    #[arg(long)]
    action: Option<String>,
    /// Only of this owner
    #[arg(long)]
    owner: Option<String>,
    /// Only of this namespace; with --context, `default` if not named
    #[arg(long)]
    namespace: Option<String>,
    /// Only those that nobody has acknowledged
    #[arg(long)]
    unacknowledged: bool,
    /// At most so many, 1 to 1000
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only older than this job: the last one of the page before
    #[arg(long, value_name = "ID")]
    before: Option<JobId>,
}

/// `TYPE/ID` or `TYPE/ID/FIELD`. The field may hold further slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct About(TrackedContext);

impl FromStr for About {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        let (kind, id, field) = (parts.next(), parts.next(), parts.next());
        match (kind, id) {
            (Some(kind), Some(id)) if !kind.is_empty() && !id.is_empty() && field.as_deref() != Some("") => {
                Ok(Self(TrackedContext { kind, id, field }))
            }
            _ => Err("expected TYPE/ID or TYPE/ID/FIELD, for example product/42/title".to_owned()),
        }
    }
}

fn document(text: Option<&str>) -> Result<Option<String>, crate::commands::Failure> {
    match text {
        Some(_) => Ok(Some(read_input(text)?.to_string())),
        None => Ok(None),
    }
}

/// JSON as it is sent.
fn json(text: Option<&str>) -> Result<Option<Json>, crate::commands::Failure> {
    let text = document(text)?;
    Ok(text.map(|text| Json::from_text(&text).unwrap_or_else(|_| Json::null())))
}

impl Track {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let about = |About(TrackedContext { kind, id, field })| JobContext { kind, id, field };
        let empty = || Json::from_text("{}").unwrap_or_else(|_| Json::null());
        let job = TrackJob {
            action: self.action,
            id: self.id.map(|id| id.to_string()),
            namespace: self.namespace,
            context: self.context.map(about),
            batch_id: self.batch.map(|id| id.to_string()),
            owner: self.owner,
            metadata: json(self.metadata.as_deref())?.unwrap_or_else(empty),
            stale_after_ms: Some(ms(self.stale_after)),
        };
        print_tracked(&client.track_job(&job).await?, context)
    }

    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let new = NewTrackedJob::new(self.action);
        let job = NewTrackedJob {
            id: self.id.unwrap_or(new.id),
            namespace: self.namespace,
            context: self.context.map(|about| about.0),
            batch: self.batch,
            owner: self.owner,
            metadata: document(self.metadata.as_deref())?.unwrap_or_else(|| new.metadata.clone()),
            stale_after: self.stale_after,
            ..new
        };
        for answer in store.tracked_jobs().tracked_create(vec![job]).await? {
            print_tracked(&TrackedJobAnswer::new(output::tracked(answer.job), answer.changed), context)?;
        }
        Ok(ExitStatus::Ok)
    }
}

fn print_tracked(answer: &TrackedJobAnswer, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(answer)?,
        Format::Table => {
            context.print_text(&format!("{}\n", answer.job.id))?;
            if !answer.changed {
                context.note("it was there already; nothing was stored")?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}

impl Report {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let report = ReportJob {
            state: self.state.map(api_state),
            message: self.message,
            code: self.code,
            data: json(self.data.as_deref())?,
            progress: self.progress,
            items_done: self.done,
            items_total: self.total,
        };
        let answer = client.report_tracked_job(&self.id.to_string(), &report).await?;
        if !answer.changed {
            context.note("nothing changed: the report is late or was made before")?;
        }
        show(answer.job, answer.changed, context)
    }

    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let report = ModelReport {
            state: self.state,
            message: self.message,
            code: self.code,
            data: document(self.data.as_deref())?,
            progress: self.progress,
            items_done: self.done,
            items_total: self.total,
        };
        for answer in store.tracked_jobs().tracked_report(vec![(self.id, report)]).await? {
            if let Some(batch) = answer.job.definition.batch {
                // There may be no engine that would notice the end of its batch now.
                store.batches().batches_settle(vec![batch]).await?;
            }
            if !answer.changed {
                context.note("nothing changed: the report is late or was made before")?;
            }
            show(output::tracked(answer.job), answer.changed, context)?;
        }
        Ok(ExitStatus::Ok)
    }
}

impl Heartbeat {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let answer = client.heartbeat_tracked_job(&self.id.to_string()).await?;
        if answer.job.finished_at.is_some() {
            context.note(&format!("it has ended: {}", state(answer.job.state).0))?;
        }
        show(answer.job, answer.changed, context)
    }

    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let job = store.tracked_jobs().tracked_heartbeat(self.id).await?;
        let has_ended = job.finished_at.is_some();
        if has_ended {
            context.note(&format!("it has ended: {}", job.course.state))?;
        }
        show(output::tracked(job), !has_ended, context)
    }
}

impl Ack {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        no_actor(self.actor.as_deref())?;
        let answer = client.acknowledge_tracked_job(&self.id.to_string()).await?;
        if !answer.changed {
            context.note("it was acknowledged before")?;
        }
        show(answer.job, answer.changed, context)
    }

    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let actor = context.actor(self.actor.as_deref());
        let answer = store.tracked_jobs().tracked_acknowledge(self.id, &actor).await?;
        if !answer.changed {
            context.note("it was acknowledged before")?;
        }
        show(output::tracked(answer.job), answer.changed, context)
    }
}

/// One tracked job.
pub(super) fn show(job: TrackedJob, changed: bool, context: &mut Context<'_>) -> Outcome {
    if context.format() == Format::Table {
        let text = facts(&job, context.table(["", ""]));
        context.print_text(&text)?;
    } else {
        context.print(&TrackedJobAnswer::new(job, changed))?;
    }
    Ok(ExitStatus::Ok)
}

fn api_state(state: TrackedState) -> State {
    match state {
        TrackedState::Queued => State::Queued,
        TrackedState::Processing => State::Processing,
        TrackedState::Completed => State::Completed,
        TrackedState::Failed => State::Failed,
        TrackedState::Cancelled => State::Cancelled,
    }
}

fn state(state: State) -> (String, Tone) {
    let (name, tone) = match state {
        State::Queued => ("queued", Tone::Plain),
        State::Processing => ("processing", Tone::Plain),
        State::Completed => ("completed", Tone::Good),
        State::Failed => ("failed", Tone::Bad),
        State::Cancelled => ("cancelled", Tone::Doubtful),
    };
    (name.to_owned(), tone)
}

fn about(job: &TrackedJob) -> Option<String> {
    let context = job.context.as_ref()?;
    let field = context.field.as_ref().map(|field| format!("/{field}")).unwrap_or_default();
    Some(format!("{}/{}{field}", context.kind, context.id))
}

fn course(job: &TrackedJob) -> Option<String> {
    let counts = match (job.items_done, job.items_total) {
        (Some(done), Some(total)) => Some(format!("{done} of {total}")),
        (Some(done), None) => Some(done.to_string()),
        (None, total) => total.map(|total| format!("of {total}")),
    };
    let parts: Vec<String> = [job.progress.map(percent), counts].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn facts(job: &TrackedJob, mut table: output::Table) -> String {
    let mut fact = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            table.row([name.to_owned(), value]);
        }
    };
    fact("tracked job", Some(job.id.clone()));
    fact("state", Some(state(job.state).0));
    fact("action", Some(job.action.clone()));
    fact("namespace", Some(job.namespace.clone()));
    fact("about", about(job));
    fact("owner", job.owner.clone());
    fact("batch", job.batch_id.clone());
    fact("progress", course(job));
    fact("message", job.message.clone());
    fact("code", job.code.clone());
    fact("created", Some(output::instant(job.created_at)));
    fact("heard of", Some(output::instant(job.heard_at)));
    fact("started", job.started_at.map(output::instant));
    fact("finished", job.finished_at.map(output::instant));
    fact("given up", job.stale_at.map(|at| format!("{} without a word", output::instant(at))));
    let acknowledged = job.acknowledged_at.zip(job.acknowledged_by.clone());
    fact("acknowledged", acknowledged.map(|(at, actor)| format!("{} by {actor}", output::instant(at))));
    fact("metadata", Some(job.metadata.text().to_owned()));
    fact("data", job.data.as_ref().map(|data| data.text().to_owned()));
    table.text()
}

impl TrackedList {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let namespace = match (self.namespace, &self.context) {
            (None, Some(_)) => Some("default".to_owned()),
            (namespace, _) => namespace,
        };
        let filter = TrackedFilter {
            namespace,
            context: self.context.map(|about| about.0),
            state: self.state,
            action: self.action,
            owner: self.owner,
            unacknowledged: self.unacknowledged,
            before: self.before,
            rows_max: page::rows_max(self.limit),
        };
        let found = store.tracked_jobs().tracked_list(filter).await?;
        let mut jobs: Vec<TrackedJob> = found.into_iter().map(output::tracked).collect();
        let next = page::cut_at(&mut jobs, self.limit, |job| &job.id);
        print_list(TrackedJobList::new(jobs, next), context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let namespace = match (self.namespace, &self.context) {
            (None, Some(_)) => Some("default".to_owned()),
            (namespace, _) => namespace,
        };
        let about = self.context.map(|about| about.0);
        let query = TrackedJobsQuery {
            namespace,
            context_type: about.as_ref().map(|about| about.kind.clone()),
            context_id: about.as_ref().map(|about| about.id.clone()),
            context_field: about.and_then(|about| about.field),
            state: self.state.map(api_state),
            action: self.action,
            owner: self.owner,
            unacknowledged: Some(self.unacknowledged),
            limit: Some(self.limit),
            before: self.before.map(|id| id.to_string()),
            cursor: None,
        };
        let mut list = client.tracked_jobs(&query).await?;
        list.next = list.next.and(list.jobs.last().map(|last| last.id.clone()));
        print_list(list, context)
    }
}

fn print_list(list: TrackedJobList, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(&list)?,
        Format::Jsonl => context.print_lines(&list.jobs)?,
        Format::Table => {
            if list.jobs.is_empty() {
                context.note("no tracked jobs")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table =
                context.table(["ID", "STATE", "ACTION", "ABOUT", "OWNER", "PROGRESS", "HEARD OF", "MESSAGE"]);
            for job in list.jobs {
                let plain = |text| (text, Tone::Plain);
                table.toned([
                    plain(job.id.clone()),
                    state(job.state),
                    plain(job.action.clone()),
                    plain(about(&job).unwrap_or_default()),
                    plain(job.owner.clone().unwrap_or_default()),
                    plain(course(&job).unwrap_or_default()),
                    plain(output::instant(job.heard_at)),
                    plain(job.message.unwrap_or_default()),
                ]);
            }
            context.print_text(&table.text())?;
            if let Some(next) = list.next {
                context.note(&format!("there are more: --before {next}"))?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_is_a_type_an_id_and_perhaps_a_field() {
        let about: About = "product/42/a/b".parse().unwrap();
        assert_eq!((about.0.kind.as_str(), about.0.id.as_str()), ("product", "42"));
        assert_eq!(about.0.field.as_deref(), Some("a/b"));
        assert_eq!("product/42".parse::<About>().unwrap().0.field, None);
        for text in ["", "product", "/42", "product/", "product/42/"] {
            assert!(text.parse::<About>().unwrap_err().contains("TYPE/ID"), "{text}");
        }
    }
}
