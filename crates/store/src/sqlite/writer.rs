//! The one writer: takes whatever waits, runs it in one transaction, answers after its commit.
//!
//! A commit costs an `fsync` whether it carries one change or a hundred, so everything that arrived while the last commit was under way shares
//! the next one. Nothing waits for company: an idle writer commits the first change alone. Each piece
//! of work has a savepoint of its own, so that one that fails takes no other with it.

use std::sync::Arc;
use std::time::Duration;

use recache_model::time::{Clock, Timestamp};
use sqlx::Executor as _;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::statements::effects::Effects;
use super::{Connection, Work};
use crate::error::{Error, Result};
use crate::signal::Signal;
use crate::writer_use::{Waiting, WriterCounts, WriterFigures};

/// Pieces of work in one transaction at most: bounds how long the first one waits for the last.
const GROUP_MAX: usize = 128;
/// Pieces of work that may wait; more callers wait for a place.
const WAITING_MAX: usize = 1024;

/// A piece of work as the writer sees it.
trait Piece: Send {
    fn run<'c>(&'c mut self, db: &'c mut Connection, now: Timestamp) -> Work<'c, bool>;
    /// The transaction's outcome; `None` for committed.
    fn answer(self: Box<Self>, failed: Option<&str>, unknown: bool) -> Vec<Signal>;
}

/// What came of a piece of work, and how long it had waited until it was begun.
pub(super) type Answer<T> = (Result<T>, Duration);

/// Whose turn it is.
struct Turn {
    /// The method of the contract that wants it.
    call: &'static str,
    waiting: Option<Waiting>,
    waited: Duration,
}

impl Turn {
    fn begin(&mut self, db: &mut Connection) {
        db.name(self.call);
        if let Some(waiting) = self.waiting.take() {
            self.waited = waiting.begin();
        }
    }
}

struct Typed<T, F> {
    turn: Turn,
    work: F,
    result: Option<Result<T>>,
    effects: Effects,
    reply: oneshot::Sender<Answer<T>>,
}

impl<T, F> Piece for Typed<T, F>
where
    T: Send + 'static,
    F: for<'c> Fn(&'c mut Connection, Timestamp, &'c mut Effects) -> Work<'c, T> + Send + 'static,
{
    fn run<'c>(&'c mut self, db: &'c mut Connection, now: Timestamp) -> Work<'c, bool> {
        self.turn.begin(db);
        self.effects = Effects::default();
        let Self { work, result, effects, .. } = self;
        Box::pin(async move {
            let mut outcome = work(&mut *db, now, &mut *effects).await;
            if outcome.is_ok()
                && let Err(error) = flush(db, now, effects).await
            {
                outcome = Err(error);
            }
            let succeeded = outcome.is_ok();
            *result = Some(outcome);
            Ok(succeeded)
        })
    }

    fn answer(self: Box<Self>, failed: Option<&str>, unknown: bool) -> Vec<Signal> {
        let (result, signals) = match (self.result, failed) {
            (Some(Ok(value)), None) => (Ok(value), self.effects.into_signals()),
            (Some(Err(error)), _) => (Err(error), Vec::new()),
            (_, Some(message)) if unknown => {
                (Err(Error::Unknown { message: message.to_owned(), source: None }), Vec::new())
            }
            (_, message) => (Err(Error::unavailable(message.unwrap_or("the writer stopped"))), Vec::new()),
        };
        // A caller that no longer waits has its change all the same.
        let _ = self.reply.send((result, self.turn.waited));
        signals
    }
}

enum Message {
    Write(Box<dyn Piece>),
    Read(Box<dyn Piece>),
    Close(oneshot::Sender<()>),
}

/// A handle to the writer task.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    counts: Arc<WriterCounts>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        clock: Arc<dyn Clock>,
        signals: broadcast::Sender<Signal>,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let counts = Arc::new(WriterCounts::new(GROUP_MAX));
        tokio::spawn(run(connection, clock, signals, waiting, Arc::clone(&counts)));
        Self { queue, counts }
    }

    /// What was measured of it.
    pub(super) fn measure(&self) -> WriterFigures {
        self.counts.read()
    }

    pub(super) async fn write<T, F>(&self, call: &'static str, work: F) -> Answer<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut Connection, Timestamp, &'c mut Effects) -> Work<'c, T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let piece = Typed { turn: self.turn(call), work, result: None, effects: Effects::default(), reply };
        self.send(Message::Write(Box::new(piece)), answer).await
    }

    /// Reads on the writer's connection, for a database that no other connection can see.
    pub(super) async fn read<T, F>(&self, call: &'static str, work: F) -> Answer<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection, Timestamp) -> Work<'c, T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let piece = Once { turn: self.turn(call), work: Some(work), result: None, reply };
        self.send(Message::Read(Box::new(piece)), answer).await
    }

    fn turn(&self, call: &'static str) -> Turn {
        Turn { call, waiting: Some(WriterCounts::wait(&self.counts)), waited: Duration::ZERO }
    }

    async fn send<T>(&self, message: Message, answer: oneshot::Receiver<Answer<T>>) -> Answer<T> {
        let closed = || (Err(Error::unavailable("the store is closed")), Duration::ZERO);
        if self.queue.send(message).await.is_err() {
            return closed();
        }
        answer.await.unwrap_or_else(|_| closed())
    }

    pub(super) async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.queue.send(Message::Close(reply)).await.is_ok() {
            let _ = done.await;
        }
    }
}

