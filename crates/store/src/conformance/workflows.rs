//! Cases: graphs of steps.

use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::lifecycle::TimeLimits;
use recache_model::time::Clock as _;
use recache_model::workflow::WorkflowState;

use super::{Subject, work};
use crate::Error;
use crate::records::{
    ClaimRequest, ClaimedJob, NewJob, NewStep, NewWorkflow, Outcome, Revoked, Settled, Settlement,
    TemplateFilter, TemplatePlace, TemplateRecord, TemplateSummary,
};
use crate::signal::Signal;

pub(super) fn template() -> TemplateRecord {
    TemplateRecord {
        digest: "d1".to_owned(),
        namespace: "default".to_owned(),
        name: "example".to_owned(),
        version: "1.0.0".to_owned(),
        content: "{}".to_owned(),
    }
}

pub(super) fn workflow(steps: &[(&str, &[usize])]) -> NewWorkflow {
    let steps =
        steps.iter().map(|(name, waits_for)| NewStep::new(*name, work(), waits_for.to_vec())).collect();
    NewWorkflow {
        id: WorkflowId::make(),
        template: template(),
        template_raise: None,
        input: "{}".to_owned(),
        correlation_id: "c".to_owned(),
        environment: None,
        limits: TimeLimits::default(),
        takes_over: None,
        steps,
    }
}

/// A workflow that no store may take.
pub(super) fn two_steps_of_one_name() -> NewWorkflow {
    workflow(&[("same", &[]), ("same", &[])])
}

pub(super) async fn submit(subject: &Subject, steps: &[(&str, &[usize])]) -> (WorkflowId, Vec<JobId>) {
    let new = workflow(steps);
    let jobs = new.steps.iter().map(|step| step.job.id).collect();
    let id = new.id;
    assert!(subject.store.workflow_submit(new).await.expect("stored"));
    (id, jobs)
}

fn output(text: &str) -> Outcome {
    Outcome::Completed { output: format!("\"{text}\"") }
}

fn failed() -> Outcome {
    Outcome::Failed { error: JobError::new(ErrorKind::Permanent, "no") }
}

fn names(jobs: &[ClaimedJob]) -> Vec<&str> {
    jobs.iter().filter_map(|job| job.step.as_deref()).collect()
}

async fn state(subject: &Subject, workflow: WorkflowId) -> WorkflowState {
    subject.store.workflow_get(workflow).await.expect("there").state
}

/// a; b and c after a; d after b and c.
const DIAMOND: &[(&str, &[usize])] = &[("a", &[]), ("b", &[0]), ("c", &[0]), ("d", &[1, 2])];

/// A step is claimable exactly when all that it waits for are done.
pub async fn steps_run_in_the_order_of_their_dependencies(subject: &Subject) {
    let (id, _) = submit(subject, DIAMOND).await;
    let session = subject.session().await;
    for expected in [vec!["a"], vec!["b", "c"], vec!["d"]] {
        let claimed = subject.claim(session, 10).await;
        assert_eq!(names(&claimed), expected);
        assert_eq!(state(subject, id).await, WorkflowState::Running);
        subject.assert_sound().await;
        for job in &claimed {
            assert_eq!(subject.settle(job, output("x")).await, Settled::Accepted);
        }
    }
    assert_eq!(state(subject, id).await, WorkflowState::Completed);
    assert!(subject.store.workflow_get(id).await.expect("there").finished_at.is_some());
}

/// What a step returned is its dependents' to read, and no one else's.
pub async fn outputs_reach_the_steps_that_waited_for_them(subject: &Subject) {
    let (id, jobs) = submit(subject, DIAMOND).await;
    let session = subject.session().await;
    for _ in 0..2 {
        for job in subject.claim(session, 10).await {
            let name = job.step.clone().unwrap_or_default();
            subject.settle(&job, output(&name)).await;
        }
    }
    let inputs = subject.store.step_inputs(jobs[3]).await.expect("read");
    let expected = [("b", "\"b\""), ("c", "\"c\"")].map(|(step, json)| (step.to_owned(), json.to_owned()));
    assert_eq!((inputs.workflow_input.as_str(), inputs.results), ("{}", expected.to_vec()));
    let steps = subject.store.workflow_steps(id).await.expect("read");
    assert_eq!(steps[3].waits_for, ["b", "c"]);
}

