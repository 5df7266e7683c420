//! `recache dead`: jobs that failed for good, and what is done about them.

use std::time::Duration;

use clap::Subcommand;
use recache_api::client::{Client, LettersQuery};
use recache_api::{
    BulkChange, Letter as ApiLetter, LetterDetails, LetterList, LetterStatus as ApiStatus, LetterWord,
    NoteLetter, RedriveLetters,
};
use recache_model::ids::JobId;
use recache_model::letter::LetterStatus;
use recache_store::{BatchDone, LetterFilter, Store, Word};
use serde_json::json;

use super::against::{Against, ms, no_actor};
use super::audited::{Deed, audited};
use super::failure::Result;
use super::job::{bulk_changed, error_text};
use super::name::far;
use super::{Context, Outcome, page};
use crate::cli_error::ExitStatus;
use crate::output::{self, Format, Tone};

/// Jobs that one transaction redrives.
const BATCH_ROWS: u32 = 100;
/// No preview counts further.
const PREVIEW_MAX: u32 = 100_000;

/// Look at jobs that failed for good, redrive, resolve or discard them
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache dead list --queue mail
  recache dead redrive --handler send_mail --reason \"the server is back\"
  recache dead discard job_0190c7a2-7b5e-7000-8000-000000000001 --reason \"a test\""
)]
pub(crate) struct Args {
    #[command(flatten)]
    against: Against,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(List),
    Show(Show),
    Redrive(Redrive),
    Resolve(Resolve),
    Investigate(Investigate),
    Discard(Discard),
    Note(Note),
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// Only of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Only of this queue
    #[arg(long)]
    queue: Option<String>,
    /// Only of this handler
    #[arg(long)]
    handler: Option<String>,
    /// Only those whose status is at least this old: 30m, 7d
    #[arg(long, value_name = "TIME", value_parser = far)]
    stale: Option<Duration>,
}

impl Filter {
    fn letters(self) -> LetterFilter {
        LetterFilter {
            namespace: self.namespace,
            queue: self.queue,
            handler: self.handler,
            stale_for: self.stale,
            ..LetterFilter::default()
        }
    }

    fn is_empty(&self) -> bool {
        self.namespace.is_none() && self.queue.is_none() && self.handler.is_none() && self.stale.is_none()
    }
}

#[derive(Debug, clap::Args)]
struct By {
    /// Why; kept with the dead letter
    #[arg(long)]
    reason: String,
    /// Who says so [default: the user who runs the command]
    #[arg(long)]
    actor: Option<String>,
}

impl By {
    /// As it is asked of a server.
    fn asked(self) -> Result<LetterWord> {
        no_actor(self.actor.as_deref())?;
        Ok(LetterWord { reason: self.reason })
    }

    fn word(&self, context: &Context<'_>) -> Word {
        Word::new(context.actor(self.actor.as_deref()), self.reason.clone())
    }
}

/// List dead letters, newest jobs first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache dead list --stale 7d
  recache dead list --status discarded -o jsonl")]
struct List {
    #[command(flatten)]
    filter: Filter,
    /// Only in this status: pending, investigating, redriven, resolved or discarded
    /// [default: pending and investigating]
    #[arg(long)]
    status: Option<LetterStatus>,
    /// At most so many, 1 to 1000
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only of jobs older than this one: the last one of the page before
    #[arg(long, value_name = "ID")]
    before: Option<JobId>,
}

/// Show a dead letter with its attempts and notes
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache dead show job_0190c7a2-7b5e-7000-8000-000000000001")]
struct Show {
    /// The job
    id: JobId,
}

/// Put dead jobs back to the queue, with new attempts
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache dead redrive job_0190c7a2-7b5e-7000-8000-000000000001 --reason mended
  recache dead redrive --queue mail --reason \"the server is back\" --dry-run
  recache dead redrive --all --reason \"the server is back\"

