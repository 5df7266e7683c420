//! One attempt: wait for a slot, run the handler, decide what its end means.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use recache_model::ids::WorkflowId;
use recache_model::job::{AfterFailure, ErrorKind, JobError, after_failure};
use recache_model::retry::RetryPolicy;
use recache_store::{
    BuildStart, ClaimedJob, FLOW, KNOWN_PAGE_ROWS, KnownStarts, LeaseToken, Outcome, Publication, Published,
    Revoked, Settlement, TouchedItems, ViewName,
};
use recache_worker::{
    BuildContext, BuildSource, BuildSummary, Builder, Call, Context, Failure, Handler, JobFacts, Pages,
    Registered, Stop, StopSignal, Touched,
};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use crate::engine::Shared;
use crate::held::stop_for;
use crate::link::StoreLink;
use crate::remote::lease_token_text;
use crate::rules::{self, Rules};
use crate::stats::{add, one};
use crate::{kept, link, turn, view_turn};

/// Between tries to publish while the store cannot be reached.
const PUBLISH_PAUSE: Duration = Duration::from_millis(50);

/// How an attempt ended, as the pump needs to know it.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) token: LeaseToken,
    pub(crate) workflow: Option<WorkflowId>,
    /// `None` when there is nothing to say: the job was taken away, or publishing has settled it.
    pub(crate) settlement: Option<Settlement>,
    /// `None` when the handler did not run.
    pub(crate) run_time: Option<Duration>,
    /// Limits had a say in its claim.
    pub(crate) is_limited: bool,
    /// It was handed back because no slot came free for it.
    pub(crate) waited_in_vain: bool,
}

/// A job that waits here this long for a slot goes back to where another process can take it. Jobs are claimed ahead by
/// how long recent ones ran; when the next ones run longer, what waits behind them must not wait for them.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(1);

pub(crate) async fn run(shared: &Arc<Shared>, job: ClaimedJob, stop: StopSignal, slots: &Semaphore) -> Ended {
    let is_turn = job.handler == FLOW;
    let ready = async {
        // A turn of the engine's own is short, and handlers may be waiting for what it decides.
        let slot = if is_turn { Ok(None) } else { slots.acquire().await.map(Some) };
        // Nothing new is begun on a lease that may have passed.
        shared.lease.wait_until_sure(shared.options.lease).await;
        slot
    };
    let mut waited_in_vain = false;
    let slot = tokio::select! {
        biased;
        why = stop.stopped() => Err(why),
        () = shared.draining.cancelled() => Err(Stop::Shutdown),
        slot = ready => slot.map_err(|_| Stop::Shutdown),
        () = tokio::time::sleep(WAIT_MAX) => {
            waited_in_vain = true;
            Err(Stop::Shutdown)
        }
    };
    let mut ended = Ended {
        token: job.token,
        workflow: job.workflow,
        settlement: None,
        run_time: None,
        is_limited: job.is_limited,
        waited_in_vain,
    };
    let outcome = match slot {
        Err(Stop::Shutdown) => {
            one(&shared.counters.released);
            Some(Outcome::Released)
        }
        Err(why) => {
            count_stop(shared, why);
            None
        }
        Ok(_slot) => {
            if !is_turn {
                one(&shared.counters.started);
            }
            let began = Instant::now();
            // A handler that was dropped unfinished may panic while it is; its job must not stay with it.
            note_wait(&job);
            let attempting = attempt(shared, &job, &stop).instrument(span_of(&job));
            let outcome = match AssertUnwindSafe(attempting).catch_unwind().await {
                Ok(outcome) => outcome,
                Err(panic) => {
                    one(&shared.counters.panicked);
                    let error = JobError {
                        code: Some(PANIC.to_owned()),
                        ..JobError::new(ErrorKind::Panic, panic_message(&*panic))
                    };
                    Some(failed(shared, &job, error))
                }
            };
            ended.run_time = (!is_turn).then(|| began.elapsed());
            outcome
        }
    };
    ended.settlement = outcome.map(|outcome| Settlement::of(&job, outcome));
    ended
}

