//! Cases: figures over what has run.

use std::sync::Arc;
use std::time::Duration;

use recache_model::figures::{
    Active, By, Filter, Kind, MINUTE_US, Minute, MinuteTotals, OTHER, Series, Totals,
};
use recache_model::job::{ErrorKind, JobError};
use recache_model::time::{Clock as _, Timestamp};
use recache_model::workflow::StepKind;
use uuid::Uuid;

use super::workflows::{template, workflow};
use super::{Subject, work};
use crate::Error;
use crate::figures::{FoldLimits, MinutesAsked, StepFigures};
use crate::flow::{Child, Children, Ending, FLOW};
use crate::maintenance::Leadership;
use crate::queues::Word;
use crate::records::{ClaimRequest, Due, NewJob, NewWorkflow, Outcome, TemplateRecord};

/// Runs a workflow of two steps, one after the other; each waits so many seconds and runs so many.
async fn run(subject: &Subject, template: &TemplateRecord, wait_s: u64, run_s: u64) {
    let new = NewWorkflow { template: template.clone(), ..workflow(&[("first", &[]), ("second", &[0])]) };
    assert!(subject.store.workflow_submit(new).await.expect("stored"));
    let session = subject.session().await;
    for _ in 0..2 {
        subject.advance(Duration::from_secs(wait_s));
        let job = subject.claim_one(session).await;
        subject.advance(Duration::from_secs(run_s));
        subject.settle(&job, Outcome::Completed { output: "1".to_owned() }).await;
    }
}

async fn figures(subject: &Subject, digest: &str, workflows_max: u32) -> StepFigures {
    subject.store.figures().step_figures("default", "example", digest, workflows_max).await.expect("answered")
}

fn near(value: f64, expected: f64) {
    assert!((value - expected).abs() < 1e-9, "{value}, not {expected}");
}

/// Run and wait apart, in seconds; what has not ended does not count.
pub async fn steps_of_ended_workflows_are_summed_up_by_name(subject: &Subject) {
    assert_eq!(figures(subject, "d1", 10).await, StepFigures::default());
    run(subject, &template(), 2, 3).await;
    run(subject, &template(), 1, 5).await;
    assert!(subject.store.workflow_submit(workflow(&[("first", &[])])).await.expect("stored"));
    let found = figures(subject, "d1", 10).await;
    assert_eq!(found.workflows, 2);
    assert_eq!(found.steps.iter().map(|step| step.step.as_str()).collect::<Vec<_>>(), ["first", "second"]);
    for step in &found.steps {
        assert_eq!(step.count, 2);
        near(step.run_sum, 8.0);
        near(step.run_squares, 34.0);
        near(step.wait_sum, 3.0);
        near(step.wait_squares, 5.0);
    }
    let other = subject.store.figures().step_figures("other", "example", "d1", 10).await;
    assert_eq!(other.expect("answered"), StepFigures::default());
}

/// A new version starts with what its predecessors took, until it has workflows of its own.
pub async fn newest_workflows_of_the_asked_version_come_first(subject: &Subject) {
    let next = TemplateRecord { digest: "d2".to_owned(), version: "2.0.0".to_owned(), ..template() };
    run(subject, &template(), 0, 7).await;
    run(subject, &template(), 0, 1).await;
    run(subject, &next, 0, 2).await;
    let sum = async |digest, workflows_max| {
        let found = figures(subject, digest, workflows_max).await;
        (found.workflows, found.steps[0].run_sum)
    };
    assert_eq!(sum("d1", 1).await, (1, 1.0));
    assert_eq!(sum("d1", 2).await, (2, 8.0));
    assert_eq!(sum("d2", 1).await, (1, 2.0));
    assert_eq!(sum("d2", 2).await, (2, 3.0));
    assert_eq!(sum("not stored yet", 10).await, (3, 10.0));
    assert_eq!(figures(subject, "d1", 0).await, StepFigures::default());
}

async fn lead(subject: &Subject) -> Leadership {
    let taken = subject
        .store
        .maintenance()
        .leader_take("figures", Uuid::from_u128(1), Duration::from_secs(600))
        .await;
    taken.expect("answered").expect("nobody else leads")
}

