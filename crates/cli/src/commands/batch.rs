//! `recache batch`: what is watched together.

use clap::Subcommand;
use recache_api::client::{BatchMembersQuery, BatchesQuery, Client};
use recache_api::{
    Batch, BatchAnswer, BatchList, BatchMember, BatchMemberList, BatchState as State, CallBack, CreateBatch,
    Json, RetryBatch,
};
use recache_model::batch::BatchCallback;
use recache_model::ids::{BatchId, JobId};
use recache_store::{BatchFilter, BatchRecord, NewBatch, Store, Word};
use serde_json::{Value, json};

use super::against::{Against, because, no_actor};
use super::audited::{Deed, audited};
use super::{Context, Failure, Outcome, page};
use crate::cli_error::ExitStatus;
use crate::output::{self, Format, Tone};
use crate::run::read_input;

/// Members that one call to the store cancels or retries.
const MEMBERS_MAX: u32 = 500;

/// Watch jobs, workflows and jobs of others together
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache batch create import --on-finish send_report
  recache job submit import_file --batch batch_0190c7a2-7b5e-7000-8000-000000000001
  recache batch members batch_0190c7a2-7b5e-7000-8000-000000000001 --failed"
)]
pub(crate) struct Args {
    #[command(flatten)]
    against: Against,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Create(Create),
    List(List),
    Show(Show),
    Members(Members),
    Close(Close),
    Cancel(Cancel),
    Retry(Retry),
}

/// Create a batch
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache batch create import --expect 3 --on-finish send_report
  recache batch create nightly --on-first-failure alert --input '{\"to\":\"ops\"}'

Members are added with job submit --batch and job track --batch, until the batch
is closed, or has as many as it expects. A callback is a job, made once.")]
struct Create {
    /// What is done
    action: String,
    /// Its id, a UUID; made if not given
    #[arg(long)]
    id: Option<BatchId>,
    /// Who it and its members belong to
    #[arg(long, default_value = "default")]
    namespace: String,
    /// It is a member of this batch
    #[arg(long, value_name = "ID")]
    parent: Option<BatchId>,
    /// It closes itself with so many members
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(0..=1_000_000_000))]
    expect: Option<u64>,
    /// JSON to keep with it, or @FILE, or - for stdin
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Handler of the job to make when all have ended, and none badly
    #[arg(long, value_name = "HANDLER")]
    on_success: Option<String>,
    /// Handler of the job to make when all have ended
    #[arg(long, value_name = "HANDLER")]
    on_finish: Option<String>,
    /// Handler of the job to make when the first one fails
    #[arg(long, value_name = "HANDLER")]
    on_first_failure: Option<String>,
    /// Where these jobs wait
    #[arg(long, default_value = "default")]
    queue: String,
    /// JSON for these jobs, or @FILE, or - for stdin
    #[arg(long, value_name = "JSON")]
    input: Option<String>,
}

/// List batches, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache batch list --unfinished")]
struct List {
    /// Only of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Only of this action
    #[arg(long)]
    action: Option<String>,
    /// Only those within this batch
    #[arg(long, value_name = "ID")]
    parent: Option<BatchId>,
    /// Only those that have not ended
    #[arg(long)]
    unfinished: bool,
    /// At most so many, 1 to 1000
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only older than this batch: the last one of the page before
    #[arg(long, value_name = "ID")]
    before: Option<BatchId>,
}

/// Show a batch
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache batch show batch_0190c7a2-7b5e-7000-8000-000000000001")]
struct Show {
    /// The batch
    id: BatchId,
}

/// List the members of a batch, with the errors of those that failed
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache batch members batch_0190c7a2-7b5e-7000-8000-000000000001 --failed")]
struct Members {
    /// The batch
    id: BatchId,
    /// Only those that failed
    #[arg(long)]
    failed: bool,
    /// At most so many, 1 to 1000
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only those after this one: the last one of the page before
    #[arg(long, value_name = "ID")]
    after: Option<String>,
}

/// Let nothing more be added to a batch
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache batch close batch_0190c7a2-7b5e-7000-8000-000000000001")]
struct Close {
    /// The batch
    id: BatchId,
}

/// Call off a batch with all that is in it
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache batch cancel batch_0190c7a2-7b5e-7000-8000-000000000001 \\
      --reason \"wrong file\"")]
struct Cancel {
    /// The batch
    id: BatchId,
    /// Why; kept with each member
    #[arg(long, default_value = "cancelled from the command line")]
    reason: String,
}

/// Run the failed jobs of a batch again
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache batch retry batch_0190c7a2-7b5e-7000-8000-000000000001

