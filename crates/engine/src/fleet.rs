//! Shares with the other processes what this one's cache answered, so that anyone can say what all of them did.

use std::sync::Arc;
use std::time::Duration;

use recache_cache::coordination::Instance;
use recache_cache::{Cache, FleetReads, SystemClock};

use crate::engine::Shared;

/// Between two times, on average.
const PAUSE: Duration = Duration::from_secs(5);

/// Of this run of this process, whose name among the others is that of its node.
pub(crate) fn reads(cache: &Cache, node: &str) -> FleetReads {
    let instance = Instance::new(node, std::process::id(), rand::random());
    FleetReads::new(cache, instance, Arc::new(SystemClock))
}

/// For as long as the engine runs, and once more at its end.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.ending.cancelled() => break,
            () = tokio::time::sleep(PAUSE.mul_f64(0.75 + rand::random::<f64>() * 0.5)) => {}
        }
        share(&shared).await;
    }
    share(&shared).await;
}

async fn share(shared: &Shared) {
    if let Err(error) = shared.fleet_reads.share().await {
        // The cache says itself that its backend is away.
        tracing::debug!(%error, "reads of the cache are shared the next time");
    }
}
