//! The loop of a remote worker: one call that says what ended, asks for more, and waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use recache_api::{
    Json, RegisterWorker, WorkerAnswer, WorkerCall, WorkerClaim, WorkerDone, WorkerEnd, WorkerHandler,
    WorkerJob, WorkerSession, WorkerStopReason,
};
use reqwest::Method;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::Attempt;
use super::client::{Client, Session};
use super::{RemoteError, ServerOptions};
use crate::handlers::{Description, Handlers};
use crate::stop::{Stop, StopSignal};

/// Ends of one call.
const ENDS_MAX: usize = 1_000;
/// No more ends are taken into a call whose results have so many bytes.
const ENDS_BYTES: usize = 1024 * 1024;

/// How long a worker that is to end goes on trying to tell what is left, after its handlers have had their time.
const GOODBYE_WITHIN: Duration = Duration::from_secs(5);

/// The jobs that the worker holds; a token is here until its end was answered.
#[derive(Debug, Default)]
struct Held(Mutex<HashMap<String, StopSignal>>);

impl Held {
    fn jobs(&self) -> MutexGuard<'_, HashMap<String, StopSignal>> {
        // A panic elsewhere cannot leave a map of plain values half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self, token: &str) {
        self.jobs().remove(token);
    }
}

/// Handlers that are to run against servers.
#[derive(Debug)]
pub struct RemoteWorker {
    client: Arc<Client>,
    handlers: Arc<Handlers>,
    options: ServerOptions,
    held: Arc<Held>,
    /// What has ended and is to be said.
    ended: mpsc::UnboundedSender<(String, Option<WorkerEnd>)>,
    ends: mpsc::UnboundedReceiver<(String, Option<WorkerEnd>)>,
}

impl RemoteWorker {
    /// Refuses options that cannot work, with every reason.
    pub fn new(handlers: Handlers, options: ServerOptions) -> Result<Self, RemoteError> {
        let mut problems = Vec::new();
        if options.servers.is_empty() {
            problems.push("no server is named".to_owned());
        }
        for server in &options.servers {
            if server.contains(['@', '?']) {
                // Not repeated: it may hold a password.
                problems.push(
                    "a server's URL must hold neither a user nor a query; a token is given apart".to_owned(),
                );
            } else if !server.starts_with("http://") && !server.starts_with("https://") {
                problems.push(format!("server `{server}`: a URL begins with http:// or https://"));
            }
        }
        if handlers.names().is_empty() {
            problems.push("there are no handlers".to_owned());
        }
        if let Some(name) = handlers.publisher_names().first() {
            problems.push(format!(
                "publisher `{name}` would never be asked: payloads of events are made where the database is reached; register it in a \
                 program with the engine, or give the server its URL in `handlers.publishers`"
            ));
        }
        if options.slots == 0 || options.slots > 10_000 {
            problems.push(format!("slots is {}; it must be 1 to 10000", options.slots));
        }
        if !problems.is_empty() {
            return Err(RemoteError::Invalid(problems.join("; ")));
        }
        // Bounded by the number of held jobs, which claiming bounds.
        let (ended, ends) = mpsc::unbounded_channel();
        Ok(Self {
            client: Arc::new(Client::new(&options)?),
            handlers: Arc::new(handlers),
            options,
            held: Arc::default(),
            ended,
            ends,
        })
    }

