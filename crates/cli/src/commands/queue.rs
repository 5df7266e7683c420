//! `recache queue`: look at queues, pause, drain and limit them.

use std::time::Duration;

use clap::Subcommand;
use recache_api::client::Client;
use recache_api::{
    Limit as ApiLimit, LimitList, LimitOf, PauseQueue, Queue, QueueAnswer, QueueList, SetLimit,
};
use recache_model::limits::{Limit as ModelLimit, Rate};
use recache_store::{Due, LimitScope, Store, Word};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::against::{Against, WAIT_OF_ONE_REQUEST, because, ms, no_actor, now_micros};
use super::audited::{Deed, audited};
use super::failure::Result;
use super::name::{far, wait};
use super::{Context, Outcome};
use crate::cli_error::{CliError, ExitStatus};
use crate::output::{self, Format, Tone};

/// Between two looks at a queue that is drained.
const LOOK: Duration = Duration::from_millis(100);
/// The same through a server.
const LOOK_AT_SERVER: Duration = Duration::from_millis(500);

/// Look at queues, pause, drain and limit them
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache queue list
  recache queue pause mail --reason \"the mail server moves\" --for 2h
  recache queue limit mail --running 5 --rate 100/1m"
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
    Pause(Pause),
    Drain(Drain),
    Resume(Resume),
    Limit(Limit),
    Limits(Limits),
}

/// List queues that hold jobs, are paused or are limited
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache queue list -o json")]
struct List {}

/// Show a queue
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache queue show mail")]
struct Show {
    /// The queue
    name: String,
}

/// Let nothing of a queue begin; what runs goes on
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache queue pause mail --reason \"the mail server moves\"
  recache queue pause mail --reason \"quiet hours\" --for 8h")]
struct Pause {
    /// The queue
    name: String,
    #[command(flatten)]
    why: Why,
}

/// Pause a queue and wait until nothing of it runs
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache queue drain mail --reason \"the mail server moves\" --timeout 5m

Ends with exit code 124 when something still runs after the timeout; the queue
stays paused either way.")]
struct Drain {
    /// The queue
    name: String,
    #[command(flatten)]
    why: Why,
    /// How long to wait
    #[arg(long, value_name = "TIME", value_parser = wait, default_value = "10m")]
    timeout: Duration,
}

#[derive(Debug, clap::Args)]
struct Why {
    /// Why; shown to whoever looks
    #[arg(long)]
    reason: String,
    /// Who says so [default: the user who runs the command]
    #[arg(long)]
    actor: Option<String>,
    /// The pause ends by itself after this long: 30m, 2h
    #[arg(long = "for", value_name = "TIME", value_parser = far)]
    length: Option<Duration>,
}

/// End a pause
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache queue resume mail")]
struct Resume {
    /// The queue
    name: String,
}

/// Limit what runs at once and what starts in a while, over all processes
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "recache queue limit [NAME] [OPTIONS]",
    group = clap::ArgGroup::new("of").required(true).multiple(false),
    group = clap::ArgGroup::new("what").required(true).multiple(true),
    after_help = "Examples:
  recache queue limit mail --running 5 --rate 100/1m
  recache queue limit --handler send_mail --running 2
  recache queue limit --key customer-42 --namespace shop --running 3
  recache queue limit mail --off

The limit is set as a whole, in place of the former one. Of a concurrency key one
job may run at once unless a limit says otherwise."
)]
struct Limit {
    /// The queue
    #[arg(group = "of")]
    name: Option<String>,
    /// Limit a handler instead, in whatever queue
    #[arg(long, value_name = "NAME", group = "of")]
    handler: Option<String>,
    /// Limit a concurrency key instead
    #[arg(long, group = "of")]
    key: Option<String>,
    /// Whose concurrency key it is
    #[arg(long, default_value = "default", requires = "key")]
    namespace: String,
    /// Jobs that may run at once
    #[arg(long, value_name = "N", group = "what")]
    running: Option<u32>,
    /// Starts in any stretch of time of a length: 100/1m
    #[arg(long, value_name = "N/TIME", value_parser = rate, group = "what")]
    rate: Option<Rate>,
    /// Remove the limit
    #[arg(long, group = "what", conflicts_with_all = ["running", "rate"])]
    off: bool,
    /// Who says so [default: the user who runs the command]
    #[arg(long)]
    actor: Option<String>,
}

