//! What differs from one environment to another.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::step::{BackoffSpec, RetrySpec, Step};

/// What one environment changes. For all steps first, then by name: the nearer word wins.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Environment {
    /// One for each step that is named, and at most one for all.
    pub steps: Vec<StepOverlay>,
}

/// What an environment changes about a step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StepOverlay {
    /// Which step.
    pub target: OverlayTarget,
    /// Settings that replace those of the same name, whole; others stay.
    pub initialization: Map<String, Value>,
    /// Replaces the timeout.
    pub timeout: Option<Duration>,
    /// Replaces what it gives of the retry policy.
    pub retry: RetryOverlay,
}

/// Which step an overlay changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverlayTarget {
    /// Every one; written `ALL`.
    All,
    /// The one of this name.
    Step(String),
}

impl OverlayTarget {
    /// The name that means every step.
    pub const ALL: &str = "ALL";

    /// As written.
    pub fn name(&self) -> &str {
        match self {
            Self::All => Self::ALL,
            Self::Step(name) => name,
        }
    }
}

/// The given parts of a retry policy.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct RetryOverlay {
    /// See [`RetrySpec::retryable`].
    pub retryable: Option<bool>,
    /// See [`RetrySpec::max_attempts`].
    pub max_attempts: Option<u32>,
    /// See [`RetrySpec::backoff`].
    pub backoff: Option<BackoffSpec>,
    /// See [`RetrySpec::backoff_base_ms`].
    pub backoff_base_ms: Option<u64>,
    /// See [`RetrySpec::max_backoff_ms`].
    pub max_backoff_ms: Option<u64>,
    /// See [`RetrySpec::jitter`].
    pub jitter: Option<f64>,
}

impl RetryOverlay {
    /// `base` with what is given here in its place.
    pub fn over(&self, base: &RetrySpec) -> RetrySpec {
        RetrySpec {
            retryable: self.retryable.unwrap_or(base.retryable),
            max_attempts: self.max_attempts.unwrap_or(base.max_attempts),
            backoff: self.backoff.unwrap_or(base.backoff),
            backoff_base_ms: self.backoff_base_ms.unwrap_or(base.backoff_base_ms),
            max_backoff_ms: self.max_backoff_ms.unwrap_or(base.max_backoff_ms),
            jitter: self.jitter.unwrap_or(base.jitter),
        }
    }
}

/// The overlays of an environment, by what they change.
#[derive(Debug)]
pub(super) struct Overlays<'e> {
    all: Option<&'e StepOverlay>,
    named: HashMap<&'e str, &'e StepOverlay>,
}

impl<'e> Overlays<'e> {
    pub(super) fn of(environment: &'e Environment) -> Self {
        let mut overlays = Self { all: None, named: HashMap::new() };
        for overlay in &environment.steps {
            match &overlay.target {
                OverlayTarget::All => overlays.all = Some(overlay),
                OverlayTarget::Step(name) => {
                    overlays.named.insert(name, overlay);
                }
            }
        }
        overlays
    }

    /// What changes this step, in the order in which it is applied.
    pub(super) fn over(&self, step: &str) -> impl Iterator<Item = &'e StepOverlay> {
        self.all.into_iter().chain(self.named.get(step).copied())
    }

    /// Changes `step`.
    pub(super) fn apply(&self, step: &mut Step) {
        let overlays: Vec<&StepOverlay> = self.over(&step.name).collect();
        for overlay in overlays {
            if let Some(handler) = &mut step.handler {
                for (setting, value) in &overlay.initialization {
                    handler.initialization.insert(setting.clone(), value.clone());
                }
            }
            step.timeout = overlay.timeout.or(step.timeout);
            step.retry = overlay.retry.over(&step.retry);
        }
    }
}
