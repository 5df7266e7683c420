//! What is counted and timed. Labels are bounded: a route's pattern, a method, a class of statuses; never an id, a key or a name.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use recache_cache::provider::CallClass;
use recache_engine::Engine;

use crate::frame::Kind;
use crate::refusal::Refusal;
use crate::state::App;
use crate::store_metrics;

/// Upper ends of the buckets of times, in seconds.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0];
/// The route of a request that no route takes.
const UNMATCHED: &str = "unmatched";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: String,
}

/// The server's own figures, and those of its engine and cache.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    times: Family<RouteLabels, Histogram, fn() -> Histogram>,
    working: Gauge,
    waiting: Gauge,
    queued: Gauge,
    shed: Family<KindLabels, Counter>,
    connections: Gauge,
    connections_refused: Counter,
    streams: StreamMetrics,
    looks: LookMetrics,
}

/// What is found out when somebody asks for the figures.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Looked {
    /// A write could be committed.
    pub(crate) is_ready: bool,
    /// The cache was to cache, and cannot.
    pub(crate) is_cache_degraded: bool,
    /// The breakers before the cache's backend that refuse.
    pub(crate) breakers_open: Vec<CallClass>,
    /// For how long the oldest job has been due; `None`: it is not known.
    pub(crate) oldest_due: Option<Duration>,
    /// What waits for publishers; `None`: it is not known.
    pub(crate) unmade: Option<Unmade>,
}

/// Events that wait for their publishers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Unmade {
    /// How many.
    pub(crate) count: u64,
    /// For how long the oldest one has.
    pub(crate) oldest: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: &'static str,
}

#[derive(Debug, Default)]
struct LookMetrics {
    ready: Gauge,
    cache_degraded: Gauge,
    breakers_open: Family<ClassLabels, Gauge>,
    oldest_due: Gauge<f64, AtomicU64>,
    unmade: Gauge,
    unmade_oldest: Gauge<f64, AtomicU64>,
}

impl LookMetrics {
    fn new(registry: &mut Registry) -> Self {
        let made = Self::default();
        registry.register("ready", "1: a write can be committed", made.ready.clone());
        let help = "1: the cache was to cache, and cannot";
        registry.register("cache_degraded", help, made.cache_degraded.clone());
        let help = "1: the breaker before the cache's backend refuses calls of this class";
        registry.register("cache_breaker_open", help, Family::clone(&made.breakers_open));
        let help = "For how long the oldest job of a queue that is not paused has been due";
        registry.register_with_unit("oldest_due", help, Unit::Seconds, made.oldest_due.clone());
        registry.register("events_unmade", "Events that wait for their publishers", made.unmade.clone());
        let help = "For how long the oldest event has waited for its publisher";
        registry.register_with_unit("events_unmade_oldest", help, Unit::Seconds, made.unmade_oldest.clone());
        made
    }

    fn note(&self, looked: &Looked) {
        self.ready.set(looked.is_ready.into());
        self.cache_degraded.set(looked.is_cache_degraded.into());
        for class in [CallClass::Read, CallClass::Write] {
            let is_open = looked.breakers_open.contains(&class);
            self.breakers_open.get_or_create(&ClassLabels { class: class.name() }).set(is_open.into());
        }
        // What is not known stays as it was: `ready` says that something is wrong.
        if let Some(oldest_due) = looked.oldest_due {
            self.oldest_due.set(oldest_due.as_secs_f64());
        }
        if let Some(unmade) = looked.unmade {
            self.unmade.set(i64::try_from(unmade.count).unwrap_or(i64::MAX));
            self.unmade_oldest.set(unmade.oldest.as_secs_f64());
        }
    }
}

/// Of streams of events.
#[derive(Debug, Default)]
struct StreamMetrics {
    open: Gauge,
    refused: Counter,
    slow: Counter,
    replays: Counter,
}

impl StreamMetrics {
    fn new(registry: &mut Registry) -> Self {
        let made = Self::default();
        registry.register("event_streams", "Open streams of events", made.open.clone());
        let help = "Streams of events refused because there were too many";
        registry.register("event_streams_refused", help, made.refused.clone());
        let help = "Streams of events ended because their clients were too slow";
        registry.register("event_streams_slow", help, made.slow.clone());
        let help = "Streams of events that read the store to catch up";
        registry.register("event_streams_replayed", help, made.replays.clone());
        made
    }
}

