//! What keeps the tables small and true: asked for by whichever process leads it.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use recache_model::ids::WorkflowId;
use recache_model::job::JobState;
use recache_model::time::Timestamp;
use recache_model::workflow::{StepCounts, WorkflowState};
use uuid::Uuid;

use crate::error::Result;

/// A process's right to lead a kind of work. It is good until another process has taken it, which the token shows: work that
/// comes late with an old one changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// Of what.
    pub role: String,
    /// The process.
    pub holder: Uuid,
    /// Rises whenever the lead changes hands.
    pub token: i64,
}

/// Who leads a kind of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// What its process calls itself; `None` where it did not say.
    pub node: Option<String>,
    /// Since when it leads; `None` where it did not say.
    pub since: Option<Timestamp>,
    /// When its lead ends unless it keeps it.
    pub expires_at: Timestamp,
}

/// Sessions of workers, counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionsSeen {
    /// Those of processes at the database.
    pub nodes: u64,
    /// When the one of them was heard of that was not heard of for longest.
    pub nodes_heard: Option<Timestamp>,
    /// Those of remote workers.
    pub remote: u64,
    /// The same of them.
    pub remote_heard: Option<Timestamp>,
    /// Those whose time is over, and that no process has swept yet; they count above too.
    pub overdue: u64,
}

/// A workflow whose kept counts are not those of its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountDifference {
    /// Which one.
    pub workflow: WorkflowId,
    /// What its row says.
    pub kept: StepCounts,
    /// What its steps say.
    pub counted: StepCounts,
}

/// What a comparison of counts found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compared {
    /// Workflows that were looked at.
    pub workflows: u64,
    /// Where to go on; `None` at the end.
    pub last: Option<WorkflowId>,
    /// What was found.
    pub differences: Vec<CountDifference>,
}

/// How the history of jobs is kept where it is kept by days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryRule {
    /// How long most of what has ended is kept: after that a day goes as a whole, and what is left of it is carried over.
    pub keep: Duration,
    /// Jobs whose history one call looks at, where too much of a day is left to be carried over.
    pub rows_max: u32,
}

/// What tending the days of history came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryTended {
    /// Days, and other spans of time, that now have a part of their own.
    pub parts: u64,
    /// The size of what lies in none of them.
    pub outside_bytes: u64,
    /// Days that were made.
    pub made: u64,
    /// Days that went as a whole.
    pub dropped: u64,
    /// Rows of jobs that are left, of days that went.
    pub carried: u64,
    /// Rows of jobs that are gone, removed from a day that stays.
    pub swept: u64,
    /// There may be more to do.
    pub has_more: bool,
    /// What could not be done now, in the database's words. It is to be tried again later.
    pub held_up: Option<String>,
}

/// What a look at limits of time came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitsJudged {
    /// Steps and workflows that were looked at. As many as asked for: there may be more.
    pub looked_at: u64,
    /// Limits that had passed.
    pub passed: u64,
    /// Steps that failed by it.
    pub failed: u64,
    /// Attempts that were taken away because they kept no checkpoint.
    pub stalled: u64,
    /// Dead letters that were written.
    pub letters: u64,
}

/// Work that no user asked for. Every call is bounded by `rows_max`, so that none holds locks for long, and refused as a
/// conflict when its leadership has been taken by another process.
#[async_trait]
pub trait Maintenance: Send + Sync + Debug {
    /// Takes or keeps the lead for `lease` from now; `None` while another process has it.
    async fn leader_take(&self, role: &str, holder: Uuid, lease: Duration) -> Result<Option<Leadership>>;

    /// Says for people who leads and since when: the process of this name, since now.
    async fn leader_say(&self, leadership: &Leadership, node: &str) -> Result<()>;

    /// Who leads; `None` when nobody does.
    async fn leader_find(&self, role: &str) -> Result<Option<Leader>>;

    /// How many sessions there are, and how long they have been silent.
    async fn sessions_seen(&self) -> Result<SessionsSeen>;

    /// Gives the lead up, so that another process need not wait for its end.
    async fn leader_release(&self, leadership: &Leadership) -> Result<()>;

    /// Forgets idempotency keys of submits and of requests whose time is over, and old rows of the audit. Answers how many.
    async fn idempotency_keys_expire(&self, leadership: &Leadership, rows_max: u32) -> Result<u64>;

    /// Forgets keys of rates by which no step has begun for longer than any period. Answers how many.
    async fn step_rates_expire(&self, leadership: &Leadership, rows_max: u32) -> Result<u64>;

    /// Judges limits of time (`lifecycle`, `checkpoint_stall_minutes`) that may have passed: at most `rows_max` steps and
    /// workflows, the longest due first. Each limit is found once; an operator who has a step run again begins anew.
    async fn lifecycles_judge(&self, leadership: &Leadership, rows_max: u32) -> Result<LimitsJudged>;

    /// Removes jobs that are no steps and ended in `state` at least `keep` ago, with their history. Failed ones whose dead letter is
    /// open stay. Answers how many.
    async fn jobs_remove(
        &self,
        leadership: &Leadership,
        state: JobState,
        keep: Duration,
        rows_max: u32,
    ) -> Result<u64>;

    /// Removes workflows that ended in `state` at least `keep` ago, with their steps. One with an open dead letter stays. Answers
    /// how many.
    async fn workflows_remove(
        &self,
        leadership: &Leadership,
        state: WorkflowState,
        keep: Duration,
        rows_max: u32,
    ) -> Result<u64>;

    /// Removes dead letters that were dealt with at least `keep` ago. Answers how many.
    async fn letters_remove(&self, leadership: &Leadership, keep: Duration, rows_max: u32) -> Result<u64>;

    /// Where the history of jobs is kept by days: makes the next days, and removes one whose time is over. Waits for nobody. Does nothing
    /// where history is one table.
    async fn history_tend(&self, leadership: &Leadership, rule: HistoryRule) -> Result<HistoryTended>;

    /// Has the database look at tables that have grown and that it has never looked at: until then it plans for empty ones, which
    /// on PostgreSQL lasts for about a minute on a fresh database. Answers how many it looked at.
    async fn statistics_refresh(&self, leadership: &Leadership) -> Result<u64>;

    /// Compares the counts that workflows keep with the rows of their steps. Changes nothing.
    async fn counts_compare(&self, after: Option<WorkflowId>, rows_max: u32) -> Result<Compared>;
}