/// The span of an attempt, of a job that belongs to a trace: others cost nothing. What exports it reads `traceparent` for the span above.
fn span_of(job: &ClaimedJob) -> Span {
    let Some(traceparent) = &job.trace_context else { return Span::none() };
    tracing::info_span!(
        "attempt",
        traceparent,
        job_id = %job.token.job,
        handler = job.handler,
        queue = job.queue,
        attempt = job.attempt,
        correlation_id = job.correlation_id,
    )
}

/// A span for the time that a job waited after it was due; it is over when it begins.
pub(crate) fn note_wait(job: &ClaimedJob) {
    if let Some(traceparent) = &job.trace_context {
        let began_ago_us = u64::try_from(job.waited.as_micros()).unwrap_or(u64::MAX);
        tracing::info_span!("wait", traceparent, job_id = %job.token.job, queue = job.queue, began_ago_us);
    }
}

pub(crate) fn count_stop(shared: &Shared, why: Stop) {
    match why {
        Stop::Cancelled => one(&shared.counters.cancelled),
        Stop::Superseded => one(&shared.counters.superseded),
        Stop::LeaseLost => one(&shared.counters.lease_lost),
        Stop::Timeout | Stop::Shutdown => {}
    }
}

/// What the handler's end means. `None`: nothing is left to settle.
async fn attempt(shared: &Arc<Shared>, job: &ClaimedJob, stop: &StopSignal) -> Option<Outcome> {
    let result = if job.handler == FLOW && job.view.is_some() {
        view_turn::take(shared, job).await
    } else if job.handler == FLOW {
        turn::take(shared, job).await.map(Finished::Concluded)
    } else {
        run_handler(shared, job, stop).await
    };
    let error = match result {
        Ok(Finished::Concluded(outcome)) => {
            if matches!(outcome, Outcome::Completed { .. } | Outcome::Decided { .. }) {
                one(&shared.counters.completed);
            }
            return Some(outcome);
        }
        Ok(Finished::Published) => {
            one(&shared.counters.completed);
            return None;
        }
        Err(Failure::Stopped(_)) => match stopped_by(shared, job, stop).await {
            Some(Stop::Shutdown) => {
                one(&shared.counters.released);
                return Some(Outcome::Released);
            }
            Some(Stop::Timeout) => {
                let limit = job.timeout.unwrap_or_default().as_millis();
                JobError::new(ErrorKind::Timeout, format!("ran longer than {limit} ms"))
            }
            Some(why) => {
                // Its end is in the store already: cancel, supersede and take-over are transactions of their own.
                count_stop(shared, why);
                return None;
            }
            None => JobError::new(ErrorKind::Retryable, "the handler stopped, and nobody had asked it to"),
        },
        Err(Failure::Snooze { after }) => {
            one(&shared.counters.snoozed);
            return Some(Outcome::Snoozed { after });
        }
        Err(Failure::Permanent { code, message }) => {
            JobError { code: Some(code), ..JobError::new(ErrorKind::Permanent, message) }
        }
        Err(Failure::Retryable { code, message, after }) => {
            let is_panic = code.as_deref() == Some(PANIC);
            let kind = if is_panic { ErrorKind::Panic } else { ErrorKind::Retryable };
            let retry_after_ms = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
            JobError { code, retry_after_ms, ..JobError::new(kind, message) }
        }
    };
    Some(failed(shared, job, error))
}

/// Who really stopped a handler that says that it was stopped: the engine, or the store that refused its token. `None`:
/// nobody did, and the job is still this worker's to settle.
async fn stopped_by(shared: &Shared, job: &ClaimedJob, stop: &StopSignal) -> Option<Stop> {
    if let Some(why) = stop.reason() {
        return Some(why);
    }
    match shared.store.job_revoked(job.token).await {
        Ok(revoked) => revoked.map(stop_for),
        // The settlement will find out.
        Err(_) => None,
    }
}

