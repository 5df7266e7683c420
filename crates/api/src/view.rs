//! Views on the wire.

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::job::Job;
use crate::json::Json;

/// What a view is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ViewStatus {
    /// Never touched.
    Idle,
    /// A newer version is wanted; its build waits or is queued.
    Pending,
    /// A build runs.
    Processing,
    /// The newest version is live.
    Completed,
    /// The newest version could not be built; the last live one is still served.
    Failed,
}

/// What a touch does to a running build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnTouch {
    /// Stop it; build the newer version.
    Abort,
    /// Let it publish, then build again.
    Finish,
    /// Abort, unless at least half of the last build's time has already gone into this one, or readers would be further behind than
    /// `max_staleness_ms` by the time that another build were live.
    Auto,
}

/// When to build, and what to do with a build that a touch overtakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewPolicy {
    /// A build waits until no touch came for this long.
    pub debounce_quiet_ms: u64,
    /// It waits no longer than this after the first touch.
    pub debounce_max_ms: u64,
    /// What a touch does to a running build.
    pub on_touch: OnTouch,
    /// Beyond this much behind, a build is let through although touches keep coming; `null`: never.
    pub max_staleness_ms: Option<u64>,
}

/// How the delay between attempts grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// At once.
    None,
    /// By the base each time.
    Linear,
    /// Twice as long each time.
    Exponential,
    /// As the Fibonacci numbers.
    Fibonacci,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetryPolicy {
    /// Attempts in all.
    pub attempts_max: u32,
    /// How the delay grows.
    pub backoff: Backoff,
    /// The first delay.
    pub base_ms: u64,
    /// No delay is longer.
    pub cap_ms: u64,
    /// The fraction of a delay, 0 to 1, that chance may take away.
    pub jitter: f64,
}

/// That no build of a view begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewPause {
    /// Since when.
    pub at: Instant,
    /// Who paused it.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// A view as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct View {
    /// `view_…`
    pub id: String,
    /// Who it belongs to.
    pub namespace: String,
    /// Its key there.
    pub key: String,
    /// What it is doing.
    pub recache_status: ViewStatus,
    /// The newest version that is wanted: raised by one at every touch.
    pub recache_version: i64,
    /// The version that is being built.
    pub processing_version: Option<i64>,
    /// The version that readers see; 0 before the first publication.
    pub live_version: i64,
    /// How far behind what readers see is; 0 when the newest version is live.
    pub staleness_ms: u64,
    /// The first touch that the live version does not show.
    pub dirty_since: Option<Instant>,
    /// The last touch.
    pub touched_at: Option<Instant>,
    /// Who made it, where that was said.
    pub touched_by: Option<String>,
    /// Why, where that was said.
    pub touch_reason: Option<String>,
    /// `null` while its builds may begin.
    pub pause: Option<ViewPause>,
    /// When the next build is due, if one is to be created.
    pub due_at: Option<Instant>,
    /// When the live version was published.
    pub last_recached_at: Option<Instant>,
    /// How long the last published build took.
    pub last_build_ms: Option<u64>,
    /// Why the newest version could not be built.
    pub last_error: Option<String>,
    /// `job_…`: the live build, queued or running.
    pub build_job_id: Option<String>,
    /// What builds it.
    pub handler: String,
    /// The template of the workflow that builds it; left out where a handler does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The values of its items are kept in the cache only; left out where the store keeps them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cache_only: bool,
    /// So many items of each new generation, the first by key, go into the cache before anybody asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch_first: Option<u32>,
    /// These items of each new generation do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch_items: Option<Vec<String>>,
    /// How long a generation can be read after it was replaced; left out where the process says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_keep_ms: Option<u64>,
    /// How long the worker of a build may be silent before another one gets the build; left out where it is the worker's own lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// Of all views of its pattern so many are built at once; left out where there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Where its builds wait.
    pub queue: String,
    /// When to build and when to give a build up.
    pub policy: ViewPolicy,
    /// What follows a failed build.
    pub retry: RetryPolicy,
    /// How long a build may run; `null`: as long as it likes.
    pub timeout_ms: Option<u64>,
    /// The pattern that it was made from; left out where it was defined by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// What the keys of its items must fit; left out where they need not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_key_schema: Option<Json>,
    /// What their values must fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_value_schema: Option<Json>,
}

