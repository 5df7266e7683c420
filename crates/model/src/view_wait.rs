//! What a view that is behind waits for, read off its row and its build job.

use crate::job::JobState;
use crate::time::Timestamp;
use crate::view::{Versions, ViewStatus};

/// What stands between a view and its newest version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewWait {
    /// Nothing was ever touched.
    Untouched,
    /// Nothing: the newest version is live.
    Nothing,
    /// Further touches may come: a build job is created then.
    Debounce {
        /// When the build job is created.
        until: Timestamp,
    },
    /// Whoever reconciles views creates the build job at its next look.
    Reconciler,
    /// A worker takes the build job.
    Worker,
    /// The build failed and is tried again then.
    Retry {
        /// When it is due.
        at: Timestamp,
    },
    /// The running build ends.
    Build {
        /// The version that it makes.
        version: i64,
        /// A newer one is wanted already, and is built after it.
        is_overtaken: bool,
    },
    /// Somebody touches it: the newest version could not be built.
    Touch,
    /// Somebody resumes it: no build begins.
    Resume,
}

impl ViewWait {
    /// The name in the store's words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Untouched => "untouched",
            Self::Nothing => "nothing",
            Self::Debounce { .. } => "debounce",
            Self::Reconciler => "reconciler",
            Self::Worker => "worker",
            Self::Retry { .. } => "retry",
            Self::Build { .. } => "build",
            Self::Touch => "touch",
            Self::Resume => "resume",
        }
    }
}

/// A view's build job, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildJob {
    /// Where it stands.
    pub state: JobState,
    /// When it is due.
    pub due_at: Timestamp,
    /// It waits for the workflow that does it.
    pub has_workflow: bool,
}

/// Says what a view waits for.
pub fn wait_of(versions: &Versions, build: Option<BuildJob>, now: Timestamp) -> ViewWait {
    if versions.wanted == 0 {
        return ViewWait::Untouched;
    }
    if versions.live == versions.wanted {
        return ViewWait::Nothing;
    }
    if let Some(BuildJob { state, due_at, has_workflow }) = build {
        return match (versions.processing, state) {
            (Some(version), _) if state == JobState::Running || has_workflow => {
                ViewWait::Build { version, is_overtaken: versions.wanted > version }
            }
            _ if due_at > now => ViewWait::Retry { at: due_at },
            _ => ViewWait::Worker,
        };
    }
    match versions.due_at {
        Some(_) if versions.is_paused => ViewWait::Resume,
        Some(until) if until > now => ViewWait::Debounce { until },
        None if versions.status == ViewStatus::Failed => ViewWait::Touch,
        // No rule leads to a view that is behind, has not failed and is due at no time; the table refuses it too.
        _ => ViewWait::Reconciler,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::view::ViewPolicy;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(0).plus(Duration::from_secs(seconds))
    }

    fn queued(due: u64) -> BuildJob {
        BuildJob { state: JobState::Queued, due_at: at(due), has_workflow: false }
    }

    #[test]
    fn every_moment_of_a_builds_life_has_its_reason() {
        let policy = ViewPolicy { on_touch: crate::view::OnTouch::Finish, ..ViewPolicy::default() };
        let mut view = Versions::default();
        assert_eq!(wait_of(&view, None, at(0)), ViewWait::Untouched);
        view.touch(&policy, at(0));
        assert_eq!(wait_of(&view, None, at(0)), ViewWait::Debounce { until: at(1) });
        assert_eq!(wait_of(&view, None, at(1)), ViewWait::Reconciler);
        view.pause(&policy, at(1));
        assert_eq!(wait_of(&view, None, at(1)), ViewWait::Resume);
        view.resume();
        view.build_created();
        assert_eq!(wait_of(&view, Some(queued(1)), at(1)), ViewWait::Worker);
        view.begin(at(2));
        let running = Some(BuildJob { state: JobState::Running, due_at: at(1), has_workflow: false });
        assert_eq!(wait_of(&view, running, at(2)), ViewWait::Build { version: 1, is_overtaken: false });
        view.touch(&policy, at(3));
        assert_eq!(wait_of(&view, running, at(3)), ViewWait::Build { version: 1, is_overtaken: true });
        // Its job waits for the workflow that does it.
        let by_workflow = Some(BuildJob { has_workflow: true, ..queued(300) });
        assert_eq!(wait_of(&view, by_workflow, at(3)), ViewWait::Build { version: 1, is_overtaken: true });
        // It failed, and is tried again a minute later.
        assert_eq!(wait_of(&view, Some(queued(63)), at(4)), ViewWait::Retry { at: at(63) });
        view.publish(&policy, 1, at(5)).unwrap();
        view.build_created();
        view.begin(at(6));
        view.build_ended(&policy, at(7));
        assert_eq!(wait_of(&view, None, at(7)), ViewWait::Touch);
        view.touch(&policy, at(8));
        view.build_created();
        view.begin(at(9));
        view.publish(&policy, 3, at(10)).unwrap();
        assert_eq!(wait_of(&view, None, at(10)), ViewWait::Nothing);
    }
}
