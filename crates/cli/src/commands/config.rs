//! `recache config`: check and explain the configuration.

use clap::Subcommand;

use super::{Context, Outcome};
use crate::config::{self, CheckArgs, ExplainArgs, Output};
use crate::output::Format;

/// Check and explain the configuration
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache config check --config recache.toml
  recache config explain database.url"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Check(Check),
    Explain(Explain),
}

/// Check the configuration: all problems at once
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache config check --config /etc/recache.toml

Exit code 1 on any problem, also in the cache's sections.")]
struct Check {}

/// Print every effective value and where it comes from
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache config explain
  recache config explain engine -o json")]
struct Explain {
    /// An option, or a section for all of its options
    key: Option<String>,
}

impl Args {
    #[expect(clippy::unused_async, reason = "every verb is called in the same way")]
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let (config, flags, style) = (context.globals.config.clone(), context.flags(), context.style());
        match self.verb {
            Verb::Check(Check {}) => {
                let args = CheckArgs { config, flags, style };
                Ok(config::check(&args, &context.environment, context.out, context.err)?)
            }
            Verb::Explain(Explain { key }) => {
                let output = match context.format() {
                    Format::Table => Output::Table,
                    Format::Json | Format::Jsonl => Output::Json,
                };
                let args = ExplainArgs { config, flags, style, output, key };
                if context.format() != Format::Jsonl {
                    return Ok(config::explain(&args, &context.environment, context.out, context.err)?);
                }
                let mut document = Vec::new();
                let status = config::explain(&args, &context.environment, &mut document, context.err)?;
                // Nothing is printed when the key names nothing.
                let document: serde_json::Value = serde_json::from_slice(&document).unwrap_or_default();
                if let Some(options) = document.get("options").and_then(serde_json::Value::as_array) {
                    context.print_lines(options)?;
                }
                Ok(status)
            }
        }
    }
}
