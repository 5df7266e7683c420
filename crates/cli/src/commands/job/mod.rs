//! `recache job`: submit jobs, look at them, cancel and retry them.

mod bulk;
mod import;
mod submit;
mod tracked;
mod wait;

use clap::Subcommand;
use recache_api::client::{Client, Error as ClientError, JobsQuery};
use recache_api::{
    BulkChange, ErrorKind, Instant, Job, JobChange, JobDetails, JobError, JobHistoryRow, JobList,
    JobState as State,
};
use recache_model::ids::{BatchId, JobId};
use recache_model::job::JobState;
use recache_model::time::Timestamp;
use recache_store::{BulkJobChange, Error, JobFilter, JobRecord, Store, Word};
use serde_json::json;

use super::against::{Against, because, now_micros};
use super::audited::{Deed, audited};
use super::{Context, Outcome};
use crate::cli_error::{CliError, ExitStatus};
use crate::output::{self, Format, Table, Tone};
use bulk::Many;

/// Why, where nobody says.
const RETRIED: &str = "retried from the command line";
const DELETED: &str = "deleted from the command line";

/// Submit jobs, look at them, cancel them, run them again; track those of others
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache job submit send_mail --input '{\"to\":\"a@b.c\"}'
  recache job list --state failed --queue mail
  recache job retry job_0190c7a2-7b5e-7000-8000-000000000001"
)]
pub(crate) struct Args {
    #[command(flatten)]
    against: Against,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Submit(submit::Submit),
    List(List),
    Show(Show),
    Wait(wait::Wait),
    Cancel(Cancel),
    Retry(Retry),
    Delete(Delete),
    Track(tracked::Track),
    Report(tracked::Report),
    Heartbeat(tracked::Heartbeat),
    Ack(tracked::Ack),
    Tracked(tracked::TrackedList),
    Import(import::Import),
}

/// List jobs, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache job list --state failed --limit 10
  recache job list --handler build_prices -o jsonl
  recache job list --state failed --created-from 2026-05-01T12:00:00Z")]
struct List {
    /// Only in this state: blocked, queued, running, completed, failed, cancelled,
    /// superseded, skipped or resolved
    #[arg(long)]
    state: Option<JobState>,
    /// Only of this queue
    #[arg(long)]
    queue: Option<String>,
    /// Only of this handler
    #[arg(long)]
    handler: Option<String>,
    /// Only of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Only members of this batch
    #[arg(long, value_name = "ID")]
    batch: Option<BatchId>,
    /// Only of what was asked for under this correlation id
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// Only submitted at this instant or later, as 2026-05-01T12:00:00Z
    #[arg(long, value_name = "INSTANT")]
    created_from: Option<Instant>,
    /// Only submitted before this instant
    #[arg(long, value_name = "INSTANT")]
    created_before: Option<Instant>,
    /// At most so many, 1 to 1000
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only older than this job: the last one of the page before
    #[arg(long, value_name = "ID")]
    before: Option<JobId>,
}

/// Show a job, its attempts with their errors, and what its handler said
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache job show job_0190c7a2-7b5e-7000-8000-000000000001")]
struct Show {
    /// The job
    id: JobId,
}

/// Cancel a job that has not ended, or all of a filter
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache job cancel job_0190c7a2-7b5e-7000-8000-000000000001 \\
      --reason \"wrong customer\"
  recache job cancel --queue mail --dry-run

A running job is told to stop; a job that is cancelled already stays so.
Builds of views are left to their views.")]
struct Cancel {
    /// The job
    #[arg(
        required_unless_present_any = ["namespace", "queue", "handler", "all"],
        conflicts_with_all = ["namespace", "queue", "handler", "all", "dry_run"]
    )]
    id: Option<JobId>,
    #[command(flatten)]
    many: Many,
    /// Why; kept in the job's history
    #[arg(long, default_value = "cancelled from the command line")]
    reason: String,
}

/// Run a failed job again, or all of a filter, with attempts renewed
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache job retry job_0190c7a2-7b5e-7000-8000-000000000001
  recache job retry --handler send_mail

