//! `recache handler`: which handlers there are, who can do them, who wants them, how they fare.

use clap::{Subcommand, ValueEnum};
use recache_api::client::Client;
use recache_api::{Handler, HandlerDetails, HandlerGraph, HandlerList};
use recache_engine::registry::registry_of;
use recache_store::Store;

use super::against::Against;
use super::failure::of_engine;
use super::{Context, Outcome};
use crate::cli_error::{CliError, ExitStatus};
use crate::output::{self, Format, Tone};

/// Look at handlers: versions, workers, who uses them, how they fare
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache handler list
  recache handler show shop/charge
  recache handler graph --as mermaid

Of templates the newest version counts; figures are of the last 24 hours."
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
    Graph(Graph),
}

/// List handlers by namespace
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache handler list
  recache handler list --namespace shop -o json")]
struct List {
    /// Only as this namespace sees them
    #[arg(long)]
    namespace: Option<String>,
}

/// Show a handler with its workers, its steps and its failures
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache handler show shop/charge
  recache handler show '*/echo'

The namespace is * for a handler that workers offer to all namespaces and that
none is known to use.")]
struct Show {
    /// Which one
    #[arg(value_name = "NAMESPACE/NAME")]
    handler: String,
}

/// Draw which handlers' steps follow which
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache handler graph
  recache handler graph --namespace shop --as mermaid

With -o json: handlers and arrows as data, whatever --as says.")]
struct Graph {
    /// Only as this namespace sees them
    #[arg(long)]
    namespace: Option<String>,
    /// How it is drawn
    #[arg(long = "as", value_name = "FORM", default_value = "text")]
    form: Form,
}

/// How a graph is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Each handler with what follows it
    Text,
    /// For Mermaid
    Mermaid,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        if let Some(client) = self.against.client(context)? {
            return self.verb.ask(&client, context).await;
        }
        let store = context.open().await?;
        let outcome = self.verb.look(&*store, context).await;
        store.close().await;
        outcome
    }
}

impl Verb {
    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::List(List { namespace }) => {
                print_list(&client.handlers(namespace.as_deref()).await?, context)
            }
            Self::Show(Show { handler }) => {
                let (namespace, name) = split(&handler)?;
                print_one(&client.handler(namespace, name).await?, context)
            }
            Self::Graph(Graph { namespace, form }) => {
                print_graph(&client.handler_graph(namespace.as_deref()).await?, form, context)
            }
        }
    }

    async fn look(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let found = registry_of(store).await.map_err(|error| of_engine(&error))?;
        match self {
            Self::List(List { namespace }) => {
                print_list(&output::handler_list(&found, namespace.as_deref()), context)
            }
            Self::Show(Show { handler }) => {
                let (namespace, name) = split(&handler)?;
                let Some(details) = output::handler_details(&found, namespace, name) else {
                    let what = format!("there is no handler `{}`", handler.escape_debug());
                    return Err(CliError::new("E-NOT-FOUND", ExitStatus::NotFound, what)
                        .help("`recache handler list` shows those that are")
                        .into());
                };
                print_one(&details, context)
            }
            Self::Graph(Graph { namespace, form }) => {
                print_graph(&output::handler_graph(&found, namespace.as_deref()), form, context)
            }
        }
    }
}

fn split(text: &str) -> Result<(&str, &str), CliError> {
    text.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty()).ok_or_else(
        || {
            let what = format!("`{}` is no handler of a namespace", text.escape_debug());
            CliError::new("E-USAGE", ExitStatus::Usage, what).help("write NAMESPACE/NAME")
        },
    )
}

fn print_list(list: &HandlerList, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(list)?,
        Format::Jsonl => context.print_lines(&list.handlers)?,
        Format::Table => {
            if list.handlers.is_empty() {
                context.note("no worker offers a handler, and nothing asks for one")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table = context.table([
                "HANDLER",
                "VERSION",
                "WORKERS",
                "STEPS",
                "VIEWS",
                "SCHEDULES",
                "RAN",
                "FAILS",
                "RUN",
                "RUN P99",
                "WAIT",
            ]);
            for handler in &list.handlers {
                table.toned(row(handler));
            }
            context.print_text(&table.text())?;
        }
    }
    if list.templates_left_out {
        context.note("some templates were left out: there are too many")?;
    }
    Ok(ExitStatus::Ok)
}

