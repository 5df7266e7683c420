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
        match self.verb {
            Verb::Check(arguments) => arguments.run(context),
            Verb::Show(arguments) => arguments.run(context).await,
            Verb::Diff(arguments) => arguments.run(context).await,
            Verb::List(arguments) => arguments.run(context).await,
            Verb::Apply(arguments) => arguments.run(context).await,
            Verb::Graph(arguments) => arguments.run(context).await,
            Verb::Analyze(arguments) => arguments.run(context).await,
        }
    }
}
