//! The connections to one server: lent to one exchange at a time, opened when they are needed, and reopened by
//! themselves.
//!
//! Nobody waits for a server that cannot be reached. Connecting goes on in a task of its own; who needs the connection
//! waits for it only for [`OPENING_TURNS`]. As long as connecting takes longer than that, or once it has failed, calls fail
//! at once, and one task goes on trying, with pauses that grow and are spread at random. A server that falls silent is
//! found out by the calls that are given up: their connections and the idle ones are dropped, and connecting shows.
//!
//! A connection whose exchange did not come to its end is never lent again. It may still carry a write that the server
//! has yet to do, so the keys of that write are *unsettled* until the server has closed the connection: calls that
//! concern them wait for that, or what was given up could appear behind their backs.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;
use xxhash_rust::xxh3::xxh3_64;

use super::connection::Connection;
use super::probe::{self, Facts};
use super::wire::{Answer, Command, Dialect};
use super::{draw, unavailable};
use crate::config::MemcachedServer;
use crate::provider::Error;

/// How long calls wait for connections that are being opened while the server says nothing on others either: this many
/// turns, 100 ms in all, which is two calls of a cache that gives each 50 ms. In turns, so that a process that gets no
/// processor time does not blame the server for it.
const OPENING_TURNS: u32 = 20;
const OPENING_TURN: Duration = Duration::from_millis(5);

/// A call that was given up after this long, while the server said nothing to anybody, casts doubt on all connections.
const SILENCE_MAX: Duration = Duration::from_millis(40);

/// The pauses between tries to reach a server begin with this and double.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// They grow no further, so that a server that is back is found soon.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How long a server that has accepted a connection may take to say what it can do. Others wait for that, so it is shorter than
/// the connection timeout: an answer may have been lost, and then it never comes.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// Attempts to reach a server that run at the same time. One begins at least once a second and takes the connection timeout
/// at most, so with the default of 5 s there is always one that is not older than a second.
const ATTEMPTS_MAX: usize = 6;

/// How long the server is given to close a connection that was given up. A server that is frozen for longer may do late
/// what it was sent; what was invalidated since stays unreachable by its epoch.
const SETTLING_MAX: Duration = Duration::from_secs(1);

