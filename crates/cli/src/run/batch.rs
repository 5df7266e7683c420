//! `recache run --batch`: a template once for each input of a file, as members of one batch that is followed to its end.

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use recache_engine::Engine;
use recache_model::batch::{BatchCounts, BatchState};
use recache_model::ids::{BatchId, WorkflowId};
use recache_model::template::Template;
use recache_store::{BatchRecord, NewBatch, Store};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::input::{PROBLEMS_SHOWN_MAX, check, parse_json, read_text_of};
use super::interrupt::Interrupts;
use super::result::RunResult;
use super::{CANCEL_WAIT, End, Plan, STORE_PAUSE, begin, of_engine, of_store, passed, tell};
use crate::cli_error::{CliError, ExitStatus};
use crate::output::Format;

/// Largest file of inputs, in bytes.
const INPUTS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Members of one batch that this command makes.
const MEMBERS_MAX: usize = 10_000;
/// Members that are submitted at once.
const SUBMITS_AT_ONCE: usize = 16;
/// Members that failed which the document names.
const FAILED_SHOWN_MAX: usize = 1_000;
/// Between two looks at the counts.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// Between two lines about them, where nobody watches a terminal.
const TELL_PAUSE: Duration = Duration::from_secs(1);
/// One wait for the end; then the engine is asked again.
const WAIT: Duration = Duration::from_hours(1);

/// One input, and where it stands in the file: its line, or its place in the list.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) place: usize,
    pub(super) input: Value,
}

/// Reads and checks the inputs: one JSON value a line, or one JSON list of them.
pub(super) fn read_inputs(path: &Path, template: Option<&Template>) -> Result<Vec<Placed>, Vec<CliError>> {
    let (name, text) = read_text_of(path, "inputs", INPUTS_BYTES_MAX).map_err(|error| vec![error])?;
    let (inputs, mut errors) = parse(&text, &name);
    let error = |what: &str| CliError::new("E-INPUT", ExitStatus::Failed, what).at(name.clone());
    if inputs.is_empty() && errors.is_empty() {
        errors.push(error("there are no inputs").help("write one JSON value a line, or one list of them"));
    }
    if inputs.len() > MEMBERS_MAX {
        let what =
            format!("there are {} inputs; one batch of this command takes {MEMBERS_MAX}", inputs.len());
        errors.push(error(&what).help("split the file"));
    }
    if let Some(template) = template {
        for Placed { place, input } in &inputs {
            if errors.len() > PROBLEMS_SHOWN_MAX {
                break;
            }
            errors.extend(check(template, input).into_iter().map(|error| {
                let within = error.place.clone().map(|within| format!(" {within}")).unwrap_or_default();
                error.at(format!("{name}:{place}{within}"))
            }));
        }
    }
    if errors.len() > PROBLEMS_SHOWN_MAX {
        errors.truncate(PROBLEMS_SHOWN_MAX);
        errors.push(error("and more"));
    }
    if errors.is_empty() { Ok(inputs) } else { Err(errors) }
}

fn parse(text: &str, name: &str) -> (Vec<Placed>, Vec<CliError>) {
    let placed = |(index, input)| Placed { place: index + 1, input };
    if text.trim_start().starts_with('[')
        && let Ok(Value::Array(inputs)) = parse_json(text)
    {
        return (inputs.into_iter().enumerate().map(placed).collect(), Vec::new());
    }
    let (mut inputs, mut errors) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match parse_json(line) {
            Ok(input) => inputs.push(placed((index, input))),
            Err(error) => {
                let cause = error.to_string();
                let cause = cause.split(" at line ").next().unwrap_or_default();
                let what = format!("the input is not JSON: {cause}");
                let place = format!("{name}:{}:{}", index + 1, error.column());
                errors.push(CliError::new("E-INPUT", ExitStatus::Failed, what).at(place));
            }
        }
    }
    (inputs, errors)
}

