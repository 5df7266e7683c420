//! Builds that a workflow does.
//!
//! The build job of such a view is the engine's own ([`FLOW`](crate::FLOW)): at its turn it begins the build and submits the workflow, waits
//! without a lease until that has ended, and publishes what its steps have put. So everything that holds for a build job holds here:
//! one a view, superseded by a touch, cancelled with its view. Whatever ends the job ends the workflow in the same transaction, and
//! the tokens of its steps are void from then on.
//!
//! What one step does is a *part* of the build. Its puts go through [`Store::build_put`](crate::Store::build_put) with the step's own token.

use std::collections::HashSet;
use std::fmt::Debug;

use async_trait::async_trait;
use recache_model::ids::{ViewId, WorkflowId};
use recache_model::view_options::BuildWorkflow;
use recache_model::workflow::WorkflowState;

use crate::error::Result;
use crate::records::{LeaseToken, Revoked, TouchedItems};

/// Most items of one [`Keep`].
pub const KEEP_ITEMS_MAX: usize = 10_000;
/// Most items that a build reads of the generation before, in one call.
pub const PREVIOUS_ITEMS_MAX: usize = 1_000;
/// Most bytes of their values.
pub const PREVIOUS_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What is known of a build at its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildSituation {
    /// The view's namespace.
    pub namespace: String,
    /// The workflow that does the build, and where it stands.
    pub running: Option<(WorkflowId, WorkflowState)>,
    /// What the view's definition names now; `None`: a handler builds it.
    pub workflow: Option<BuildWorkflow>,
    /// Where such a handler's build jobs wait, and its name.
    pub queue: String,
    /// See `queue`.
    pub handler: String,
}

/// What a build by workflow, or a part of it, starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartStart {
    /// The view.
    pub view: ViewId,
    /// Its namespace.
    pub namespace: String,
    /// Its key.
    pub key: String,
    /// The version to make.
    pub version: i64,
    /// What readers see now; 0 for nothing.
    pub live_version: i64,
    /// What changed since then.
    pub touched: TouchedItems,
    /// The values of its items are kept in the cache only.
    pub is_held: bool,
}

/// What a step says about items that it does not put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// These stay where they were made from the same inputs (item and fingerprint): live, or made by a build that came to nothing.
    Unchanged(Vec<(String, String)>),
    /// These live items stay, whatever they were made from.
    Live(Vec<String>),
    /// Every live item stays that no step puts or drops.
    Rest,
    /// These go, although the rest stays.
    Dropped(Vec<String>),
}

/// What the steps of a workflow came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gathered {
    /// The version that is made.
    pub version: i64,
    /// Live items that no step put or kept.
    pub removed: Vec<String>,
    /// Items of the new generation.
    pub total: u64,
    /// Of these, whose values were computed.
    pub computed: u64,
    /// And taken over.
    pub reused: u64,
}

/// Sums up: `live` items, items `put` in this build, and of those what was `taken` over; live items that are `kept`.
pub(crate) fn gather(
    version: i64,
    live: Vec<String>,
    put: &HashSet<String>,
    taken: &HashSet<String>,
    kept: &Kept,
) -> Gathered {
    let mut gathered = Gathered { version, ..Gathered::default() };
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let taken = put.iter().filter(|item| taken.contains(*item)).count();
    let mut stay = 0;
    for item in live {
        // What was put counts, whoever else said what about it.
        if put.contains(&item) {
            continue;
        }
        let stays = kept.items.contains(&item) || (kept.rest && !kept.dropped.contains(&item));
        if stays {
            stay += 1;
        } else {
            gathered.removed.push(item);
        }
    }
    gathered.total = count(put.len() + stay);
    gathered.computed = count(put.len() - taken);
    gathered.reused = count(stay + taken);
    gathered
}

/// What steps said about live items.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) items: HashSet<String>,
    pub(crate) rest: bool,
    pub(crate) dropped: HashSet<String>,
}

/// Builds that a workflow does. Every call with a token that is no longer good changes nothing and says why.
#[async_trait]
pub trait BuildWorkflows: Send + Sync + Debug {
    /// What is known of a build at its turn. `token` is the build job's.
    async fn build_situation(
        &self,
        token: LeaseToken,
    ) -> Result<std::result::Result<BuildSituation, Revoked>>;

    /// The build begins: it takes the newest version wanted, as [`build_begin`](crate::Store::build_begin) does. What earlier builds put stays
    /// staged for it.
    async fn build_take_version(&self, token: LeaseToken) -> Result<std::result::Result<PartStart, Revoked>>;

    /// What the steps of the workflow, which has ended, came to. `token` is the build job's.
    async fn build_gather(&self, token: LeaseToken) -> Result<std::result::Result<Gathered, Revoked>>;

    /// A step begins its part; `token` is the step's. What an earlier attempt of it said no longer counts (it stays staged, to be taken
    /// over), unless this one goes on from a checkpoint. A step of a workflow that builds no view, or no longer, is refused as invalid. Safe to repeat.
    async fn part_begin(&self, token: LeaseToken) -> Result<std::result::Result<PartStart, Revoked>>;

    /// Keeps items that the step does not put. Answers for each of them whether it is kept; for the rest one answer.
    async fn part_keep(
        &self,
        token: LeaseToken,
        keep: Keep,
    ) -> Result<std::result::Result<Vec<bool>, Revoked>>;

    /// Values, as JSON, of those of these items that are live while the build goes on; `token` is that of the build job, whatever builds, or
    /// of a step. More than [`PREVIOUS_ITEMS_MAX`] items or [`PREVIOUS_BYTES_MAX`] bytes are refused.
    async fn previous_read(
        &self,
        token: LeaseToken,
        items: Vec<String>,
    ) -> Result<std::result::Result<Vec<(String, String)>, Revoked>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(items: &[&str]) -> HashSet<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn live() -> Vec<String> {
        ["a", "b", "c", "d"].map(str::to_owned).to_vec()
    }

    #[test]
    fn what_no_step_put_or_kept_is_gone() {
        let kept = Kept { items: set(&["b", "x"]), ..Kept::default() };
        let gathered = gather(7, live(), &set(&["a", "new"]), &set(&["new"]), &kept);
        assert_eq!(gathered.removed, ["c", "d"]);
        assert_eq!((gathered.version, gathered.total, gathered.computed, gathered.reused), (7, 3, 1, 2));
    }

    #[test]
    fn the_rest_stays_but_for_what_is_dropped_and_what_was_put_is_there() {
        let kept = Kept { rest: true, dropped: set(&["a", "b"]), ..Kept::default() };
        let gathered = gather(7, live(), &set(&["a"]), &set(&[]), &kept);
        assert_eq!(gathered.removed, ["b"], "`a` was put, whoever dropped it");
        assert_eq!((gathered.total, gathered.computed, gathered.reused), (3, 1, 2));
    }
}
