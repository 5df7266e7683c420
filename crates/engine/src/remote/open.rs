//! Sessions of workers elsewhere: how they begin and end, and who may speak for them.

use std::sync::Arc;
use std::time::Duration;

use recache_model::handlers::INPUT_SCHEMA_BYTES_MAX;
use recache_model::ids::SessionId;
use recache_model::unique::PartsHash;
use recache_store::{FLOW, NewRemoteWorker, RemoteHandler};
use uuid::Uuid;

use super::Remote;
use super::memory::Known;
use crate::error::{Error, Result};

/// How long a worker may be silent, unless it asks for another time.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(3);
/// No worker may ask for less: two lost calls must not cost it its jobs.
pub const LEASE_MIN: Duration = Duration::from_millis(500);
/// No worker may ask for more: its jobs wait so long when it dies.
pub const LEASE_MAX: Duration = Duration::from_mins(10);
/// Handlers or queues of one worker.
const NAMES_MAX: usize = 1_000;
/// Longest name of a worker, a handler or a queue, in bytes; of a version too.
const NAME_BYTES_MAX: usize = 256;
/// Most jobs that one worker may run at once.
const SLOTS_MAX: u32 = 10_000;

/// A worker that wants to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWorker {
    /// What it calls itself, for people.
    pub name: String,
    /// What it can do: names as jobs have them.
    pub handlers: Vec<RemoteHandler>,
    /// From which queues it takes jobs.
    pub queues: Vec<String>,
    /// Of whose jobs it may have; `None`: of all.
    pub namespaces: Option<Vec<String>>,
    /// How many jobs it runs at once; only shown.
    pub slots: u32,
    /// How long it may be silent before its jobs go to others.
    pub lease: Duration,
}

/// A session that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Names it in every call.
    pub session: SessionId,
    /// Proves in every call that it is the worker's own. Only its digest is kept.
    pub secret: String,
    /// How long it lives when nothing is heard of the worker.
    pub lease: Duration,
}

impl NewWorker {
    /// Refuses what cannot work, with every reason.
    fn check(&self) -> Result<()> {
        let mut problems = Vec::new();
        let mut named = |what: &str, name: &str| {
            if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
                problems.push(format!(
                    "{what} must have 1 to {NAME_BYTES_MAX} bytes and no control characters, and has {} bytes",
                    name.len()
                ));
            }
        };
        named("the worker's name", &self.name);
        for handler in &self.handlers {
            named("a handler's name", &handler.name);
            if let Some(version) = &handler.version {
                named("a handler's version", version);
            }
        }
        self.queues.iter().for_each(|queue| named("a queue's name", queue));
        self.namespaces.iter().flatten().for_each(|namespace| named("a namespace", namespace));
        let schemas =
            self.handlers.iter().filter_map(|handler| Some((&handler.name, handler.input_schema.as_ref()?)));
        for (name, schema) in schemas {
            if !(schema.is_object() || schema.is_boolean())
                || schema.to_string().len() > INPUT_SCHEMA_BYTES_MAX
            {
                problems.push(format!(
                    "the input schema of `{}` must be an object, true or false, of at most {INPUT_SCHEMA_BYTES_MAX} bytes",
                    name.escape_debug()
                ));
            }
        }
        for (what, count) in [("handlers", self.handlers.len()), ("queues", self.queues.len())] {
            if count == 0 || count > NAMES_MAX {
                problems.push(format!("{what}: 1 to {NAMES_MAX} of them, and there are {count}"));
            }
        }
        if self
            .namespaces
            .as_ref()
            .is_some_and(|namespaces| namespaces.is_empty() || namespaces.len() > NAMES_MAX)
        {
            problems.push(format!("namespaces: 1 to {NAMES_MAX} of them, or none said at all"));
        }
        if self.handlers.iter().any(|handler| handler.name == FLOW)
            || self.queues.iter().any(|queue| queue == FLOW)
        {
            problems.push(format!("`{FLOW}` is the engine's own"));
        }
        if self.slots == 0 || self.slots > SLOTS_MAX {
            problems.push(format!("slots is {}; it must be 1 to {SLOTS_MAX}", self.slots));
        }
        if self.lease < LEASE_MIN || self.lease > LEASE_MAX {
            problems.push(format!(
                "the lease is {} ms; it must be {} to {}",
                self.lease.as_millis(),
                LEASE_MIN.as_millis(),
                LEASE_MAX.as_millis()
            ));
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.join("; "))) }
    }
}

/// What is kept of a secret.
fn digest(secret: &str) -> String {
    let mut hash = PartsHash::default();
    hash.part("worker session");
    hash.part(secret);
    hash.hex(64)
}

impl Remote {
    /// Opens a session for a worker. Safe to repeat: a session that nobody uses ends by itself.
    pub async fn open(&self, worker: NewWorker) -> Result<Opened> {
        worker.check()?;
        if self.shared.remote.retiring.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        // Two random UUIDs: 244 bits from the system's source.
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let registered = NewRemoteWorker {
            session: SessionId::make(),
            name: worker.name,
            secret_digest: digest(&secret),
            handlers: worker.handlers,
            queues: worker.queues,
            namespaces: worker.namespaces,
            slots: worker.slots,
            lease: worker.lease,
        };
        self.shared.store.remote_workers().remote_open(registered.clone()).await?;
        let opened = Opened { session: registered.session, secret, lease: registered.lease };
        tracing::info!(session = %opened.session, worker = registered.name, "remote worker registered");
        self.shared.remote.remember(registered, true);
        crate::registry::changed(&self.shared);
        Ok(opened)
    }

    /// Ends a session; jobs that it still holds go back to the queue at once. True: it had not ended before.
    pub async fn close(&self, session: SessionId, secret: &str) -> Result<bool> {
        let Some(known) = self.known(session, secret).await? else { return Ok(false) };
        self.shared.store.session_close(session).await?;
        known.end();
        self.shared.remote.forget(session);
        crate::registry::changed(&self.shared);
        Ok(true)
    }

    /// Of whose jobs the worker may have: `Some(None)`: of all; `None`: the session has ended.
    pub async fn namespaces(&self, session: SessionId, secret: &str) -> Result<Option<Option<Vec<String>>>> {
        Ok(self.known(session, secret).await?.map(|known| known.worker.namespaces.clone()))
    }

    /// The worker of a session, if the secret is its own. `None`: the session has ended, or never was.
    pub(super) async fn known(&self, session: SessionId, secret: &str) -> Result<Option<Arc<Known>>> {
        let known = match self.shared.remote.known(session) {
            Some(known) => known,
            None => match self.shared.store.remote_workers().remote_find(session).await? {
                Some(found) => self.shared.remote.remember(found.registered, false),
                None => return Ok(None),
            },
        };
        // Digests are compared, so how long it takes says nothing about the secret.
        if digest(secret) != known.worker.secret_digest {
            return Err(
                recache_store::Error::NotFound { what: "worker session", id: session.to_string() }.into()
            );
        }
        Ok(Some(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_that_cannot_work_hears_of_every_reason() {
        let worker = NewWorker {
            name: String::new(),
            handlers: vec![RemoteHandler {
                name: FLOW.to_owned(),
                version: Some("\n".to_owned()),
                input_schema: Some(serde_json::json!(7)),
            }],
            queues: Vec::new(),
            namespaces: Some(Vec::new()),
            slots: 0,
            lease: Duration::from_millis(1),
        };
        let message = worker.check().unwrap_err().to_string();
        for part in
            ["the worker's name", "version", "queues", "namespaces", "input schema", FLOW, "slots", "lease"]
        {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}
