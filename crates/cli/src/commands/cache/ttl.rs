//! `recache cache ttl`: how long values may live.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use recache_api::client::Client;
use recache_api::{TtlExplanation, TtlSimulation, TtlSimulationRow};
use recache_cache::SystemClock;
use recache_engine::adaptive::Adaptive;
use recache_model::ttl::simulation::{Departure, Trace, Way, bursts, compare, flights, least, zipf};
use recache_model::ttl::{Saves, Settings};

use super::super::failure::of_engine;
use super::super::name::life;
use super::super::{Context, Outcome};
use super::opened::Opened;
use crate::cli_error::{CliError, ExitStatus};
use crate::demo::data::departures;
use crate::output::{Format, duration, ms, ttl_explanation};

/// Choose how long values live by what they cost and how they change
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache cache ttl explain
  recache cache ttl simulate"
)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Explain(Explain),
    Simulate(Simulate),
}

/// Show how long values live where that is chosen, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache cache ttl explain -o json

With --server it tells the lives that are in force there. Without, it reads what
the servers share through the configured backend, and tells what a process that
knew no more would decide.")]
struct Explain {}

/// Play the adaptive rule beside fixed and multiplied lives
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache cache ttl simulate
  recache cache ttl simulate --staleness 5m --share 0.01 -o json

On three traces: real flights of January 2013 with drawn readers, popularity by
Zipf's law with demand that follows the sun, and a writer that comes in bursts.
Beside the adaptive rule stand the best fixed life, the best of those that
multiply what is hot, and the best of the same rule when it is told all rates
beforehand, whose 99th percentile of staleness is no worse; and the least that
was possible for who knows the future. The rule saves the number of rebuilds,
the time that they take, or some of both: each is shown.")]
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
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        match self.verb {
            Verb::Explain(Explain {}) => {
                let explanation = client.explain_ttl().await?;
                if !explanation.enabled {
                    context.note("lives are not chosen: `adaptive_ttl.enabled` is false at the server")?;
                }
                print_explanation(&explanation, context)
            }
            // Nobody has to be asked.
            Verb::Simulate(arguments) => arguments.run(context),
        }
    }

    pub(super) async fn run(self, patience: Duration, context: &mut Context<'_>) -> Outcome {
        match self.verb {
            Verb::Explain(Explain {}) => explain(patience, context).await,
            Verb::Simulate(arguments) => arguments.run(context),
        }
    }
}

async fn explain(patience: Duration, context: &mut Context<'_>) -> Outcome {
    let chosen = context.load()?.config.adaptive_ttl.chosen();
    let Some(settings) = chosen else {
        context.note("lives are not chosen: `adaptive_ttl.enabled` is false")?;
        return print_explanation(&ttl_explanation(None), context);
    };
    let opened = Opened::usable(patience, context).await?;
    let adaptive = Adaptive::new(&opened.cache, Arc::new(SystemClock), settings, 0)
        .map_err(|error| of_engine(&error))?;
    if !adaptive.learn().await {
        let note = if opened.is_in_process() {
            "each process keeps to itself what it saw: ask one, with --server"
        } else {
            "nothing has been shared yet"
        };
        context.note(note)?;
    }
    print_explanation(&ttl_explanation(Some(&adaptive)), context)
}

fn print_explanation(explanation: &TtlExplanation, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(explanation)?,
        Format::Jsonl => context.print_lines(&explanation.classes)?,
        Format::Table if explanation.classes.is_empty() => {}
        Format::Table => {
            let mut table = context.table([
                "CLASS",
                "PHASE",
                "READS/S",
                "CHANGES/S",
                "COST",
                "REBUILT",
                "CHANGED",
                "LIFE",
                "TOO STALE",
                "HELD BY",
            ]);
            for one in &explanation.classes {
                table.row([
                    one.class.clone(),
                    one.phase.to_string(),
                    format!("{:.3}", one.reads_per_s),
                    format!("{:.6}", one.changes_per_s),
                    format!("{:.1} ms", one.rebuild_ms),
                    format!("{:.0}", one.rebuilt),
                    format!("{:.0}", one.changed),
                    duration(one.ttl_ms),
                    per_cent(Some(one.stale_share)),
                    one.bound.clone().unwrap_or_default(),
                ]);
            }
            context.print_text(&table.text())?;
        }
    }
    Ok(ExitStatus::Ok)
}

/// The whole part of a number that is not negative.
fn whole(value: f64) -> u64 {
    Duration::try_from_secs_f64(value).unwrap_or_default().as_secs()
}

fn float(count: u64) -> f64 {
    Duration::from_secs(count).as_secs_f64()
}

fn per_cent(fraction: Option<f64>) -> String {
    fraction.map(|fraction| format!("{:.1} %", fraction * 100.0)).unwrap_or_default()
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
        let seconds = |value: f64| ms(Duration::try_from_secs_f64(value).unwrap_or_default());
        let all = Saves::ALL.map(|saves| Settings { saves, ..settings });
        for (trace, settings) in
            self.traces()?.iter().flat_map(|trace| all.iter().map(move |one| (trace, one)))
        {
            let compared = compare(trace, settings);
            let adaptive = compared.first().and_then(|row| row.outcome).unwrap_or_default();
            rows.extend(compared.into_iter().filter_map(|row| {
                let outcome = row.outcome?;
                let (way, life_s) = match row.way {
                    Way::Adaptive(_) => ("adaptive", None),
                    Way::Told(_) => ("told", None),
                    Way::Fixed { life_s } => ("fixed", Some(life_s)),
                    Way::Multiply { base_s } => ("multiply", Some(base_s)),
                };
                Some(TtlSimulationRow {
                    trace: trace.name.to_owned(),
                    saves: settings.saves.as_str().to_owned(),
                    way: way.to_owned(),
                    life_ms: life_s.map(seconds),
                    reads: outcome.reads,
                    rebuilds: outcome.rebuilds,
                    cost_ms: seconds(outcome.cost_s),
                    staleness_p99_ms: seconds(outcome.staleness_p99_s),
                    saved: row.saved,
                    cost_saved: row.cost_saved,
                })
            }));
            let bound = least(trace, adaptive.staleness_p99_s);
            let saved = |of: f64, least: f64| (least > 0.0).then(|| 1.0 - of / least);
            rows.push(TtlSimulationRow {
                trace: trace.name.to_owned(),
                saves: settings.saves.as_str().to_owned(),
                way: "possible".to_owned(),
                life_ms: None,
                reads: adaptive.reads,
                rebuilds: whole(bound.rebuilds),
                cost_ms: seconds(bound.cost_s),
                staleness_p99_ms: seconds(adaptive.staleness_p99_s),
                saved: saved(float(adaptive.rebuilds), bound.rebuilds),
                cost_saved: saved(adaptive.cost_s, bound.cost_s),
            });
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
                    "TO SAVE",
                    "WAY",
                    "LIFE",
                    "READS",
                    "REBUILDS",
                    "COST",
                    "P99 STALENESS",
                    "REBUILDS SAVED",
                    "COST SAVED",
                ]);
                for row in &document.rows {
                    table.row([
                        row.trace.clone(),
                        row.saves.clone(),
                        row.way.clone(),
                        row.life_ms.map(duration).unwrap_or_default(),
                        row.reads.to_string(),
                        row.rebuilds.to_string(),
                        duration(row.cost_ms),
                        duration(row.staleness_p99_ms),
                        per_cent(row.saved),
                        per_cent(row.cost_saved),
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
