//! Workflows of no-op steps, in the shapes that people build.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recache_engine::{Engine, Options};
use recache_model::ids::WorkflowId;
use recache_model::template::Template;
use recache_model::workflow::WorkflowState;
use recache_store::NewJob;
use recache_store::postgres::pressure::settle_down;
use recache_worker::{Context, Handlers};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::report::{Report, milliseconds, nearest_rank};
use super::{BenchResult, Place};

/// How many of what.
#[derive(Debug, clap::Args)]
pub(super) struct WorkflowsArgs {
    /// Workflows of each shape sent one at a time, each waited for; large ones a tenth of that
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    singles: u32,
    /// Workflows of each small shape that run side by side
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    many: u32,
    /// Callers who submit those
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    callers: u32,
    /// Only these shapes: linear4, linear5, diamond4, dag7, tree8, conditional5, batch1000, fan1000, fan10000
    #[arg(long, value_delimiter = ',')]
    shapes: Vec<String>,
    /// Finished jobs that are there before anything is measured: 1000,100000 measures beside each, and compares
    #[arg(long, value_delimiter = ',', default_values_t = [0], value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    history: Vec<u32>,
    /// Handlers that may run at once; default: the engine's
    #[arg(long)]
    slots: Option<usize>,
}

/// A shape of workflow: steps and what each waits for.
struct Shape {
    name: &'static str,
    about: &'static str,
    /// So many attempts of handlers.
    attempts: u32,
    /// It takes long enough to be measured alone.
    is_large: bool,
    /// Rows that a run goes through, where that is what counts.
    rows: Option<u32>,
    steps: Value,
}

fn step(name: &str, after: &[&str]) -> Value {
    json!({ "name": name, "handler": { "callable": "noop" }, "dependencies": after })
}

fn shape(name: &'static str, about: &'static str, steps: Value) -> Shape {
    let attempts = steps.as_array().and_then(|steps| u32::try_from(steps.len()).ok()).unwrap_or(0);
    Shape { name, about, attempts, is_large: false, rows: None, steps }
}

fn fan(name: &'static str, about: &'static str, count: u32) -> Shape {
    let steps = json!([
        { "name": "list", "handler": { "callable": "list", "initialization": { "count": count } } },
        { "name": "each", "handler": { "callable": "noop" }, "dependencies": ["list"],
          "for_each": { "items": "results.list", "limit": count } },
        step("end", &["each"]),
    ]);
    Shape { attempts: count + 2, is_large: true, ..shape(name, about, steps) }
}

fn shapes() -> Vec<Shape> {
    let line = |count: u32| {
        let name = |place: u32| format!("s{place}");
        let steps = (0..count).map(|place| {
            let before = place.checked_sub(1).map(name);
            step(&name(place), &before.iter().map(String::as_str).collect::<Vec<_>>())
        });
        Value::Array(steps.collect())
    };
    let diamond = json!([step("a", &[]), step("b", &["a"]), step("c", &["a"]), step("d", &["b", "c"])]);
    let dag = json!([
        step("init", &[]),
        step("left", &["init"]),
        step("right", &["init"]),
        step("validate", &["left", "right"]),
        step("transform", &["left", "right"]),
        step("analyze", &["left", "right"]),
        step("final", &["validate", "transform", "analyze"]),
    ]);
    let tree = json!([
        step("root", &[]),
        step("l", &["root"]),
        step("r", &["root"]),
        step("ll", &["l"]),
        step("lr", &["l"]),
        step("rl", &["r"]),
        step("rr", &["r"]),
        step("end", &["ll", "lr", "rl", "rr"]),
    ]);
    let conditional = json!([
        { "name": "check", "type": "decision", "handler": { "callable": "choose" } },
        step("small", &["check"]),
        step("middle", &["check"]),
        step("large", &["check"]),
        { "name": "end", "type": "deferred_convergence", "handler": { "callable": "noop" },
          "dependencies": ["small", "middle", "large"] },
    ]);
    let batch = json!([
        { "name": "split", "type": "batchable", "handler": { "callable": "rows" },
          "batch_config": { "batch_size": 200, "parallelism": 5 } },
        { "name": "work", "type": "batch_worker", "handler": { "callable": "batch" }, "dependencies": ["split"] },
        { "name": "end", "type": "deferred_convergence", "handler": { "callable": "noop" }, "dependencies": ["work"] },
    ]);
    vec![
        shape("linear4", "4 steps, one after the other", line(4)),
        shape("linear5", "5 steps, one after the other", line(5)),
        shape("diamond4", "one, two side by side, one", diamond),
        shape("dag7", "init, 2 in parallel, 3 that each need both, final", dag),
        shape("tree8", "1, 2, 4, and 1 that needs the 4", tree),
        Shape {
            attempts: 3,
            ..shape("conditional5", "a decision of 3 ways and a convergence: 3 of 5 run", conditional)
        },
        Shape {
            attempts: 7,
            is_large: true,
            rows: Some(1_000),
            ..shape("batch1000", "1,000 no-op rows over 5 workers", batch)
        },
        fan("fan1000", "one list of 1,000, a run for each, one that gathers", 1_000),
        fan("fan10000", "the same of 10,000", 10_000),
    ]
}

