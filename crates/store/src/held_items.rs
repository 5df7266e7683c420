//! Items whose values are kept in the cache only.
//!
//! The store has item, fingerprint and, in place of the value, what stands for it: its digest ([`held_value`](recache_model::held_value)). So
//! versions, history, differences and early cutoff are as durable and exact as for any other view; only values can be lost, and then the store
//! is told here, so that the view makes them anew.

use std::fmt::Debug;

use async_trait::async_trait;
use recache_model::ids::ViewId;

use crate::chains::ViewName;
use crate::error::Result;
use crate::records::{LeaseToken, Revoked, StagedItem};

/// Most items of one call.
pub const HELD_ITEMS_MAX: usize = 1_000;

/// A view whose values are kept in the cache only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldView {
    /// Which.
    pub view: ViewId,
    /// What it is called.
    pub name: ViewName,
}

/// An item without its value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeldItem {
    /// Its key.
    pub item: String,
    /// What stands for its value.
    pub stands: String,
}

/// Which items of a view are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldPlace {
    /// Those of the live generation, but for those that are known to be gone.
    Live,
    /// Those of this generation.
    Version(i64),
    /// Those that superseded or failed builds have put.
    Staged,
}

/// The digest under which two values of items are the same value.
pub fn item_digest(value: &str) -> String {
    blake3::hash(value.as_bytes()).to_hex().to_string()
}

/// Items whose values are kept in the cache only. Calls that name items take at most [`HELD_ITEMS_MAX`] of them.
#[async_trait]
pub trait HeldItems: Send + Sync + Debug {
    /// The view that `token` builds, or builds a part of, if the values of its items are kept in the cache only.
    async fn build_holds(&self, token: LeaseToken) -> Result<Option<HeldView>>;

    /// As [`build_put`](crate::Store::build_put), of values that are in the cache already: they are judged as any other, and what stands for them
    /// is kept. A view whose values the store keeps is a conflict.
    async fn build_put_held(&self, token: LeaseToken, items: Vec<StagedItem>) -> Result<Option<Revoked>>;

    /// Items after `after`, by key; only those whose values are not in the store.
    async fn held_page(
        &self,
        view: ViewId,
        place: HeldPlace,
        after: Option<String>,
        rows_max: u32,
    ) -> Result<Vec<HeldItem>>;

    /// The values of these staged items are gone: they are staged no longer. Not to be called while a build of the view puts items.
    async fn staged_gone(&self, view: ViewId, items: Vec<HeldItem>) -> Result<u64>;

    /// The values of these live items are gone, as far as they are still what stands there: nobody takes them over any more, and they count as
    /// touched in the version that is built. Answers how many.
    async fn items_gone(&self, view: ViewId, items: Vec<HeldItem>) -> Result<u64>;

    /// The same, told by a reader: the view is touched for those for which it was not touched since its live version. Answers the version
    /// that is wanted then; `None`: nothing was to be done. Safe to repeat.
    async fn items_lost(&self, view: ViewName, items: Vec<HeldItem>) -> Result<Option<i64>>;
}
