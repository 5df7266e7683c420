//! Which events a subscriber asks for.

use super::super::batch::BatchMoment;
use super::super::unique::key_problem;

/// Types that one subscriber may ask for.
pub const TYPES_MAX: usize = 50;
/// With what the names of state changes begin; a template's events have other names.
pub const NAMES_RESERVED: [&str; 4] = ["job.", "workflow.", "view.", "batch."];

/// What is told of every batch, each once in its life: all its members have ended and none badly; all have ended; the first has failed.
/// They are few, and always written.
pub const BATCH_EVENTS: [&str; 3] =
    [BatchMoment::Success.event(), BatchMoment::Finish.event(), BatchMoment::FirstFailure.event()];

/// The state changes that can be asked for. They are written only while somebody does.
pub const STATE_CHANGES: [&str; 14] = [
    "job.queued",
    "job.running",
    "job.completed",
    "job.failed",
    "job.cancelled",
    "job.superseded",
    "job.skipped",
    "job.resolved",
    "workflow.completed",
    "workflow.failed",
    "workflow.cancelled",
    "view.touched",
    "view.published",
    "view.failed",
];

/// Whether a name belongs to state changes.
pub fn is_reserved(name: &str) -> bool {
    NAMES_RESERVED.iter().any(|reserved| name.starts_with(reserved))
}

/// Which events a subscriber is told: types, each a whole name, or `order.*` for all that begin with `order.`, or `*`
/// for every event of a template; and of which namespace. State changes are never meant by `*`: there are many, so they are asked
/// for by name, or by `job.*`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// At least one.
    pub types: Vec<String>,
    /// Only of this namespace.
    pub namespace: Option<String>,
}

/// Why a filter cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FilterProblem(String);

impl EventFilter {
    /// Events of these types, of any namespace.
    pub fn of<T: Into<String>>(types: impl IntoIterator<Item = T>) -> Self {
        Self { types: types.into_iter().map(Into::into).collect(), namespace: None }
    }

    /// Refuses what can never match, with every reason.
    pub fn check(&self) -> Result<(), FilterProblem> {
        let mut problems = Vec::new();
        if self.types.is_empty() || self.types.len() > TYPES_MAX {
            problems.push(format!("1 to {TYPES_MAX} types of events are needed, not {}", self.types.len()));
        }
        for pattern in &self.types {
            if let Some(problem) = key_problem("type of events", pattern) {
                problems.push(problem);
            } else if let Some(problem) = pattern_problem(pattern) {
                problems.push(problem);
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(FilterProblem(problems.join("; "))) }
    }

    /// Whether an event is meant.
    pub fn matches(&self, namespace: &str, name: &str) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
            && self.types.iter().any(|pattern| pattern_matches(pattern, name))
    }
}

/// The state changes that these patterns mean.
pub fn state_changes_of<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Vec<&'static str> {
    let patterns: Vec<&str> = patterns.into_iter().collect();
    STATE_CHANGES
        .into_iter()
        .filter(|name| patterns.iter().any(|pattern| pattern_matches(pattern, name)))
        .collect()
}

fn pattern_problem(pattern: &str) -> Option<String> {
    let stars = pattern.matches('*').count();
    if stars > 0 && pattern != "*" && (stars > 1 || !pattern.ends_with(".*") || pattern == ".*") {
        return Some(format!(
            "`{pattern}` is no type of events: `*` stands alone, or at the end after a dot"
        ));
    }
    let means_nothing = is_reserved(pattern)
        && state_changes_of([pattern]).is_empty()
        && !BATCH_EVENTS.iter().any(|name| pattern_matches(pattern, name));
    means_nothing.then(|| {
        format!(
            "`{pattern}` is no state change: there are {}, {}",
            STATE_CHANGES.join(", "),
            BATCH_EVENTS.join(", ")
        )
    })
}

fn pattern_matches(pattern: &str, name: &str) -> bool {
    if pattern == "*" {
        return !is_reserved(name);
    }
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_say() {
        for (pattern, name, expected) in [
            ("order.placed", "order.placed", true),
            ("order.placed", "order.placed.late", false),
            ("order.*", "order.placed", true),
            ("order.*", "orders.placed", false),
            ("order.*", "order", false),
            ("*", "order.placed", true),
            ("*", "job.failed", false),
            ("job.*", "job.failed", true),
            ("batch.*", "batch.finish", true),
            ("*", "batch.finish", false),
        ] {
            assert_eq!(EventFilter::of([pattern]).matches("n", name), expected, "{pattern} {name}");
        }
        let of_shop = EventFilter { namespace: Some("shop".to_owned()), ..EventFilter::of(["*"]) };
        assert!(of_shop.matches("shop", "e") && !of_shop.matches("bank", "e"));
    }

    #[test]
    fn what_can_never_match_is_refused_with_every_reason() {
        let why = EventFilter::of(["a*", "job.done", "", "ok"]).check().unwrap_err().to_string();
        assert!(why.contains("`a*`") && why.contains("`job.done`") && why.contains("job.completed"), "{why}");
        assert!(EventFilter::of(Vec::<String>::new()).check().is_err());
        assert!(EventFilter::of(["**"]).check().is_err() && EventFilter::of([".*"]).check().is_err());
        assert_eq!(EventFilter::of(["*", "a.*", "job.*", "view.failed"]).check(), Ok(()));
    }

    #[test]
    fn state_changes_are_asked_for_by_name() {
        assert_eq!(
            state_changes_of(["view.*", "job.failed", "*"]),
            ["job.failed", "view.touched", "view.published", "view.failed"]
        );
        assert!(STATE_CHANGES.iter().chain(&BATCH_EVENTS).all(|name| is_reserved(name)));
        assert!(
            EventFilter::of(BATCH_EVENTS).check().is_ok() && EventFilter::of(["batch.*"]).check().is_ok()
        );
    }
}
