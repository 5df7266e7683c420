//! Cases: lists of jobs.

use recache_model::ids::{BatchId, JobId};
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::time::Timestamp;
use uuid::Uuid;

use super::{Subject, work};
use crate::records::{JOBS_LOOKED_AT_MAX, JobFilter, JobPage, JobRecord, NewJob, Outcome};
use crate::{BulkJobChange, NewBatch};

const BASE_MS: i64 = 1_700_000_000_000;

async fn list(subject: &Subject, filter: JobFilter) -> JobPage {
    subject.store.jobs_list(filter).await.expect("listed")
}

fn ids(jobs: &[JobRecord]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id).collect()
}

/// The id of a job that was made so many milliseconds after the base.
fn made_at(ms: i64) -> JobId {
    let time = u128::try_from(BASE_MS + ms).expect("after 1970");
    JobId::from_uuid(Uuid::from_u128(time << 80 | 0x7000_8000_0000_0000_0001))
}

fn after_base(ms: i64) -> Timestamp {
    Timestamp::from_micros((BASE_MS + ms) * 1_000)
}

/// Lists are bounded, ordered and can be continued; the last page is known as such even where it is full.
pub async fn jobs_are_listed_newest_first_by_page(subject: &Subject) {
    let jobs: Vec<NewJob> = (0..5).map(|_| work()).collect();
    subject.store.jobs_submit(jobs.clone()).await.expect("stored");
    let page = list(subject, JobFilter { rows_max: 2, ..JobFilter::default() }).await;
    assert_eq!(ids(&page.jobs), [jobs[4].id, jobs[3].id]);
    assert_eq!(page.next, Some(jobs[3].id));
    let rest = list(subject, JobFilter { rows_max: 3, before: page.next, ..JobFilter::default() }).await;
    assert_eq!(ids(&rest.jobs), [jobs[2].id, jobs[1].id, jobs[0].id]);
    assert_eq!(rest.next, None);
}

/// Forty jobs in every state there can be without views and workflows, of two namespaces, queues, handlers, batches and correlation ids.
async fn varied(subject: &Subject) -> (Vec<JobRecord>, [BatchId; 2]) {
    let store = &subject.store;
    let batches = [NewBatch::new("a"), NewBatch::new("b")];
    let of_batch = batches.each_ref().map(|batch| batch.id);
    for batch in batches {
        store.batches().batch_create(batch).await.expect("created");
    }
    let jobs: Vec<NewJob> = (0..40_usize)
        .map(|n| NewJob {
            id: made_at(i64::try_from(n).expect("few") * 10),
            namespace: ["default", "shop"][usize::from(n % 5 == 4)].to_owned(),
            handler: ["work", "build"][usize::from(n % 7 == 3)].to_owned(),
            queue: ["default", "mail"][usize::from(n % 4 == 3)].to_owned(),
            batch: [None, Some(of_batch[0]), Some(of_batch[1])][n % 3].filter(|_| n % 5 != 4),
            correlation_id: format!("order-{}", n % 2),
            ..work()
        })
        .collect();
    let all: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    store.jobs_submit(jobs).await.expect("stored");
    let session = subject.session().await;
    for (place, job) in subject.claim(session, 20).await.into_iter().enumerate() {
        let failed = Outcome::Failed { error: JobError::new(ErrorKind::Permanent, "no") };
        match place % 4 {
            0 => {}
            1 => drop(subject.settle(&job, failed).await),
            _ => drop(subject.settle(&job, Outcome::Completed { output: "1".to_owned() }).await),
        }
    }
    for job in all.iter().rev().take(6).step_by(2) {
        store.job_cancel(*job, "no").await.expect("cancelled");
    }
    let mut records = Vec::new();
    for job in all.iter().rev() {
        records.push(store.job_get(*job).await.expect("there"));
    }
    for state in
        [JobState::Queued, JobState::Running, JobState::Completed, JobState::Failed, JobState::Cancelled]
    {
        assert!(records.iter().filter(|job| job.state == state).count() >= 3, "enough are {state}");
    }
    (records, of_batch)
}

