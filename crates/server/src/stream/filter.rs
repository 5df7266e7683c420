//! Which events a client wants.

use recache_model::event::EventFilter;
use recache_model::ids::{JobId, WorkflowId};
use recache_store::EventRecord;
use serde::Deserialize;

/// What filters ask of an event.
#[derive(Debug)]
pub(super) struct About {
    name: String,
    namespace: String,
    job: Option<JobId>,
    workflow: Option<WorkflowId>,
    correlation_id: Option<String>,
    said: Said,
}

/// What changes of state say in their payloads.
#[derive(Debug, Default, Deserialize)]
struct Said {
    queue: Option<String>,
    handler: Option<String>,
    key: Option<String>,
}

impl About {
    pub(super) fn of(event: &EventRecord) -> Self {
        // Only of our own payloads: a template's may use the same words for something else.
        let is_ours = event.name.starts_with("job.") || event.name.starts_with("view.");
        let said =
            if is_ours { serde_json::from_str(&event.data).unwrap_or_default() } else { Said::default() };
        Self {
            name: event.name.clone(),
            namespace: event.namespace.clone(),
            job: event.job,
            workflow: event.workflow,
            correlation_id: event.correlation_id.clone(),
            said,
        }
    }
}

/// A client's filter; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct StreamFilter {
    /// Types, and whose.
    pub(crate) types: EventFilter,
    /// Of this job.
    pub(crate) job: Option<JobId>,
    /// Of this workflow and its steps.
    pub(crate) workflow: Option<WorkflowId>,
    /// Of jobs in this queue.
    pub(crate) queue: Option<String>,
    /// Of jobs of this handler.
    pub(crate) handler: Option<String>,
    /// Of the view with this key, in the namespace.
    pub(crate) view: Option<String>,
    /// Of what belongs together.
    pub(crate) correlation_id: Option<String>,
}

impl StreamFilter {
    pub(super) fn lets_through(&self, about: &About) -> bool {
        fn is<T: PartialEq>(wanted: Option<&T>, is: Option<&T>) -> bool {
            wanted.is_none_or(|wanted| is == Some(wanted))
        }
        self.types.matches(&about.namespace, &about.name)
            && is(self.job.as_ref(), about.job.as_ref())
            && is(self.workflow.as_ref(), about.workflow.as_ref())
            && is(self.correlation_id.as_ref(), about.correlation_id.as_ref())
            && is(self.queue.as_ref(), about.said.queue.as_ref())
            && is(self.handler.as_ref(), about.said.handler.as_ref())
            && is(self.view.as_ref(), about.said.key.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use recache_model::ids::EventId;
    use recache_model::time::Timestamp;

    use super::*;

    fn about(name: &str, data: &str) -> About {
        About::of(&EventRecord {
            id: EventId::make(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            at: Timestamp::from_micros(0),
            job: None,
            workflow: None,
            step: None,
            attempt: None,
            outcome: None,
            correlation_id: Some("c".to_owned()),
            data: data.to_owned(),
            problem: None,
            waits_for: None,
        })
    }

    #[test]
    fn everything_that_is_given_must_hold() {
        let all =
            StreamFilter { types: EventFilter::of(["*", "job.*", "view.*"]), ..StreamFilter::default() };
        let job = about("job.completed", r#"{"queue":"mail","handler":"send"}"#);
        let view = about("view.published", r#"{"key":"prices"}"#);
        let other = about("order.placed", r#"{"queue":"mail","key":"prices"}"#);
        for one in [&job, &view, &other] {
            assert!(all.lets_through(one));
        }
        let some = |text: &str| Some(text.to_owned());
        let queue = StreamFilter { queue: some("mail"), ..all.clone() };
        assert!(queue.lets_through(&job) && !queue.lets_through(&view) && !queue.lets_through(&other));
        let key = StreamFilter { view: some("prices"), ..all.clone() };
        assert!(key.lets_through(&view) && !key.lets_through(&job) && !key.lets_through(&other));
        let both = StreamFilter { queue: some("mail"), handler: some("other"), ..all.clone() };
        assert!(!both.lets_through(&job));
        let mut foreign = all.clone();
        foreign.types.namespace = some("a");
        assert!(!foreign.lets_through(&job));
        let job_only = StreamFilter { job: Some(JobId::make()), ..all };
        assert!(!job_only.lets_through(&job));
    }
}