Only a failed job can be retried. A failed build is retried by touching its
view: recache view touch NAMESPACE/KEY --now")]
struct Retry {
    /// The job
    #[arg(
        required_unless_present_any = ["namespace", "queue", "handler", "all"],
        conflicts_with_all = ["namespace", "queue", "handler", "all", "dry_run"]
    )]
    id: Option<JobId>,
    #[command(flatten)]
    many: Many,
}

/// Delete ended jobs of a filter, with their history
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "recache job delete [OPTIONS]",
    group = clap::ArgGroup::new("which")
        .args(["namespace", "queue", "handler", "all"])
        .required(true)
        .multiple(true),
    after_help = "Examples:
  recache job delete --queue mail --dry-run
  recache job delete --namespace test

Steps stay with their workflow. A failed job whose dead letter is open stays:
redrive, resolve or discard it first (recache dead list)."
)]
struct Delete {
    #[command(flatten)]
    many: Many,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        if let Some(client) = self.against.client(context)? {
            return self.verb.ask(&client, context).await;
        }
        let store = context.open().await?;
        let outcome = match self.verb {
            Verb::Submit(arguments) => arguments.run(&*store, context).await,
            Verb::List(arguments) => arguments.run(&*store, context).await,
            Verb::Show(arguments) => arguments.run(&*store, context).await,
            Verb::Wait(arguments) => arguments.run(&*store, context).await,
            Verb::Cancel(arguments) => arguments.run(&*store, context).await,
            Verb::Retry(arguments) => arguments.run(&*store, context).await,
            Verb::Delete(arguments) => arguments.run(&*store, context).await,
            Verb::Track(arguments) => arguments.run(&*store, context).await,
            Verb::Report(arguments) => arguments.run(&*store, context).await,
            Verb::Heartbeat(arguments) => arguments.run(&*store, context).await,
            Verb::Ack(arguments) => arguments.run(&*store, context).await,
            Verb::Tracked(arguments) => arguments.run(&*store, context).await,
            Verb::Import(arguments) => arguments.run(&*store, context).await,
        };
        store.close().await;
        outcome
    }
}

impl List {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let timestamp = |at: Instant| Timestamp::from_micros(at.micros());
        let mut filter = JobFilter {
            namespace: self.namespace,
            state: self.state,
            queue: self.queue,
            handler: self.handler,
            batch: self.batch,
            correlation_id: self.correlation_id,
            created_from: self.created_from.map(timestamp),
            created_before: self.created_before.map(timestamp),
            before: self.before,
            rows_max: self.limit,
        };
        let mut jobs = Vec::new();
        // A page may end before it is full.
        let next = loop {
            let page = store.jobs_list(filter.clone()).await?;
            jobs.extend(page.jobs.into_iter().map(output::job));
            filter.before = page.next;
            filter.rows_max = left(self.limit, &jobs);
            if page.next.is_none() || filter.rows_max == 0 {
                break page.next;
            }
        };
        print_list(JobList::new(jobs, next.map(|job| job.to_string())), context)
    }

    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let mut query = JobsQuery {
            namespace: self.namespace,
            state: self.state.map(output::job_state),
            queue: self.queue,
            handler: self.handler,
            batch: self.batch.map(|id| id.to_string()),
            correlation_id: self.correlation_id,
            created_from: self.created_from,
            created_before: self.created_before,
            limit: Some(self.limit),
            before: self.before.map(|id| id.to_string()),
            cursor: None,
        };
        let mut jobs = Vec::new();
        loop {
            let page = client.jobs(&query).await?;
            jobs.extend(page.jobs);
            query.before = None;
            query.cursor = page.next;
            query.limit = Some(left(self.limit, &jobs));
            if query.cursor.is_none() || query.limit == Some(0) {
                break;
            }
        }
        let next = query.cursor.and(jobs.last().map(|last| last.id.clone()));
        print_list(JobList::new(jobs, next), context)
    }
}

/// How many are wanted still.
fn left(limit: u32, jobs: &[Job]) -> u32 {
    limit.saturating_sub(u32::try_from(jobs.len()).unwrap_or(u32::MAX))
}

