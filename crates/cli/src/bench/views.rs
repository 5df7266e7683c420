//! Building, publishing and reading one view of many items.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use recache_engine::Engine;
use recache_model::item_rules::ItemRules;
use recache_model::retry::RetryPolicy;
use recache_model::view::ViewPolicy;
use recache_store::{NewView, Touch};
use recache_worker::{BuildContext, Handlers};
use tokio::time::Instant;

use super::report::Report;
use super::{BenchResult, Place};

/// How many.
#[derive(Debug, clap::Args)]
pub(super) struct ViewsArgs {
    /// Items of the view
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    items: u32,
    /// Items that change between two builds: 0,10,1000 measures each
    #[arg(long, value_delimiter = ',', default_value = "0,10,1000")]
    changed: Vec<u32>,
    /// Reads of single items, cold and again
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    reads: u32,
}

/// No build here takes longer.
const PATIENCE: Duration = Duration::from_hours(1);

pub(super) async fn run(args: &ViewsArgs, place: &Place) -> BenchResult<Report> {
    let store = place.open().await?;
    let mut report = Report::new(format!(
        "one view of {} items on {}, fingerprints compared by the builder, every commit durable",
        args.items,
        store.kind()
    ));
    report.bare_transaction(&*store).await?;
    // Of the items below `changed` the inputs are those of `round`, of the others those of the first.
    let (changed, round) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (builder_changed, builder_round) = (Arc::clone(&changed), Arc::clone(&round));
    let items = args.items;
    let mut handlers = Handlers::new();
    handlers.view("bench", move |build: BuildContext| {
        let (changed, round) = (builder_changed.load(Ordering::SeqCst), builder_round.load(Ordering::SeqCst));
        async move {
            for item in 0..items {
                let inputs = if item < changed { round } else { 0 };
                let (key, fingerprint) = (format!("{item:08}"), inputs.to_string());
                if !build.reuse(&key, &fingerprint).await? {
                    build.put(&key, Some(&fingerprint), &(item, inputs)).await?;
                }
            }
            Ok(())
        }
    })?;
    let engine = Engine::builder(Arc::clone(&store)).handlers(handlers).start().await?;
    engine
        .define_view(NewView {
            namespace: "bench".to_owned(),
            key: "items".to_owned(),
            handler: "bench".to_owned(),
            queue: "default".to_owned(),
            policy: ViewPolicy { debounce_quiet_ms: 0, debounce_max_ms: 0, ..ViewPolicy::default() },
            retry: RetryPolicy::default(),
            timeout: None,
            rules: ItemRules::default(),
        })
        .await?;
    let first = publish(&engine).await?;
    report.row("first build, touch to live", first.as_secs_f64() * 1000.0, "ms");
    report.row("first build", f64::from(items) / first.as_secs_f64(), "items/s");
    for count in &args.changed {
        changed.store((*count).min(items), Ordering::SeqCst);
        round.fetch_add(1, Ordering::SeqCst);
        let took = publish(&engine).await?;
        report.row(
            format!("build with {count} items changed, touch to live"),
            took.as_secs_f64() * 1000.0,
            "ms",
        );
        let view = store.view_get("bench", "items").await?.id;
        let rows = store.generations_list(view, 1).await?.first().map_or(0, |last| last.items_changed);
        report.row(
            format!("build with {count} items changed, rows written"),
            u32::try_from(rows).map_or(f64::INFINITY, f64::from),
            "rows",
        );
    }
    for name in ["read of an item, through the cache for the first time", "read of an item, again"] {
        let mut sample = Vec::new();
        for read in 0..args.reads {
            // Spread over all of them, the same ones each time.
            let item = u64::from(read) * u64::from(items) / u64::from(args.reads);
            let began = Instant::now();
            engine.read_item("bench", "items", &format!("{item:08}")).await?;
            sample.push(began.elapsed());
        }
        report.percentiles(name, &mut sample);
    }
    engine.shut_down().await;
    store.close().await;
    Ok(report)
}

/// From the touch until what it asks for is live.
async fn publish(engine: &Engine) -> BenchResult<Duration> {
    let began = Instant::now();
    let touch = Touch {
        namespace: "bench".to_owned(),
        key: "items".to_owned(),
        items: Vec::new(),
        at_once: true,
        word: None,
    };
    let version = engine.touch(touch).await?.version;
    engine.wait_for_version("bench", "items", version, PATIENCE).await?;
    Ok(began.elapsed())
}
