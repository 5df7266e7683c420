//! `recache bench`: the command around [`crate::bench`].

use super::{Context, Outcome};
use crate::bench;
use crate::cli_error::ExitStatus;
use crate::output::Format;

/// Measure jobs, workflows, touches and views on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache bench jobs --jobs 100000 --workers 1,10,100
  recache bench workflows
  recache bench touch --database postgres://app@db/bench
  recache bench pressure --database postgres://app@db/bench

Without a database it uses an SQLite file in a throw-away folder. With one it
leaves its finished jobs there: name a database made for it.")]
pub(crate) struct Args {
    #[command(flatten)]
    bench: bench::BenchArgs,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let is_named = !context.flags().is_empty();
        let database = is_named.then(|| context.database()).transpose()?;
        let report = bench::run(self.bench, database.as_ref()).await?;
        match context.format() {
            Format::Json | Format::Jsonl => context.print(&report.json())?,
            Format::Table => context.print_text(&report.text())?,
        }
        Ok(ExitStatus::Ok)
    }
}
