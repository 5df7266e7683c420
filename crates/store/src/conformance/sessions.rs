//! Cases: leases.

use std::time::Duration;

use recache_model::ids::SessionId;
use recache_model::job::{ErrorKind, JobState};

use super::{Subject, work};
use crate::records::{NewJob, Outcome, Revoked, Settled};

const LEASE: Duration = Duration::from_secs(10);
const LONGER: Duration = Duration::from_secs(11);

fn completed() -> Outcome {
    Outcome::Completed { output: "1".to_owned() }
}

/// One renewal keeps all that the session holds.
pub async fn beating_session_keeps_its_jobs(subject: &Subject) {
    subject.store.jobs_submit(vec![work(), work()]).await.expect("stored");
    let session = subject.session().await;
    let jobs = subject.claim(session, 2).await;
    for _ in 0..5 {
        subject.advance(LEASE / 2);
        let held = jobs.iter().map(|job| job.token).collect();
        let beat = subject.store.session_beat(session, LEASE, held).await.expect("answered");
        assert!(beat.known && beat.revoked.is_empty());
        let swept = subject.store.sessions_sweep(100).await.expect("swept");
        assert_eq!((swept.requeued, swept.failed), (0, 0));
    }
    assert_eq!(subject.settle(&jobs[0], completed()).await, Settled::Accepted);
}

/// The job of a worker that stopped beating runs elsewhere; the first worker's word no longer counts.
pub async fn expired_lease_returns_job_to_queue(subject: &Subject) {
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let (dead, alive) = (subject.session().await, subject.session().await);
    let job = subject.claim_one(dead).await;
    subject.advance(LONGER);
    subject.store.session_open(alive, "test", LEASE).await.expect("opened");
    let swept = subject.store.sessions_sweep(100).await.expect("swept");
    assert_eq!((swept.requeued, swept.failed), (1, 0));
    let again = subject.claim_one(alive).await;
    assert_eq!((again.token.job, again.attempt), (job.token.job, 2));
    assert_eq!(subject.settle(&job, completed()).await, Settled::Refused(Revoked::TakenOver));
    assert_eq!(subject.settle(&again, completed()).await, Settled::Accepted);
    assert_eq!(subject.settle(&job, completed()).await, Settled::Refused(Revoked::Finished));
}

/// A job that kills its workers does not do so for ever.
pub async fn expired_lease_without_attempts_left_fails_the_job(subject: &Subject) {
    let mut new = NewJob { ..work() };
    new.retry.attempts_max = 1;
    subject.store.jobs_submit(vec![new.clone()]).await.expect("stored");
    let session = subject.session().await;
    let job = subject.claim_one(session).await;
    subject.advance(LONGER);
    let swept = subject.store.sessions_sweep(100).await.expect("swept");
    assert_eq!((swept.requeued, swept.failed), (0, 1));
    let record = subject.store.job_get(new.id).await.expect("there");
    assert_eq!(record.state, JobState::Failed);
    assert_eq!(record.error.map(|error| error.kind), Some(ErrorKind::LeaseLost));
    assert_eq!(subject.settle(&job, completed()).await, Settled::Refused(Revoked::Finished));
}

/// A token is good until it is taken away, not until a clock says so.
pub async fn outcome_of_an_outage_longer_than_the_lease_is_kept_if_nobody_took_over(subject: &Subject) {
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let session = subject.session().await;
    let job = subject.claim_one(session).await;
    subject.advance(LONGER * 100);
    assert_eq!(subject.settle(&job, completed()).await, Settled::Accepted);
}

/// The answer to a beat is the news for the worker.
pub async fn beat_names_what_was_lost(subject: &Subject) {
    subject.store.jobs_submit((0..3).map(|_| work()).collect()).await.expect("stored");
    let session = subject.session().await;
    let jobs = subject.claim(session, 3).await;
    subject.store.job_cancel(jobs[1].token.job, "enough").await.expect("cancelled");
    subject.settle(&jobs[2], completed()).await;
    let held = jobs.iter().map(|job| job.token).collect();
    let beat = subject.store.session_beat(session, LEASE, held).await.expect("answered");
    assert!(beat.known);
    assert_eq!(
        beat.revoked,
        [(jobs[1].token.job, Revoked::Cancelled), (jobs[2].token.job, Revoked::Finished)]
    );
}