/// A failure stops what depends on it and nothing is lost: an operator's retry goes on from there.
pub async fn failed_step_fails_the_workflow_and_retry_revives_it(subject: &Subject) {
    let (id, jobs) = submit(subject, &[("a", &[]), ("b", &[0])]).await;
    let session = subject.session().await;
    let a = subject.claim_one(session).await;
    subject.settle(&a, failed()).await;
    assert_eq!(state(subject, id).await, WorkflowState::Failed);
    assert!(subject.claim(session, 10).await.is_empty(), "a failed step is not offered again");
    assert_eq!(subject.store.job_get(jobs[1]).await.expect("there").state, JobState::Blocked);
    subject.store.job_retry(jobs[0]).await.expect("retried");
    assert_eq!(state(subject, id).await, WorkflowState::Running);
    for name in ["a", "b"] {
        let job = subject.claim_one(session).await;
        assert_eq!(job.step.as_deref(), Some(name));
        subject.settle(&job, output(name)).await;
    }
    assert_eq!(state(subject, id).await, WorkflowState::Completed);
}

/// Branches that do not depend on the failure run to their end first.
pub async fn workflow_goes_on_beside_a_failed_step(subject: &Subject) {
    let (id, _) = submit(subject, &[("bad", &[]), ("good", &[]), ("after", &[1])]).await;
    let session = subject.session().await;
    let claimed = subject.claim(session, 10).await;
    assert_eq!(names(&claimed), ["bad", "good"]);
    subject.settle(&claimed[0], failed()).await;
    assert_eq!(state(subject, id).await, WorkflowState::Running);
    subject.settle(&claimed[1], output("good")).await;
    let after = subject.claim_one(session).await;
    subject.settle(&after, output("after")).await;
    assert_eq!(state(subject, id).await, WorkflowState::Failed);
}

/// One transaction: what runs, what waits and what is blocked.
pub async fn cancelled_workflow_stops_everything(subject: &Subject) {
    let (id, jobs) = submit(subject, &[("a", &[]), ("b", &[]), ("c", &[0, 1])]).await;
    let session = subject.session().await;
    let running = subject.claim(session, 1).await;
    let stopped = subject.store.workflow_cancel(id, "enough").await.expect("cancelled");
    assert_eq!(stopped, [running[0].token.job]);
    for job in jobs {
        assert_eq!(subject.store.job_get(job).await.expect("there").state, JobState::Cancelled);
    }
    assert_eq!(state(subject, id).await, WorkflowState::Cancelled);
    assert_eq!(subject.settle(&running[0], output("late")).await, Settled::Refused(Revoked::Cancelled));
    assert!(subject.store.workflow_cancel(id, "again").await.expect("answered").is_empty());
    let unknown = subject.store.workflow_cancel(WorkflowId::make(), "x").await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })));
}

/// A version names one content for ever.
pub async fn same_template_version_with_other_content_is_refused(subject: &Subject) {
    subject.store.template_put(template(), None).await.expect("kept");
    subject.store.template_put(template(), None).await.expect("the same again is fine");
    let other = TemplateRecord { digest: "d2".to_owned(), content: "{\"x\":1}".to_owned(), ..template() };
    assert!(matches!(subject.store.template_put(other.clone(), None).await, Err(Error::Conflict(_))));
    assert!(matches!(subject.store.template_get("d2").await, Err(Error::NotFound { .. })));
    let mut new = workflow(DIAMOND);
    new.template = other.clone();
    assert!(matches!(subject.store.workflow_submit(new).await, Err(Error::Conflict(_))));
    let newer = TemplateRecord { version: "1.0.1".to_owned(), ..other };
    subject.store.template_put(newer.clone(), None).await.expect("kept");
    assert_eq!(subject.store.template_get("d2").await.expect("there"), newer);
}

async fn put_version(subject: &Subject, namespace: &str, name: &str, version: &str) -> TemplateRecord {
    let record = TemplateRecord {
        digest: format!("{namespace}/{name} {version}"),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        content: format!("{{\"version\":\"{version}\"}}"),
    };
    subject.store.template_put(record.clone(), None).await.expect("kept");
    record
}

