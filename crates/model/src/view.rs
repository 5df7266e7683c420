//! The version rules of a view: touch, begin, supersede, publish, fail.
//!
//! One value, [`Versions`], holds everything that decides; the store keeps it as one row and runs one of
//! these functions while it holds that row. So both databases, and a test without any, follow the same rules.
//!
//! The numbers: `wanted` is raised by every touch; a build takes the newest `wanted` when it begins and
//! becomes `processing`; publishing makes it `live`. Always `live <= processing <= wanted`, and `live` only grows.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// What a touch does to a running build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum OnTouch {
    /// Stop it; build the newer version.
    #[default]
    Abort,
    /// Let it publish, then build again.
    Finish,
    /// Abort, unless at least half of the last build's time has already gone into this one, or readers would be further behind than
    /// `max_staleness_ms` by the time that another build were live.
    Auto,
}

/// When to build, and what to do with a build that a touch overtakes. Stored with the view as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ViewPolicy {
    /// A build waits until no touch came for this long, in milliseconds. Default 1,000.
    pub debounce_quiet_ms: u64,
    /// It waits no longer than this after the first touch that readers do not see, in milliseconds; after a touch that ended a build, not less
    /// than the quiet time, or touches that keep coming would end builds as fast as they can be made. Default 10,000.
    pub debounce_max_ms: u64,
    /// What a touch does to a running build. Default abort.
    pub on_touch: OnTouch,
    /// Readers' data may be this much behind, in milliseconds, before a build is let through although newer touches keep
    /// coming; it then ends at most one build later. `None`: never let through. Default 300,000.
    pub max_staleness_ms: Option<u64>,
}

impl Default for ViewPolicy {
    fn default() -> Self {
        Self {
            debounce_quiet_ms: 1_000,
            debounce_max_ms: 10_000,
            on_touch: OnTouch::Abort,
            max_staleness_ms: Some(300_000),
        }
    }
}

/// What a view is doing, for people and programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ViewStatus {
    /// Never touched.
    #[default]
    Idle,
    /// A newer version is wanted; its build waits or is queued.
    Pending,
    /// A build runs.
    Processing,
    /// The newest version is live.
    Completed,
    /// The newest version could not be built; the last live one is still served.
    Failed,
}

impl ViewStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Idle, Self::Pending, Self::Processing, Self::Completed, Self::Failed];

    /// The name in the store and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for ViewStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no view status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no view status: expected idle, pending, processing, completed or failed")]
pub struct UnknownViewStatus(String);

impl FromStr for ViewStatus {
    type Err = UnknownViewStatus;

    fn from_str(text: &str) -> Result<Self, UnknownViewStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownViewStatus(text.to_owned()))
    }
}

/// Everything about a view that its rules read or change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Versions {
    /// `recache_version`: raised by one at every touch.
    pub wanted: i64,
    /// `processing_version`: what the running build makes.
    pub processing: Option<i64>,
    /// `live_version`: what readers see; 0 before the first publication.
    pub live: i64,
    /// `recache_status`.
    pub status: ViewStatus,
    /// Raised whenever the right to build changes hands.
    pub lease_epoch: i64,
    /// A build job exists, queued or running.
    pub has_build: bool,
    /// The first touch that the live version does not show.
    pub dirty_since: Option<Timestamp>,
    /// The first touch that came after the running build began.
    pub dirty_since_begin: Option<Timestamp>,
    /// The last touch.
    pub touched_at: Option<Timestamp>,
    /// The first touch of the wait that is under way: the one that ended a build, where one did. `None`: nothing waits.
    pub waits_since: Option<Timestamp>,
    /// When the reconciler shall create a build job; `None` when there is none to create.
    pub due_at: Option<Timestamp>,
    /// When the running build began.
    pub began_at: Option<Timestamp>,
    /// How long the last published build took.
    pub last_build: Option<Duration>,
    /// No build begins, whatever is wanted, until somebody says otherwise.
    pub is_paused: bool,
}

/// What a touch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    /// The version that this touch asks for.
    pub version: i64,
    /// The live build job is superseded: it must be ended in the same transaction.
    pub supersedes: bool,
}

