//! `recache cache`: look into the configured cache and change what is in it.
//!
//! A process that is over soon gives its backend a moment to be connected ([`opened`]), and says so when it was not: a
//! library hides a cache that is down from its caller, an operator wants to know.

mod bench;
mod changes;
mod key;
mod looks;
pub(in crate::commands) mod opened;
mod remote;
mod ttl;
mod values;

use std::time::Duration;

use clap::Subcommand;

use super::against::Against;
use super::name::wait;
use super::{Context, Outcome};

/// Look into the configured cache, change what is in it, measure it
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache cache get shop article 42 --meta
  recache cache invalidate --tag supplier-7
  recache cache health

A key is its space and its parts, each as it is. The backend is the one that the
configuration names; each verb waits up to --timeout until it can be used, and
ends with exit code 6 when it cannot, or when the cache is disabled."
)]
pub(crate) struct Args {
    #[command(flatten)]
    against: Against,
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    patience: Patience,
}

/// How long to wait for the backend.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Patience {
    /// How long to wait until the backend can be used
    #[arg(long, global = true, value_name = "DURATION", default_value = "2s", value_parser = wait)]
    timeout: Duration,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Get(values::Get),
    Set(values::Set),
    Del(changes::Del),
    Invalidate(changes::Invalidate),
    Stats(looks::Stats),
    Health(looks::HealthArgs),
    Explain(looks::Explain),
    Bench(bench::Bench),
    Ttl(ttl::Args),
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        if let Some(client) = self.against.client(context)? {
            return self.verb.ask(&client, context).await;
        }
        let patience = self.patience.timeout;
        match self.verb {
            Verb::Get(arguments) => arguments.run(patience, context).await,
            Verb::Set(arguments) => arguments.run(patience, context).await,
            Verb::Del(arguments) => arguments.run(patience, context).await,
            Verb::Invalidate(arguments) => arguments.run(patience, context).await,
            Verb::Stats(arguments) => arguments.run(patience, context).await,
            Verb::Health(arguments) => arguments.run(patience, context).await,
            Verb::Explain(arguments) => arguments.run(patience, context).await,
            Verb::Bench(arguments) => arguments.run(context).await,
            Verb::Ttl(arguments) => arguments.run(patience, context).await,
        }
    }
}
