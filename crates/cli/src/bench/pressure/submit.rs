//! Many callers that submit, alone and beside workers that each submit wakes.
//!
//! The queue is paused: the workers are woken, ask, and get nothing. What they would do for the jobs would be a load of its own, which any database
//! feels, and says nothing about what waking costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use recache_engine::{Engine, Options};
use recache_store::{NewJob, Store, Word};
use recache_worker::{Context, Handlers};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{BenchResult, Place, PressureArgs, Report, queue, run_off, store_of_its_own, whole};

/// Connections of a worker process.
const WORKER_CONNECTIONS: u32 = 4;
const HANDLER: &str = "bench-woken";

pub(super) async fn measure(args: &PressureArgs, place: &Place, report: &mut Report) -> BenchResult<()> {
    let queue = queue("submit");
    let store = store_of_its_own(place, args.writers).await?;
    store.queues().queue_pause(&queue, None, Word::new("bench", "workers are woken in vain")).await?;
    let (mut alone, mut beside, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        alone.push(submit(args, &store, &queue).await?);
        let fleet = Fleet::start(args, place, &queue).await?;
        let before = fleet.calls();
        beside.push(submit(args, &store, &queue).await?);
        asked.push(per_second(fleet.calls() - before, args));
        fleet.stop().await;
    }
    let [alone, beside, asked] = [alone, beside, asked].map(middle);
    report.row(format!("{} writers submit one at a time, alone", args.writers), alone, "jobs/s");
    report.row(format!("the same, {} workers are woken", args.fleet), beside, "jobs/s");
    report.row("the same, calls of these workers", asked, "calls/s");
    report.row("submit beside woken workers against alone", beside / alone.max(0.001) * 100.0, "%");
    store.queues().queue_resume(&queue).await?;
    let fleet = Fleet::start(args, place, &queue).await?;
    run_off(&*store, &queue).await?;
    fleet.stop().await;
    store.close().await;
    Ok(())
}

/// Answers how many jobs a second were acknowledged.
async fn submit(args: &PressureArgs, store: &Arc<dyn Store>, queue: &str) -> BenchResult<f64> {
    let over = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    let began = Instant::now();
    for _ in 0..args.writers {
        let (store, over, queue) = (Arc::clone(store), Arc::clone(&over), queue.to_owned());
        writers.spawn(async move {
            let mut count = 0_u64;
            while !over.load(Ordering::Relaxed) {
                let job = NewJob { queue: queue.clone(), ..NewJob::new(HANDLER, "null") };
                store.jobs_submit(vec![job]).await?;
                count += 1;
            }
            Ok::<_, recache_store::Error>(count)
        });
    }
    tokio::time::sleep(args.seconds()).await;
    over.store(true, Ordering::Relaxed);
    let mut count = 0;
    while let Some(wrote) = writers.join_next().await {
        count += wrote??;
    }
    Ok(whole(count) / began.elapsed().as_secs_f64())
}

/// Workers, each as a process of its own would be one: with its connections, its session and its ear.
struct Fleet(Vec<Engine>);

impl Fleet {
    async fn start(args: &PressureArgs, place: &Place, queue: &str) -> BenchResult<Self> {
        let mut engines = Vec::new();
        for _ in 0..args.fleet {
            let mut handlers = Handlers::new();
            handlers.job(HANDLER, async |_: Context, (): ()| Ok(()))?;
            let options = Options { queues: vec![queue.to_owned()], ..Options::default() };
            let store = store_of_its_own(place, WORKER_CONNECTIONS).await?;
            engines.push(Engine::builder(store).handlers(handlers).options(options).start().await?);
        }
        Ok(Self(engines))
    }

    /// How often they asked for work.
    fn calls(&self) -> u64 {
        let of = |engine: &Engine| {
            let measured = engine.store().measured();
            let dispatch = measured.statements.iter().find(|one| one.name == "jobs_dispatch");
            dispatch.map_or(0, |one| one.count)
        };
        self.0.iter().map(of).sum()
    }

    async fn stop(self) {
        for engine in self.0 {
            engine.shut_down().await;
            engine.store().close().await;
        }
    }
}

fn per_second(count: u64, args: &PressureArgs) -> f64 {
    whole(count) / args.seconds().as_secs_f64()
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
