//! Definitions of many views at once, and touches of many.

use std::fmt::Debug;

use async_trait::async_trait;
use recache_model::time::Timestamp;

use crate::error::Result;
use crate::queues::Word;
use crate::records::NewView;

/// A definition that covers every view of its namespace whose key matches.
#[derive(Debug, Clone, PartialEq)]
pub struct PatternRecord {
    /// What such a view is like; its key is the pattern.
    pub definition: NewView,
    /// When it was defined first.
    pub created_at: Timestamp,
}

/// What a step of touching by pattern did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TouchedMatching {
    /// Views that were touched.
    pub touched: u64,
    /// Where to go on; `None` when all were touched that match.
    pub next: Option<String>,
}

/// Views by pattern. In a pattern `*` stands for any text and all else for itself; keys of views hold no `*`.
#[async_trait]
pub trait ViewPatterns: Send + Sync + Debug {
    /// Creates a pattern or changes it, and with it every view that was made from it; `pattern.key` is the pattern. A view whose key it
    /// covers is made by its first touch. Of several patterns that cover a key, the one with most letters of its own is meant. Answers
    /// how many views were changed.
    async fn pattern_define(&self, pattern: NewView) -> Result<u64>;

    /// Patterns by namespace and pattern, those after `after`.
    async fn patterns_list(
        &self,
        namespace: Option<&str>,
        after: Option<(String, String)>,
        rows_max: u32,
    ) -> Result<Vec<PatternRecord>>;

    /// Removes a pattern. The views that were made from it stay as they are, each defined by its own name from then on.
    async fn pattern_delete(&self, namespace: &str, pattern: &str) -> Result<()>;

    /// Touches the views that are there and whose keys the pattern covers, at most `rows_max` of those after `after`, in one transaction.
    /// Call again with the answer's `next` until that is `None`.
    async fn views_touch_matching(
        &self,
        namespace: &str,
        pattern: &str,
        items: Vec<String>,
        word: Option<Word>,
        after: Option<String>,
        rows_max: u32,
    ) -> Result<TouchedMatching>;
}
