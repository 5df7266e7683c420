//! Views in an operator's hands: stopped and let go, taken back to what they were, compared, removed.

use std::fmt::Debug;

use async_trait::async_trait;
use recache_model::ids::{JobId, ViewId};
use recache_model::time::Timestamp;

use crate::chains::ViewName;
use crate::error::Result;
use crate::queues::Word;
use crate::records::JobRecord;

/// That no build of a view begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewPause {
    /// Since when.
    pub at: Timestamp,
    /// Who, and why.
    pub word: Word,
}

/// What taking a view back did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The view.
    pub view: ViewId,
    /// The version under which readers see the older content.
    pub version: i64,
    /// Items whose value is another one than before.
    pub items_changed: u64,
    /// Items that are gone.
    pub items_removed: u64,
    /// The build job that it ended.
    pub superseded: Option<JobId>,
}

/// Where a generation that no build made has its content from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restoration {
    /// The generation whose content it has.
    pub from: i64,
    /// Who, and why.
    pub word: Word,
}

/// In what two generations differ at one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemChange {
    /// Only the second has it.
    Added,
    /// Both have it, with different values.
    Changed,
    /// Only the first has it.
    Removed,
}

/// What operators do with views, and look at before they do it.
#[async_trait]
pub trait ViewControl: Send + Sync + Debug {
    /// No build of it begins any more; one that has begun goes on to its end. False when it was paused before, which stays as it is.
    async fn view_pause(&self, view: ViewName, word: Word) -> Result<bool>;

    /// Its builds begin again. False when it was not paused.
    async fn view_resume(&self, view: ViewName) -> Result<bool>;

    /// Makes the content of an older generation live again, as a new version, and pauses the view: its next build would undo it. The
    /// build that runs is superseded. The views made from it are touched. The items that differ count as touched, so that the build after
    /// the pause makes them anew. A conflict when that generation is no longer kept, or is the live one.
    async fn view_restore(&self, view: ViewName, version: i64, word: Word) -> Result<Restored>;

    /// Items at which two generations differ, by key, those after `after`. `None` when one of them is no longer kept.
    async fn generations_diff(
        &self,
        view: ViewId,
        from: i64,
        to: i64,
        after: Option<String>,
        rows_max: u32,
    ) -> Result<Option<Vec<(String, ItemChange)>>>;

    /// Its build jobs, newest first, those older than `before`.
    async fn view_builds(&self, view: ViewId, before: Option<JobId>, rows_max: u32)
    -> Result<Vec<JobRecord>>;

    /// Of these builds, how many items that each of them made were taken over by the generation that was published after it; those of which nothing was are left
    /// out.
    async fn builds_used(&self, view: ViewId, builds: Vec<JobId>) -> Result<Vec<(JobId, i64)>>;

    /// Removes a view: nobody finds it from now on, its build is cancelled, and its name is free. What it held is removed by
    /// [`views_remove_deleted`](Self::views_remove_deleted). A conflict while other views are made from it.
    async fn view_delete(&self, view: ViewName, word: Word) -> Result<()>;

    /// Removes what deleted views held, at most `rows_max` rows. Answers how many.
    async fn views_remove_deleted(&self, rows_max: u32) -> Result<u64>;
}
