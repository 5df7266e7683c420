//! `recache webhook`: tell other people's servers of events.

mod remote;

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use recache_api::{DeliveryList, Subscriber, SubscriberList, WebhookSecret};
use recache_model::event::{DeliveryState, EventFilter, delivery_policy};
use recache_model::ids::EventId;
use recache_model::retry::RetryPolicy;
use recache_model::webhook::Secret;
use recache_store::{
    DeliveryFilter, DeliveryRecord, Error, NewSubscriber, Store, SubscriberKind, SubscriberRecord, Word,
};
use serde_json::json;

use super::against::Against;
use super::audited::{Deed, audited};
use super::failure::Result;
use super::name::{far, wait};
use super::{Context, Outcome, page};
use crate::cli_error::{CliError, ExitStatus};
use crate::outbound;
use crate::output::{self, Format, Tone};

/// Deliveries that one transaction has made once more, or removes.
const BATCH_ROWS: u32 = 500;

/// Tell other servers of events by signed HTTP requests
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache webhook add shop https://shop.example/hooks --event 'order.*'
  recache webhook deliveries shop --state dead
  recache webhook redeliver shop --dead

Sent by `recache serve`, signed in the form of Standard Webhooks (headers
webhook-id, webhook-timestamp, webhook-signature), at least once: the id stays
the same however often one event is sent. An answer of 2xx ends a delivery, 410
ends the webhook, anything else is tried again for two and a half days."
)]
pub(crate) struct Args {
    #[command(flatten)]
    against: Against,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Add(Add),
    List(List),
    Show(Show),
    Remove(Remove),
    Pause(Pause),
    Resume(Resume),
    Rotate(Rotate),
    Deliveries(Deliveries),
    Redeliver(Redeliver),
}

/// Add a webhook; its secret is shown once
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache webhook add shop https://shop.example/hooks --event 'order.*'
  recache webhook add ops https://ops.example/in --event job.failed --event view.failed

Types: a whole name, or `order.*`, or `*` for all events of templates. Changes of
state are asked for by name or by `job.*`, `workflow.*`, `view.*`; they are written
only while somebody asks for them.")]
struct Add {
    /// What it is called
    name: String,
    /// Where to send
    url: String,
    /// A type of events; may be given again
    #[arg(long = "event", value_name = "TYPE", required = true)]
    events: Vec<String>,
    /// Only events of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// How long one try may take
    #[arg(long, value_name = "TIME", value_parser = wait, default_value = "15s")]
    timeout: Duration,
    /// Tries of each delivery
    #[arg(long, default_value_t = delivery_policy().attempts_max, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
    /// Send without TLS, to an http:// address
    #[arg(long)]
    plain: bool,
}

/// List webhooks by name
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache webhook list -o json")]
struct List {}

/// Show a webhook
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache webhook show shop")]
struct Show {
    /// The webhook
    name: String,
}

/// Remove a webhook with its deliveries
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache webhook remove shop")]
struct Remove {
    /// The webhook
    name: String,
}

/// Let what is for a webhook wait
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache webhook pause shop --reason \"their server moves\"")]
struct Pause {
    /// The webhook
    name: String,
    /// Why; shown to whoever looks
    #[arg(long)]
    reason: String,
    /// Who says so [default: the user who runs the command]
    #[arg(long)]
    actor: Option<String>,
}

/// End a pause, and a rest after failures
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache webhook resume shop")]
struct Resume {
    /// The webhook
    name: String,
    /// Who says so [default: the user who runs the command]
    #[arg(long)]
    actor: Option<String>,
}

/// Give a webhook a new secret, shown once
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache webhook rotate shop
  recache webhook rotate shop --overlap 0s

For the time of the overlap every request is signed with both secrets, so that
the receiver can change over when it likes.")]
struct Rotate {
    /// The webhook
    name: String,
    /// For how long the former secret signs too
    #[arg(long, value_name = "TIME", value_parser = far, default_value = "24h")]
    overlap: Duration,
}

/// List deliveries, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache webhook deliveries shop --state dead
  recache webhook deliveries shop --event evt_0190c7a2-7b5e-7000-8000-000000000001")]
