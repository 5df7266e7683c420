//! Cases: builds that a workflow does.

use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::{SessionId, WorkflowId};
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::view::{ViewPolicy, ViewStatus};
use recache_model::view_options::{BuildWorkflow, ViewOptions};
use recache_model::workflow::WorkflowState;

use super::Subject;
use super::views::{definition, item, pairs, read, touch, view};
use super::workflows::workflow;
use crate::build_workflows::{Gathered, Keep, PartStart};
use crate::flow::{FLOW, Waiting};
use crate::queues::Word;
use crate::records::{
    ClaimRequest, ClaimedJob, NewView, Outcome, Publication, Published, Revoked, Settled, StagedItem,
};
use crate::{Error, ViewName};

fn by_workflow() -> NewView {
    let workflow =
        BuildWorkflow { name: "example".to_owned(), namespace: None, version: Some("^1".to_owned()) };
    NewView {
        handler: FLOW.to_owned(),
        queue: FLOW.to_owned(),
        policy: ViewPolicy { debounce_quiet_ms: 0, debounce_max_ms: 0, ..ViewPolicy::default() },
        options: ViewOptions { workflow: Some(workflow), ..ViewOptions::default() },
        ..definition("prices")
    }
}

async fn defined(subject: &Subject) -> SessionId {
    subject.store.view_define(by_workflow()).await.expect("defined");
    subject.session().await
}

/// Claims turns of the engine's own.
async fn turns(subject: &Subject, session: SessionId) -> Vec<ClaimedJob> {
    let request = ClaimRequest {
        session,
        queues: vec![FLOW.to_owned()],
        handlers: vec![FLOW.to_owned()],
        rows_max: 10,
    };
    subject.store.jobs_dispatch(Vec::new(), Some(request)).await.expect("answered").claimed
}

async fn turn(subject: &Subject, session: SessionId) -> ClaimedJob {
    let mut turns = turns(subject, session).await;
    assert_eq!(turns.len(), 1, "exactly one build has its turn");
    turns.remove(0)
}

/// Touches, and begins the build with a workflow of these steps.
async fn begin(subject: &Subject, session: SessionId, steps: &[(&str, &[usize])]) -> (WorkflowId, PartStart) {
    touch(subject).await;
    subject.store.views_reconcile(10).await.expect("reconciled");
    let build = turn(subject, session).await;
    begin_with(subject, &build, steps).await
}

async fn begin_with(
    subject: &Subject,
    build: &ClaimedJob,
    steps: &[(&str, &[usize])],
) -> (WorkflowId, PartStart) {
    let builds = subject.store.build_workflows();
    let situation = builds.build_situation(build.token).await.expect("answered").expect("good");
    assert_eq!(situation.running, None);
    let start = builds.build_take_version(build.token).await.expect("answered").expect("good");
    let new = workflow(steps);
    let id = new.id;
    let settled = subject.settle(build, Outcome::Waits(Waiting::NewWorkflow(Arc::new(new)))).await;
    assert_eq!(settled, Settled::Accepted);
    (id, start)
}

async fn put(subject: &Subject, step: &ClaimedJob, items: Vec<StagedItem>) {
    assert_eq!(subject.store.build_put(step.token, items).await.expect("answered"), None);
}

async fn keep(subject: &Subject, step: &ClaimedJob, keep: Keep) -> Vec<bool> {
    subject.store.build_workflows().part_keep(step.token, keep).await.expect("answered").expect("good")
}

async fn done(subject: &Subject, step: &ClaimedJob) {
    let outcome = Outcome::Completed { output: "1".to_owned() };
    assert_eq!(subject.settle(step, outcome).await, Settled::Accepted);
}

/// The build's turn after its workflow completed.
async fn publish(subject: &Subject, session: SessionId) -> Gathered {
    let build = turn(subject, session).await;
    let builds = subject.store.build_workflows();
    let situation = builds.build_situation(build.token).await.expect("answered").expect("good");
    assert_eq!(situation.running.map(|(_, state)| state), Some(WorkflowState::Completed));
    let gathered = builds.build_gather(build.token).await.expect("answered").expect("good");
    let publication = Publication {
        version: gathered.version,
        removed: gathered.removed.clone(),
        items_total: gathered.total,
        items_computed: gathered.computed,
        items_reused: gathered.reused,
        output: "{}".to_owned(),
    };
    let published = subject.store.build_publish(build.token, publication).await.expect("answered");
    assert!(matches!(published, Published::Live { .. }), "{published:?}");
    gathered
}