By filter it goes through open dead letters in transactions of at most 100 jobs;
interrupted, it can be run again. --dry-run only counts what it would look at.")]
struct Redrive {
    /// The job
    #[arg(required_unless_present_any = ["namespace", "queue", "handler", "stale", "all"])]
    id: Option<JobId>,
    #[command(flatten)]
    filter: Filter,
    /// All that are open
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    by: By,
    /// Count, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Declare a failed job settled
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache dead resolve job_0190c7a2-7b5e-7000-8000-000000000001 \\
      --reason \"done by hand\"

The job becomes `resolved`; in a workflow what waits for it goes on.")]
struct Resolve {
    /// The job
    id: JobId,
    #[command(flatten)]
    by: By,
}

/// Say that somebody looks at a dead letter
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache dead investigate job_0190c7a2-7b5e-7000-8000-000000000001 --reason \"I look\"")]
struct Investigate {
    /// The job
    id: JobId,
    #[command(flatten)]
    by: By,
}

/// Say that nothing will be done about a dead letter
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache dead discard job_0190c7a2-7b5e-7000-8000-000000000001 --reason \"a test\"")]
struct Discard {
    /// The job
    id: JobId,
    #[command(flatten)]
    by: By,
}

/// Add a note to a dead letter
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache dead note job_0190c7a2-7b5e-7000-8000-000000000001 \"the address is wrong\"")]
struct Note {
    /// The job
    id: JobId,
    /// What to note
    text: String,
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
            Verb::List(arguments) => arguments.run(&*store, context).await,
            Verb::Show(arguments) => show(arguments.id, &*store, context).await,
            Verb::Redrive(arguments) => arguments.run(&*store, context).await,
            Verb::Resolve(arguments) => arguments.run(&*store, context).await,
            Verb::Investigate(arguments) => {
                let (id, by) = (arguments.id, arguments.by);
                mark(id, LetterStatus::Investigating, &by, &*store, context).await
            }
            Verb::Discard(arguments) => {
                mark(arguments.id, LetterStatus::Discarded, &arguments.by, &*store, context).await
            }
            Verb::Note(arguments) => arguments.run(&*store, context).await,
        };
        store.close().await;
        outcome
    }
}

impl Verb {
    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let details = match self {
            Self::List(arguments) => return arguments.ask(client, context).await,
            Self::Redrive(arguments) => return arguments.ask(client, context).await,
            Self::Show(Show { id }) => client.dead_letter(&id.to_string()).await?,
            Self::Resolve(Resolve { id, by }) => {
                client.resolve_dead_letter(&id.to_string(), &by.asked()?).await?
            }
            Self::Investigate(Investigate { id, by }) => {
                client.investigate_dead_letter(&id.to_string(), &by.asked()?).await?
            }
            Self::Discard(Discard { id, by }) => {
                client.discard_dead_letter(&id.to_string(), &by.asked()?).await?
            }
            Self::Note(Note { id, text, actor }) => {
                no_actor(actor.as_deref())?;
                client.note_dead_letter(&id.to_string(), &NoteLetter { text }).await?
            }
        };
        print_details(details, context)
    }
}

fn status(status: ApiStatus) -> (String, Tone) {
    let (name, tone) = match status {
        ApiStatus::Pending => ("pending", Tone::Bad),
        ApiStatus::Investigating => ("investigating", Tone::Active),
        ApiStatus::Redriven => ("redriven", Tone::Good),
        ApiStatus::Resolved => ("resolved", Tone::Good),
        ApiStatus::Discarded => ("discarded", Tone::Plain),
    };
    (name.to_owned(), tone)
}

impl List {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let filter = LetterFilter { status: self.status, before: self.before, ..self.filter.letters() };
        let found = store.letters().letters_list(filter, page::rows_max(self.limit)).await?;
        let mut letters: Vec<ApiLetter> = found.into_iter().map(output::letter).collect();
        let next = page::cut_at(&mut letters, self.limit, |letter| &letter.job_id);
        print_list(LetterList::new(letters, next), context)
    }

    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let query = LettersQuery {
            namespace: self.filter.namespace,
            queue: self.filter.queue,
            handler: self.filter.handler,
            status: self.status.map(api_status),
            stale_ms: self.filter.stale.map(ms),
            limit: Some(self.limit),
            before: self.before.map(|id| id.to_string()),
            cursor: None,
        };
        let mut list = client.dead_letters(&query).await?;
        list.next = list.next.and(list.letters.last().map(|last| last.job_id.clone()));
        print_list(list, context)
    }
}

