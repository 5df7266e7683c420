//! What the cases share: engines that only serve others, and a worker that calls as the protocol asks.

use std::time::Duration;

use recache_engine::remote::{Answer, Call, Claim, End, NewWorker, Offer, Opened, Remote, Settle, Settled};
use recache_engine::{Engine, Options};
use recache_store::conformance::TestDatabase;
use recache_store::{LeaseToken, RemoteHandler};
use recache_worker::Handlers;
use serde_json::Value;

use crate::support::{LIMIT, quick, soon, store_of};

/// Looks so seldom that what a case waits for must come by a hint.
pub(crate) fn deaf_polls() -> Options {
    Options { poll: Duration::from_secs(60), ..quick() }
}

pub(crate) async fn start(database: &TestDatabase, options: Options) -> Engine {
    Engine::builder(store_of(database).await)
        .handlers(Handlers::new())
        .options(options)
        .start()
        .await
        .unwrap()
}

pub(crate) fn new_worker(handlers: &[&str]) -> NewWorker {
    NewWorker {
        name: "elsewhere".to_owned(),
        handlers: handlers
            .iter()
            .map(|name| RemoteHandler { name: (*name).to_owned(), version: None, input_schema: None })
            .collect(),
        queues: vec!["default".to_owned()],
        namespaces: None,
        slots: 4,
        lease: LIMIT,
    }
}

/// A worker that counts its claims as the protocol asks.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) remote: Remote,
    pub(crate) opened: Opened,
    pub(crate) claims: u64,
}

impl Worker {
    pub(crate) async fn open(engine: &Engine, worker: NewWorker) -> Self {
        let remote = engine.remote();
        let opened = remote.open(worker).await.unwrap();
        Self { remote, opened, claims: 0 }
    }

    pub(crate) async fn of(engine: &Engine, handlers: &[&str]) -> Self {
        Self::open(engine, new_worker(handlers)).await
    }

    /// The same worker, served by another engine.
    pub(crate) fn at(&self, engine: &Engine) -> Self {
        Self { remote: engine.remote(), ..self.clone() }
    }

    pub(crate) async fn call(&self, call: Call) -> Answer {
        soon(self.remote.call(self.opened.session, &self.opened.secret, call)).await.unwrap()
    }

    pub(crate) fn claiming(&mut self, max: usize, wait: Duration, held: &[LeaseToken]) -> Call {
        self.claims += 1;
        let claim = Some(Claim { max, number: Some(self.claims) });
        Call { claim, wait, held: Some(held.to_vec()), ..Call::default() }
    }

    pub(crate) async fn claim(&mut self, max: usize) -> Vec<Offer> {
        let call = self.claiming(max, Duration::from_secs(20), &[]);
        let answer = self.call(call).await;
        assert!(answer.is_alive);
        answer.jobs
    }

    pub(crate) async fn settle(&self, token: LeaseToken, end: End) -> Settled {
        let answer = self.call(Call { settle: vec![Settle { token, end }], ..Call::default() }).await;
        answer.settled[0]
    }

    pub(crate) async fn beat(&self, held: &[LeaseToken]) -> Answer {
        self.call(Call { held: Some(held.to_vec()), ..Call::default() }).await
    }
}

pub(crate) fn done(value: impl Into<Value>) -> End {
    End::Completed(Value::to_string(&value.into()))
}
