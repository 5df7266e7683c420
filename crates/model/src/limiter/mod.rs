//! How many jobs a process may run at once: as many as go through without standing in each other's way.
//!
//! A state machine without a clock: what was measured in one stretch of time goes in ([`Observation`]), the limit for the next
//! one comes out. It follows how TCP Vegas keeps a queue short (L. S. Brakmo, L. L. Peterson, 1995): jobs that take longer
//! together than they take when few run are taken to queue for something, `running * (1 - 1 / slowdown)` of them; the limit
//! rises while hardly any do and falls while many do. It begins low and doubles until jobs begin to queue, so that what a handler takes
//! when few run is seen: the least mean that was. Now and then half of the limit is used for a moment, to see it anew.
//!
//! Two more things bring it down: waits for connections of the database, and calls that all fail, for which it goes to zero. From
//! zero it comes back by itself, with one job, after a rest that doubles up to [`REST_MAX`].
//!
//! A slowdown that does not lessen when less runs is not of the limit's making: it is taken for the new normal, and the limit goes back
//! up. It never falls below one for slowness alone.

mod baseline;
mod fair;

use std::time::Duration;

use baseline::Baselines;
pub use baseline::HANDLERS_MAX;
pub use fair::{Fair, fair_claim};

/// One stretch of time.
pub const WINDOW: Duration = Duration::from_millis(500);
/// The longest rest at zero, in windows.
pub const REST_MAX: u32 = 10;
/// From so long a mean wait for a connection on the limit does not rise.
const POOL_WAIT_FULL: Duration = Duration::from_millis(2);
/// From here on it falls.
const POOL_WAIT_MUCH: Duration = Duration::from_millis(5);
/// From here on it falls fast.
const POOL_WAIT_TOO_MUCH: Duration = Duration::from_millis(50);
/// From here on nothing more is begun for a while.
const POOL_WAIT_HOPELESS: Duration = Duration::from_secs(1);
/// Takings of connections that say something.
const TAKEN_MIN: u64 = 10;
/// The part of the limit that must have been in use for it to be what holds work back.
const USED_FROM: f64 = 0.8;
/// Windows in a row in which less ran and nothing got faster.
const IN_VAIN_MAX: u32 = 2;
/// The first limit.
const START: f64 = 4.0;
/// After so many windows in use half of the limit is used for two, to see what handlers take then.
const LOOK_EVERY: u32 = 240;

/// Runs of one handler that ended in a stretch of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs {
    /// Which one.
    pub handler: String,
    /// How many.
    pub count: u32,
    /// How long they took, together.
    pub sum: Duration,
}

/// What was measured in one stretch of time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    /// The most jobs that ran at once.
    pub running_max: u32,
    /// What ended, by handler.
    pub runs: Vec<Runs>,
    /// Connections that were taken, and how long for, on average, each was waited.
    pub taken: u64,
    /// The mean wait for them.
    pub pool_wait: Duration,
    /// Callers who wait for one at its end.
    pub waiting: u32,
    /// Calls of the database that were answered.
    pub answered: u32,
    /// Calls that failed.
    pub failed: u32,
}

/// What held the limit where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It is at its highest, or nothing was to be decided.
    Steady,
    /// Hardly anything queued.
    Rises,
    /// Jobs slowed each other down.
    Slowdown,
    /// Jobs waited for connections.
    PoolWait,
    /// The database could not be reached, or only after too long.
    Resting,
    /// After a rest one job is let through.
    Probing,
    /// Less ran, and nothing got faster: it is how long things take now.
    NewNormal,
    /// For a moment less runs, to see how long things take then.
    Looking,
}

impl Reason {
    /// As it is shown: `slowdown`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Rises => "rises",
            Self::Slowdown => "slowdown",
            Self::PoolWait => "pool_wait",
            Self::Resting => "resting",
            Self::Probing => "probing",
            Self::NewNormal => "new_normal",
            Self::Looking => "looking",
        }
    }
}

/// How many jobs may run.
#[derive(Debug, Clone, PartialEq)]
pub struct Limiter {
    /// It is never higher.
    limit_max: f64,
    limit: f64,
    reason: Reason,
    baselines: Baselines,
    state: State,
    /// How long the next rest is, in windows.
    rest_next: u32,
    lowered: Option<Lowered>,
    /// Doubles until something speaks against it.
    is_starting: bool,
    /// Windows in use since the last look.
    unseen: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Open,
    /// For so many windows more; then with how much it goes on.
    Looking(u32, f64),
    /// For so many windows more; then with how much it goes on.
    Resting(u32, f64),
    Probing(f64),
}

/// The limit was lowered for slowness: what it was before, how slow it was, and how often it was not faster since.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Lowered {
    from: f64,
    slowdown: f64,
    in_vain: u32,
}

impl Limiter {
    /// Begins low; it is at the highest limit within seconds where nothing speaks against it.
    pub fn new(limit_max: u32) -> Self {
        let limit_max = f64::from(limit_max.max(1));
        Self {
            limit_max,
            limit: START.min(limit_max),
            reason: Reason::Steady,
            baselines: Baselines::default(),
            state: State::Open,
            rest_next: 1,
            lowered: None,
            is_starting: true,
            unseen: 0,
        }
    }