/// Whatever is combined: exactly the jobs of the filter, newest first, each on one page.
pub async fn lists_hold_what_their_filter_says(subject: &Subject) {
    let (records, [batch, other]) = varied(subject).await;
    let mut found_some = 0;
    for state in JobState::ALL.map(Some).into_iter().chain([None]) {
        for of in [None, Some(batch), Some(other), Some(BatchId::make())] {
            for mask in 0..32_u32 {
                let is_on = |bit: u32| mask & (1 << bit) != 0;
                let text = |bit: u32, text: &str| is_on(bit).then(|| text.to_owned());
                let mut filter = JobFilter {
                    state,
                    batch: of,
                    namespace: text(0, "default"),
                    queue: text(1, "default"),
                    handler: text(2, "work"),
                    correlation_id: text(3, "order-1"),
                    // Not to the millisecond, so that the bounds are rounded.
                    created_from: is_on(4).then(|| Timestamp::from_micros(after_base(49).micros() + 1)),
                    created_before: is_on(4).then(|| after_base(350)),
                    before: None,
                    rows_max: 3,
                };
                let is_wanted = |job: &&JobRecord| {
                    let is = |wanted: &Option<String>, has: &String| {
                        wanted.as_ref().is_none_or(|text| text == has)
                    };
                    filter.state.is_none_or(|state| state == job.state)
                        && filter.batch.is_none_or(|batch| Some(batch) == job.batch)
                        && is(&filter.namespace, &job.namespace)
                        && is(&filter.queue, &job.queue)
                        && is(&filter.handler, &job.handler)
                        && is(&filter.correlation_id, &job.correlation_id)
                        && (!is_on(4) || (made_at(50) <= job.id && job.id < made_at(350)))
                };
                let wanted: Vec<JobId> = records.iter().filter(is_wanted).map(|job| job.id).collect();
                let mut found = Vec::new();
                loop {
                    let page = list(subject, filter.clone()).await;
                    assert!(page.jobs.len() <= 3, "{filter:?}");
                    found.extend(ids(&page.jobs));
                    filter.before = page.next;
                    if page.next.is_none() {
                        break;
                    }
                }
                assert_eq!(found, wanted, "{filter:?}");
                found_some += usize::from(!wanted.is_empty());
                if state == Some(JobState::Queued) && of != Some(batch) {
                    // What is changed by filter is chosen likewise.
                    let all = JobFilter { before: None, rows_max: 100, ..filter };
                    let count = subject.store.bulk_jobs().jobs_count(all, BulkJobChange::Cancel).await;
                    assert_eq!(count.expect("counted"), u64::try_from(wanted.len()).expect("few"));
                }
            }
        }
    }
    assert!(found_some > 100, "{found_some}");
}

/// A page costs the same wherever the jobs of its filter are: it may end empty, and says where the next one goes on.
pub async fn page_that_passes_too_many_others_ends_early_and_is_gone_on_from(subject: &Subject) {
    let rare = NewJob { handler: "rare".to_owned(), ..work() };
    subject.store.jobs_submit(vec![rare.clone()]).await.expect("stored");
    let mut left = JOBS_LOOKED_AT_MAX + 1_000;
    while left > 0 {
        let some = left.min(2_000);
        subject.store.jobs_submit((0..some).map(|_| work()).collect()).await.expect("stored");
        left -= some;
    }
    let filter = |before| JobFilter {
        handler: Some("rare".to_owned()),
        state: Some(JobState::Queued),
        before,
        rows_max: 10,
        ..JobFilter::default()
    };
    let first = list(subject, filter(None)).await;
    assert!(first.jobs.is_empty() && first.next.is_some(), "{first:?}");
    let second = list(subject, filter(first.next)).await;
    assert_eq!((ids(&second.jobs), second.next), (vec![rare.id], None));
    // With an index that knows it nothing is passed.
    let cancelled = JobFilter { state: Some(JobState::Cancelled), ..filter(None) };
    assert_eq!(list(subject, cancelled).await.next, None);
    let batch = JobFilter { batch: Some(BatchId::make()), ..filter(None) };
    assert_eq!(list(subject, batch).await.next, None);
}
