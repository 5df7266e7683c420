//! Tracked jobs: run by some other system, which reports here. What a report changes, and what it no longer can.
//!
//! States only move forward, and so does progress within a state. A report that comes twice, or after a later one, changes
//! nothing: whoever sent it is answered with what stands. So a message may be delivered as often and in whatever order its
//! way here likes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Where a tracked job stands, as its owner reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrackedState {
    /// Its owner has not begun.
    Queued,
    /// Its owner works on it.
    Processing,
    /// It ended well.
    Completed,
    /// It ended badly, or nothing was heard of it for too long.
    Failed,
    /// Somebody called it off.
    Cancelled,
}

impl TrackedState {
    /// Every state, in the order of a job's life.
    pub const ALL: [Self; 5] =
        [Self::Queued, Self::Processing, Self::Completed, Self::Failed, Self::Cancelled];

    /// Nothing moves it from here.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Processing)
    }

    /// How far in a job's life: no report leads to a smaller one.
    fn rank(self) -> u8 {
        match self {
            Self::Queued => 0,
            Self::Processing => 1,
            Self::Completed | Self::Failed | Self::Cancelled => 2,
        }
    }

    /// The name in the store and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for TrackedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no state of a tracked job: expected queued, processing, completed, failed or cancelled")]
pub struct UnknownTrackedState(String);

impl FromStr for TrackedState {
    type Err = UnknownTrackedState;

    fn from_str(text: &str) -> Result<Self, UnknownTrackedState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownTrackedState(text.to_owned()))
    }
}

/// The code of a job that failed because nothing was heard of it.
pub const STALE: &str = "stale";
/// A job is taken for dead after this long without a word, unless it says otherwise.
pub const STALE_AFTER_DEFAULT: Duration = Duration::from_hours(1);
/// The longest silence that a job may ask for.
pub const STALE_AFTER_MAX: Duration = Duration::from_hours(30 * 24);
/// Longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Longest data or metadata, in bytes.
pub const DATA_BYTES_MAX: usize = 1024 * 1024;
/// Longest action, owner, code or part of a context, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// What is known of a tracked job's course.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    /// Where it stands.
    pub state: TrackedState,
    /// What its owner last said.
    pub message: Option<String>,
    /// A stable word for why it failed.
    pub code: Option<String>,
    /// JSON: what it made, or is making.
    pub data: Option<String>,
    /// 0 to 1.
    pub progress: Option<f64>,
    /// Things done.
    pub items_done: Option<i64>,
    /// Things to do.
    pub items_total: Option<i64>,
}

impl Course {
    /// Of a job that was just created.
    pub fn new() -> Self {
        Self {
            state: TrackedState::Queued,
            message: None,
            code: None,
            data: None,
            progress: None,
            items_done: None,
            items_total: None,
        }
    }
}

impl Default for Course {
    fn default() -> Self {
        Self::new()
    }
}

/// What an owner reports; what it leaves out stays as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Where the job stands.
    pub state: Option<TrackedState>,
    /// For people.
    pub message: Option<String>,
    /// A stable word for why it failed; only with `failed`.
    pub code: Option<String>,
    /// JSON.
    pub data: Option<String>,
    /// 0 to 1. Left out with both totals known, it follows from them.
    pub progress: Option<f64>,
    /// Things done.
    pub items_done: Option<i64>,
    /// Things to do.
    pub items_total: Option<i64>,
}

impl Report {
    /// That it stands there.
    pub fn of(state: TrackedState) -> Self {
        Self { state: Some(state), ..Self::default() }
    }

    /// That it is so far.
    pub fn progress(progress: f64) -> Self {
        Self { progress: Some(progress), ..Self::default() }
    }

    /// What is wrong with it, whatever the job.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(progress) = self.progress
            && !(0.0..=1.0).contains(&progress)
        {
            problems.push(format!("progress is {progress}; it must be from 0 to 1"));
        }
        for (name, count) in [("items_done", self.items_done), ("items_total", self.items_total)] {
            if let Some(count) = count.filter(|count| *count < 0) {
                problems.push(format!("{name} is {count}; it must not be negative"));
            }
        }
        if let (Some(done), Some(total)) = (self.items_done, self.items_total)
            && done > total
        {
            problems.push(format!("items_done is {done}, more than items_total, which is {total}"));
        }
        if self.code.is_some() && self.state != Some(TrackedState::Failed) {
            problems.push("a code says why a job failed: give it with the state `failed`".to_owned());
        }
        problems.extend(self.code.as_deref().and_then(|code| name_problem("code", code)));
        if let Some(message) = &self.message {
            problems.extend(text_problem("message", message, MESSAGE_BYTES_MAX));
        }
        problems.extend(self.data.as_deref().and_then(|data| json_problem("data", data)));
        problems
    }
}

/// What is wrong with a name that must be there.
pub fn name_problem(what: &str, text: &str) -> Option<String> {
    if text.is_empty() {
        return Some(format!("{what} is empty; it must have 1 to {NAME_BYTES_MAX} bytes"));
    }
    text_problem(what, text, NAME_BYTES_MAX)
}

