//! The protocol of views as a value: what can be seen of the store, and everything that can happen to it.
//!
//! Versions move by `recache_model::view`, as in the store; jobs, leases and tokens are written here once more, from the design
//! rather than from the SQL. Time stands still: debounce is nothing, so that every order of steps is possible.

use recache_model::time::Timestamp;
use recache_model::view::{OnTouch, Versions, ViewPolicy};

pub(crate) const VIEWS: usize = 2;
pub(crate) const WORKERS: usize = 3;
pub(crate) const VERSIONS: i64 = 3;
/// Attempts of a build job.
pub(crate) const ATTEMPTS: u8 = 2;
/// The moment at which all happens.
pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

pub(crate) fn policy(on_touch: OnTouch) -> ViewPolicy {
    ViewPolicy { debounce_quiet_ms: 0, debounce_max_ms: 0, on_touch, max_staleness_ms: None }
}

/// A build job that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Build {
    /// Which of the view's jobs, counted from 0.
    pub(crate) number: u8,
    pub(crate) attempt: u8,
    /// Raised by every claim and whenever it is taken away.
    pub(crate) epoch: u8,
    /// Who has it; `None` while it is queued.
    pub(crate) holder: Option<usize>,
}

/// What a worker believes to have, which may be true no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    pub(crate) view: usize,
    pub(crate) number: u8,
    pub(crate) epoch: u8,
    /// The version that it was told to make.
    pub(crate) begun: Option<i64>,
    /// It has put its item since.
    pub(crate) has_put: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) versions: Versions,
    pub(crate) build: Option<Build>,
    /// Build jobs that there have been.
    pub(crate) builds: u8,
    /// The version whose item readers see.
    pub(crate) shown: i64,
    /// The newest version that some reader has seen.
    pub(crate) read: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) views: [View; VIEWS],
    pub(crate) tokens: [Option<Token>; WORKERS],
    pub(crate) crashes_left: u8,
}

/// Everything that can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Touch(usize),
    Reconcile(usize),
    Claim(usize, usize),
    Begin(usize),
    Put(usize),
    /// The worker asks whether it still has its job, and lets go if not.
    Checkpoint(usize),
    Publish(usize),
    /// The worker says that it failed for good.
    Fail(usize),
    /// The worker's session ends; it goes on believing in its token, as one that was only asleep does.
    Pause(usize),
    /// Its session ends and it forgets everything.
    Crash(usize),
    Read(usize),
}

/// What the worker is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Refused,
}

impl World {
    pub(crate) fn new(crashes: u8) -> Self {
        let view = View { versions: Versions::default(), build: None, builds: 0, shown: 0, read: 0 };
        Self { views: [view.clone(), view], tokens: [None; WORKERS], crashes_left: crashes }
    }

    /// What could happen now. A step that the store must refuse is one too.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (place, view) in self.views.iter().enumerate() {
            if view.versions.wanted < VERSIONS {
                steps.push(Step::Touch(place));
            }
            if view.versions.is_due(NOW) {
                steps.push(Step::Reconcile(place));
            }
            if view.read != view.shown {
                steps.push(Step::Read(place));
            }
        }
        for worker in 0..WORKERS {
            let Some(token) = self.tokens[worker] else {
                // All that have nothing are alike: the first of them stands for all.
                if self.tokens[..worker].iter().all(Option::is_some) {
                    for (place, view) in self.views.iter().enumerate() {
                        if view.build.is_some_and(|build| build.holder.is_none() && build.attempt < ATTEMPTS)
                        {
                            steps.push(Step::Claim(worker, place));
                        }
                    }
                }
                continue;
            };
            steps.extend([Step::Checkpoint(worker), Step::Fail(worker)]);
            match token.begun {
                None => steps.push(Step::Begin(worker)),
                Some(_) if !token.has_put => steps.push(Step::Put(worker)),
                Some(_) => steps.push(Step::Publish(worker)),
            }
            if self.crashes_left > 0 && self.holds(worker) {
                steps.extend([Step::Pause(worker), Step::Crash(worker)]);
            }
        }
        steps
    }

    /// Whether the worker's token is good.
    pub(crate) fn holds(&self, worker: usize) -> bool {
        let Some(token) = self.tokens[worker] else { return false };
        self.views[token.view].build.is_some_and(|build| {
            build.number == token.number && build.epoch == token.epoch && build.holder == Some(worker)
        })
    }

    /// Makes it happen.
    pub(crate) fn take(&mut self, step: Step, policy: &ViewPolicy) -> Answer {
        match step {
            Step::Touch(place) => {
                let view = &mut self.views[place];
                if view.versions.touch(policy, NOW).supersedes {
                    view.build = None;
                }
                Answer::Done
            }
            Step::Reconcile(place) => {
                let view = &mut self.views[place];
                view.versions.build_created();
                view.build = Some(Build { number: view.builds, attempt: 0, epoch: 0, holder: None });
                view.builds += 1;
                Answer::Done
            }
            Step::Claim(worker, place) => {
                let Some(build) = &mut self.views[place].build else { return Answer::Refused };
                build.attempt += 1;
                build.epoch += 1;
                build.holder = Some(worker);
                let (number, epoch) = (build.number, build.epoch);
                self.tokens[worker] = Some(Token { view: place, number, epoch, begun: None, has_put: false });
                Answer::Done
            }
            Step::Begin(worker) => self.with(worker, |view, token| {
                token.begun = Some(view.versions.begin(NOW));
                token.has_put = false;
                false
            }),
            Step::Put(worker) => self.with(worker, |_, token| {
                token.has_put = true;
                false
            }),
            Step::Checkpoint(worker) => self.with(worker, |_, _| false),
            Step::Publish(worker) => self.with(worker, |view, token| {
                let version = token.begun.unwrap_or(0);
                if view.versions.publish(policy, version, NOW).is_ok() {
                    view.shown = version;
                    view.build = None;
                }
                true
            }),
            Step::Fail(worker) => self.with(worker, |view, _| {
                view.versions.build_ended(policy, NOW);
                view.build = None;
                true
            }),
            Step::Pause(worker) | Step::Crash(worker) => {
                self.crashes_left -= 1;
                if let Some(token) = self.tokens[worker] {
                    self.lose(token.view, policy);
                }
                if matches!(step, Step::Crash(_)) {
                    self.tokens[worker] = None;
                }
                Answer::Done
            }
            Step::Read(place) => {
                let view = &mut self.views[place];
                view.read = view.shown;
                Answer::Done
            }
        }
    }

    /// What a worker does to its view; `act` tells whether it is done with the job. One whose token is no longer good changes nothing,
    /// and lets go.
    fn with(&mut self, worker: usize, act: impl FnOnce(&mut View, &mut Token) -> bool) -> Answer {
        if !self.holds(worker) {
            self.tokens[worker] = None;
            return Answer::Refused;
        }
        if let Some(mut token) = self.tokens[worker] {
            let is_done = act(&mut self.views[token.view], &mut token);
            self.tokens[worker] = (!is_done).then_some(token);
        }
        Answer::Done
    }

    /// The sweep takes a build from its dead worker: back to the queue, or failed when no attempt is left.
    fn lose(&mut self, place: usize, policy: &ViewPolicy) {
        let view = &mut self.views[place];
        let Some(build) = &mut view.build else { return };
        build.epoch += 1;
        build.holder = None;
        if build.attempt >= ATTEMPTS {
            view.build = None;
            view.versions.build_ended(policy, NOW);
        }
    }
}