Also those of its workflows and of the batches within it. Jobs of others stay
failed: only their owners can run them.")]
struct Retry {
    /// The batch
    id: BatchId,
    /// Why; kept in the history of each job
    #[arg(long, default_value = "retried from the command line")]
    reason: String,
    /// Who says so [default: the user who runs the command]
    #[arg(long)]
    actor: Option<String>,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        if let Some(client) = self.against.client(context)? {
            return self.verb.ask(&client, context).await;
        }
        let store = context.open().await?;
        let outcome = match self.verb {
            Verb::Create(arguments) => arguments.run(&*store, context).await,
            Verb::List(arguments) => arguments.run(&*store, context).await,
            Verb::Show(arguments) => show(arguments.id, 0, &*store, context).await,
            Verb::Members(arguments) => arguments.run(&*store, context).await,
            Verb::Close(arguments) => arguments.run(&*store, context).await,
            Verb::Cancel(arguments) => arguments.run(&*store, context).await,
            Verb::Retry(arguments) => arguments.run(&*store, context).await,
        };
        store.close().await;
        outcome
    }
}

impl Verb {
    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::Create(arguments) => {
                let answer = client.create_batch(&arguments.asked()?).await?;
                print_created(&answer, context)
            }
            Self::List(arguments) => arguments.ask(client, context).await,
            Self::Show(Show { id }) => print_one(&client.batch(&id.to_string(), None).await?, context),
            Self::Members(arguments) => arguments.ask(client, context).await,
            Self::Close(Close { id }) => {
                let answer = client.close_batch(&id.to_string()).await?;
                if answer.changed == 0 {
                    context.note("it was closed before")?;
                }
                print_one(&answer, context)
            }
            Self::Cancel(Cancel { id, reason }) => {
                let answer = client.cancel_batch(&id.to_string(), &because(reason)).await?;
                context.note(&format!("{} members called off", answer.changed))?;
                if answer.batch.counts.pending > 0 {
                    context.note(&format!(
                        "{} are still to be called off; the server goes on",
                        answer.batch.counts.pending
                    ))?;
                }
                print_one(&answer, context)
            }
            Self::Retry(arguments) => arguments.ask(client, context).await,
        }
    }
}

impl Create {
    /// As it is asked of a server.
    fn asked(self) -> Result<CreateBatch, Failure> {
        let document = |text: Option<&str>, otherwise: &str| -> Result<Json, Failure> {
            let text = match text {
                Some(_) => read_input(text)?.to_string(),
                None => otherwise.to_owned(),
            };
            Ok(Json::from_text(&text).unwrap_or_else(|_| Json::null()))
        };
        let input = document(self.input.as_deref(), "null")?;
        let queue = self.queue;
        let callback = |handler: Option<String>| {
            handler.map(|handler| CallBack { handler, queue: queue.clone(), input: input.clone() })
        };
        Ok(CreateBatch {
            action: self.action,
            id: self.id.map(|id| id.to_string()),
            namespace: self.namespace,
            parent_id: self.parent.map(|id| id.to_string()),
            expected: self.expect,
            metadata: document(self.metadata.as_deref(), "{}")?,
            on_success: callback(self.on_success),
            on_finish: callback(self.on_finish),
            on_first_failure: callback(self.on_first_failure),
        })
    }

    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let new = NewBatch::new(self.action);
        let document = |text: Option<&str>, otherwise: &str| match text {
            Some(_) => read_input(text).map(|value| value.to_string()),
            None => Ok(otherwise.to_owned()),
        };
        let input = document(self.input.as_deref(), "null")?;
        let queue = self.queue;
        let callback = |handler: Option<String>| {
            handler.map(|handler| BatchCallback { handler, queue: queue.clone(), input: input.clone() })
        };
        let batch = NewBatch {
            id: self.id.unwrap_or(new.id),
            namespace: self.namespace,
            metadata: document(self.metadata.as_deref(), &new.metadata)?,
            parent: self.parent,
            expected: self.expect,
            on_success: callback(self.on_success),
            on_finish: callback(self.on_finish),
            on_first_failure: callback(self.on_first_failure),
            ..new
        };
        let (record, is_new) = store.batches().batch_create(batch).await?;
        print_created(&BatchAnswer::new(output::batch(record), u64::from(is_new)), context)
    }
}

