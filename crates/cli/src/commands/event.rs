//! `recache event`: what happened, and who is told.

use clap::Subcommand;
use recache_api::client::{Client, EventsQuery};
use recache_api::{Event, EventList, Subscriber};
use recache_model::ids::EventId;
use recache_store::{Error, EventQuery, Store, Word};
use serde_json::json;

use super::against::Against;
use super::audited::{Deed, audited};
use super::webhook::{print_subscriber, print_subscribers, remove};
use super::{Context, Outcome, page};
use crate::cli_error::ExitStatus;
use crate::output::{self, Format, Tone};

/// Look at events and at those who are told of them
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache event list --type order.placed
  recache event list --refused
  recache event list --waiting
  recache event subscribers"
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
    Subscribers(Subscribers),
    Unsubscribe(Unsubscribe),
}

/// List events, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache event list --type order.placed -o json
  recache event list --refused
  recache event list --waiting

Refused are events whose payload is too large, does not fit its schema, or was
not made by its publisher: they are kept for whoever looks, and told to nobody.
Waiting are those whose publisher has yet to make it: they are told then.")]
struct List {
    /// Only of this type
    #[arg(long = "type", value_name = "TYPE")]
    name: Option<String>,
    /// Only of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Only those whose payload was refused
    #[arg(long)]
    refused: bool,
    /// Only those that wait for their publisher
    #[arg(long, conflicts_with = "refused")]
    waiting: bool,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only older than this event: the last one of the page before
    #[arg(long, value_name = "ID")]
    before: Option<EventId>,
}

/// Show an event with its payload
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache event show evt_0190c7a2-7b5e-7000-8000-000000000001")]
struct Show {
    /// The event
    id: EventId,
}

/// List who is told: webhooks, and functions in programs
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache event subscribers -o json")]
struct Subscribers {
    /// Only this one, in full
    name: Option<String>,
}

/// Forget a program's subscriber with what waits for it
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache event unsubscribe old-mailer

A program that still has it makes it known again at its next start.")]
struct Unsubscribe {
    /// The subscriber
    name: String,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        if let Some(client) = self.against.client(context)? {
            return self.verb.ask(&client, context).await;
        }
        let store = context.open().await?;
        let outcome = match self.verb {
            Verb::List(arguments) => arguments.run(&*store, context).await,
            Verb::Show(arguments) => arguments.run(&*store, context).await,
            Verb::Subscribers(arguments) => arguments.run(&*store, context).await,
            Verb::Unsubscribe(arguments) => arguments.run(&*store, context).await,
        };
        store.close().await;
        outcome
    }
}

impl Verb {
    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::List(List { name, namespace, refused, waiting, limit, before }) => {
                let query = EventsQuery {
                    namespace,
                    name,
                    refused: Some(refused),
                    // A server that does not know of it is asked as before.
                    waiting: waiting.then_some(true),
                    limit: Some(limit),
                    before: before.map(|id| id.to_string()),
                    cursor: None,
                };
                let mut list = client.events(&query).await?;
                list.next = list.next.and(list.events.last().map(|last| last.id.clone()));
                print_list(list, context)
            }
            Self::Show(Show { id }) => print_one(client.event(&id.to_string()).await?, context),
            Self::Subscribers(Subscribers { name: Some(name) }) => {
                print_subscriber(context, &client.subscriber(&name).await?)
            }
            Self::Subscribers(Subscribers { name: None }) => {
                print_subscribers(context, client.subscribers(None).await?.subscribers, "no subscribers")
            }
            Self::Unsubscribe(Unsubscribe { name }) => {
                let is_webhook = client.subscriber(&name).await?.url.is_some();
                if is_webhook {
                    return Err(is_no_programs(&name).into());
                }
                client.forget_subscriber(&name).await?;
                context.note(&format!("subscriber `{name}` is gone"))?;
                Ok(ExitStatus::Ok)
            }
        }
    }
}

