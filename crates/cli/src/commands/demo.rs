//! `recache demo`: the command around [`crate::demo`].

use std::io::{self, IsTerminal as _};

use super::{Context, Outcome};
use crate::demo::{self, DemoArgs, Surroundings};
use crate::output::Format;

/// Rebuild views of 336,776 real flights while they change, and measure it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache demo
  recache demo --data-dir demo --seed 7 --touches 500
  recache demo --database postgres://localhost/test --cache redis://localhost:6379

Runs twice: with Recache, and as a plain job queue without version control.
Needs nothing but this program; leaves nothing but what --data-dir names.")]
pub(crate) struct Args {
    #[command(flatten)]
    demo: DemoArgs,
}

impl Args {
    pub(super) async fn run(mut self, context: &mut Context<'_>) -> Outcome {
        self.demo.json |= matches!(context.format(), Format::Json | Format::Jsonl);
        let database = context.flags().pop().map(|flag| flag.value);
        if database.is_some() {
            // Refuses a URL that cannot be used, with everything else that is wrong with the configuration.
            context.load()?;
        }
        let is_terminal = io::stderr().is_terminal() && !context.globals.quiet;
        let surroundings = Surroundings { database, is_terminal, out: &mut *context.out };
        Ok(demo::run(self.demo, surroundings).await?)
    }
}