fn names(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

/// Of several steps one generation, all at once.
pub async fn workflow_builds_and_what_its_steps_put_is_published_when_it_has_ended(subject: &Subject) {
    let session = defined(subject).await;
    let (id, start) = begin(subject, session, &[("a", &[]), ("b", &[]), ("c", &[0, 1])]).await;
    assert_eq!((start.version, start.live_version), (1, 0));
    let steps = subject.claim(session, 10).await;
    assert_eq!(steps.len(), 2);
    for (step, key) in steps.iter().zip(["x", "y"]) {
        let part = subject.store.build_workflows().part_begin(step.token).await.expect("answered");
        assert_eq!(part.expect("good").version, 1);
        put(subject, step, vec![item(key, "1", key)]).await;
        done(subject, step).await;
    }
    assert_eq!(turns(subject, session).await, [], "it waits for the workflow");
    assert_eq!(read(subject).await, (0, vec![]));
    assert_eq!(view(subject).await.versions.status, ViewStatus::Processing);
    subject.assert_sound().await;
    let last = subject.claim_one(session).await;
    done(subject, &last).await;
    assert_eq!(subject.store.workflow_get(id).await.expect("there").state, WorkflowState::Completed);
    let gathered = publish(subject, session).await;
    assert_eq!((gathered.total, gathered.computed, gathered.reused), (2, 2, 0));
    assert_eq!(read(subject).await, (1, pairs(&[("x", "x"), ("y", "y")])));
    // A late call of a step that has ended.
    let late = subject.store.build_put(last.token, vec![item("z", "1", "z")]).await.expect("answered");
    assert_eq!(late, Some(Revoked::Finished));
}

/// The next build takes over by fingerprint, keeps and drops by name; what is left is gone.
pub async fn steps_keep_take_over_and_drop_what_they_do_not_put(subject: &Subject) {
    let session = defined(subject).await;
    begin(subject, session, &[("a", &[])]).await;
    let step = subject.claim_one(session).await;
    let first = ["p", "q", "r", "s"].map(|key| item(key, "1", key));
    put(subject, &step, first.to_vec()).await;
    done(subject, &step).await;
    publish(subject, session).await;

    begin(subject, session, &[("a", &[]), ("b", &[])]).await;
    let steps = subject.claim(session, 10).await;
    let previous = subject.store.build_workflows().previous_read(steps[0].token, names(&["q", "none"])).await;
    assert_eq!(previous.expect("answered").expect("good"), pairs(&[("q", "q")]));
    let many = vec!["q".to_owned(); crate::PREVIOUS_ITEMS_MAX + 1];
    let refused = subject.store.build_workflows().previous_read(steps[0].token, many).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    let unchanged = [("p", "1"), ("q", "2"), ("none", "1")];
    let unchanged = unchanged.map(|(item, mark)| (item.to_owned(), mark.to_owned())).to_vec();
    assert_eq!(keep(subject, &steps[0], Keep::Unchanged(unchanged)).await, [true, false, false]);
    assert_eq!(keep(subject, &steps[1], Keep::Live(names(&["r", "none"]))).await, [true, false]);
    put(subject, &steps[1], vec![item("q", "2", "Q")]).await;
    for step in &steps {
        done(subject, step).await;
    }
    let gathered = publish(subject, session).await;
    assert_eq!(gathered.removed, ["s"]);
    assert_eq!((gathered.total, gathered.computed, gathered.reused), (3, 1, 2));
    assert_eq!(read(subject).await, (2, pairs(&[("p", "p"), ("q", "Q"), ("r", "r")])));

    begin(subject, session, &[("a", &[])]).await;
    let step = subject.claim_one(session).await;
    keep(subject, &step, Keep::Rest).await;
    keep(subject, &step, Keep::Dropped(names(&["p"]))).await;
    done(subject, &step).await;
    publish(subject, session).await;
    assert_eq!(read(subject).await, (3, pairs(&[("q", "Q"), ("r", "r")])));
}

/// As a whole: running and waiting steps, and whatever comes late.
pub async fn superseded_workflow_ends_as_a_whole_and_writes_nothing_any_more(subject: &Subject) {
    let session = defined(subject).await;
    let (id, _) = begin(subject, session, &[("a", &[]), ("b", &[]), ("c", &[0, 1])]).await;
    let steps = subject.claim(session, 10).await;
    put(subject, &steps[0], vec![item("x", "1", "old")]).await;
    done(subject, &steps[0]).await;
    let superseded = touch(subject).await.expect("the build was superseded");
    let workflow = subject.store.workflow_get(id).await.expect("there");
    assert_eq!(workflow.state, WorkflowState::Cancelled);
    let job = subject.store.job_get(superseded).await.expect("there");
    assert_eq!((job.state, job.superseded_by), (JobState::Superseded, Some(2)));
    assert!(job.progress.is_some_and(|done| (0.3..0.4).contains(&done)), "one of three: {:?}", job.progress);
    let late = subject.store.build_put(steps[1].token, vec![item("y", "1", "late")]).await.expect("answered");
    assert_eq!(late, Some(Revoked::Cancelled));
    let keep = subject.store.build_workflows().part_keep(steps[1].token, Keep::Rest).await.expect("answered");
    assert_eq!(keep, Err(Revoked::Cancelled));
    assert_eq!(
        subject.settle(&steps[1], Outcome::Completed { output: "1".to_owned() }).await,
        Settled::Refused(Revoked::Cancelled)
    );

    subject.advance(Duration::from_secs(1));
    subject.store.views_reconcile(10).await.expect("reconciled");
    let build = turn(subject, session).await;
    let (_, start) = begin_with(subject, &build, &[("a", &[])]).await;
    assert_eq!(start.version, 2);
    let step = subject.claim_one(session).await;
    let taken = keep_one(subject, &step, "x", "1").await;
    assert!(taken, "what the superseded one put is taken over");
    done(subject, &step).await;
    let gathered = publish(subject, session).await;
    assert_eq!((gathered.total, gathered.computed, gathered.reused), (1, 0, 1));
    assert_eq!(read(subject).await, (2, pairs(&[("x", "old")])));
}

async fn keep_one(subject: &Subject, step: &ClaimedJob, item: &str, mark: &str) -> bool {
    keep(subject, step, Keep::Unchanged(vec![(item.to_owned(), mark.to_owned())])).await == [true]
}

/// A workflow that failed, and was revived by hand, has no say in the build that began anew.
pub async fn workflow_of_an_earlier_attempt_has_no_say_in_the_next(subject: &Subject) {
    let session = defined(subject).await;
    let (first, _) = begin(subject, session, &[("a", &[])]).await;
    let step = subject.claim_one(session).await;
    let no = JobError::new(ErrorKind::Permanent, "no");
    subject.settle(&step, Outcome::Failed { error: no }).await;
    let build = turn(subject, session).await;
    let situation = subject.store.build_workflows().build_situation(build.token).await.expect("answered");
    assert_eq!(situation.expect("good").running, Some((first, WorkflowState::Failed)));
    let error = JobError::new(ErrorKind::Retryable, "its workflow failed");
    subject.settle(&build, Outcome::Retry { error, after: Duration::ZERO }).await;
    let word = Word::new("somebody", "by hand");
    assert_eq!(subject.store.flows().workflow_retry_failed(first, word.clone()).await.expect("retried"), 1);
    let revived = subject.claim_one(session).await;

    let build = turn(subject, session).await;
    begin_with(subject, &build, &[("a", &[])]).await;
    let answer = subject.store.build_put(revived.token, vec![item("x", "1", "of another")]).await;
    assert!(matches!(answer, Err(Error::Invalid(_))), "{answer:?}");
    let step = subject.claim_one(session).await;
    put(subject, &step, vec![item("x", "1", "right")]).await;
    done(subject, &step).await;
    publish(subject, session).await;
    assert_eq!(read(subject).await, (1, pairs(&[("x", "right")])));
    done(subject, &revived).await;
    let answer = subject.store.flows().workflow_retry_failed(first, word).await;
    assert!(matches!(answer, Err(Error::Conflict(_))), "{answer:?}");
}

/// Which of two values counted would be chance; and an attempt that begins anew does not count what the one before said.
pub async fn an_item_is_one_steps_and_the_last_attempt_says_which(subject: &Subject) {
    let session = defined(subject).await;
    begin(subject, session, &[("a", &[]), ("b", &[])]).await;
    let steps = subject.claim(session, 10).await;
    put(subject, &steps[0], vec![item("x", "1", "first"), item("y", "1", "y")]).await;
    let twice = subject.store.build_put(steps[1].token, vec![item("x", "1", "second")]).await;
    assert!(matches!(&twice, Err(Error::Invalid(why)) if why.contains("`a`")), "{twice:?}");
    done(subject, &steps[1]).await;
    let again = JobError::new(ErrorKind::Retryable, "again");
    subject.settle(&steps[0], Outcome::Retry { error: again.clone(), after: Duration::ZERO }).await;
    let second = subject.claim_one(session).await;
    subject.store.build_workflows().part_begin(second.token).await.expect("answered").expect("good");
    put(subject, &second, vec![item("x", "2", "anew")]).await;
    // Begun twice in one attempt, as after a lost answer: nothing is taken back.
    subject.store.build_workflows().part_begin(second.token).await.expect("answered").expect("good");
    subject.store.attempts().checkpoint_save(second.token, "\"half\"").await.expect("kept");
    subject.settle(&second, Outcome::Retry { error: again, after: Duration::ZERO }).await;
    let third = subject.claim_one(session).await;
    subject.store.build_workflows().part_begin(third.token).await.expect("answered").expect("good");
    put(subject, &third, vec![item("z", "1", "z")]).await;
    done(subject, &third).await;
    publish(subject, session).await;
    assert_eq!(read(subject).await, (1, pairs(&[("x", "anew"), ("z", "z")])), "`y` was the first attempt's");
}

/// An engine dies between the beginning of a build and that of its workflow; and one with the workflow under way.
pub async fn build_of_a_dead_engine_is_begun_again_by_another(subject: &Subject) {
    let session = defined(subject).await;
    touch(subject).await;
    subject.store.views_reconcile(10).await.expect("reconciled");
    let lost = turn(subject, session).await;
    subject.store.build_workflows().build_take_version(lost.token).await.expect("answered").expect("good");
    subject.advance(Duration::from_secs(11));
    let other = subject.session().await;
    assert_eq!(subject.store.sessions_sweep(10).await.expect("swept").requeued, 1);
    let late = Outcome::Waits(Waiting::NewWorkflow(Arc::new(workflow(&[("a", &[])]))));
    assert!(matches!(subject.settle(&lost, late).await, Settled::Refused(_)));
    let build = turn(subject, other).await;
    assert_eq!(build.attempt, 1, "a turn is no attempt");
    begin_with(subject, &build, &[("a", &[])]).await;

    let step = subject.claim_one(other).await;
    subject.advance(Duration::from_secs(11));
    let third = subject.session().await;
    assert_eq!(subject.store.sessions_sweep(10).await.expect("swept").requeued, 1);
    let late = subject.store.build_put(step.token, vec![item("x", "1", "late")]).await.expect("answered");
    assert!(late.is_some(), "another one has the step");
    subject.advance(Duration::from_secs(5));
    let step = subject.claim_one(third).await;
    put(subject, &step, vec![item("x", "1", "x")]).await;
    done(subject, &step).await;
    publish(subject, third).await;
    assert_eq!(read(subject).await, (1, pairs(&[("x", "x")])));
}

/// By whichever hand.
pub async fn build_that_is_called_off_takes_its_workflow_with_it(subject: &Subject) {
    let session = defined(subject).await;
    let (id, _) = begin(subject, session, &[("a", &[])]).await;
    let build = view(subject).await.build.expect("it builds");
    subject.store.job_cancel(build, "no").await.expect("cancelled");
    assert_eq!(subject.store.workflow_get(id).await.expect("there").state, WorkflowState::Cancelled);
    assert_eq!(view(subject).await.versions.status, ViewStatus::Failed);

    let (id, _) = begin(subject, session, &[("a", &[])]).await;
    let word = Word::new("somebody", "no more");
    subject.store.view_control().view_delete(ViewName::new("shop", "prices"), word).await.expect("deleted");
    assert_eq!(subject.store.workflow_get(id).await.expect("there").state, WorkflowState::Cancelled);
    assert_eq!(turns(subject, session).await, []);
}

/// From a handler to a workflow and back.
pub async fn build_that_waits_follows_its_views_definition(subject: &Subject) {
    let session = defined(subject).await;
    touch(subject).await;
    subject.store.views_reconcile(10).await.expect("reconciled");
    subject.store.view_define(definition("prices")).await.expect("defined");
    let build = subject.claim_one(session).await;
    assert_eq!(build.handler, "build");
    subject.settle(&build, Outcome::Released).await;
    subject.store.view_define(by_workflow()).await.expect("defined");
    assert_eq!(turn(subject, session).await.token.job, build.token.job);
}

/// With every reason.
pub async fn what_no_workflow_can_build_is_refused(subject: &Subject) {
    let wrong =
        NewView { timeout: Some(Duration::from_secs(1)), queue: "default".to_owned(), ..by_workflow() };
    let answer = subject.store.view_define(wrong).await;
    let Err(Error::Invalid(why)) = answer else { panic!("{answer:?}") };
    assert!(why.contains("timeout") && why.contains("queue"), "{why}");
    let stolen = NewView { handler: FLOW.to_owned(), ..definition("prices") };
    assert!(matches!(subject.store.view_define(stolen).await, Err(Error::Invalid(_))));
    let session = subject.session().await;
    super::workflows::submit(subject, &[("a", &[])]).await;
    let step = subject.claim_one(session).await;
    let answer = subject.store.build_workflows().part_begin(step.token).await;
    assert!(matches!(answer, Err(Error::Invalid(_))), "a workflow that builds nothing: {answer:?}");
    done(subject, &step).await;
}
