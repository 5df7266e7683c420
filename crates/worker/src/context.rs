//! What a handler knows of its job, and what it can say about it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use crate::build_part::BuildPart;
use crate::failure::Failure;
use crate::link::Link;
use crate::stop::{Stop, StopSignal};

/// At checkpoints the store is asked at most this often; between, only the signal is looked at.
const CHECK_PAUSE: Duration = Duration::from_millis(25);

/// Items of the generation before that one call asks for.
const PREVIOUS_A_CALL: usize = 100;

/// What is known of a job when it starts.
#[derive(Debug, Clone, Default)]
pub struct JobFacts {
    /// Its id.
    pub id: Uuid,
    /// The handler's name, as the job or the step's template calls it.
    pub handler: String,
    /// Which of its methods the step asks for.
    pub method: Option<String>,
    /// Who it belongs to.
    pub namespace: String,
    /// Counted from 1.
    pub attempt: u32,
    /// How many there may be.
    pub attempts_max: u32,
    /// Unique to this attempt: hand it to other systems as their idempotency key.
    pub attempt_token: String,
    /// Ties what belongs together across logs and processes.
    pub correlation_id: String,
    /// W3C `traceparent` of the submit.
    pub trace_context: Option<String>,
    /// The name of the step, in a workflow.
    pub step: Option<String>,
    /// In a workflow: what the steps returned that this one waited for.
    pub results: BTreeMap<String, Value>,
    /// Where a step is split: the element or the batch that this run is for.
    pub item: Option<Value>,
    /// And its place, from 0.
    pub index: Option<u64>,
    /// The payload of the signal or approval that the step waited for.
    pub signal: Option<Value>,
    /// JSON that an earlier attempt kept.
    pub checkpoint: Option<String>,
    /// In a workflow: the step's `handler.initialization`.
    pub settings: Value,
}

/// Handed to every handler; cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    facts: Arc<JobFacts>,
    stop: StopSignal,
    link: Arc<dyn Link>,
    checked: Arc<Mutex<Instant>>,
}

impl Context {
    /// Made by whoever runs the handler.
    pub fn new(facts: JobFacts, stop: StopSignal, link: Arc<dyn Link>) -> Self {
        Self { facts: Arc::new(facts), stop, link, checked: Arc::new(Mutex::new(Instant::now())) }
    }

    /// What is known of the job.
    pub fn facts(&self) -> &JobFacts {
        &self.facts
    }

    /// The result of a step that this one waited for.
    pub fn result(&self, step: &str) -> Option<&Value> {
        self.facts.results.get(step)
    }

    /// The element of a `for_each`, or the batch (its `cursor`, number and configuration), that this run is for.
    pub fn item(&self) -> Option<&Value> {
        self.facts.item.as_ref()
    }

    /// What came with the signal or approval that the step waited for.
    pub fn signal(&self) -> Option<&Value> {
        self.facts.signal.as_ref()
    }

    /// Ends here, by `Err`, when the handler shall stop. Costs nanoseconds: the store itself is asked at most
    /// every 25 ms, for the case that the signal was lost. Call it as often as you like.
    pub async fn checkpoint(&self) -> Result<(), Failure> {
        self.go_on()?;
        // A handler that computes without ever waiting would keep the runtime from everything else.
        tokio::task::coop::consume_budget().await;
        if self.is_time_to_ask() {
            self.link.check().await?;
        }
        self.go_on()
    }

    fn go_on(&self) -> Result<(), Failure> {
        self.stop.reason().map_or(Ok(()), |reason| Err(Failure::Stopped(reason)))
    }

    fn is_time_to_ask(&self) -> bool {
        let Ok(mut checked) = self.checked.lock() else { return true };
        let now = Instant::now();
        let is_time = now.duration_since(*checked) >= CHECK_PAUSE;
        if is_time {
            *checked = now;
        }
        is_time
    }

    /// Waits until the handler shall stop: for `tokio::select!` beside something slow.
    pub async fn stopped(&self) -> Stop {
        self.stop.stopped().await
    }

    /// Keeps progress (0 to 1) and a message with the job.
    pub async fn progress(&self, fraction: f64, message: Option<&str>) -> Result<(), Failure> {
        self.go_on()?;
        Ok(self.link.progress(fraction, message.map(str::to_owned)).await?)
    }

    /// Keeps `data` for the job's next attempt, in place of what was kept before: at most 64 KiB as JSON. It outlives a crash of the
    /// worker, and an operator's retry.
    pub async fn save<T: Serialize + Sync>(&self, data: &T) -> Result<(), Failure> {
        self.go_on()?;
        let data =
            serde_json::to_string(data).map_err(|error| Failure::permanent("invalid_checkpoint", error))?;
        Ok(self.link.save(data).await?)
    }

    /// What an earlier attempt kept; `None` if none did. Data that does not fit the type is a permanent failure.
    pub fn saved<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        let Some(checkpoint) = &self.facts.checkpoint else { return Ok(None) };
        serde_json::from_str(checkpoint)
            .map(Some)
            .map_err(|error| Failure::permanent("invalid_checkpoint", error))
    }

    /// Keeps a line with the job: the newest 1,000 are kept, each up to 4 KiB. Every call is a write; for progress there is
    /// [`Context::progress`].
    pub async fn log(&self, line: &str) -> Result<(), Failure> {
        self.go_on()?;
        Ok(self.link.log(vec![line.to_owned()]).await?)
    }

    /// The step's part of the build, where its workflow builds a view. In a workflow that builds none this is a permanent failure. What an
    /// earlier attempt of the step put no longer counts (it can be taken over), unless this attempt goes on from a [checkpoint](Self::saved).
    pub async fn build_part(&self) -> Result<BuildPart, Failure> {
        self.go_on()?;
        let source = self.link.part().await?;
        Ok(BuildPart::new(self.clone(), source))
    }

    /// For builds and parts of builds: the values of live items, in their order. Asked for some at a time.
    pub(crate) async fn previous<T: DeserializeOwned>(
        &self,
        items: &[String],
    ) -> Result<Vec<Option<T>>, Failure> {
        let mut values = Vec::with_capacity(items.len());
        for items in items.chunks(PREVIOUS_A_CALL) {
            self.checkpoint().await?;
            let found = self.link.previous(items.to_vec()).await?;
            let found: BTreeMap<String, String> = found.into_iter().collect();
            for item in items {
                let value = found.get(item).map(|text| serde_json::from_str(text)).transpose();
                values.push(value.map_err(|error| {
                    Failure::permanent(
                        "previous_value",
                        format!("item `{item}` of the version before: {error}"),
                    )
                })?);
            }
        }
        Ok(values)
    }

    pub(crate) fn link(&self) -> &Arc<dyn Link> {
        &self.link
    }
}