/// A definition that covers every view of its namespace whose key matches; the first touch of such a view makes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewPattern {
    /// Who it belongs to.
    pub namespace: String,
    /// `*` stands for any text, all else for itself.
    pub pattern: String,
    /// What builds such a view.
    pub handler: String,
    /// The template of the workflow that builds it; left out where a handler does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The values of its items are kept in the cache only; left out where the store keeps them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cache_only: bool,
    /// So many items of each new generation, the first by key, go into the cache before anybody asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch_first: Option<u32>,
    /// These items of each new generation do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch_items: Option<Vec<String>>,
    /// How long a generation can be read after it was replaced; left out where the process says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_keep_ms: Option<u64>,
    /// How long the worker of a build may be silent before another one gets the build; left out where it is the worker's own lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// Of all views of its pattern so many are built at once; left out where there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Where its builds wait.
    pub queue: String,
    /// When to build and when to give a build up.
    pub policy: ViewPolicy,
    /// What follows a failed build.
    pub retry: RetryPolicy,
    /// How long a build may run; `null`: as long as it likes.
    pub timeout_ms: Option<u64>,
    /// What the keys of its items must fit; left out where they need not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_key_schema: Option<Json>,
    /// What their values must fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_value_schema: Option<Json>,
    /// When it was defined first.
    pub created_at: Instant,
}

/// Patterns of views by namespace and pattern.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewPatternList {
    /// [`ViewPatternList::SCHEMA`]
    pub schema: String,
    /// The page.
    pub patterns: Vec<ViewPattern>,
    /// Where the next page begins. `null` on the last page.
    pub next: Option<String>,
}

impl ViewPatternList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.view-patterns.v1";

    /// A page.
    pub fn new(patterns: Vec<ViewPattern>, next: Option<String>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), patterns, next }
    }
}

/// What was done to the views that a pattern covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewsMatching {
    /// [`ViewsMatching::SCHEMA`]
    pub schema: String,
    /// Who they belong to.
    pub namespace: String,
    /// The pattern.
    pub pattern: String,
    /// How many views were touched, or changed with their pattern.
    pub views: u64,
}

impl ViewsMatching {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.views-matching.v1";

    /// So many.
    pub fn new(namespace: String, pattern: String, views: u64) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), namespace, pattern, views }
    }
}

/// Where a generation that no build made has its content from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Restoration {
    /// The generation whose content it has.
    pub from_version: i64,
    /// Who made it live again.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// A published generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Generation {
    /// Its version.
    pub version: i64,
    /// `job_…`: the build that made it; `null` when it was restored.
    pub job_id: Option<String>,
    /// `null` when a build made it.
    pub restored: Option<Restoration>,
    /// When readers began to see it.
    pub published_at: Instant,
    /// When readers ceased to; `null`: they see it.
    pub replaced_at: Option<Instant>,
    /// Items in it.
    pub items_total: i64,
    /// Items whose value was new.
    pub items_changed: i64,
    /// Items that were gone.
    pub items_removed: i64,
    /// Items that the build computed.
    pub items_computed: i64,
    /// Items that the build took over.
    pub items_reused: i64,
    /// How long the build took.
    pub build_ms: u64,
}

/// One view with its build and its last generations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewDetails {
    /// [`ViewDetails::SCHEMA`]
    pub schema: String,
    /// The view.
    pub view: View,
    /// The live build.
    pub build: Option<Job>,
    /// The last generations, newest first.
    pub generations: Vec<Generation>,
}

