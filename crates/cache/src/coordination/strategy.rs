//! Which protocol fits a backend.

use std::fmt;

use serde::Serialize;

use crate::provider::{Capabilities, Capability, CapabilityRow, Known};

/// How a fleet coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The server adds; its clock ends locks.
    DistributedAtomic,
    /// Records with a part for each instance, merged by compare and swap.
    DistributedBasic,
    /// In this process only: each process counts and locks for itself.
    LocalOnly,
}

impl Strategy {
    /// As it is shown: `distributed_atomic`.
    pub fn name(self) -> &'static str {
        match self {
            Self::DistributedAtomic => "distributed_atomic",
            Self::DistributedBasic => "distributed_basic",
            Self::LocalOnly => "local_only",
        }
    }

    /// The strongest that the capabilities allow. `has_atomics`: the provider can be asked to change values at all.
    pub fn choose(provider: &'static str, capabilities: &Capabilities, has_atomics: bool) -> Explanation {
        let has = |capability| capabilities.has(capability);
        let (strategy, why) = if !has(Capability::Shared) {
            (
                Self::LocalOnly,
                "its entries are not shared between processes: each counts and locks for itself",
            )
        } else if !has_atomics {
            (
                Self::LocalOnly,
                "values in it cannot be changed by many at once: each process counts and locks for itself",
            )
        } else if !has(Capability::CompareAndSwap) {
            (Self::LocalOnly, "it has no compare and swap: each process counts and locks for itself")
        } else if has(Capability::AtomicIncrement) {
            (Self::DistributedAtomic, "it is shared, adds atomically and has compare and swap")
        } else {
            (Self::DistributedBasic, "it is shared and has compare and swap, but does not add atomically")
        };
        let considered = [Capability::Shared, Capability::CompareAndSwap, Capability::AtomicIncrement];
        let from = capabilities.rows().filter(|row| considered.contains(&row.capability)).collect();
        Explanation { strategy, provider, why, from }
    }
}

/// Which strategy is used, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// Which.
    pub strategy: Strategy,
    /// Name of the provider that it was chosen for.
    pub provider: &'static str,
    /// Why, in words.
    pub why: &'static str,
    /// What it was chosen from, and how that is known.
    pub from: Vec<CapabilityRow>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}: {}", self.strategy.name(), self.provider, self.why)?;
        for CapabilityRow { capability, value, source } in &self.from {
            let value: &Known = value;
            write!(f, "; {} {value} ({source:?})", capability.name())?;
        }
        Ok(())
    }
}
