//! `recache workflow`: submit workflows, look at them, tell them something, end and retry them.

mod analyze;
mod change;
mod look;

use clap::Subcommand;

use super::against::Against;
use super::{Context, Outcome};

/// Submit workflows, look at them, tell them something, end and retry them
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache workflow submit shop/order --input '{\"id\":7}'
  recache workflow show wf_0190c7a2-7b5e-7000-8000-000000000001
  recache workflow analyze wf_0190c7a2-7b5e-7000-8000-000000000001
  recache workflow signal wf_0190c7a2-7b5e-7000-8000-000000000001 paid
  recache workflow retry wf_0190c7a2-7b5e-7000-8000-000000000001 --reason mended"
)]
pub(crate) struct Args {
    #[command(flatten)]
    against: Against,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Analyze(analyze::Args),
    Submit(change::Submit),
    List(look::List),
    Show(look::Show),
    Cancel(change::Cancel),
    Retry(change::Retry),
    Signal(change::Signal),
    Approve(change::Approve),
    Complete(change::Complete),
    Resolve(change::Resolve),
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        if let Some(client) = self.against.client(context)? {
            return match self.verb {
                Verb::Analyze(arguments) => arguments.ask(&client, context).await,
                Verb::Submit(arguments) => arguments.ask(&client, context).await,
                Verb::List(arguments) => arguments.ask(&client, context).await,
                Verb::Show(arguments) => arguments.ask(&client, context).await,
                Verb::Cancel(arguments) => arguments.ask(&client, context).await,
                Verb::Retry(arguments) => arguments.ask(&client, context).await,
                Verb::Signal(arguments) => arguments.ask(&client, context).await,
                Verb::Approve(arguments) => arguments.ask(&client, context).await,
                Verb::Complete(arguments) => arguments.ask(&client, context).await,
                Verb::Resolve(arguments) => arguments.ask(&client, context).await,
            };
        }
        let store = context.open().await?;
        let outcome = match self.verb {
            Verb::Analyze(arguments) => arguments.run(&*store, context).await,
            Verb::Submit(arguments) => arguments.run(&store, context).await,
            Verb::List(arguments) => arguments.run(&*store, context).await,
            Verb::Show(arguments) => arguments.run(&*store, context).await,
            Verb::Cancel(arguments) => arguments.run(&*store, context).await,
            Verb::Retry(arguments) => arguments.run(&store, context).await,
            Verb::Signal(arguments) => arguments.run(&*store, context).await,
            Verb::Approve(arguments) => arguments.run(&*store, context).await,
            Verb::Complete(arguments) => arguments.run(&store, context).await,
            Verb::Resolve(arguments) => arguments.run(&store, context).await,
        };
        store.close().await;
        outcome
    }
}