impl ViewDetails {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.view.v1";

    /// A view with its build and its last generations.
    pub fn new(view: View, build: Option<Job>, generations: Vec<Generation>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), view, build, generations }
    }
}

/// One item of a generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewItem {
    /// Its key.
    pub item: String,
    /// Its value.
    pub value: Json,
}

/// The items of one generation: the live one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewItems {
    /// [`ViewItems::SCHEMA`]
    pub schema: String,
    /// `view_…`
    pub view_id: String,
    /// Who it belongs to.
    pub namespace: String,
    /// Its key there.
    pub key: String,
    /// The generation; 0 when none was published yet.
    pub version: i64,
    /// The newest version that is wanted.
    pub recache_version: i64,
    /// When the generation was published.
    pub published_at: Option<Instant>,
    /// For how long it has been stale; 0 when it is not.
    pub staleness_ms: u64,
    /// An input is known to have changed since what was read was made: `recache_version` is newer than `version`.
    pub stale: bool,
    /// Ordered by key.
    pub items: Vec<ViewItem>,
}

impl ViewItems {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.view-items.v1";
}

/// One item, with the generation that it was read from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewValue {
    /// [`ViewValue::SCHEMA`]
    pub schema: String,
    /// `view_…`
    pub view_id: String,
    /// Who the view belongs to.
    pub namespace: String,
    /// The view's key there.
    pub key: String,
    /// The item's key.
    pub item: String,
    /// Its value.
    pub value: Json,
    /// The generation.
    pub version: i64,
    /// The newest version that is wanted.
    pub recache_version: i64,
    /// When the generation was published.
    pub published_at: Option<Instant>,
    /// For how long it has been stale; 0 when it is not.
    pub staleness_ms: u64,
    /// An input is known to have changed since what was read was made: `recache_version` is newer than `version`.
    pub stale: bool,
}

impl ViewValue {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.view-value.v1";
}

/// What a touch did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Touched {
    /// [`Touched::SCHEMA`]
    pub schema: String,
    /// `view_…`
    pub view_id: String,
    /// Who the view belongs to.
    pub namespace: String,
    /// The view's key there.
    pub key: String,
    /// The version that the touch asks for: whoever reads it or a newer one sees the change.
    pub recache_version: i64,
    /// `job_…`: the build that the touch ended.
    pub superseded_job_id: Option<String>,
}

impl Touched {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.touch.v1";
}

/// Why a view is behind, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewExplanation {
    /// [`ViewExplanation::SCHEMA`]
    pub schema: String,
    /// Who it belongs to.
    pub namespace: String,
    /// Its key there.
    pub key: String,
    /// What readers see; 0 when none was published yet.
    pub live_version: i64,
    /// The newest version that is wanted.
    pub recache_version: i64,
    /// For how long readers have been behind.
    pub staleness_ms: u64,
    /// The last touch; `null` when there was none.
    pub touched: Option<LastTouch>,
    /// Touches that are committed and that no engine has carried out yet; no more than 1,000 are counted.
    pub touches_waiting: u64,
    /// `nothing`: the newest version is live. `untouched`: there never was a touch. `debounce`: further touches may come. `reconciler`: an engine creates its
    /// build, or carries out touches. `resume`: somebody resumes the view. `queue`: somebody resumes the queue of its builds. `limit`: that queue, or its handler, has as many
    /// jobs running as it may. `worker`: a worker takes its build. `build`: its build ends. `takeover`: its build's worker is dead, and an engine gives the build to
    /// another one. `retry`: its build failed, and is tried again. `touch`: its build failed for good.
    pub waits_for: String,
    /// Until when, where that is known.
    pub until: Option<Instant>,
    /// About when the newest version is live, where nothing but time is in the way and a build was measured before.
    pub expected_at: Option<Instant>,
    /// `job_…`: its build.
    pub build_job_id: Option<String>,
    /// What builds it; `null` where a workflow does.
    pub handler: Option<String>,
    /// Where its builds wait; `null` where a workflow does it.
    pub queue: Option<String>,
    /// The template of the workflow that builds it; `null` where a handler does.
    pub workflow: Option<String>,
    /// Live workers that may have its builds; `null` where a workflow does it: any engine may begin that.
    pub workers: Option<u64>,
    /// The same for people.
    pub reason: String,
    /// The one command that would help, where one would.
    pub remedy: Option<String>,
    /// The views that it is made from: a publication of one of them that changed anything touches it.
    pub derived_from: Vec<String>,
    /// Those of them that are behind themselves, or paused: what they will show is not in it.
    pub behind_above: Vec<ViewBehind>,
    /// The views that are made from it.
    pub feeds: Vec<String>,
}

