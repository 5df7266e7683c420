//! Cases: schedules.

use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::JobId;
use recache_model::job::JobState;
use recache_model::schedule::{CatchUp, Overlap};
use recache_model::time::{Clock as _, Timestamp};
use uuid::Uuid;

use super::{Subject, maintenance::lead};
use crate::records::Outcome;
use crate::schedules::trace_of_tick;
use crate::{Error, Fired, JobFilter, Leadership, NewSchedule, ScheduleRecord, Word};

const HOUR: Duration = Duration::from_hours(1);

/// Every hour, on the hour.
fn hourly(name: &str) -> NewSchedule {
    NewSchedule { input: "{\"n\":1}".to_owned(), ..NewSchedule::new(name, "0 * * * *", "work") }
}

async fn put(subject: &Subject, schedule: NewSchedule) -> ScheduleRecord {
    subject.store.schedules().schedule_put(schedule).await.expect("kept")
}

async fn get(subject: &Subject, name: &str) -> ScheduleRecord {
    subject.store.schedules().schedule_get("default", name).await.expect("there")
}

async fn fire(subject: &Subject, lead: &Leadership) -> Fired {
    subject.store.schedules().schedules_fire(lead, 100, 0).await.expect("fired")
}

/// Moves time to a moment after the next hour.
fn to_next_hour(subject: &Subject) {
    let now = subject.clock.now().micros();
    let hour = 3_600_000_000;
    let next = (now.div_euclid(hour) + 1) * hour;
    subject.advance(Timestamp::from_micros(next + 1_000_000).since(Timestamp::from_micros(now)));
}

async fn state(subject: &Subject, job: JobId) -> JobState {
    subject.store.job_get(job).await.expect("there").state
}

async fn end(subject: &Subject) {
    let session = subject.session().await;
    let claimed = subject.claim_one(session).await;
    subject.settle(&claimed, Outcome::Completed { output: "1".to_owned() }).await;
}

/// Whoever tells of a tick finds its trace by the job.
pub async fn tick_begins_a_trace_where_that_is_wanted(subject: &Subject) {
    put(subject, hourly("report")).await;
    let lead = lead(subject).await;
    for (per_mille, is_traced) in [(0, false), (1_000, true)] {
        to_next_hour(subject);
        let fired = subject.store.schedules().schedules_fire(&lead, 100, per_mille).await.expect("fired");
        let job = subject.store.job_get(fired.jobs[0]).await.expect("there");
        let trace = trace_of_tick(job.id, per_mille);
        assert_eq!(job.trace_context, is_traced.then(|| trace.to_string()));
        assert!(!is_traced || trace.is_sampled());
        end(subject).await;
    }
}

/// With all that the schedule says; and not again before the next one.
pub async fn tick_that_is_due_makes_one_job(subject: &Subject) {
    let schedule = NewSchedule { priority: 7, timeout: Some(Duration::from_secs(9)), ..hourly("report") };
    let kept = put(subject, schedule.clone()).await;
    assert_eq!((kept.definition, kept.pause.is_none()), (schedule, true));
    let lead = lead(subject).await;
    assert_eq!(fire(subject, &lead).await, Fired::default(), "not yet");
    let wait = subject.store.schedules().schedules_next().await.expect("answered").expect("one waits");
    assert!(wait <= HOUR && !wait.is_zero(), "{wait:?}");
    to_next_hour(subject);
    assert_eq!(subject.store.schedules().schedules_next().await.expect("answered"), Some(Duration::ZERO));
    let fired = fire(subject, &lead).await;
    assert_eq!(fired.jobs.len(), 1);
    assert_eq!(fire(subject, &lead).await, Fired::default());
    let job = subject.store.job_get(fired.jobs[0]).await.expect("there");
    assert_eq!((job.handler.as_str(), job.input.as_str(), job.priority), ("work", "{\"n\":1}", 7));
    let record = get(subject, "report").await;
    assert_eq!((record.last_job, record.last_tick_at), (Some(fired.jobs[0]), kept.next_at));
    assert_eq!(record.next_at, kept.next_at.map(|tick| tick.plus(HOUR)));
}

