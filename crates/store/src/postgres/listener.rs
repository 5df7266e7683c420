//! Hints between processes by `LISTEN/NOTIFY`.
//!
//! Sending: never inside the transaction that causes the hint (there it would serialise all commits), but by one
//! task that gathers what arrived while its last message was under way. Receiving: one connection of its own, opened again
//! whenever it drops. Whatever is lost meanwhile, polling finds.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::signal::{Signal, WIRE_SIGNALS_MAX, Wire};

const CHANNEL: &str = "recache";
/// Hints waiting to be sent; more are dropped, because polling finds what they hint at.
const WAITING_MAX: usize = 10_000;
/// Between two messages of one process that only say "a queue has jobs": at most 20 a second.
const QUEUE_HINT_PAUSE: Duration = Duration::from_millis(50);
/// Between two tries to connect again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Listener {
    queue: mpsc::Sender<Vec<Signal>>,
    stop: watch::Sender<bool>,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl Listener {
    pub(super) fn start(
        pool: PgPool,
        connect: PgConnectOptions,
        heard: broadcast::Sender<Signal>,
        listens: bool,
    ) -> Self {
        let me = Uuid::new_v4();
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = vec![tokio::spawn(send_all(pool, me, waiting))];
        if listens {
            tasks.push(tokio::spawn(listen(connect, me, heard, stopped)));
        }
        Self { queue, stop, tasks: std::sync::Mutex::new(tasks) }
    }

    pub(super) fn send(&self, signals: Vec<Signal>) {
        if !signals.is_empty() && self.queue.try_send(signals).is_err() {
            tracing::debug!(
                "hints dropped: the database takes them too slowly, others find the work by polling"
            );
        }
    }

    pub(super) async fn stop(&self) {
        let _ = self.stop.send(true);
        let tasks = match self.tasks.lock() {
            Ok(mut tasks) => std::mem::take(&mut *tasks),
            Err(_) => return,
        };
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

async fn send_all(pool: PgPool, me: Uuid, mut waiting: mpsc::Receiver<Vec<Signal>>) {
    let mut gathered = Vec::new();
    while waiting.recv_many(&mut gathered, WAITING_MAX).await > 0 {
        let signals: Vec<Signal> = gathered.drain(..).flatten().collect();
        let only_queues = signals.iter().all(|signal| matches!(signal, Signal::Queued(_)));
        for part in signals.chunks(WIRE_SIGNALS_MAX) {
            let Ok(text) = serde_json::to_string(&Wire::pack(me, part)) else { continue };
            let sent = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(text).execute(&pool).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "hint not sent, others find the work by polling");
            }
        }
        if only_queues {
            tokio::time::sleep(QUEUE_HINT_PAUSE).await;
        }
    }
}

async fn listen(
    connect: PgConnectOptions,
    me: Uuid,
    heard: broadcast::Sender<Signal>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            lost = listen_once(&connect, me, &heard) => {
                tracing::debug!(error = %lost, "listening connection lost, connecting again");
            }
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn listen_once(connect: &PgConnectOptions, me: Uuid, heard: &broadcast::Sender<Signal>) -> sqlx::Error {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(connect.clone());
    let mut listener = match PgListener::connect_with(&pool).await {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    if let Err(error) = listener.listen(CHANNEL).await {
        return error;
    }
    loop {
        let message = match listener.recv().await {
            Ok(message) => message,
            Err(error) => return error,
        };
        match serde_json::from_str::<Wire>(message.payload()) {
            Ok(wire) if wire.from != me => {
                for signal in wire.unpack() {
                    let _ = heard.send(signal);
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "hint of another version ignored"),
        }
    }
}
