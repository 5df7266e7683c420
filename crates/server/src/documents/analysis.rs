//! From an analysed graph to its document, and from the document to a picture.

use std::collections::HashMap;
use std::time::Duration;

use recache_api as api;
use recache_engine::analysis::GraphAnalysis;
use recache_model::analysis::{Basis, CONFIDENCE, Drawing, Measure, StepPlan};
use recache_model::job::JobState;
use recache_model::template::graph::Graph;

use super::records::{instant, job_error, job_state, ms};

/// An analysis.
pub fn analysis(found: &GraphAnalysis) -> api::GraphAnalysis {
    let analysis = &found.analysis;
    let name = |step: usize| found.names.get(step).cloned().unwrap_or_default();
    let names = |steps: &[usize]| steps.iter().copied().map(name).collect::<Vec<_>>();
    let state = |step: usize| found.states.get(step).copied().flatten().map(job_state);
    let error = |step: usize| found.errors.get(step).cloned().flatten().map(job_error);
    let (parallelism, blocked) = (&analysis.parallelism, &analysis.blocked);
    api::GraphAnalysis {
        schema: api::GraphAnalysis::SCHEMA.to_owned(),
        title: found.title.clone(),
        workflow_id: found.workflow.as_ref().map(|workflow| workflow.id.to_string()),
        calculated_at: instant(found.calculated_at),
        history_workflows: found.history_workflows,
        measure: match analysis.measure {
            Measure::Time => api::LengthMeasure::Time,
            Measure::Steps => api::LengthMeasure::Steps,
        },
        nodes: count(found.graph.len()),
        edges: count(analysis.edges),
        levels: found.graph.levels().iter().map(|level| names(level)).collect(),
        roots: names(&analysis.roots),
        leaves: names(&analysis.leaves),
        cycles: Vec::new(),
        critical_path: api::CriticalPath {
            steps: names(&analysis.critical_path.steps),
            length_ms: ms(analysis.critical_path.length),
        },
        parallelism: api::Parallelism {
            level_width_max: count(parallelism.level_width_max),
            work_ms: ms(parallelism.work),
            possible_max: count(parallelism.possible_max),
            possible_mean: parallelism.possible_mean,
            running: count(parallelism.running),
            used_max: count(parallelism.used_max),
            used_mean: parallelism.used_mean,
        },
        blocked: api::BlockedSteps {
            waiting: count(blocked.waiting),
            stuck: count(blocked.stuck),
            root_causes: blocked
                .root_causes
                .iter()
                .map(|cause| api::RootCause {
                    step: name(cause.step),
                    state: state(cause.step),
                    error: error(cause.step),
                    frees_steps: count(cause.frees),
                    frees_work_ms: ms(cause.frees_work),
                    blocks_steps: count(cause.blocks),
                    blocked_chain: names(&cause.chain),
                    blocked_chain_steps: count(cause.chain_steps),
                })
                .collect(),
            root_causes_total: count(blocked.root_causes_total),
        },
        retries: analysis
            .retries
            .iter()
            .map(|retry| api::StepRetry {
                step: name(retry.step),
                state: state(retry.step),
                attempt: retry.attempt,
                attempts_max: retry.attempts_max,
                due_in_ms: retry.due_in.map(ms),
                error: error(retry.step),
            })
            .collect(),
        completion: analysis.completion.ok().map(|completion| api::CompletionEstimate {
            remaining_ms: ms(completion.remaining),
            remaining_low_ms: ms(completion.remaining_low),
            remaining_high_ms: ms(completion.remaining_high),
            confidence: CONFIDENCE,
            steps_assumed: count(completion.steps_assumed),
        }),
        no_completion: analysis.completion.err().map(|why| why.as_str().to_owned()),
        steps: analysis
            .steps
            .iter()
            .enumerate()
            .map(|(step, plan)| api::AnalyzedStep {
                name: name(step),
                state: state(step),
                level: count(plan.level + 1),
                waits_for: names(found.graph.dependencies(step)),
                duration_ms: ms(plan.duration),
                duration_basis: match plan.basis {
                    Basis::Measured => api::DurationBasis::Measured,
                    Basis::Elapsed => api::DurationBasis::Elapsed,
                    Basis::History => api::DurationBasis::History,
                    Basis::Assumed => api::DurationBasis::Assumed,
                    Basis::Counted => api::DurationBasis::Counted,
                },
                earliest_start_ms: ms(plan.earliest_start),
                slack_ms: ms(plan.slack),
                is_critical: plan.is_critical,
            })
            .collect(),
    }
}

/// What a picture is made of, once more taken from its document: what was asked of a server is drawn as what was found here.
#[derive(Debug)]
pub struct Drawn {
    title: String,
    graph: Graph,
    names: Vec<String>,
    states: Vec<Option<JobState>>,
    measure: Measure,
    steps: Vec<StepPlan>,
    critical_path: Vec<usize>,
}

impl Drawn {
    /// `None`: the document names steps that it does not have, or they wait for each other in a circle.
    pub fn new(found: &api::GraphAnalysis) -> Option<Self> {
        let names: Vec<String> = found.steps.iter().map(|step| step.name.clone()).collect();
        let places: HashMap<&str, usize> =
            names.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
        let of = |steps: &[String]| -> Option<Vec<usize>> {
            steps.iter().map(|name| places.get(name.as_str()).copied()).collect()
        };
        let waits: Option<Vec<_>> = found.steps.iter().map(|step| of(&step.waits_for)).collect();
        let critical_path = of(&found.critical_path.steps)?;
        Some(Self {
            title: found.title.clone(),
            graph: Graph::new(waits?).ok()?,
            states: found.steps.iter().map(|step| step.state.map(state_of)).collect(),
            measure: match found.measure {
                api::LengthMeasure::Time => Measure::Time,
                api::LengthMeasure::Steps => Measure::Steps,
            },
            steps: found.steps.iter().map(plan_of).collect(),
            critical_path,
            names,
        })
    }

    /// As [`recache_model::analysis`] draws it.
    pub fn drawing(&self) -> Drawing<'_> {
        Drawing {
            title: &self.title,
            graph: &self.graph,
            names: &self.names,
            states: &self.states,
            measure: self.measure,
            steps: &self.steps,
            critical_path: &self.critical_path,
        }
    }
}

fn plan_of(step: &api::AnalyzedStep) -> StepPlan {
    StepPlan {
        level: usize::try_from(step.level.saturating_sub(1)).unwrap_or(usize::MAX),
        duration: Duration::from_millis(step.duration_ms),
        basis: match step.duration_basis {
            api::DurationBasis::Measured => Basis::Measured,
            api::DurationBasis::Elapsed => Basis::Elapsed,
            api::DurationBasis::History => Basis::History,
            api::DurationBasis::Assumed => Basis::Assumed,
            api::DurationBasis::Counted => Basis::Counted,
        },
        earliest_start: Duration::from_millis(step.earliest_start_ms),
        slack: Duration::from_millis(step.slack_ms),
        is_critical: step.is_critical,
    }
}

fn state_of(state: api::JobState) -> JobState {
    match state {
        api::JobState::Blocked => JobState::Blocked,
        api::JobState::Queued => JobState::Queued,
        api::JobState::Running => JobState::Running,
        api::JobState::Completed => JobState::Completed,
        api::JobState::Failed => JobState::Failed,
        api::JobState::Cancelled => JobState::Cancelled,
        api::JobState::Superseded => JobState::Superseded,
        api::JobState::Skipped => JobState::Skipped,
        api::JobState::Resolved => JobState::Resolved,
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