impl List {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let query = EventQuery {
            namespace: self.namespace,
            name: self.name,
            refused: self.refused,
            waiting: self.waiting,
            before: match self.before {
                Some(id) => Some((store.events().event_get(id).await?.at, id)),
                None => None,
            },
        };
        let records = store.events().events_list(query, page::rows_max(self.limit)).await?;
        let mut events: Vec<Event> = records.into_iter().map(output::event).collect();
        let next = page::cut_at(&mut events, self.limit, |event| &event.id);
        print_list(EventList::new(events, next), context)
    }
}

fn print_list(list: EventList, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(&list)?,
        Format::Jsonl => context.print_lines(&list.events)?,
        Format::Table => {
            if list.events.is_empty() {
                context.note("no events")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table = context.table(["ID", "AT", "TYPE", "NAMESPACE", "STEP", "WAITS FOR", "REFUSED"]);
            for event in list.events {
                let plain = |text| (text, Tone::Plain);
                table.toned([
                    plain(event.id),
                    plain(output::instant(event.at)),
                    plain(event.name),
                    plain(event.namespace),
                    plain(event.step.unwrap_or_default()),
                    (event.waits_for.clone().unwrap_or_default(), Tone::Active),
                    // While it waits, a try that failed is no refusal yet.
                    (event.problem.filter(|_| event.waits_for.is_none()).unwrap_or_default(), Tone::Bad),
                ]);
            }
            context.print_text(&table.leaving_out(&["NAMESPACE", "STEP", "WAITS FOR"]).text())?;
            if let Some(next) = list.next {
                context.note(&format!("there are more: --before {next}"))?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}

impl Show {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        print_one(output::event(store.events().event_get(self.id).await?), context)
    }
}

fn print_one(event: Event, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(&event)?,
        Format::Table => {
            let mut table = context.table(["", ""]);
            let mut fact = |name: &str, value: Option<String>| {
                if let Some(value) = value {
                    table.row([name.to_owned(), value]);
                }
            };
            fact("event", Some(event.id));
            fact("type", Some(event.name));
            fact("at", Some(output::instant(event.at)));
            fact("namespace", Some(event.namespace));
            fact("workflow", event.workflow_id);
            fact("job", event.job_id);
            fact("step", event.step);
            fact("attempt", event.attempt.map(|attempt| attempt.to_string()));
            fact("outcome", event.outcome);
            fact("correlation", event.correlation_id);
            let is_waiting = event.waits_for.is_some();
            fact("waits for", event.waits_for);
            fact(if is_waiting { "last try" } else { "refused" }, event.problem);
            fact("data", Some(event.data.text().to_owned()));
            context.print_text(&table.text())?;
        }
    }
    Ok(ExitStatus::Ok)
}

impl Subscribers {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        if let Some(name) = &self.name {
            return print_subscriber(
                context,
                &output::subscriber(store.events().subscriber_get(name).await?),
            );
        }
        let records = store.events().subscribers_list().await?;
        let subscribers: Vec<Subscriber> = records.into_iter().map(output::subscriber).collect();
        print_subscribers(context, subscribers, "no subscribers")
    }
}

impl Unsubscribe {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let record = store.events().subscriber_get(&self.name).await?;
        if record.url.is_some() {
            return Err(is_no_programs(&self.name).into());
        }
        let word = Word::new(context.actor(None), "forgotten from the command line");
        let mut deed = Deed::new("subscribers.forget", self.name.clone(), word);
        deed.namespace.clone_from(&record.filter.namespace);
        let before = output::subscriber(record);
        audited(store, deed, &before, async {
            remove(store, &self.name).await?;
            Ok(((), json!({ "deleted": true })))
        })
        .await?;
        context.note(&format!("subscriber `{}` is gone", self.name))?;
        Ok(ExitStatus::Ok)
    }
}

fn is_no_programs(name: &str) -> Error {
    Error::Conflict(format!("`{name}` is a webhook: use `recache webhook remove {name}`"))
}
