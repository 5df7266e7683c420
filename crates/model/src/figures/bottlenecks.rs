//! What is slow, what fails, and what to do about it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gathered::OTHER;
use super::performance::Distribution;
use super::request::BottlenecksRequest;
use super::totals::{Kind, Series, Totals};
use super::{MinuteTotals, float};

/// A step, or a job that is none, and how long it takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlowStep {
    /// Who it belongs to.
    pub namespace: String,
    /// The name of its workflow's template; empty for a job that is no step.
    pub template: String,
    /// Its name there; empty likewise.
    pub step: String,
    /// What does it.
    pub handler: String,
    /// How often a handler ran it, and it ended.
    pub executions: u64,
    /// Of those that ended well or failed, the fraction that failed.
    pub error_rate: Option<f64>,
    /// How long its last attempts ran.
    pub run: Distribution,
    /// How long they were due before.
    pub wait: Distribution,
    /// What part it makes of the critical paths of its workflows, of those that were looked at.
    pub critical_share: Option<f64>,
}

/// A template and how long its workflows take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlowWorkflow {
    /// Who it belongs to.
    pub namespace: String,
    /// Its name.
    pub template: String,
    /// How many ended.
    pub executions: u64,
    /// Of those that ended well or failed, the fraction that failed.
    pub error_rate: Option<f64>,
    /// From submit to end.
    pub duration: Distribution,
}

/// A code with which something fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorSpot {
    /// Who it belongs to.
    pub namespace: String,
    /// What fails.
    pub handler: String,
    /// With which code, or which kind of error where it has no code.
    pub code: String,
    /// How often.
    pub failures: u64,
    /// What part of all that this handler ended.
    pub share: f64,
}

/// A handler and how much of the workers' time it takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceUse {
    /// Who it belongs to.
    pub namespace: String,
    /// What takes it.
    pub handler: String,
    /// How often it ran, and ended.
    pub executions: u64,
    /// How long its last attempts ran, together.
    pub busy: Duration,
    /// What part that is of all that ran.
    pub share: f64,
}

/// What to do, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recommendation {
    /// Which kind: `add_workers`, `shorten_step` or `fix_error`.
    pub kind: String,
    /// What is meant.
    pub subject: String,
    /// What was measured.
    pub evidence: String,
}

/// What is slow, what fails, and what to do about it. Every list is ordered by how bad it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Bottlenecks {
    /// Everything that a handler ran, that ended in the window and is asked for.
    pub executions: u64,
    /// By mean run time.
    pub slowest_by_run: Vec<SlowStep>,
    /// By mean wait.
    pub slowest_by_wait: Vec<SlowStep>,
    /// By their part of their workflows' critical paths.
    pub slowest_by_critical_share: Vec<SlowStep>,
    /// By mean duration.
    pub slowest_workflows: Vec<SlowWorkflow>,
    /// By number.
    pub error_hot_spots: Vec<ErrorSpot>,
    /// By the time that they take.
    #[serde(default)]
    pub resource_use: Vec<ResourceUse>,
    /// Only what figures here speak for.
    pub recommendations: Vec<Recommendation>,
}

/// From so long a mean wait on more workers are worth having: what hardly waits waits longer than it runs where it hardly runs.
pub const ADD_WORKERS_WAIT_MIN: Duration = Duration::from_secs(1);
/// From so much on of its workflows' time a step is worth shortening.
const CRITICAL_SHARE_FROM: f64 = 0.5;
/// From so large a fraction of failures on a code is worth mending.
const ERROR_SHARE_FROM: f64 = 0.05;

