//! `recache completions`: a script that completes the command line.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Context, Outcome};
use crate::cli_error::ExitStatus;

/// Print a script that completes commands in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  source <(recache completions bash)
  recache completions fish > ~/.config/fish/completions/recache.fish")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

impl Args {
    #[expect(clippy::unused_async, reason = "every verb is called in the same way")]
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        // Into memory first: the generator panics when its output cannot be written.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "recache", &mut script);
        context.out.write_all(&script)?;
        Ok(ExitStatus::Ok)
    }
}