    /// Runs until `stop` is cancelled: then it claims no more, lets running handlers go on for [`ServerOptions::drain`], hands back what is
    /// left then, and ends its session. Ends earlier only when the server refuses it. Where no server can be reached it ends
    /// all the same, five seconds after drain and grace at the latest; its jobs run again when their lease has passed.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RemoteError> {
        let within = self.options.drain + self.options.grace + GOODBYE_WITHIN;
        let held = Arc::clone(&self.held);
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(within).await;
        };
        tokio::select! {
            ended = self.work(&stop) => ended,
            () = late => {
                let jobs = held.jobs();
                jobs.values().for_each(|signal| signal.stop(Stop::Shutdown));
                Err(RemoteError::Unheard { jobs: jobs.len() })
            }
        }
    }

    async fn work(mut self, stop: &CancellationToken) -> Result<(), RemoteError> {
        let Some(mut session) = self.register_unless(stop).await? else { return Ok(()) };
        let mut claims = 0;
        let mut settling = JoinSet::new();
        let mut drained_by = None;
        loop {
            if stop.is_cancelled() {
                let by = *drained_by.get_or_insert_with(|| Instant::now() + self.options.drain);
                if Instant::now() >= by {
                    self.held.jobs().values().for_each(|signal| signal.stop(Stop::Shutdown));
                }
                if self.held.jobs().is_empty() {
                    break;
                }
            }
            claims += 1;
            let call = self.call(claims, drained_by.is_none());
            let answer = self.ask(&session, call, stop, drained_by, &mut settling).await?;
            let Some(answer) = answer else {
                // Given up to begin to drain: its number is used again, and what it brought is brought again.
                claims -= 1;
                continue;
            };
            if !answer.alive {
                tracing::warn!(
                    "the session has ended: the server heard nothing of this worker for its lease"
                );
                self.held.jobs().values().for_each(|signal| signal.stop(Stop::LeaseLost));
                self.held.jobs().clear();
                let Some(next) = self.register_unless(stop).await? else { return Ok(()) };
                session = next;
                claims = 0;
                continue;
            }
            for stopped in answer.stop {
                let held = self.held.jobs().get(&stopped.token).cloned();
                if let Some(signal) = held {
                    signal.stop(stop_of(stopped.reason));
                }
            }
            for job in answer.jobs {
                self.start(&session, job);
            }
            if answer.draining {
                // Another server, or the successor of this one, is a moment away.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let goodbye = async {
            while settling.join_next().await.is_some() {}
            self.client.send(Method::DELETE, &session.path, Some(&session), &(), Duration::ZERO).await
        };
        let Ok(told) = tokio::time::timeout(GOODBYE_WITHIN, goodbye).await else {
            tracing::warn!(
                "no server could be told that the worker ends; it is forgotten when its lease has passed"
            );
            return Ok(());
        };
        told.map(|WorkerDone { .. }| ())
    }

    /// `None`: the worker is to stop, and holds nothing.
    async fn register_unless(&self, stop: &CancellationToken) -> Result<Option<Session>, RemoteError> {
        tokio::select! {
            session = self.register() => session.map(Some),
            () = stop.cancelled() => Ok(None),
        }
    }

    async fn register(&self) -> Result<Session, RemoteError> {
        let options = &self.options;
        let worker = RegisterWorker {
            name: options.name.clone(),
            handlers: self
                .handlers
                .names()
                .into_iter()
                .map(|name| {
                    let Description { version, input_schema } = self.handlers.description(&name);
                    let input_schema =
                        input_schema.and_then(|schema| Json::from_text(&schema.to_string()).ok());
                    WorkerHandler { name, version, input_schema }
                })
                .collect(),
            queues: options.queues.clone(),
            namespaces: options.namespaces.clone(),
            slots: u32::try_from(options.slots).unwrap_or(u32::MAX),
            lease_ms: Some(u64::try_from(options.lease.as_millis()).unwrap_or(u64::MAX)),
        };
        let opened: WorkerSession =
            self.client.send(Method::POST, "/v1/workers", None, &worker, Duration::ZERO).await?;
        tracing::info!(session = opened.session, "registered");
        Ok(Session::of(&opened))
    }

    /// What has ended up to now, and room for the rest.
    fn call(&mut self, number: u64, claims: bool) -> WorkerCall {
        let mut settle = Vec::new();
        let mut bytes = 0;
        while settle.len() < ENDS_MAX
            && bytes < ENDS_BYTES
            && let Ok((token, end)) = self.ends.try_recv()
        {
            match end {
                Some(end) => {
                    bytes += end.output.as_ref().map_or(0, |output| output.text().len());
                    settle.push(end);
                }
                None => self.held.free(&token),
            }
        }
        let held: Vec<String> = {
            let jobs = self.held.jobs();
            jobs.keys().filter(|token| !settle.iter().any(|end| end.token == **token)).cloned().collect()
        };
        let room = if claims { self.options.slots.saturating_sub(held.len()) } else { 0 };
        let claim = WorkerClaim { max: u32::try_from(room).unwrap_or(u32::MAX), number: Some(number) };
        let wait = self.options.lease / 3;
        WorkerCall {
            held: Some(held),
            settle,
            claim: Some(claim),
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            ..WorkerCall::default()
        }
    }

    /// Sends the call and, while it waits, says at once what ends meanwhile. `None`: it was given up, because the worker is to stop.
    async fn ask(
        &mut self,
        session: &Session,
        call: WorkerCall,
        stop: &CancellationToken,
        drained_by: Option<Instant>,
        settling: &mut JoinSet<()>,
    ) -> Result<Option<WorkerAnswer>, RemoteError> {
        let path = format!("{}/call", session.path);
        let wait = Duration::from_millis(call.wait_ms);
        let client = Arc::clone(&self.client);
        let mut asking = std::pin::pin!(client.send(Method::POST, &path, Some(session), &call, wait));
        let answer: WorkerAnswer = loop {
            tokio::select! {
                answer = &mut asking => break answer?,
                Some((token, end)) = self.ends.recv() => self.settle(session, token, end, settling),
                () = stop.cancelled(), if drained_by.is_none() && call.settle.is_empty() => return Ok(None),
                () = tokio::time::sleep_until(drained_by.unwrap_or_else(Instant::now)), if drained_by.is_some_and(|by| by > Instant::now()) => {
                    self.held.jobs().values().for_each(|signal| signal.stop(Stop::Shutdown));
                }
            }
        };
        for end in &call.settle {
            self.held.free(&end.token);
        }
        Ok(Some(answer))
    }

    /// Says that an attempt ended, beside the call that waits; the server then answers that one at once.
    fn settle(&self, session: &Session, token: String, end: Option<WorkerEnd>, settling: &mut JoinSet<()>) {
        while settling.try_join_next().is_some() {}
        let Some(end) = end else {
            self.held.free(&token);
            return;
        };
        let (client, held, session) = (Arc::clone(&self.client), Arc::clone(&self.held), session.clone());
        settling.spawn(async move {
            let path = format!("{}/call", session.path);
            let call = WorkerCall { settle: vec![end], ..WorkerCall::default() };
            let answer: Result<WorkerAnswer, _> =
                client.send(Method::POST, &path, Some(&session), &call, Duration::ZERO).await;
            if let Err(error) = answer {
                tracing::error!(%error, token, "the end of an attempt was refused; its job runs again when its lease has passed");
            }
            held.free(&token);
        });
    }

    fn start(&self, session: &Session, job: WorkerJob) {
        let stop = StopSignal::new();
        {
            let mut jobs = self.held.jobs();
            if jobs.contains_key(&job.token) {
                // Given again, and running already.
                return;
            }
            jobs.insert(job.token.clone(), stop.clone());
        }
        let attempt = Attempt {
            client: Arc::clone(&self.client),
            session: session.clone(),
            handlers: Arc::clone(&self.handlers),
            stop,
            grace: self.options.grace,
        };
        let ended = self.ended.clone();
        tokio::spawn(async move {
            let token = job.token.clone();
            let end = attempt.run(job).await;
            let _ = ended.send((token, end));
        });
    }
}

fn stop_of(reason: WorkerStopReason) -> Stop {
    match reason {
        WorkerStopReason::Cancelled => Stop::Cancelled,
        WorkerStopReason::Superseded => Stop::Superseded,
        WorkerStopReason::LeaseLost => Stop::LeaseLost,
        WorkerStopReason::Timeout => Stop::Timeout,
    }
}

#[cfg(test)]
mod tests {
    use crate::publisher::{PublishContext, StepEnd};

    use super::*;

    #[test]
    fn publishers_that_nobody_would_ask_are_refused() {
        let mut handlers = Handlers::new();
        handlers.publisher("p", async |_: PublishContext, end: StepEnd| Ok(end)).unwrap();
        let refused = RemoteWorker::new(handlers, ServerOptions::new("http://127.0.0.1:1")).unwrap_err();
        let said = refused.to_string();
        assert!(
            said.contains("publisher `p` would never be asked") && said.contains("no handlers"),
            "{said}"
        );
    }
}
