//! `recache worker`: the built-in handlers against a server, without a database.

use std::time::Duration;

use clap::Subcommand;
use recache_api::WorkerList;
use recache_server::documents;
use recache_worker::remote::{RemoteError, RemoteWorker, ServerOptions};
use tokio_util::sync::CancellationToken;

use super::against::{Against, LOCAL};
use super::serve::{asked_to_stop, of_telemetry};
use super::{Context, Outcome};
use crate::builtin;
use crate::cli_error::{CliError, ExitStatus};
use crate::output::{self, Format};
use crate::telemetry::Telemetry;

/// Workers that one list shows.
const LISTED_MAX: u32 = 10_000;

/// Do jobs of the built-in handlers for a server, or list who works
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache worker --server http://127.0.0.1:7878
  recache worker list

Handlers: echo, fail, http, sleep, and command where `handlers.commands` of its
configuration names programs. Ends when it is told to (SIGTERM, Ctrl-C): running
jobs are let finish. Workers of your own, in Rust or any language, speak the
same protocol: see docs/reference/worker-protocol.md."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Servers; the next one is asked when one does not answer
    #[arg(long = "server", value_name = "URL", default_value = LOCAL)]
    servers: Vec<String>,
    /// API key or JWT, where the server asks for one
    #[arg(long, value_name = "TOKEN", env = "RECACHE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// What the worker calls itself; default: the process id
    #[arg(long)]
    name: Option<String>,
    /// Queues from which it takes jobs
    #[arg(long = "queue", value_name = "NAME", default_value = "default")]
    queues: Vec<String>,
    /// Namespaces whose jobs it may have; default: all that the token may serve
    #[arg(long = "namespace", value_name = "NAME")]
    namespaces: Vec<String>,
    /// Jobs that run at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    slots: u16,
    /// How long it may be silent before its jobs go to others, in milliseconds
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(500..=600_000))]
    lease_ms: u32,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(List),
}

/// List who works and was heard of, the newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache worker list
  recache worker list --server https://recache.example -o json

Remote workers, and processes at the database that have handlers.")]
struct List {
    #[command(flatten)]
    against: Against,
}

impl List {
    async fn run(self, context: &mut Context<'_>) -> Outcome {
        if let Some(client) = self.against.client(context)? {
            return print(client.workers().await?, context);
        }
        let store = context.open().await?;
        let found = store.handler_offers().handlers_workers(LISTED_MAX).await;
        store.close().await;
        print(WorkerList::new(found?.into_iter().map(documents::worker).collect()), context)
    }
}

fn print(list: WorkerList, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(&list)?,
        Format::Jsonl => context.print_lines(&list.workers)?,
        Format::Table => {
            if list.workers.is_empty() {
                context.note("nobody works")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table = context
                .table(["NAME", "KIND", "SLOTS", "HEARD", "HANDLERS", "QUEUES", "SESSION"])
                .leaving_out(&["SESSION", "QUEUES"]);
            for worker in list.workers {
                let handlers: Vec<_> = worker.handlers.into_iter().map(|handler| handler.name).collect();
                table.row([
                    worker.name,
                    if worker.is_remote { "remote" } else { "node" }.to_owned(),
                    worker.slots.to_string(),
                    output::instant(worker.heard_at),
                    handlers.join(" "),
                    worker.queues.join(" "),
                    worker.session,
                ]);
            }
            context.print_text(&table.text())?;
        }
    }
    Ok(ExitStatus::Ok)
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        if let Some(Verb::List(list)) = self.verb {
            return list.run(context).await;
        }
        let loaded = context.load()?;
        let telemetry =
            Telemetry::start(&loaded.config.telemetry, "worker").map_err(|why| of_telemetry(&why))?;
        context.log_as_configured(&loaded.config.log, telemetry.as_ref().map(Telemetry::layer));
        let handlers = builtin::handlers(builtin::Options::of(&loaded.config))
            .map_err(|error| CliError::new("E-WORKER", ExitStatus::Failed, error.to_string()))?;
        let defaults = ServerOptions::new(String::new());
        let options = ServerOptions {
            servers: self.servers,
            token: self.token,
            name: self.name.unwrap_or_else(|| defaults.name.clone()),
            queues: self.queues,
            namespaces: (!self.namespaces.is_empty()).then_some(self.namespaces),
            slots: usize::from(self.slots),
            lease: Duration::from_millis(u64::from(self.lease_ms)),
            drain: loaded.config.engine.drain,
            ..defaults
        };
        let servers = options.servers.join(", ");
        let worker = RemoteWorker::new(handlers, options).map_err(|error| of_worker(&error))?;
        context.note(&format!("working for {servers}"))?;
        let stop = CancellationToken::new();
        let running = tokio::spawn(worker.run(stop.clone()));
        let told = tokio::spawn(async move {
            let told = asked_to_stop().await;
            stop.cancel();
            told
        });
        let ran = running.await;
        told.abort();
        if let Some(telemetry) = telemetry {
            telemetry.end().await;
        }
        match ran {
            Ok(Ok(())) => Ok(ExitStatus::Ok),
            Ok(Err(error)) => Err(of_worker(&error).into()),
            Err(error) => Err(CliError::new("E-WORKER", ExitStatus::Failed, error.to_string()).into()),
        }
    }
}

fn of_worker(error: &RemoteError) -> CliError {
    let what = error.to_string();
    match error {
        RemoteError::Invalid(_) => CliError::new("E-WORKER", ExitStatus::Usage, what),
        RemoteError::Refused { status: 401 | 403, .. } => CliError::new("E-WORKER", ExitStatus::Denied, what)
            .help("give a token with the scope `workers:run` in the namespaces: --token, or RECACHE_TOKEN"),
        RemoteError::Refused { .. } | RemoteError::Unheard { .. } => {
            CliError::new("E-WORKER", ExitStatus::Failed, what)
        }
    }
}