fn minute(subject: &Subject) -> Minute {
    subject.clock.now().micros().div_euclid(MINUTE_US)
}

/// All that ended until now, of every kind.
async fn all(subject: &Subject, exact: bool) -> Vec<MinuteTotals> {
    let asked = MinutesAsked { exact, ..MinutesAsked::new(0, minute(subject) + 1, By::Minute) };
    subject.store.figures().minutes(&asked).await.expect("answered")
}

fn minutes(minutes: u32) -> FoldLimits {
    FoldLimits { minutes, ..FoldLimits::default() }
}

/// Jobs and workflows that end in different ways, over some minutes.
async fn some_work(subject: &Subject) {
    run(subject, &template(), 3, 20).await;
    let session = subject.session().await;
    for end in 0..4_u32 {
        subject
            .store
            .jobs_submit(vec![NewJob { namespace: "shop".to_owned(), ..work() }])
            .await
            .expect("stored");
        subject.advance(Duration::from_secs(7));
        let job = subject.claim_one(session).await;
        subject.advance(Duration::from_secs(u64::from(end) * 15 + 1));
        let mut error = JobError::new(ErrorKind::Permanent, "no");
        error.code = (end == 1).then(|| "http_404".to_owned());
        if end == 3 {
            subject.store.job_cancel(job.token.job, "enough").await.expect("cancelled");
        } else if end == 0 {
            subject.settle(&job, Outcome::Completed { output: "1".to_owned() }).await;
        } else {
            subject.settle(&job, Outcome::Failed { error }).await;
        }
    }
}

fn sum(minutes: &[MinuteTotals], kind: Kind) -> Totals {
    let mut sum = Totals::default();
    for one in minutes.iter().filter(|one| one.series.kind == kind) {
        sum.merge(&one.totals);
    }
    sum
}

/// Whatever is folded, the answer is that of the rows themselves.
pub async fn folded_minutes_are_what_counting_finds(subject: &Subject) {
    let figures = subject.store.figures();
    let lead = lead(subject).await;
    assert_eq!(
        figures.fold(&lead, minute(subject), 2, FoldLimits::default()).await.expect("answered"),
        None,
        "nothing ever ended"
    );
    some_work(subject).await;
    let counted = all(subject, true).await;
    assert_eq!(all(subject, false).await, counted, "nothing is folded yet");

    let (jobs, steps, workflows) =
        (sum(&counted, Kind::Job), sum(&counted, Kind::Step), sum(&counted, Kind::Workflow));
    assert_eq!((jobs.completed, jobs.failed, jobs.cancelled), (1, 2, 1));
    assert_eq!(
        jobs.codes.iter().map(|(code, n)| (code.as_str(), *n)).collect::<Vec<_>>(),
        [("http_404", 1), ("permanent", 1)]
    );
    assert_eq!((jobs.ran_us, jobs.waited_us), ((1 + 16 + 31 + 46) * 1_000_000, 4 * 7_000_000));
    assert_eq!((steps.completed, steps.ran_us, steps.waited_us), (2, 40_000_000, 6_000_000));
    assert_eq!(
        (steps.critical_us, steps.paths_us),
        (40_000_000, 80_000_000),
        "each of two steps is half of the path"
    );
    assert_eq!((workflows.completed, workflows.lasted_us), (1, 46_000_000));
    assert!(counted.iter().any(|one| one.series.namespace == "shop" && one.series.handler == "work"));

    // Two minutes at a time, and then all that is left but the present one.
    let first = counted.first().expect("something ended").minute;
    assert_eq!(
        figures.fold(&lead, minute(subject) - 1, 2, minutes(2)).await.expect("folded"),
        Some(first + 1)
    );
    assert_eq!(all(subject, false).await, counted);
    let last = figures.fold(&lead, minute(subject) - 1, 2, FoldLimits::default()).await.expect("folded");
    assert_eq!(last, Some(minute(subject) - 1));
    assert_eq!(figures.folded().await.expect("answered"), last);
    assert_eq!(all(subject, false).await, counted);
    // It is really read and not counted: a row that was tampered with shows.
    subject.tamper("UPDATE figures_minutes SET totals = '{}'").await;
    assert_ne!(all(subject, false).await, counted);
    assert_eq!(all(subject, true).await, counted);
}