/// An orderly end returns the jobs at once.
pub async fn closed_session_hands_its_jobs_back(subject: &Subject) {
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let (leaving, staying) = (subject.session().await, subject.session().await);
    let job = subject.claim_one(leaving).await;
    subject.store.session_close(leaving).await.expect("closed");
    assert_eq!(subject.claim_one(staying).await.token.job, job.token.job);
    assert_eq!(subject.settle(&job, completed()).await, Settled::Refused(Revoked::TakenOver));
}

/// A worker that slept too long learns it.
pub async fn swept_session_is_unknown_to_its_beat(subject: &Subject) {
    let session = subject.session().await;
    subject.advance(LONGER);
    assert_eq!(subject.store.sessions_sweep(100).await.expect("swept").sessions, 1);
    assert!(!subject.store.session_beat(session, LEASE, Vec::new()).await.expect("answered").known);
}

/// Whoever sweeps can come when it is time.
pub async fn sweep_tells_when_the_next_lease_ends(subject: &Subject) {
    assert_eq!(subject.store.sessions_sweep(100).await.expect("swept").next_in, None);
    subject.session().await;
    subject.advance(LEASE / 4);
    let beating = subject.session().await;
    assert_eq!(subject.store.sessions_sweep(100).await.expect("swept").next_in, Some(LEASE * 3 / 4));
    // At its end it is dead, and the next one counts.
    subject.advance(LEASE * 3 / 4);
    let swept = subject.store.sessions_sweep(100).await.expect("swept");
    assert_eq!((swept.sessions, swept.next_in), (1, Some(LEASE / 4)));
    subject.store.session_beat(beating, LEASE, Vec::new()).await.expect("answered");
    assert_eq!(subject.store.sessions_sweep(100).await.expect("swept").next_in, Some(LEASE));
}

/// What it took would only be taken away again, at the cost of an attempt.
pub async fn session_that_is_not_alive_claims_nothing(subject: &Subject) {
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let silent = subject.session().await;
    subject.advance(LEASE);
    for session in [SessionId::make(), silent] {
        assert!(subject.claim_without_beat(session, 1).await.is_empty());
    }
    // It was not swept yet: a beat is all that it takes.
    subject.store.session_beat(silent, LEASE, Vec::new()).await.expect("answered");
    assert_eq!(subject.claim_without_beat(silent, 1).await.len(), 1);
}

/// Two stores over one database are one store.
pub async fn two_processes_see_each_others_jobs(subject: &Subject) {
    let second = subject.second().await;
    let new = work();
    second.jobs_submit(vec![new.clone()]).await.expect("stored");
    let session = subject.session().await;
    let job = subject.claim_one(session).await;
    assert_eq!(job.token.job, new.id);
    assert_eq!(second.job_cancel(new.id, "from elsewhere").await.expect("cancelled").0, JobState::Cancelled);
    assert_eq!(subject.settle(&job, completed()).await, Settled::Refused(Revoked::Cancelled));
    second.close().await;
}

/// A claim whose answer was lost does not leave jobs with a session that beats on without them.
pub async fn job_that_its_session_does_not_know_is_handed_back(subject: &Subject) {
    subject.store.jobs_submit(vec![work(), work()]).await.expect("stored");
    let session = subject.session().await;
    let jobs = subject.claim(session, 2).await;
    let known = vec![jobs[0].token.job];
    assert_eq!(subject.store.session_reclaim(session, known.clone()).await.expect("answered"), 1);
    assert_eq!(subject.store.session_reclaim(session, known).await.expect("answered"), 0);
    assert_eq!(subject.claim_one(session).await.token.job, jobs[1].token.job);
    assert_eq!(subject.settle(&jobs[0], completed()).await, Settled::Accepted);
    assert_eq!(subject.settle(&jobs[1], completed()).await, Settled::Refused(Revoked::TakenOver));
}

/// Whoever ends it may have looked at the clock before the claim did, and waited for it since.
pub async fn job_never_ends_before_it_began(subject: &Subject) {
    let new = work();
    subject.store.jobs_submit(vec![new.clone()]).await.expect("stored");
    let session = subject.session().await;
    subject.claim_one(session).await;
    let behind = subject.second_behind(Duration::from_secs(1)).await;
    behind.job_cancel(new.id, "not wanted").await.expect("answered");
    let record = behind.job_get(new.id).await.expect("there");
    assert!(record.finished_at >= record.started_at, "{record:#?}");
    let history = behind.job_history(new.id).await.expect("there");
    assert!(history[1].at >= history[0].at, "{history:#?}");
    behind.close().await;
}