/// Submits all, follows the batch, prints what came of it.
pub(super) async fn carry_out(
    plan: Plan,
    inputs: Vec<Placed>,
    interrupts: &mut Interrupts,
) -> Result<ExitStatus, CliError> {
    let deadline = plan.timeout.map(|timeout| (Instant::now() + timeout, timeout));
    let Some(engine) = begin(&plan, deadline, interrupts).await? else { return Ok(ExitStatus::Interrupted) };
    let store = Arc::clone(engine.store());
    let plan = Arc::new(plan);
    let members: Vec<(WorkflowId, Placed)> =
        inputs.into_iter().map(|input| (WorkflowId::make(), input)).collect();
    let new = NewBatch {
        namespace: plan.template.namespace().to_owned(),
        expected: u64::try_from(members.len()).ok(),
        metadata: json!({ "template": plan.template.name(), "version": plan.template.version().to_string() })
            .to_string(),
        ..NewBatch::new(format!("run {}", plan.template.name()))
    };
    let batch = new.id;
    if let Err(error) = engine.create_batch(new).await {
        engine.shut_down().await;
        store.close().await;
        return Err(of_engine(&error));
    }
    let ended = CancellationToken::new();
    let progress = tokio::spawn(follow(Arc::clone(&store), batch, members.len(), ended.clone()));
    let work = async {
        submit(&engine, &plan, batch, &members).await?;
        wait(&engine, batch).await
    };
    let end = tokio::select! {
        biased;
        () = interrupts.next() => End::Interrupted,
        end = work => end.unwrap_or_else(|error| End::Lost(of_engine(&error))),
        () = passed(deadline) => End::TimedOut(plan.timeout.unwrap_or_default()),
    };
    let finish = async {
        let cancelled = match &end {
            End::Ended => Ok(()),
            End::TimedOut(limit) => {
                cancel(&engine, batch, &format!("not completed within {} ms", limit.as_millis())).await
            }
            End::Interrupted => cancel(&engine, batch, "interrupted").await,
            End::Lost(_) => cancel(&engine, batch, "its runner lost it").await,
        };
        engine.shut_down().await;
        ended.cancel();
        let _ = progress.await;
        cancelled
    };
    let cancelled = tokio::select! {
        biased;
        () = interrupts.next() => return Ok(ExitStatus::Interrupted),
        cancelled = finish => cancelled,
    };
    if let Err(error) = cancelled {
        tell(&[error]);
    }
    let printed = tokio::select! {
        biased;
        () = interrupts.next() => return Ok(ExitStatus::Interrupted),
        printed = print(&*store, batch, &members, plan.output) => printed,
    };
    store.close().await;
    let status = conclude(&plan, &end, &printed);
    Ok(status)
}

async fn submit(
    engine: &Engine,
    plan: &Arc<Plan>,
    batch: BatchId,
    members: &[(WorkflowId, Placed)],
) -> recache_engine::Result<()> {
    for some in members.chunks(SUBMITS_AT_ONCE) {
        let mut submitting = JoinSet::new();
        for (id, placed) in some {
            let (engine, plan, id, input) = (engine.clone(), Arc::clone(plan), *id, placed.input.clone());
            submitting.spawn(async move {
                let environment = plan.environment.as_deref();
                engine.submit_workflow_to(batch, id, &plan.template, environment, &input, None).await
            });
        }
        while let Some(submitted) = submitting.join_next().await {
            match submitted {
                Ok(submitted) => submitted.map(drop)?,
                Err(error) => {
                    return Err(recache_engine::Error::Invalid(format!("a submit broke off: {error}")));
                }
            }
        }
    }
    Ok(())
}