/// What was called off, completed or resolved long after its last attempt did not run meanwhile.
pub async fn only_what_a_handler_ran_counts_as_run(subject: &Subject) {
    let store = &subject.store;
    let (ran, waits) = (Duration::from_secs(5), Duration::from_secs(40 * 60));
    let error = || JobError::new(ErrorKind::Retryable, "no");
    let attempt = async |outcome: Outcome| {
        let session = subject.session().await;
        subject.advance(Duration::from_secs(2));
        let job = subject.claim_one(session).await;
        subject.advance(ran);
        subject.settle(&job, outcome).await;
        subject.advance(waits);
        job.token.job
    };
    let (retry, snooze) = (
        || Outcome::Retry { error: error(), after: Duration::from_secs(3_600) },
        || Outcome::Snoozed { after: Duration::from_secs(3_600) },
    );

    // Called off while it waits for its next attempt, or for its time; and while it runs.
    for outcome in [retry(), snooze()] {
        store.jobs_submit(vec![work()]).await.expect("stored");
        let job = attempt(outcome).await;
        store.job_cancel(job, "enough").await.expect("cancelled");
    }
    store.jobs_submit(vec![work()]).await.expect("stored");
    let job = subject.claim_one(subject.session().await).await;
    subject.advance(ran);
    store.job_cancel(job.token.job, "enough").await.expect("cancelled");
    // Failed, and resolved later.
    store.jobs_submit(vec![work()]).await.expect("stored");
    let job = attempt(Outcome::Failed { error: error() }).await;
    store.letters().job_resolve(job, Word::new("ops", "done by hand")).await.expect("resolved");
    // Due anew since an instant before it began, while it waits.
    let before = subject.clock.now();
    subject.advance(ran);
    store.jobs_submit(vec![work()]).await.expect("stored");
    let job = attempt(retry()).await;
    store.job_changes().job_reschedule(job, Due::At(before)).await.expect("put off");
    subject.advance(waits);
    store.job_cancel(job, "enough").await.expect("cancelled");
    let jobs = sum(&all(subject, true).await, Kind::Job);
    assert_eq!((jobs.cancelled, jobs.completed), (4, 1));
    assert_eq!((jobs.ran.count(), jobs.ran_us), (5, 5 * 5_000_000));

    // Steps: completed by hand, and with their workflow, while they wait for their next attempt.
    let new = workflow(&[("first", &[])]);
    assert!(store.workflow_submit(new).await.expect("stored"));
    let job = attempt(retry()).await;
    let ending = Ending::Complete { output: "1".to_owned() };
    let word = Word::new("ops", "done by hand");
    store.flows().step_end(job, ending, None, word).await.expect("completed");
    let new = workflow(&[("first", &[]), ("second", &[0])]);
    let id = new.id;
    assert!(store.workflow_submit(new).await.expect("stored"));
    attempt(snooze()).await;
    store.workflow_cancel(id, "enough").await.expect("cancelled");
    let found = all(subject, true).await;
    let steps = sum(&found, Kind::Step);
    assert_eq!((steps.ran.count(), steps.ran_us), (2, 2 * 5_000_000), "the second step never began");
    assert_eq!(steps.critical_us, 5_000_000, "of the one that completed");
    let history = figures(subject, "d1", 10).await;
    assert_eq!(history.steps.len(), 1);
    near(history.steps[0].run_sum, 5.0);

    let lead = lead(subject).await;
    subject.advance(Duration::from_secs(60));
    let last = minute(subject) - 1;
    let fold = subject.store.figures();
    while fold.fold(&lead, last, 0, minutes(600)).await.expect("folded") != Some(last) {}
    assert_eq!(all(subject, false).await, found, "and so it is when it is folded");
}

