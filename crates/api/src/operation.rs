//! What the operator's commands answer: migrations and diagnoses.

use serde::{Deserialize, Serialize};

/// The database's schema after a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Migration {
    /// [`Migration::SCHEMA`]
    pub schema: String,
    /// Which database, without its password.
    pub database: String,
    /// The version of the tables that it has now.
    pub schema_version: i64,
}

impl Migration {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.migration.v1";

    /// A database at a version.
    pub fn new(database: String, schema_version: i64) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), database, schema_version }
    }
}

/// How a check came out. The order is that of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Works, and deserves a look; or could not be checked.
    Warn,
    /// Does not work.
    Fail,
}

/// One check of a diagnosis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Check {
    /// A stable word: `configuration`, `database`, `schema`, `writable`, `disk`, `clock`.
    pub name: String,
    /// How it came out.
    pub status: CheckStatus,
    /// What was found.
    pub message: String,
    /// Where.
    pub place: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// What `recache doctor` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Diagnosis {
    /// [`Diagnosis::SCHEMA`]
    pub schema: String,
    /// The worst of the checks.
    pub status: CheckStatus,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.diagnosis.v1";

    /// A diagnosis is as bad as the worst of its checks.
    pub fn new(checks: Vec<Check>) -> Self {
        let status = checks.iter().map(|check| check.status).max().unwrap_or(CheckStatus::Ok);
        Self { schema: Self::SCHEMA.to_owned(), status, checks }
    }
}
