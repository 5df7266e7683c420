//! `recache run`: checks a template, runs it to its end in this process, and prints what came of it.
//!
//! Nothing is stored before everything that can be checked has been: the whole template, its handlers and their settings,
//! the input, and the database's address. The result goes to stdout, all else to stderr.

mod args;
mod batch;
mod input;
mod interrupt;
mod progress;
mod result;
mod stand_in;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use recache_cache::KeyPrefix;
use recache_engine::{Engine, template_raise};
use recache_model::ids::WorkflowId;
use recache_model::template::Template;
use recache_model::workflow::WorkflowState;
use recache_store::{Error as StoreError, OpenOptions, TemplateRecord};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::HandlersConfig;
pub(crate) use args::RunArgs;
pub(crate) use input::{read_input, read_source, told};

use crate::builtin;
use crate::cli_error::{CliError, ExitStatus};
use crate::commands::Database;
use crate::output::Format;
use input::Chosen;
use interrupt::Interrupts;
use result::RunResult;
use stand_in::StandIns;

/// A handler that was told to stop is dropped after this long.
const GRACE: Duration = Duration::from_secs(2);
/// Cancelling may take this long before it is given up.
const CANCEL_WAIT: Duration = Duration::from_secs(5);
/// While the database cannot be reached, it is asked again after this long.
const STORE_PAUSE: Duration = Duration::from_millis(200);

/// All that was checked, ready to run.
struct Plan {
    template: Template,
    /// The same in the environment that was asked for.
    effective: Template,
    environment: Option<String>,
    /// With the beginning of the keys that its users' caches have. `None`: in memory, gone with this process.
    database: Option<(Database, KeyPrefix)>,
    timeout: Option<Duration>,
    output: Format,
    options: builtin::Options,
    stand_ins: StandIns,
}

/// What the template is run with.
enum Inputs {
    One(Value),
    /// Once with each, as a batch.
    Many(Vec<batch::Placed>),
}

/// How the waiting ended.
enum End {
    Ended,
    TimedOut(Duration),
    Interrupted,
    /// The store answered what nobody can go on from.
    Lost(CliError),
}

/// Runs a template: 0 when the workflow completed, 7 when it failed or was cancelled, 124 when its time ran out,
/// 130 when it was interrupted; a second interrupt ends at once.
pub(crate) async fn run(
    args: RunArgs,
    database: Option<(Database, KeyPrefix)>,
    output: Format,
) -> ExitStatus {
    let allowed =
        HandlersConfig { commands: args.commands.iter().cloned().collect(), ..HandlersConfig::default() };
    let options = builtin::Options {
        allow_private_addresses: args.allow_private_addresses,
        handlers: Arc::new(allowed),
    };
    let (chosen, inputs, stand_ins) = match prepare(&args, &options, database.is_some()) {
        Ok(good) => good,
        Err(errors) => return tell(&errors),
    };
    let plan = Plan {
        template: chosen.written,
        effective: chosen.effective,
        environment: args.environment,
        database,
        timeout: args.timeout,
        output,
        options,
        stand_ins,
    };
    let mut interrupts = match Interrupts::listen() {
        Ok(interrupts) => interrupts,
        Err(error) => {
            let what = format!("cannot listen for Ctrl-C: {error}");
            return tell(&[CliError::new("E-RUN", ExitStatus::Failed, what)]);
        }
    };
    let carried_out = match inputs {
        Inputs::One(input) => Box::pin(carry_out(plan, input, &mut interrupts)).await,
        Inputs::Many(inputs) => Box::pin(batch::carry_out(plan, inputs, &mut interrupts)).await,
    };
    match carried_out {
        Ok(status) => status,
        Err(error) => tell(&[error]),
    }
}

/// Shows errors; the first one decides the exit code.
fn tell(errors: &[CliError]) -> ExitStatus {
    let mut err = io::stderr().lock();
    for error in errors {
        // If stderr is gone, the exit code still tells.
        let _ = error.write(&mut err);
    }
    errors.first().map_or(ExitStatus::Failed, |error| error.exit)
}