fn handlers(attempts: &Arc<AtomicU64>) -> BenchResult<Handlers> {
    let mut handlers = Handlers::new();
    let counter = Arc::clone(attempts);
    let count = move || {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    let one = count.clone();
    handlers.job("noop", move |_: Context, _: Value| {
        one();
        async { Ok(()) }
    })?;
    let one = count.clone();
    handlers.job("choose", move |_: Context, _: Value| {
        one();
        async { Ok(["middle"]) }
    })?;
    let one = count.clone();
    handlers.job("rows", move |_: Context, _: Value| {
        one();
        async { Ok(json!({ "rows": 1_000 })) }
    })?;
    let one = count.clone();
    handlers.job("list", move |context: Context, _: Value| {
        one();
        let count = context.facts().settings.get("count").and_then(Value::as_u64).unwrap_or(0);
        async move { Ok((0..count).collect::<Vec<_>>()) }
    })?;
    handlers.job("batch", move |context: Context, _: Value| {
        count();
        let item = context.item().cloned().unwrap_or(Value::Null);
        async move {
            let bound = |name: &str| item["cursor"][name].as_u64().unwrap_or(0);
            let rows = bound("end").saturating_sub(bound("start"));
            // A row that costs nothing is still looked at.
            let sum = (0..rows).fold(0_u64, |sum, row| std::hint::black_box(sum.wrapping_add(row)));
            Ok(json!({ "rows": rows, "sum": sum }))
        }
    })?;
    Ok(handlers)
}

pub(super) async fn run(args: &WorkflowsArgs, place: &Place) -> BenchResult<Report> {
    let all = shapes();
    if let Some(unknown) = args.shapes.iter().find(|name| all.iter().all(|shape| shape.name != **name)) {
        let known: Vec<_> = all.iter().map(|shape| shape.name).collect();
        return Err(format!("there is no shape `{unknown}`: {}", known.join(", ")).into());
    }
    let store = place.open().await?;
    let options = Options::default();
    let options = Options { slots: args.slots.unwrap_or(options.slots), ..options };
    let mut histories = args.history.clone();
    histories.sort_unstable();
    let counts: Vec<String> = histories.iter().map(u32::to_string).collect();
    let mut report = Report::new(format!(
        "workflows of no-op steps on {}: {} slots, {} finished jobs before, history and fencing on, every commit durable",
        store.kind(),
        options.slots,
        counts.join(", then ")
    ));
    let attempts = Arc::new(AtomicU64::new(0));
    let engine =
        Engine::builder(Arc::clone(&store)).handlers(handlers(&attempts)?).options(options).start().await?;
    let wanted: Vec<&Shape> = all
        .iter()
        .filter(|shape| args.shapes.is_empty() || args.shapes.iter().any(|name| name == shape.name))
        .collect();
    let mut filled = 0;
    // With how many before, and the median of each shape in bare transactions: what the disk does differs from minute to minute.
    let mut first: Option<(u32, Vec<f64>)> = None;
    for history in &histories {
        fill(&engine, history - filled, &attempts).await?;
        filled = *history;
        // A database that still clears up behind what was written would be measured, and not what it costs to have it.
        if histories.len() > 1 && place.url.starts_with("postgres") {
            settle_down(&place.url).await?;
        }
        let bare = report.bare_transaction(&*store).await?;
        let beside = if histories.len() > 1 { format!("{history} before: ") } else { String::new() };
        let mut medians = Vec::new();
        for shape in &wanted {
            let median = measure(args, shape, &engine, &attempts, bare, &beside, &mut report).await?;
            medians.push(milliseconds(median) / milliseconds(bare).max(0.001));
        }
        let Some((few, least)) = &first else {
            first = Some((*history, medians));
            continue;
        };
        for ((shape, median), least) in wanted.iter().zip(&medians).zip(least) {
            let name = format!("{beside}{}: p50 against {few} before, both in bare transactions", shape.name);
            report.row(name, median / least.max(0.001), "x");
        }
    }
    engine.shut_down().await;
    store.close().await;
    Ok(report)
}

/// Finished jobs for the figures to stand on.
async fn fill(engine: &Engine, jobs: u32, attempts: &AtomicU64) -> BenchResult<()> {
    const BULK: u32 = 1_000;
    let before = attempts.load(Ordering::Relaxed);
    let mut left = jobs;
    while left > 0 {
        let part = left.min(BULK);
        engine.store().jobs_submit((0..part).map(|_| NewJob::new("noop", "null")).collect()).await?;
        left -= part;
    }
    while attempts.load(Ordering::Relaxed) - before < u64::from(jobs) || engine.held_count() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Answers the median of a workflow alone.
async fn measure(
    args: &WorkflowsArgs,
    shape: &Shape,
    engine: &Engine,
    attempts: &Arc<AtomicU64>,
    bare: Duration,
    beside: &str,
    report: &mut Report,
) -> BenchResult<Duration> {
    let source = json!({ "name": shape.name, "version": "1.0.0", "steps": shape.steps }).to_string();
    let template = Arc::new(Template::parse(&source, shape.name).map_err(|problems| problems.to_string())?);
    let singles = if shape.is_large { args.singles.div_ceil(10) } else { args.singles };
    // The first one compiles the template and warms the statements.
    one(engine, &template).await?;
    let before = attempts.load(Ordering::Relaxed);
    let mut sample = Vec::new();
    let began = Instant::now();
    for _ in 0..singles {
        let began = Instant::now();
        one(engine, &template).await?;
        sample.push(began.elapsed());
    }
    let alone = began.elapsed();
    let ran = attempts.load(Ordering::Relaxed) - before;
    if ran != u64::from(singles) * u64::from(shape.attempts) {
        return Err(
            format!("{}: {ran} attempts in {singles} workflows of {}", shape.name, shape.attempts).into()
        );
    }
    report.percentiles(&format!("{beside}{}: {}", shape.name, shape.about), &mut sample);
    let median = nearest_rank(&sample, 0.5);
    let per_step = milliseconds(median) / f64::from(shape.attempts) / milliseconds(bare).max(0.001);
    report.row(format!("{beside}{}: p50 of a step in bare transactions", shape.name), per_step, "x");
    if let Some(rows) = shape.rows {
        report.row(
            format!("{beside}{}: rows", shape.name),
            f64::from(rows) * f64::from(singles) / alone.as_secs_f64(),
            "rows/s",
        );
    }
    if shape.is_large {
        let steps = f64::from(shape.attempts) * f64::from(singles);
        report.row(format!("{beside}{}: steps", shape.name), steps / alone.as_secs_f64(), "steps/s");
        return Ok(median);
    }
    let took = side_by_side(engine, &template, args.many, args.callers).await?;
    let workflows = f64::from(args.many) / took.as_secs_f64();
    report.row(format!("{beside}{}: {} side by side", shape.name, args.many), workflows, "workflows/s");
    report.row(
        format!("{beside}{}: {} side by side", shape.name, args.many),
        workflows * f64::from(shape.attempts),
        "steps/s",
    );
    Ok(median)
}

async fn one(engine: &Engine, template: &Template) -> BenchResult<()> {
    let id = engine.submit_workflow(WorkflowId::make(), template, &Value::Null).await?;
    match engine.wait_for_workflow(id).await?.state {
        WorkflowState::Completed => Ok(()),
        state => Err(format!("workflow {id} is {state}").into()),
    }
}

/// From the first submit to the last end.
async fn side_by_side(
    engine: &Engine,
    template: &Arc<Template>,
    many: u32,
    callers: u32,
) -> BenchResult<Duration> {
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..callers.min(many) {
        let (engine, template) = (engine.clone(), Arc::clone(template));
        let count = many / callers.min(many) + u32::from(caller < many % callers.min(many));
        tasks.spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..count {
                ids.push(engine.submit_workflow(WorkflowId::make(), &template, &Value::Null).await?);
            }
            Ok::<_, recache_engine::Error>(ids)
        });
    }
    let mut ids = Vec::new();
    while let Some(done) = tasks.join_next().await {
        ids.extend(done??);
    }
    for id in ids {
        engine.wait_for_workflow(id).await?;
    }
    Ok(began.elapsed())
}

/// The shapes are templates, each of which runs as often as it says.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_template() {
        for shape in shapes() {
            let source = json!({ "name": shape.name, "version": "1.0.0", "steps": shape.steps }).to_string();
            let template = Template::parse(&source, shape.name).expect("a good template");
            assert!(template.unsupported().is_empty(), "{}", shape.name);
        }
    }
}