/// List the limits of queues, handlers and concurrency keys
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache queue limits")]
struct Limits {}

/// Reads `100/1m`.
fn rate(text: &str) -> std::result::Result<Rate, String> {
    let form = "expected a number of starts and a length of time: 100/1m";
    let (starts, period) = text.split_once('/').ok_or(form)?;
    let starts_max = starts.trim().parse().map_err(|_| form)?;
    let rate = Rate { starts_max, period: far(period.trim()).map_err(|_| form)? };
    let problems = ModelLimit { running_max: None, rate: Some(rate) }.problems();
    if problems.is_empty() { Ok(rate) } else { Err(problems.join("; ")) }
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        if let Some(client) = self.against.client(context)? {
            return self.verb.ask(&client, context).await;
        }
        let store = context.open().await?;
        let outcome = match self.verb {
            Verb::List(_) => list(&*store, context).await,
            Verb::Show(arguments) => show(&arguments.name, false, &*store, context).await,
            Verb::Pause(arguments) => arguments.run(&*store, context).await,
            Verb::Drain(arguments) => arguments.run(&*store, context).await,
            Verb::Resume(arguments) => arguments.run(&*store, context).await,
            Verb::Limit(arguments) => arguments.run(&*store, context).await,
            Verb::Limits(_) => limits(&*store, context).await,
        };
        store.close().await;
        outcome
    }
}

impl Verb {
    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::List(_) => print_list(&client.queues().await?, now_micros(), context),
            Self::Show(arguments) => print_one(&client.queue(&arguments.name).await?, context),
            Self::Pause(Pause { name, why }) => {
                print_one(&client.pause_queue(&name, &why.asked()?).await?, context)
            }
            Self::Drain(arguments) => arguments.ask(client, context).await,
            Self::Resume(Resume { name }) => {
                let answer =
                    client.resume_queue(&name, &because("resumed from the command line".into())).await?;
                if !answer.changed {
                    context.note(&format!("queue `{name}` was not paused"))?;
                }
                print_one(&answer, context)
            }
            Self::Limit(arguments) => print_limits(&client.set_limit(&arguments.asked()?).await?, context),
            Self::Limits(_) => print_limits(&client.limits().await?, context),
        }
    }
}

async fn list(store: &dyn Store, context: &mut Context<'_>) -> Outcome {
    let queues: Vec<Queue> = store.queues().queues_list().await?.into_iter().map(output::queue).collect();
    let now = store.now().await?;
    print_list(&QueueList::new(queues), now.micros(), context)
}

fn print_list(list: &QueueList, now_micros: i64, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(list)?,
        Format::Jsonl => context.print_lines(&list.queues)?,
        Format::Table => {
            if list.queues.is_empty() {
                context.note("no queue holds jobs, is paused or is limited")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table =
                context.table(["QUEUE", "STATE", "QUEUED", "RUNNING", "LIMIT", "WAITS", "REASON"]);
            for queue in &list.queues {
                let (state, tone) =
                    if queue.pause.is_some() { ("paused", Tone::Doubtful) } else { ("open", Tone::Good) };
                let plain = |text| (text, Tone::Plain);
                let waits = queue.due_since.map(|since| now_micros.saturating_sub(since.micros()) / 1000);
                let waits = waits.and_then(|ms| u64::try_from(ms).ok()).map(output::duration);
                let reason = queue.pause.as_ref().map(|pause| format!("{}: {}", pause.actor, pause.reason));
                table.toned([
                    plain(queue.name.clone()),
                    (state.to_owned(), tone),
                    plain(counted(queue.queued)),
                    plain(queue.running.to_string()),
                    plain(limit_text(queue.running_max, queue.starts_max, queue.period_ms)),
                    plain(waits.unwrap_or_default()),
                    plain(reason.unwrap_or_default()),
                ]);
            }
            context.print_text(&table.text())?;
        }
    }
    Ok(ExitStatus::Ok)
}