/// A database that is away for a while delays the news, no more.
async fn wait(engine: &Engine, batch: BatchId) -> recache_engine::Result<End> {
    loop {
        match engine.wait_for_batch(batch, WAIT).await {
            Ok(_) => return Ok(End::Ended),
            Err(recache_engine::Error::TimedOut { .. }) => {}
            Err(recache_engine::Error::Store(error)) if error.is_retryable() => {
                tracing::warn!(%error, "waiting for the database");
                tokio::time::sleep(STORE_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn cancel(engine: &Engine, batch: BatchId, reason: &str) -> Result<(), CliError> {
    let undone = |why: String| {
        let what = format!("{batch} could not be cancelled: {why}");
        CliError::new("E-CANCEL", ExitStatus::Unavailable, what)
            .help(format!("it goes on where its queues are served: recache batch cancel {batch} --reason …"))
    };
    match tokio::time::timeout(CANCEL_WAIT, engine.cancel_batch(batch, reason)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(undone(error.to_string())),
        Err(_) => Err(undone(format!("no answer within {} s", CANCEL_WAIT.as_secs()))),
    }
}

/// Tells of the counts on stderr: as lines, or as a bar on a terminal.
async fn follow(store: Arc<dyn Store>, batch: BatchId, total: usize, ended: CancellationToken) {
    let bar = io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX));
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar
    });
    let (mut told, mut told_at) = (None, None);
    loop {
        let is_last = ended.is_cancelled();
        // A look that fails is made up for by the next one.
        if let Ok(record) = store.batches().batch_get(batch).await {
            let text = counts_text(&record.counts);
            let is_due = told_at.is_none_or(|at: Instant| at.elapsed() >= TELL_PAUSE);
            match &bar {
                Some(bar) => {
                    bar.set_position(u64::try_from(record.counts.ended()).unwrap_or(0));
                    bar.set_message(format!("{} failed", record.counts.failed));
                }
                None if (is_due || is_last) && told.as_ref() != Some(&text) => {
                    let _ = writeln!(io::stderr().lock(), "{batch}: {text}");
                    (told, told_at) = (Some(text), Some(Instant::now()));
                }
                None => {}
            }
        }
        if is_last {
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            return;
        }
        tokio::select! {
            () = ended.cancelled() => {}
            () = tokio::time::sleep(LOOK_PAUSE) => {}
        }
    }
}

fn counts_text(counts: &BatchCounts) -> String {
    let mut text = format!("{} of {} ended", counts.ended(), counts.total);
    if counts.failed > 0 {
        text = format!("{text}, {} failed", counts.failed);
    }
    if counts.cancelled > 0 {
        text = format!("{text}, {} cancelled", counts.cancelled);
    }
    text
}

/// What came of the batch, as `recache run --batch` prints it.
#[derive(Debug, Serialize)]
struct BatchResult {
    schema: &'static str,
    batch: String,
    state: &'static str,
    counts: Counts,
    /// Members that failed, in the order of the file.
    failed: Vec<Failed>,
    /// So many of them are not named.
    failed_left_out: usize,
}

#[derive(Debug, Serialize)]
struct Counts {
    total: i64,
    completed: i64,
    failed: i64,
    cancelled: i64,
    superseded: i64,
    pending: i64,
}

#[derive(Debug, Serialize)]
struct Failed {
    /// Line of the file, or place in its list.
    place: usize,
    workflow: String,
    code: Option<String>,
    message: Option<String>,
}

/// One member with all its steps.
#[derive(Debug, Serialize)]
struct Member<'a> {
    place: usize,
    #[serde(flatten)]
    result: &'a RunResult,
}

/// Why nothing, or not all, was printed.
enum Unprinted {
    Store(CliError),
    Output(io::Error),
}

async fn print(
    store: &dyn Store,
    batch: BatchId,
    members: &[(WorkflowId, Placed)],
    format: Format,
) -> Result<BatchRecord, Unprinted> {
    let unprinted = |error: recache_store::Error| Unprinted::Store(of_store(&error));
    let record = store.batches().batch_get(batch).await.map_err(unprinted)?;
    let written = if format == Format::Jsonl {
        let mut written = Ok(());
        for (id, placed) in members {
            let result = match RunResult::read(store, *id).await {
                Ok(result) => result,
                // The time ran out before it was submitted.
                Err(recache_store::Error::NotFound { .. }) => continue,
                Err(error) => return Err(unprinted(error)),
            };
            written = written.and_then(|()| {
                let mut out = io::stdout().lock();
                serde_json::to_writer(&mut out, &Member { place: placed.place, result: &result })?;
                writeln!(out)
            });
        }
        written
    } else {
        let result = read(store, record.clone(), members).await.map_err(unprinted)?;
        let mut out = io::stdout().lock();
        if format == Format::Table { write_table(&result, &mut out) } else { write_json(&result, &mut out) }
    };
    match written.and_then(|()| io::stdout().lock().flush()) {
        Ok(()) => Ok(record),
        // Whoever read the output has gone: nothing is left to be said.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(record),
        Err(error) => Err(Unprinted::Output(error)),
    }
}

async fn read(
    store: &dyn Store,
    record: BatchRecord,
    members: &[(WorkflowId, Placed)],
) -> recache_store::Result<BatchResult> {
    let rows_max = u32::try_from(MEMBERS_MAX).unwrap_or(u32::MAX);
    let failed = store.batches().batch_members(record.definition.id, true, None, rows_max).await?;
    let places: std::collections::HashMap<_, _> =
        members.iter().map(|(id, placed)| (id.uuid(), (*id, placed.place))).collect();
    let mut failed: Vec<Failed> = failed
        .into_iter()
        .filter_map(|member| {
            let (workflow, place) = places.get(&member.id)?;
            let (workflow, place) = (workflow.to_string(), *place);
            Some(Failed { place, workflow, code: member.code, message: member.message })
        })
        .collect();
    failed.sort_by_key(|failed| failed.place);
    let failed_left_out = failed.len().saturating_sub(FAILED_SHOWN_MAX);
    failed.truncate(FAILED_SHOWN_MAX);
    let counts = record.counts;
    Ok(BatchResult {
        schema: "recache.run-batch.v1",
        batch: record.definition.id.to_string(),
        state: record.state.as_str(),
        counts: Counts {
            total: counts.total,
            completed: counts.completed,
            failed: counts.failed,
            cancelled: counts.cancelled,
            superseded: counts.superseded,
            pending: counts.pending(),
        },
        failed,
        failed_left_out,
    })
}