/// Reads and checks all that is given; every problem at once.
fn prepare(
    args: &RunArgs,
    options: &builtin::Options,
    has_database: bool,
) -> Result<(Chosen, Inputs, StandIns), Vec<CliError>> {
    let mut errors = Vec::new();
    let stand_ins = StandIns::read(args, options, has_database).map_err(|found| errors.extend(found)).ok();
    let chosen = stand_ins.as_ref().and_then(|stand_ins| {
        input::read_template(&args.file, args.environment.as_deref(), options, stand_ins)
            .map_err(|found| errors.extend(found))
            .ok()
    });
    let written = chosen.as_ref().map(|chosen| &chosen.written);
    let inputs = match &args.batch {
        Some(path) if path.as_os_str() == "-" && args.file.as_os_str() == "-" => {
            let what = "template and inputs cannot both come from standard input";
            errors.push(CliError::new("E-USAGE", ExitStatus::Usage, what).at("--batch"));
            None
        }
        Some(path) => {
            batch::read_inputs(path, written).map(Inputs::Many).map_err(|found| errors.extend(found)).ok()
        }
        None => input::read_input(args.input.as_deref())
            .map_err(|error| errors.push(error))
            .ok()
            .filter(|input| {
                let found = written.map(|written| input::check(written, input)).unwrap_or_default();
                let is_good = found.is_empty();
                errors.extend(found);
                is_good
            })
            .map(Inputs::One),
    };
    match (chosen, inputs, stand_ins) {
        (Some(chosen), Some(inputs), Some(stand_ins)) => Ok((chosen, inputs, stand_ins)),
        _ => Err(errors),
    }
}

/// Starts the engine, unless it is interrupted (`None`) or the time runs out before.
async fn begin(
    plan: &Plan,
    deadline: Option<(Instant, Duration)>,
    interrupts: &mut Interrupts,
) -> Result<Option<Engine>, CliError> {
    tokio::select! {
        biased;
        () = interrupts.next() => Ok(None),
        () = passed(deadline) => {
            Err(CliError::new("E-TIMEOUT", ExitStatus::TimedOut, "the time ran out before the database answered")
                .at("--database").help("check that the database can be reached, or raise --timeout"))
        }
        engine = start(plan) => engine.map(Some),
    }
}

