//! How an analysed graph is printed.

use std::fmt::Write as _;

use clap::ValueEnum;
use recache_api::{GraphAnalysis, LengthMeasure};
use recache_model::analysis::{mermaid, svg, text};

use super::failure::Outcome;
use super::{Context, ExitStatus};
use crate::cli_error::CliError;
use crate::output::{Drawn, Format, duration};

/// How an analysis is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Figures, and the steps by levels
    Text,
    /// For Mermaid
    Mermaid,
    /// A picture
    Svg,
}

/// Prints an analysis as it was asked for, whoever made it.
pub(crate) fn print(found: &GraphAnalysis, form: Form, context: &mut Context<'_>) -> Outcome {
    if matches!(context.format(), Format::Json | Format::Jsonl) {
        context.print(found)?;
        return Ok(ExitStatus::Ok);
    }
    let drawn = Drawn::new(found).ok_or_else(|| {
        let what = format!("the analysis of {} names steps that it does not have", found.title);
        CliError::new("E-BROKEN", ExitStatus::Failed, what).help("with -o json it is shown as it is")
    })?;
    let drawing = drawn.drawing();
    match form {
        Form::Text => {
            let figures = figures(found, context);
            context.print_text(&format!("{figures}\n{}", text(&drawing)))?;
        }
        Form::Mermaid => context.print_text(&mermaid(&drawing))?,
        Form::Svg => context.print_text(&svg(&drawing))?,
    }
    Ok(ExitStatus::Ok)
}

/// Names on one line of a table.
const NAMES_MAX: usize = 12;

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let mut text = names.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(" > ");
    if more > 0 {
        let _ = write!(text, " > … {more} more");
    }
    text
}

fn figures(found: &GraphAnalysis, context: &Context<'_>) -> String {
    let length = |length_ms: u64| match found.measure {
        LengthMeasure::Time => duration(length_ms),
        LengthMeasure::Steps => format!("{} steps", length_ms / 1_000),
    };
    let mut table = context.table(["", ""]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("graph", found.title.clone());
    row("steps", format!("{}, {} dependencies, {} levels", found.nodes, found.edges, found.levels.len()));
    row(
        "durations",
        match found.measure {
            LengthMeasure::Steps => "not known: each step counts as one".to_owned(),
            LengthMeasure::Time => format!("measured, and from {} ended workflows", found.history_workflows),
        },
    );
    row(
        "critical path",
        format!("{}: {}", length(found.critical_path.length_ms), listed(&found.critical_path.steps)),
    );
    let parallelism = &found.parallelism;
    row(
        "parallelism",
        format!("at most {}, {:.1} on average", parallelism.possible_max, parallelism.possible_mean),
    );
    if let Some(mean) = parallelism.used_mean {
        row(
            "used so far",
            format!("at most {}, {mean:.1} on average, {} now", parallelism.used_max, parallelism.running),
        );
    }
    if let Some(end) = &found.completion {
        let assumed = match end.steps_assumed {
            0 => String::new(),
            steps => format!(", {steps} steps guessed"),
        };
        row(
            "done in",
            format!(
                "{}; {:.0} % between {} and {}{assumed}",
                duration(end.remaining_ms),
                end.confidence * 100.0,
                duration(end.remaining_low_ms),
                duration(end.remaining_high_ms)
            ),
        );
    }
    let mut text = table.text();
    if found.blocked.waiting > 0 {
        let _ = writeln!(text, "{} steps wait, {} of them stuck", found.blocked.waiting, found.blocked.stuck);
    }
    if !found.blocked.root_causes.is_empty() {
        let mut table = context.table(["MEND", "STATE", "FREES", "BLOCKS", "CHAIN", "ERROR"]);
        for cause in &found.blocked.root_causes {
            table.row([
                cause.step.clone(),
                cause.state.map_or_else(String::new, |state| word(&state)),
                format!("{} steps, {}", cause.frees_steps, length(cause.frees_work_ms)),
                cause.blocks_steps.to_string(),
                listed(&cause.blocked_chain),
                cause.error.as_ref().map(|error| error.message.clone()).unwrap_or_default(),
            ]);
        }
        text.push('\n');
        text.push_str(&table.text());
    }
    if !found.retries.is_empty() {
        let mut table = context.table(["RETRIED", "STATE", "ATTEMPT", "DUE IN", "ERROR"]);
        for retry in &found.retries {
            table.row([
                retry.step.clone(),
                retry.state.map_or_else(String::new, |state| word(&state)),
                format!("{}/{}", retry.attempt, retry.attempts_max),
                retry.due_in_ms.map(duration).unwrap_or_default(),
                retry.error.as_ref().map(|error| error.message.clone()).unwrap_or_default(),
            ]);
        }
        text.push('\n');
        text.push_str(&table.text());
    }
    text
}

/// A state as it is written on the wire.
fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
