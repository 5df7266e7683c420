//! Workers in other processes and languages, who talk to this engine and not to its store.
//!
//! Whatever must outlive this process is in the store: a worker's session and its secret's digest, what it can do, which
//! jobs it holds under which tokens. What is remembered here (`memory.rs`) only saves looks at the store: after a crash any other engine on the
//! same store serves the same worker, and nothing is lost or done twice.
//!
//! A worker's session lives while the worker itself is heard of. An engine never extends it by its own: a frozen worker keeps
//! its connections, and its jobs must go to others all the same.
//!
//! One call carries everything ([`Call`]): ends of attempts, progress, lines and checkpoints, a sign of life, a claim, and how long to wait
//! for something to do. Every part may be repeated: tokens make ends idempotent, numbers make lines so, and a claim whose answer was
//! lost is answered again with the same jobs.

mod build;
mod call;
mod judge;
mod lobby;
mod memory;
mod offer;
mod open;
mod wait;

use std::sync::Arc;

use recache_model::ids::JobId;

pub use call::{Answer, Call, Claim, End, Report, Settle, Settled};
pub use offer::{Offer, lease_token_text, parse_lease_token};
pub use open::{LEASE_DEFAULT, LEASE_MAX, LEASE_MIN, NewWorker, Opened};

pub use recache_worker::Stop;

pub(crate) use memory::Memory;

use crate::engine::{Engine, Shared};
use crate::execute;
use crate::held::stop_for;

/// Serves workers elsewhere; cheap to clone.
#[derive(Debug, Clone)]
pub struct Remote {
    shared: Arc<Shared>,
}

/// A job may have been taken away: its worker is told, if it is served here.
pub(crate) async fn revoked(shared: &Shared, job: JobId) {
    let Some((known, token)) = shared.remote.holder(job) else { return };
    if let Ok(Some(why)) = shared.store.job_revoked(token).await {
        let why = stop_for(why);
        execute::count_stop(shared, why);
        shared.remote.stop(&known, token, why);
    }
}

impl Engine {
    /// Serves workers in other processes.
    pub fn remote(&self) -> Remote {
        Remote { shared: Arc::clone(&self.shared) }
    }
}

impl Remote {
    /// Gives workers no more jobs and lets no call wait any longer: the way to them closes. What they have ended is taken as before.
    pub fn retire(&self) {
        self.shared.remote.retiring.cancel();
    }
}