/// A publication was refused; nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishRefused {
    /// The view is building another version, or none.
    #[error("version {version} is not the one being built")]
    NotProcessing {
        /// What was offered.
        version: i64,
    },
    /// Something at least as new is live.
    #[error("version {version} is not newer than the live version {live}")]
    NotNewer {
        /// What was offered.
        version: i64,
        /// What readers see.
        live: i64,
    },
}

impl Versions {
    /// The inputs changed: one version more is wanted.
    pub fn touch(&mut self, policy: &ViewPolicy, now: Timestamp) -> Touched {
        self.wanted += 1;
        self.touched_at = Some(now);
        self.dirty_since.get_or_insert(now);
        let mut supersedes = false;
        if self.processing.is_some() {
            self.dirty_since_begin.get_or_insert(now);
            if self.touch_ends_build(policy, now) {
                supersedes = true;
                self.end_build();
                self.wait(policy, now);
            }
        } else if !self.has_build {
            // A queued build takes the newest version when it begins; only without one is there work to plan.
            self.wait(policy, now);
        }
        Touched { version: self.wanted, supersedes }
    }

    /// A build is wanted at once, without debounce, whether or not an input changed.
    pub fn rebuild(&mut self, policy: &ViewPolicy, now: Timestamp) -> Touched {
        let touched = self.touch(policy, now);
        if self.due_at.is_some() {
            self.due_at = Some(now);
        }
        touched
    }

    /// From now on no build begins. One that has begun goes on to its end, its retries included, whatever touches come:
    /// what it makes is the last that readers get for a while. True when there is a build that waits for its beginning: it must be ended
    /// in the same transaction.
    pub fn pause(&mut self, policy: &ViewPolicy, now: Timestamp) -> bool {
        self.is_paused = true;
        let waits = self.has_build && self.processing.is_none();
        if waits {
            self.end_build();
            self.wait(policy, now);
        }
        waits
    }

    /// Builds begin again; what was wanted meanwhile is due when it would have been.
    pub fn resume(&mut self) {
        self.is_paused = false;
    }

    /// What an older generation held is live again, as a version of its own that is newer than every other; the view is paused,
    /// because the next build would undo it. True when there is a live build: it must be ended in the same transaction.
    pub fn restore(&mut self) -> Touched {
        let supersedes = self.has_build;
        if supersedes {
            self.end_build();
        }
        self.wanted += 1;
        self.live = self.wanted;
        self.dirty_since = None;
        self.due_at = None;
        self.waits_since = None;
        self.status = ViewStatus::Completed;
        self.is_paused = true;
        Touched { version: self.live, supersedes }
    }

    fn touch_ends_build(&self, policy: &ViewPolicy, now: Timestamp) -> bool {
        if self.is_paused {
            return false;
        }
        let behind = self.dirty_since.map_or(Duration::ZERO, |since| now.since(since));
        let must_let_through = policy.max_staleness_ms.is_some_and(|ms| behind >= Duration::from_millis(ms));
        if must_let_through {
            return false;
        }
        match policy.on_touch {
            OnTouch::Abort => true,
            OnTouch::Finish => false,
            OnTouch::Auto => {
                let elapsed = self.began_at.map_or(Duration::ZERO, |began| now.since(began));
                let is_half_done = self.last_build.is_some_and(|last| elapsed.saturating_mul(2) >= last);
                // Another build waits for the quiet time first, and takes about as long as the last one did.
                let quiet = Duration::from_millis(policy.debounce_quiet_ms.min(policy.debounce_max_ms));
                let by_the_next =
                    behind.saturating_add(quiet).saturating_add(self.last_build.unwrap_or_default());
                let would_be_late =
                    policy.max_staleness_ms.is_some_and(|ms| by_the_next >= Duration::from_millis(ms));
                !is_half_done && !would_be_late
            }
        }
    }

    /// Plans a build: after the quiet time, but no later than the debounce's and the staleness limits allow.
    fn wait(&mut self, policy: &ViewPolicy, now: Timestamp) {
        let quiet = Duration::from_millis(policy.debounce_quiet_ms);
        let longest = Duration::from_millis(policy.debounce_max_ms);
        let first = self.dirty_since.unwrap_or(now);
        // After a build that a touch has ended the maximum has often passed. Then the next one waits the quiet time, quiet or not: at once would
        // be as many builds as touches, the whole maximum again too slow for a builder that gets further each time.
        let again = self.waits_since.get_or_insert(now).plus(quiet.min(longest));
        let last = self.touched_at.unwrap_or(now);
        let mut due = last.plus(quiet).min(first.plus(longest).max(again));
        if let Some(limit) = policy.max_staleness_ms {
            due = due.min(first.plus(Duration::from_millis(limit)));
        }
        self.due_at = Some(due);
        self.status = ViewStatus::Pending;
    }