struct Deliveries {
    /// The webhook; without it, those of all subscribers
    name: Option<String>,
    /// Only in this state
    #[arg(long, value_enum)]
    state: Option<StateArgument>,
    /// Only of this event, with each try
    #[arg(long, value_name = "ID")]
    event: Option<EventId>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Where the page begins: `next` of the page before
    #[arg(long, value_name = "NEXT")]
    cursor: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateArgument {
    /// Not yet delivered
    Pending,
    /// The receiver has it
    Delivered,
    /// Given up
    Dead,
}

/// Have deliveries made once more, with the same ids
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("which").required(true),
    after_help = "Examples:
  recache webhook redeliver shop --dead
  recache webhook redeliver shop --event evt_0190c7a2-7b5e-7000-8000-000000000001"
)]
struct Redeliver {
    /// The webhook
    name: String,
    /// All that were given up
    #[arg(long, group = "which")]
    dead: bool,
    /// The one of this event, delivered or dead
    #[arg(long, value_name = "ID", group = "which")]
    event: Option<EventId>,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        if let Some(client) = self.against.client(context)? {
            return self.verb.ask(&client, context).await;
        }
        let allow_private_addresses = context.load()?.config.outbound.allow_private_addresses;
        if let Verb::Add(arguments) = &self.verb {
            // Before any database is touched.
            outbound::check_url(&arguments.url, allow_private_addresses, arguments.plain).map_err(|why| {
                CliError::new("E-INVALID", ExitStatus::Usage, format!("webhook `{}`: {why}", arguments.name))
                    .at("URL")
            })?;
        }
        let store = context.open().await?;
        let outcome = match self.verb {
            Verb::Add(arguments) => arguments.run(&*store, context).await,
            Verb::List(_) => list(&*store, context).await,
            Verb::Show(arguments) => show(&*store, context, &arguments.name).await,
            Verb::Remove(arguments) => arguments.run(&*store, context).await,
            Verb::Pause(arguments) => arguments.run(&*store, context).await,
            Verb::Resume(arguments) => arguments.run(&*store, context).await,
            Verb::Rotate(arguments) => arguments.run(&*store, context).await,
            Verb::Deliveries(arguments) => arguments.run(&*store, context).await,
            Verb::Redeliver(arguments) => arguments.run(&*store, context).await,
        };
        store.close().await;
        outcome
    }
}

/// Only a webhook: what a program registers is the program's own.
async fn found(store: &dyn Store, name: &str) -> Result<SubscriberRecord> {
    let record = store.events().subscriber_get(name).await?;
    if record.url.is_none() {
        return Err(Error::NotFound { what: "webhook", id: name.to_owned() }.into());
    }
    Ok(record)
}

async fn show(store: &dyn Store, context: &mut Context<'_>, name: &str) -> Outcome {
    let record = found(store, name).await?;
    print_subscriber(context, &output::subscriber(record))
}

/// A subscriber in full.
pub(super) fn print_subscriber(context: &mut Context<'_>, subscriber: &Subscriber) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(subscriber)?,
        Format::Table => {
            let mut table = context.table(["", ""]);
            let mut fact = |name: &str, value: String| table.row([name.to_owned(), value]);
            fact(&subscriber.kind, subscriber.name.clone());
            fact("state", state(subscriber).0);
            fact(
                "since",
                format!(
                    "{} by {}: {}",
                    output::instant(subscriber.state_at),
                    subscriber.state_actor,
                    subscriber.state_reason
                ),
            );
            if let Some(url) = &subscriber.url {
                fact("url", url.clone());
            }
            fact("events", subscriber.types.join(", "));
            fact("namespace", subscriber.namespace.clone().unwrap_or_else(|| "any".to_owned()));
            fact(
                "tries",
                format!(
                    "{}, up to {} each",
                    subscriber.retry.attempts_max,
                    output::duration(subscriber.timeout_ms)
                ),
            );
            fact("waiting", subscriber.waiting.to_string());
            fact("dead", subscriber.dead.to_string());
            if subscriber.failures > 0 {
                fact("failures", format!("{} in a row", subscriber.failures));
            }
            if let Some(until) = subscriber.old_secret_until {
                fact("secrets", format!("two, until {}", output::instant(until)));
            }
            context.print_text(&table.text())?;
        }
    }
    Ok(ExitStatus::Ok)
}

/// What a subscriber does, and how good that is.
pub(super) fn state(subscriber: &Subscriber) -> (String, Tone) {
    match subscriber.state.as_str() {
        "active" if subscriber.failures > 0 => ("failing".to_owned(), Tone::Bad),
        "active" => ("active".to_owned(), Tone::Good),
        "gone" => ("gone".to_owned(), Tone::Bad),
        other => (other.to_owned(), Tone::Doubtful),
    }
}

async fn list(store: &dyn Store, context: &mut Context<'_>) -> Outcome {
    let records = store.events().subscribers_list().await?;
    let webhooks: Vec<Subscriber> =
        records.into_iter().filter(|record| record.url.is_some()).map(output::subscriber).collect();
    print_subscribers(context, webhooks, "no webhooks")
}