fn print_list(list: JobList, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(&list)?,
        Format::Jsonl => context.print_lines(&list.jobs)?,
        Format::Table => {
            if list.jobs.is_empty() {
                context.note("no jobs")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table =
                context.table(LIST).leaving_out(&["QUEUE", "NAMESPACE", "ATTEMPT", "CREATED", "PROGRESS"]);
            for job in list.jobs {
                let (state, tone) = state(job.state);
                let plain = |text| (text, Tone::Plain);
                table.toned([
                    plain(job.id),
                    (state, tone),
                    plain(job.handler),
                    plain(job.namespace),
                    plain(job.queue),
                    plain(format!("{}/{}", job.attempt, job.attempts_max)),
                    plain(output::instant(job.created_at)),
                    plain(job.progress.map(percent).unwrap_or_default()),
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

impl Verb {
    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::Submit(arguments) => arguments.ask(client, context).await,
            Self::List(arguments) => arguments.ask(client, context).await,
            Self::Show(Show { id }) => match client.job(&id.to_string(), None).await {
                Err(ClientError::Refused(problem)) if problem.code == "not_found" => {
                    // A job that is none of the engine's may be one that some other system runs.
                    match client.tracked_job(&id.to_string()).await {
                        Ok(answer) => tracked::show(answer.job, false, context),
                        Err(ClientError::Refused(_)) => Err(ClientError::Refused(problem).into()),
                        Err(error) => Err(error.into()),
                    }
                }
                found => print_details(found?, now_micros(), context),
            },
            Self::Wait(arguments) => arguments.ask(client, context).await,
            Self::Cancel(Cancel { id: Some(id), reason, .. }) => {
                let change = client.cancel_job(&id.to_string(), &because(reason)).await?;
                changed_to(id, change.state, change.changed, context)
            }
            Self::Retry(Retry { id: Some(id), .. }) => {
                let because = because(RETRIED.to_owned());
                let change = client.retry_job(&id.to_string(), &because).await?;
                changed_to(id, change.state, change.changed, context)
            }
            Self::Cancel(Cancel { many, reason, .. }) => {
                many.ask(BulkJobChange::Cancel, reason, client, context).await
            }
            Self::Retry(Retry { many, .. }) => {
                many.ask(BulkJobChange::Retry, RETRIED.to_owned(), client, context).await
            }
            Self::Delete(Delete { many }) => {
                many.ask(BulkJobChange::Delete, DELETED.to_owned(), client, context).await
            }
            Self::Import(arguments) => arguments.ask(client, context).await,
            Self::Track(arguments) => arguments.ask(client, context).await,
            Self::Report(arguments) => arguments.ask(client, context).await,
            Self::Heartbeat(arguments) => arguments.ask(client, context).await,
            Self::Ack(arguments) => arguments.ask(client, context).await,
            Self::Tracked(arguments) => arguments.ask(client, context).await,
        }
    }
}

/// Lines of a job's log that are shown: all that are kept.
const LOG_LINES_SHOWN: u32 = 1_000;

const LIST: [&str; 8] = ["ID", "STATE", "HANDLER", "NAMESPACE", "QUEUE", "ATTEMPT", "CREATED", "PROGRESS"];

impl Show {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let record = match store.job_get(self.id).await {
            Err(Error::NotFound { .. }) => return self.tracked(store, context).await,
            found => found?,
        };
        let now = store.now().await?;
        let details = details(record, store).await?;
        print_details(details, now.micros(), context)
    }
}

/// A job with its attempts, its history and what its handler said.
async fn details(record: JobRecord, store: &dyn Store) -> Result<JobDetails, Error> {
    let history = output::history(record.created_at, store.job_history(record.id).await?);
    let log = output::log(store.attempts().log_read(record.id, LOG_LINES_SHOWN).await?);
    let attempts = output::attempts(&history);
    Ok(JobDetails::new(output::job(record), history, attempts, log))
}

fn print_details(details: JobDetails, now_micros: i64, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(&details)?,
        Format::Table => {
            let JobDetails { job, history, log, .. } = details;
            let facts = facts(&job, context.table(["", ""]));
            let timeline = timeline(&job, history, now_micros, context.table(TIMELINE));
            let mut text = format!("{facts}\n{timeline}");
            if !log.is_empty() {
                let mut said = context.table(["SAID AT", "ATTEMPT", "LINE"]);
                for line in log {
                    said.row([output::instant(line.at), line.attempt.to_string(), line.text]);
                }
                text = format!("{text}\n{}", said.text());
            }
            context.print_text(&text)?;
        }
    }
    Ok(ExitStatus::Ok)
}

impl Show {
    /// A job that is none of ours may be one that some other system runs.
    async fn tracked(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        match store.tracked_jobs().tracked_get(self.id).await {
            Err(Error::NotFound { .. }) => {
                Err(Error::NotFound { what: "job", id: self.id.to_string() }.into())
            }
            found => tracked::show(output::tracked(found?), false, context),
        }
    }
}

impl Cancel {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let Some(id) = self.id else {
            let word = Word::new(context.actor(None), self.reason);
            return self.many.change(BulkJobChange::Cancel, word, store, context).await;
        };
        let word = Word::new(context.actor(None), self.reason.clone());
        let job = store.job_get(id).await?;
        let deed = Deed::new("jobs.cancel", id.to_string(), word).of(&job.namespace);
        let (now, changed) = audited(store, deed, &json!({ "state": job.state.as_str() }), async {
            let (now, changed) = store.job_cancel(id, &self.reason).await?;
            Ok(((now, changed), json!({ "state": now.as_str() })))
        })
        .await?;
        if !changed && now != JobState::Cancelled {
            return Err(CliError::new(
                "E-CONFLICT",
                ExitStatus::Conflict,
                format!("job `{id}` is {now}; only a job that has not ended can be cancelled"),
            )
            .into());
        }
        changed_to(id, output::job_state(now), changed, context)
    }
}

impl Retry {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let Some(id) = self.id else {
            let word = Word::new(context.actor(None), RETRIED);
            return self.many.change(BulkJobChange::Retry, word, store, context).await;
        };
        let word = Word::new(context.actor(None), RETRIED);
        let job = store.job_get(id).await?;
        let deed = Deed::new("jobs.retry", id.to_string(), word).of(&job.namespace);
        audited(store, deed, &json!({ "state": job.state.as_str() }), async {
            store.job_retry(id).await?;
            Ok(((), json!({ "state": "queued" })))
        })
        .await?;
        // Queued by that call; a worker may have it by now, which is not this command's news.
        changed_to(id, State::Queued, true, context)
    }
}

