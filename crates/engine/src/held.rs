//! The jobs that this process holds, and how to stop them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use recache_model::ids::JobId;
use recache_store::{LeaseToken, Revoked};
use recache_worker::{Stop, StopSignal};

#[derive(Debug, Default)]
pub(crate) struct HeldJobs {
    jobs: Mutex<HashMap<JobId, (LeaseToken, StopSignal)>>,
}

impl HeldJobs {
    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, (LeaseToken, StopSignal)>> {
        // A panic elsewhere cannot leave a map of plain values half changed.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, token: LeaseToken) -> StopSignal {
        let signal = StopSignal::new();
        if let Some((_, former)) = self.jobs().insert(token.job, (token, signal.clone())) {
            // It was taken away and came back here before anybody said so.
            former.stop(Stop::LeaseLost);
        }
        signal
    }

    /// Forgets a job, unless it was claimed again meanwhile.
    pub(crate) fn remove(&self, token: LeaseToken) {
        let mut jobs = self.jobs();
        if jobs.get(&token.job).is_some_and(|(held, _)| *held == token) {
            jobs.remove(&token.job);
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.jobs().len()
    }

    pub(crate) fn tokens(&self) -> Vec<LeaseToken> {
        self.jobs().values().map(|(token, _)| *token).collect()
    }

    pub(crate) fn token_of(&self, job: JobId) -> Option<LeaseToken> {
        self.jobs().get(&job).map(|(token, _)| *token)
    }

    pub(crate) fn stop(&self, token: LeaseToken, why: Stop) {
        if let Some((held, signal)) = self.jobs().get(&token.job)
            && *held == token
        {
            signal.stop(why);
        }
    }

    pub(crate) fn stop_all(&self, why: Stop) {
        for (_, signal) in self.jobs().values() {
            signal.stop(why);
        }
    }
}

/// What a handler is told when its token is no longer good.
pub(crate) fn stop_for(revoked: Revoked) -> Stop {
    match revoked {
        Revoked::Cancelled => Stop::Cancelled,
        Revoked::Superseded => Stop::Superseded,
        Revoked::TakenOver | Revoked::Finished | Revoked::Gone => Stop::LeaseLost,
    }
}
