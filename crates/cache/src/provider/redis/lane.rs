//! One connection that is kept open: connects, watches, reconnects. Calls never wait for any of that; while there is no
//! connection they fail at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value, cmd};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};
use uuid::Uuid;

use super::errors::{Failure, NAME};
use super::node::{Door, Opened};
use crate::provider::Error;

/// Between the loss of a connection and the next attempt; doubled from attempt to attempt.
const PAUSE_MIN: Duration = Duration::from_millis(25);
/// Longest such pause: how late a server that is back may be found.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How often an open connection is asked whether it still answers.
pub(super) const ASKED_EVERY: Duration = Duration::from_millis(500);
/// An answer that is overdue by this much never comes: the link is stalled, or what stands behind it is. Together with the
/// time between two questions less than the two seconds within which a backend that is back is to be used again.
pub(super) const OVERDUE_AFTER: Duration = Duration::from_secs(1);

/// While an attempt to connect hangs, the next begins beside it after this.
const ATTEMPT_EVERY: Duration = Duration::from_secs(1);
/// Attempts that hang at the same time. Each takes the connection timeout at most, so with the default of 5 s there is always
/// one that is not older than a second.
const ATTEMPTS_MAX: usize = 6;

/// One connection, or the want of it.
#[derive(Debug, Default)]
pub(super) struct Lane {
    open: RwLock<Option<MultiplexedConnection>>,
    /// Whether there is one, for whoever chooses among lanes.
    is_open: AtomicBool,
    /// Why it is not open.
    reason: RwLock<String>,
    in_flight: AtomicUsize,
    /// Told to close what is open and connect anew.
    renew: Notify,
    was_lost: AtomicBool,
}

impl Lane {
    /// Whether calls can be made, and how many are under way; the fewer, the better.
    pub(super) fn load(&self) -> Option<usize> {
        self.is_open.load(Ordering::Acquire).then(|| self.in_flight.load(Ordering::Relaxed))
    }

    /// Closes the connection and opens another, which may lead to another server.
    pub(super) fn renew(&self) {
        self.renew.notify_one();
    }

    pub(super) async fn one(&self, command: &Cmd) -> Result<Value, Failure> {
        let (mut connection, _in_flight) = self.enter()?;
        match connection.send_packed_command(command).await {
            Ok(Value::ServerError(told)) => Err(Failure::Told(told)),
            Ok(value) => Ok(value),
            Err(error) => Err(Failure::of(error)),
        }
    }

    /// As many answers as commands, in one exchange. An error that the server gives to one of them is among the answers.
    pub(super) async fn many(&self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        let (mut connection, _in_flight) = self.enter()?;
        connection.send_packed_commands(commands, 0, commands.len()).await.map_err(Failure::of)
    }

    fn enter(&self) -> Result<(MultiplexedConnection, InFlight<'_>), Failure> {
        match &*self.open.read().unwrap_or_else(PoisonError::into_inner) {
            Some(connection) => Ok((connection.clone(), InFlight::new(&self.in_flight))),
            None => Err(Failure::Gone(self.reason())),
        }
    }

    pub(super) fn reason(&self) -> String {
        let reason = self.reason.read().unwrap_or_else(PoisonError::into_inner).clone();
        if reason.is_empty() { "not connected yet".to_owned() } else { reason }
    }

    fn publish(&self, connection: Option<MultiplexedConnection>, reason: &str) {
        reason.clone_into(&mut self.reason.write().unwrap_or_else(PoisonError::into_inner));
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        self.is_open.store(connection.is_some(), Ordering::Release);
        *open = connection;
    }
}

struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keeps `lane` open until this is dropped.
pub(super) async fn keep_open(lane: Arc<Lane>, door: Arc<Door>, is_first: bool) {
    let mut pause = PAUSE_MIN;
    loop {
        match first_of(|| door.open(is_first)).await {
            Ok(opened) => {
                let since = Instant::now();
                say_open(&lane, is_first);
                let why = hold(&lane, &door, opened, is_first).await;
                lane.publish(None, why);
                say_lost(&lane, is_first, why);
                if since.elapsed() >= PAUSE_MAX {
                    pause = PAUSE_MIN;
                }
            }
            Err(error) => {
                let why = error.to_string();
                let why = why.split_once(": ").map_or(why.as_str(), |(_, why)| why);
                lane.publish(None, why);
                say_lost(&lane, is_first, why);
            }
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The first attempt that succeeds; an error when one failed and no other is under way. What was sent into a network that
/// loses it is never answered, also when the network is well again: so the next attempt does not wait for the end of one
/// that hangs.
pub(super) async fn first_of<T, F>(attempt: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut attempts = FuturesUnordered::new();
    loop {
        if attempts.len() < ATTEMPTS_MAX {
            attempts.push(attempt());
        }
        let first = async {
            let mut ended = attempts.next().await?;
            while ended.is_err() && !attempts.is_empty() {
                ended = attempts.next().await?;
            }
            Some(ended)
        };
        if let Ok(Some(ended)) = timeout(ATTEMPT_EVERY, first).await {
            return ended;
        }
    }
}

/// Until it is broken, stalled or given up; says why.
async fn hold(lane: &Lane, door: &Door, (connection, driver): Opened, is_first: bool) -> &'static str {
    // In a task of its own, so that its wakes are its own.
    let mut driving = tokio::spawn(driver);
    let _guard = AbortOnDrop(driving.abort_handle());
    let reopened = door.reopened();
    door.say_entering();
    if is_first {
        door.say_opening();
    }
    lane.publish(Some(connection.clone()), "");
    if is_first {
        door.say_opened();
    }
    tokio::select! {
        _ = &mut driving => "connection broken",
        why = out_of_step(connection) => why,
        () = told_to_renew(lane) => "connection given up for another",
        () = reopened, if !is_first => "connection given up for another",
    }
}

/// Not within the first second: one who is told so again and again still has a connection for most of the time.
async fn told_to_renew(lane: &Lane) {
    // What was said to the connection before this one.
    let _ = lane.renew.notified().now_or_never();
    sleep(PAUSE_MAX).await;
    lane.renew.notified().await;
}

/// Returns, with why, when an answer is overdue or is not to what was asked. A byte that was changed on the way can make the server
/// give one answer more or less than it was asked for, and from then on every call would get the answer to another one.
async fn out_of_step(mut connection: MultiplexedConnection) -> &'static str {
    loop {
        sleep(ASKED_EVERY).await;
        let nonce = Uuid::new_v4().simple().to_string();
        let mut ping = cmd("PING");
        ping.arg(&nonce);
        match timeout(OVERDUE_AFTER, connection.send_packed_command(&ping)).await {
            Ok(Ok(Value::BulkString(echo))) if echo == nonce.as_bytes() => {}
            // It is loading, or wants a password anew: calls are told so too.
            Ok(Ok(Value::ServerError(_))) => {}
            Ok(Ok(_)) => return "an answer was to another question",
            // A broken connection is the driver's to tell.
            Ok(Err(error)) if !error.is_timeout() => {}
            Ok(Err(_)) | Err(_) => return "no answer came in time",
        }
    }
}

/// Half of it to all of it, so that processes that lost one server do not come back at once.
pub(super) fn jittered(pause: Duration) -> Duration {
    let (random, _) = Uuid::new_v4().as_u64_pair();
    let part = u32::try_from(random % 512).unwrap_or(0);
    pause * (512 + part) / 1_024
}

/// Once a change of state, and only for the connection that speaks for all.
fn say_lost(lane: &Lane, is_first: bool, why: &str) {
    if is_first && !lane.was_lost.swap(true, Ordering::Relaxed) {
        warn!(provider = NAME, reason = why, "cache server is not connected; trying again in the background");
    }
}

fn say_open(lane: &Lane, is_first: bool) {
    if is_first && lane.was_lost.swap(false, Ordering::Relaxed) {
        info!(provider = NAME, "cache server is connected");
    }
}

/// Ends a task with what it works for.
#[derive(Debug)]
pub(super) struct AbortOnDrop(pub(super) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
