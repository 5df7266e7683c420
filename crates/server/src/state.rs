//! What every handler can reach.

use std::sync::Arc;

use recache_engine::Engine;
use recache_model::time::{Clock, SystemClock};
use recache_store::Store;
use tokio_util::sync::CancellationToken;

use crate::access::{Auth, Gate, Rates};
use crate::frame::Admission;
use crate::health::{Readiness, Surroundings};
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::stream::Streams;

/// The state of a server; cheap to clone. Templates and the cache are the engine's.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    engine: Engine,
    settings: Settings,
    clock: Arc<dyn Clock>,
    gate: Gate,
    rates: Rates,
    admission: Admission,
    metrics: Metrics,
    readiness: Readiness,
    surroundings: Surroundings,
    streams: Streams,
    stop: CancellationToken,
}

impl App {
    /// A server over this engine. Without authentication it is for loopback addresses only, which [`crate::bind`] holds.
    pub fn new(engine: Engine, settings: Settings, auth: Auth) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let gate = Gate::new(auth, engine.store(), &clock);
        let stop = CancellationToken::new();
        Self(Arc::new(Parts {
            streams: Streams::new(&engine, &settings, !gate.is_open(), &stop),
            rates: Rates::new(settings.requests_per_second_max),
            admission: Admission::new(&settings),
            metrics: Metrics::new(&engine),
            readiness: Readiness::default(),
            surroundings: Surroundings::default(),
            gate,
            clock,
            stop,
            engine,
            settings,
        }))
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// The store below it.
    pub fn store(&self) -> &dyn Store {
        &**self.0.engine.store()
    }

    /// All figures as OpenMetrics text, as `/metrics` answers them.
    pub async fn figures(&self) -> Result<String, Refusal> {
        crate::routes::figures(self).await
    }

    /// The limits.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// What time it is on this machine.
    pub fn clock(&self) -> &dyn Clock {
        &*self.0.clock
    }

    /// Cancelled when the server is told to stop: what waits then waits no longer.
    pub fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.0.gate
    }

    pub(crate) fn rates(&self) -> &Rates {
        &self.0.rates
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.0.admission
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn streams(&self) -> &Streams {
        &self.0.streams
    }

    pub(crate) fn readiness(&self) -> &Readiness {
        &self.0.readiness
    }

    pub(crate) fn surroundings(&self) -> &Surroundings {
        &self.0.surroundings
    }

    /// Waits for something that ends by itself, for `wait` at most; the request gives its turn to others meanwhile. `None` when it did
    /// not end in time.
    pub(crate) async fn wait<T>(
        &self,
        turn: &crate::frame::Turn,
        wait: std::time::Duration,
        ending: impl Future<Output = recache_engine::Result<T>>,
    ) -> Result<Option<T>, Refusal> {
        let _place = turn.wait(self.admission())?;
        let wait = wait.min(self.settings().wait_max);
        tokio::select! {
            ended = tokio::time::timeout(wait, ending) => match ended {
                Ok(ended) => Ok(Some(ended?)),
                Err(_) => Ok(None),
            },
            () = self.stop().cancelled() => Ok(None),
        }
    }
}