/// A step is what a handler ran: neither what ended before it began, nor what the engine did itself.
pub async fn steps_that_no_handler_ran_are_not_counted(subject: &Subject) {
    let store = &subject.store;
    let new = workflow(&[("first", &[]), ("second", &[0])]);
    let id = new.id;
    assert!(store.workflow_submit(new).await.expect("stored"));
    store.workflow_cancel(id, "enough").await.expect("cancelled");
    let turn = || NewJob { queue: FLOW.to_owned(), ..NewJob::new(FLOW, "{}") };
    for outcome in [
        Outcome::Completed { output: "1".to_owned() },
        Outcome::Skipped { reason: "not needed".to_owned(), region: None },
    ] {
        let mut new = workflow(&[("turn", &[]), ("work", &[0])]);
        new.steps[0].job = turn();
        assert!(store.workflow_submit(new).await.expect("stored"));
        let session = subject.session().await;
        let request = ClaimRequest {
            session,
            queues: vec![FLOW.to_owned()],
            handlers: vec![FLOW.to_owned()],
            rows_max: 1,
        };
        let mut claimed = store.jobs_dispatch(Vec::new(), Some(request)).await.expect("answered").claimed;
        subject.advance(Duration::from_secs(3));
        subject.settle(&claimed.remove(0), outcome).await;
        for job in subject.claim(session, 5).await {
            subject.advance(Duration::from_secs(4));
            subject.settle(&job, Outcome::Completed { output: "1".to_owned() }).await;
        }
    }
    let found = all(subject, true).await;
    let steps = sum(&found, Kind::Step);
    assert_eq!(sum(&found, Kind::Workflow).ended(), 3);
    // The one behind the turn that completed; what a skipped step stands before is skipped with it.
    assert_eq!((steps.ended(), steps.executed(), steps.ran_us), (1, 1, 4_000_000));
    assert!(found.iter().all(|one| one.series.handler != FLOW), "{found:?}");
}

/// A step that was split is on the critical path for as long as the longest of its runs, under their handler.
pub async fn longest_child_counts_for_the_step_that_was_split(subject: &Subject) {
    let mut new = workflow(&[("split", &[]), ("after", &[0])]);
    new.steps[1].job = NewJob::new("build", "{}");
    assert!(subject.store.workflow_submit(new).await.expect("stored"));
    let session = subject.session().await;
    let done = || Outcome::Completed { output: "1".to_owned() };
    let turn = subject.claim_one(session).await;
    let child = |item: &str| Child { job: work(), item: item.to_owned(), has_rules: false };
    let children =
        Children { kind: StepKind::Child, parallelism: None, jobs: ["1", "2", "3"].map(child).into() };
    subject.settle(&turn, Outcome::Split(Arc::new(children))).await;
    for run in subject.claim(session, 5).await {
        // They end after two, four and six seconds.
        subject.advance(Duration::from_secs(2));
        subject.settle(&run, done()).await;
    }
    for _ in ["gathers", "after"] {
        let job = subject.claim_one(session).await;
        let seconds = if job.handler == "build" { 4 } else { 0 };
        subject.advance(Duration::from_secs(seconds));
        subject.settle(&job, done()).await;
    }
    let found = all(subject, true).await;
    let critical = |step: &str| {
        let of: Vec<_> = found.iter().filter(|one| one.series.step == step).collect();
        let seconds = |us: fn(&Totals) -> u64| of.iter().map(|one| us(&one.totals)).sum::<u64>() / 1_000_000;
        (seconds(|totals| totals.critical_us), seconds(|totals| totals.paths_us))
    };
    assert_eq!((critical("split"), critical("after")), ((6, 10), (4, 10)));
}

