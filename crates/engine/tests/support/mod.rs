//! What the tests of this crate share: databases, quick options, waiting for a condition.

#![allow(dead_code, reason = "each test program uses its part")]

mod faulty;

use std::sync::Arc;
use std::time::Duration;

use recache_engine::Options;
use recache_model::ids::WorkflowId;
use recache_model::lifecycle::TimeLimits;
use recache_model::retry::{Backoff, RetryPolicy};
use recache_model::view::ViewPolicy;
use recache_store::conformance::TestDatabase;
use recache_store::{NewJob, NewStep, NewView, NewWorkflow, OpenOptions, Store, TemplateRecord, Touch, open};

#[allow(unused_imports, reason = "each test program uses its part")]
pub(crate) use faulty::Faulty;

/// Nothing here takes this long, even where other programs want both cores.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Runs each case on SQLite and on PostgreSQL.
#[macro_export]
macro_rules! on_both_databases {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(recache_store::conformance::sqlite_database()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(database) = recache_store::conformance::postgres_database().await {
                    super::$case(database).await;
                }
            })*
        }
    };
}

pub(crate) async fn store_of(database: &TestDatabase) -> Arc<dyn Store> {
    open(&OpenOptions::new(database.url())).await.unwrap()
}

/// Looks often, ends soon. The lease is long: a busy machine must not cost a session by chance.
pub(crate) fn quick() -> Options {
    Options {
        slots: 4,
        lease: Duration::from_secs(10),
        beat: Duration::from_millis(100),
        sweep: Duration::from_millis(100),
        poll: Duration::from_millis(200),
        drain: Duration::from_secs(10),
        grace: Duration::from_millis(200),
        view_head_fresh: Duration::ZERO,
        ..Options::default()
    }
}

/// Tries again soon and without chance.
pub(crate) fn retries(attempts_max: u32, base_ms: u64) -> RetryPolicy {
    RetryPolicy { attempts_max, backoff: Backoff::Exponential, base_ms, cap_ms: 60_000, jitter: 0.0 }
}

/// Builds at once.
pub(crate) fn at_once() -> ViewPolicy {
    ViewPolicy { debounce_quiet_ms: 0, debounce_max_ms: 0, ..ViewPolicy::default() }
}

/// A workflow of steps of the handler `work`, one after the other, whose template has this name.
pub(crate) fn chain(template: &str, steps: &[&str]) -> NewWorkflow {
    let steps = steps.iter().enumerate().map(|(place, name)| {
        NewStep::new(*name, NewJob::new("work", "{}"), place.checked_sub(1).into_iter().collect())
    });
    NewWorkflow {
        id: WorkflowId::make(),
        template: TemplateRecord {
            digest: "d".to_owned(),
            namespace: "default".to_owned(),
            name: template.to_owned(),
            version: "1.0.0".to_owned(),
            content: "{}".to_owned(),
        },
        template_raise: None,
        environment: None,
        limits: TimeLimits::default(),
        takes_over: None,
        input: "{}".to_owned(),
        correlation_id: "c".to_owned(),
        steps: steps.collect(),
    }
}

pub(crate) fn view(key: &str, handler: &str, policy: ViewPolicy) -> NewView {
    NewView {
        namespace: "n".to_owned(),
        key: key.to_owned(),
        handler: handler.to_owned(),
        queue: "default".to_owned(),
        policy,
        retry: RetryPolicy::once(),
        timeout: None,
        rules: recache_model::item_rules::ItemRules::default(),
        options: recache_model::view_options::ViewOptions::default(),
    }
}

pub(crate) fn touch(key: &str, items: &[&str]) -> Touch {
    Touch {
        namespace: "n".to_owned(),
        key: key.to_owned(),
        items: items.iter().map(|item| (*item).to_owned()).collect(),
        ..Touch::default()
    }
}

/// Waits until `look` finds something; says what it waited for when it never comes.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(LIMIT, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// The future's result, within [`LIMIT`].
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it ends in time")
}
