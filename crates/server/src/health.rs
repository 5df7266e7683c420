//! Whether the server can do its work: found out at most once a second, however many ask.

use std::time::Duration;

use recache_api::{Health, HealthStatus};
use recache_cache::Condition;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::documents;
use crate::state::App;

/// A store that takes longer than this to commit one small transaction is not ready.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// A cache is asked for no longer than this.
const CACHE_WITHIN: Duration = Duration::from_millis(500);
/// A verdict is good for this long.
const FRESH: Duration = Duration::from_secs(1);

/// The last verdict.
#[derive(Debug, Default)]
pub(crate) struct Readiness(Mutex<Option<Looked>>);

/// A verdict, and what was found beside it.
#[derive(Debug, Clone)]
pub(crate) struct Looked {
    at: Instant,
    pub(crate) health: Health,
    /// How long the small transaction took.
    pub(crate) commit: Option<Duration>,
}

impl Readiness {
    /// The verdict, no older than a second. Those who ask at the same time wait for one look.
    pub(crate) async fn look(&self, app: &App) -> Looked {
        let mut last = self.0.lock().await;
        if let Some(last) = last.as_ref().filter(|last| last.at.elapsed() < FRESH) {
            return stopping(last.clone(), app);
        }
        let looked = look(app).await;
        *last = Some(looked.clone());
        stopping(looked, app)
    }
}

/// A server that is being stopped takes no new work, whatever was found a moment ago.
fn stopping(mut looked: Looked, app: &App) -> Looked {
    if app.stop().is_cancelled() {
        looked.health.status = HealthStatus::NotReady;
        looked.health.reasons.push("the server is stopping".to_owned());
    }
    looked
}

async fn look(app: &App) -> Looked {
    let started = Instant::now();
    let writable = tokio::time::timeout(READY_WITHIN, app.store().check_writable()).await;
    let mut reasons = Vec::new();
    match &writable {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            // What the database said may name hosts and users; it is for the log.
            tracing::warn!(%error, "not ready: the store cannot write");
            reasons.push("the store cannot commit a write; the log says why".to_owned());
        }
        Err(_) => {
            let within = READY_WITHIN.as_millis();
            reasons.push(format!("the store took longer than {within} ms to commit a small transaction"));
        }
    }
    let commit = reasons.is_empty().then(|| started.elapsed());
    let mut degraded = Vec::new();
    match tokio::time::timeout(CACHE_WITHIN, app.engine().cache().health()).await {
        Ok(cache) if cache.condition == Condition::Degraded => {
            degraded.push(format!(
                "the cache ({}) is degraded; everything works without it, slower",
                cache.provider
            ));
        }
        Ok(_) => {}
        Err(_) => degraded.push(format!("the cache did not answer within {} ms", CACHE_WITHIN.as_millis())),
    }
    degraded.extend(app.gate().trouble());
    let health = Health {
        schema: Health::SCHEMA.to_owned(),
        status: if reasons.is_empty() { HealthStatus::Ready } else { HealthStatus::NotReady },
        reasons,
        degraded,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store: app.store().kind().to_owned(),
        checked_at: documents::instant(app.clock().now()),
    };
    Looked { at: Instant::now(), health, commit }
}