/// What minutes of a window come to. What ended less than `min_executions` times is left out of every list.
pub fn bottlenecks(request: &BottlenecksRequest, minutes: &[MinuteTotals]) -> Bottlenecks {
    let mut steps: BTreeMap<Series, Totals> = BTreeMap::new();
    let mut workflows: BTreeMap<Series, Totals> = BTreeMap::new();
    let mut handlers: BTreeMap<(&str, &str), Totals> = BTreeMap::new();
    let mut executions = 0_u64;
    for one in minutes.iter().filter(|one| request.filter.takes(&one.series)) {
        if one.series.kind == Kind::Workflow {
            workflows.entry(one.series.clone()).or_default().merge(&one.totals);
        } else if one.series.is_of_handlers() {
            executions = executions.saturating_add(one.totals.executed());
            // Wherever it waited.
            let series = Series { queue: String::new(), ..one.series.clone() };
            steps.entry(series).or_default().merge(&one.totals);
            handlers.entry((&one.series.namespace, &one.series.handler)).or_default().merge(&one.totals);
        }
    }
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let is_enough = |totals: &Totals| totals.executed() >= request.min_executions;
    let steps: Vec<SlowStep> = steps
        .into_iter()
        .filter(|(_, totals)| is_enough(totals))
        .map(|(series, totals)| slow_step(series, &totals))
        .collect();
    let by = |key: fn(&SlowStep) -> Option<f64>| {
        let mut list: Vec<(f64, &SlowStep)> = steps
            .iter()
            .filter_map(|step| key(step).filter(|key| *key > 0.0).map(|key| (key, step)))
            .collect();
        // Equals stay in the order of their names.
        list.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        list.into_iter().take(limit).map(|(_, step)| step.clone()).collect::<Vec<_>>()
    };
    let mut slowest_workflows: Vec<SlowWorkflow> = workflows
        .into_iter()
        .filter(|(_, totals)| totals.ended() >= request.min_executions)
        .map(|(series, totals)| SlowWorkflow {
            namespace: series.namespace,
            template: series.template,
            executions: totals.ended(),
            error_rate: totals.error_rate(),
            duration: Distribution::of(totals.lasted_us, &totals.lasted),
        })
        .collect();
    slowest_workflows.sort_by_key(|one| std::cmp::Reverse(one.duration.mean));
    slowest_workflows.truncate(limit);
    let mut error_hot_spots: Vec<ErrorSpot> = handlers
        .iter()
        // What failed without having begun, because it waited for too long, counts here.
        .filter(|(_, totals)| totals.ended() >= request.min_executions)
        .flat_map(|((namespace, handler), totals)| {
            totals.codes.iter().map(move |(code, failures)| ErrorSpot {
                namespace: (*namespace).to_owned(),
                handler: (*handler).to_owned(),
                code: code.clone(),
                failures: *failures,
                share: float(*failures) / float(totals.ended().max(1)),
            })
        })
        .collect();
    error_hot_spots.sort_by_key(|spot| std::cmp::Reverse(spot.failures));
    error_hot_spots.truncate(limit);
    let busy_us = handlers.values().fold(0_u64, |sum, totals| sum.saturating_add(totals.ran_us));
    let mut resource_use: Vec<ResourceUse> = handlers
        .iter()
        .filter(|(_, totals)| is_enough(totals) && totals.ran_us > 0)
        .map(|((namespace, handler), totals)| ResourceUse {
            namespace: (*namespace).to_owned(),
            handler: (*handler).to_owned(),
            executions: totals.executed(),
            busy: Duration::from_micros(totals.ran_us),
            share: float(totals.ran_us) / float(busy_us.max(1)),
        })
        .collect();
    resource_use.sort_by_key(|one| std::cmp::Reverse(one.busy));
    resource_use.truncate(limit);
    let mut found = Bottlenecks {
        executions,
        slowest_by_run: by(|step| step.run.mean.map(|mean| mean.as_secs_f64())),
        slowest_by_wait: by(|step| step.wait.mean.map(|mean| mean.as_secs_f64())),
        slowest_by_critical_share: by(|step| step.critical_share),
        slowest_workflows,
        error_hot_spots,
        resource_use,
        recommendations: Vec::new(),
    };
    found.recommendations = recommendations(&found);
    found
}

fn slow_step(series: Series, totals: &Totals) -> SlowStep {
    SlowStep {
        namespace: series.namespace,
        template: series.template,
        step: series.step,
        handler: series.handler,
        executions: totals.executed(),
        error_rate: totals.error_rate(),
        run: Distribution::of(totals.ran_us, &totals.ran),
        wait: Distribution::of(totals.waited_us, &totals.waited),
        critical_share: (totals.paths_us > 0).then(|| float(totals.critical_us) / float(totals.paths_us)),
    }
}

impl SlowStep {
    fn name(&self) -> String {
        if self.step.is_empty() {
            format!("{}/{}", self.namespace, self.handler)
        } else {
            format!("{}/{}.{}", self.namespace, self.template, self.step)
        }
    }
}

fn recommendations(found: &Bottlenecks) -> Vec<Recommendation> {
    // Of those that could not be told apart nobody knows which is meant.
    let is_known = |namespace: &str| namespace != OTHER;
    let mut told = Vec::new();
    for step in found.slowest_by_wait.iter().filter(|step| is_known(&step.namespace)) {
        if let (Some(wait), Some(run)) = (step.wait.mean, step.run.mean)
            && wait > run
            && wait >= ADD_WORKERS_WAIT_MIN
        {
            told.push(Recommendation {
                kind: "add_workers".to_owned(),
                subject: step.name(),
                evidence: format!(
                    "over {} executions it waited {wait:.3?} on average, longer than the {run:.3?} that it ran",
                    step.executions
                ),
            });
        }
    }
    for step in found.slowest_by_critical_share.iter().filter(|step| is_known(&step.namespace)) {
        if let Some(share) = step.critical_share.filter(|share| *share >= CRITICAL_SHARE_FROM) {
            told.push(Recommendation {
                kind: "shorten_step".to_owned(),
                subject: step.name(),
                evidence: format!("it makes {:.0} % of its workflows' critical paths", share * 100.0),
            });
        }
    }
    let spots = found.error_hot_spots.iter().filter(|spot| spot.share >= ERROR_SHARE_FROM);
    for spot in spots.filter(|spot| is_known(&spot.namespace)) {
        told.push(Recommendation {
            kind: "fix_error".to_owned(),
            subject: format!("{}/{}", spot.namespace, spot.handler),
            evidence: format!(
                "{} of its executions, {:.1} %, failed for good with `{}`",
                spot.failures,
                spot.share * 100.0,
                spot.code
            ),
        });
    }
    told
}
