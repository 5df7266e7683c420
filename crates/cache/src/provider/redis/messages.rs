//! Messages: one connection of the process listens for all who listen in it, and for the wakes of leases and epochs. It
//! comes on top of the connections for commands, and only when somebody listens.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use redis::aio::{PubSub, PubSubSink};
use redis::{Msg, cmd};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Redis;
use super::errors::{Failure, unavailable};
use super::lane::{ASKED_EVERY, OVERDUE_AFTER, first_of, jittered};
use super::node::Line;
use super::servers::Servers;
use super::wakes::Wakes;
use crate::provider::{Error, Message, Messages};

/// Messages that wait for a listener; one who lets more wait is told of a gap.
const MESSAGES_WAITING_MAX: usize = 1_024;

/// Messages taken in a row before it is looked again who wants what.
const MESSAGES_BETWEEN_LOOKS: usize = 256;

/// Between attempts to listen again.
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[async_trait]
impl Messages for Redis {
    async fn publish(&self, channel: &str, payload: Bytes) -> Result<(), Error> {
        let mut publish = cmd("PUBLISH");
        publish.arg(channel).arg(&payload[..]);
        let nodes = self.inner.servers.all();
        let Some(node) = nodes.iter().find(|node| node.is_open()).or(nodes.first()) else {
            return Err(unavailable("no server is known yet"));
        };
        node.one(Line::Ordered, &publish).await.map(drop).map_err(Failure::into_error)
    }

    fn subscribe(&self, channel: &str) -> mpsc::Receiver<Message> {
        let (sender, receiver) = mpsc::channel(MESSAGES_WAITING_MAX);
        let listener = Listener { sender, is_lossy: false, has_begun: false };
        self.inner.hub.locked().entry(channel.to_owned()).or_default().push(listener);
        self.inner.hub.changed.notify_one();
        self.start();
        receiver
    }
}

/// Who listens in this process.
#[derive(Debug, Default)]
pub(super) struct Hub {
    listeners: Mutex<HashMap<String, Vec<Listener>>>,
    changed: Notify,
}

#[derive(Debug)]
struct Listener {
    sender: mpsc::Sender<Message>,
    /// The last that it was sent is a gap, since there was no room for more.
    is_lossy: bool,
    /// Whether it knows that listening has begun on the present connection.
    has_begun: bool,
}

impl Listener {
    /// The last free place is kept for the gap: what was lost after it was lost before it is read.
    fn offer(&mut self, message: Message) {
        if self.sender.capacity() >= 2 {
            self.is_lossy = false;
            let _ = self.sender.try_send(message);
        } else if !self.is_lossy {
            self.is_lossy = self.sender.try_send(Message::Gap).is_ok();
        }
    }
}

impl Hub {
    fn locked(&self) -> MutexGuard<'_, HashMap<String, Vec<Listener>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn look(&self) {
        self.changed.notify_one();
    }

    /// The channels that somebody listens to; who is gone is forgotten.
    fn wanted(&self, wakes: &Wakes) -> BTreeSet<String> {
        let mut listeners = self.locked();
        listeners.retain(|_, listeners| {
            listeners.retain(|listener| !listener.sender.is_closed());
            !listeners.is_empty()
        });
        let own = wakes.is_wanted().then(|| wakes.channel().to_owned());
        listeners.keys().cloned().chain(own).collect()
    }

    /// Tells those who do not know yet that listening has begun.
    fn begin(&self, channels: &BTreeSet<String>) {
        for (channel, listeners) in &mut *self.locked() {
            for listener in listeners.iter_mut().filter(|listener| !listener.has_begun) {
                if channels.contains(channel) {
                    listener.has_begun = true;
                    listener.offer(Message::Gap);
                }
            }
        }
    }

    fn interrupt(&self) {
        for listener in self.locked().values_mut().flatten() {
            listener.has_begun = false;
        }
    }

    fn deliver(&self, message: &Msg, wakes: &Wakes) {
        let channel = message.get_channel_name();
        if channel == wakes.channel() {
            wakes.hear(message.get_payload_bytes());
        }
        let mut listeners = self.locked();
        let Some(listeners) = listeners.get_mut(channel) else { return };
        let payload = Bytes::copy_from_slice(message.get_payload_bytes());
        for listener in listeners.iter_mut().filter(|listener| listener.has_begun) {
            listener.offer(Message::Payload(payload.clone()));
        }
    }
}

/// Listens as long as anybody wants to, on whatever server is there.
pub(super) async fn listen(hub: Arc<Hub>, wakes: Arc<Wakes>, servers: Arc<Servers>) {
    let mut pause = PAUSE_MIN;
    let mut turn = 0_usize;
    loop {
        while hub.wanted(&wakes).is_empty() {
            hub.changed.notified().await;
        }
        let nodes = servers.all();
        // Not before the server is open for commands: another one may take its place then.
        let node = nodes.get(turn % nodes.len().max(1)).filter(|node| node.is_open());
        turn = turn.wrapping_add(1);
        let reopened = node.map(|node| node.door().reopened());
        if let (Some(node), Some(reopened)) = (node, reopened)
            && let Ok(connection) = first_of(|| node.door().listen()).await
        {
            let since = Instant::now();
            tokio::select! {
                () = hear(connection, &hub, &wakes) => {}
                () = reopened => {}
            }
            hub.interrupt();
            if since.elapsed() >= PAUSE_MAX {
                pause = PAUSE_MIN;
            }
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Until the connection is broken or stalled, or nobody listens any more.
async fn hear(connection: PubSub, hub: &Hub, wakes: &Wakes) {
    let (mut sink, mut stream) = connection.split();
    let mut subscribed = BTreeSet::new();
    let mut ask_at = Instant::now() + ASKED_EVERY;
    loop {
        let wanted = hub.wanted(wakes);
        if wanted.is_empty() || agree(&mut sink, &mut subscribed, wanted, wakes).await.is_none() {
            return;
        }
        hub.begin(&subscribed);
        tokio::select! {
            message = stream.next() => match message {
                Some(message) => {
                    hub.deliver(&message, wakes);
                    // What has come already costs no look at who wants what.
                    for _ in 0..MESSAGES_BETWEEN_LOOKS {
                        let Some(Some(message)) = stream.next().now_or_never() else { break };
                        hub.deliver(&message, wakes);
                    }
                }
                None => return,
            },
            () = hub.changed.notified() => {}
            () = sleep_until(ask_at) => {
                if !matches!(timeout(OVERDUE_AFTER, sink.ping::<redis::Value>()).await, Ok(Ok(_))) {
                    return;
                }
                ask_at = Instant::now() + ASKED_EVERY;
            }
        }
    }
}

/// Listens to what is wanted and to nothing else; `None` when the connection does not serve for it.
async fn agree(
    sink: &mut PubSubSink,
    subscribed: &mut BTreeSet<String>,
    wanted: BTreeSet<String>,
    wakes: &Wakes,
) -> Option<()> {
    let new: Vec<_> = wanted.difference(subscribed).cloned().collect();
    let gone: Vec<_> = subscribed.difference(&wanted).cloned().collect();
    if !new.is_empty() {
        timeout(OVERDUE_AFTER, sink.subscribe(&new)).await.ok()?.ok()?;
        if new.iter().any(|channel| channel == wakes.channel()) {
            wakes.hear_all();
        }
    }
    if !gone.is_empty() {
        timeout(OVERDUE_AFTER, sink.unsubscribe(&gone)).await.ok()?.ok()?;
    }
    *subscribed = wanted;
    Some(())
}
