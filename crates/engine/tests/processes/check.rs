//! What must hold at the end, read through a fresh connection.

use std::collections::{HashMap, HashSet};

use recache_model::ids::{JobId, SessionId, WorkflowId};
use recache_model::job::JobState;
use recache_model::view::ViewStatus;
use recache_model::workflow::WorkflowState;
use recache_store::{HistoryRow, JobFilter, JobRecord, Store};
use uuid::Uuid;

use crate::{around, work};

/// What was acknowledged, from the lines of all children.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    pub(crate) submitted: HashSet<Uuid>,
    pub(crate) outcomes: HashMap<Uuid, (String, u32, String)>,
    pub(crate) workflows: HashMap<Uuid, i64>,
    pub(crate) workflow_outcomes: HashMap<Uuid, String>,
    pub(crate) touches: HashMap<String, i64>,
    /// Job, attempt, token of each run that began.
    pub(crate) runs: Vec<(Uuid, u32, String)>,
    pub(crate) around: around::Said,
}

impl Acknowledged {
    pub(crate) fn read(lines: &[String]) -> Self {
        let mut all = Self::default();
        for line in lines {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap_or_default().to_owned();
            let kind = word();
            match kind.as_str() {
                "submit" => {
                    all.submitted.insert(word().parse().unwrap());
                }
                "outcome" => {
                    let id = word().parse().unwrap();
                    let (state, attempt) = (word(), word().parse::<u32>().unwrap());
                    all.outcomes.insert(id, (state, attempt, word()));
                }
                "workflow" => {
                    all.workflows.insert(word().parse().unwrap(), word().parse().unwrap());
                }
                "workflow-outcome" => {
                    all.workflow_outcomes.insert(word().parse().unwrap(), word());
                }
                "touch" => {
                    let (key, version) = (word(), word().parse::<i64>().unwrap());
                    let newest = all.touches.entry(key).or_default();
                    *newest = version.max(*newest);
                }
                "run" => all.runs.push((word().parse().unwrap(), word().parse().unwrap(), word())),
                kind => all.around.note(kind, word),
            }
        }
        all
    }
}

/// Every job there is.
pub(crate) async fn all_jobs(store: &dyn Store) -> HashMap<Uuid, JobRecord> {
    let mut jobs = HashMap::new();
    let mut before = None;
    loop {
        let filter = JobFilter { before, rows_max: 200, ..JobFilter::default() };
        let page = store.jobs_list(filter).await.unwrap().jobs;
        let Some(last) = page.last() else { return jobs };
        before = Some(last.id);
        jobs.extend(page.into_iter().map(|job| (job.id.uuid(), job)));
    }
}

/// Terminal once, by legal moves, densely numbered, within its attempts.
pub(crate) fn check_job(job: &JobRecord, history: &[HistoryRow]) {
    let told = || format!("{job:#?}\n{history:#?}");
    assert!(job.state.is_terminal(), "not terminal: {}", told());
    assert!(job.attempt <= job.attempts_max, "too many attempts: {}", told());
    let mut state =
        if job.step.as_ref().is_none_or(|step| step == "a") { JobState::Queued } else { JobState::Blocked };
    let (mut epoch, mut at) = (0, job.created_at);
    for (row, seq) in history.iter().zip(1..) {
        assert_eq!((row.seq, row.from), (seq, state), "{}", told());
        let legal = JobState::TRANSITIONS.iter().any(|(from, _, to)| (*from, *to) == (row.from, row.to));
        assert!(legal, "{} to {}: {}", row.from, row.to, told());
        assert!(row.epoch >= epoch, "backwards: {}", told());
        assert!(row.from != JobState::Running || row.at >= at, "ended before it began: {}", told());
        assert!(row.to != JobState::Running || row.epoch > epoch, "a claim raises the epoch: {}", told());
        assert!(row.attempt <= job.attempts_max, "{}", told());
        (state, epoch, at) = (row.to, row.epoch, row.at);
    }
    assert_eq!(state, job.state, "the history ends elsewhere: {}", told());
    assert_eq!(i64::try_from(history.len()).unwrap(), job.transitions, "{}", told());
    assert_eq!(history.iter().filter(|row| row.to.is_terminal()).count(), 1, "one outcome: {}", told());
    if job.state == JobState::Completed && ["next", "flaky"].contains(&job.handler.as_str()) {
        assert_eq!(job.output.as_deref(), Some(work::job_output(&job.input).as_str()), "{}", told());
    }
}

/// All of it. Answers all jobs.
pub(crate) async fn check_all(store: &dyn Store, said: &Acknowledged) -> HashMap<Uuid, JobRecord> {
    let jobs = check_work(store, said).await;
    around::check(store, said, &jobs).await;
    jobs
}