/// A count that was not taken to its end is marked.
fn counted(count: i64) -> String {
    if count >= recache_store::QUEUED_COUNTED_MAX { format!("{count}+") } else { count.to_string() }
}

fn limit_text(running_max: Option<u32>, starts_max: Option<u32>, period_ms: Option<u64>) -> String {
    let running = running_max.map(|max| format!("{max} at once"));
    let rate =
        starts_max.zip(period_ms).map(|(starts, ms)| format!("{starts} starts in {}", output::duration(ms)));
    [running, rate].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The queue as it stands; `changed`, whether the command made it so.
async fn show(name: &str, changed: bool, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
    let queue = output::queue(store.queues().queue_get(name).await?);
    print_one(&QueueAnswer::new(queue, changed), context)
}

fn print_one(answer: &QueueAnswer, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(answer)?,
        Format::Table => {
            let queue = &answer.queue;
            let mut table = context.table(["", ""]);
            let mut fact = |name: &str, value: String| table.row([name.to_owned(), value]);
            fact("queue", queue.name.clone());
            fact("state", if queue.pause.is_some() { "paused" } else { "open" }.to_owned());
            if let Some(pause) = &queue.pause {
                fact("since", output::instant(pause.at));
                fact("until", pause.until.map_or_else(|| "resumed".to_owned(), output::instant));
                fact("by", pause.actor.clone());
                fact("reason", pause.reason.clone());
            }
            fact("queued", counted(queue.queued));
            fact("running", queue.running.to_string());
            if let Some(since) = queue.due_since {
                fact("due since", output::instant(since));
            }
            let limit = limit_text(queue.running_max, queue.starts_max, queue.period_ms);
            fact("limit", if limit.is_empty() { "none".to_owned() } else { limit });
            context.print_text(&table.text())?;
        }
    }
    Ok(ExitStatus::Ok)
}

/// Whether a queue is paused, as the audit keeps it.
async fn paused(queue: &str, store: &dyn Store) -> Result<Value> {
    Ok(json!({ "paused": store.queues().queue_get(queue).await?.pause.is_some() }))
}

impl Why {
    /// As it is asked of a server.
    fn asked(&self) -> Result<PauseQueue> {
        no_actor(self.actor.as_deref())?;
        Ok(PauseQueue { reason: self.reason.clone(), for_ms: self.length.map(ms), until: None })
    }

    async fn pause(
        &self,
        action: &'static str,
        queue: &str,
        store: &dyn Store,
        context: &Context<'_>,
    ) -> Result<()> {
        let word = Word::new(context.actor(self.actor.as_deref()), self.reason.clone());
        let before = paused(queue, store).await?;
        audited(store, Deed::new(action, queue, word.clone()), &before, async {
            store.queues().queue_pause(queue, self.length.map(Due::In), word).await?;
            Ok(((), json!({ "paused": true })))
        })
        .await
    }
}

impl Pause {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        self.why.pause("queues.pause", &self.name, store, context).await?;
        show(&self.name, true, store, context).await
    }
}

