//! Touching a view while it is built.

use std::sync::Arc;
use std::time::Duration;

use recache_engine::Engine;
use recache_model::retry::RetryPolicy;
use recache_model::view::ViewPolicy;
use recache_store::{NewView, Touch};
use recache_worker::{BuildContext, Failure, Handlers};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::report::Report;
use super::{BenchResult, Place};

/// How often.
#[derive(Debug, clap::Args)]
pub(super) struct TouchArgs {
    /// Touches, each of a running build
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rounds: u32,
}

enum Seen {
    Began,
    Stopped(Instant),
}

/// A build that has not been seen to begin or stop after this long never will.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(args: &TouchArgs, place: &Place) -> BenchResult<Report> {
    let store = place.open().await?;
    let mut report =
        Report::new(format!("touch of a running build on {}, handler in the same process", store.kind()));
    report.bare_transaction(&*store).await?;
    let (seen, mut sees) = mpsc::unbounded_channel();
    let mut handlers = Handlers::new();
    handlers.view("endless", move |build: BuildContext| {
        let seen = seen.clone();
        async move {
            let _ = seen.send(Seen::Began);
            let why = build.context().stopped().await;
            let _ = seen.send(Seen::Stopped(Instant::now()));
            Err(Failure::Stopped(why))
        }
    })?;
    let engine = Engine::builder(Arc::clone(&store)).handlers(handlers).start().await?;
    let policy = ViewPolicy { debounce_quiet_ms: 1, max_staleness_ms: None, ..ViewPolicy::default() };
    engine
        .define_view(NewView {
            namespace: "bench".to_owned(),
            key: "endless".to_owned(),
            handler: "endless".to_owned(),
            queue: "default".to_owned(),
            policy,
            retry: RetryPolicy::default(),
            timeout: None,
            rules: recache_model::item_rules::ItemRules::default(),
            options: recache_model::view_options::ViewOptions::default(),
        })
        .await?;
    let touch = || Touch { namespace: "bench".to_owned(), key: "endless".to_owned(), ..Touch::default() };
    engine.touch(touch()).await?;
    let (mut noticed, mut committed) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        loop {
            match tokio::time::timeout(PATIENCE, sees.recv()).await? {
                Some(Seen::Began) => break,
                Some(Seen::Stopped(_)) => {}
                None => return Err("the builder is gone".into()),
            }
        }
        let asked = Instant::now();
        engine.touch(touch()).await?;
        let acknowledged = Instant::now();
        committed.push(acknowledged.duration_since(asked));
        loop {
            match tokio::time::timeout(PATIENCE, sees.recv()).await? {
                Some(Seen::Stopped(at)) => {
                    // Seen before the caller had its answer: no delay after the commit.
                    noticed.push(at.saturating_duration_since(acknowledged));
                    break;
                }
                Some(Seen::Began) => {}
                None => return Err("the builder is gone".into()),
            }
        }
    }
    report.percentiles("touch, asked to acknowledged", &mut committed);
    report.percentiles("acknowledged to handler cancelled", &mut noticed);
    engine.shut_down().await;
    store.close().await;
    Ok(report)
}
