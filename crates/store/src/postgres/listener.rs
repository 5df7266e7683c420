//! Hints between processes by `LISTEN/NOTIFY`.
//!
//! Sending: never inside the transaction that causes the hint (there it would serialise all commits), but by one
//! task that gathers what arrived while its last message was under way. Receiving: one connection of its own, opened again
//! whenever it drops. Whatever is lost meanwhile, polling finds.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::signal::{Signal, WIRE_SIGNALS_MAX, Wire};

const CHANNEL: &str = "recache";
/// Hints waiting to be sent; more are dropped, because polling finds what they hint at.
const WAITING_MAX: usize = 10_000;
/// Between two messages of one process that only say "a queue has jobs": at most 20 a second. Whatever else there is to say does not
/// wait for that.
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
        let sending = send_all(waiting, move |signals| {
            let pool = pool.clone();
            async move { notify(&pool, me, &signals).await }
        });
        let mut tasks = vec![tokio::spawn(sending)];
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

async fn send_all<F, Sent>(mut waiting: mpsc::Receiver<Vec<Signal>>, mut send: F)
where
    F: FnMut(Vec<Signal>) -> Sent,
    Sent: Future<Output = ()>,
{
    let mut arrived = Vec::new();
    // Queues with jobs, each once, that nobody was told of yet.
    let mut queues: Vec<Signal> = Vec::new();
    let mut quiet_until = Instant::now();
    loop {
        tokio::select! {
            count = waiting.recv_many(&mut arrived, WAITING_MAX) => {
                if count == 0 {
                    return;
                }
            }
            () = tokio::time::sleep_until(quiet_until), if !queues.is_empty() => {}
        }
        let mut signals = Vec::new();
        for signal in arrived.drain(..).flatten() {
            if !matches!(signal, Signal::Queued(_)) {
                signals.push(signal);
            } else if !queues.contains(&signal) {
                queues.push(signal);
            }
        }
        let only_queues = signals.is_empty();
        if only_queues && (queues.is_empty() || Instant::now() < quiet_until) {
            continue;
        }
        // They cost nothing in a message that is sent anyway.
        signals.append(&mut queues);
        send(signals).await;
        if only_queues {
            quiet_until = Instant::now() + QUEUE_HINT_PAUSE;
        }
    }
}

async fn notify(pool: &PgPool, me: Uuid, signals: &[Signal]) {
    for part in signals.chunks(WIRE_SIGNALS_MAX) {
        let Ok(text) = serde_json::to_string(&Wire::pack(me, part)) else { continue };
        let sent = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(text).execute(pool).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "hint not sent, others find the work by polling");
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

#[cfg(test)]
mod tests {
    use recache_model::ids::JobId;

    use super::*;

    fn queued(queue: &str) -> Signal {
        Signal::Queued(queue.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_taken_away_is_told_at_once_and_queues_wait_for_their_time() {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let (sent, mut seen) = mpsc::unbounded_channel();
        let began = Instant::now();
        let sending = tokio::spawn(send_all(waiting, move |signals| {
            let _ = sent.send((began.elapsed().as_millis(), signals));
            std::future::ready(())
        }));
        let revoked = Signal::Revoked(JobId::make());
        let moments = [
            (0, queued("default")),
            (5, queued("mail")),
            (6, queued("mail")),
            (10, queued("default")),
            (90, queued("default")),
            (95, queued("mail")),
            (97, revoked.clone()),
            (98, queued("mail")),
        ];
        for (at, signal) in moments {
            tokio::time::sleep_until(began + Duration::from_millis(at)).await;
            queue.send(vec![signal]).await.unwrap();
        }
        let mut told = Vec::new();
        for _ in 0..4 {
            told.push(seen.recv().await.unwrap());
        }
        drop(queue);
        sending.await.unwrap();
        let all = |names: &[&str]| names.iter().map(|name| queued(name)).collect::<Vec<_>>();
        assert_eq!(
            told,
            [
                (0, all(&["default"])),
                (50, all(&["mail", "default"])),
                (97, vec![revoked, queued("default"), queued("mail")]),
                (100, all(&["mail"])),
            ]
        );
        assert!(seen.recv().await.is_none());
    }
}
