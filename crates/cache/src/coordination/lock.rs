//! Locks: one holder at a time, for a bounded time, known by a random token.

use std::time::Duration;

use super::{Error, Shared};
use crate::breaker::Tick;

/// The longest that a lock is held when nothing else is said.
pub const LOCK_LIFE_MAX_DEFAULT: Duration = Duration::from_hours(1);

/// The longest pause between two attempts of one who waits, in microseconds.
const PAUSE_US_MAX: u64 = 50_000;

/// A lock that the fleet shares. Whoever takes it holds it until it is released or its life ends, whichever is first.
#[derive(Debug, Clone)]
pub struct Lock(pub(super) Shared);

impl Lock {
    /// Takes it for `life`, if nobody holds it.
    pub async fn take(&self, life: Duration) -> Result<Option<Held>, Error> {
        let life_max = self.0.parts.limits.lock_life_max;
        if life.is_zero() || life > life_max {
            return Err(Error::Invalid(format!(
                "a lock lives for more than 0 s and at most {life_max:?}, not {life:?}"
            )));
        }
        let token = self.0.parts.chance.token();
        // From before it was asked for: the holder's time ends before anybody else's view of it.
        let taken_at = self.0.parts.monotonic.now();
        let fence = self.0.in_time(self.0.protocol.take(&self.0.name, token, life)).await?;
        let Some(fence) = fence else { return Ok(None) };
        let held = Held { lock: self.clone(), token, fence, taken_at, until: taken_at.after(life) };
        // An answer that took so long tells of a lock that may be somebody else's by now.
        Ok(held.is_held().then_some(held))
    }

    /// Takes it for `life`; while somebody else holds it, or the backend gives no answer, tries again for up to
    /// `patience`.
    pub async fn take_within(&self, life: Duration, patience: Duration) -> Result<Option<Held>, Error> {
        let until = self.0.parts.monotonic.now().after(patience);
        loop {
            let held = self.take(life).await;
            let is_over = self.0.parts.monotonic.now() >= until;
            match held {
                Ok(None) if !is_over => {}
                Err(error) if !is_over && !matches!(error, Error::Invalid(_)) => {}
                ended => return ended,
            }
            let pause_us = self.0.parts.chance.draw() % PAUSE_US_MAX;
            tokio::time::sleep(Duration::from_micros(pause_us.max(1_000))).await;
        }
    }
}

/// A lock that is held. Dropping it releases nothing: it then ends with its life.
#[derive(Debug)]
pub struct Held {
    lock: Lock,
    token: u128,
    fence: u64,
    taken_at: Tick,
    until: Tick,
}

impl Held {
    /// Who holds it: drawn at random for this one holding.
    pub fn token(&self) -> u128 {
        self.token
    }

    /// Higher than that of every earlier holder, as long as the store keeps its data; begins at the present time in
    /// microseconds, so that it also rises over a loss of data. What is protected may refuse lower ones.
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// Whether its life has not ended, by this process's own clock, which ends it before others may take it.
    pub fn is_held(&self) -> bool {
        self.lock.0.parts.monotonic.now() < self.until
    }

    /// How long it still lives.
    pub fn remaining(&self) -> Duration {
        self.until.since(self.lock.0.parts.monotonic.now())
    }

    /// Lets it live for `life` from now; false when it was lost. All its life together is bounded.
    pub async fn extend(&mut self, life: Duration) -> Result<bool, Error> {
        let lock = &self.lock.0;
        let now = lock.parts.monotonic.now();
        if now >= self.until {
            return Ok(false);
        }
        let life_max = lock.parts.limits.lock_life_max;
        if life.is_zero() || now.after(life) > self.taken_at.after(life_max) {
            return Err(Error::Invalid(format!(
                "a lock lives for at most {life_max:?}, extensions included"
            )));
        }
        let extended = lock.in_time(lock.protocol.extend(&lock.name, self.token, self.fence, life)).await;
        match extended {
            Ok(true) => self.until = now.after(life),
            Ok(false) => self.until = Tick::ZERO,
            // It may live for the old time or for the new one: the earlier end is safe.
            Err(_) => self.until = self.until.min(now.after(life)),
        }
        extended
    }

    /// Ends it; false when it was not held any more, and then nothing is changed.
    pub async fn release(self) -> Result<bool, Error> {
        let lock = &self.lock.0;
        lock.in_time(lock.protocol.release(&lock.name, self.token, self.fence)).await
    }
}
