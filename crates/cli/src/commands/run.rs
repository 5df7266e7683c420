//! `recache run`: the command around [`crate::run`].

use super::{Context, Database, Outcome, compose};
use crate::output::Format;
use crate::run::{self, RunArgs};

/// Check a workflow template, run it here with built-in handlers, print its result
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache run examples/templates/hello.yaml --input '{\"name\": \"Ada\"}'
  recache run order.yaml --input @order.json --timeout 60s -o table
  recache run order.yaml --batch orders.jsonl -o jsonl
  recache run order.yaml --results results.json --handler 'mail.*=echo'

Handlers: echo, sleep, fail, http, and command where it is allowed. Without
--database the workflow is kept in memory. In a database that others use too,
this process works on its queues' other jobs as well while it runs.
Exit code 7: the workflow failed, or a member of the batch. With --batch,
-o jsonl prints the result of every member in the order of the inputs, other
formats what became of them together.")]
pub(crate) struct Args {
    #[command(flatten)]
    run: RunArgs,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let is_named = !context.flags().is_empty();
        let database = if is_named {
            let loaded = context.load()?;
            context.log();
            let database = Database::configured(&loaded.config.database);
            Some((database, compose::key_prefix(&loaded.config.cache)))
        } else {
            None
        };
        let format = context.globals.output.unwrap_or(Format::Json);
        Ok(run::run(self.run, database, format).await)
    }
}
