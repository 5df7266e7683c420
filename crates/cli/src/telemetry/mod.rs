//! What a collector of OpenTelemetry is told: spans, log lines, figures, by OTLP over HTTP in JSON.
//!
//! Spans and lines come from `tracing` ([`spans`]); what is told goes into a queue that is bounded and never waited for, and a thread of its
//! own ([`export`]) sends it. A collector that is away costs what is dropped, which is counted, and one line in the log.
//!
//! A span belongs to a trace when it says so: with the field `traceparent` (of the span above it, from another process perhaps), or with
//! `trace_id` and `span_id` of its own; spans below it follow. Others are not sent.

mod document;
mod export;
mod figures;
mod spans;

use std::time::Duration;

use recache_server::App;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::TelemetryConfig;
use document::Resource;
use export::Item;
pub(crate) use spans::Spans;

/// What waits to be sent, at most; more is dropped.
const QUEUE_MAX: usize = 8_192;
/// At the end what waits is sent within this time, or lost.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// The way to the collector.
#[derive(Debug)]
pub(crate) struct Telemetry {
    queue: mpsc::Sender<Item>,
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
    figures_every: Duration,
    has_logs: bool,
    begun_at_us: i64,
}

impl Telemetry {
    /// Begins to send, where that is configured. `role` tells processes apart.
    pub(crate) fn start(config: &TelemetryConfig, role: &str) -> Result<Option<Self>, String> {
        if !config.is_on() {
            return Ok(None);
        }
        let (queue, taken) = mpsc::channel(QUEUE_MAX);
        let (stop, (end, ended)) = (CancellationToken::new(), oneshot::channel());
        let resource = Resource::new(&config.service_name, role);
        export::spawn(config, resource, taken, stop.clone(), end)?;
        let (figures_every, has_logs) = (config.figures_every, config.logs);
        Ok(Some(Self { queue, stop, ended, figures_every, has_logs, begun_at_us: spans::now_us() }))
    }

    /// What listens to `tracing`.
    pub(crate) fn layer(&self) -> Spans {
        Spans::new(self.queue.clone(), self.has_logs)
    }

    /// Sends a server's figures now and then.
    pub(crate) fn watch(&self, app: App) {
        let (queue, stop, every) = (self.queue.clone(), self.stop.clone(), self.figures_every);
        let begun_at_us = self.begun_at_us;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(every) => {}
                }
                if let Ok(text) = app.figures().await {
                    let metrics = figures::of_text(&text, begun_at_us, spans::now_us());
                    // What finds no room is told by the next ones: figures are sums.
                    let _ = queue.try_send(Item::Figures(metrics));
                }
            }
        });
    }

    /// Sends what waits, and ends.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        // The sender's own limit is shorter.
        let _ = tokio::time::timeout(FLUSH_WITHIN + Duration::from_secs(1), self.ended).await;
    }
}
