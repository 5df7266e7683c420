//! Building, publishing and reading one view of many items.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use recache_cache::{Cache, CacheConfig, SystemClock};
use recache_engine::Engine;
use recache_model::item_rules::ItemRules;
use recache_model::retry::RetryPolicy;
use recache_model::view::ViewPolicy;
use recache_store::{NewView, Store, Touch};
use recache_worker::{BuildContext, Handlers};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::report::Report;
use super::{BenchResult, Place};
use crate::demo::through;

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
    /// Touches of one view by 32 callers at once, and of as many views one after the other
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    touches: u32,
    /// Read through a cache on this server too: redis://HOST:PORT, rediss://HOST:PORT, or tcp://HOST:PORT for Memcached
    #[arg(long, value_name = "URL")]
    cache: Option<String>,
}

/// Who touch one view at once.
const TOUCHERS: u32 = 32;

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
            options: recache_model::view_options::ViewOptions::default(),
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
    memory(&mut report, "builds");
    for name in ["read of an item, through the near cache for the first time", "read of an item, near cache"]
    {
        reads(&engine, args, name, &mut report).await?;
    }
    memory(&mut report, "reads");
    engine.shut_down().await;
    // Engines that only read, each through its own.
    let off = Cache::configure(&CacheConfig::default(), Arc::new(SystemClock)).build();
    let reader = Engine::builder(Arc::clone(&store)).cache(off).start().await?;
    reads(&reader, args, "read of an item, store", &mut report).await?;
    reader.shut_down().await;
    if let Some(url) = &args.cache {
        let (far, backend) = through::open(url).await?;
        let reader = Engine::builder(Arc::clone(&store)).cache(far).start().await?;
        for time in ["for the first time", "again"] {
            let name = format!("read of an item, far cache ({backend}), {time}");
            reads(&reader, args, &name, &mut report).await?;
        }
        reader.shut_down().await;
    }
    touches(Arc::clone(&store), args.touches, &mut report).await?;
    store.close().await;
    Ok(report)
}

/// Reads of single items, spread over all of them, the same ones each time.
async fn reads(engine: &Engine, args: &ViewsArgs, name: &str, report: &mut Report) -> BenchResult<()> {
    let mut sample = Vec::new();
    for read in 0..args.reads {
        let item = u64::from(read) * u64::from(args.items) / u64::from(args.reads);
        let began = Instant::now();
        let found = engine.read_item("bench", "items", &format!("{item:08}")).await?;
        sample.push(began.elapsed());
        if found.value.is_none() {
            return Err(format!("item {item:08} is not there").into());
        }
    }
    report.percentiles(name, &mut sample);
    Ok(())
}

/// Touches without builds: no engine that builds these views is there, and a touch waits for its commit.
async fn touches(store: Arc<dyn Store>, count: u32, report: &mut Report) -> BenchResult<()> {
    let engine = Engine::builder(store).start().await?;
    // Due long after the bench has ended.
    let policy =
        ViewPolicy { debounce_quiet_ms: 86_400_000, debounce_max_ms: 86_400_000, ..ViewPolicy::default() };
    let pattern = NewView { policy, ..NewView::new("bench", "touched/*", "nobody") };
    engine.define_view_pattern(pattern).await?;
    let touch = |key: String| Touch { namespace: "bench".to_owned(), key, ..Touch::default() };
    let began = Instant::now();
    let mut touching = JoinSet::new();
    for toucher in 0..TOUCHERS {
        let engine = engine.clone();
        touching.spawn(async move {
            let mut sample = Vec::new();
            for _ in (toucher..count).step_by(usize::try_from(TOUCHERS).unwrap_or(1)) {
                let began = Instant::now();
                engine.touch(touch("touched/hot".to_owned())).await?;
                sample.push(began.elapsed());
            }
            Ok::<_, recache_engine::Error>(sample)
        });
    }
    let mut sample = Vec::new();
    while let Some(touched) = touching.join_next().await {
        sample.extend(touched??);
    }
    report.row(
        "touches of one view, 32 at once",
        f64::from(count) / began.elapsed().as_secs_f64(),
        "touches/s",
    );
    report.percentiles("touch of one view, 32 at once", &mut sample);
    let began = Instant::now();
    for number in 0..count {
        engine.touch(touch(format!("touched/{number}"))).await?;
    }
    report.row(
        "touches of as many views, made by them, one after the other",
        f64::from(count) / began.elapsed().as_secs_f64(),
        "touches/s",
    );
    engine.shut_down().await;
    Ok(())
}

/// What the process holds, and the most that it held; where the system tells.
fn memory(report: &mut Report, after: &str) {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return };
    for (field, what) in [("VmRSS:", "memory after the"), ("VmHWM:", "most memory until after the")] {
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|count| count.parse::<u32>().ok());
        if let Some(kilobytes) = kilobytes {
            report.row(format!("{what} {after}"), f64::from(kilobytes) / 1024.0, "MiB");
        }
    }
}

/// From the touch until what it asks for is live.
async fn publish(engine: &Engine) -> BenchResult<Duration> {
    let began = Instant::now();
    let touch =
        Touch { namespace: "bench".to_owned(), key: "items".to_owned(), at_once: true, ..Touch::default() };
    let version = engine.touch(touch).await?.version;
    engine.wait_for_version("bench", "items", version, PATIENCE).await?;
    Ok(began.elapsed())
}