/// 0.10.0 is newer than 0.9.0; a pre-release is newest only where nothing was released.
pub async fn newest_template_goes_by_precedence_of_versions(subject: &Subject) {
    for version in ["0.9.0", "0.10.0", "0.10.1-rc.1", "0.2.0"] {
        put_version(subject, "shop", "order", version).await;
    }
    put_version(subject, "other", "order", "9.0.0").await;
    put_version(subject, "shop", "order_2", "8.0.0").await;
    put_version(subject, "shop", "trial", "1.0.0-rc.9").await;
    put_version(subject, "shop", "trial", "1.0.0-rc.10").await;
    let find = async |name, version| subject.store.template_find("shop", name, version).await;
    let newest = find("order", None).await.expect("found");
    assert_eq!((newest.version.as_str(), newest.content.as_str()), ("0.10.0", "{\"version\":\"0.10.0\"}"));
    assert_eq!(find("trial", None).await.expect("found").version, "1.0.0-rc.10");
    assert_eq!(find("order", Some("0.10.1-rc.1")).await.expect("found").version, "0.10.1-rc.1");
    assert!(matches!(find("order", Some("0.3.0")).await, Err(Error::NotFound { .. })));
    assert!(matches!(find("nothing", None).await, Err(Error::NotFound { .. })));
}

/// The list goes by name, then by version from the newest on, and is cut only at its end.
pub async fn templates_are_listed_by_name_and_newest_version(subject: &Subject) {
    for (namespace, name, version) in [
        ("b", "pack", "1.0.0"),
        ("a", "order", "0.9.0"),
        ("b", "order", "3.0.0"),
        ("a", "order", "0.10.0"),
        ("a", "pack", "2.0.0"),
        ("a", "order", "0.10.0-rc.1"),
    ] {
        put_version(subject, namespace, name, version).await;
    }
    let page = async |namespace: Option<&str>, name: Option<&str>, after, rows_max| {
        let (namespace, name) = (namespace.map(str::to_owned), name.map(str::to_owned));
        let filter = TemplateFilter { namespace, name, after, rows_max };
        let found = subject.store.templates_list(filter).await.expect("listed");
        let line = |one: &TemplateSummary| format!("{}/{} {}", one.namespace, one.name, one.version);
        found.iter().map(line).collect::<Vec<_>>()
    };
    let list = async |namespace, name, rows_max| page(namespace, name, None, rows_max).await;
    let all = [
        "a/order 0.10.0",
        "a/order 0.10.0-rc.1",
        "a/order 0.9.0",
        "a/pack 2.0.0",
        "b/order 3.0.0",
        "b/pack 1.0.0",
    ];
    assert_eq!(list(None, None, 10).await, all);
    for rows_max in 0..=6 {
        assert_eq!(list(None, None, rows_max).await, all[..usize::try_from(rows_max).expect("few")]);
    }
    assert_eq!(list(Some("b"), None, 10).await, all[4..]);
    assert_eq!(list(None, Some("pack"), 10).await, [all[3], all[5]]);
    assert_eq!(list(Some("a"), Some("order"), 2).await, all[..2]);
    assert!(list(Some("c"), None, 10).await.is_empty());
    // Behind each, and behind what is no longer there, whatever the page holds.
    let place = |line: &str| {
        let (name, version) = line.split_once(' ').expect("a line");
        let (namespace, name) = name.split_once('/').expect("a name");
        let [namespace, name, version] = [namespace, name, version].map(str::to_owned);
        TemplatePlace { namespace, name, version }
    };
    for rows_max in 1..=7 {
        let cut = usize::try_from(rows_max).expect("few");
        for (index, line) in all.iter().enumerate() {
            let expected = &all[index + 1..];
            let found = page(None, None, Some(place(line)), rows_max).await;
            assert_eq!(found, expected[..cut.min(expected.len())], "{rows_max} after {line}");
        }
    }
    assert_eq!(page(None, None, Some(place("a/order 0.9.5")), 2).await, all[2..4]);
    assert_eq!(page(None, None, Some(place("a/other 1.0.0")), 2).await, all[3..5]);
    assert_eq!(page(Some("a"), Some("order"), Some(place(all[0])), 1).await, all[1..2]);
    assert!(page(Some("b"), None, Some(place(all[5])), 10).await.is_empty());
    let pack = TemplateFilter {
        namespace: Some("a".to_owned()),
        name: Some("pack".to_owned()),
        rows_max: 1,
        ..TemplateFilter::default()
    };
    let summary = &subject.store.templates_list(pack).await.expect("listed")[0];
    assert_eq!((summary.digest.as_str(), summary.created_at), ("a/pack 2.0.0", subject.clock.now()));
}

