//! `recache cache ttl`: how long values may live.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Subcommand;
use recache_api::{TtlSimulation, TtlSimulationRow};
use recache_model::ttl::Settings;
use recache_model::ttl::simulation::{Departure, Trace, Way, bursts, compare, flights, zipf};

use super::super::name::life;
use super::super::{Context, Outcome};
use crate::cli_error::{CliError, ExitStatus};
use crate::demo::data::departures;
use crate::output::{Format, duration, ms};

/// Choose how long values live by what they cost and how they change
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache cache ttl simulate"
)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Simulate(Simulate),
}

/// Play the adaptive rule beside fixed and multiplied lives
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache cache ttl simulate
  recache cache ttl simulate --staleness 5m --share 0.01 -o json

On three traces: real flights of January 2013 with drawn readers, popularity by
Zipf's law with demand that follows the sun, and a writer that comes in bursts.
Beside the adaptive rule stand the best fixed life, and the best of those that
multiply what is hot, whose 99th percentile of staleness is no worse.")]
struct Simulate {
    /// A read is too stale when what it is served was outdated for longer
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = life)]
    staleness: Duration,
    /// The fraction of all reads that may be too stale
    #[arg(long, default_value_t = 0.01, value_name = "FRACTION", allow_negative_numbers = true)]
    share: f64,
    /// How long each trace is, in days
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=28))]
    days: u32,
    /// Reads of the flights' figures, in a second
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    flight_reads: u32,
    /// From which the traces are drawn
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

impl Args {
    pub(super) fn run(self, context: &mut Context<'_>) -> Outcome {
        match self.verb {
            Verb::Simulate(arguments) => arguments.run(context),
        }
    }
}

impl Simulate {
    fn run(&self, context: &mut Context<'_>) -> Outcome {
        let settings =
            Settings { staleness: self.staleness, stale_share_max: self.share, ..Settings::default() };
        let problems: Vec<String> = settings.problems().iter().map(ToString::to_string).collect();
        if !problems.is_empty() {
            return Err(CliError::new("E-INVALID", ExitStatus::Usage, problems.join("; ")).into());
        }
        let mut rows = Vec::new();
        for trace in self.traces()? {
            rows.extend(compare(&trace, &settings).into_iter().filter_map(|row| {
                let outcome = row.outcome?;
                let seconds = |value: f64| ms(Duration::try_from_secs_f64(value).unwrap_or_default());
                let (way, life_s) = match row.way {
                    Way::Adaptive(_) => ("adaptive", None),
                    Way::Fixed { life_s } => ("fixed", Some(life_s)),
                    Way::Multiply { base_s } => ("multiply", Some(base_s)),
                };
                Some(TtlSimulationRow {
                    trace: trace.name.to_owned(),
                    way: way.to_owned(),
                    life_ms: life_s.map(seconds),
                    reads: outcome.reads,
                    rebuilds: outcome.rebuilds,
                    cost_ms: seconds(outcome.cost_s),
                    staleness_p99_ms: seconds(outcome.staleness_p99_s),
                    saved: row.saved,
                })
            }));
        }
        let document = TtlSimulation {
            schema: TtlSimulation::SCHEMA.to_owned(),
            staleness_ms: ms(self.staleness),
            stale_share_max: self.share,
            seed: self.seed,
            rows,
        };
        match context.format() {
            Format::Json => context.print(&document)?,
            Format::Jsonl => context.print_lines(&document.rows)?,
            Format::Table => {
                let mut table = context.table([
                    "TRACE",
                    "WAY",
                    "LIFE",
                    "READS",
                    "REBUILDS",
                    "COST",
                    "P99 STALENESS",
                    "ADAPTIVE SAVES",
                ]);
                for row in &document.rows {
                    table.row([
                        row.trace.clone(),
                        row.way.clone(),
                        row.life_ms.map(duration).unwrap_or_default(),
                        row.reads.to_string(),
                        row.rebuilds.to_string(),
                        duration(row.cost_ms),
                        duration(row.staleness_p99_ms),
                        row.saved.map(|saved| format!("{:.1} %", saved * 100.0)).unwrap_or_default(),
                    ]);
                }
                context.print_text(&table.text())?;
            }
        }
        Ok(ExitStatus::Ok)
    }

    fn traces(&self) -> Result<[Trace; 3], CliError> {
        const KEYS: usize = 200;
        const READS_PER_S: f64 = 2.0;
        let broken = |error: csv::Error| {
            CliError::new("E-DATA", ExitStatus::Failed, format!("the flights cannot be read: {error}"))
        };
        let mut keys = BTreeMap::new();
        let left: Vec<Departure> = departures(self.days)
            .map_err(broken)?
            .into_iter()
            .map(|(day, destination)| {
                let next = keys.len();
                Departure { day, key: *keys.entry(destination).or_insert(next) }
            })
            .collect();
        Ok([
            flights(&left, keys.len(), f64::from(self.flight_reads), self.seed),
            zipf(KEYS, self.days, READS_PER_S, self.seed),
            bursts(KEYS, self.days, READS_PER_S, self.seed),
        ])
    }
}
