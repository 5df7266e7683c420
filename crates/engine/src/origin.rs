//! What ties the jobs of a workflow to its submit, however late they are made.

use recache_store::ClaimedJob;

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
