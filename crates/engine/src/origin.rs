//! What ties jobs to the calls that they follow from, however late they are made: those of a workflow to its submit, callbacks of a batch to
//! the call that made it, builds of a view to the touches that they answer.

use recache_model::trace::TraceContext;
use recache_store::{ClaimedJob, Traced};

/// Where a job comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin<'a> {
    pub(crate) correlation_id: &'a str,
    /// The span above it (W3C Trace Context), of a submit that belongs to a trace.
    pub(crate) traceparent: Option<&'a str>,
}

impl<'a> Origin<'a> {
    /// In no trace.
    pub(crate) fn new(correlation_id: &'a str) -> Self {
        Self { correlation_id, traceparent: None }
    }

    /// That of a job, for what follows from it.
    pub(crate) fn of(job: &'a ClaimedJob) -> Self {
        Self { correlation_id: &job.correlation_id, traceparent: job.trace_context.as_deref() }
    }
}

/// The span of a callback of a batch; it is over when it begins. What it is tied to is in `links`.
pub(crate) fn note_callback(job: &Traced) {
    tracing::info_span!(
        "callback",
        trace_id = job.place.trace_id(),
        span_id = job.place.span_id(),
        parent_id = job.parent.map(TraceContext::span_id),
        sampled = job.place.is_sampled(),
        links = links(job),
        job_id = %job.job,
    );
}

/// The same of a build of a view.
pub(crate) fn note_build(job: &Traced) {
    tracing::info_span!(
        "build",
        trace_id = job.place.trace_id(),
        span_id = job.place.span_id(),
        parent_id = job.parent.map(TraceContext::span_id),
        sampled = job.place.is_sampled(),
        links = links(job),
        job_id = %job.job,
    );
}

/// With blanks between them; `None` where there are none.
fn links(job: &Traced) -> Option<String> {
    let links: Vec<String> = job.links.iter().map(ToString::to_string).collect();
    (!links.is_empty()).then(|| links.join(" "))
}
