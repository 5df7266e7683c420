//! `recache cache bench`: the command around the cache crate's own measurements.

use std::time::Duration;

use recache_api::{CacheBench, CacheBenchRow};
use recache_cache::Condition;
use recache_cache::bench::{self, Row, Table};
use uuid::Uuid;

use super::super::{Context, Outcome, compose};
use crate::cli_error::ExitStatus;
use crate::output::Format;

/// Measure the near tier and the configured backend, beside their peers
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache cache bench
  recache cache bench --seconds 5 -o json

Each figure stands beside one of the same run: another cache's own get, the bare
client, the load itself. The backend is used under a key prefix made for the
run; without a backend only the near tier is measured, and what is missing is
said. Exit code 6 when the configured backend could not be measured.")]
pub(super) struct Bench {
    /// How long each measurement lasts, in seconds
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

impl Bench {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let loaded = context.load()?;
        context.log_errors();
        let config = compose::cache_config(&loaded.config.cache).unwrap_or_default();
        let condition = compose::cache(&loaded.config.cache, None).health().await.condition;
        let mark = Uuid::new_v4().simple().to_string();
        let table = Box::pin(bench::run(&config, Duration::from_secs(self.seconds), &mark)).await;
        let is_far = table.rows.iter().any(|row| row.measure.starts_with("GET"));
        let document = document(table, self.seconds);
        match context.format() {
            Format::Json | Format::Jsonl => context.print(&document)?,
            Format::Table => {
                let mut table = context.table(["MEASURED", "RECACHE", "BESIDE", "", "RATIO"]);
                for row in &document.rows {
                    let CacheBenchRow { measure, value, unit, .. } = row;
                    let (beside, named) = match (row.beside, &row.beside_name) {
                        (Some(value), Some(name)) => (format!("{} {unit}", figure(value)), name.clone()),
                        _ => (String::new(), String::new()),
                    };
                    let ratio = row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
                    table.row([measure.clone(), format!("{} {unit}", figure(*value)), beside, named, ratio]);
                }
                context.print_text(&table.text())?;
            }
        }
        for missing in &document.missing {
            context.note(missing)?;
        }
        let is_wanted =
            condition == Condition::Degraded || (config.enabled && config.backend() != Some(IN_PROCESS));
        Ok(if is_wanted && !is_far { ExitStatus::Unavailable } else { ExitStatus::Ok })
    }
}

const IN_PROCESS: recache_cache::config::Backend = recache_cache::config::Backend::Moka;

fn document(table: Table, seconds: u64) -> CacheBench {
    let row = |row: Row| CacheBenchRow {
        ratio: row.ratio(),
        beside: row.beside.as_ref().map(|beside| beside.value),
        beside_name: row.beside.map(|beside| beside.name.to_owned()),
        measure: row.measure,
        value: row.value,
        unit: row.unit.to_owned(),
    };
    CacheBench {
        schema: CacheBench::SCHEMA.to_owned(),
        seconds,
        rows: table.rows.into_iter().map(row).collect(),
        missing: table.missing,
    }
}

/// Three digits and more.
fn figure(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn figures_have_three_digits_at_least() {
        for (value, text) in [(0.0, "0.00"), (1.046, "1.05"), (41.26, "41.3"), (123_456.7, "123457")] {
            assert_eq!(figure(value), text);
        }
    }
}
