//! Whether the server can do its work: found out at most once a second, however many ask.

use std::time::Duration;

use recache_api::{Health, HealthStatus};
use recache_cache::Condition;
use recache_model::time::Timestamp;
use recache_store::{Leader, SessionsSeen};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::documents;
use crate::state::App;

/// A store that takes longer than this to commit one small transaction is not ready.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// A cache is asked for no longer than this.
const CACHE_WITHIN: Duration = Duration::from_millis(500);
/// The parts of a detailed look take no longer than this, each.
pub(crate) const PART_WITHIN: Duration = Duration::from_millis(500);
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

/// What is told in detail beside the verdict, found out at most once a second likewise.
#[derive(Debug, Default)]
pub(crate) struct Surroundings(Mutex<Option<Around>>);

/// What was found; what did not answer in time is not there.
#[derive(Debug, Clone)]
pub(crate) struct Around {
    at: Instant,
    store_now: Option<(Timestamp, Timestamp)>,
    pub(crate) sessions: Option<SessionsSeen>,
    pub(crate) leader: Option<Leader>,
    pub(crate) cache: Option<recache_cache::Health>,
}

impl Around {
    /// What the store's clock says now.
    pub(crate) fn store_now(&self) -> Option<Timestamp> {
        self.store_now.map(|(store, _)| store.plus(self.at.elapsed()))
    }

    /// How far the store's clock is ahead of this machine's.
    pub(crate) fn clock_ahead_ms(&self) -> Option<i64> {
        self.store_now.map(|(store, here)| (store.micros() - here.micros()) / 1_000)
    }
}

impl Surroundings {
    pub(crate) async fn look(&self, app: &App) -> Around {
        let mut last = self.0.lock().await;
        if let Some(last) = last.as_ref().filter(|last| last.at.elapsed() < FRESH) {
            return last.clone();
        }
        let maintenance = app.store().maintenance();
        let clock = async { app.store().now().await.map(|now| (now, app.clock().now())) };
        let (store_now, sessions, leader, cache) = tokio::join!(
            tokio::time::timeout(PART_WITHIN, clock),
            tokio::time::timeout(PART_WITHIN, maintenance.sessions_seen()),
            tokio::time::timeout(PART_WITHIN, maintenance.leader_find(recache_engine::MAINTENANCE)),
            tokio::time::timeout(PART_WITHIN, app.engine().cache().health()),
        );
        let found = Around {
            at: Instant::now(),
            store_now: store_now.ok().and_then(Result::ok),
            sessions: sessions.ok().and_then(Result::ok),
            leader: leader.ok().and_then(Result::ok).flatten(),
            cache: cache.ok(),
        };
        *last = Some(found.clone());
        found
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