async fn carry_out(plan: Plan, input: Value, interrupts: &mut Interrupts) -> Result<ExitStatus, CliError> {
    let deadline = plan.timeout.map(|timeout| (Instant::now() + timeout, timeout));
    let Some(engine) = begin(&plan, deadline, interrupts).await? else { return Ok(ExitStatus::Interrupted) };
    let store = Arc::clone(engine.store());
    let workflow = WorkflowId::make();
    if let Err(error) = submit(&engine, workflow, &plan, &input).await {
        engine.shut_down().await;
        store.close().await;
        return Err(of_engine(&error));
    }
    let ended = CancellationToken::new();
    let progress = tokio::spawn(progress::follow(Arc::clone(&store), workflow, ended.clone()));
    let end = tokio::select! {
        biased;
        () = interrupts.next() => End::Interrupted,
        end = wait(&engine, workflow) => end.unwrap_or_else(|error| End::Lost(of_engine(&error))),
        () = passed(deadline) => End::TimedOut(plan.timeout.unwrap_or_default()),
    };
    let finish = async {
        let cancelled = match &end {
            End::Ended => Ok(()),
            End::TimedOut(limit) => {
                cancel(&engine, workflow, &format!("not completed within {} ms", limit.as_millis())).await
            }
            End::Interrupted => cancel(&engine, workflow, "interrupted").await,
            End::Lost(_) => cancel(&engine, workflow, "its runner lost it").await,
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
    let result = tokio::select! {
        biased;
        () = interrupts.next() => return Ok(ExitStatus::Interrupted),
        result = tokio::time::timeout(CANCEL_WAIT, RunResult::read(store.as_ref(), workflow)) => result,
    };
    let has_ended = matches!(&result, Ok(Ok(result)) if result.state() != Some(WorkflowState::Running));
    let status = match result {
        Ok(Ok(result)) => conclude(&plan, &result, &end),
        Ok(Err(error)) => {
            tell(&[of_store(&error)]);
            status_of(&end, None)
        }
        Err(_) => status_of(&end, None),
    };
    if let (Err(error), false) = (cancelled, has_ended) {
        tell(&[error]);
    }
    let status = match &end {
        End::Lost(error) => tell(std::slice::from_ref(error)),
        _ => status,
    };
    store.close().await;
    Ok(status)
}

async fn submit(
    engine: &Engine,
    workflow: WorkflowId,
    plan: &Plan,
    input: &Value,
) -> recache_engine::Result<WorkflowId> {
    engine.submit_workflow_in(workflow, &plan.template, plan.environment.as_deref(), input).await
}

/// Never, without a deadline.
async fn passed(deadline: Option<(Instant, Duration)>) {
    match deadline {
        Some((at, _)) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Opens the store and starts an engine that serves the template's queues.
async fn start(plan: &Plan) -> Result<Engine, CliError> {
    let template = record(&plan.template);
    let (store, raise) = if let Some((database, keys)) = &plan.database {
        (database.open_or_create().await?, Some(template_raise(keys, &template)))
    } else {
        let memory = OpenOptions::new("sqlite::memory:");
        (recache_store::open(&memory).await.map_err(|error| of_store(&error))?, None)
    };
    // Before a session is opened: the version may be there already with another content.
    if let Err(error) = store.template_put(template, raise).await {
        store.close().await;
        let told = of_template(&plan.template, &error);
        return Err(match (&plan.database, &error) {
            (Some((database, _)), StoreError::Unavailable { .. }) => told.at(database.place()),
            _ => told,
        });
    }
    let queues: BTreeSet<String> = plan
        .effective
        .steps()
        .iter()
        .map(|step| step.queue.clone().unwrap_or_else(|| "default".to_owned()))
        .collect();
    let options = recache_engine::Options {
        queues: queues.into_iter().collect(),
        // When the workflow has ended, whatever else this process holds is handed back.
        drain: Duration::ZERO,
        grace: GRACE,
        ..recache_engine::Options::default()
    };
    let handlers = builtin::handlers(plan.options.clone())
        .and_then(|built_in| plan.stand_ins.handlers(&plan.effective, built_in))
        .map_err(|error| CliError::new("E-RUN", ExitStatus::Failed, error.to_string()))?;
    match Engine::builder(Arc::clone(&store)).handlers(handlers).options(options).start().await {
        Ok(engine) => Ok(engine),
        Err(error) => {
            store.close().await;
            Err(of_engine(&error))
        }
    }
}

fn record(template: &Template) -> TemplateRecord {
    TemplateRecord {
        digest: template.digest().to_string(),
        namespace: template.namespace().to_owned(),
        name: template.name().to_owned(),
        version: template.version().to_string(),
        content: template.canonical_json().to_owned(),
    }
}

/// Waits for the workflow's end; a database that is away for a while delays the news, no more.
async fn wait(engine: &Engine, workflow: WorkflowId) -> recache_engine::Result<End> {
    loop {
        match engine.wait_for_workflow(workflow).await {
            Ok(_) => return Ok(End::Ended),
            Err(recache_engine::Error::Store(error)) if error.is_retryable() => {
                tracing::warn!(%error, "waiting for the database");
                tokio::time::sleep(STORE_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn cancel(engine: &Engine, workflow: WorkflowId, reason: &str) -> Result<(), CliError> {
    let undone = |why: String| {
        CliError::new(
            "E-CANCEL",
            ExitStatus::Unavailable,
            format!("{workflow} could not be cancelled: {why}"),
        )
        .help("it goes on where its queues are served: cancel its steps with `recache job cancel`")
    };
    match tokio::time::timeout(CANCEL_WAIT, engine.cancel_workflow(workflow, reason)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(undone(error.to_string())),
        Err(_) => Err(undone(format!("no answer within {} s", CANCEL_WAIT.as_secs()))),
    }
}

/// Prints the result and says what it means.
fn conclude(plan: &Plan, result: &RunResult, end: &End) -> ExitStatus {
    let mut out = io::stdout().lock();
    let written = match plan.output {
        Format::Json | Format::Jsonl => result.write_json(&mut out),
        Format::Table => result.write_table(&mut out),
    };
    let status = status_of(end, result.state());
    match written.and_then(|()| out.flush()) {
        Ok(()) => {}
        // Whoever read the output has gone: nothing is left to be said.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            let what = format!("cannot write the result: {error}");
            let failed = tell(&[CliError::new("E-OUTPUT", ExitStatus::Failed, what).at("standard output")]);
            return if status == ExitStatus::Ok { failed } else { status };
        }
    }
    let error = match (status, end) {
        (ExitStatus::TimedOut, End::TimedOut(limit)) => {
            let what = format!("the workflow was cancelled: not completed within {} ms", limit.as_millis());
            Some(CliError::new("E-TIMEOUT", status, what).at("--timeout").help("raise --timeout"))
        }
        (ExitStatus::Interrupted, _) => {
            Some(CliError::new("E-INTERRUPTED", status, "interrupted; the workflow was cancelled"))
        }
        (ExitStatus::JobFailed, _) => {
            let what = match result.state() {
                Some(WorkflowState::Cancelled) => "the workflow was cancelled".to_owned(),
                _ => format!("the workflow failed\n{}", result.failures().join("\n")),
            };
            Some(CliError::new("E-WORKFLOW", status, what).at(plan.template.name()))
        }
        _ => None,
    };
    if let Some(error) = error {
        tell(&[error]);
    }
    status
}

/// A workflow that completed in the very moment of its cancelling did complete.
fn status_of(end: &End, state: Option<WorkflowState>) -> ExitStatus {
    match (end, state) {
        (End::Interrupted, _) => ExitStatus::Interrupted,
        (_, Some(WorkflowState::Completed)) => ExitStatus::Ok,
        (End::TimedOut(_), _) => ExitStatus::TimedOut,
        (End::Ended | End::Lost(_), None) => ExitStatus::Unavailable,
        (End::Ended | End::Lost(_), Some(_)) => ExitStatus::JobFailed,
    }
}

fn of_engine(error: &recache_engine::Error) -> CliError {
    match error {
        recache_engine::Error::Store(error) => of_store(error),
        other => CliError::new("E-RUN", ExitStatus::Failed, other.to_string()),
    }
}

fn of_template(template: &Template, error: &StoreError) -> CliError {
    match error {
        StoreError::Conflict(_) => of_store(error)
            .at(format!("{} {}", template.name(), template.version()))
            .help("a version that is stored never changes: raise `version` in the template"),
        _ => of_store(error),
    }
}

fn of_store(error: &StoreError) -> CliError {
    let (exit, help) = match error {
        StoreError::Invalid(_) => (ExitStatus::Failed, None),
        StoreError::NotFound { .. } => (ExitStatus::NotFound, None),
        StoreError::Conflict(_) => (ExitStatus::Conflict, None),
        StoreError::Unavailable { .. } => (
            ExitStatus::Unavailable,
            Some("check that the database is there, can be written to and has room; then run again"),
        ),
        StoreError::Unknown { .. } => {
            (ExitStatus::Unavailable, Some("look whether the workflow is there before you run it again"))
        }
        StoreError::Broken { .. } => {
            (ExitStatus::Failed, Some("name a database of Recache, or restore this one"))
        }
    };
    let code = if exit == ExitStatus::Unavailable { "E-UNAVAILABLE" } else { "E-DATABASE" };
    let told = CliError::new(code, exit, error.to_string()).at("--database");
    match help {
        Some(help) => told.help(help),
        None => told,
    }
}