fn print_created(answer: &BatchAnswer, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(answer)?,
        Format::Table => {
            context.print_text(&format!("{}\n", answer.batch.id))?;
            if answer.changed == 0 {
                context.note("it was there already; nothing was stored")?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}

impl List {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let filter = BatchFilter {
            namespace: self.namespace,
            action: self.action,
            parent: self.parent,
            unfinished: self.unfinished,
            before: self.before,
            rows_max: page::rows_max(self.limit),
        };
        let found = store.batches().batches_list(filter).await?;
        let mut batches: Vec<Batch> = found.into_iter().map(output::batch).collect();
        let next = page::cut_at(&mut batches, self.limit, |batch| &batch.id);
        print_list(BatchList::new(batches, next), context)
    }

    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let query = BatchesQuery {
            namespace: self.namespace,
            action: self.action,
            parent: self.parent.map(|id| id.to_string()),
            unfinished: Some(self.unfinished),
            limit: Some(self.limit),
            before: self.before.map(|id| id.to_string()),
            cursor: None,
        };
        let mut list = client.batches(&query).await?;
        list.next = list.next.and(list.batches.last().map(|last| last.id.clone()));
        print_list(list, context)
    }
}

fn print_list(list: BatchList, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(&list)?,
        Format::Jsonl => context.print_lines(&list.batches)?,
        Format::Table => {
            if list.batches.is_empty() {
                context.note("no batches")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table =
                context.table(["ID", "STATE", "ACTION", "ENDED", "TOTAL", "FAILED", "CANCELLED", "CREATED"]);
            for batch in list.batches {
                let plain = |text| (text, Tone::Plain);
                let counts = batch.counts;
                table.toned([
                    plain(batch.id.clone()),
                    state(&batch),
                    plain(batch.action.clone()),
                    plain((counts.total - counts.pending).to_string()),
                    plain(counts.total.to_string()),
                    plain(counts.failed.to_string()),
                    plain(counts.cancelled.to_string()),
                    plain(output::instant(batch.created_at)),
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

fn state(batch: &Batch) -> (String, Tone) {
    let (name, tone) = match batch.state {
        State::Pending => ("pending", Tone::Plain),
        State::Processing => ("processing", Tone::Plain),
        State::Completed => ("completed", Tone::Good),
        State::Failed => ("failed", Tone::Bad),
        State::PartialFailure => ("partial failure", Tone::Doubtful),
    };
    (name.to_owned(), tone)
}

/// The batch as it stands; `changed`, what the command did to it.
async fn show(id: BatchId, changed: u64, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
    let batch = output::batch(store.batches().batch_get(id).await?);
    print_one(&BatchAnswer::new(batch, changed), context)
}

fn print_one(answer: &BatchAnswer, context: &mut Context<'_>) -> Outcome {
    if context.format() != Format::Table {
        context.print(answer)?;
        return Ok(ExitStatus::Ok);
    }
    let batch = &answer.batch;
    let mut table = context.table(["", ""]);
    let mut fact = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            table.row([name.to_owned(), value]);
        }
    };
    let counts = batch.counts;
    fact("batch", Some(batch.id.clone()));
    fact("state", Some(state(batch).0));
    fact("action", Some(batch.action.clone()));
    fact("namespace", Some(batch.namespace.clone()));
    fact("within", batch.parent_id.clone());
    fact("members", Some(format!("{}, {} pending", counts.total, counts.pending)));
    for (name, count) in [
        ("completed", counts.completed),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
        ("superseded", counts.superseded),
    ] {
        fact(name, (count > 0).then(|| count.to_string()));
    }
    fact("expects", batch.expected.map(|expected| expected.to_string()));
    for (name, callback) in [
        ("on success", &batch.on_success),
        ("on finish", &batch.on_finish),
        ("on first failure", &batch.on_first_failure),
    ] {
        let made = |callback: &recache_api::BatchCallback| match &callback.job_id {
            Some(job) => format!("{}: {job}", callback.handler),
            None => callback.handler.clone(),
        };
        fact(name, callback.as_ref().map(made));
    }
    fact("created", Some(output::instant(batch.created_at)));
    let open = || "open: members may be added".to_owned();
    fact("closed", Some(batch.closed_at.map_or_else(open, output::instant)));
    let reason = batch.cancel_reason.clone().unwrap_or_default();
    fact("cancelled", batch.cancelled_at.map(|at| format!("{}: {reason}", output::instant(at))));
    fact("finished", batch.finished_at.map(output::instant));
    fact("metadata", Some(batch.metadata.text().to_owned()));
    let text = table.text();
    context.print_text(&text)?;
    Ok(ExitStatus::Ok)
}

impl Members {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let after = match self.after.as_deref() {
            None => None,
            // Of whatever kind the last one was: the bare id is what counts.
            Some(text) => {
                let bare = text.rsplit_once('_').map_or(text, |(_, bare)| bare);
                let id: JobId = bare
                    .parse()
                    .map_err(|error| recache_store::Error::Invalid(format!("--after: {error}")))?;
                Some(id.uuid())
            }
        };
        let found =
            store.batches().batch_members(self.id, self.failed, after, page::rows_max(self.limit)).await?;
        let mut members: Vec<BatchMember> = found.into_iter().map(output::batch_member).collect();
        let next = page::cut_at(&mut members, self.limit, |member| &member.id);
        print_members(BatchMemberList::new(members, next), self.failed, context)
    }

    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let query = BatchMembersQuery {
            failed: Some(self.failed),
            limit: Some(self.limit),
            after: self.after,
            cursor: None,
        };
        let mut list = client.batch_members(&self.id.to_string(), &query).await?;
        list.next = list.next.and(list.members.last().map(|last| last.id.clone()));
        print_members(list, self.failed, context)
    }
}

fn print_members(list: BatchMemberList, failed: bool, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(&list)?,
        Format::Jsonl => context.print_lines(&list.members)?,
        Format::Table => {
            if list.members.is_empty() {
                context.note(if failed { "no member failed" } else { "no members" })?;
                return Ok(ExitStatus::Ok);
            }
            let mut table = context.table(["KIND", "ID", "STATE", "CODE", "MESSAGE"]);
            for member in list.members {
                table.row([
                    member.kind,
                    member.id,
                    member.state,
                    member.code.unwrap_or_default(),
                    member.message.unwrap_or_default(),
                ]);
            }
            context.print_text(&table.text())?;
            if let Some(next) = list.next {
                context.note(&format!("there are more: --after {next}"))?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}

impl Close {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let closed = store.batches().batch_close(self.id).await?;
        if !closed {
            context.note("it was closed before")?;
        }
        // There may be no engine that would notice its end now.
        store.batches().batches_settle(vec![self.id]).await?;
        show(self.id, u64::from(closed), store, context).await
    }
}

/// Does it to a batch, with its row in the audit.
async fn done_to<T>(
    action: &'static str,
    id: BatchId,
    word: Word,
    store: &dyn Store,
    act: impl Future<Output = Result<(T, Value), Failure>>,
) -> Result<T, Failure> {
    let record = store.batches().batch_get(id).await?;
    let deed = Deed::new(action, id.to_string(), word).of(&record.definition.namespace);
    audited(store, deed, &stands(&record), act).await
}

/// As it is kept in the audit.
fn stands(record: &BatchRecord) -> Value {
    json!({
        "state": record.state.as_str(),
        "total": record.counts.total,
        "failed": record.counts.failed,
        "cancelled": record.counts.cancelled,
    })
}

impl Cancel {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let word = Word::new(context.actor(None), self.reason.clone());
        let cancelled = done_to("batches.cancel", self.id, word, store, async {
            let mut cancelled = 0;
            loop {
                let some = store.batches().batch_cancel(self.id, &self.reason, MEMBERS_MAX).await?;
                if some == 0 {
                    break;
                }
                cancelled += some;
            }
            store.batches().batches_settle(vec![self.id]).await?;
            Ok((cancelled, stands(&store.batches().batch_get(self.id).await?)))
        })
        .await?;
        context.note(&format!("{cancelled} members called off"))?;
        show(self.id, cancelled, store, context).await
    }
}

impl Retry {
    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        no_actor(self.actor.as_deref())?;
        let mut asked = RetryBatch { cursor: None, reason: Some(self.reason) };
        let mut changed = 0;
        loop {
            let mut answer = client.retry_batch(&self.id.to_string(), &asked).await?;
            changed += answer.changed;
            if answer.next.is_none() {
                answer.changed = changed;
                context.note(&format!("{changed} jobs run again"))?;
                return print_one(&answer, context);
            }
            asked.cursor = answer.next;
        }
    }

    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let word = Word::new(context.actor(self.actor.as_deref()), self.reason);
        let (changed, skipped) = done_to("batches.retry", self.id, word.clone(), store, async {
            let (mut changed, mut skipped, mut last) = (0, 0, None);
            loop {
                let done = store.batches().batch_retry(self.id, word.clone(), last, MEMBERS_MAX).await?;
                changed += done.changed;
                skipped += done.skipped;
                last = done.last;
                if last.is_none() {
                    break;
                }
            }
            let after = json!({ "changed": changed, "skipped": skipped, "is_all": true });
            Ok(((changed, skipped), after))
        })
        .await?;
        context.note(&format!("{changed} jobs run again, {skipped} could not"))?;
        show(self.id, changed, store, context).await
    }
}
