//! What the cache costs on this machine, each figure beside what it is to be compared with, measured in the same run: a
//! peer's own `get`, the bare client, the load itself. The time of a peer in another run says nothing about this one.
//!
//! With the feature `bench`; `recache cache bench` prints it. The far part works under a key prefix of its own and clears
//! that at its end; nothing that is cached is touched.

mod fleet;
mod near;
mod outage;
mod peer;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::cache::Cache;
use crate::clock::SystemClock;
use crate::config::{Backend, CacheConfig};

/// One line of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What was measured.
    pub measure: String,
    /// The cache's figure.
    pub value: f64,
    /// In what; the figure beside it has the same.
    pub unit: &'static str,
    /// What it is to be compared with.
    pub beside: Option<Beside>,
}

/// A figure of the same run to compare with.
#[derive(Debug, Clone, PartialEq)]
pub struct Beside {
    /// Whose: `moka get`.
    pub name: &'static str,
    /// How much.
    pub value: f64,
}

impl Row {
    fn new(measure: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { measure: measure.into(), value, unit, beside: None }
    }

    fn beside(self, name: &'static str, value: f64) -> Self {
        Self { beside: Some(Beside { name, value }), ..self }
    }

    /// The cache's figure in parts of the other one.
    pub fn ratio(&self) -> Option<f64> {
        self.beside.as_ref().filter(|beside| beside.value > 0.0).map(|beside| self.value / beside.value)
    }
}

/// What was measured, and what could not be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// The figures.
    pub rows: Vec<Row>,
    /// What is not among them, and why.
    pub missing: Vec<String>,
}

/// How long the backend may take to be connected.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Measures the near tier, and the backend that `config` names when it can be reached. A measurement takes about
/// `each`. `mark` tells this run's keys from all others.
pub async fn run(config: &CacheConfig, each: Duration, mark: &str) -> Table {
    let mut table = Table { rows: near::rows(each), missing: Vec::new() };
    let Some(config) = far_config(config, mark) else {
        table
            .missing
            .push("no backend outside the process is configured: only the near tier was measured".to_owned());
        return table;
    };
    let cache = Cache::from_config(&config, Arc::new(SystemClock));
    if let Err(reason) = connected(&cache).await {
        table.missing.push(format!("backend `{}` was not measured: {reason}", config.backend));
    } else {
        let reading = tokio::spawn(wire::table(cache.clone(), config.clone(), each));
        match reading.await {
            Ok(read) => {
                table.rows.extend(read.rows);
                table.missing.extend(read.missing);
            }
            Err(error) => {
                table.missing.push(format!("reads of `{}` were not measured: {error}", config.backend));
            }
        }
        table.rows.extend(Box::pin(fleet::cold_key(&config, each)).await);
        table.rows.extend(Box::pin(fleet::early_refresh(&config, each)).await);
        cache.clear().await;
    }
    match outage::rows(&config, each).await {
        Ok(rows) => table.rows.extend(rows),
        Err(reason) => table.missing.push(format!("an outage was not measured: {reason}")),
    }
    table
}

/// The shared backend alone, under a prefix of this run.
fn far_config(config: &CacheConfig, mark: &str) -> Option<CacheConfig> {
    let far = match config.backend()? {
        Backend::Tiered => config.tiered.far()?,
        Backend::Moka => return None,
        far => far,
    };
    let key_prefix = format!("{}-bench-{mark}", config.key_prefix);
    config.enabled.then(|| CacheConfig { backend: far.name().to_owned(), key_prefix, ..config.clone() })
}

/// Waits until the backend answers; the breakers then begin anew.
async fn connected(cache: &Cache) -> Result<(), String> {
    use crate::provider::CallClass::{Read, Write};

    if let Some(breakers) = cache.breakers() {
        breakers.disable(Read);
        breakers.disable(Write);
    }
    let mut last = "no answer".to_owned();
    let asking = async {
        while let Err(error) = cache.provider().health().await {
            last = error.to_string();
            sleep(Duration::from_millis(10)).await;
        }
    };
    let answered = timeout(CONNECT_WITHIN, asking).await;
    if let Some(breakers) = cache.breakers() {
        breakers.reset(Read);
        breakers.reset(Write);
    }
    answered.map_err(|_| last)
}

/// The smallest that at least `per_mille` of 1,000 do not exceed, in microseconds.
fn quantile_us(times: &mut [Duration], per_mille: usize) -> f64 {
    times.sort_unstable();
    let rank = (times.len() * per_mille).div_ceil(1_000).max(1);
    times.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

/// How long it takes.
async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let done = work.await;
    (done, began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let mut times: Vec<_> = (1..=100).rev().map(Duration::from_micros).collect();
        for (per_mille, expected) in [(500, 50.0), (990, 99.0), (1_000, 100.0), (0, 1.0)] {
            assert!((quantile_us(&mut times, per_mille) - expected).abs() < 1e-6, "{per_mille}");
        }
        assert!(quantile_us(&mut [], 500).abs() < 1e-6);
    }

    #[test]
    fn only_a_backend_outside_the_process_has_a_far_part() {
        let config = |backend: &str| CacheConfig {
            enabled: true,
            backend: backend.to_owned(),
            ..CacheConfig::default()
        };
        assert_eq!(far_config(&config("moka"), "m"), None);
        assert_eq!(far_config(&config("paper"), "m"), None);
        assert_eq!(far_config(&CacheConfig { enabled: false, ..config("redis") }, "m"), None);
        let far = far_config(&config("tiered"), "m").unwrap();
        assert_eq!((far.backend.as_str(), far.key_prefix.as_str()), ("redis", "recache-bench-m"));
    }

    #[test]
    fn ratio_needs_something_beside() {
        assert_eq!(Row::new("m", 3.0, "ns").ratio(), None);
        assert_eq!(Row::new("m", 3.0, "ns").beside("other", 2.0).ratio(), Some(1.5));
        assert_eq!(Row::new("m", 3.0, "ns").beside("other", 0.0).ratio(), None);
    }
}