impl Metrics {
    pub(crate) fn new(engine: &Engine) -> Self {
        let mut registry = Registry::with_prefix("recache");
        let requests = Family::default();
        registry.register("http_requests", "Requests answered", Family::clone(&requests));
        let make: fn() -> Histogram = new_histogram;
        let times = Family::new_with_constructor(make);
        let help = "From a request's headers to its answer's";
        registry.register_with_unit("http_request_duration", help, Unit::Seconds, Family::clone(&times));
        let (working, waiting, connections) = (Gauge::default(), Gauge::default(), Gauge::default());
        registry.register("http_requests_working", "Requests being worked on", working.clone());
        registry.register(
            "http_requests_waiting",
            "Requests that wait for something to happen",
            waiting.clone(),
        );
        let queued = Gauge::default();
        registry.register(
            "http_requests_queued",
            "Requests that stand in the queue for a place at work",
            queued.clone(),
        );
        let shed = Family::<KindLabels, Counter>::default();
        for kind in Kind::ALL {
            // There from the start: an alert sees the first one, too.
            shed.get_or_create(&KindLabels { kind: kind.word() }).inc_by(0);
        }
        registry.register(
            "http_requests_shed",
            "Requests refused because all places at work were taken",
            Family::clone(&shed),
        );
        registry.register("http_connections", "Open connections", connections.clone());
        let connections_refused = Counter::default();
        let help = "Connections refused because there were too many";
        registry.register("http_connections_refused", help, connections_refused.clone());
        let streams = StreamMetrics::new(&mut registry);
        let looks = LookMetrics::new(&mut registry);
        registry.register_collector(Box::new(Engines(engine.clone())));
        Self {
            registry,
            requests,
            times,
            working,
            waiting,
            queued,
            shed,
            connections,
            connections_refused,
            streams,
            looks,
        }
    }

    /// A request was answered.
    pub(crate) fn answered(
        &self,
        method: &Method,
        route: Option<String>,
        status: StatusCode,
        took: Duration,
    ) {
        let method = method_name(method);
        let route = route.unwrap_or_else(|| UNMATCHED.to_owned());
        let labels = RequestLabels { method, route: route.clone(), status: class(status) };
        self.requests.get_or_create(&labels).inc();
        self.times.get_or_create(&RouteLabels { method, route }).observe(took.as_secs_f64());
    }

    /// A request was refused because all places were taken.
    pub(crate) fn shed(&self, kind: Kind) {
        self.shed.get_or_create(&KindLabels { kind: kind.word() }).inc();
    }

    /// A connection was opened; it is counted until the guard is dropped.
    pub(crate) fn connected(&self) -> Counted {
        Counted::new(&self.connections)
    }

    /// A stream was opened; it is counted until the guard is dropped.
    pub(crate) fn stream_opened(&self) -> Counted {
        Counted::new(&self.streams.open)
    }

    /// A stream was refused.
    pub(crate) fn stream_refused(&self) {
        self.streams.refused.inc();
    }

    /// A stream was ended because its client was too slow.
    pub(crate) fn stream_was_slow(&self) {
        self.streams.slow.inc();
    }

    /// A stream reads the store by itself.
    pub(crate) fn stream_replayed(&self) {
        self.streams.replays.inc();
    }

    /// A connection was refused.
    pub(crate) fn refused(&self) {
        self.connections_refused.inc();
    }

    /// All of them as text.
    pub(crate) fn text(&self, app: &App, looked: &Looked) -> Result<String, Refusal> {
        self.looks.note(looked);
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.working.set(gauge(app.admission().working_count(app.settings())));
        self.waiting.set(gauge(app.admission().waiting_count(app.settings())));
        self.queued.set(gauge(app.admission().queued_count()));
        let mut text = String::new();
        encode(&mut text, &self.registry).map_err(|_| Refusal::internal())?;
        Ok(text)
    }
}

