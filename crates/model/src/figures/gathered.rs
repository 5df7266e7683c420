//! Totals gathered from minutes, of so many series at most.

use std::collections::BTreeMap;

use super::performance::part;
use super::request::Filter;
use super::totals::{ENGINE_HANDLER, Ended, Series, Totals};
use super::{Minute, MinuteTotals};
use crate::time::Timestamp;

/// Series that are told apart in one minute, and in one report. What is beyond them counts under [`OTHER`]: whoever makes up names, of
/// handlers or of queues, cannot make a report need more memory than these.
pub const SERIES_MAX: usize = 5_000;

/// The names of the series of those that were too many to be told apart.
pub const OTHER: &str = "recache.other";

/// How far totals are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// By minute and series, as roll-ups are kept.
    Minute,
    /// By series: whatever the window is, each is there once.
    Series,
    /// By part of a window, and only as far as [`performance`](super::performance) looks: whatever there is, it comes to some hundred
    /// totals.
    Parts {
        /// Where the window begins.
        start: Timestamp,
        /// Where it ends.
        end: Timestamp,
    },
}

/// Totals of what a filter takes.
#[derive(Debug)]
pub struct Gathered {
    by: By,
    filter: Filter,
    series_max: usize,
    /// By minute, or part of the window; with a minute that lies in it.
    found: BTreeMap<i64, (Minute, BTreeMap<Series, Totals>)>,
}

impl Gathered {
    /// Nothing yet. In each minute or part at most `series_max` series are told apart, and one for the others of each kind.
    pub fn new(by: By, filter: Filter, series_max: usize) -> Self {
        Self { by, filter, series_max, found: BTreeMap::new() }
    }

    /// Whether a series is asked for.
    pub fn takes(&self, series: &Series) -> bool {
        self.filter.takes(series)
    }

    /// Adds the totals of a minute.
    pub fn merge(&mut self, minute: Minute, series: Series, totals: &Totals) {
        if let Some(slot) = self.slot(minute, series) {
            slot.merge(totals);
        }
    }

    /// Adds one that ended.
    pub fn add(&mut self, minute: Minute, series: Series, ended: &Ended) {
        if let Some(slot) = self.slot(minute, series) {
            slot.add(ended);
        }
    }

    /// What was gathered, in the order of minutes and series.
    pub fn into_minutes(self) -> Vec<MinuteTotals> {
        let parts = self.found.into_values();
        let minutes = parts.flat_map(|(minute, of)| {
            of.into_iter().map(move |(series, totals)| MinuteTotals { minute, series, totals })
        });
        minutes.collect()
    }

    fn slot(&mut self, minute: Minute, series: Series) -> Option<&mut Totals> {
        if !self.filter.takes(&series) {
            return None;
        }
        let (number, series) = match self.by {
            By::Minute => (minute, series),
            By::Series => (0, series),
            By::Parts { start, end } => (part(minute, start, end), self.reduced(&series)),
        };
        let (_, of) = self.found.entry(number).or_insert_with(|| (minute, BTreeMap::new()));
        let is_too_many = !of.contains_key(&series) && of.len() >= self.series_max;
        let series = if is_too_many { series.as_other() } else { series };
        Some(of.entry(series).or_default())
    }

    /// What figures of performance tell apart: the kind, and whether handlers do it. The filter takes it as it did the series.
    fn reduced(&self, series: &Series) -> Series {
        let wanted = |of: &Option<String>| of.clone().unwrap_or_default();
        let is_own = series.handler == ENGINE_HANDLER;
        Series {
            kind: series.kind,
            namespace: wanted(&self.filter.namespace),
            template: wanted(&self.filter.template),
            step: String::new(),
            handler: if is_own { ENGINE_HANDLER.to_owned() } else { wanted(&self.filter.handler) },
            queue: wanted(&self.filter.queue),
        }
    }
}
