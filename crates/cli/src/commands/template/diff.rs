//! `recache template diff`.

use std::fmt::Write as _;

use recache_model::template::{Diff, FieldChange, StepChange};
use recache_server::documents::templates as documents;
use serde_json::Value;

use super::source::{Source, Sources};
use crate::cli_error::ExitStatus;
use crate::commands::{Context, Outcome};
use crate::output::{Format, visible_json};

/// Say what changed from one template to another, in meaning, not in text
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache template diff old.yaml new.yaml
  recache template diff shop/order@1.0.0 shop/order -o json")]
pub(super) struct Args {
    /// The one before: a file, or NAMESPACE/NAME@VERSION
    #[arg(value_name = "OLD")]
    old: Source,
    /// The other one
    #[arg(value_name = "NEW")]
    new: Source,
}

impl Args {
    pub(super) async fn run(self, mut sources: Sources, context: &mut Context<'_>) -> Outcome {
        let old = sources.load(&self.old, context).await;
        let new = match &old {
            Ok(_) => Some(sources.load(&self.new, context).await),
            Err(_) => None,
        };
        sources.close().await;
        let old = old?;
        let Some(new) = new.transpose()? else { return Ok(ExitStatus::Failed) };
        let diff = Diff::between(&old.template, &new.template);
        match context.format() {
            Format::Json | Format::Jsonl => {
                context.print(&documents::diff(old.summary, new.summary, &diff))?;
            }
            Format::Table => {
                if diff.is_empty() {
                    context.note("no difference in meaning")?;
                }
                context.print_text(&text(&diff))?;
            }
        }
        Ok(ExitStatus::Ok)
    }
}

/// `+` new, `-` gone, `~` changed.
fn text(diff: &Diff) -> String {
    let mut out = String::new();
    for change in &diff.fields {
        // Writing to a text cannot fail.
        let _ = writeln!(out, "{}", line(change));
    }
    for step in &diff.steps {
        let _ = match step {
            StepChange::Added { name } => writeln!(out, "+ step {name}"),
            StepChange::Removed { name } => writeln!(out, "- step {name}"),
            StepChange::Changed { name, fields } => {
                let _ = writeln!(out, "~ step {name}");
                for change in fields {
                    let _ = writeln!(out, "    {}", line(change));
                }
                Ok(())
            }
            _ => Ok(()),
        };
    }
    if diff.is_reordered {
        out.push_str("~ the order of the steps\n");
    }
    out
}

fn line(change: &FieldChange) -> String {
    let value = |value: &Value| visible_json(&value.to_string());
    // Settings may have names of any kind.
    let path: String = change.path.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
    match (&change.old, &change.new) {
        (None, Some(new)) => format!("+ {path}: {}", value(new)),
        (Some(old), None) => format!("- {path}: {}", value(old)),
        (Some(old), Some(new)) => format!("~ {path}: {} -> {}", value(old), value(new)),
        (None, None) => format!("~ {path}"),
    }
}