    fn end_build(&mut self) {
        self.processing = None;
        self.has_build = false;
        self.began_at = None;
        self.dirty_since_begin = None;
        self.lease_epoch += 1;
    }

    /// Whether a build job shall be created now.
    pub fn is_due(&self, now: Timestamp) -> bool {
        !self.has_build && !self.is_paused && self.due_at.is_some_and(|due| due <= now)
    }

    /// The build job was created.
    pub fn build_created(&mut self) {
        self.has_build = true;
        self.due_at = None;
        self.waits_since = None;
        self.status = ViewStatus::Pending;
    }

    /// A worker begins the build (again, after a lost lease): it makes the newest version wanted now.
    pub fn begin(&mut self, now: Timestamp) -> i64 {
        self.processing = Some(self.wanted);
        self.status = ViewStatus::Processing;
        self.began_at = Some(now);
        self.dirty_since_begin = None;
        self.lease_epoch += 1;
        self.wanted
    }

    /// Makes `version` live, if it is the one being built and newer than what is live.
    pub fn publish(
        &mut self,
        policy: &ViewPolicy,
        version: i64,
        now: Timestamp,
    ) -> Result<(), PublishRefused> {
        if self.processing != Some(version) {
            return Err(PublishRefused::NotProcessing { version });
        }
        if version <= self.live {
            return Err(PublishRefused::NotNewer { version, live: self.live });
        }
        self.live = version;
        self.last_build = self.began_at.map(|began| now.since(began));
        self.dirty_since = self.dirty_since_begin;
        self.end_build();
        if self.wanted > version {
            // Touches came while it was built: they have waited since.
            self.waits_since = self.dirty_since;
            self.wait(policy, now);
        } else {
            self.dirty_since = None;
            self.due_at = None;
            self.status = ViewStatus::Completed;
        }
        Ok(())
    }

    /// The build ended for good without a version (failed or called off). What is live stays. A newer version
    /// that this build did not try is planned; otherwise the view waits for the next touch.
    pub fn build_ended(&mut self, policy: &ViewPolicy, now: Timestamp) {
        let tried = self.processing.unwrap_or(self.wanted);
        self.end_build();
        self.due_at = None;
        if self.wanted > tried {
            self.wait(policy, now);
        } else {
            self.status = ViewStatus::Failed;
        }
    }