fn api_status(status: LetterStatus) -> ApiStatus {
    match status {
        LetterStatus::Pending => ApiStatus::Pending,
        LetterStatus::Investigating => ApiStatus::Investigating,
        LetterStatus::Redriven => ApiStatus::Redriven,
        LetterStatus::Resolved => ApiStatus::Resolved,
        LetterStatus::Discarded => ApiStatus::Discarded,
    }
}

fn print_list(list: LetterList, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(&list)?,
        Format::Jsonl => context.print_lines(&list.letters)?,
        Format::Table => {
            if list.letters.is_empty() {
                context.note("no dead letters")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table = context.table(["JOB", "STATUS", "HANDLER", "QUEUE", "FAILED", "ERROR"]);
            for letter in list.letters {
                let plain = |text| (text, Tone::Plain);
                table.toned([
                    plain(letter.job_id),
                    status(letter.status),
                    plain(letter.handler),
                    plain(letter.queue),
                    plain(output::instant(letter.failed_at)),
                    plain(error_text(&letter.error)),
                ]);
            }
            context.print_text(&table.leaving_out(&["QUEUE", "FAILED"]).text())?;
            if let Some(next) = list.next {
                context.note(&format!("there are more: --before {next}"))?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}

async fn show(id: JobId, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
    let (letter, notes) = store.letters().letter_get(id).await?;
    let letter = output::letter(letter);
    let notes: Vec<_> = notes.into_iter().map(output::letter_note).collect();
    print_details(LetterDetails::new(letter, notes), context)
}

fn print_details(details: LetterDetails, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(&details)?,
        Format::Table => {
            let LetterDetails { letter, notes, .. } = details;
            let mut facts = context.table(["", ""]);
            let mut fact = |name: &str, value: String| facts.row([name.to_owned(), value]);
            fact("job", letter.job_id.clone());
            fact("status", status(letter.status).0);
            fact("handler", letter.handler.clone());
            fact("namespace", letter.namespace.clone());
            fact("queue", format!("{}, priority {}", letter.queue, letter.priority));
            fact("submitted", output::instant(letter.submitted_at));
            fact("failed", output::instant(letter.failed_at));
            fact("reason", letter.reason.clone());
            for (name, id) in [("workflow", &letter.workflow_id), ("step", &letter.step)] {
                if let Some(id) = id {
                    fact(name, id.clone());
                }
            }
            fact("correlation", letter.correlation_id.clone());
            fact("input", letter.input.text().to_owned());
            let mut attempts = context.table(["ATTEMPT", "ENDED", "ERROR"]);
            for kept in &letter.attempts {
                attempts.row([kept.attempt.to_string(), output::instant(kept.at), error_text(&kept.error)]);
            }
            let mut text = format!("{}\n{}", facts.text(), attempts.text());
            if !notes.is_empty() {
                let mut said = context.table(["AT", "STATUS", "BY", "NOTE"]);
                for note in notes {
                    let (name, _) = status(note.status);
                    said.row([output::instant(note.at), name, note.actor, note.text]);
                }
                text = format!("{text}\n{}", said.text());
            }
            context.print_text(&text)?;
        }
    }
    Ok(ExitStatus::Ok)
}

impl Redrive {
    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let word = self.by.asked()?;
        let is_filtered = self.dry_run || self.all || !self.filter.is_empty();
        if let Some(id) = self.id.filter(|_| !is_filtered) {
            client.redrive_dead_letter(&id.to_string(), &word).await?;
            return bulk_changed(&BulkChange::done(1, 0), context);
        }
        let mut asked = RedriveLetters {
            job_id: self.id.map(|id| id.to_string()),
            namespace: self.filter.namespace,
            queue: self.filter.queue,
            handler: self.filter.handler,
            stale_ms: self.filter.stale.map(ms),
            all: self.all,
            dry_run: self.dry_run,
            cursor: None,
            reason: word.reason,
        };
        let mut sum = BulkChange::done(0, 0);
        loop {
            let done = client.redrive_dead_letters(&asked).await?;
            if done.matching.is_some() {
                return bulk_changed(&done, context);
            }
            sum.changed += done.changed;
            sum.skipped += done.skipped;
            if done.next.is_none() {
                break;
            }
            asked.cursor = done.next;
        }
        if let Some(id) = self.id.filter(|_| sum.changed == 0) {
            // Says that it is not there, if so.
            let letter = client.dead_letter(&id.to_string()).await?.letter;
            return Err(not_redriven(id, &status(letter.status).0).into());
        }
        bulk_changed(&sum, context)
    }

    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let is_filtered = !self.filter.is_empty() || self.all;
        let mut filter = LetterFilter { job: self.id, ..self.filter.letters() };
        if self.dry_run {
            let matching = store.letters().letters_count(filter, PREVIEW_MAX).await?;
            return bulk_changed(&BulkChange::preview(matching), context);
        }
        let word = self.by.word(context);
        let shown =
            json!({ "queue": filter.queue, "handler": filter.handler, "namespace": filter.namespace });
        let deed = match (self.id, is_filtered) {
            (Some(id), false) => Deed::new("dead_letters.redrive", id.to_string(), word.clone()),
            _ => Deed::new("dead_letters.redrive_many", "by filter", word.clone()),
        };
        let deed = Deed { namespace: filter.namespace.clone(), ..deed };
        let sum = audited(store, deed, &shown, async {
            let mut sum = BatchDone::default();
            loop {
                let done = store.letters().letters_redrive(filter.clone(), BATCH_ROWS, word.clone()).await?;
                sum.changed += done.changed;
                sum.skipped += done.skipped;
                filter.before = done.last;
                if done.last.is_none() || !is_filtered {
                    break;
                }
            }
            let after = json!({ "changed": sum.changed, "skipped": sum.skipped });
            Ok((sum, after))
        })
        .await?;
        if sum.changed == 0
            && let Some(id) = self.id
        {
            // Says what it is, or that it is not there.
            let (letter, _) = store.letters().letter_get(id).await?;
            return Err(not_redriven(id, letter.status.as_str()).into());
        }
        bulk_changed(&BulkChange::done(sum.changed, sum.skipped), context)
    }
}