/// A crash after a fold, or a second leader, does no harm; a transaction that committed late is counted by the next fold.
pub async fn folding_again_counts_nothing_twice_and_what_came_late_too(subject: &Subject) {
    let figures = subject.store.figures();
    let lead = lead(subject).await;
    some_work(subject).await;
    subject.advance(Duration::from_secs(60));
    let before = all(subject, true).await;
    let last = minute(subject) - 1;
    figures.fold(&lead, last, 2, FoldLimits::default()).await.expect("folded");
    // As if the fold had not seen them.
    subject.tamper("DELETE FROM figures_minutes").await;
    subject.advance(Duration::from_secs(60));
    let again = u32::try_from(last - before[0].minute + 1).expect("a few minutes");
    assert_eq!(
        figures.fold(&lead, last + 1, again, FoldLimits::default()).await.expect("folded"),
        Some(last + 1)
    );
    assert_eq!(all(subject, false).await, before);
    assert_eq!(
        figures.fold(&lead, last + 1, again, FoldLimits::default()).await.expect("nothing to do"),
        Some(last + 1)
    );
    assert_eq!(all(subject, false).await, before);
}

/// More ends than are counted at once make folds smaller, down to single minutes, and none of them stops it.
pub async fn minutes_with_too_much_for_one_fold_are_folded_one_by_one(subject: &Subject) {
    let figures = subject.store.figures();
    let lead = lead(subject).await;
    // A minute with more than the bound, and others below it.
    for jobs in [1_usize, 7, 1, 1, 2] {
        let session = subject.session().await;
        subject.store.jobs_submit((0..jobs).map(|_| work()).collect()).await.expect("stored");
        for job in subject.claim(session, 10).await {
            subject.settle(&job, Outcome::Completed { output: "1".to_owned() }).await;
        }
        subject.advance(Duration::from_secs(60));
    }
    let counted = all(subject, true).await;
    let (first, last) = (counted[0].minute, minute(subject) - 1);
    let (rows_max, mut seen) = (3, Vec::new());
    while seen.last() != Some(&last) {
        let folded = figures
            .fold(&lead, last, 1, FoldLimits { rows: rows_max, ..FoldLimits::default() })
            .await
            .expect("folded")
            .expect("there is more");
        assert!(seen.last().is_none_or(|before| *before < folded), "it goes on: {seen:?}, then {folded}");
        seen.push(folded);
    }
    let steps: Vec<Minute> = seen.iter().map(|minute| minute - first).collect();
    assert_eq!(
        steps,
        [0, 1, 2, 3, 4],
        "the one with seven goes through alone, and holds those smaller that count it again"
    );
    assert_eq!(all(subject, false).await, counted);
    assert_eq!(sum(&counted, Kind::Job).completed, 12);
}

/// However many names there are, a minute keeps so many series and no more; nothing that ended is lost.
pub async fn series_that_are_too_many_are_folded_as_one(subject: &Subject) {
    let figures = subject.store.figures();
    let lead = lead(subject).await;
    for place in 0..7_u32 {
        let session = subject.session().await;
        let new = NewJob { queue: format!("q{place}"), ..work() };
        subject.store.jobs_submit(vec![new]).await.expect("stored");
        let request = ClaimRequest {
            session,
            queues: vec![format!("q{place}")],
            handlers: vec!["work".to_owned()],
            rows_max: 1,
        };
        let claimed = subject.store.jobs_dispatch(Vec::new(), Some(request)).await.expect("answered").claimed;
        subject.settle(&claimed[0], Outcome::Completed { output: "1".to_owned() }).await;
    }
    subject.advance(Duration::from_secs(60));
    let last = minute(subject) - 1;
    let series_of = async |asked: MinutesAsked| -> Vec<Series> {
        let found = figures.minutes(&asked).await.expect("answered");
        assert_eq!(sum(&found, Kind::Job).completed, 7, "all are counted: {found:?}");
        found.into_iter().map(|one| one.series).collect()
    };
    let asked = MinutesAsked::new(0, last + 1, By::Minute);
    assert_eq!(series_of(asked.clone()).await.len(), 7, "there is room for all");
    let few = MinutesAsked { series_max: 3, ..asked.clone() };
    let told = series_of(few).await;
    assert_eq!(told.len(), 4, "three, and one for all others: {told:?}");
    assert_eq!(told.iter().filter(|one| one.is_other()).count(), 1);

    let limits = FoldLimits { series: 3, ..FoldLimits::default() };
    let before = subject.store.measured().figures_other;
    while figures.fold(&lead, last, 3, limits).await.expect("folded") != Some(last) {}
    let told = series_of(asked.clone()).await;
    let others: Vec<&Series> = told.iter().filter(|one| one.is_other()).collect();
    assert_eq!((told.len(), others.len()), (4, 1), "{told:?}");
    assert_eq!((others[0].handler.as_str(), others[0].queue.as_str()), (OTHER, OTHER));
    assert_eq!(subject.store.measured().figures_other - before, 4);
    // Folded once more with the next minute, and not counted a second time.
    subject.advance(Duration::from_secs(60));
    figures.fold(&lead, last + 1, 3, limits).await.expect("folded");
    assert_eq!(subject.store.measured().figures_other - before, 4);

    // What is not asked for needs no room, and takes none from the others.
    let filter = Filter { queue: Some("q6".to_owned()), ..Filter::default() };
    let exact = MinutesAsked { exact: true, filter, series_max: 1, ..asked };
    let found = figures.minutes(&exact).await.expect("answered");
    assert_eq!(found.iter().map(|one| one.series.queue.as_str()).collect::<Vec<_>>(), ["q6"]);
}