    /// How far behind what readers see is; zero when the newest version is live.
    pub fn staleness(&self, now: Timestamp) -> Duration {
        self.dirty_since.map_or(Duration::ZERO, |since| now.since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(0).plus(SECOND * u32::try_from(seconds).unwrap())
    }

    fn policy(on_touch: OnTouch) -> ViewPolicy {
        ViewPolicy { on_touch, max_staleness_ms: Some(60_000), ..ViewPolicy::default() }
    }

    fn building(policy: &ViewPolicy) -> Versions {
        let mut view = Versions::default();
        view.touch(policy, at(0));
        view.build_created();
        view.begin(at(1));
        view
    }

    #[test]
    fn quiet_time_starts_again_at_every_touch_up_to_the_maximum() {
        let policy = policy(OnTouch::Abort);
        let mut view = Versions::default();
        view.touch(&policy, at(0));
        assert_eq!(view.due_at, Some(at(1)));
        view.touch(&policy, at(9));
        assert_eq!(view.due_at, Some(at(10)));
        view.touch(&policy, at(10));
        assert_eq!(view.due_at, Some(at(10)), "debounce_max caps the wait");
    }

    #[test]
    fn queued_build_takes_the_newest_version_when_it_begins() {
        let policy = policy(OnTouch::Abort);
        let mut view = Versions::default();
        view.touch(&policy, at(0));
        view.build_created();
        assert!(!view.touch(&policy, at(1)).supersedes);
        assert_eq!(view.begin(at(2)), 2);
    }

    #[test]
    fn abort_supersedes_finish_does_not() {
        assert!(building(&policy(OnTouch::Abort)).touch(&policy(OnTouch::Abort), at(2)).supersedes);
        let finish = policy(OnTouch::Finish);
        let mut view = building(&finish);
        assert!(!view.touch(&finish, at(2)).supersedes);
        view.publish(&finish, 1, at(3)).unwrap();
        assert_eq!((view.live, view.status, view.dirty_since), (1, ViewStatus::Pending, Some(at(2))));
    }

    #[test]
    fn auto_finishes_what_is_more_than_half_done() {
        let auto = policy(OnTouch::Auto);
        let mut view = building(&auto);
        view.publish(&auto, 1, at(11)).unwrap();
        assert_eq!(view.last_build, Some(SECOND * 10));
        for (elapsed, expected) in [(4, true), (5, false)] {
            let mut view = view;
            view.touch(&auto, at(20));
            view.build_created();
            view.begin(at(21));
            assert_eq!(view.touch(&auto, at(21 + elapsed)).supersedes, expected, "after {elapsed} s of 10");
        }
    }

    #[test]
    fn auto_finishes_what_no_other_build_could_replace_in_time() {
        let auto = policy(OnTouch::Auto);
        let mut view = building(&auto);
        view.publish(&auto, 1, at(11)).unwrap();
        // Readers may be 60 s behind; another build needs 1 s of quiet and 10 s.
        for (behind, expected) in [(48, true), (49, false)] {
            let mut view = view;
            view.touch(&auto, at(100));
            view.build_created();
            view.begin(at(100 + behind - 1));
            let mut aborted = view;
            assert_eq!(view.touch(&auto, at(100 + behind)).supersedes, expected, "{behind} s behind");
            let abort = policy(OnTouch::Abort);
            assert!(aborted.touch(&abort, at(100 + behind)).supersedes, "`abort` looks at the limit alone");
            let any = ViewPolicy { max_staleness_ms: None, ..auto };
            let mut unlimited = aborted;
            unlimited.build_created();
            unlimited.begin(at(100 + behind));
            assert!(unlimited.touch(&any, at(101 + behind)).supersedes, "there is no limit to keep");
        }
    }

    #[test]
    fn staleness_limit_lets_a_build_through() {
        let policy = policy(OnTouch::Abort);
        let mut view = building(&policy);
        assert!(view.touch(&policy, at(59)).supersedes);
        assert_eq!(view.due_at, Some(at(60)), "a new wait, which the staleness limit ends");
        view.build_created();
        view.begin(at(60));
        assert!(!view.touch(&policy, at(61)).supersedes, "60 s behind: this build is let through");
        view.publish(&policy, 2, at(65)).unwrap();
        assert_eq!((view.live, view.wanted), (2, 3));
        assert_eq!(
            view.dirty_since,
            Some(at(61)),
            "staleness now counts from the touch that it does not show"
        );
    }

    #[test]
    fn touches_without_end_begin_no_more_builds_than_the_debounce_allows() {
        let policy = ViewPolicy { max_staleness_ms: None, ..ViewPolicy::default() };
        let mut view = Versions::default();
        let mut builds = 0;
        // A thousand touches a second for a minute; whatever is due begins at once, and the next touch ends it.
        for ms in 0..60_000 {
            let now = at(0).plus(Duration::from_millis(ms));
            view.touch(&policy, now);
            if view.is_due(now) {
                view.build_created();
                view.begin(now);
                builds += 1;
            }
        }
        assert!((49..=51).contains(&builds), "one each quiet second after the first 10 s: {builds}");
    }

    #[test]
    fn no_build_begins_while_it_is_paused_and_one_that_has_begun_ends() {
        let policy = policy(OnTouch::Abort);
        let mut view = Versions::default();
        view.touch(&policy, at(0));
        view.build_created();
        assert!(view.pause(&policy, at(1)), "it has not begun");
        assert_eq!((view.has_build, view.status, view.is_due(at(99))), (false, ViewStatus::Pending, false));
        view.resume();
        assert!(view.is_due(at(99)));

        let mut view = building(&policy);
        assert!(!view.pause(&policy, at(2)), "it has begun");
        assert!(!view.touch(&policy, at(3)).supersedes);
        view.publish(&policy, 1, at(4)).unwrap();
        assert_eq!((view.live, view.wanted, view.is_due(at(99))), (1, 2, false));
    }

    #[test]
    fn what_is_restored_is_newer_than_all_and_paused() {
        let policy = policy(OnTouch::Abort);
        let mut view = building(&policy);
        view.touch(&policy, at(2));
        view.build_created();
        view.begin(at(3));
        let restored = view.restore();
        assert_eq!(restored, Touched { version: 3, supersedes: true });
        assert_eq!((view.live, view.wanted, view.processing), (3, 3, None));
        assert_eq!(view.publish(&policy, 2, at(4)), Err(PublishRefused::NotProcessing { version: 2 }));
        view.touch(&policy, at(5));
        assert!(!view.is_due(at(99)));
        assert_eq!(view.staleness(at(6)), SECOND);
    }

    #[test]
    fn publication_of_another_version_changes_nothing() {
        let policy = policy(OnTouch::Abort);
        let mut view = building(&policy);
        let before = view;
        assert_eq!(view.publish(&policy, 7, at(2)), Err(PublishRefused::NotProcessing { version: 7 }));
        assert_eq!(view, before);
    }

    #[test]
    fn failed_build_leaves_the_live_version_and_waits_for_a_touch() {
        let policy = policy(OnTouch::Abort);
        let mut view = building(&policy);
        view.publish(&policy, 1, at(2)).unwrap();
        view.touch(&policy, at(3));
        view.build_created();
        view.begin(at(4));
        view.build_ended(&policy, at(5));
        assert_eq!((view.live, view.status, view.due_at), (1, ViewStatus::Failed, None));
        assert_eq!(view.staleness(at(10)), SECOND * 7, "visibly stale");
        view.touch(&policy, at(11));
        assert_eq!(view.status, ViewStatus::Pending);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Touch,
        Rebuild,
        Reconcile,
        Begin,
        Publish(i64),
        PublishProcessing,
        Fail,
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Touch),
            1 => Just(Step::Rebuild),
            4 => Just(Step::Reconcile),
            4 => Just(Step::Begin),
            1 => (0i64..20).prop_map(Step::Publish),
            4 => Just(Step::PublishProcessing),
            1 => Just(Step::Fail),
            4 => (1u64..5_000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn versions_never_go_back_and_stale_views_always_have_a_way_on(
            steps in proptest::collection::vec(step(), 1..200),
            on_touch in prop_oneof![Just(OnTouch::Abort), Just(OnTouch::Finish), Just(OnTouch::Auto)],
        ) {
            let policy = ViewPolicy { on_touch, max_staleness_ms: Some(5_000), ..ViewPolicy::default() };
            let mut view = Versions::default();
            let mut now = at(0);
            for step in steps {
                let before = view;
                match step {
                    Step::Touch => { view.touch(&policy, now); }
                    Step::Rebuild => { view.rebuild(&policy, now); }
                    Step::Reconcile => if view.is_due(now) { view.build_created(); },
                    Step::Begin => if view.has_build { view.begin(now); },
                    Step::Publish(version) => { let _ = view.publish(&policy, version, now); }
                    Step::PublishProcessing => if let Some(version) = view.processing {
                        view.publish(&policy, version, now).unwrap();
                    },
                    Step::Fail => if view.has_build { view.build_ended(&policy, now); },
                    Step::Wait(ms) => now = now.plus(Duration::from_millis(ms)),
                }
                prop_assert!(view.live >= before.live && view.wanted >= before.wanted);
                prop_assert!(view.lease_epoch >= before.lease_epoch);
                prop_assert!(view.live <= view.wanted);
                if let Some(processing) = view.processing {
                    prop_assert!(view.live < processing && processing <= view.wanted && view.has_build);
                }
                if view.wanted > view.live {
                    let goes_on = view.has_build || view.due_at.is_some() || view.status == ViewStatus::Failed;
                    prop_assert!(goes_on, "stuck: {view:?}");
                    prop_assert!(view.dirty_since.is_some());
                    if let (Some(due), Some(since)) = (view.due_at, view.dirty_since) {
                        prop_assert!(due <= since.plus(Duration::from_secs(5)).max(now));
                    }
                }
            }
        }
    }
}