impl Delete {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let word = Word::new(context.actor(None), DELETED);
        self.many.change(BulkJobChange::Delete, word, store, context).await
    }
}

fn changed_to(id: JobId, now: State, changed: bool, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(&JobChange::new(id.to_string(), now, changed))?,
        Format::Table => {
            let word = if changed { "is now" } else { "was already" };
            context.print_text(&format!("{id} {word} {}\n", state(now).0))?;
        }
    }
    Ok(ExitStatus::Ok)
}

/// What a change by filter did, or would do.
pub(super) fn bulk_changed(change: &BulkChange, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(change)?,
        Format::Table => {
            let text = match (change.matching, change.skipped) {
                (Some(matching), _) => format!("{matching} match; nothing was changed\n"),
                (None, 0) => format!("{} changed\n", change.changed),
                (None, skipped) => format!("{} changed, {skipped} could not be\n", change.changed),
            };
            context.print_text(&text)?;
        }
    }
    Ok(ExitStatus::Ok)
}

/// The state's name and what it means to whoever looks.
pub(super) fn state(state: State) -> (String, Tone) {
    let (name, tone) = match state {
        State::Blocked => ("blocked", Tone::Plain),
        State::Queued => ("queued", Tone::Plain),
        State::Running => ("running", Tone::Active),
        State::Completed => ("completed", Tone::Good),
        State::Failed => ("failed", Tone::Bad),
        State::Cancelled => ("cancelled", Tone::Doubtful),
        State::Superseded => ("superseded", Tone::Doubtful),
        State::Skipped => ("skipped", Tone::Plain),
        State::Resolved => ("resolved", Tone::Good),
    };
    (name.to_owned(), tone)
}

