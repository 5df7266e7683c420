//! What a graph of steps says about time and trouble: the critical path and everybody's slack, how much could run at
//! once and how much did, what failed steps hold up and which to mend first, and when it will be over.
//!
//! Pure, and linear in steps and dependencies: 100,000 steps take some tens of milliseconds (only the count of how many
//! run at once sorts). The graph is [`Graph`]; what is known of each step are its [`StepFacts`].
//!
//! ```
//! use std::time::Duration;
//! use recache_model::analysis::{StepFacts, analyze};
//! use recache_model::template::graph::Graph;
//! use recache_model::time::Timestamp;
//!
//! // 0 before 1 and 2, which both come before 3.
//! let graph = Graph::new(vec![vec![], vec![0], vec![0], vec![1, 2]])?;
//! let facts = [1, 5, 2, 1].map(|s| StepFacts::known(Duration::from_secs(s)));
//! let analysis = analyze(&graph, &facts, Timestamp::default());
//! assert_eq!(analysis.critical_path.steps, [0, 1, 3]);
//! assert_eq!(analysis.critical_path.length, Duration::from_secs(7));
//! assert_eq!(analysis.steps[2].slack, Duration::from_secs(3));
//! # Ok::<(), recache_model::template::graph::Error>(())
//! ```

mod blocked;
mod completion;
mod draw;
mod facts;
mod parallel;
mod schedule;

use std::time::Duration;

pub use blocked::{Blocked, CHAIN_STEPS_MAX, ROOT_CAUSES_MAX, RootCause};
pub use completion::{CONFIDENCE, Completion, NoCompletion};
pub use draw::{DRAWN_LINES_MAX, DRAWN_STEPS_MAX, Drawing, TooLarge, check_size, mermaid, svg, text};
pub use facts::{Spread, StepFacts, StepHistory};
pub use parallel::Parallelism;
pub use schedule::{Basis, CriticalPath, Measure, StepPlan};

use crate::job::JobState;
use crate::template::graph::{Graph, StepIndex};
use crate::time::Timestamp;

/// All that is said of a graph of steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// How many dependencies there are.
    pub edges: usize,
    /// Steps that depend on nothing.
    pub roots: Vec<StepIndex>,
    /// Steps on which nothing depends.
    pub leaves: Vec<StepIndex>,
    /// What lengths are made of.
    pub measure: Measure,
    /// Every step's place in time, by its number.
    pub steps: Vec<StepPlan>,
    /// The longest way through.
    pub critical_path: CriticalPath,
    /// How much runs at once.
    pub parallelism: Parallelism,
    /// What is held up, and by what.
    pub blocked: Blocked,
    /// Steps that run again, or shall.
    pub retries: Vec<Retry>,
    /// When it will be over, or why nobody can say.
    pub completion: Result<Completion, NoCompletion>,
}

/// A step that is not at its first attempt any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Which one.
    pub step: StepIndex,
    /// Attempts made.
    pub attempt: u32,
    /// Attempts allowed.
    pub attempts_max: u32,
    /// Until its next attempt; `None` when it runs, or has ended.
    pub due_in: Option<Duration>,
}

/// Analyses a graph at the instant `now`. A step for which `facts` has no entry is one of which nothing is known.
pub fn analyze(graph: &Graph, facts: &[StepFacts], now: Timestamp) -> Analysis {
    let mut facts = facts.to_vec();
    facts.resize(graph.len(), StepFacts::default());
    let planned = schedule::plan(graph, &facts, now);
    let parallelism = parallel::parallelism(graph, &facts, &planned, now);
    let blocked = blocked::blocked(graph, &facts, &planned.steps);
    let completion = completion::completion(graph, &facts, &planned, now);
    Analysis {
        edges: (0..graph.len()).map(|step| graph.dependencies(step).len()).sum(),
        roots: graph.roots().collect(),
        leaves: graph.leaves().collect(),
        measure: planned.measure,
        retries: facts
            .iter()
            .enumerate()
            .filter(|(_, step)| is_retry(step))
            .map(|(step, known)| Retry {
                step,
                attempt: known.attempt,
                attempts_max: known.attempts_max,
                due_in: (known.state == Some(JobState::Queued))
                    .then(|| known.due_at.map_or(Duration::ZERO, |due| due.since(now))),
            })
            .collect(),
        steps: planned.steps,
        critical_path: planned.critical_path,
        parallelism,
        blocked,
        completion,
    }
}

/// An attempt failed before: it runs a second time, or waits for it, or all were in vain.
fn is_retry(step: &StepFacts) -> bool {
    match step.state {
        Some(JobState::Queued) => step.attempt >= 1,
        Some(_) => step.attempt >= 2,
        None => false,
    }
}
