//! One attempt: from a job of the protocol to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recache_api::{
    BeginBuild, Json, WorkerBuild, WorkerEnd, WorkerError, WorkerErrorKind, WorkerJob, WorkerOutcome,
};
use reqwest::Method;
use serde_json::Value;
use tokio::sync::Mutex;
use tracing::Instrument as _;
use uuid::Uuid;

use super::client::{Client, Session};
use super::link::RemoteLink;
use crate::build::{BuildContext, BuildSource, Touched};
use crate::context::{Context, JobFacts};
use crate::failure::Failure;
use crate::handlers::{Builder, Call, Handlers, Registered};
use crate::known::KnownItem;
use crate::limits::{PANIC, within_limits};
use crate::stop::{Stop, StopSignal};

/// What an attempt needs besides its job.
pub(super) struct Attempt {
    pub(super) client: Arc<Client>,
    pub(super) session: Session,
    pub(super) handlers: Arc<Handlers>,
    pub(super) stop: StopSignal,
    pub(super) grace: Duration,
}

/// How an attempt ended well.
enum Done {
    Result(Value),
    Built { version: i64, kept: Vec<String>, taken_over: u64 },
}

impl Attempt {
    /// `None`: the job is no longer this worker's, and there is nothing to say.
    pub(super) async fn run(self, job: WorkerJob) -> Option<WorkerEnd> {
        let token = job.token.clone();
        let span = match &job.trace_context {
            // What exports it reads `traceparent` for the span above.
            Some(traceparent) => tracing::info_span!(
                "attempt",
                traceparent,
                job_id = job.id,
                handler = job.handler,
                queue = job.queue,
                attempt = job.attempt,
                correlation_id = job.correlation_id,
            ),
            None => tracing::Span::none(),
        };
        let result = self.within_limits(&job).instrument(span).await;
        let end = |outcome| WorkerEnd::new(token.clone(), outcome);
        let failed = |kind, code: Option<String>, message: String, after: Option<Duration>| WorkerEnd {
            error: Some(WorkerError {
                kind,
                code: code.as_deref().map(bounded),
                message,
                retry_after_ms: after.map(millis),
            }),
            ..end(WorkerOutcome::Failed)
        };
        Some(match result {
            Ok(Done::Result(output)) => {
                let text = output.to_string();
                if text.len() > RESULT_BYTES_MAX {
                    let why = format!("the result has {} bytes, the limit is {RESULT_BYTES_MAX}", text.len());
                    let code = Some("result_too_large".to_owned());
                    return Some(failed(WorkerErrorKind::Permanent, code, why, None));
                }
                WorkerEnd { output: Json::from_text(&text).ok(), ..end(WorkerOutcome::Completed) }
            }
            Ok(Done::Built { version, kept, taken_over }) => WorkerEnd {
                version: Some(version),
                kept: Some(kept),
                taken_over: Some(taken_over),
                ..end(WorkerOutcome::Built)
            },
            Err(Failure::Snooze { after }) => {
                WorkerEnd { after_ms: Some(millis(after)), ..end(WorkerOutcome::Snoozed) }
            }
            Err(Failure::Permanent { code, message }) => {
                failed(WorkerErrorKind::Permanent, Some(code), message, None)
            }
            Err(Failure::Retryable { code, message, after }) => {
                let is_panic = code.as_deref() == Some(PANIC);
                let kind = if is_panic { WorkerErrorKind::Panic } else { WorkerErrorKind::Retryable };
                failed(kind, code, message, after)
            }
            Err(Failure::Stopped(_)) => match self.stop.reason() {
                Some(Stop::Shutdown) => end(WorkerOutcome::Released),
                Some(_) => return None,
                None => {
                    let why = "the handler stopped, and nobody had asked it to".to_owned();
                    failed(WorkerErrorKind::Retryable, None, why, None)
                }
            },
        })
    }

    async fn within_limits(&self, job: &WorkerJob) -> Result<Done, Failure> {
        let dropped = |why| {
            tracing::warn!(job_id = job.id, handler = job.handler, %why, "handler did not stop in time and was dropped");
        };
        within_limits(self.work(job), &self.stop, self.grace, dropped).await
    }

