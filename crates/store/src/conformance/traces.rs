//! Cases: traces of what the store makes by itself.

use recache_model::batch::BatchCallback;
use recache_model::trace::TraceContext;

use super::Subject;
use super::views::{QUIET, defined, item, publication, publish, put, touch_of};
use crate::{NewBatch, NewJob, Touch, Traced, ViewName};

fn place(trace: u128, span: u64) -> TraceContext {
    TraceContext::begin(trace, span, true)
}

/// What the job itself says is what is told of it.
async fn check(subject: &Subject, traced: &Traced) {
    let job = subject.store.job_get(traced.job).await.expect("there");
    assert_eq!(job.trace_context, Some(traced.place.to_string()));
}

/// A callback goes on where the batch was made, and knows its members' traces.
pub async fn callback_goes_on_in_the_trace_of_its_batch_and_is_tied_to_its_members(subject: &Subject) {
    let batches = subject.store.batches();
    let (above, one, other) = (place(1, 1), place(2, 2), place(3, 3));
    for (made_by, members) in
        [(Some(above), vec![one, other]), (None, vec![one]), (Some(above), vec![]), (None, vec![])]
    {
        let batch = NewBatch {
            trace_context: made_by.map(|place| place.to_string()),
            on_finish: Some(BatchCallback::new("over")),
            ..NewBatch::new("import")
        };
        // The same call once more, as another part of a trace, is the same batch.
        let again = NewBatch { trace_context: Some(place(9, 9).to_string()), ..batch.clone() };
        let id = batches.batch_create(batch).await.expect("created").0.definition.id;
        let (known, is_new) = batches.batch_create(again).await.expect("it is there");
        assert_eq!((known.definition.trace_context, is_new), (made_by.map(|place| place.to_string()), false));
        for trace in [None].into_iter().chain(members.iter().map(Some)) {
            let trace_context = trace.map(ToString::to_string);
            let job = NewJob { batch: Some(id), trace_context, ..NewJob::new("work", "null") };
            let job = subject.store.jobs_submit(vec![job]).await.expect("stored")[0].id;
            subject.store.job_cancel(job, "enough").await.expect("cancelled");
        }
        batches.batch_close(id).await.expect("closed");
        let settled = batches.batches_settle(vec![id]).await.expect("settled");
        assert_eq!(settled.ended, [id]);
        if made_by.is_none() && members.is_empty() {
            assert_eq!(settled.traced, [], "nobody traces it");
            continue;
        }
        let [traced] = &settled.traced[..] else { panic!("{settled:?}") };
        check(subject, traced).await;
        assert_eq!(traced.parent, made_by);
        let mut links = traced.links.clone();
        links.sort_by_key(|place| place.trace_id());
        assert_eq!(links, members);
        let trace =
            made_by.map_or_else(|| format!("{:032x}", traced.job.uuid().as_u128()), TraceContext::trace_id);
        assert_eq!(traced.place.trace_id(), trace);
    }
}

/// The newest touch is above the build, the others are beside it, and the next build has none of them.
pub async fn build_belongs_to_the_traces_of_the_touches_that_it_answers(subject: &Subject) {
    defined(subject).await;
    let touch = async |traces: &[TraceContext]| {
        let traces = traces.iter().map(ToString::to_string).chain(["nonsense".to_owned()]).collect();
        subject.store.views_touch(vec![Touch { traces, ..touch_of("prices") }]).await.expect("touched");
        subject.advance(std::time::Duration::from_millis(1));
    };
    touch(&[place(1, 1)]).await;
    touch(&[]).await;
    touch(&[place(2, 2), place(1, 1)]).await;
    touch(&[place(3, 3)]).await;
    subject.advance(QUIET);
    let reconciled = subject.store.views_reconcile(10).await.expect("reconciled");
    assert_eq!(reconciled.builds.len(), 1);
    let [traced] = &reconciled.traced[..] else { panic!("{reconciled:?}") };
    check(subject, traced).await;
    assert_eq!((traced.job, traced.parent), (reconciled.builds[0].0, Some(place(3, 3))));
    assert_eq!(traced.links, [place(2, 2), place(1, 1)]);
    // Of many the first are kept, and no build of another view has them.
    subject.store.view_define(super::views::definition("other")).await.expect("defined");
    let many: Vec<String> = (1..=50).map(|span| place(7, span).to_string()).collect();
    subject
        .store
        .views_touch(vec![Touch { traces: many, ..touch_of("other") }, touch_of("prices")])
        .await
        .expect("touched");
    subject.advance(QUIET);
    let reconciled = subject.store.views_reconcile(10).await.expect("reconciled");
    let [traced] = &reconciled.traced[..] else { panic!("{reconciled:?}") };
    assert_eq!((traced.place.trace_id(), traced.links.len()), (place(7, 1).trace_id(), 31));
    let other = subject.store.view_get("shop", "other").await.expect("there");
    assert_eq!(other.build, Some(traced.job));
}

/// What a publication asks of the views below goes on in the trace of the touch that began it.
pub async fn build_of_a_derived_view_goes_on_in_the_trace_of_the_one_above(subject: &Subject) {
    let session = defined(subject).await;
    subject.store.view_define(super::views::definition("sums")).await.expect("defined");
    let (prices, sums) = (ViewName::new("shop", "prices"), ViewName::new("shop", "sums"));
    subject.store.chains().view_derive(sums, vec![prices]).await.expect("derived");
    let traces = vec![place(5, 5).to_string()];
    subject.store.views_touch(vec![Touch { traces, ..touch_of("prices") }]).await.expect("touched");
    let mut above = None;
    for key in ["prices", "sums"] {
        subject.advance(QUIET);
        let reconciled = subject.store.views_reconcile(10).await.expect("reconciled");
        let view = subject.store.view_get("shop", key).await.expect("there");
        let traced = reconciled.traced.iter().find(|traced| Some(traced.job) == view.build).expect("traced");
        assert_eq!(traced.place.trace_id(), place(5, 5).trace_id(), "{key}");
        assert!(above.is_none() || traced.parent == above, "{key}");
        above = Some(traced.place);
        let job = subject.claim_one(session).await;
        assert_eq!(Some(job.token.job), view.build, "{key}");
        let start = subject.store.build_begin(job.token).await.expect("answered").expect("good");
        put(subject, &job, vec![item("x", "f", "one")]).await;
        publish(subject, &job, publication(start.version)).await;
        // What the publication asked for is taken now, and waits for quiet.
        subject.store.views_reconcile(10).await.expect("reconciled");
    }
}
