//! The real store, taken through the same steps as the model: after each of them both say the same.

use std::time::Duration;

use recache_model::ids::SessionId;
use recache_model::job::{ErrorKind, JobError};
use recache_model::retry::RetryPolicy;
use recache_model::view::OnTouch;
use recache_store::conformance::{Subject, TestDatabase};
use recache_store::{
    ClaimRequest, ClaimedJob, NewView, Outcome, Publication, Published, Settled, Settlement, StagedItem,
    Touch,
};

use crate::model::{ATTEMPTS, Answer, Step, VIEWS, WORKERS, World, policy};

/// Numbers that look like chance and are the same in every run.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

struct Real<'a> {
    subject: &'a Subject,
    /// Differs from walk to walk.
    namespace: String,
    sessions: Vec<SessionId>,
    jobs: Vec<Option<ClaimedJob>>,
    /// The version that each worker was told to make.
    begun: Vec<i64>,
}

/// One walk of at most `steps` steps.
pub(crate) async fn walk(subject: &Subject, seed: u64, on_touch: OnTouch, steps: usize) {
    let mut chance = Chance(seed);
    let mut world = World::new(3);
    let mut real = Real::new(subject, seed, on_touch).await;
    let mut taken = Vec::new();
    for _ in 0..steps {
        let possible = world.steps();
        if possible.is_empty() {
            break;
        }
        let step = possible[chance.below(possible.len())];
        taken.push(step);
        let expected = world.take(step, &policy(on_touch));
        if matches!(step, Step::Reconcile(_)) {
            // The store creates all builds that are due.
            for place in 0..VIEWS {
                if world.views[place].versions.is_due(crate::model::NOW) {
                    world.take(Step::Reconcile(place), &policy(on_touch));
                }
            }
        }
        let answer = real.take(step, &world).await;
        assert_eq!(answer, expected, "seed {seed}, after {taken:?}");
        real.compare(&world, seed, &taken).await;
    }
    real.close().await;
}

impl<'a> Real<'a> {
    async fn new(subject: &'a Subject, seed: u64, on_touch: OnTouch) -> Self {
        let namespace = format!("walk{seed}{on_touch:?}");
        for place in 0..VIEWS {
            let view = NewView {
                namespace: namespace.clone(),
                key: place.to_string(),
                handler: "build".to_owned(),
                queue: format!("{namespace}/{place}"),
                policy: policy(on_touch),
                retry: RetryPolicy { attempts_max: u32::from(ATTEMPTS), ..RetryPolicy::once() },
                timeout: None,
                rules: recache_model::item_rules::ItemRules::default(),
                options: recache_model::view_options::ViewOptions::default(),
            };
            subject.store.view_define(view).await.unwrap();
        }
        let mut real = Self {
            subject,
            namespace,
            sessions: Vec::new(),
            jobs: vec![None; WORKERS],
            begun: vec![0; WORKERS],
        };
        for _ in 0..WORKERS {
            real.sessions.push(open(subject).await);
        }
        real
    }

    fn job(&self, worker: usize) -> &ClaimedJob {
        self.jobs[worker].as_ref().expect("the model says that it has one")
    }

    async fn take(&mut self, step: Step, world: &World) -> Answer {
        let store = &self.subject.store;
        let answer = match step {
            Step::Touch(place) => {
                let touch =
                    Touch { namespace: self.namespace.clone(), key: place.to_string(), ..Touch::default() };
                let touched = store.views_touch(vec![touch]).await.unwrap();
                assert_eq!(touched[0].version, world.views[place].versions.wanted);
                true
            }
            Step::Reconcile(_) => !store.views_reconcile(100).await.unwrap().builds.is_empty(),
            Step::Claim(worker, place) => {
                let request = ClaimRequest {
                    session: self.sessions[worker],
                    queues: vec![format!("{}/{place}", self.namespace)],
                    handlers: vec!["build".to_owned()],
                    rows_max: 2,
                };
                let mut claimed = store.jobs_dispatch(Vec::new(), Some(request)).await.unwrap().claimed;
                assert!(claimed.len() <= 1, "two builds of one view");
                self.jobs[worker] = claimed.pop();
                self.jobs[worker].is_some()
            }
            Step::Begin(worker) => match store.build_begin(self.job(worker).token).await.unwrap() {
                Ok(start) => {
                    assert_eq!(Some(start.version), world.tokens[worker].and_then(|token| token.begun));
                    self.begun[worker] = start.version;
                    true
                }
                Err(_) => false,
            },
            Step::Put(worker) => {
                let token = self.job(worker).token;
                let value = Some(self.begun[worker].to_string());
                let item = StagedItem { item: "x".to_owned(), fingerprint: None, value };
                store.build_put(token, vec![item]).await.unwrap().is_none()
            }
            Step::Checkpoint(worker) => store.job_revoked(self.job(worker).token).await.unwrap().is_none(),
            Step::Publish(worker) => {
                let version = self.begun[worker];
                let publication = Publication { version, output: "{}".to_owned(), ..Publication::default() };
                let token = self.job(worker).token;
                matches!(store.build_publish(token, publication).await.unwrap(), Published::Live { .. })
            }
            Step::Fail(worker) => {
                let error = JobError::new(ErrorKind::Permanent, "no");
                let settlement = Settlement::of(self.job(worker), Outcome::Failed { error });
                let settled = store.jobs_dispatch(vec![settlement], None).await.unwrap().settled;
                settled == [Settled::Accepted]
            }
            Step::Pause(worker) | Step::Crash(worker) => {
                store.session_close(self.sessions[worker]).await.unwrap();
                self.sessions[worker] = open(self.subject).await;
                true
            }
            Step::Read(place) => {
                let read = store.view_read(&self.namespace, &place.to_string(), None).await.unwrap();
                let shown = world.views[place].shown;
                let expected = vec![("x".to_owned(), shown.to_string())];
                assert_eq!((read.version, read.items), (shown, expected), "one whole generation");
                true
            }
        };
        for worker in 0..WORKERS {
            if world.tokens[worker].is_none() {
                self.jobs[worker] = None;
            }
        }
        if answer { Answer::Done } else { Answer::Refused }
    }

    async fn compare(&self, world: &World, seed: u64, taken: &[Step]) {
        for (place, view) in world.views.iter().enumerate() {
            let record = self.subject.store.view_get(&self.namespace, &place.to_string()).await.unwrap();
            let (is, should) = (&record.versions, &view.versions);
            assert_eq!(
                (is.wanted, is.processing, is.live, is.status, is.has_build, is.due_at.is_some()),
                (
                    should.wanted,
                    should.processing,
                    should.live,
                    should.status,
                    should.has_build,
                    should.due_at.is_some()
                ),
                "view {place}, seed {seed}, after {taken:?}"
            );
            let read = self.subject.store.view_read(&self.namespace, &place.to_string(), None).await.unwrap();
            assert_eq!(read.version, view.shown, "view {place}, seed {seed}, after {taken:?}");
        }
    }

    async fn close(self) {
        for session in self.sessions {
            self.subject.store.session_close(session).await.unwrap();
        }
    }
}

async fn open(subject: &Subject) -> SessionId {
    let session = SessionId::make();
    subject.store.session_open(session, "walk", Duration::from_hours(1)).await.unwrap();
    session
}

/// Walks over one database.
pub(crate) async fn walks(database: TestDatabase, count: u64) {
    let subject = Subject::new(database).await;
    for seed in 0..count {
        for on_touch in [OnTouch::Abort, OnTouch::Finish] {
            walk(&subject, seed, on_touch, 60).await;
        }
    }
    subject.store.close().await;
}