    async fn work(&self, job: &WorkerJob) -> Result<Done, Failure> {
        let call =
            job.step.is_some().then(|| Call { callable: job.handler.clone(), method: job.method.clone() });
        let registered = self
            .handlers
            .find(&job.claimed_as, call.as_ref())
            .map_err(|not_found| Failure::permanent(not_found.code, not_found.message))?;
        let link = Arc::new(RemoteLink {
            client: Arc::clone(&self.client),
            session: self.session.clone(),
            token: job.token.clone(),
            stop: self.stop.clone(),
            lines: Mutex::new(0),
            taken_over: AtomicU64::new(0),
        });
        let context = Context::new(facts(job)?, self.stop.clone(), Arc::<RemoteLink>::clone(&link));
        match registered {
            Registered::Job(handler) => {
                Ok(Done::Result(handler.run(context, parse("input", &job.input)?).await?))
            }
            Registered::View(_) if !job.build => {
                let why = format!("handler `{}` builds views; this job belongs to none", job.handler);
                Err(Failure::permanent("not_a_view", why))
            }
            Registered::View(builder) => self.build(job, &link, &builder, context).await,
        }
    }

    async fn build(
        &self,
        job: &WorkerJob,
        link: &RemoteLink,
        builder: &Arc<dyn Builder>,
        context: Context,
    ) -> Result<Done, Failure> {
        let path = format!("{}/build", self.session.path);
        let body = BeginBuild { token: job.token.clone() };
        let begun: WorkerBuild = link
            .while_wanted(self.client.send(Method::POST, &path, Some(&self.session), &body, Duration::ZERO))
            .await?;
        let version = begun.version;
        let live: Vec<String> = begun.live.iter().map(|known| known.item.clone()).collect();
        let build = BuildContext::new(context, source(begun));
        let summary = match builder.build(build.clone()).await {
            Ok(()) => build.finish().await?,
            Err(failure) => {
                // What is ready may serve the next build; a token that is void is refused, and that is fine.
                let _ = build.flush().await;
                return Err(failure);
            }
        };
        let removed: std::collections::HashSet<String> = summary.removed.into_iter().collect();
        let kept = live.into_iter().filter(|item| !removed.contains(item)).collect();
        Ok(Done::Built { version, kept, taken_over: link.taken_over.load(Ordering::Relaxed) })
    }
}

/// A larger result does not fit into a call.
const RESULT_BYTES_MAX: usize = 6 * 1024 * 1024;
/// Longest code of an error, in bytes.
const CODE_BYTES_MAX: usize = 128;

/// A code as the server takes it.
fn bounded(code: &str) -> String {
    let mut end = code.len().min(CODE_BYTES_MAX);
    while !code.is_char_boundary(end) {
        end -= 1;
    }
    let code: String =
        code[..end].chars().map(|letter| if letter.is_control() { '_' } else { letter }).collect();
    if code.is_empty() { "unknown".to_owned() } else { code }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn parse(what: &str, json: &Json) -> Result<Value, Failure> {
    serde_json::from_str(json.text())
        .map_err(|error| Failure::permanent("invalid_input", format!("{what} is not JSON: {error}")))
}

fn facts(job: &WorkerJob) -> Result<JobFacts, Failure> {
    let id = job.id.rsplit('_').next().and_then(|id| Uuid::parse_str(id).ok()).unwrap_or_default();
    let optional = |what: &str, json: &Option<Json>| json.as_ref().map(|json| parse(what, json)).transpose();
    Ok(JobFacts {
        id,
        handler: job.handler.clone(),
        method: job.method.clone(),
        namespace: job.namespace.clone(),
        attempt: job.attempt,
        attempts_max: job.attempts_max,
        attempt_token: job.token.clone(),
        correlation_id: job.correlation_id.clone(),
        trace_context: job.trace_context.clone(),
        step: job.step.clone(),
        results: job
            .results
            .iter()
            .map(|(step, result)| Ok((step.clone(), parse("a result", result)?)))
            .collect::<Result<_, Failure>>()?,
        item: optional("an element", &job.item)?,
        index: job.index,
        signal: optional("a signal", &job.signal)?,
        checkpoint: job.checkpoint.as_ref().map(|checkpoint| checkpoint.text().to_owned()),
        settings: optional("the settings", &job.settings)?.unwrap_or_default(),
    })
}

fn source(begun: WorkerBuild) -> BuildSource {
    let known = |items: Vec<recache_api::WorkerKnownItem>| {
        let known = |known: recache_api::WorkerKnownItem| KnownItem {
            key: known.item,
            fingerprint: known.fingerprint,
            is_gone: known.gone,
        };
        items.into_iter().map(known).collect()
    };
    BuildSource {
        namespace: begun.namespace,
        key: begun.key,
        version: begun.version,
        live_version: begun.live_version,
        touched: begun.touched.map_or(Touched::All, Touched::Only),
        live: known(begun.live),
        staged: known(begun.staged),
        pages: None,
        put_keys_max: usize::MAX,
    }
}
