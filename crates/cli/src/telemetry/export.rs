//! Sends what waits, from a thread of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::FLUSH_WITHIN;
use super::document::{Resource, Signal};
use crate::config::TelemetryConfig;

/// Where its own lines come from: those are not sent.
pub(super) const TARGET: &str = "recache::telemetry";
/// What waits is sent this often.
const SEND_EVERY: Duration = Duration::from_secs(1);
/// Or as soon as there is so much of it.
const BATCH_MAX: usize = 512;
/// How long a request may take.
const SEND_WITHIN: Duration = Duration::from_secs(5);
/// After a failure it is tried again after this long, doubled each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What found no room.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Counts something that found no room.
pub(super) fn note_dropped() {
    DROPPED.fetch_add(1, Ordering::Relaxed);
}

/// Something to be sent.
#[derive(Debug)]
pub(super) enum Item {
    Span(Value),
    Log(Value),
    /// All figures of one moment: they stand in for those that wait.
    Figures(Vec<Value>),
}

/// What is gathered.
#[derive(Debug, Default)]
struct Batch {
    spans: Vec<Value>,
    logs: Vec<Value>,
    figures: Vec<Value>,
}

impl Batch {
    fn take(&mut self, item: Item) {
        match item {
            Item::Span(span) => self.spans.push(span),
            Item::Log(line) => self.logs.push(line),
            Item::Figures(figures) => self.figures = figures,
        }
    }

    fn is_full(&self) -> bool {
        self.spans.len() + self.logs.len() >= BATCH_MAX
    }

    fn of(&mut self, signal: Signal) -> &mut Vec<Value> {
        match signal {
            Signal::Traces => &mut self.spans,
            Signal::Logs => &mut self.logs,
            Signal::Metrics => &mut self.figures,
        }
    }
}

struct Exporter {
    client: reqwest::Client,
    endpoint: String,
    authorization: Option<HeaderValue>,
    resource: Resource,
    batch: Batch,
    /// Since the last success.
    failures: u32,
    /// Nothing is sent before this.
    rest_until: Option<Instant>,
}

/// Starts the thread.
pub(super) fn spawn(
    config: &TelemetryConfig,
    resource: Resource,
    taken: mpsc::Receiver<Item>,
    stop: CancellationToken,
    end: oneshot::Sender<()>,
) -> Result<(), String> {
    let client = reqwest::Client::builder()
        // Its address was configured: what an environment says about proxies is not asked.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(SEND_WITHIN)
        .build()
        .map_err(|error| error.to_string())?;
    let authorization = Some(&config.authorization.0).filter(|text| !text.is_empty());
    let authorization = authorization.map(|text| text.parse::<HeaderValue>()).transpose();
    let mut authorization = authorization.map_err(|error| error.to_string())?;
    if let Some(value) = &mut authorization {
        value.set_sensitive(true);
    }
    let exporter = Exporter {
        client,
        endpoint: config.otlp_endpoint.clone(),
        authorization,
        resource,
        batch: Batch::default(),
        failures: 0,
        rest_until: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let thread = std::thread::Builder::new().name("telemetry".to_owned());
    let started = thread.spawn(move || {
        runtime.block_on(exporter.run(taken, stop));
        let _ = end.send(());
    });
    started.map(drop).map_err(|error| error.to_string())
}

impl Exporter {
    async fn run(mut self, mut taken: mpsc::Receiver<Item>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(SEND_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // While the collector is away nothing more is taken than one batch: the queue fills, and then is left.
                Some(item) = taken.recv(), if !self.batch.is_full() => {
                    self.batch.take(item);
                    if self.batch.is_full() {
                        self.send().await;
                    }
                }
                _ = tick.tick() => self.send().await,
            }
        }
        let flushing = async {
            self.rest_until = None;
            loop {
                while !self.batch.is_full()
                    && let Ok(item) = taken.try_recv()
                {
                    self.batch.take(item);
                }
                let is_last = !self.batch.is_full();
                self.send().await;
                if is_last || self.failures > 0 {
                    return;
                }
            }
        };
        if tokio::time::timeout(FLUSH_WITHIN, flushing).await.is_err() {
            tracing::warn!(target: TARGET, "what was to be told to the collector last is lost: it did not take it in time");
        }
    }

    async fn send(&mut self) {
        if self.rest_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        for signal in Signal::ALL {
            let items = std::mem::take(self.batch.of(signal));
            if items.is_empty() {
                continue;
            }
            let body = self.resource.body(signal, &items);
            match self.post(signal, &body).await {
                Ok(()) => self.succeeded(),
                Err(Failed::Refused(status)) => {
                    // Sent again it would be refused again.
                    self.failed(&format!("it answered {status}"));
                }
                Err(Failed::Away(why)) => {
                    *self.batch.of(signal) = items;
                    self.failed(&why);
                    return;
                }
            }
        }
    }

    async fn post(&self, signal: Signal, body: &Value) -> Result<(), Failed> {
        let mut request = self
            .client
            .post(format!("{}/{}", self.endpoint, signal.path()))
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string());
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let answer = request.send().await.map_err(|error| {
            Failed::Away(crate::outbound::cause(&error).unwrap_or_else(|refused| refused.to_string()))
        })?;
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            // The specification's list of those that are worth another try.
            status @ (429 | 502..=504) => Err(Failed::Away(format!("it answered {status}"))),
            status => Err(Failed::Refused(status)),
        }
    }

    fn succeeded(&mut self) {
        if self.failures > 0 {
            let dropped = DROPPED.swap(0, Ordering::Relaxed);
            tracing::info!(target: TARGET, dropped, "the collector takes what it is told again");
        }
        self.failures = 0;
        self.rest_until = None;
    }

    /// Said once, until it goes well again.
    fn failed(&mut self, why: &str) {
        if self.failures == 0 {
            tracing::warn!(target: TARGET, endpoint = self.endpoint, why, "the collector cannot be told; work goes on");
        }
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(5)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.rest_until = Some(Instant::now() + pause);
    }
}

/// Why something was not told.
enum Failed {
    /// It may be, later.
    Away(String),
    /// It never will.
    Refused(u16),
}
