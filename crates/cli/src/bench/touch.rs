//! Touching a view while it is built: in this process, or in another one.

use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use recache_engine::Engine;
use recache_model::view::ViewPolicy;
use recache_store::{NewView, Store, Touch};
use recache_worker::{BuildContext, Failure, Handlers};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
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
    /// Let the builds run in a process of their own, which hears of the touch through the database
    #[arg(long)]
    processes: bool,
    /// And let that process hear no notification: its beat must find out
    #[arg(long, requires = "processes")]
    without_notifications: bool,
    /// Be that process: say on stdout when a build begins and is stopped, until stdin ends
    #[arg(long, hide = true, conflicts_with = "processes")]
    as_builder: Option<Builder>,
}

/// The process that builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Builder {
    Hearing,
    /// Hears no notification.
    Deaf,
}

impl TouchArgs {
    /// Whether this process hears no notification.
    pub(super) fn is_deaf(&self) -> bool {
        self.as_builder == Some(Builder::Deaf)
    }
}

#[derive(Debug)]
enum Seen {
    Began,
    Stopped(Instant),
}

const BEGAN: &str = "began";
const STOPPED: &str = "stopped";

/// A build that has not been seen to begin or stop after this long never will.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(args: &TouchArgs, place: &Place) -> BenchResult<Report> {
    let store = place.open().await?;
    if args.as_builder.is_some() {
        build_until_told(Arc::clone(&store)).await?;
        store.close().await;
        return Ok(Report::new("builds for another process".to_owned()));
    }
    let how = match (args.processes, args.without_notifications) {
        (false, _) => "in the same process",
        (true, false) => "in another process",
        (true, true) => "in another process, without notifications",
    };
    let mut report = Report::new(format!("touch of a running build on {}, handler {how}", store.kind()));
    report.bare_transaction(&*store).await?;
    let (seen, sees) = mpsc::unbounded_channel();
    let mut handlers = Handlers::new();
    if !args.processes {
        register(&mut handlers, move |what| {
            let _ = seen.send(what);
        })?;
        measure(args, store, handlers, None, sees, &mut report).await?;
        return Ok(report);
    }
    let child = builder(args, place)?;
    measure(args, store, handlers, Some((child, seen)), sees, &mut report).await?;
    Ok(report)
}

/// A builder that only ends when it is stopped.
fn register(handlers: &mut Handlers, see: impl Fn(Seen) + Clone + Send + Sync + 'static) -> BenchResult<()> {
    handlers.view("endless", move |build: BuildContext| {
        let see = see.clone();
        async move {
            see(Seen::Began);
            let why = build.context().stopped().await;
            see(Seen::Stopped(Instant::now()));
            Err(Failure::Stopped(why))
        }
    })?;
    Ok(())
}

/// The same program as the process that builds. It ends with this one, because its stdin does.
fn builder(args: &TouchArgs, place: &Place) -> BenchResult<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    let how = if args.without_notifications { "deaf" } else { "hearing" };
    command.args(["bench", "touch", "--as-builder", how]);
    // Not as an argument, which everybody on the machine could read.
    command.env("RECACHE_DATABASE", &place.url);
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?)
}

async fn build_until_told(store: Arc<dyn Store>) -> BenchResult<()> {
    let mut handlers = Handlers::new();
    register(&mut handlers, |what| {
        let said = if matches!(what, Seen::Began) { BEGAN } else { STOPPED };
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{said}").and_then(|()| out.flush());
    })?;
    let engine = Engine::builder(store).handlers(handlers).start().await?;
    // Nobody writes there.
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0; 1])).await??;
    engine.shut_down().await;
    Ok(())
}

/// Tells what the process says; when it was read.
async fn hear(child: &mut Child, seen: mpsc::UnboundedSender<Seen>) {
    let Some(out) = child.stdout.take() else { return };
    let mut lines = BufReader::new(out).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let at = Instant::now();
        let what = match line.as_str() {
            BEGAN => Seen::Began,
            STOPPED => Seen::Stopped(at),
            _ => continue,
        };
        if seen.send(what).is_err() {
            return;
        }
    }
}

async fn measure(
    args: &TouchArgs,
    store: Arc<dyn Store>,
    handlers: Handlers,
    child: Option<(Child, mpsc::UnboundedSender<Seen>)>,
    mut sees: mpsc::UnboundedReceiver<Seen>,
    report: &mut Report,
) -> BenchResult<()> {
    let engine = Engine::builder(Arc::clone(&store)).handlers(handlers).start().await?;
    let policy = ViewPolicy { debounce_quiet_ms: 1, max_staleness_ms: None, ..ViewPolicy::default() };
    engine.define_view(NewView { policy, ..NewView::new("bench", "endless", "endless") }).await?;
    let other = child.map(|(mut child, seen)| {
        tokio::spawn(async move {
            hear(&mut child, seen).await;
            child
        })
    });
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
    if let Some(other) = other {
        // Dropping it ends the process.
        other.abort();
        let _ = other.await;
    }
    engine.shut_down().await;
    store.close().await;
    Ok(())
}
