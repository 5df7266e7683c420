//! What both sides of the comparison share: the flights, the database, the engine's settings.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recache_cache::Cache;
use recache_engine::{Engine, Options};
use recache_store::{FlightStore, Leg, OpenOptions, Store, open_with_flights};
use recache_worker::Handlers;

use super::Failed;
use super::figures::Routes;
use super::show::{self, Show};

/// Jobs that run at once, on either side.
pub(super) const SLOTS: usize = 4;
/// Where both sides' jobs wait; not the default queue, which another worker on the same database may serve.
pub(super) const QUEUE: &str = "demo";
/// Where the builds of the view over the job history wait.
pub(super) const HISTORY_QUEUE: &str = "demo-history";
/// An interrupted demo waits no longer than this for its engines.
const END_MAX: Duration = Duration::from_secs(5);

/// A database with the flights in it.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) store: Arc<dyn Store>,
    pub(super) flights: Arc<dyn FlightStore>,
    pub(super) legs: Vec<Leg>,
    pub(super) routes: Routes,
    pub(super) seed: u64,
    /// What readers read through, and on which kind of server it is; `None`: this process's memory.
    pub(super) cache: Option<(Cache, &'static str)>,
    engines: Mutex<Vec<Engine>>,
}

impl Stage {
    /// Opens the database and loads the flights if they are not all there.
    pub(super) async fn set(
        url: &str,
        cache: Option<(Cache, &'static str)>,
        legs: Vec<Leg>,
        carriers: &[String],
        seed: u64,
        show: Show,
    ) -> Result<Self, Failed> {
        let (store, flights) = open_with_flights(&OpenOptions::new(url)).await?;
        let there = flights.flights_prepare().await?.flights;
        if there == i64::try_from(legs.len()).unwrap_or(i64::MAX) {
            show::line(&format!("{there} flights are in the database already"));
        } else {
            let bar = show.phase(&format!("Loading {} flights", legs.len()), 0);
            let began = tokio::time::Instant::now();
            let loaded = flights.flights_load(legs.clone()).await?.flights;
            bar.done(&format!("{loaded} flights loaded in {:.1} s", began.elapsed().as_secs_f64()));
        }
        let routes = Routes::new(flights.destinations_served(carriers).await?);
        Ok(Self { store, flights, legs, routes, seed, cache, engines: Mutex::default() })
    }

    /// An engine over the database; the same settings for both sides.
    pub(super) async fn engine(&self, handlers: Handlers) -> Result<Engine, Failed> {
        self.engine_of(handlers, QUEUE, SLOTS).await
    }

    /// One that serves a queue with so many slots.
    pub(super) async fn engine_of(
        &self,
        handlers: Handlers,
        queue: &str,
        slots: usize,
    ) -> Result<Engine, Failed> {
        let options = Options {
            slots,
            queues: vec![queue.to_owned()],
            drain: Duration::ZERO,
            grace: Duration::from_secs(1),
            ..Options::default()
        };
        let mut builder = Engine::builder(Arc::clone(&self.store)).handlers(handlers).options(options);
        if let Some((cache, _)) = &self.cache {
            builder = builder.cache(cache.clone());
        }
        let engine = builder.start().await?;
        self.engines.lock().unwrap_or_else(PoisonError::into_inner).push(engine.clone());
        Ok(engine)
    }

    /// Ends what still runs, and closes the database.
    pub(super) async fn clear(&self) {
        let engines = std::mem::take(&mut *self.engines.lock().unwrap_or_else(PoisonError::into_inner));
        let end = async {
            for engine in engines {
                // Once more is harmless where it has been shut down.
                engine.shut_down().await;
            }
            self.store.close().await;
        };
        let _ = tokio::time::timeout(END_MAX, end).await;
    }
}
