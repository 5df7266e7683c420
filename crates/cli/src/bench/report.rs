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
    table: Option<Table>,
}

/// Things that were measured in the same ways, side by side.
#[derive(Debug)]
pub(crate) struct Table {
    /// What the rows are.
    pub(crate) of: &'static str,
    /// What was measured of each, with its unit.
    pub(crate) columns: Vec<&'static str>,
    /// Each with its name; nothing where a figure means nothing.
    pub(crate) rows: Vec<(String, Vec<Option<f64>>)>,
}

impl Table {
    fn text(&self) -> String {
        let mut lines = vec![vec![self.of.to_owned()]];
        lines[0].extend(self.columns.iter().map(|column| (*column).to_owned()));
        for (name, values) in &self.rows {
            let shown = |value: &Option<f64>| value.map_or_else(|| "-".to_owned(), shown);
            lines.push(std::iter::once(name.clone()).chain(values.iter().map(shown)).collect());
        }
        let width = |place: usize| lines.iter().filter_map(|line| line.get(place)).map(String::len).max();
        let widths: Vec<usize> = (0..=self.columns.len()).filter_map(width).collect();
        let mut text = String::new();
        for line in &lines {
            for (place, (cell, width)) in line.iter().zip(&widths).enumerate() {
                // Writing to a text cannot fail.
                let _ = if place == 0 {
                    write!(text, "  {cell:width$}")
                } else {
                    write!(text, "  {cell:>width$}")
                };
            }
            text.push('\n');
        }
        text
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|(name, values)| {
            let values =
                self.columns.iter().zip(values).map(|(column, value)| ((*column).to_owned(), json!(value)));
            Value::Object(std::iter::once((self.of.to_owned(), json!(name))).chain(values).collect())
        });
        rows.collect()
    }
}

fn shown(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

impl Report {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new(), table: None }
    }

    pub(crate) fn row(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push((name.into(), value, unit));
    }

    /// Shows this in front of the rows.
    pub(crate) fn table(&mut self, table: Table) {
        self.table = Some(table);
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
        text.extend(self.table.as_ref().map(Table::text));
        for (name, value, unit) in &self.rows {
            let value = shown(*value);
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
        let mut report = json!({ "schema": "recache.bench/1", "title": self.title, "rows": rows });
        if let (Some(table), Value::Object(fields)) = (&self.table, &mut report) {
            fields.insert("table".to_owned(), table.json());
        }
        report
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
    fn table_stands_in_front_of_the_rows_with_nothing_for_what_means_nothing() {
        let mut report = Report::new("measured");
        report.row("else", 2.0, "ms");
        report.table(Table {
            of: "limit",
            columns: vec!["jobs/s", "ratio"],
            rows: vec![
                ("fixed at 2".to_owned(), vec![Some(1234.4), Some(1.5)]),
                ("none".to_owned(), vec![Some(0.0), None]),
            ],
        });
        let text = "measured\n  limit       jobs/s  ratio\n  fixed at 2    1234  1.500\n  none         0.000      -\n";
        assert_eq!(report.text(), format!("{text}  else         2.000 ms\n"));
        assert_eq!(
            report.json()["table"],
            json!([{ "limit": "fixed at 2", "jobs/s": 1234.4, "ratio": 1.5 }, { "limit": "none", "jobs/s": 0.0, "ratio": null }])
        );
    }

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