/// From two processes, one of which has lost the lead; and even if the tick comes back.
pub async fn no_tick_leads_to_two_jobs(subject: &Subject) {
    put(subject, hourly("report")).await;
    let former = lead(subject).await;
    to_next_hour(subject);
    let present = lead(subject).await;
    let late = subject.store.schedules().schedules_fire(&former, 100, 0).await;
    assert!(matches!(late, Err(Error::Conflict(_))), "{late:?}");
    let second = subject.second().await;
    let mut tasks = Vec::new();
    for n in 0..8 {
        let store = if n % 2 == 0 { Arc::clone(&subject.store) } else { Arc::clone(&second) };
        let present = present.clone();
        tasks.push(tokio::spawn(async move { store.schedules().schedules_fire(&present, 100, 0).await }));
    }
    let mut jobs = 0;
    for task in tasks {
        jobs += task.await.expect("no task fails").expect("fired").jobs.len();
    }
    assert_eq!(jobs, 1);
    // Somebody sets the clock of the schedule back.
    subject.tamper("UPDATE schedules SET next_at = next_at - 3600000000").await;
    assert_eq!(fire(subject, &present).await.jobs.len(), 0, "that tick was fired");
    to_next_hour(subject);
    assert_eq!(get(subject, "report").await.ticks_skipped, 0);
    second.close().await;
}

/// Skip counts it, allow runs both, replace cancels the former.
pub async fn overlap_is_as_the_policy_says(subject: &Subject) {
    for overlap in [Overlap::Skip, Overlap::Allow, Overlap::Replace] {
        put(subject, NewSchedule { overlap, ..hourly(overlap.as_str()) }).await;
    }
    let lead = lead(subject).await;
    to_next_hour(subject);
    assert_eq!(fire(subject, &lead).await.jobs.len(), 3);
    let first = async |name| get(subject, name).await.last_job.expect("a job");
    let (skip, allow, replace) = (first("skip").await, first("allow").await, first("replace").await);
    to_next_hour(subject);
    let fired = fire(subject, &lead).await;
    assert_eq!((fired.jobs.len(), fired.skipped), (2, 1));
    let record = get(subject, "skip").await;
    assert_eq!((record.last_job, record.ticks_skipped), (Some(skip), 1));
    assert_eq!(state(subject, allow).await, JobState::Queued);
    assert_eq!(state(subject, replace).await, JobState::Cancelled);
    subject.store.job_cancel(skip, "no").await.expect("cancelled");
    to_next_hour(subject);
    assert_eq!(fire(subject, &lead).await.skipped, 0, "the former has ended");
}

/// One job for all of them, or none.
pub async fn missed_ticks_are_caught_up_as_the_policy_says(subject: &Subject) {
    for catch_up in [CatchUp::Skip, CatchUp::Once] {
        put(subject, NewSchedule { catch_up, ..hourly(catch_up.as_str()) }).await;
    }
    let due = get(subject, "once").await.next_at.expect("a tick");
    to_next_hour(subject);
    subject.advance(HOUR * 5 + Duration::from_mins(10));
    let lead = lead(subject).await;
    assert_eq!(fire(subject, &lead).await.jobs.len(), 1);
    let (skip, once) = (get(subject, "skip").await, get(subject, "once").await);
    assert_eq!((skip.last_job, once.last_tick_at), (None, Some(due.plus(HOUR * 5))));
    assert_eq!((skip.next_at, once.next_at), (Some(due.plus(HOUR * 6)), Some(due.plus(HOUR * 6))));
}

/// Ticks of the pause are gone, whatever the policy.
pub async fn paused_schedule_rests_until_it_is_resumed(subject: &Subject) {
    put(subject, NewSchedule { catch_up: CatchUp::Once, ..hourly("report") }).await;
    let schedules = subject.store.schedules();
    let word = Word::new("ops", "the month is closed");
    schedules.schedule_pause("default", "report", word.clone()).await.expect("paused");
    assert_eq!(get(subject, "report").await.pause.expect("paused").1, word);
    let lead = lead(subject).await;
    to_next_hour(subject);
    assert_eq!(schedules.schedules_next().await.expect("answered"), None);
    assert_eq!(fire(subject, &lead).await, Fired::default());
    put(subject, hourly("report")).await;
    assert!(get(subject, "report").await.pause.is_some(), "a new definition does not end a pause");
    subject.advance(HOUR * 3);
    assert!(schedules.schedule_resume("default", "report").await.expect("resumed"));
    assert!(!schedules.schedule_resume("default", "report").await.expect("answered"));
    assert_eq!(fire(subject, &lead).await, Fired::default());
    to_next_hour(subject);
    assert_eq!(fire(subject, &lead).await.jobs.len(), 1);
    let nobody = schedules.schedule_pause("default", "report", Word::new("", "")).await;
    assert!(matches!(nobody, Err(Error::Invalid(_))));
}