/// Subscribers, one a line.
pub(super) fn print_subscribers(
    context: &mut Context<'_>,
    subscribers: Vec<Subscriber>,
    none: &str,
) -> Outcome {
    match context.format() {
        Format::Json => context.print(&SubscriberList::new(subscribers))?,
        Format::Jsonl => context.print_lines(&subscribers)?,
        Format::Table => {
            if subscribers.is_empty() {
                context.note(none)?;
                return Ok(ExitStatus::Ok);
            }
            let mut table = context.table(["NAME", "STATE", "EVENTS", "WAITING", "DEAD", "URL"]);
            for subscriber in subscribers {
                let plain = |text| (text, Tone::Plain);
                let state = state(&subscriber);
                table.toned([
                    plain(subscriber.name),
                    state,
                    plain(subscriber.types.join(", ")),
                    plain(subscriber.waiting.to_string()),
                    plain(subscriber.dead.to_string()),
                    plain(subscriber.url.unwrap_or_default()),
                ]);
            }
            context.print_text(&table.leaving_out(&["URL", "EVENTS"]).text())?;
        }
    }
    Ok(ExitStatus::Ok)
}

fn secret_of(record: SubscriberRecord, secret: &Secret) -> WebhookSecret {
    WebhookSecret::new(record.name, secret.reveal(), record.old_secret_until.map(output::timestamp))
}

/// The one time that a secret is shown.
fn print_secret(context: &mut Context<'_>, document: &WebhookSecret) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(document)?,
        Format::Table => {
            context.note(&format!("the secret of webhook `{}`, shown only now:", document.name))?;
            context.print_text(&format!("{}\n", document.secret))?;
        }
    }
    Ok(ExitStatus::Ok)
}

fn deed(action: &'static str, record: SubscriberRecord, actor: String, reason: &str) -> Deed {
    let deed = Deed::new(action, record.name, Word::new(actor, reason));
    Deed { namespace: record.filter.namespace, ..deed }
}

impl Add {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let secret = Secret::new(rand::random());
        let new = NewSubscriber {
            name: self.name,
            kind: SubscriberKind::Webhook { url: self.url, secret: secret.clone() },
            filter: EventFilter { namespace: self.namespace, ..EventFilter::of(self.events) },
            retry: RetryPolicy { attempts_max: self.attempts, ..delivery_policy() },
            timeout: self.timeout,
        };
        let word = Word::new(context.actor(None), "added from the command line");
        let deed = Deed {
            namespace: new.filter.namespace.clone(),
            ..Deed::new("webhooks.create", new.name.clone(), word)
        };
        let record = audited(store, deed, &json!(null), async {
            Ok((store.events().subscriber_put(new).await?, json!({ "created": true })))
        })
        .await?;
        print_secret(context, &secret_of(record, &secret))
    }
}

impl Remove {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let record = found(store, &self.name).await?;
        let deed = deed("webhooks.delete", record, context.actor(None), "removed from the command line");
        audited(store, deed, &json!({ "deleted": false }), async {
            remove(store, &self.name).await?;
            Ok(((), json!({ "deleted": true })))
        })
        .await?;
        context.note(&format!("webhook `{}` is gone", self.name))?;
        Ok(ExitStatus::Ok)
    }
}

/// However much waits for it.
pub(super) async fn remove(store: &dyn Store, name: &str) -> Result<()> {
    while !store.events().subscriber_remove(name, BATCH_ROWS).await? {}
    Ok(())
}

impl Pause {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let record = found(store, &self.name).await?;
        let word = Word::new(context.actor(self.actor.as_deref()), self.reason);
        let before = json!({ "state": record.state.as_str() });
        let deed = deed("webhooks.pause", record, word.actor.clone(), &word.reason);
        audited(store, deed, &before, async {
            store.events().subscriber_pause(&self.name, word).await?;
            Ok(((), json!({ "state": "paused" })))
        })
        .await?;
        show(store, context, &self.name).await
    }
}

impl Resume {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let record = found(store, &self.name).await?;
        let actor = context.actor(self.actor.as_deref());
        let before = json!({ "state": record.state.as_str() });
        let deed = deed("webhooks.resume", record, actor.clone(), "resumed from the command line");
        let changed = audited(store, deed, &before, async {
            let changed = store.events().subscriber_resume(&self.name, &actor).await?;
            Ok((changed, json!({ "state": "active" })))
        })
        .await?;
        if !changed {
            context.note(&format!("webhook `{}` was not paused", self.name))?;
        }
        show(store, context, &self.name).await
    }
}

impl Rotate {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let record = found(store, &self.name).await?;
        let secret = Secret::new(rand::random());
        let deed = deed("webhooks.rotate", record, context.actor(None), "rotated from the command line");
        let record = audited(store, deed, &json!(null), async {
            let record = store.events().subscriber_rotate(&self.name, secret.clone(), self.overlap).await?;
            Ok((record, json!({ "rotated": true })))
        })
        .await?;
        print_secret(context, &secret_of(record, &secret))
    }
}

