//! `recache analytics bottlenecks`.

use recache_api::client::{BottlenecksQuery, Client};
use recache_api::{BottleneckReport, SlowStepEntry};
use recache_engine::figures::bottlenecks_of;
use recache_model::figures::BottlenecksRequest;

use super::{Which, per_cent, seconds};
use crate::cli_error::ExitStatus;
use crate::commands::failure::of_engine;
use crate::commands::{Context, Outcome};
use crate::output::{self, Format};

/// Tell what is slow and what fails in a window
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache analytics bottlenecks
  recache analytics bottlenecks --limit 5 --min-executions 100 --hours 1

Steps by their own run time, by their wait, and by their part of their workflows'
critical paths; workflows by duration; failures by code; handlers by the time of
workers that they take. What is recommended names its evidence; where there is
none, nothing is.")]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// Entries of each list, from 1 to 100
    #[arg(long, default_value_t = 10, allow_negative_numbers = true)]
    limit: u32,
    /// Leave out what ended less often, from 1 to 1000000
    #[arg(long, default_value_t = 5, value_name = "COUNT", allow_negative_numbers = true)]
    min_executions: u64,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let request = BottlenecksRequest {
            hours: self.which.hours,
            limit: self.limit,
            min_executions: self.min_executions,
            filter: self.which.filter(),
        };
        let store = context.open().await?;
        let found = bottlenecks_of(&*store, &request, self.which.exact).await;
        store.close().await;
        print(&output::bottlenecks(&request, &found.map_err(|error| of_engine(&error))?), context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let query = BottlenecksQuery {
            window: self.which.asked(),
            limit: Some(self.limit),
            min_executions: Some(self.min_executions),
        };
        print(&client.bottlenecks(&query).await?, context)
    }
}

fn print(report: &BottleneckReport, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(report)?,
        Format::Table => {
            let text = tables(report, context);
            context.print_text(&text)?;
        }
    }
    if report.executions == 0 {
        context.note("nothing ended in the window: there is nothing to say")?;
    }
    Ok(ExitStatus::Ok)
}

fn tables(report: &BottleneckReport, context: &Context<'_>) -> String {
    let mut parts = Vec::new();
    let name = |step: &SlowStepEntry| match (&step.template, &step.step) {
        (Some(template), Some(name)) => format!("{}/{template}.{name}", step.namespace),
        _ => format!("{}/{}", step.namespace, step.handler),
    };
    for (header, steps) in [
        ("SLOWEST BY RUN", &report.slowest_steps_by_run),
        ("SLOWEST BY WAIT", &report.slowest_steps_by_wait),
        ("MOST OF ITS WORKFLOWS", &report.slowest_steps_by_critical_share),
    ] {
        if steps.is_empty() {
            continue;
        }
        let mut table =
            context.table([header, "COUNT", "RUN", "RUN P99", "WAIT", "WAIT P99", "ON PATH", "FAILS"]);
        for step in steps {
            table.row([
                name(step),
                step.executions.to_string(),
                seconds(step.run_seconds.mean),
                seconds(step.run_seconds.p99),
                seconds(step.wait_seconds.mean),
                seconds(step.wait_seconds.p99),
                per_cent(step.critical_share),
                per_cent(step.error_rate),
            ]);
        }
        parts.push(table.text());
    }
    if !report.slowest_workflows.is_empty() {
        let mut table = context.table(["SLOWEST WORKFLOWS", "COUNT", "MEAN", "P99", "FAILS"]);
        for one in &report.slowest_workflows {
            table.row([
                format!("{}/{}", one.namespace, one.template),
                one.executions.to_string(),
                seconds(one.duration_seconds.mean),
                seconds(one.duration_seconds.p99),
                per_cent(one.error_rate),
            ]);
        }
        parts.push(table.text());
    }
    if !report.error_hot_spots.is_empty() {
        let mut table = context.table(["FAILS", "CODE", "COUNT", "OF ALL"]);
        for spot in &report.error_hot_spots {
            table.row([
                format!("{}/{}", spot.namespace, spot.handler),
                spot.code.clone(),
                spot.failures.to_string(),
                per_cent(Some(spot.share)),
            ]);
        }
        parts.push(table.text());
    }
    if !report.resource_use.is_empty() {
        let mut table = context.table(["TAKES WORKERS", "COUNT", "RAN FOR", "OF ALL", "AT ONCE"]);
        for one in &report.resource_use {
            table.row([
                format!("{}/{}", one.namespace, one.handler),
                one.executions.to_string(),
                seconds(Some(one.busy_seconds)),
                per_cent(Some(one.share)),
                format!("{:.2}", one.running_mean),
            ]);
        }
        parts.push(table.text());
    }
    if !report.recommendations.is_empty() {
        let mut table = context.table(["DO", "WHAT", "BECAUSE"]);
        for one in &report.recommendations {
            table.row([one.kind.clone(), one.subject.clone(), one.evidence.clone()]);
        }
        parts.push(table.text());
    }
    parts.join("\n")
}
