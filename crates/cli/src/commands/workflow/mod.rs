//! `recache workflow`: look into workflows.

mod analyze;

use clap::Subcommand;

use super::{Context, Outcome};

/// Look into workflows
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache workflow analyze wf_01987a4e-4d1c-7b34-9f0e-2b8a5c1d7e6f"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Analyze(analyze::Args),
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        match self.verb {
            Verb::Analyze(arguments) => arguments.run(context).await,
        }
    }
}
