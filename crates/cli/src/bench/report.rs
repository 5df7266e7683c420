//! What a bench prints.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use recache_store::Store;

/// Bare transactions that the reference is measured with.
const BARE_TRANSACTIONS: usize = 200;

/// Rows of name, value and unit, with what they were measured under.
#[derive(Debug)]
pub(crate) struct Report {
    title: String,
    rows: Vec<(String, f64, &'static str)>,
}

impl Report {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push((name.into(), value, unit));
    }

    /// Percentiles of a sample of durations, in milliseconds.
    pub(crate) fn percentiles(&mut self, name: &str, sample: &mut [Duration]) {
        sample.sort_unstable();
        for (label, fraction) in [("p50", 0.5), ("p99", 0.99)] {
            self.row(format!("{name} {label}"), milliseconds(nearest_rank(sample, fraction)), "ms");
        }
    }

    /// The reference: one durable transaction of two small statements, alone.
    pub(crate) async fn bare_transaction(&mut self, store: &dyn Store) -> super::BenchResult<Duration> {
        let mut sample = Vec::with_capacity(BARE_TRANSACTIONS);
        for _ in 0..BARE_TRANSACTIONS {
            let began = Instant::now();
            store.check_writable().await?;
            sample.push(began.elapsed());
        }
        self.percentiles("bare durable transaction", &mut sample);
        Ok(nearest_rank(&sample, 0.5))
    }

    pub(crate) fn text(&self) -> String {
        let width = self.rows.iter().map(|(name, _, _)| name.len()).max().unwrap_or(0);
        let mut text = format!("{}\n", self.title);
        for (name, value, unit) in &self.rows {
            let value = if *value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.3}") };
            // Writing to a text cannot fail.
            let _ = writeln!(text, "  {name:width$}  {value:>12} {unit}");
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(name, value, unit)| json!({ "name": name, "value": value, "unit": unit }))
            .collect();
        json!({ "schema": "recache.bench/1", "title": self.title, "rows": rows })
    }
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The smallest value that at least this fraction of the sorted sample does not exceed.
pub(crate) fn nearest_rank(sorted: &[Duration], fraction: f64) -> Duration {
    let mut rank = 0;
    while rank + 1 < sorted.len() && ratio(rank + 1, sorted.len()) < fraction {
        rank += 1;
    }
    sorted.get(rank).copied().unwrap_or_default()
}

/// `part / whole`, for counts.
pub(crate) fn ratio(part: usize, whole: usize) -> f64 {
    let float = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    float(part) / float(whole.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank_takes_a_value_of_the_sample() {
        let sample: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(nearest_rank(&sample, 0.5), Duration::from_millis(50));
        assert_eq!(nearest_rank(&sample, 0.99), Duration::from_millis(99));
        assert_eq!(nearest_rank(&sample, 1.0), Duration::from_millis(100));
        assert_eq!(nearest_rank(&sample[..1], 0.99), Duration::from_millis(1));
        assert_eq!(nearest_rank(&[], 0.5), Duration::ZERO);
    }
}
