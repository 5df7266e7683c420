//! `recache analytics`: how work went, what is slow, what fails, and where each figure comes from.

mod bottlenecks;
mod explain;
mod performance;

use clap::Subcommand;
use recache_api::client::WindowQuery;
use recache_model::figures::Filter;

use super::against::Against;
use super::{Context, Outcome};

/// Tell how work went, what is slow and what fails
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache analytics performance --hours 24
  recache analytics bottlenecks --limit 5
  recache analytics explain completion_rate"
)]
pub(crate) struct Args {
    #[command(flatten)]
    against: Against,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Performance(performance::Args),
    Bottlenecks(bottlenecks::Args),
    Explain(explain::Args),
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        if let Some(client) = self.against.client(context)? {
            return match self.verb {
                Verb::Performance(arguments) => arguments.ask(&client, context).await,
                Verb::Bottlenecks(arguments) => arguments.ask(&client, context).await,
                Verb::Explain(arguments) => arguments.ask(&client, context).await,
            };
        }
        match self.verb {
            Verb::Performance(arguments) => arguments.run(context).await,
            Verb::Bottlenecks(arguments) => arguments.run(context).await,
            Verb::Explain(arguments) => arguments.run(context).await,
        }
    }
}

/// Which work.
#[derive(Debug, Clone, clap::Args)]
struct Which {
    /// How far back, in hours, from 1 to 744
    #[arg(long, default_value_t = 24, value_name = "HOURS", allow_negative_numbers = true)]
    hours: u32,
    /// Only of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Only of workflows of the template of this name
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Only of this handler; workflows have none
    #[arg(long)]
    handler: Option<String>,
    /// Only of this queue; workflows have none
    #[arg(long)]
    queue: Option<String>,
    /// Count all from the rows of jobs and workflows, believe no roll-up
    #[arg(long)]
    exact: bool,
}

impl Which {
    /// As it is asked of a server.
    fn asked(self) -> WindowQuery {
        let Self { hours, namespace, template, handler, queue, exact } = self;
        WindowQuery { hours: Some(hours), namespace, template, handler, queue, exact: exact.then_some(true) }
    }

    fn filter(&self) -> Filter {
        Filter {
            namespace: self.namespace.clone(),
            template: self.template.clone(),
            handler: self.handler.clone(),
            queue: self.queue.clone(),
        }
    }
}

/// A fraction in per cent; nothing where there is none.
fn per_cent(fraction: Option<f64>) -> String {
    fraction.map(|fraction| format!("{:.1} %", fraction * 100.0)).unwrap_or_default()
}

/// Seconds, to three digits behind the point.
fn seconds(seconds: Option<f64>) -> String {
    seconds.map(|seconds| format!("{seconds:.3} s")).unwrap_or_default()
}