impl Deliveries {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        if let Some(name) = &self.name {
            store.events().subscriber_get(name).await?;
        }
        let state = self.state.map(|state| match state {
            StateArgument::Pending => DeliveryState::Pending,
            StateArgument::Delivered => DeliveryState::Delivered,
            StateArgument::Dead => DeliveryState::Dead,
        });
        let wrong = |error| Error::Invalid(format!("--cursor: {error}"));
        let before = self.cursor.map(|cursor| cursor.parse().map_err(wrong)).transpose()?;
        let filter =
            DeliveryFilter { subscriber: self.name, event: self.event, state, before, namespace: None };
        let mut records = store.events().deliveries_list(filter, page::rows_max(self.limit)).await?;
        let has_more = page::cut(&mut records, self.limit);
        let next = records.last().filter(|_| has_more).map(|last| last.place().to_string());
        let mut deliveries = Vec::with_capacity(records.len());
        for record in records {
            let attempts = attempts(store, &record, self.event.is_some()).await?;
            deliveries.push(output::delivery(record, attempts));
        }
        print_deliveries(&DeliveryList::new(deliveries, next), context)
    }
}

fn print_deliveries(list: &DeliveryList, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(list)?,
        Format::Jsonl => context.print_lines(&list.deliveries)?,
        Format::Table => {
            if list.deliveries.is_empty() {
                context.note("no deliveries")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table =
                context.table(["EVENT", "TYPE", "TO", "STATE", "TRIES", "STATUS", "WHEN", "ERROR"]);
            for delivery in &list.deliveries {
                let tone = match delivery.state.as_str() {
                    "delivered" => Tone::Good,
                    "dead" => Tone::Bad,
                    _ => Tone::Plain,
                };
                let plain = |text| (text, Tone::Plain);
                table.toned([
                    plain(delivery.event_id.clone()),
                    plain(delivery.name.clone()),
                    plain(delivery.subscriber.clone()),
                    (delivery.state.clone(), tone),
                    plain(format!("{}/{}", delivery.attempt, delivery.attempts_max)),
                    plain(delivery.status.map(|status| status.to_string()).unwrap_or_default()),
                    plain(delivery.ended_at.or(delivery.due_at).map(output::instant).unwrap_or_default()),
                    plain(delivery.error.clone().unwrap_or_default()),
                ]);
                for attempt in &delivery.attempts {
                    table.row([
                        format!("  try {}", attempt.attempt),
                        String::new(),
                        String::new(),
                        String::new(),
                        output::duration(attempt.took_ms),
                        attempt.status.map(|status| status.to_string()).unwrap_or_default(),
                        output::instant(attempt.at),
                        attempt.error.clone().unwrap_or_default(),
                    ]);
                }
            }
            context.print_text(&table.leaving_out(&["WHEN", "TO"]).text())?;
            if let Some(next) = &list.next {
                context.note(&format!("there are more: --cursor {next}"))?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}

async fn attempts(
    store: &dyn Store,
    record: &DeliveryRecord,
    wanted: bool,
) -> Result<Vec<recache_store::DeliveryAttempt>> {
    if !wanted {
        return Ok(Vec::new());
    }
    Ok(store.events().delivery_attempts(&record.subscriber, record.event).await?)
}

impl Redeliver {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let record = found(store, &self.name).await?;
        let filter = DeliveryFilter {
            subscriber: Some(self.name.clone()),
            event: self.event,
            state: self.dead.then_some(DeliveryState::Dead),
            ..DeliveryFilter::default()
        };
        let deed =
            deed("webhooks.redeliver", record, context.actor(None), "redelivered from the command line");
        let total = audited(store, deed, &json!({ "dead": self.dead }), async {
            let mut total = 0;
            loop {
                let count = store.events().deliveries_redrive(filter.clone(), BATCH_ROWS).await?;
                total += count;
                // One event has one delivery: what was made pending must not be counted again.
                if self.event.is_some() || count < u64::from(BATCH_ROWS) {
                    break;
                }
            }
            Ok((total, json!({ "count": total })))
        })
        .await?;
        if total == 0 && self.event.is_some() {
            let what = format!("webhook `{}` has no ended delivery of that event", self.name);
            return Err(CliError::new("E-NOT-FOUND", ExitStatus::NotFound, what)
                .help(format!("run `recache webhook deliveries {}`", self.name))
                .into());
        }
        context.note(&format!("{total} to be delivered once more"))?;
        Ok(ExitStatus::Ok)
    }
}
