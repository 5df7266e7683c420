//! From `tracing` to spans and log lines of OpenTelemetry.

use std::fmt;

use recache_model::time::{Clock as _, SystemClock};
use recache_model::trace::TraceContext;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::document::{attribute, nanos};
use super::export::{Item, note_dropped};

/// Longest text of an attribute, in bytes; what is longer is cut.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// Microseconds since 1970.
pub(super) fn now_us() -> i64 {
    SystemClock.now().micros()
}

/// Listens to `tracing`, and never waits.
#[derive(Debug)]
pub(crate) struct Spans {
    queue: mpsc::Sender<Item>,
    has_logs: bool,
}

impl Spans {
    pub(super) fn new(queue: mpsc::Sender<Item>, has_logs: bool) -> Self {
        Self { queue, has_logs }
    }

    /// Whether something is told: what our own code says at `INFO` and above. What is said about sending is not sent.
    pub(crate) fn is_told(metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        *metadata.level() <= Level::INFO
            && target.starts_with("recache")
            && !target.starts_with(super::export::TARGET)
    }

    fn tell(&self, item: Item) {
        if self.queue.try_send(item).is_err() {
            note_dropped();
        }
    }
}

/// A span that is under way.
#[derive(Debug)]
struct Open {
    begun: Instant,
    begun_us: i64,
    fields: Fields,
    /// Where it stands; `None`: in no trace.
    place: Option<Place>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    own: TraceContext,
    parent: Option<TraceContext>,
}

impl Open {
    /// Finds out where it stands, from what it says itself.
    fn settle(&mut self) {
        let text = |name: &str| self.fields.0.get(name).and_then(Value::as_str);
        if let Some(parent) = text("traceparent").and_then(|text| text.parse::<TraceContext>().ok()) {
            if self.place.is_none() {
                self.place = Some(Place { own: parent.child(rand::random()), parent: Some(parent) });
            }
            return;
        }
        let flags = if self.fields.0.get("sampled") == Some(&json!(false)) { "00" } else { "01" };
        let context =
            |trace: &str, span: &str| format!("00-{trace}-{span}-{flags}").parse::<TraceContext>().ok();
        if let (Some(trace), Some(span)) = (text("trace_id"), text("span_id"))
            && let Some(own) = context(trace, span)
        {
            let parent = text("parent_id").and_then(|parent| context(trace, parent));
            self.place = Some(Place { own, parent });
        }
    }
}

/// What a span or a line says.
#[derive(Debug, Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }

    /// As attributes, without what stands elsewhere.
    fn attributes(&self) -> Vec<Value> {
        const ELSEWHERE: [&str; 8] = [
            "traceparent",
            "trace_id",
            "span_id",
            "parent_id",
            "sampled",
            "links",
            "began_ago_us",
            "message",
        ];
        let told = self.0.iter().filter(|(name, _)| !ELSEWHERE.contains(&name.as_str()));
        told.map(|(name, value)| attribute(name, value)).collect()
    }
}

/// The places that a span is tied to, as it names them with blanks between.
fn links(fields: &Fields) -> Vec<Value> {
    let named = fields.0.get("links").and_then(Value::as_str).unwrap_or_default();
    let places = named.split(' ').filter_map(|text| text.parse::<TraceContext>().ok());
    places.map(|place| json!({ "traceId": place.trace_id(), "spanId": place.span_id() })).collect()
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::from(cut(&format!("{value:?}"))));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::from(cut(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let above =
            span.parent().and_then(|above| above.extensions().get::<Open>().and_then(|open| open.place));
        let begun_us = now_us();
        let mut open = Open { begun: Instant::now(), begun_us, fields, place: None };
        open.settle();
        if open.place.is_none() {
            let below =
                |above: Place| Place { own: above.own.child(rand::random()), parent: Some(above.own) };
            open.place = above.map(below);
        }
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        if let Some(open) = extensions.get_mut::<Open>() {
            values.record(&mut open.fields);
            open.settle();
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if !self.has_logs {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let now = nanos(now_us());
        let (number, word) = severity(*event.metadata().level());
        let message = fields.0.get("message").cloned().unwrap_or_default();
        let mut record = json!({
            "timeUnixNano": now,
            "observedTimeUnixNano": now,
            "severityNumber": number,
            "severityText": word,
            "body": { "stringValue": message.as_str().unwrap_or_default() },
            "attributes": fields.attributes(),
        });
        let place = context
            .event_span(event)
            .and_then(|span| span.extensions().get::<Open>().and_then(|open| open.place));
        if let Some(place) = place {
            record["traceId"] = Value::from(place.own.trace_id());
            record["spanId"] = Value::from(place.own.span_id());
        }
        self.tell(Item::Log(record));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(open) = span.extensions_mut().remove::<Open>() else { return };
        let Some(place) = open.place.filter(|place| place.own.is_sampled()) else { return };
        let took_us = i64::try_from(open.begun.elapsed().as_micros()).unwrap_or(i64::MAX);
        let ago = open.fields.0.get("began_ago_us").and_then(Value::as_i64).unwrap_or(0);
        let name = span.name();
        let status = open.fields.0.get("status").and_then(Value::as_u64);
        let mut told = json!({
            "traceId": place.own.trace_id(),
            "spanId": place.own.span_id(),
            "name": name,
            "kind": kind(name),
            "startTimeUnixNano": nanos(open.begun_us.saturating_sub(ago)),
            "endTimeUnixNano": nanos(open.begun_us.saturating_add(took_us)),
            "attributes": open.fields.attributes(),
            // 2: an error. Of a request only where it is the server's.
            "status": { "code": if status.is_some_and(|status| status >= 500) { 2 } else { 0 } },
        });
        if let Some(parent) = place.parent {
            told["parentSpanId"] = Value::from(parent.span_id());
        }
        let links = links(&open.fields);
        if !links.is_empty() {
            told["links"] = Value::from(links);
        }
        self.tell(Item::Span(told));
    }
}

/// Of the specification's kinds: 2 server, 5 consumer, 1 internal.
fn kind(name: &str) -> u8 {
    match name {
        "request" => 2,
        "attempt" => 5,
        _ => 1,
    }
}

fn severity(level: Level) -> (u8, &'static str) {
    match level {
        Level::ERROR => (17, "ERROR"),
        Level::WARN => (13, "WARN"),
        Level::INFO => (9, "INFO"),
        Level::DEBUG => (5, "DEBUG"),
        Level::TRACE => (1, "TRACE"),
    }
}