fn text_problem(what: &str, text: &str, bytes_max: usize) -> Option<String> {
    if text.len() > bytes_max {
        return Some(format!("{what} has {} bytes; at most {bytes_max} are kept", text.len()));
    }
    text.contains('\0').then(|| format!("{what} holds a NUL byte, which cannot be stored"))
}

/// What is wrong with a document that is kept for others.
pub fn json_problem(what: &str, text: &str) -> Option<String> {
    text_problem(what, text, DATA_BYTES_MAX).or_else(|| {
        let read = serde_json::from_str::<serde::de::IgnoredAny>(text);
        read.err().map(|error| format!("{what} is not JSON: {error}"))
    })
}

/// What a report leads to. `None`: it is late or repeated, and changes nothing.
///
/// Late is a report of a job that has ended, of an earlier state, or, within one state, of less progress or fewer things done than are
/// known.
pub fn follow(known: &Course, report: &Report) -> Option<Course> {
    let state = report.state.unwrap_or(known.state);
    if known.state.is_terminal() || state.rank() < known.state.rank() {
        return None;
    }
    let items_done = report.items_done.or(known.items_done);
    let items_total = report.items_total.or(known.items_total);
    let next = Course {
        state,
        message: report.message.clone().or_else(|| known.message.clone()),
        code: report.code.clone(),
        data: report.data.clone().or_else(|| known.data.clone()),
        progress: report.progress.or_else(|| part(report, items_done, items_total)).or(known.progress),
        items_done,
        items_total,
    };
    let goes_back = state == known.state
        && (is_less(next.progress, known.progress) || is_less(next.items_done, known.items_done));
    (!goes_back && next != *known).then_some(next)
}

/// Progress by counts, where a report brings one of them and both are known.
fn part(report: &Report, done: Option<i64>, total: Option<i64>) -> Option<f64> {
    report.items_done.or(report.items_total)?;
    let (done, total) = (done?, total.filter(|total| *total > 0)?);
    // In parts of a million, which a float holds exactly.
    let millionths = i128::from(done.min(total)) * 1_000_000 / i128::from(total);
    Some(f64::from(u32::try_from(millionths).ok()?) / 1e6)
}

fn is_less<T: PartialOrd>(next: Option<T>, known: Option<T>) -> bool {
    matches!((next, known), (Some(next), Some(known)) if next < known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(state: TrackedState) -> Course {
        Course { state, ..Course::new() }
    }

    #[test]
    fn states_only_move_forward() {
        for from in TrackedState::ALL {
            for to in TrackedState::ALL {
                let moves = follow(&at(from), &Report::of(to)).is_some();
                let expected = !from.is_terminal() && to > from;
                assert_eq!(moves, expected, "{from} to {to}");
            }
        }
    }

    #[test]
    fn repeated_report_changes_nothing() {
        let report = Report { message: Some("page 2".to_owned()), ..Report::progress(0.25) };
        let next = follow(&at(TrackedState::Processing), &report).unwrap();
        assert_eq!((next.progress, next.message.as_deref()), (Some(0.25), Some("page 2")));
        assert_eq!(follow(&next, &report), None);
    }

    #[test]
    fn late_report_of_less_progress_changes_nothing_not_even_the_message() {
        let known = Course { progress: Some(0.5), items_done: Some(5), ..at(TrackedState::Processing) };
        let late = Report { message: Some("page 2".to_owned()), ..Report::progress(0.25) };
        assert_eq!(follow(&known, &late), None);
        assert_eq!(follow(&known, &Report { items_done: Some(4), ..Report::default() }), None);
        assert!(follow(&known, &Report { message: Some("on it".to_owned()), ..Report::default() }).is_some());
    }

    #[test]
    fn progress_follows_from_totals_unless_it_is_given() {
        let of = |report| follow(&at(TrackedState::Processing), &report).and_then(|next| next.progress);
        let counts = Report { items_done: Some(3), items_total: Some(4), ..Report::default() };
        assert_eq!(of(counts.clone()), Some(0.75));
        assert_eq!(of(Report { progress: Some(0.5), ..counts.clone() }), Some(0.5));
        assert_eq!(of(Report { items_total: Some(0), items_done: Some(0), ..counts }), None);
        let known = Course { items_total: Some(8), ..at(TrackedState::Processing) };
        let next = follow(&known, &Report { items_done: Some(2), ..Report::default() }).unwrap();
        assert_eq!((next.progress, next.items_total), (Some(0.25), Some(8)));
    }

    #[test]
    fn all_problems_of_a_report_are_named_at_once() {
        let report = Report {
            code: Some("x".to_owned()),
            data: Some("{".to_owned()),
            progress: Some(f64::NAN),
            items_done: Some(3),
            items_total: Some(-1),
            message: Some("a\0b".to_owned()),
            ..Report::of(TrackedState::Completed)
        };
        let problems = report.problems().join("; ");
        for word in ["progress", "items_total", "items_done", "code", "data", "message"] {
            assert!(problems.contains(word), "{word} is not in {problems}");
        }
        assert!(Report::of(TrackedState::Failed).problems().is_empty());
    }

    #[test]
    fn state_reads_back_from_its_name() {
        for state in TrackedState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("running".parse::<TrackedState>().is_err());
    }
}