/// How a view was touched last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LastTouch {
    /// When.
    pub at: Instant,
    /// `call`; `sql`: in a transaction of an application's own; `sources`: what it is made from was said anew; `view`: one of the views that it is made from was published.
    pub by: String,
    /// Which view that was, `namespace/key`.
    pub view: Option<String>,
    /// Who touched it, where that was said.
    pub actor: Option<String>,
    /// Why, where that was said.
    pub reason: Option<String>,
}

/// A view that another one is made from, and whose newest version is not live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewBehind {
    /// `namespace/key`
    pub view: String,
    /// What it is doing.
    pub recache_status: ViewStatus,
    /// No build of it begins.
    pub is_paused: bool,
    /// For how long its readers have been behind.
    pub staleness_ms: u64,
    /// The same for people.
    pub reason: String,
}

impl ViewExplanation {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.view-explanation.v1";
}

/// Views by namespace and key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewList {
    /// [`ViewList::SCHEMA`]
    pub schema: String,
    /// The page.
    pub views: Vec<View>,
    /// Where the next page begins. `null` on the last page.
    pub next: Option<String>,
}

impl ViewList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.views.v1";

    /// A page.
    pub fn new(views: Vec<View>, next: Option<String>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), views, next }
    }
}

/// One build of a view, with what became of its work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewBuild {
    /// Its job: state, version, by which version it was superseded and at what progress.
    pub job: Job,
    /// The first generation that was published after it, when it was superseded and that is still known.
    pub successor_version: Option<i64>,
    /// Items of this build's own making that the successor took over; what came from the generation before does not count.
    pub successor_reused: Option<i64>,
    /// Items that the successor computed.
    pub successor_computed: Option<i64>,
}

/// The builds of a view, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewHistory {
    /// [`ViewHistory::SCHEMA`]
    pub schema: String,
    /// Who it belongs to.
    pub namespace: String,
    /// Its key there.
    pub key: String,
    /// The page.
    pub builds: Vec<ViewBuild>,
    /// Where the next page begins. `null` on the last page.
    pub next: Option<String>,
}

impl ViewHistory {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.view-history.v1";
}

/// In what two generations differ at one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ItemChange {
    /// Only the second has it.
    Added,
    /// Both have it, with different values.
    Changed,
    /// Only the first has it.
    Removed,
}

/// One item at which two generations differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ItemDifference {
    /// Its key.
    pub item: String,
    /// In what.
    pub change: ItemChange,
}

/// In what two generations of a view differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewDiff {
    /// [`ViewDiff::SCHEMA`]
    pub schema: String,
    /// Who it belongs to.
    pub namespace: String,
    /// Its key there.
    pub key: String,
    /// The first.
    pub from_version: i64,
    /// The second.
    pub to_version: i64,
    /// By item.
    pub items: Vec<ItemDifference>,
    /// Where the next page begins. `null` on the last page.
    pub next: Option<String>,
}

impl ViewDiff {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.view-diff.v1";
}