/// The caller's id makes a repeated submit harmless.
pub async fn same_workflow_submitted_twice_is_one(subject: &Subject) {
    let new = workflow(DIAMOND);
    assert!(subject.store.workflow_submit(new.clone()).await.expect("stored"));
    assert!(!subject.store.workflow_submit(new.clone()).await.expect("found"));
    assert_eq!(subject.store.workflow_steps(new.id).await.expect("read").len(), 4);
}

/// What is claimed with the end that let it begin needs nobody's attention; what is not, does.
pub async fn step_is_announced_where_it_was_not_claimed_with_the_end_before(subject: &Subject) {
    let session = subject.session().await;
    for claims in [true, false] {
        submit(subject, &[("a", &[]), ("b", &[0])]).await;
        let a = subject.claim_one(session).await;
        let mut hints = subject.store.subscribe();
        let request = ClaimRequest {
            session,
            queues: vec!["default".to_owned()],
            handlers: vec!["work".to_owned()],
            rows_max: 10,
        };
        let settlement = Settlement::of(&a, output("a"));
        let answer = subject.store.jobs_dispatch(vec![settlement], claims.then_some(request)).await;
        let mut claimed = answer.expect("answered").claimed;
        assert_eq!(claimed.len(), usize::from(claims));
        // Heard after all that the call announced.
        let mark = NewJob { queue: "mark".to_owned(), ..work() };
        subject.store.jobs_submit(vec![mark]).await.expect("stored");
        let mut heard = Vec::new();
        loop {
            match hints.recv().await.expect("heard") {
                Signal::Queued(queue) if queue == "mark" => break,
                hint => heard.push(hint),
            }
        }
        let is_announced = heard.contains(&Signal::Queued("default".to_owned()));
        assert_eq!(is_announced, !claims, "{heard:?}");
        if !claims {
            claimed = vec![subject.claim_one(session).await];
        }
        subject.settle(&claimed[0], output("b")).await;
    }
}

/// Both middle steps of a diamond in one call, and again by two calls at once.
pub async fn diamond_settled_at_once_unblocks_its_end_once(subject: &Subject) {
    let session = subject.session().await;
    for at_once in [true, false] {
        let (id, _) = submit(subject, DIAMOND).await;
        let a = subject.claim_one(session).await;
        subject.settle(&a, output("a")).await;
        let middle = subject.claim(session, 10).await;
        let settlements: Vec<Settlement> =
            middle.iter().map(|job| Settlement::of(job, output("m"))).collect();
        if at_once {
            let request = ClaimRequest {
                session,
                queues: vec!["default".to_owned()],
                handlers: vec!["work".to_owned()],
                rows_max: 10,
            };
            let answer = subject.store.jobs_dispatch(settlements, Some(request)).await.expect("answered");
            assert_eq!(names(&answer.claimed), ["d"], "the successor comes with the answer");
            subject.settle(&answer.claimed[0], output("d")).await;
        } else {
            let (one, other) = tokio::join!(
                subject.store.jobs_dispatch(vec![settlements[0].clone()], None),
                subject.store.jobs_dispatch(vec![settlements[1].clone()], None),
            );
            assert_eq!(
                [one.expect("answered").settled[0], other.expect("answered").settled[0]],
                [Settled::Accepted; 2]
            );
            let d = subject.claim_one(session).await;
            subject.settle(&d, output("d")).await;
        }
        assert_eq!(state(subject, id).await, WorkflowState::Completed);
    }
}