/// What follows an attempt that failed.
pub(crate) fn failed(shared: &Shared, job: &ClaimedJob, error: JobError) -> Outcome {
    let error = error.bounded();
    // The row's limit rather than the policy's: an operator may have granted more.
    let policy = RetryPolicy { attempts_max: job.attempts_max, ..job.retry };
    match after_failure(&policy, job.attempt, &error, rand::random()) {
        AfterFailure::Retry(after) => {
            one(&shared.counters.retried);
            Outcome::Retry { error, after }
        }
        AfterFailure::Fail => {
            one(&shared.counters.failed);
            tracing::info!(job_id = %job.token.job, handler = job.handler, error = error.message, "job failed");
            Outcome::Failed { error }
        }
    }
}

/// The code of a failure that was a panic.
const PANIC: &str = "panic";

/// What became of an attempt that did not fail.
pub(crate) enum Finished {
    /// It is to be settled so.
    Concluded(Outcome),
    /// A publication has settled it.
    Published,
}

async fn run_handler(shared: &Arc<Shared>, job: &ClaimedJob, stop: &StopSignal) -> Result<Finished, Failure> {
    let link = Arc::new(StoreLink { shared: Arc::clone(shared), token: job.token });
    let (facts, input, call, rules) = facts(shared, job).await?;
    let registered = shared
        .handlers
        .find(&job.handler, call.as_ref())
        .map_err(|not_found| Failure::permanent(not_found.code, not_found.message))?;
    let context = Context::new(facts, stop.clone(), link);
    match &registered {
        Registered::Job(handler) => {
            let output = within_limits(shared, job, stop, run_job(handler, context, input)).await?;
            let Some(rules) = rules else {
                return Ok(Finished::Concluded(rules::completed(shared, &output)?));
            };
            let outcome = rules.concluded(shared, &output)?;
            if let Outcome::Completed { output } | Outcome::Decided { output, .. } = &outcome {
                rules::keep(shared, &rules, output).await;
            }
            Ok(Finished::Concluded(outcome))
        }
        Registered::View(builder) => build(shared, job, stop, builder, context).await,
    }
}

async fn run_job(handler: &Arc<dyn Handler>, context: Context, input: Value) -> Result<Value, Failure> {
    handler.run(context, input).await
}

/// What the handler of a job is told that is no step of a workflow.
pub(crate) fn facts_alone(job: &ClaimedJob) -> JobFacts {
    JobFacts {
        id: job.token.job.uuid(),
        handler: job.handler.clone(),
        namespace: job.namespace.clone(),
        attempt: job.attempt,
        attempts_max: job.attempts_max,
        attempt_token: lease_token_text(job.token),
        correlation_id: job.correlation_id.clone(),
        trace_context: job.trace_context.clone(),
        step: job.step.clone(),
        checkpoint: job.checkpoint.clone(),
        ..JobFacts::default()
    }
}

/// What the handler is told, its input, what its step calls, and what its template says about its result.
pub(crate) async fn facts(
    shared: &Shared,
    job: &ClaimedJob,
) -> Result<(JobFacts, Value, Option<Call>, Option<Rules>), Failure> {
    let parse = |what: &str, text: &str| {
        serde_json::from_str(text)
            .map_err(|error| Failure::permanent("invalid_input", format!("{what} is not JSON: {error}")))
    };
    let own: Value = parse("input", &job.input)?;
    let mut facts = facts_alone(job);
    if job.workflow.is_none() {
        return Ok((facts, own, None, None));
    }
    let inputs = shared.store.step_inputs(job.token.job).await.map_err(Failure::retryable)?;
    let rules = if inputs.has_rules { Some(Rules::of(shared, job, &inputs).await?) } else { None };
    if let (Some(rules), Some(workflow)) = (&rules, job.workflow)
        && let Some(wait) = &rules.step().wait_for
    {
        let (kind, name) = turn::awaited(&wait.awaited);
        let told = shared.store.flows().signals_list(workflow).await.map_err(Failure::retryable)?;
        let told = told.into_iter().find(|one| one.kind == kind && one.name == name);
        facts.signal = told.map(|told| parse("a signal", &told.payload)).transpose()?;
    }
    if let Some((item, index)) = &inputs.item {
        facts.item = Some(parse("an element", item)?);
        facts.index = Some(*index);
    }
    let mut results = BTreeMap::new();
    for (step, output) in inputs.results {
        results.insert(step, parse("a result", &output)?);
    }
    facts.results = results;
    facts.settings = own;
    let call = inputs.call.map(|call| Call { callable: call.callable, method: call.method });
    if let Some(call) = &call {
        facts.handler.clone_from(&call.callable);
        facts.method.clone_from(&call.method);
    }
    Ok((facts, parse("the workflow's input", &inputs.workflow_input)?, call, rules))
}

