//! `recache analytics explain`.

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use recache_api::FigureExplanation;
use recache_api::client::Client;
use recache_engine::figures::{bottlenecks_of, performance_of};
use recache_model::figures::{BottlenecksRequest, PerformanceRequest};
use recache_store::Store;

use super::Which;
use crate::cli_error::ExitStatus;
use crate::commands::failure::of_engine;
use crate::commands::{Context, Outcome};
use crate::output::{self, Figure, Format, Report};

/// Tell where a figure comes from, and check it against the rows themselves
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache analytics explain completion_rate
  recache analytics explain average_step_duration_seconds --hours 1
  recache analytics explain error_hot_spots --namespace shop

The figure is calculated twice: from roll-ups, and from all rows of the window.
They differ where jobs were removed, or run again, after their minute was
folded.")]
pub(super) struct Args {
    /// Which figure
    #[arg(value_parser = PossibleValuesParser::new(Figure::ALL.map(Figure::name)).try_map(|name| name.parse::<Figure>()))]
    figure: Figure,
    #[command(flatten)]
    which: Which,
}

impl Args {
    /// As rolled up, and as counted.
    async fn reports(&self, store: &dyn Store) -> recache_engine::Result<(Report, Report)> {
        let (hours, filter, exact) = (self.which.hours, self.which.filter(), self.which.exact);
        if self.figure.is_of_bottlenecks() {
            let request = BottlenecksRequest { hours, filter, ..BottlenecksRequest::default() };
            let report = |found| Report::Bottlenecks(Box::new(output::bottlenecks(&request, found)));
            let rolled_up = bottlenecks_of(store, &request, exact).await?;
            return Ok((report(&rolled_up), report(&bottlenecks_of(store, &request, true).await?)));
        }
        let request = PerformanceRequest { hours, filter };
        let report = |found| Report::Performance(Box::new(output::performance(&request, found)));
        let rolled_up = performance_of(store, &request, exact).await?;
        Ok((report(&rolled_up), report(&performance_of(store, &request, true).await?)))
    }

    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let store = context.open().await?;
        let reports = self.reports(&*store).await;
        store.close().await;
        let (report, exact) = reports.map_err(|error| of_engine(&error))?;
        print(&output::figure_explanation(self.figure, &report, &exact), context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        print(&client.explain_figure(self.figure.name(), &self.which.asked()).await?, context)
    }
}

fn print(explanation: &FigureExplanation, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(explanation)?,
        Format::Table => {
            let mut table = context.table(["", ""]);
            table.row(["figure".to_owned(), explanation.figure.clone()]);
            table.row(["formula".to_owned(), explanation.formula.clone()]);
            table.row(["from".to_owned(), explanation.source.clone()]);
            let mut text = table.text();
            let mut table = context.table(["NUMBER", "ROLLED UP", "COUNTED"]);
            let shown = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
            for input in &explanation.inputs {
                table.row([input.name.clone(), shown(input.value), shown(input.exact_value)]);
            }
            table.row([explanation.figure.clone(), shown(explanation.value), shown(explanation.exact_value)]);
            text.push('\n');
            text.push_str(&table.text());
            context.print_text(&text)?;
        }
    }
    Ok(ExitStatus::Ok)
}