fn not_redriven(id: JobId, status: &str) -> recache_store::Error {
    recache_store::Error::Conflict(format!(
        "the dead letter of job `{id}` is {status}, or another job of its unique key is there: it was not redriven"
    ))
}

/// How a dead letter stands, as the audit keeps it, and whose it is.
async fn stands(id: JobId, store: &dyn Store) -> Result<(serde_json::Value, String)> {
    let (letter, _) = store.letters().letter_get(id).await?;
    Ok((json!({ "status": letter.status.as_str() }), output::letter(letter).namespace))
}

impl Resolve {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let word = self.by.word(context);
        let (before, namespace) = stands(self.id, store).await?;
        let deed = Deed::new("dead_letters.resolve", self.id.to_string(), word.clone()).of(&namespace);
        audited(store, deed, &before, async {
            store.letters().job_resolve(self.id, word).await?;
            Ok(((), json!({ "status": "resolved" })))
        })
        .await?;
        show(self.id, store, context).await
    }
}

async fn mark(id: JobId, to: LetterStatus, by: &By, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
    let word = by.word(context);
    let (before, namespace) = stands(id, store).await?;
    let action =
        if to == LetterStatus::Discarded { "dead_letters.discard" } else { "dead_letters.investigate" };
    let deed = Deed::new(action, id.to_string(), word.clone()).of(&namespace);
    audited(store, deed, &before, async {
        store.letters().letter_mark(id, to, word).await?;
        Ok(((), json!({ "status": to.as_str() })))
    })
    .await?;
    show(id, store, context).await
}

impl Note {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let word = Word::new(context.actor(self.actor.as_deref()), self.text);
        let (before, namespace) = stands(self.id, store).await?;
        let deed = Deed::new("dead_letters.note", self.id.to_string(), word.clone()).of(&namespace);
        audited(store, deed, &before, async {
            store.letters().letter_note(self.id, word).await?;
            Ok(((), before.clone()))
        })
        .await?;
        show(self.id, store, context).await
    }
}
