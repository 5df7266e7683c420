//! What a trace shows of the cache: a span for each call of the provider and for each run of a loader, and none for a hit in
//! this process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex};

use recache_cache::provider::Near;
use recache_cache::{Cache, Coherence, SystemClock, Usage};
use support::{Bench, Mood, POLICY};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Subscriber, debug_span};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// The spans that have ended, each as its name, its parent and its fields.
#[derive(Clone, Default)]
struct Ended(Arc<Mutex<Vec<String>>>);

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Ended {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        values.record(span.extensions_mut().get_mut::<Fields>().unwrap());
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let extensions = span.extensions();
        let fields: Vec<_> = extensions
            .get::<Fields>()
            .unwrap()
            .0
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let parent = span.parent().map_or("", |parent| parent.name());
        self.0.lock().unwrap().push(format!("{parent}/{} {}", span.name(), fields.join(" ")));
    }
}

impl Ended {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn calls_and_loads_are_spans_and_hits_at_hand_are_none() {
    let ended = Ended::default();
    let _listening = tracing::subscriber::set_default(tracing_subscriber::registry().with(ended.clone()));
    let bench = Bench::new();
    let cache = bench.cache.for_usage(&Usage::user("prices", Coherence::Eventual));
    let key = bench.key("k");

    let load = async || {
        let _inside = debug_span!("query").entered();
        Ok::<_, Infallible>(Some(7_u64))
    };
    cache.get_or_load(&key, &POLICY, load).await.unwrap();
    let spans = ended.take();
    let at = |text: &str| {
        spans.iter().position(|span| span.starts_with(text)).unwrap_or_else(|| panic!("{text}: {spans:#?}"))
    };
    assert!(at("cache_load/query") < at("/cache_load outcome=value usage=prices"), "{spans:#?}");
    at("/cache_call operation=get provider=");
    at("/cache_call operation=set provider=");

    let near = Arc::new(Near::new(10, 1 << 20, Arc::new(SystemClock)));
    let in_process = Cache::builder(near, Arc::new(SystemClock)).build();
    in_process.set(&key, 7_u64, &POLICY).await;
    assert!(!ended.take().is_empty(), "a write is a call");
    assert_eq!(in_process.get::<u64>(&key).await.as_deref(), Some(&7));
    assert_eq!(ended.take(), Vec::<String>::new(), "a hit in this process");

    bench.provider.be(Mood::Hang);
    cache.delete(&key).await;
    let spans = ended.take();
    assert!(
        spans.iter().any(|span| span.starts_with("/cache_call error=timeout operation=delete")),
        "{spans:#?}"
    );
}

#[tokio::test]
async fn loads_are_counted_by_usage() {
    let bench = Bench::new();
    let cache = bench.cache.for_usage(&Usage::user("prices", Coherence::Eventual));
    for name in ["a", "b", "b"] {
        cache
            .get_or_load(&bench.key(name), &POLICY, async || Ok::<_, Infallible>(Some(1_u64)))
            .await
            .unwrap();
    }
    let usages = cache.stats().usages;
    let prices = usages.iter().find(|usage| usage.usage == "prices").unwrap();
    assert_eq!((prices.loads, prices.misses), (2, 2));
}