struct Once<T, F> {
    turn: Turn,
    work: Option<F>,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Answer<T>>,
}

impl<T, F> Piece for Once<T, F>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut Connection, Timestamp) -> Work<'c, T> + Send + 'static,
{
    fn run<'c>(&'c mut self, db: &'c mut Connection, now: Timestamp) -> Work<'c, bool> {
        self.turn.begin(db);
        let work = self.work.take();
        let result = &mut self.result;
        Box::pin(async move {
            if let Some(work) = work {
                *result = Some(work(db, now).await);
            }
            Ok(true)
        })
    }

    fn answer(self: Box<Self>, _failed: Option<&str>, _unknown: bool) -> Vec<Signal> {
        let result = self.result.unwrap_or_else(|| Err(Error::broken("a read did not run")));
        let _ = self.reply.send((result, self.turn.waited));
        Vec::new()
    }
}

async fn run(
    mut connection: Connection,
    clock: Arc<dyn Clock>,
    signals: broadcast::Sender<Signal>,
    mut waiting: mpsc::Receiver<Message>,
    counts: Arc<WriterCounts>,
) {
    let mut messages = Vec::with_capacity(GROUP_MAX);
    let mut closing = None;
    while closing.is_none() && waiting.recv_many(&mut messages, GROUP_MAX).await > 0 {
        let mut group = Vec::new();
        for message in messages.drain(..) {
            match message {
                Message::Write(piece) => group.push(piece),
                Message::Read(mut piece) => {
                    let _working = counts.work();
                    let _ = piece.run(&mut connection, clock.now()).await;
                    piece.answer(None, false);
                }
                Message::Close(reply) => closing = Some(reply),
            }
        }
        if group.is_empty() {
            continue;
        }
        let working = counts.work();
        let outcome = transact(&mut connection, &*clock, &mut group).await;
        drop(working);
        let (failed, unknown) = match &outcome {
            Ok(()) => (None, false),
            // What is said of the kind of failure is said again where it is handed on.
            Err(Error::Unavailable { message, .. }) => (Some(message.clone()), false),
            Err(Error::Unknown { message, .. }) => (Some(message.clone()), true),
            Err(error) => (Some(error.to_string()), false),
        };
        for piece in group {
            for signal in piece.answer(failed.as_deref(), unknown) {
                let _ = signals.send(signal);
            }
        }
    }
    waiting.close();
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "sqlite connection did not close cleanly");
    }
    if let Some(reply) = closing {
        let _ = reply.send(());
    }
}

async fn transact(db: &mut Connection, clock: &dyn Clock, group: &mut [Box<dyn Piece>]) -> Result<()> {
    // As queries: those are parsed once.
    let begin = if group.len() > 1 { "BEGIN IMMEDIATE; SAVEPOINT piece" } else { "BEGIN IMMEDIATE" };
    if let Err(error) = sqlx::query(begin).execute(&mut *db).await {
        // The second half may be what failed.
        let _ = db.execute("ROLLBACK").await;
        return Err(error.into());
    }
    let outcome = run_group(db, clock, group).await;
    match outcome {
        Ok(true) => match sqlx::query("COMMIT").execute(&mut *db).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let _ = db.execute("ROLLBACK").await;
                Err(Error::of_commit(error))
            }
        },
        Ok(false) => {
            db.execute("ROLLBACK").await?;
            Ok(())
        }
        Err(error) => {
            let _ = db.execute("ROLLBACK").await;
            Err(error)
        }
    }
}

/// False when there is nothing to commit: the only piece of work failed. Of several, the first one's savepoint is there.
async fn run_group(db: &mut Connection, clock: &dyn Clock, group: &mut [Box<dyn Piece>]) -> Result<bool> {
    if let [only] = group {
        return only.run(db, clock.now()).await;
    }
    let last = group.len() - 1;
    for (place, piece) in group.iter_mut().enumerate() {
        if !piece.run(db, clock.now()).await? {
            db.execute("ROLLBACK TO piece").await?;
        }
        // The last one's goes with the commit.
        if place < last {
            sqlx::query("RELEASE piece; SAVEPOINT piece").execute(&mut *db).await?;
        }
    }
    Ok(true)
}

/// What a piece of work gathered, as its last statements.
async fn flush(db: &mut Connection, now: Timestamp, effects: &mut Effects) -> Result<()> {
    super::statements::events::flush(db, now, effects).await?;
    super::statements::batches::flush(db, effects).await
}
