//! An attempt that runs beside the test.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::task::JoinHandle;

use super::ended::{Ended, Settlement};
use super::job::{Build, Existing, TestJob};
use super::link::{Said, TestLink};
use super::reported::Reported;
use crate::build::{BuildContext, BuildSource, BuildSummary};
use crate::context::Context;
use crate::failure::Failure;
use crate::handlers::{Builder, Handlers, Registered};
use crate::known::KnownItem;
use crate::limits::within_limits;
use crate::stop::{Stop, StopSignal};

/// How an attempt ended well.
#[derive(Debug)]
pub(super) enum Done {
    Result(Value),
    Built(BuildSummary),
}

/// An attempt that was [started](TestJob::start).
///
/// ```
/// use recache_worker::testing::{Settlement, TestJob};
/// use recache_worker::{Context, Failure, Handlers, Stop};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let mut handlers = Handlers::new();
/// handlers.job("listen", async |context: Context, (): ()| {
///     context.log("listening").await?;
///     let why = context.stopped().await;
///     Err::<(), _>(Failure::Stopped(why))
/// })?;
/// let running = TestJob::new("listen").start(&handlers);
/// assert!(running.until(|said| said.log == ["listening"]).await);
/// running.stop(Stop::Shutdown);
/// let ended = running.end().await;
/// assert_eq!(ended.settlement, Settlement::Stopped(Stop::Shutdown));
/// // Another worker runs the same attempt again.
/// assert!(ended.next_attempt().is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Running {
    job: TestJob,
    link: Arc<TestLink>,
    stop: StopSignal,
    work: JoinHandle<Result<Done, Failure>>,
}

impl Running {
    pub(super) fn start(job: TestJob, handlers: Handlers) -> Self {
        let stop = StopSignal::new();
        let link = Arc::new(TestLink::new(&job, stop.clone()));
        let attempt = Attempt { job: job.clone(), link: Arc::clone(&link), stop: stop.clone() };
        let work = tokio::spawn(async move {
            let result = attempt.within_limits(&handlers).await;
            attempt.link.said.send_modify(|said| said.has_ended = true);
            result
        });
        Self { job, link, stop, work }
    }

    /// Tells the handler to stop: it was cancelled, a newer version is wanted, … The first reason stands.
    pub fn stop(&self, why: Stop) {
        self.stop.stop(why);
    }

    /// What it has reported up to now.
    pub fn reported(&self) -> Reported {
        self.link.reported()
    }

    /// Waits until it has reported what `when` looks for. False: it ended without.
    pub async fn until(&self, when: impl Fn(&Reported) -> bool) -> bool {
        let mut said = self.link.said.subscribe();
        let found = said.wait_for(|said: &Said| said.has_ended || when(&said.reported)).await;
        found.is_ok_and(|said| when(&said.reported))
    }

    /// Waits for its end.
    pub async fn end(self) -> Ended {
        let result = match self.work.await {
            Ok(result) => result,
            // Nobody else ends the task but the runtime when it goes away.
            Err(error) => Err(Failure::retryable(error)),
        };
        let settlement = Settlement::of(&self.job, result, self.stop.reason(), &self.link.reported());
        Ended { settlement, reported: self.link.reported(), job: self.job }
    }
}

struct Attempt {
    job: TestJob,
    link: Arc<TestLink>,
    stop: StopSignal,
}

impl Attempt {
    async fn within_limits(&self, handlers: &Handlers) -> Result<Done, Failure> {
        let late = async {
            match self.job.timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
            self.stop.stop(Stop::Timeout);
            std::future::pending().await
        };
        tokio::select! {
            result = within_limits(self.work(handlers), &self.stop, self.job.grace, |_| {}) => result,
            never = late => never,
        }
    }

    async fn work(&self, handlers: &Handlers) -> Result<Done, Failure> {
        if let Some(problem) = &self.job.problem {
            return Err(Failure::permanent("invalid_test", problem));
        }
        let (call, name) = (self.job.call(), self.job.claimed_as(handlers));
        let is_call = call.method.is_some() || self.job.facts.step.is_some() || name.starts_with('@');
        let registered = handlers
            .find(&name, Some(&call).filter(|_| is_call))
            .map_err(|not_found| Failure::permanent(not_found.code, not_found.message))?;
        let link = Arc::<TestLink>::clone(&self.link);
        let context = Context::new(self.job.facts.clone(), self.stop.clone(), link);
        match (registered, &self.job.build) {
            (Registered::Job(handler), _) => {
                handler.run(context, self.job.input.clone()).await.map(Done::Result)
            }
            (Registered::View(builder), Some(build)) => self.build(&builder, build, context).await,
            (Registered::View(_), None) => {
                let why = format!(
                    "handler `{}` builds views; `TestJob::view` says which one",
                    self.job.facts.handler
                );
                Err(Failure::permanent("not_a_view", why))
            }
        }
    }

    async fn build(
        &self,
        builder: &Arc<dyn Builder>,
        build: &Build,
        context: Context,
    ) -> Result<Done, Failure> {
        let source = BuildSource {
            namespace: self.job.facts.namespace.clone(),
            key: build.key.clone(),
            version: build.version,
            live_version: build.live_version,
            touched: build.touched.clone(),
            live: known_items(&build.live),
            staged: known_items(&build.staged),
            pages: None,
            put_keys_max: usize::MAX,
        };
        let building = BuildContext::new(context, source);
        match builder.build(building.clone()).await {
            Ok(()) => building.finish().await.map(Done::Built),
            Err(failure) => {
                // What is ready may serve the next build.
                let _ = building.flush().await;
                Err(failure)
            }
        }
    }
}

fn known_items(items: &BTreeMap<String, Existing>) -> Vec<KnownItem> {
    let known = |(item, existing): (&String, &Existing)| KnownItem {
        key: item.clone(),
        fingerprint: existing.fingerprint.clone(),
        is_gone: false,
    };
    items.iter().map(known).collect()
}