/// What pausing, resuming or deleting a view did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewChange {
    /// [`ViewChange::SCHEMA`]
    pub schema: String,
    /// Who it belongs to.
    pub namespace: String,
    /// Its key there.
    pub key: String,
    /// False when it was so before.
    pub changed: bool,
}

impl ViewChange {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.view-change.v1";

    /// Of this view.
    pub fn new(namespace: String, key: String, changed: bool) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), namespace, key, changed }
    }
}

/// What taking a view back did. It is paused from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewRestored {
    /// [`ViewRestored::SCHEMA`]
    pub schema: String,
    /// `view_…`
    pub view_id: String,
    /// Who it belongs to.
    pub namespace: String,
    /// Its key there.
    pub key: String,
    /// The version under which readers see the older content.
    pub version: i64,
    /// The generation whose content it is.
    pub from_version: i64,
    /// Items whose value is another one than before.
    pub items_changed: u64,
    /// Items that are gone.
    pub items_removed: u64,
    /// `job_…`: the build that it ended.
    pub superseded_job_id: Option<String>,
}

impl ViewRestored {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.view-restored.v1";
}

/// What touching several views did, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TouchedViews {
    /// [`TouchedViews::SCHEMA`]
    pub schema: String,
    /// One for each.
    pub views: Vec<Touched>,
}

impl TouchedViews {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.touches.v1";

    /// Of these.
    pub fn new(views: Vec<Touched>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), views }
    }
}

/// What is said about the generation that items were read from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ItemRead {
    /// [`ItemRead::SCHEMA`]
    pub schema: String,
    /// Who the view belongs to.
    pub namespace: String,
    /// The view's key there.
    pub key: String,
    /// The item's key.
    pub item: String,
    /// Its value.
    pub value: Json,
    /// `view_…`
    pub view_id: String,
    /// The generation.
    pub version: i64,
    /// The newest version that is wanted.
    pub recache_version: i64,
    /// When the generation was published.
    pub published_at: Option<Instant>,
    /// How long ago that was, by the clock of the server.
    pub age_ms: Option<u64>,
    /// For how long it has been stale; 0 when it is not.
    pub staleness_ms: u64,
    /// An input is known to have changed since what was read was made: `recache_version` is newer than `version`.
    pub stale: bool,
}

impl ItemRead {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.item.v1";
}

/// A page of the items of one generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ItemList {
    /// [`ItemList::SCHEMA`]
    pub schema: String,
    /// Who the view belongs to.
    pub namespace: String,
    /// The view's key there.
    pub key: String,
    /// `view_…`
    pub view_id: String,
    /// The generation; 0 when none was published yet. All pages of one list are of the same.
    pub version: i64,
    /// The newest version that is wanted.
    pub recache_version: i64,
    /// When the generation was published.
    pub published_at: Option<Instant>,
    /// How long ago that was, by the clock of the server.
    pub age_ms: Option<u64>,
    /// For how long it has been stale; 0 when it is not. Of a generation that is no longer live, at least since it was replaced.
    pub staleness_ms: u64,
    /// An input is known to have changed since what was read was made: `recache_version` is newer than `version`.
    pub stale: bool,
    /// Ordered by key; those that were asked for by their keys in the order in which they were.
    pub items: Vec<ViewItem>,
    /// Items of the page that are left out, because only the cache kept their values, and has them no more; they are made anew. Left out where
    /// there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
    /// Where the next page begins. `null` on the last page.
    pub next: Option<String>,
}

impl ItemList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.items.v1";
}

/// The views next to one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ViewSources {
    /// [`ViewSources::SCHEMA`]
    pub schema: String,
    /// Those that it is made from, as `namespace/key`.
    pub from: Vec<String>,
    /// False when that was said before.
    pub changed: bool,
}

impl ViewSources {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.view-sources.v1";

    /// Of these.
    pub fn new(from: Vec<String>, changed: bool) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), from, changed }
    }
}