/// Something open, such as a connection.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn new_histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// Methods are words that callers choose; only the usual ones are labels.
fn method_name(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

/// The engine's and the cache's own counts, read at each look.
#[derive(Debug)]
struct Engines(Engine);

impl Collector for Engines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stats = self.0.stats();
        for (name, help, count) in [
            ("engine_attempts_started", "Attempts that began", stats.started),
            ("engine_attempts_completed", "Attempts that ended well", stats.completed),
            ("engine_attempts_retried", "Attempts that failed and run again", stats.retried),
            ("engine_jobs_failed", "Jobs that failed for good here", stats.failed),
            ("engine_attempts_cancelled", "Attempts told to stop because of a cancel", stats.cancelled),
            ("engine_attempts_panicked", "Handlers that panicked", stats.panicked),
            ("engine_leases_lost", "Attempts whose job was taken away", stats.lease_lost),
            ("engine_jobs_released", "Jobs handed back unstarted", stats.released),
            ("engine_jobs_swept", "Jobs of dead workers returned or failed here", stats.swept),
            ("engine_jobs_scheduled", "Jobs that schedules made here", stats.scheduled),
            ("engine_settlements_refused", "Settlements that the store refused", stats.refused),
            ("engine_touches", "Touches asked for", stats.touches),
            ("engine_touches_coalesced", "Touches that shared a statement", stats.touches_coalesced),
            ("engine_builds_created", "Build jobs created", stats.builds_created),
            ("engine_builds_superseded", "Builds told to stop for a newer version", stats.superseded),
            ("engine_generations_published", "Generations published", stats.published),
            ("engine_items_computed", "Items whose value a build computed", stats.items_computed),
            ("engine_items_reused", "Items that a build took over", stats.items_reused),
            (
                "engine_items_prefetched",
                "Items put into the cache before anybody asked",
                stats.items_prefetched,
            ),
            ("engine_items_gone", "Values not found in the cache that alone kept them", stats.items_gone),
            (
                "engine_views_touched_for_gone",
                "Touches of views for such values",
                stats.views_touched_for_gone,
            ),
            (
                "engine_prefetches_left_out",
                "Generations not fetched ahead though asked for",
                stats.prefetches_left_out,
            ),
            ("engine_payloads", "Payloads of events made by publishers", stats.payloads_made),
            (
                "engine_payload_failures",
                "Tries to make one that failed and are made again",
                stats.payload_failures,
            ),
            (
                "engine_payloads_refused",
                "Events kept back for want of a good payload",
                stats.payloads_refused,
            ),
            ("engine_events_routed", "Events handed on", stats.events_routed),
            ("engine_deliveries", "Deliveries made", stats.delivered),
            ("engine_deliveries_dead", "Deliveries given up", stats.deliveries_dead),
            ("engine_rows_removed", "Things removed because their time was over", stats.removed),
            ("engine_history_days_made", "Days of history made", stats.history_days_made),
            ("engine_history_days_dropped", "Days of history dropped as a whole", stats.history_days_dropped),
            (
                "engine_history_held_up",
                "Times that a day of history could not be made or dropped and was left for later",
                stats.history_held_up,
            ),
            ("engine_count_differences", "Workflows whose counts were wrong", stats.count_differences),
            (
                "engine_store_errors",
                "Calls to the store that failed and were tried again",
                stats.store_errors,
            ),
        ] {
            counter(&mut encoder, name, help, count)?;
        }
        let held = u64::try_from(self.0.held_count()).unwrap_or(u64::MAX);
        gauge(&mut encoder, "engine_jobs_held", "Jobs that this process holds", held)?;
        for (name, help, value) in [
            (
                "engine_history_parts",
                "Parts of the history of jobs, as the leader saw it",
                stats.history_parts,
            ),
            (
                "engine_history_outside_bytes",
                "Size of the history in no part, as the leader saw it",
                stats.history_outside_bytes,
            ),
        ] {
            gauge(&mut encoder, name, help, value)?;
        }
        store_metrics::encode_limit(&mut encoder, self.0.claim_limit())?;
        store_metrics::encode(&mut encoder, &self.0.store().measured())?;
        let cache = self.0.cache().stats();
        for (name, help, count) in [
            ("cache_hits", "Reads that the cache answered", cache.hits),
            ("cache_misses", "Reads that it did not", cache.misses),
            ("cache_stale_hits", "Reads answered with a stale value", cache.stale_hits),
        ] {
            counter(&mut encoder, name, help, count)?;
        }
        Ok(())
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, count: u64) -> std::fmt::Result {
    let metric = ConstCounter::new(count);
    metric.encode(encoder.encode_descriptor(name, help, None, ConstCounter::<u64>::TYPE)?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, count: u64) -> std::fmt::Result {
    let metric = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
    metric.encode(encoder.encode_descriptor(name, help, None, ConstGauge::<i64>::TYPE)?)
}
