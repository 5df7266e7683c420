//! What may be asked.

use super::totals::{Kind, Series};

/// Longest window, in hours: 31 days.
pub const HOURS_MAX: u32 = 31 * 24;
/// Most entries of a list.
pub const LIMIT_MAX: u32 = 100;
/// Most executions that can be asked for before something counts.
pub const MIN_EXECUTIONS_MAX: u64 = 1_000_000;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{parameter}` {message}")]
pub struct RequestProblem {
    /// Which parameter.
    pub parameter: &'static str,
    /// What is wrong with it and what it may be.
    pub message: String,
}

/// Only work of these; `None` for any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Who it belongs to.
    pub namespace: Option<String>,
    /// The name of the workflow's template.
    pub template: Option<String>,
    /// What did it.
    pub handler: Option<String>,
    /// Where it waited.
    pub queue: Option<String>,
}

impl Filter {
    /// Whether nothing is left out.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a series is asked for. Workflows have neither handler nor queue: who asks for one gets jobs and steps only.
    pub fn takes(&self, series: &Series) -> bool {
        let takes = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        takes(&self.namespace, &series.namespace)
            && takes(&self.template, &series.template)
            && (series.kind != Kind::Workflow || (self.handler.is_none() && self.queue.is_none()))
            && takes(&self.handler, &series.handler)
            && takes(&self.queue, &series.queue)
    }

    fn problems(&self) -> Vec<RequestProblem> {
        [
            ("namespace", &self.namespace),
            ("template", &self.template),
            ("handler", &self.handler),
            ("queue", &self.queue),
        ]
        .into_iter()
        .filter_map(|(parameter, name)| {
            let name = name.as_deref()?;
            (name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0')).then(|| RequestProblem {
                parameter,
                message: format!(
                    "must have 1 to {NAME_BYTES_MAX} bytes and no NUL, and has {} bytes",
                    name.len()
                ),
            })
        })
        .collect()
    }
}

/// What is asked about performance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerformanceRequest {
    /// How far back, in hours: 1 to [`HOURS_MAX`].
    pub hours: u32,
    /// Of what.
    pub filter: Filter,
}

/// What is asked about bottlenecks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BottlenecksRequest {
    /// How far back, in hours: 1 to [`HOURS_MAX`].
    pub hours: u32,
    /// Entries of each list: 1 to [`LIMIT_MAX`].
    pub limit: u32,
    /// What ended less often is left out: 1 to [`MIN_EXECUTIONS_MAX`].
    pub min_executions: u64,
    /// Of what.
    pub filter: Filter,
}

impl Default for PerformanceRequest {
    fn default() -> Self {
        Self { hours: 24, filter: Filter::default() }
    }
}

impl Default for BottlenecksRequest {
    fn default() -> Self {
        Self { hours: 24, limit: 10, min_executions: 5, filter: Filter::default() }
    }
}

impl PerformanceRequest {
    /// All that is wrong with it.
    pub fn problems(&self) -> Vec<RequestProblem> {
        let mut problems = self.filter.problems();
        problems.extend(in_range("hours", self.hours.into(), HOURS_MAX.into()));
        problems
    }
}

impl BottlenecksRequest {
    /// All that is wrong with it.
    pub fn problems(&self) -> Vec<RequestProblem> {
        let mut problems = self.filter.problems();
        problems.extend(in_range("hours", self.hours.into(), HOURS_MAX.into()));
        problems.extend(in_range("limit", self.limit.into(), LIMIT_MAX.into()));
        problems.extend(in_range("min_executions", self.min_executions, MIN_EXECUTIONS_MAX));
        problems
    }
}

fn in_range(parameter: &'static str, value: u64, max: u64) -> Option<RequestProblem> {
    let message = format!("is {value}; it must be from 1 to {max}");
    (!(1..=max).contains(&value)).then_some(RequestProblem { parameter, message })
}