    /// So many jobs may run at once; 0: none may begin.
    pub fn limit(&self) -> u32 {
        whole(self.limit)
    }

    /// Why it is as it is.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Decides the limit of the next stretch of time.
    pub fn observe(&mut self, seen: &Observation) -> u32 {
        let slowdown = self.baselines.slowdown(&seen.runs);
        self.reason = self.decide(seen, slowdown);
        self.limit()
    }

    fn decide(&mut self, seen: &Observation, slowdown: Option<f64>) -> Reason {
        let is_dead = seen.failed > 0 && seen.answered == 0;
        let is_hopeless = seen.taken > 0 && seen.pool_wait >= POOL_WAIT_HOPELESS;
        match self.state {
            State::Resting(left, before) if left > 1 => {
                self.state = State::Resting(left - 1, before);
                return Reason::Resting;
            }
            State::Resting(_, before) => {
                self.state = State::Probing(before);
                self.limit = 1.0;
                return Reason::Probing;
            }
            State::Probing(before) if is_dead || is_hopeless => return self.rest(before),
            // Nothing came of it yet: it goes on with one.
            State::Probing(_) if seen.answered == 0 => return Reason::Probing,
            State::Probing(before) => {
                self.state = State::Open;
                self.rest_next = 1;
                // Not as many at once as when it broke.
                self.limit = (before / 2.0).max(1.0);
                return Reason::Rises;
            }
            State::Open if is_dead || is_hopeless => return self.rest(self.limit),
            State::Looking(_, before) if is_dead || is_hopeless => return self.rest(before),
            // What ended in the first window had begun among more.
            State::Looking(left, before) if left > 1 => {
                self.state = State::Looking(left - 1, before);
                return Reason::Looking;
            }
            State::Looking(_, before) => {
                self.baselines.accept(&seen.runs);
                self.state = State::Open;
                self.set(before);
                return Reason::Steady;
            }
            State::Open => {}
        }
        let waits = if seen.taken >= TAKEN_MIN { seen.pool_wait } else { Duration::ZERO };
        if waits >= POOL_WAIT_MUCH {
            self.is_starting = false;
            let part = if waits >= POOL_WAIT_TOO_MUCH { 0.5 } else { 0.8 };
            self.set(self.limit.min(f64::from(seen.running_max).max(1.0)) * part);
            return Reason::PoolWait;
        }
        if seen.taken < TAKEN_MIN && seen.waiting > 0 {
            // Hardly anybody got a connection, and somebody waits for one: how long is not known before the wait is over. More jobs would
            // only wait too.
            self.is_starting = false;
            return Reason::PoolWait;
        }
        let running = f64::from(seen.running_max);
        let is_used = running >= f64::from(self.limit()) * USED_FROM;
        let Some(slowdown) = slowdown else {
            // Nothing tells how slow it is: what is at its limit may try more.
            return if is_used && waits < POOL_WAIT_FULL { self.rise() } else { Reason::Steady };
        };
        self.unseen += u32::from(is_used);
        if self.unseen >= LOOK_EVERY && self.limit >= 2.0 {
            self.unseen = 0;
            self.lowered = None;
            self.state = State::Looking(2, self.limit);
            self.limit = (self.limit / 2.0).max(1.0);
            return Reason::Looking;
        }
        if let Some(lowered) = &mut self.lowered {
            if slowdown > lowered.slowdown * 0.9 {
                lowered.in_vain += 1;
                if lowered.in_vain >= IN_VAIN_MAX {
                    let from = lowered.from;
                    self.lowered = None;
                    self.baselines.accept(&seen.runs);
                    self.set(from);
                    return Reason::NewNormal;
                }
            } else {
                self.lowered = None;
            }
        }
        let queued = running * (1.0 - 1.0 / slowdown);
        let (few, many) = ((self.limit * 0.1).max(1.0), (self.limit * 0.3).max(2.0));
        if queued > many {
            self.is_starting = false;
            let before = self.limit.min(running.max(1.0));
            // As many as would not have queued, and a few.
            self.set((before / slowdown + few).clamp(before * 0.5, before));
            self.lowered.get_or_insert(Lowered { from: before, slowdown, in_vain: 0 });
            Reason::Slowdown
        } else if queued < few && is_used && waits < POOL_WAIT_FULL {
            self.rise()
        } else {
            self.is_starting &= queued < few;
            Reason::Steady
        }
    }

    fn rise(&mut self) -> Reason {
        if self.limit >= self.limit_max {
            return Reason::Steady;
        }
        let more = if self.is_starting { self.limit } else { (self.limit * 0.1).max(1.0) };
        self.set(self.limit + more);
        Reason::Rises
    }

    fn rest(&mut self, before: f64) -> Reason {
        self.state = State::Resting(self.rest_next, before);
        self.rest_next = (self.rest_next * 2).min(REST_MAX);
        self.limit = 0.0;
        Reason::Resting
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(1.0, self.limit_max);
    }
}

/// The whole part of a number that is not negative.
fn whole(value: f64) -> u32 {
    // No float becomes an integer without a cast; it is looked for.
    let (mut low, mut high) = (0_u32, u32::MAX);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if f64::from(middle) <= value + 1e-9 { low = middle } else { high = middle - 1 }
    }
    low
}