/// Jobs, workflows and views, where nothing went on around them. Answers all jobs.
pub(crate) async fn check_work(store: &dyn Store, said: &Acknowledged) -> HashMap<Uuid, JobRecord> {
    let jobs = all_jobs(store).await;
    for id in &said.submitted {
        assert!(jobs.contains_key(id), "acknowledged and gone: job {id}");
    }
    for job in jobs.values() {
        check_job(job, &store.job_history(job.id).await.unwrap());
    }
    for (id, (state, attempt, output)) in &said.outcomes {
        let job = &jobs[id];
        let now = (job.state.as_str(), job.attempt, job.output.as_deref().unwrap_or("-"));
        assert_eq!(now, (state.as_str(), *attempt, output.as_str()), "the outcome of {id} changed");
    }
    check_runs(&jobs, said);
    for (id, start) in &said.workflows {
        let id = WorkflowId::from_uuid(*id);
        let workflow = store.workflow_get(id).await.unwrap();
        assert_eq!(
            (workflow.state, workflow.counts.done, workflow.counts.total()),
            (WorkflowState::Completed, 4, 4)
        );
        let steps = store.workflow_steps(id).await.unwrap();
        assert!(steps.iter().all(|step| step.job.state == JobState::Completed));
        let last = steps.iter().find(|step| step.job.step.as_deref() == Some("d")).unwrap();
        assert_eq!(last.job.output, Some(work::diamond_output(*start).to_string()));
    }
    for (id, state) in &said.workflow_outcomes {
        assert_eq!(store.workflow_get(WorkflowId::from_uuid(*id)).await.unwrap().state.as_str(), state);
    }
    check_views(store, said).await;
    jobs
}

/// Every run had a token of its own, and no job more runs than attempts.
fn check_runs(jobs: &HashMap<Uuid, JobRecord>, said: &Acknowledged) {
    let mut tokens = HashSet::new();
    let mut runs: HashMap<Uuid, u32> = HashMap::new();
    for (job, attempt, token) in &said.runs {
        assert!(tokens.insert(token), "token {token} was given twice");
        assert!(*attempt <= jobs[job].attempts_max, "attempt {attempt} of {job}");
        *runs.entry(*job).or_default() += 1;
    }
    for (id, job) in jobs {
        let count = runs.get(id).copied().unwrap_or(0);
        assert!(count <= job.attempts_max, "{id} ran {count} times");
        assert!(count > 0 || job.state != JobState::Completed, "{id} completed and never ran");
    }
}

async fn check_views(store: &dyn Store, said: &Acknowledged) {
    for (key, touched) in &said.touches {
        let view = store.view_get("n", key).await.unwrap();
        let versions = view.versions;
        assert!(versions.live >= *touched, "{key}: {touched} was acknowledged: {view:#?}");
        assert_eq!((versions.status, versions.live), (ViewStatus::Completed, versions.wanted), "{view:#?}");
        assert_eq!((view.build, versions.processing, versions.due_at), (None, None, None), "{view:#?}");
        let read = store.view_read("n", key, None).await.unwrap();
        let expected: Vec<_> =
            work::items(read.version).into_iter().map(|(item, value)| (item, value.to_string())).collect();
        assert_eq!((read.version, read.items), (versions.live, expected));
        // Newest first by version; in the order of publication the versions only rise.
        let mut generations = store.generations_list(view.id, 10_000).await.unwrap();
        assert_eq!(generations.first().map(|generation| generation.version), Some(versions.live));
        generations.reverse();
        for pair in generations.windows(2) {
            assert!(pair[0].version < pair[1].version && pair[0].published_at <= pair[1].published_at);
            assert!(pair[0].replaced_at.is_some_and(|at| at >= pair[0].published_at), "{:?}", pair[0]);
        }
        for generation in &generations {
            let job = store.job_get(generation.job.expect("nobody restores here")).await.unwrap();
            assert_eq!((job.state, job.view_version), (JobState::Completed, Some(generation.version)));
        }
    }
}

/// A job as everybody may see it.
pub(crate) async fn job(store: &dyn Store, id: JobId) -> (JobRecord, Vec<HistoryRow>) {
    (store.job_get(id).await.unwrap(), store.job_history(id).await.unwrap())
}

/// The sessions that claimed a job, in order.
fn claimed_by(history: &[HistoryRow]) -> Vec<SessionId> {
    history.iter().filter(|row| row.to == JobState::Running).map(|row| row.session.unwrap()).collect()
}

/// One session claimed it, was silent, and another one completed it.
pub(crate) fn check_owner_changed(job: &JobRecord, history: &[HistoryRow]) {
    check_job(job, history);
    let owners = claimed_by(history);
    assert!(owners.len() == 2 && owners[0] != owners[1], "{history:#?}");
    assert_eq!(job.state, JobState::Completed);
}

/// It was done by a session that is neither of those that claimed the job of `earlier`.
pub(crate) fn check_done_by_another_session(job: &JobRecord, history: &[HistoryRow], earlier: &[HistoryRow]) {
    let (owner, former) = (claimed_by(history).pop().unwrap(), claimed_by(earlier));
    assert!(job.state == JobState::Completed && !former.contains(&owner), "{history:#?}");
}
