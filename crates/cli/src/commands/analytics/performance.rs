//! `recache analytics performance`.

use recache_api::client::Client;
use recache_api::{DurationSpread, PerformanceReport};
use recache_engine::figures::performance_of;
use recache_model::figures::PerformanceRequest;

use super::{Which, per_cent, seconds};
use crate::cli_error::ExitStatus;
use crate::commands::failure::of_engine;
use crate::commands::{Context, Outcome};
use crate::output::{self, Format, instant};

/// Tell how work went in a window
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache analytics performance
  recache analytics performance --hours 1 --namespace shop -o json

A task is a workflow or a job that is no step; a step is anything that a handler
ran. Rates are of what ended in the window. Means are exact, quantiles are off
by at most 1 %. What each figure is: recache analytics explain FIGURE")]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let request = PerformanceRequest { hours: self.which.hours, filter: self.which.filter() };
        let store = context.open().await?;
        let found = performance_of(&*store, &request, self.which.exact).await;
        store.close().await;
        print(&output::performance(&request, &found.map_err(|error| of_engine(&error))?), context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        print(&client.performance(&self.which.asked()).await?, context)
    }
}

fn print(report: &PerformanceReport, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(report)?,
        Format::Table => {
            let text = table(report, context);
            context.print_text(&text)?;
        }
    }
    if report.total_tasks == 0 && report.step_duration_seconds.count == 0 {
        context.note("nothing ended in the window, and nothing is active")?;
    }
    Ok(ExitStatus::Ok)
}

fn table(report: &PerformanceReport, context: &Context<'_>) -> String {
    let mut table = context.table(["", ""]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("from", instant(report.analysis_period_start));
    row("to", instant(report.calculated_at));
    row("tasks", format!("{} ended or active, {} active", report.total_tasks, report.active_tasks));
    row(
        "ended",
        format!(
            "{} completed, {} failed, {} cancelled, {} superseded",
            report.completed_tasks, report.failed_tasks, report.cancelled_tasks, report.superseded_tasks
        ),
    );
    row(
        "completion rate",
        format!(
            "{} of what ended, {} of all",
            per_cent(report.completion_rate),
            per_cent(report.completion_rate_of_total)
        ),
    );
    row("error rate", per_cent(report.error_rate));
    row(
        "tasks per hour",
        format!("{:.1}, of which {:.1} ended", report.tasks_per_hour, report.tasks_ended_per_hour),
    );
    row("steps per hour", format!("{:.1}", report.steps_per_hour));
    row("health score", report.system_health_score.map(|score| format!("{score:.2}")).unwrap_or_default());
    let mut text = table.text();
    let mut table = context.table(["DURATION", "COUNT", "MEAN", "P50", "P90", "P99"]);
    for (name, spread) in [
        ("task", &report.task_duration_seconds),
        ("step", &report.step_duration_seconds),
        ("queue wait", &report.queue_wait_seconds),
    ] {
        let DurationSpread { count, mean, p50, p90, p99, sum: _ } = *spread;
        table.row([
            name.to_owned(),
            count.to_string(),
            seconds(mean),
            seconds(p50),
            seconds(p90),
            seconds(p99),
        ]);
    }
    text.push('\n');
    text.push_str(&table.text());
    text
}