/// `permanent smtp_550: no such mailbox`.
pub(super) fn error_text(error: &JobError) -> String {
    let kind = match error.kind {
        ErrorKind::Retryable => "retryable",
        ErrorKind::Permanent => "permanent",
        ErrorKind::Cancelled => "cancelled",
        ErrorKind::Superseded => "superseded",
        ErrorKind::Timeout => "timeout",
        ErrorKind::LeaseLost => "lease lost",
        ErrorKind::Panic => "panic",
    };
    let code = error.code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
    format!("{kind}{code}: {}", error.message)
}

fn percent(progress: f64) -> String {
    format!("{:.0} %", progress * 100.0)
}

fn facts(job: &Job, mut table: Table) -> String {
    let mut fact = |name: &str, value: String| table.row([name.to_owned(), value]);
    fact("job", job.id.clone());
    fact("state", state(job.state).0);
    fact("handler", job.handler.clone());
    fact("namespace", job.namespace.clone());
    fact("queue", format!("{}, priority {}", job.queue, job.priority));
    fact("attempt", format!("{} of {}", job.attempt, job.attempts_max));
    fact("created", output::instant(job.created_at));
    if matches!(job.state, State::Queued | State::Blocked) {
        fact("due", output::instant(job.due_at));
    }
    for (name, at) in [("started", job.started_at), ("finished", job.finished_at)] {
        if let Some(at) = at {
            fact(name, output::instant(at));
        }
    }
    if let Some(timeout_ms) = job.timeout_ms {
        fact("timeout", output::duration(timeout_ms));
    }
    match (job.progress, &job.message) {
        (None, None) => {}
        (progress, message) => {
            let parts = [progress.map(percent), message.clone()];
            fact("progress", parts.into_iter().flatten().collect::<Vec<_>>().join(", "));
        }
    }
    if let Some(error) = &job.error {
        fact("error", error_text(error));
    }
    for (name, id) in [
        ("workflow", &job.workflow_id),
        ("step", &job.step),
        ("batch", &job.batch_id),
        ("view", &job.view_id),
        ("session", &job.session_id),
    ] {
        if let Some(id) = id {
            fact(name, id.clone());
        }
    }
    if let Some(version) = job.view_version {
        fact("builds version", version.to_string());
    }
    if let Some(version) = job.superseded_by {
        fact("superseded by", format!("version {version}"));
    }
    if let Some(key) = &job.concurrency_key {
        fact("concurrency key", key.clone());
    }
    fact("correlation", job.correlation_id.clone());
    fact("input", job.input.text().to_owned());
    if let Some(output) = &job.output {
        fact("output", output.text().to_owned());
    }
    table.text()
}

const TIMELINE: [&str; 5] = ["AT", "STATE", "ATTEMPT", "FOR", "DETAIL"];

/// One row for each state that the job was in, with how long it was there: the last one until `now`.
fn timeline(job: &Job, history: Vec<JobHistoryRow>, now_micros: i64, mut table: Table) -> String {
    let first = history.first().map_or(job.state, |row| row.from);
    let mut entered = (job.created_at, first, 0, Some("submitted".to_owned()));
    for row in history {
        add(&mut table, entered, Some(row.spent_ms));
        entered = (row.at, row.to, row.attempt, row.error.as_ref().map(error_text).or(row.detail));
    }
    let live = matches!(entered.1, State::Blocked | State::Queued | State::Running);
    let since_ms = u64::try_from(now_micros.saturating_sub(entered.0.micros()) / 1000).unwrap_or(0);
    add(&mut table, entered, live.then_some(since_ms));
    table.text()
}

fn add(
    table: &mut Table,
    (at, entered, attempt, detail): (recache_api::Instant, State, u32, Option<String>),
    spent_ms: Option<u64>,
) {
    let (name, tone) = state(entered);
    let plain = |text| (text, Tone::Plain);
    table.toned([
        plain(output::instant(at)),
        (name, tone),
        plain(if attempt == 0 { String::new() } else { attempt.to_string() }),
        plain(spent_ms.map(output::duration).unwrap_or_default()),
        plain(detail.unwrap_or_default()),
    ]);
}