fn write_json(result: &BatchResult, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, result)?;
    writeln!(out)
}

fn write_table(result: &BatchResult, out: &mut dyn Write) -> io::Result<()> {
    for failed in &result.failed {
        let message = failed.message.as_deref().unwrap_or_default();
        let message: String =
            message.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        writeln!(out, "input {}: {} failed: {message}", failed.place, failed.workflow)?;
    }
    if result.failed_left_out > 0 {
        writeln!(out, "and {} more", result.failed_left_out)?;
    }
    let counts = &result.counts;
    writeln!(
        out,
        "batch {} {}: {} of {} completed, {} failed, {} cancelled",
        result.batch, result.state, counts.completed, counts.total, counts.failed, counts.cancelled
    )
}

/// Says what it means.
fn conclude(plan: &Plan, end: &End, printed: &Result<BatchRecord, Unprinted>) -> ExitStatus {
    let state = match printed {
        Ok(record) => Some(record.state),
        Err(Unprinted::Store(error)) => {
            tell(std::slice::from_ref(error));
            None
        }
        Err(Unprinted::Output(error)) => {
            let what = format!("cannot write the result: {error}");
            tell(&[CliError::new("E-OUTPUT", ExitStatus::Failed, what).at("standard output")]);
            return ExitStatus::Failed;
        }
    };
    let status = match (end, state) {
        (End::Interrupted, _) => ExitStatus::Interrupted,
        (End::Ended | End::TimedOut(_), Some(BatchState::Completed)) => ExitStatus::Ok,
        (End::TimedOut(_), _) => ExitStatus::TimedOut,
        (End::Lost(error), _) => return tell(std::slice::from_ref(error)),
        (End::Ended, None) => ExitStatus::Unavailable,
        (End::Ended, Some(_)) => ExitStatus::JobFailed,
    };
    let error = match (status, end, printed) {
        (ExitStatus::TimedOut, End::TimedOut(limit), _) => {
            let what = format!("the batch was cancelled: not completed within {} ms", limit.as_millis());
            Some(CliError::new("E-TIMEOUT", status, what).at("--timeout").help("raise --timeout"))
        }
        (ExitStatus::Interrupted, ..) => {
            Some(CliError::new("E-INTERRUPTED", status, "interrupted; the batch was cancelled"))
        }
        (ExitStatus::JobFailed, _, Ok(record)) => {
            let what = format!("not all members completed: {}", counts_text(&record.counts));
            Some(CliError::new("E-BATCH", status, what).at(plan.template.name()))
        }
        _ => None,
    };
    if let Some(error) = error {
        tell(&[error]);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<(usize, String)> {
        let (inputs, errors) = parse(text, "inputs");
        assert_eq!(errors, []);
        inputs.into_iter().map(|placed| (placed.place, placed.input.to_string())).collect()
    }

    #[test]
    fn inputs_are_lines_or_one_list() {
        let lines = places("{\"a\":1}\n\n  2\n[3]\n");
        assert_eq!(lines, [(1, "{\"a\":1}".to_owned()), (3, "2".to_owned()), (4, "[3]".to_owned())]);
        assert_eq!(places(" [1,\n {\"a\": 2}]\n"), [(1, "1".to_owned()), (2, "{\"a\":2}".to_owned())]);
        assert_eq!(places("[1]\n[2]\n"), [(1, "[1]".to_owned()), (2, "[2]".to_owned())]);
    }

    #[test]
    fn every_wrong_line_is_named() {
        let (_, errors) = parse("{\"a\":1,\"a\":2}\n1\n{", "in.jsonl");
        let told: Vec<_> = errors.iter().filter_map(|error| error.place.clone()).collect();
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("in.jsonl:1:") && told[1].starts_with("in.jsonl:3:"), "{told:?}");
    }
}
