//! What a cached value is for, and how coherent the cache must be for it. A usage on a provider that cannot honour it is
//! switched off, never served wrong.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// How far a cached answer may lag behind the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Coherence {
    /// Not at all: who has seen a change never gets an answer from before it, in whatever process.
    Strict,
    /// Who changed something gets no answer from before his change, wherever he reads, by the
    /// [`Token`](crate::Token) of his change. Others: as eventual.
    Session,
    /// No further than this.
    Bounded(Duration),
    /// As far as the policy's times allow.
    Eventual,
}

impl fmt::Display for Coherence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strict => f.write_str("strict"),
            Self::Session => f.write_str("session"),
            Self::Bounded(lag) => write!(f, "bounded by {lag:?}"),
            Self::Eventual => f.write_str("eventual"),
        }
    }
}

/// The times that configuration gives to usages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// For every usage without a time of its own. Default 3600 s.
    pub default: Duration,
    /// For templates. Default 3600 s.
    pub template: Duration,
    /// For analytics. Default 60 s.
    pub analytics: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            default: Duration::from_hours(1),
            template: Duration::from_hours(1),
            analytics: Duration::from_mins(1),
        }
    }
}

/// What a cached value is for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Usage {
    /// Workflow templates. Strict: a worker that registers a new version must be seen by all at once.
    Template,
    /// Aggregates over a window. Bounded by their lifetime.
    Analytics,
    /// The analysis of one workflow's graph. Bounded by 90 s.
    GraphAnalysis,
    /// The registry of handlers. Bounded by 120 s.
    Handlers,
    /// Detailed health. Bounded by 60 s.
    HealthDetail,
    /// The state of a job. Session: who changed it reads it.
    JobState,
    /// An item of a view. Its key names the generation, so that an entry can never become wrong: eventual.
    ViewItem,
    /// A use of the embedding application's own.
    User {
        /// Shown in logs and health.
        name: Cow<'static, str>,
        /// What it needs.
        coherence: Coherence,
    },
}

impl Usage {
    /// A use of the embedding application's own.
    pub fn user(name: impl Into<Cow<'static, str>>, coherence: Coherence) -> Self {
        Self::User { name: name.into(), coherence }
    }

    /// As it is shown in logs and health.
    pub fn name(&self) -> &str {
        match self {
            Self::User { name, .. } => name,
            ours => ours.own_name().unwrap_or_default(),
        }
    }

    /// The name of one that is Recache's own.
    pub(crate) fn own_name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Template => "template",
            Self::Analytics => "analytics",
            Self::GraphAnalysis => "graph_analysis",
            Self::Handlers => "handlers",
            Self::HealthDetail => "health_detail",
            Self::JobState => "job_state",
            Self::ViewItem => "view_item",
            Self::User { .. } => return None,
        })
    }

    /// How long its values live when the caller has no better policy.
    pub fn lifetime(&self, lifetimes: &Lifetimes) -> Duration {
        match self {
            Self::Template => lifetimes.template,
            Self::Analytics => lifetimes.analytics,
            Self::GraphAnalysis => Duration::from_secs(90),
            Self::Handlers => Duration::from_mins(2),
            Self::HealthDetail => Duration::from_mins(1),
            Self::JobState | Self::ViewItem | Self::User { .. } => lifetimes.default,
        }
    }

    /// The coherence that it needs.
    pub fn coherence(&self, lifetimes: &Lifetimes) -> Coherence {
        match self {
            Self::Template => Coherence::Strict,
            Self::JobState => Coherence::Session,
            Self::ViewItem => Coherence::Eventual,
            Self::Analytics | Self::GraphAnalysis | Self::Handlers | Self::HealthDetail => {
                Coherence::Bounded(self.lifetime(lifetimes))
            }
            Self::User { coherence, .. } => *coherence,
        }
    }
}

/// Whether a need can be met, and what must be done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Serve every kept entry.
    Serve,
    /// Serve no entry that is older than this.
    ServeUpToAge(Duration),
    /// Serve each call what was true when it began: share no load that began before it.
    ServeUnshared,
    /// Do not serve at all.
    Refuse,
}

/// What `offered` makes of `needed`. A bounded need is met by any provider, because entries carry their age.
pub(crate) fn judge(needed: Coherence, offered: Coherence) -> Verdict {
    match (needed, offered) {
        (Coherence::Eventual, _) | (Coherence::Session, Coherence::Strict | Coherence::Session) => {
            Verdict::Serve
        }
        (Coherence::Bounded(age_max), _) => Verdict::ServeUpToAge(age_max),
        (Coherence::Strict, Coherence::Strict) => Verdict::ServeUnshared,
        (Coherence::Session, Coherence::Bounded(_) | Coherence::Eventual)
        | (Coherence::Strict, Coherence::Session | Coherence::Bounded(_) | Coherence::Eventual) => {
            Verdict::Refuse
        }
    }
}