impl Drain {
    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let deadline = Instant::now() + self.timeout;
        let left = || deadline.saturating_duration_since(Instant::now()).min(WAIT_OF_ONE_REQUEST);
        let mut answer = client.drain_queue(&self.name, &self.why.asked()?, Some(left())).await?;
        while answer.queue.running > 0 {
            if left().is_zero() {
                return Err(self.late(answer.queue.running).into());
            }
            tokio::time::sleep(LOOK_AT_SERVER.min(left())).await;
            answer = QueueAnswer { changed: true, ..client.queue(&self.name).await? };
        }
        print_one(&answer, context)
    }

    /// Something still runs.
    fn late(&self, running: i64) -> CliError {
        let what = format!("queue `{}` is paused, but {running} of its jobs still run", self.name);
        CliError::new("E-TIMED-OUT", ExitStatus::TimedOut, what)
            .help("run the command again to go on waiting, or cancel them: recache job list --state running")
    }

    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        self.why.pause("queues.drain", &self.name, store, context).await?;
        let deadline = Instant::now() + self.timeout;
        loop {
            let running = store.queues().queue_get(&self.name).await?.running;
            if running == 0 {
                return show(&self.name, true, store, context).await;
            }
            if Instant::now() >= deadline {
                return Err(self.late(running).into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Resume {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let word = Word::new(context.actor(None), "resumed from the command line");
        let before = paused(&self.name, store).await?;
        let changed = audited(store, Deed::new("queues.resume", self.name.clone(), word), &before, async {
            Ok((store.queues().queue_resume(&self.name).await?, json!({ "paused": false })))
        })
        .await?;
        if !changed {
            context.note(&format!("queue `{}` was not paused", self.name))?;
        }
        show(&self.name, changed, store, context).await
    }
}

impl Limit {
    /// As it is asked of a server.
    fn asked(self) -> Result<SetLimit> {
        no_actor(self.actor.as_deref())?;
        let (scope, name) = match (self.name, self.handler, self.key) {
            (Some(name), _, _) => (LimitOf::Queue, name),
            (_, Some(name), _) => (LimitOf::Handler, name),
            (_, _, key) => (LimitOf::Key, key.unwrap_or_default()),
        };
        Ok(SetLimit {
            scope,
            name,
            namespace: (scope == LimitOf::Key).then_some(self.namespace),
            running_max: self.running,
            starts_max: self.rate.map(|rate| rate.starts_max),
            period_ms: self.rate.map(|rate| ms(rate.period)),
            off: self.off,
            reason: Some("set from the command line".to_owned()),
        })
    }

    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let scope = match (self.name, self.handler, self.key) {
            (Some(name), _, _) => LimitScope::Queue(name),
            (_, Some(name), _) => LimitScope::Handler(name),
            (_, _, Some(key)) => LimitScope::Key { namespace: self.namespace, key },
            // The command line holds that one of them is named.
            (None, None, None) => return Ok(ExitStatus::Usage),
        };
        let limit = ModelLimit { running_max: self.running, rate: self.rate };
        let actor = context.actor(self.actor.as_deref());
        let (namespace, target) = match &scope {
            LimitScope::Queue(name) => (None, format!("queue {name}")),
            LimitScope::Handler(name) => (None, format!("handler {name}")),
            LimitScope::Key { namespace, key } => (Some(namespace.clone()), format!("key {key}")),
        };
        let word = Word::new(actor.clone(), "set from the command line");
        let deed = Deed { namespace, ..Deed::new("queues.limit", target, word) };
        audited(store, deed, &json!(null), async {
            store.queues().limit_set(scope, limit, &actor).await?;
            let rate = limit.rate.map(|rate| (rate.starts_max, ms(rate.period)));
            Ok(((), json!({ "running_max": limit.running_max, "starts_in_ms": rate })))
        })
        .await?;
        limits(store, context).await
    }
}

async fn limits(store: &dyn Store, context: &mut Context<'_>) -> Outcome {
    let limits: Vec<ApiLimit> = store.queues().limits_list().await?.into_iter().map(output::limit).collect();
    print_limits(&LimitList::new(limits), context)
}

fn print_limits(list: &LimitList, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(list)?,
        Format::Jsonl => context.print_lines(&list.limits)?,
        Format::Table => {
            if list.limits.is_empty() {
                context.note("no limits are set")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table = context.table(["OF", "NAMESPACE", "NAME", "LIMIT", "SET BY", "AT"]);
            for limit in list.limits.clone() {
                table.row([
                    limit.scope,
                    limit.namespace.unwrap_or_default(),
                    limit.name,
                    limit_text(limit.running_max, limit.starts_max, limit.period_ms),
                    limit.actor,
                    output::instant(limit.changed_at),
                ]);
            }
            context.print_text(&table.text())?;
        }
    }
    Ok(ExitStatus::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_a_number_and_a_length_of_time() {
        assert_eq!(rate("100/1m"), Ok(Rate { starts_max: 100, period: Duration::from_mins(1) }));
        assert_eq!(rate("5 / 500ms"), Ok(Rate { starts_max: 5, period: Duration::from_millis(500) }));
        for text in ["", "100", "100/", "/1m", "-1/1m", "0/1m", "1/40d"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
