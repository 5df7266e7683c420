//! Figures over what has ended: counts and distributions by minute, merged over a window, and what follows from them.
//!
//! A minute of one kind of work is a [`Totals`]: exact counts and sums, and [`Sketch`]es of durations whose quantiles are off
//! by at most [`Sketch::ERROR`]. Totals of any minutes merge into those of the window, so that what a figure costs follows
//! from the window and not from all history.

mod bottlenecks;
mod gathered;
mod performance;
mod request;
mod sketch;
mod totals;

pub use bottlenecks::{
    ADD_WORKERS_WAIT_MIN, Bottlenecks, ErrorSpot, Recommendation, ResourceUse, SlowStep, SlowWorkflow,
    bottlenecks,
};
pub use gathered::{By, Gathered, OTHER, SERIES_MAX};
pub use performance::{Active, Bucket, Distribution, HealthPart, Performance, performance};
pub use request::{
    BottlenecksRequest, Filter, HOURS_MAX, LIMIT_MAX, MIN_EXECUTIONS_MAX, PerformanceRequest, RequestProblem,
};
pub use sketch::Sketch;
pub use totals::{CODES_MAX, ENGINE_HANDLER, Ended, Kind, Series, Totals};

/// A minute, counted from 1970.
pub type Minute = i64;

/// Microseconds of a minute.
pub const MINUTE_US: i64 = 60_000_000;

/// Totals of one kind of work in one minute.
#[derive(Debug, Clone, PartialEq)]
pub struct MinuteTotals {
    /// Which minute.
    pub minute: Minute,
    /// Of what.
    pub series: Series,
    /// How much.
    pub totals: Totals,
}

/// A count as a number to reckon with, exact up to 2^53.
pub(crate) fn float(count: u64) -> f64 {
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}