fn row(handler: &Handler) -> [(String, Tone); 11] {
    let plain = |text: String| (text, Tone::Plain);
    let is_wanted = handler.steps + handler.views + handler.schedules > 0;
    let tone = if handler.workers == 0 && is_wanted { Tone::Doubtful } else { Tone::Plain };
    [
        plain(format!("{}/{}", handler.namespace, handler.name)),
        plain(handler.newest_version.clone().unwrap_or_default()),
        (handler.workers.to_string(), tone),
        plain(handler.steps.to_string()),
        plain(handler.views.to_string()),
        plain(handler.schedules.to_string()),
        plain(handler.executions.to_string()),
        plain(per_cent(handler.error_rate)),
        plain(seconds(handler.run_seconds.mean)),
        plain(seconds(handler.run_seconds.p99)),
        plain(seconds(handler.wait_seconds.mean)),
    ]
}

fn per_cent(fraction: Option<f64>) -> String {
    fraction.map(|fraction| format!("{:.1} %", fraction * 100.0)).unwrap_or_default()
}

fn seconds(seconds: Option<f64>) -> String {
    seconds.map(|seconds| format!("{seconds:.3} s")).unwrap_or_default()
}

fn print_one(details: &HandlerDetails, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(details)?,
        Format::Table => {
            let text = tables(details, context);
            context.print_text(&text)?;
        }
    }
    if details.handler.workers == 0 {
        context.note("no worker offers it: its jobs wait")?;
    }
    Ok(ExitStatus::Ok)
}

fn tables(details: &HandlerDetails, context: &Context<'_>) -> String {
    let handler = &details.handler;
    let mut table = context.table(["", ""]);
    let mut fact = |name: &str, value: String| table.row([name.to_owned(), value]);
    fact("handler", format!("{}/{}", handler.namespace, handler.name));
    fact("newest version", handler.newest_version.clone().unwrap_or_default());
    fact("ran", format!("{} in {} hours", handler.executions, details.hours));
    fact("fails", per_cent(handler.error_rate));
    fact(
        "runs for",
        format!("{} on average, p99 {}", seconds(handler.run_seconds.mean), seconds(handler.run_seconds.p99)),
    );
    fact(
        "waits for",
        format!(
            "{} on average, p99 {}",
            seconds(handler.wait_seconds.mean),
            seconds(handler.wait_seconds.p99)
        ),
    );
    fact("views, schedules", format!("{}, {}", handler.views, handler.schedules));
    fact("follows", details.follows.join(", "));
    fact("precedes", details.precedes.join(", "));
    let mut parts = vec![table.text()];
    if !handler.versions.is_empty() {
        let mut table = context.table(["VERSION", "WORKERS", "INPUT"]);
        for version in &handler.versions {
            let schema = version.input_schema.as_ref().map(|schema| schema.text().to_owned());
            let disputed = if version.is_schema_disputed { " (workers say different things)" } else { "" };
            table.row([
                version.version.clone().unwrap_or_else(|| "none".to_owned()),
                version.workers.to_string(),
                format!("{}{disputed}", schema.unwrap_or_default()),
            ]);
        }
        parts.push(table.text());
    }
    if !details.workers.is_empty() {
        let mut table = context.table(["WORKER", "SESSION", "VERSION", "QUEUES", "SLOTS", "HEARD AT"]);
        for worker in &details.workers {
            table.row([
                worker.name.clone(),
                worker.session.clone(),
                worker.version.clone().unwrap_or_default(),
                worker.queues.join(", "),
                worker.slots.to_string(),
                output::instant(worker.heard_at),
            ]);
        }
        parts.push(table.text());
    }
    if !details.steps.is_empty() {
        let mut table = context.table(["STEP", "VERSION", "FOLLOWS"]);
        for step in &details.steps {
            table.row([
                format!("{}.{}", step.template, step.step),
                step.version.clone(),
                step.follows.join(", "),
            ]);
        }
        parts.push(table.text());
    }
    if !details.failures.is_empty() {
        let mut table = context.table(["CODE", "FAILURES"]);
        for failure in &details.failures {
            table.row([failure.code.clone(), failure.failures.to_string()]);
        }
        parts.push(table.text());
    }
    parts.join("\n")
}

fn print_graph(graph: &HandlerGraph, form: Form, context: &mut Context<'_>) -> Outcome {
    match (context.format(), form) {
        (Format::Json | Format::Jsonl, _) => context.print(graph)?,
        (Format::Table, Form::Text) => context.print_text(&output::handler_text(graph))?,
        (Format::Table, Form::Mermaid) => context.print_text(&output::handler_mermaid(graph))?,
    }
    Ok(ExitStatus::Ok)
}