/// One server's connections.
pub(super) struct Pool {
    server: MemcachedServer,
    connections_max: usize,
    connection_timeout: Duration,
    probe_prefix: String,
    probing: tokio::sync::Mutex<()>,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
    /// When the server was last heard, in microseconds since `epoch`.
    heard_us: AtomicU64,
    epoch: Instant,
    unsettled: Mutex<HashMap<u64, usize>>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Connection>,
    /// Attempts to open a connection that take longer than a call waits.
    slow_openings: usize,
    /// Why it cannot be reached, when that is so.
    outage: Option<String>,
    /// Whether a task tries to reach it.
    is_being_mended: bool,
    /// What is known of the server. Forgotten with the last connection to it: the next may lead to another server.
    facts: Facts,
    is_probed: bool,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Pool {
    /// Begins to connect at once, when there is a runtime to do it in.
    pub(super) fn new(
        server: MemcachedServer,
        connections_max: u32,
        connection_timeout: Duration,
        probe_prefix: String,
    ) -> Arc<Self> {
        let connections_max = usize::try_from(connections_max.max(1)).unwrap_or(usize::MAX);
        let pool = Arc::new(Self {
            server,
            connections_max,
            connection_timeout,
            probe_prefix,
            probing: tokio::sync::Mutex::default(),
            permits: Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS))),
            state: Mutex::default(),
            heard_us: AtomicU64::new(0),
            epoch: Instant::now(),
            unsettled: Mutex::default(),
            settled: Notify::new(),
        });
        if let (Ok(runtime), Ok(permit)) =
            (Handle::try_current(), Arc::clone(&pool.permits).try_acquire_owned())
        {
            pool.open_in(&runtime, permit);
        }
        pool
    }

    pub(super) fn server(&self) -> &MemcachedServer {
        &self.server
    }

    pub(super) fn facts(&self) -> Facts {
        self.state().facts
    }

    pub(super) fn note_evictions(&self, evictions: u64) {
        self.state().facts.evictions = Some(evictions);
    }

    /// One round trip: all commands go out together, one answer to each comes back.
    pub(super) async fn exchange(self: &Arc<Self>, commands: &[Command<'_>]) -> Result<Vec<Answer>, Error> {
        // A caller that asks again and again of a server that is down must not keep its thread from those that mend it.
        consume_budget().await;
        self.refuse_while_down()?;
        self.settle(commands).await;
        let mut lent = self.lend().await?;
        let terms = self.state().facts.terms();
        let exchange = Unfinished { pool: self, lent: &mut lent, commands, began: Instant::now() };
        let Some(connection) = exchange.lent.connection.as_mut() else {
            return Err(unavailable("a connection that was lent and is not there"));
        };
        let result = connection.exchange(commands, terms).await;
        match result {
            Ok(_) => self.heard(),
            Err(_) => self.probe_again(),
        }
        drop(exchange);
        result
    }

    fn heard(&self) {
        let micros = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.heard_us.store(micros, Ordering::Relaxed);
    }

    fn was_heard_within(&self, time: Duration) -> bool {
        let heard = Duration::from_micros(self.heard_us.load(Ordering::Relaxed));
        !heard.is_zero() && self.epoch.elapsed() <= heard + time
    }

    /// A connection is gone: what answers next may be another server.
    fn probe_again(&self) {
        self.state().is_probed = false;
    }

    fn refuse_while_down(self: &Arc<Self>) -> Result<(), Error> {
        let state = self.state();
        if !state.idle.is_empty() {
            return Ok(());
        }
        if let Some(reason) = &state.outage {
            let error = unavailable(reason.clone());
            drop(state);
            self.mend();
            return Err(error);
        }
        if state.slow_openings > 0 && !self.was_heard_within(OPENING_TURN * OPENING_TURNS) {
            drop(state);
            self.mend();
            return Err(unavailable(format!("still connecting to {}", self.server)));
        }
        Ok(())
    }

    async fn lend(self: &Arc<Self>) -> Result<Lent, Error> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| unavailable("the pool is closed"))?;
        while let Some(connection) = self.pop_idle() {
            if connection.is_quiet() {
                return Ok(Lent { pool: Arc::clone(self), connection: Some(connection), _permit: permit });
            }
            self.probe_again();
        }
        self.refuse_while_down()?;
        let runtime = Handle::try_current().map_err(|_| unavailable("there is no runtime to connect in"))?;
        let opened = self.open_in(&runtime, permit);
        let mut opened = std::pin::pin!(opened);
        let mut turns_left = OPENING_TURNS;
        while turns_left > 0 {
            match timeout(OPENING_TURN, &mut opened).await {
                Ok(Ok(result)) => return result,
                Ok(Err(_)) => return Err(unavailable("connecting was broken off")),
                // It talks to others.
                Err(_) if self.was_heard_within(OPENING_TURN) => turns_left = OPENING_TURNS,
                Err(_) => turns_left -= 1,
            }
        }
        Err(unavailable(format!("still connecting to {}", self.server)))
    }

    fn pop_idle(&self) -> Option<Connection> {
        self.state().idle.pop()
    }

    /// Opens a connection in a task. It goes to who waits for it, or else to the idle ones.
    fn open_in(
        self: &Arc<Self>,
        runtime: &Handle,
        permit: OwnedSemaphorePermit,
    ) -> oneshot::Receiver<Result<Lent, Error>> {
        let (sender, receiver) = oneshot::channel();
        let pool = Arc::clone(self);
        runtime.spawn(async move {
            let opened = pool.open_watched().await;
            let result = match opened {
                Ok(connection) => Ok(Lent { pool, connection: Some(connection), _permit: permit }),
                Err(error) => {
                    pool.fell(&error);
                    Err(error)
                }
            };
            // When nobody waits any more, the connection goes home as it is dropped.
            let _ = sender.send(result);
        });
        receiver
    }

    /// Opens a connection, and lets it be known when that takes long.
    async fn open_watched(&self) -> Result<Connection, Error> {
        let mut opening = std::pin::pin!(self.open());
        for _ in 0..OPENING_TURNS {
            if let Ok(opened) = timeout(OPENING_TURN, &mut opening).await {
                return opened;
            }
        }
        let _slow = SlowOpening::of(self);
        opening.await
    }

    async fn open(&self) -> Result<Connection, Error> {
        let deadline = Instant::now() + self.connection_timeout;
        let mut connection = Connection::open(&self.server, self.connection_timeout).await?;
        let Ok(probed) = timeout_at(deadline, self.know(&mut connection)).await else {
            return Err(unavailable(format!("{} does not answer", self.server)));
        };
        probed?;
        if self.facts().dialect == Some(Dialect::Classic) {
            connection.speak_classic();
        }
        self.heard();
        let mut state = self.state();
        if state.outage.take().is_some() {
            debug!(server = %self.server, "memcached is reached again");
        }
        Ok(connection)
    }

    /// Finds out what the server can do, if that is not known. Of several new connections one asks.
    async fn know(&self, connection: &mut Connection) -> Result<(), Error> {
        let _asking = self.probing.lock().await;
        if self.state().is_probed {
            return Ok(());
        }
        let Ok(facts) = timeout(PROBE_MAX, self.probe(connection)).await else {
            return Err(unavailable(format!("{} does not answer", self.server)));
        };
        let facts = facts?;
        debug!(server = %self.server, dialect = ?facts.dialect, "memcached answers");
        let mut state = self.state();
        state.facts = facts;
        state.is_probed = true;
        Ok(())
    }

    /// A server that knows meta commands, but not as they are today, is spoken to in the classic dialect.
    async fn probe(&self, connection: &mut Connection) -> Result<Facts, Error> {
        match probe::probe(connection, &self.probe_prefix).await {
            Err(Error::Protocol { .. }) if connection.dialect() == Dialect::Meta => {
                *connection = Connection::open(&self.server, self.connection_timeout).await?;
                connection.speak_classic();
                probe::probe(connection, &self.probe_prefix).await
            }
            result => result,
        }
    }

    /// It cannot be reached: calls fail from now on, and a task tries again.
    fn fell(self: &Arc<Self>, error: &Error) {
        let mut state = self.state();
        if state.outage.is_none() {
            debug!(server = %self.server, %error, "memcached cannot be reached");
        }
        let reason = match error {
            Error::Unavailable { reason, .. } | Error::Protocol { reason, .. } => reason.clone(),
            other => other.to_string(),
        };
        state.outage = Some(reason);
        state.is_probed = false;
        drop(state);
        self.mend();
    }

    /// One task tries to reach the server, if none does. Not to be called under the lock of the state: a runtime that is ending
    /// drops at once what is given to it, and what is dropped takes that lock.
    fn mend(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else { return };
        if std::mem::replace(&mut self.state().is_being_mended, true) {
            return;
        }
        let mending = Mending(Arc::downgrade(self));
        runtime.spawn(async move {
            let mut pause = PAUSE_MIN;
            // What was sent into a network that loses it may never be answered, also when the network is well again. So
            // nobody waits for an attempt to end: the next begins beside it.
            let mut attempts = FuturesUnordered::new();
            loop {
                // Half of it to the whole: many processes must not come back in one moment.
                let mut rest = pin!(sleep(pause / 2 + draw::below(pause / 2)));
                let mut has_rested = false;
                while !has_rested {
                    tokio::select! {
                        () = &mut rest => has_rested = true,
                        Some(opened) = attempts.next() => {
                            let Some(pool) = mending.0.upgrade() else { return };
                            match opened {
                                Ok(connection) => return pool.take_home(connection),
                                Err(error) => pool.fell(&error),
                            }
                        }
                    }
                }
                let Some(pool) = mending.0.upgrade() else { return };
                if attempts.len() < ATTEMPTS_MAX {
                    attempts.push(async move { pool.open().await });
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        });
    }

    fn take_home(&self, connection: Connection) {
        let mut state = self.state();
        if state.idle.len() < self.connections_max {
            state.idle.push(connection);
        }
    }

    /// Waits until no write that was given up can still reach these keys.
    async fn settle(&self, commands: &[Command<'_>]) {
        if self.unsettled().is_empty() {
            return;
        }
        loop {
            let mut notified = std::pin::pin!(self.settled.notified());
            notified.as_mut().enable();
            let is_clear = {
                let unsettled = self.unsettled();
                unsettled.is_empty()
                    || !commands.iter().filter_map(key_hash).any(|hash| unsettled.contains_key(&hash))
            };
            if is_clear {
                return;
            }
            notified.await;
        }
    }

    fn unsettled(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing under it can panic half way.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key_hash(command: &Command<'_>) -> Option<u64> {
    match command {
        Command::Fetch { key, .. }
        | Command::Store { key, .. }
        | Command::Bump { key, .. }
        | Command::Remove { key, .. }
        | Command::Count { key, .. } => Some(xxh3_64(key.as_bytes())),
        Command::Hello | Command::Login { .. } | Command::Stats { .. } => None,
    }
}

fn writes(command: &Command<'_>) -> bool {
    !matches!(command, Command::Fetch { vivify: None, .. } | Command::Stats { .. } | Command::Hello)
}

/// A connection in use. Goes home when it is dropped, if its last exchange came to its end.
#[derive(Debug)]
struct Lent {
    pool: Arc<Pool>,
    connection: Option<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && connection.is_rested()
        {
            self.pool.take_home(connection);
        }
    }
}

/// An exchange under way. Dropped before its end, it takes its connection out of use.
struct Unfinished<'e> {
    pool: &'e Arc<Pool>,
    lent: &'e mut Lent,
    commands: &'e [Command<'e>],
    began: Instant,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.lent.connection.take_if(|connection| !connection.is_rested()) else {
            return;
        };
        let heard = self.pool.epoch + Duration::from_micros(self.pool.heard_us.load(Ordering::Relaxed));
        if heard < self.began && self.began.elapsed() >= SILENCE_MAX {
            // The others would lead to the same silence, one call after the other. A new one shows whether anybody is there.
            self.pool.state().idle.clear();
        }
        let hashes: Vec<_> =
            self.commands.iter().filter(|command| writes(command)).filter_map(key_hash).collect();
        let Ok(runtime) = Handle::try_current() else { return };
        if hashes.is_empty() {
            return;
        }
        for hash in &hashes {
            *self.pool.unsettled().entry(*hash).or_default() += 1;
        }
        let settling = Settling { pool: Arc::downgrade(self.pool), hashes };
        runtime.spawn(async move {
            let _ = timeout(SETTLING_MAX, connection.wind_up()).await;
            drop(settling);
        });
    }
}

