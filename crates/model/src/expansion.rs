//! What becomes of the steps behind a decision, once it is made.
//!
//! Steps that have a decision among those before them do not exist until all these decisions are made or skipped: then
//! each of them is created or skipped. Whoever makes the last decision settles the fate of all that it was the last one for, in the
//! transaction in which it ends.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use crate::job::JobState;
use crate::workflow::StepKind;

/// A step that decisions stand before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Its name.
    pub name: String,
    /// What it is to the others.
    pub kind: StepKind,
    /// The steps that it depends on.
    pub dependencies: Vec<String>,
    /// All decisions before it, near and far.
    pub decisions: Vec<String>,
}

/// What is known of the steps that exist.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Where each step stands.
    pub states: HashMap<String, JobState>,
    /// What each decision that is made has chosen.
    pub choices: HashMap<String, BTreeSet<String>>,
}

/// What becomes of a step now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It exists already, or a decision before it is still to be made.
    Open,
    /// It is created. Where a dependency was skipped already, what becomes of it is decided when the others have ended, as for
    /// any step: so the end does not depend on which was first.
    Created {
        /// Dependencies that have not ended well yet.
        waiting_on: usize,
        /// Dependencies that were skipped.
        skips: usize,
    },
    /// It is not needed.
    Skipped {
        /// Why, for people.
        reason: String,
    },
}

/// Decides about each step of `region`, which is in topological order. `decided` ends in the same transaction and counts
/// as one that is still waited for; `choice` is what it chose, `None` when it is skipped itself.
pub fn fates(
    region: &[Outline],
    known: &Known,
    decided: &str,
    choice: Option<&BTreeSet<String>>,
) -> Vec<Fate> {
    let mut found: HashMap<&str, Fate> = HashMap::with_capacity(region.len());
    for step in region {
        let fate = if known.states.contains_key(&step.name) {
            Fate::Open
        } else {
            fate(step, known, decided, choice, &found)
        };
        found.insert(&step.name, fate);
    }
    region.iter().map(|step| found.remove(step.name.as_str()).unwrap_or(Fate::Open)).collect()
}

/// How a dependency stands, for a step that is about to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Waited,
    Done,
    Skipped,
}

fn fate(
    step: &Outline,
    known: &Known,
    decided: &str,
    choice: Option<&BTreeSet<String>>,
    found: &HashMap<&str, Fate>,
) -> Fate {
    let is_made = |decision: &String| {
        decision == decided
            || known.choices.contains_key(decision)
            || known.states.get(decision) == Some(&JobState::Skipped)
            || matches!(found.get(decision.as_str()), Some(Fate::Skipped { .. }))
    };
    if !step.decisions.iter().all(is_made) {
        return Fate::Open;
    }
    let standing = |name: &String| {
        if name == decided {
            // Its end, whichever it is, is told to its dependents after they were created.
            return Standing::Waited;
        }
        match (found.get(name.as_str()), known.states.get(name)) {
            (Some(Fate::Skipped { .. }), _) | (_, Some(JobState::Skipped)) => Standing::Skipped,
            (_, Some(JobState::Completed | JobState::Resolved)) => Standing::Done,
            _ => Standing::Waited,
        }
    };
    if step.kind != StepKind::Convergence {
        for name in &step.dependencies {
            let chosen = if name == decided { choice } else { known.choices.get(name) };
            let is_made = if name == decided { choice.is_some() } else { known.choices.contains_key(name) };
            if is_made && !chosen.is_some_and(|chosen| chosen.contains(&step.name)) {
                return Fate::Skipped { reason: format!("the decision `{name}` did not choose it") };
            }
        }
    }
    let standings = || step.dependencies.iter().map(|name| (name, standing(name)));
    let waiting_on = standings().filter(|(_, standing)| *standing == Standing::Waited).count();
    let skips = standings().filter(|(_, standing)| *standing == Standing::Skipped).count();
    if waiting_on == 0 && step.kind == StepKind::Convergence && skips == step.dependencies.len() {
        return Fate::Skipped { reason: NOTHING_GATHERED.to_owned() };
    }
    let first = standings().find(|(_, standing)| *standing == Standing::Skipped);
    if let (0, Some((name, _)), true) = (waiting_on, first, step.kind != StepKind::Convergence) {
        return Fate::Skipped { reason: skipped_with(name) };
    }
    Fate::Created { waiting_on, skips }
}