/// Runs a handler's future under its timeout and its stop signal. When it shall stop it has [`grace`] to do so by
/// itself; then it is dropped at its next await, and its slot is free.
///
/// [`grace`]: crate::Options::grace
async fn within_limits<T>(
    shared: &Shared,
    job: &ClaimedJob,
    stop: &StopSignal,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(AssertUnwindSafe(work).catch_unwind());
    let timeout = async {
        match job.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let why = tokio::select! {
        result = &mut work => return unwind(shared, result, stop),
        () = timeout => Stop::Timeout,
        why = stop.stopped() => why,
    };
    stop.stop(why);
    match tokio::time::timeout(shared.options.grace, &mut work).await {
        // It may have finished in the same moment; but a job that was taken away has no result.
        Ok(Ok(Ok(value))) if why == Stop::Shutdown => Ok(value),
        Ok(Err(_)) => {
            one(&shared.counters.panicked);
            Err(Failure::Stopped(why))
        }
        Ok(Ok(_)) => Err(Failure::Stopped(why)),
        Err(_) => {
            tracing::warn!(job_id = %job.token.job, handler = job.handler, %why, "handler did not stop in time and was dropped");
            Err(Failure::Stopped(why))
        }
    }
}

fn unwind<T>(
    shared: &Shared,
    result: Result<Result<T, Failure>, Box<dyn std::any::Any + Send>>,
    stop: &StopSignal,
) -> Result<T, Failure> {
    match result {
        Ok(Err(Failure::Stopped(seen))) => Err(Failure::Stopped(stop.reason().unwrap_or(seen))),
        Ok(result) => result,
        Err(panic) => {
            one(&shared.counters.panicked);
            let message = panic_message(&*panic);
            Err(Failure::Retryable { code: Some(PANIC.to_owned()), message, after: None })
        }
    }
}

pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "the handler panicked".to_owned())
}

async fn build(
    shared: &Arc<Shared>,
    job: &ClaimedJob,
    stop: &StopSignal,
    builder: &Arc<dyn Builder>,
    context: Context,
) -> Result<Finished, Failure> {
    if job.view.is_none() {
        let message = format!("handler `{}` builds views; this job belongs to none", job.handler);
        return Err(Failure::permanent("not_a_view", message));
    }
    let start = begin_build(shared, job, stop).await?;
    let version = start.version;
    shared.heads.builds(start.view, &start.namespace, &start.key);
    let pages = pages(shared, job, &start).await?;
    let build = BuildContext::new(context, source(shared, start, pages));
    let result = within_limits(shared, job, stop, builder.build(build.clone())).await;
    let summary = match result {
        Ok(()) => build.finish().await?,
        Err(failure) => {
            // What is ready may serve the next build; a token that is void is refused, and that is fine.
            let _ = build.flush().await;
            return Err(failure);
        }
    };
    publish(shared, job.token, version, summary).await
}

