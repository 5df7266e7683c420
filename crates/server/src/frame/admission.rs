//! How much is worked on at once. What is too much is refused quickly, so that the rest is done in time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::{Code, Refusal};
use crate::settings::Settings;
use crate::state::App;

/// The places at work, and those for waiting.
#[derive(Debug)]
pub(crate) struct Admission {
    working: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    wait: Duration,
}

impl Admission {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            working: Arc::new(Semaphore::new(settings.requests_max)),
            waiting: Arc::new(Semaphore::new(settings.waits_max)),
            wait: settings.admission_wait,
        }
    }

    /// A place at work, or the refusal, soon.
    pub(super) async fn admit(&self) -> Result<Turn, Refusal> {
        let working = Arc::clone(&self.working);
        match tokio::time::timeout(self.wait, working.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn(Arc::new(Mutex::new(Some(permit))))),
            Ok(Err(_)) | Err(_) => {
                Err(overloaded("as many requests are being worked on as the server allows"))
            }
        }
    }

    /// Places at work that are taken.
    pub(crate) fn working_count(&self, settings: &Settings) -> usize {
        settings.requests_max.saturating_sub(self.working.available_permits())
    }

    /// Places for waiting that are taken.
    pub(crate) fn waiting_count(&self, settings: &Settings) -> usize {
        settings.waits_max.saturating_sub(self.waiting.available_permits())
    }
}

fn overloaded(detail: &str) -> Refusal {
    Refusal::new(Code::Overloaded, detail).remedy("try again later").retry_after(Duration::from_secs(1))
}

/// A request's place at work.
#[derive(Debug, Clone)]
pub(crate) struct Turn(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Turn {
    /// Changes the place at work for one where it can wait. What is left to do afterwards is small: it takes no new place.
    pub(crate) fn wait(&self, admission: &Admission) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = Arc::clone(&admission.waiting)
            .try_acquire_owned()
            .map_err(|_| overloaded("as many requests wait as the server allows"))?;
        // A panic elsewhere cannot leave it half changed.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(place)
    }
}

impl FromRequestParts<App> for Turn {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Refusal::internal)
    }
}