/// Besides its ticks, and as its overlap policy says.
pub async fn schedule_is_run_at_once_when_asked(subject: &Subject) {
    let before = put(subject, hourly("report")).await;
    let schedules = subject.store.schedules();
    let job = JobId::make();
    schedules.schedule_run("default", "report", job).await.expect("made");
    assert_eq!(state(subject, job).await, JobState::Queued);
    let record = get(subject, "report").await;
    assert_eq!((record.last_job, record.next_at, record.last_tick_at), (Some(job), before.next_at, None));
    schedules.schedule_run("default", "report", job).await.expect("made before: nothing more is done");
    let again = schedules.schedule_run("default", "report", JobId::make()).await;
    assert!(matches!(&again, Err(Error::Conflict(message)) if message.contains("overlap")), "{again:?}");
    end(subject).await;
    schedules.schedule_run("default", "report", job).await.expect("made before, and it has ended since");
    assert_eq!(get(subject, "report").await.last_job, Some(job));
    schedules.schedule_run("default", "report", JobId::make()).await.expect("the former has ended");
    put(subject, NewSchedule { overlap: Overlap::Replace, ..hourly("report") }).await;
    let third = JobId::make();
    schedules.schedule_run("default", "report", third).await.expect("made");
    assert_eq!(state(subject, third).await, JobState::Queued);
}

/// By namespace and name, page by page; a deleted one leaves its jobs.
pub async fn schedules_are_listed_changed_and_deleted(subject: &Subject) {
    let schedules = subject.store.schedules();
    for (namespace, name) in [("b", "one"), ("a", "two"), ("a", "one")] {
        put(subject, NewSchedule { namespace: namespace.to_owned(), ..hourly(name) }).await;
    }
    let names = async |namespace, after, rows_max| -> Vec<String> {
        let listed = schedules.schedules_list(namespace, after, rows_max).await.expect("listed");
        listed
            .into_iter()
            .map(|one| format!("{}/{}", one.definition.namespace, one.definition.name))
            .collect()
    };
    assert_eq!(names(None, None, 2).await, ["a/one", "a/two"]);
    assert_eq!(names(None, Some(("a".to_owned(), "two".to_owned())), 9).await, ["b/one"]);
    assert_eq!(names(Some("a"), None, 9).await, ["a/one", "a/two"]);
    let changed = NewSchedule { namespace: "a".to_owned(), cron: "30 * * * *".to_owned(), ..hourly("one") };
    put(subject, changed.clone()).await;
    assert_eq!(names(None, None, 9).await.len(), 3);
    assert_eq!(schedules.schedule_get("a", "one").await.expect("there").definition, changed);
    let job = JobId::make();
    schedules.schedule_run("a", "one", job).await.expect("made");
    schedules.schedule_delete("a", "one").await.expect("deleted");
    assert_eq!(state(subject, job).await, JobState::Queued);
    for refused in [
        schedules.schedule_delete("a", "one").await,
        schedules.schedule_get("a", "one").await.map(drop),
        schedules.schedule_run("a", "one", JobId::make()).await,
        schedules.schedule_resume("a", "one").await.map(drop),
    ] {
        assert!(matches!(refused, Err(Error::NotFound { .. })), "{refused:?}");
    }
}

/// With every reason; and nothing is kept.
pub async fn schedule_that_cannot_be_is_refused(subject: &Subject) {
    let schedules = subject.store.schedules();
    let wrong = NewSchedule {
        name: String::new(),
        zone: "Mars/Olympus".to_owned(),
        handler: String::new(),
        ..hourly("x")
    };
    let answer = schedules.schedule_put(wrong).await;
    let Err(Error::Invalid(message)) = answer else { panic!("refused: {answer:?}") };
    for reason in ["schedule", "Mars/Olympus", "handler"] {
        assert!(message.contains(reason), "{message}");
    }
    for cron in ["every day", "0 0 30 2 *"] {
        let answer = schedules.schedule_put(NewSchedule { cron: cron.to_owned(), ..hourly("x") }).await;
        assert!(matches!(&answer, Err(Error::Invalid(message)) if message.contains(cron)), "{answer:?}");
    }
    assert!(schedules.schedules_list(None, None, 9).await.expect("listed").is_empty());
}

/// A bounded number at a time.
pub async fn old_ticks_are_forgotten(subject: &Subject) {
    put(subject, NewSchedule { overlap: Overlap::Allow, ..hourly("report") }).await;
    let lead = subject
        .store
        .maintenance()
        .leader_take("test", Uuid::new_v4(), HOUR * 100)
        .await
        .expect("answered")
        .expect("nobody else leads");
    for _ in 0..4 {
        to_next_hour(subject);
        fire(subject, &lead).await;
    }
    let remove = async || subject.store.schedules().ticks_remove(&lead, HOUR, 2).await.expect("answered");
    assert_eq!((remove().await, remove().await, remove().await), (2, 1, 0));
    let filter = JobFilter { rows_max: 10, ..JobFilter::default() };
    assert_eq!(subject.store.jobs_list(filter).await.expect("listed").jobs.len(), 4);
}
