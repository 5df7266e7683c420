//! `local_only`: everything in this process. Exact here, unknown to every other process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{Error, Name, Parts, Protocol, Reading};
use crate::breaker::Tick;

#[derive(Debug)]
pub(super) struct Local {
    parts: Arc<Parts>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cells: HashMap<String, Vec<i64>>,
    gauges: HashMap<String, (i64, i64, Tick)>,
    locks: HashMap<String, (u128, Tick)>,
    last_fence: u64,
}

impl Local {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self { parts, state: Mutex::default() }
    }

    /// Nothing under it can panic half way.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn id(name: &Name) -> String {
    name.key("").as_str().to_owned()
}

#[async_trait]
impl Protocol for Local {
    async fn add(&self, name: &Name, deltas: &[i64]) -> Result<Vec<i64>, Error> {
        let mut state = self.state();
        let cells = state.cells.entry(id(name)).or_default();
        cells.resize(deltas.len(), 0);
        for (cell, delta) in cells.iter_mut().zip(deltas) {
            *cell = cell.saturating_add(*delta);
        }
        Ok(cells.clone())
    }

    async fn totals(&self, name: &Name, cells: usize) -> Result<Vec<i64>, Error> {
        let mut totals = self.state().cells.get(&id(name)).cloned().unwrap_or_default();
        totals.resize(cells, 0);
        Ok(totals)
    }

    async fn set_gauge(&self, name: &Name, value: i64) -> Result<(), Error> {
        let expires = self.parts.monotonic.now().after(self.parts.limits.instance_expiry);
        self.state().gauges.insert(id(name), (value, self.parts.clock.now().as_micros(), expires));
        Ok(())
    }

    async fn gauge(&self, name: &Name) -> Result<Vec<Reading>, Error> {
        let now = self.parts.monotonic.now();
        let reading = self.state().gauges.get(&id(name)).copied().filter(|(_, _, expires)| now < *expires);
        let instance = || self.parts.instance.to_string();
        Ok(reading
            .map(|(value, at_us, _)| Reading { instance: instance(), value, at_us })
            .into_iter()
            .collect())
    }

    async fn take(&self, name: &Name, token: u128, life: Duration) -> Result<Option<u64>, Error> {
        let now = self.parts.monotonic.now();
        let wall_us = u64::try_from(self.parts.clock.now().as_micros()).unwrap_or(0);
        let mut state = self.state();
        // Those that ended are forgotten here, so that names which are used once do not pile up.
        state.locks.retain(|_, (_, until)| now < *until);
        if state.locks.contains_key(&id(name)) {
            return Ok(None);
        }
        state.locks.insert(id(name), (token, now.after(life)));
        state.last_fence = (state.last_fence + 1).max(wall_us);
        Ok(Some(state.last_fence))
    }

    async fn extend(&self, name: &Name, token: u128, _fence: u64, life: Duration) -> Result<bool, Error> {
        let now = self.parts.monotonic.now();
        let mut state = self.state();
        let Some((holder, until)) = state.locks.get_mut(&id(name)) else { return Ok(false) };
        let is_held = *holder == token && now < *until;
        if is_held {
            *until = now.after(life);
        }
        Ok(is_held)
    }

    async fn release(&self, name: &Name, token: u128, _fence: u64) -> Result<bool, Error> {
        let now = self.parts.monotonic.now();
        let mut state = self.state();
        let is_held =
            state.locks.get(&id(name)).is_some_and(|(holder, until)| *holder == token && now < *until);
        if is_held {
            state.locks.remove(&id(name));
        }
        Ok(is_held)
    }
}