/// What a decision chose, from its stored result, which was checked when it ended
/// ([`decision_names`](crate::template::decision_names)).
pub fn choice_of(result: &str) -> BTreeSet<String> {
    let value = serde_json::from_str(result).unwrap_or(Value::Null);
    let list = match &value {
        Value::Object(fields) => fields.get("steps"),
        other => Some(other),
    };
    let names = list.and_then(Value::as_array).into_iter().flatten();
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Why a convergence is skipped.
pub const NOTHING_GATHERED: &str = "all steps that it gathers were skipped";

/// Why a step is skipped whose dependency was.
pub fn skipped_with(dependency: &str) -> String {
    format!("`{dependency}`, on which it depends, was skipped")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, kind: StepKind, dependencies: &[&str], decisions: &[&str]) -> Outline {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Outline {
            name: name.to_owned(),
            kind,
            dependencies: owned(dependencies),
            decisions: owned(decisions),
        }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// d chooses a or b; a2 follows a; both ends meet in c; z follows b and needs all.
    fn region() -> Vec<Outline> {
        vec![
            step("a", StepKind::Plain, &["d"], &["d"]),
            step("b", StepKind::Plain, &["d"], &["d"]),
            step("a2", StepKind::Plain, &["a"], &["d"]),
            step("c", StepKind::Convergence, &["a2", "b"], &["d"]),
            step("z", StepKind::Plain, &["c", "b"], &["d"]),
        ]
    }

    fn shown(fates: Vec<Fate>) -> Vec<String> {
        let line = |fate| match fate {
            Fate::Open => "open".to_owned(),
            Fate::Created { waiting_on, .. } => format!("waits {waiting_on}"),
            Fate::Skipped { reason } => reason,
        };
        fates.into_iter().map(line).collect()
    }

    #[test]
    fn what_is_chosen_is_created_with_what_follows_it() {
        let choice = names(&["a"]);
        let fates = fates(&region(), &Known::default(), "d", Some(&choice));
        assert_eq!(
            fates[4],
            Fate::Created { waiting_on: 1, skips: 1 },
            "it is skipped when the other has ended"
        );
        assert_eq!(
            shown(fates),
            ["waits 1", "the decision `d` did not choose it", "waits 1", "waits 1", "waits 1"]
        );
    }

    #[test]
    fn nothing_chosen_skips_everything_to_the_last_convergence() {
        let nothing = BTreeSet::new();
        let found = shown(fates(&region(), &Known::default(), "d", Some(&nothing)));
        assert_eq!(found[3], NOTHING_GATHERED);
        assert_eq!(found[4], "`c`, on which it depends, was skipped");
        let skipped = shown(fates(&region(), &Known::default(), "d", None));
        assert_eq!(
            skipped,
            ["waits 1", "waits 1", "waits 1", "waits 2", "waits 2"],
            "skipping goes down by itself"
        );
    }

    #[test]
    fn step_behind_two_decisions_waits_for_the_last_of_them() {
        let region = vec![
            step("x", StepKind::Plain, &["d"], &["d"]),
            step("y", StepKind::Plain, &["e"], &["e"]),
            step("both", StepKind::Plain, &["d", "e"], &["d", "e"]),
            step("end", StepKind::Convergence, &["x", "y", "both"], &["d", "e"]),
        ];
        let mut known = Known::default();
        known.states.insert("e".to_owned(), JobState::Running);
        let first = names(&["x", "both"]);
        assert_eq!(shown(fates(&region, &known, "d", Some(&first))), ["waits 1", "open", "open", "open"]);
        known.states.extend([("x".to_owned(), JobState::Completed), ("d".to_owned(), JobState::Completed)]);
        known.choices.insert("d".to_owned(), first);
        assert_eq!(
            shown(fates(&region, &known, "e", Some(&names(&["both"])))),
            ["open", "the decision `e` did not choose it", "waits 1", "waits 1"]
        );
        assert_eq!(
            shown(fates(&region, &known, "e", Some(&names(&["y"]))))[2],
            "the decision `e` did not choose it"
        );
    }

    #[test]
    fn decision_that_was_not_chosen_settles_what_stands_behind_it() {
        let region = vec![
            step("e", StepKind::Decision, &["d"], &["d"]),
            step("y", StepKind::Plain, &["e"], &["d", "e"]),
            step("end", StepKind::Convergence, &["d", "y"], &["d", "e"]),
        ];
        let nothing = BTreeSet::new();
        assert_eq!(
            shown(fates(&region, &Known::default(), "d", Some(&nothing))),
            ["the decision `d` did not choose it", "`e`, on which it depends, was skipped", "waits 1"]
        );
        let chosen = names(&["e"]);
        assert_eq!(shown(fates(&region, &Known::default(), "d", Some(&chosen))), ["waits 1", "open", "open"]);
    }
}