/// What the build starts from: without what the cache, where it alone keeps the values, has no more.
async fn begin_build(shared: &Shared, job: &ClaimedJob, stop: &StopSignal) -> Result<BuildStart, Failure> {
    let begin = async || {
        found(shared.store.known_items().build_open(job.token, shared.options.build_items_listed_max).await)
    };
    let start = begin().await?;
    if !start.is_held {
        return Ok(start);
    }
    let name = ViewName::new(start.namespace.as_str(), start.key.as_str());
    let gone = tokio::select! {
        gone = kept::check(shared, start.view, &name) => gone,
        why = stop.stopped() => return Err(Failure::Stopped(why)),
    };
    match gone {
        Ok(0) => Ok(start),
        Ok(_) => begin().await,
        Err(error) if error.is_retryable() => {
            tracing::warn!(job_id = %job.token.job, %error, "a build waits");
            Err(Failure::Snooze { after: kept::AWAY_PAUSE })
        }
        Err(error) => Err(Failure::permanent("cache_only", error)),
    }
}

fn found<T>(asked: recache_store::Result<std::result::Result<T, Revoked>>) -> Result<T, Failure> {
    match asked {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(revoked)) => Err(Failure::Stopped(stop_for(revoked))),
        Err(error) => Err(Failure::retryable(error)),
    }
}

/// Where pages of the items begin, if those were too many to be listed.
async fn pages(
    shared: &Shared,
    job: &ClaimedJob,
    start: &BuildStart,
) -> Result<Option<(Pages, Pages)>, Failure> {
    if !start.is_large {
        return Ok(None);
    }
    let found = found(shared.store.known_items().known_pages(job.token).await)?;
    let rows = usize::try_from(KNOWN_PAGE_ROWS).unwrap_or(usize::MAX);
    let pages = |starts: KnownStarts| Pages { count: starts.count, rows, starts: starts.starts };
    Ok(Some((pages(found.live), pages(found.staged))))
}

fn source(shared: &Shared, start: BuildStart, pages: Option<(Pages, Pages)>) -> BuildSource {
    let known = |marks: Vec<recache_store::ItemMark>| marks.into_iter().map(link::known).collect();
    BuildSource {
        namespace: start.namespace,
        key: start.key,
        version: start.version,
        live_version: start.live_version,
        touched: match start.touched {
            TouchedItems::All => Touched::All,
            TouchedItems::Only(items) => Touched::Only(items),
        },
        live: known(start.live),
        staged: known(start.staged),
        pages,
        put_keys_max: usize::try_from(shared.options.build_items_listed_max).unwrap_or(usize::MAX),
    }
}

/// Publishes, again and again while the store cannot be reached.
pub(crate) async fn publish(
    shared: &Shared,
    token: LeaseToken,
    version: i64,
    summary: BuildSummary,
) -> Result<Finished, Failure> {
    let (computed, reused) = (summary.computed, summary.reused);
    let publication = Publication {
        version,
        output: serde_json::json!({
            "version": version, "items": summary.total, "computed": computed, "reused": reused,
            "removed": summary.removed.len(),
        })
        .to_string(),
        removed: summary.removed,
        items_total: summary.total,
        items_computed: computed,
        items_reused: reused,
    };
    let deadline = Instant::now() + shared.options.lease;
    loop {
        match shared.store.build_publish(token, publication.clone()).await {
            Ok(Published::Live { .. }) => {
                one(&shared.counters.published);
                add(&shared.counters.items_computed, usize::try_from(computed).unwrap_or(usize::MAX));
                add(&shared.counters.items_reused, usize::try_from(reused).unwrap_or(usize::MAX));
                return Ok(Finished::Published);
            }
            Ok(Published::Refused(why)) => return Err(Failure::Stopped(stop_for(why))),
            // Publishing again with the same token is safe, and finds out whether the first try got through.
            Err(error) if error.is_retryable() && Instant::now() < deadline => {
                tracing::warn!(job_id = %token.job, %error, "publication waits for the store");
                tokio::time::sleep(PUBLISH_PAUSE).await;
            }
            Err(error) => return Err(Failure::retryable(error)),
        }
    }
}