/// Minutes are merged where they are read: a window of many costs no more memory than a short one.
pub async fn minutes_of_a_window_are_merged_as_far_as_is_asked(subject: &Subject) {
    let figures = subject.store.figures();
    for _ in 0..5 {
        some_work(subject).await;
        subject.advance(Duration::from_secs(60));
    }
    let lead = lead(subject).await;
    // One half of it is folded, the other is counted.
    let apart = all(subject, true).await;
    let half = apart[apart.len() / 2].minute;
    while figures.fold(&lead, half, 3, FoldLimits::default()).await.expect("folded") != Some(half) {}
    let (first, end) = (apart[0].minute, minute(subject) + 1);
    let instant = |minute: Minute| Timestamp::from_micros(minute * MINUTE_US);
    let parts = By::Parts { start: instant(first), end: instant(end) };
    for exact in [false, true] {
        for (by, most) in [(By::Series, 4), (parts, 24 * 3)] {
            let asked = MinutesAsked { exact, ..MinutesAsked::new(first, end, by) };
            let merged = figures.minutes(&asked).await.expect("answered");
            assert!(merged.len() <= most && merged.len() < apart.len(), "{by:?}: {merged:?}");
            for kind in [Kind::Workflow, Kind::Step, Kind::Job] {
                assert_eq!(sum(&merged, kind), sum(&apart, kind), "{by:?}, {kind:?}");
            }
        }
    }
}

/// What a former leader still sends is refused.
pub async fn only_the_leader_folds(subject: &Subject) {
    let figures = subject.store.figures();
    let lead = lead(subject).await;
    some_work(subject).await;
    let other = Leadership { token: lead.token + 1, ..lead.clone() };
    let refused = figures.fold(&other, minute(subject), 0, FoldLimits::default()).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    let refused = figures.minutes_remove(&other, minute(subject), 10).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    assert_eq!(figures.folded().await.expect("answered"), None);
}

/// Workflows, and jobs that are no steps.
pub async fn active_work_is_counted_by_filter(subject: &Subject) {
    let figures = subject.store.figures();
    some_work(subject).await;
    assert_eq!(
        figures.active(&Filter::default(), Timestamp::default()).await.expect("answered"),
        Active::default()
    );
    assert!(
        subject.store.workflow_submit(workflow(&[("first", &[]), ("second", &[0])])).await.expect("stored")
    );
    let keyed = NewJob { concurrency_key: Some("k".to_owned()), queue: "mail".to_owned(), ..work() };
    let other = NewJob { namespace: "shop".to_owned(), queue: "mail".to_owned(), ..work() };
    subject.store.jobs_submit(vec![keyed, other, work()]).await.expect("stored");
    let session = subject.session().await;
    subject.claim(session, 1).await;
    let active =
        async |filter: Filter| figures.active(&filter, Timestamp::default()).await.expect("answered").tasks;
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(active(Filter::default()).await, 4);
    assert_eq!(active(Filter { namespace: some("shop"), ..Filter::default() }).await, 1);
    assert_eq!(active(Filter { queue: some("mail"), ..Filter::default() }).await, 2);
    assert_eq!(active(Filter { template: some("example"), ..Filter::default() }).await, 1);
    assert_eq!(active(Filter { handler: some("work"), ..Filter::default() }).await, 3);
    assert_eq!(active(Filter { template: some("none"), ..Filter::default() }).await, 0);
    subject.advance(Duration::from_secs(60));
    let since = subject.clock.now();
    let submitted =
        async |since| figures.active(&Filter::default(), since).await.expect("answered").submitted;
    assert_eq!((submitted(Timestamp::default()).await, submitted(since).await), (4, 0));
    assert!(subject.store.workflow_submit(workflow(&[("first", &[])])).await.expect("stored"));
    subject.store.jobs_submit(vec![work(), work()]).await.expect("stored");
    assert_eq!((submitted(Timestamp::default()).await, submitted(since).await), (7, 3));
}

