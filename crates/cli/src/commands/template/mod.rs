//! `recache template`: check templates, look at them, compare, draw and store them.

mod analyze;
mod apply;
mod check;
mod diff;
mod graph;
mod list;
mod show;
mod source;

use clap::Subcommand;
use source::Sources;

use super::against::Against;
use super::{Context, Outcome};

/// Check workflow templates, look at them, compare, draw and store them
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache template check order.yaml
  recache template apply order.yaml
  recache template diff shop/order@1.0.0 order.yaml

A TEMPLATE is a file (its name ends in .yaml, .yml or .json, or begins with ./,
../ or /; - is standard input), or a stored one: NAMESPACE/NAME@VERSION. Without
a version it is the newest; without a namespace, that of namespace `default`."
)]
pub(crate) struct Args {
    #[command(flatten)]
    against: Against,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Check(check::Args),
    Show(show::Args),
    Diff(diff::Args),
    List(list::Args),
    Apply(apply::Args),
    Graph(graph::Args),
    Analyze(analyze::Args),
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let client = self.against.client(context)?;
        match (self.verb, client) {
            (Verb::Show(arguments), client) => arguments.run(Sources::of(client), context).await,
            (Verb::Diff(arguments), client) => arguments.run(Sources::of(client), context).await,
            (Verb::Graph(arguments), client) => arguments.run(Sources::of(client), context).await,
            (Verb::List(arguments), Some(client)) => arguments.ask(&client, context).await,
            (Verb::Apply(arguments), Some(client)) => arguments.ask(&client, context).await,
            (Verb::Check(arguments), Some(client)) => arguments.ask(&client, context).await,
            (Verb::Analyze(arguments), Some(client)) => arguments.ask(&client, context).await,
            (Verb::List(arguments), None) => arguments.run(context).await,
            (Verb::Apply(arguments), None) => arguments.run(context).await,
            (Verb::Check(arguments), None) => arguments.run(context),
            (Verb::Analyze(arguments), None) => arguments.run(context).await,
        }
    }
}