/// Keys of a write that was given up; settled when it is dropped, also with its runtime.
struct Settling {
    pool: Weak<Pool>,
    hashes: Vec<u64>,
}

impl Drop for Settling {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let mut unsettled = pool.unsettled();
        for hash in &self.hashes {
            if let Some(count) = unsettled.get_mut(hash) {
                *count -= 1;
                if *count == 0 {
                    unsettled.remove(hash);
                }
            }
        }
        drop(unsettled);
        pool.settled.notify_waiters();
    }
}

/// An attempt to connect that takes long.
struct SlowOpening<'p>(&'p Pool);

impl<'p> SlowOpening<'p> {
    fn of(pool: &'p Pool) -> Self {
        pool.state().slow_openings += 1;
        Self(pool)
    }
}

impl Drop for SlowOpening<'_> {
    fn drop(&mut self) {
        self.0.state().slow_openings -= 1;
    }
}

/// The one task that tries to reach a server again.
struct Mending(Weak<Pool>);

impl Drop for Mending {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.state().is_being_mended = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// A process that ends while its server is away must end.
    #[test]
    fn a_runtime_that_is_gone_holds_nobody_up() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        let server = MemcachedServer::new("127.0.0.1", 1);
        let pool = Pool::new(server, 2, Duration::from_secs(1), "p".to_owned());
        runtime.shutdown_background();
        let (done, ended) = mpsc::channel();
        let falling = Arc::clone(&pool);
        thread::spawn(move || {
            let _runtime = handle.enter();
            falling.fell(&unavailable("it is away"));
            assert!(falling.refuse_while_down().is_err());
            done.send(())
        });
        ended.recv_timeout(Duration::from_secs(10)).expect("whoever found it away goes on");
        assert!(!pool.state().is_being_mended, "the next runtime tries again");
    }
}