/// Roll-ups are kept for their time.
pub async fn old_minutes_are_removed(subject: &Subject) {
    let figures = subject.store.figures();
    let lead = lead(subject).await;
    some_work(subject).await;
    subject.advance(Duration::from_secs(60));
    figures.fold(&lead, minute(subject) - 1, 0, FoldLimits::default()).await.expect("folded");
    let kept = all(subject, false).await;
    let first = kept[0].minute;
    let old = kept.iter().filter(|one| one.minute == first).count();
    assert_eq!(figures.minutes_remove(&lead, first + 1, 1).await.expect("removed"), 1);
    let rest = figures.minutes_remove(&lead, first + 1, 1_000).await.expect("removed");
    assert_eq!(usize::try_from(rest).expect("few") + 1, old);
    assert_eq!(all(subject, false).await, kept[old..]);
}

/// What was found of a workflow is outdated by whatever changes its steps, and by nothing else.
pub async fn mark_of_a_workflow_follows_every_change_of_its_steps(subject: &Subject) {
    let figures = subject.store.figures();
    let new = workflow(&[("first", &[]), ("second", &[0])]);
    let id = new.id;
    let mark = async || figures.workflow_mark(id).await.expect("read");
    let nothing = mark().await;
    assert!(subject.store.workflow_submit(new).await.expect("stored"));
    let mut seen = vec![nothing, mark().await];
    let session = subject.session().await;
    // A failed attempt goes back to the queue, and the number of steps in each state is what it was before.
    let job = subject.claim_one(session).await;
    seen.push(mark().await);
    let error = JobError::new(ErrorKind::Retryable, "no");
    subject.settle(&job, Outcome::Retry { error, after: Duration::ZERO }).await;
    seen.push(mark().await);
    assert_eq!(mark().await, mark().await, "time alone changes nothing");
    let later = Due::In(Duration::from_secs(3_600));
    subject.store.job_changes().job_reschedule(job.token.job, later).await.expect("put off");
    seen.push(mark().await);
    subject
        .store
        .job_changes()
        .job_reschedule(job.token.job, Due::In(Duration::ZERO))
        .await
        .expect("put off");
    let job = subject.claim_one(session).await;
    subject.settle(&job, Outcome::Completed { output: "1".to_owned() }).await;
    seen.push(mark().await);
    let other = workflow(&[("first", &[])]);
    assert!(subject.store.workflow_submit(other).await.expect("stored"));
    assert_eq!(mark().await, seen[5], "another workflow is another one's");
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "each change is another mark: {seen:?}");
}

/// Only what has ended, and no further than is asked for.
pub async fn ended_workflows_of_a_template_are_counted_up_to_a_limit(subject: &Subject) {
    let ended = async |digest, max| subject.store.figures().workflows_ended(digest, max).await.expect("read");
    assert_eq!(ended("d1", 10).await, 0);
    for _ in 0..3 {
        run(subject, &template(), 0, 1).await;
    }
    assert!(subject.store.workflow_submit(workflow(&[("first", &[])])).await.expect("stored"));
    assert_eq!((ended("d1", 10).await, ended("d1", 2).await, ended("d2", 10).await), (3, 2, 0));
}
