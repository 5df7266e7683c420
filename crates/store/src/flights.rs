//! The example's data: flights, and which carriers belong to which alliance.
//!
//! Tables of an application that happens to live in the same database, so that a change of its data and the
//! touch of the view that depends on it are one transaction. The demonstration and its tests use them; nothing
//! else does.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::error::Result;

/// One flight as it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Two-letter code.
    pub carrier: String,
    /// Three-letter code of the destination.
    pub dest: String,
    /// Minutes late at the gate; `None` where the flight was cancelled or diverted.
    pub arr_delay: Option<i64>,
}

/// How many flights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlightTotals {
    /// Rows.
    pub flights: i64,
}

/// The example's tables.
#[async_trait]
pub trait FlightStore: Send + Sync + Debug {
    /// Creates the tables if they are not there.
    async fn flights_prepare(&self) -> Result<FlightTotals>;

    /// Replaces all flights; all or none.
    async fn flights_load(&self, legs: Vec<Leg>) -> Result<FlightTotals>;

    /// The flights to one destination of these carriers, as (carrier, arrival delay).
    async fn flights_to(&self, dest: &str, carriers: &[String]) -> Result<Vec<(String, Option<i64>)>>;

    /// Which of these carriers serve which destination, in order.
    async fn destinations_served(&self, carriers: &[String]) -> Result<Vec<(String, String)>>;

    /// The members of an alliance, in order.
    async fn alliance_members(&self, alliance: &str) -> Result<Vec<String>>;

    /// A carrier joins or leaves an alliance, and the alliance's view is touched, in one transaction. `number` is the place of the
    /// change in the run's schedule: one that was made already is not made again. The version that the
    /// touch asked for, or `None` if the change was there.
    async fn alliance_change(
        &self,
        alliance: &str,
        carrier: &str,
        joins: bool,
        number: i64,
    ) -> Result<Option<i64>>;

    /// The number of the last change that was made, over all alliances; `None` before the first.
    async fn alliance_last_change(&self) -> Result<Option<i64>>;
}
