//! What goes on beside the calls: the epochs of all processes are read, what is owed to them is sent, and messages
//! about changed keys are heard. One task for each cache, begun with its first use inside a runtime.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::OptionFuture;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::Core;
use super::backplane::{Heard, Notice, Verdict};
use crate::epochs::Slot;
use crate::key::Key;
use crate::provider::{EpochStore, Message, Messages};
use crate::token::Token;

/// Never heard.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Upkeep {
    beat: Duration,
    lag_max: Duration,
    is_running: AtomicBool,
    /// Something is to be done before the next beat.
    wake: Notify,
    /// When the shared epochs were last known for sure, in microseconds of the clock's elapsed time.
    epochs_heard_us: AtomicU64,
    /// How often the store had been [entered](EpochStore::entered) when that was asked for.
    entered_heard: AtomicU64,
    /// When an own message last came back, likewise: the moment when it was sent.
    own_heard_us: AtomicU64,
    has_lost_sight: AtomicBool,
    /// Held by whoever sends what is owed: two at once would raise everything twice.
    paying: tokio::sync::Mutex<()>,
    hearing: Mutex<Hearing>,
}

#[derive(Debug, Default)]
struct Hearing {
    heard: Heard,
    /// The last own beat, and when it was sent.
    own: (u64, Duration),
}

impl Upkeep {
    pub(super) fn new(beat: Duration, lag_max: Duration) -> Self {
        Self {
            beat,
            lag_max,
            is_running: AtomicBool::new(false),
            wake: Notify::new(),
            epochs_heard_us: AtomicU64::new(NEVER),
            entered_heard: AtomicU64::new(0),
            own_heard_us: AtomicU64::new(NEVER),
            has_lost_sight: AtomicBool::new(false),
            paying: tokio::sync::Mutex::default(),
            hearing: Mutex::default(),
        }
    }

    pub(super) fn lag_max(&self) -> Duration {
        self.lag_max
    }

    /// Something is owed: sees to it at once.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// The shared epochs are known as they were at `elapsed` or later.
    pub(super) fn epochs_heard(&self, elapsed: Duration, entered: u64) {
        self.entered_heard.fetch_max(entered, Ordering::SeqCst);
        raise_to(&self.epochs_heard_us, elapsed);
    }

    fn hearing(&self) -> MutexGuard<'_, Hearing> {
        self.hearing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Begins the upkeep if there is any to do and a runtime to do it in.
    pub(super) fn attend(self: &Arc<Self>) {
        if self.upkeep.is_running.load(Ordering::Relaxed) || !self.shares_epochs {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.upkeep.is_running.swap(true, Ordering::SeqCst) {
            runtime.spawn(attend(Running(Arc::downgrade(self))));
        }
    }

    /// Whether copies in this process may be served: nothing that others changed more than `lag_max` ago is unknown here.
    pub(super) fn is_current(&self, lag_max: Duration) -> bool {
        let now = micros(self.calls.clock.elapsed_coarse());
        let lag_max = micros(lag_max);
        let is_recent = |heard: &AtomicU64| {
            let heard = heard.load(Ordering::SeqCst);
            heard != NEVER && now.saturating_sub(heard) <= lag_max
        };
        self.is_sighted()
            && is_recent(&self.upkeep.epochs_heard_us)
            && (!self.hears_keys || is_recent(&self.upkeep.own_heard_us))
    }

    /// Whether the shared epochs were read since the last connection was opened: before that, what comes over it may be from long
    /// ago.
    pub(super) fn is_sighted(&self) -> bool {
        let Some(store) = self.epoch_store() else { return true };
        store.entered() <= self.upkeep.entered_heard.load(Ordering::SeqCst)
    }

    /// Whether this process knows of the change that left `token`.
    pub(super) fn has_heard(&self, token: &Token) -> bool {
        if token.instance == self.instance {
            return true;
        }
        let (incarnation, version) = self.epochs.known();
        let knows_epochs = incarnation == token.incarnation && version >= token.version;
        knows_epochs
            && token.is_confirmed
            && (!self.hears_keys || self.upkeep.hearing().heard.has(token.instance, token.sequence))
    }

    /// Raises the epochs of `slots`: here at once, for all processes before it returns or as soon as it can be. Answers
    /// whether all processes have it.
    pub(super) async fn raise(&self, slots: &[Slot]) -> bool {
        self.epochs.raise(slots);
        self.pay().await
    }

    /// Raises the epochs here, and leaves the rest to the upkeep.
    pub(super) fn raise_later(&self, slots: &[Slot]) {
        self.epochs.raise(slots);
        self.upkeep.wake();
    }

    /// Sends what is owed. A backend that kept the epochs before may lack them for a while: then nothing is confirmed.
    async fn pay(&self) -> bool {
        let Some(store) = self.epoch_store() else { return !self.shares_epochs };
        let _turn = self.upkeep.paying.lock().await;
        let debts = self.epochs.debts();
        if debts.is_empty() {
            return true;
        }
        let slots: Vec<_> = debts.iter().map(|(slot, _)| *slot).collect();
        let (began, entered) = (self.calls.clock.elapsed(), store.entered());
        match self.calls.run("raise_epochs", store.raise(&slots)).await {
            Ok(record) => {
                self.epochs.paid(&debts, &record);
                self.upkeep.epochs_heard(began, entered);
                true
            }
            Err(_) => false,
        }
    }

    /// Tells the other processes which keys have changed. Answers whether it was sent; with how many they all are.
    pub(super) async fn tell(&self, keys: &[Key]) -> bool {
        let provider = &self.calls.provider;
        let (Some(_), Some(messages)) = (provider.copies(), provider.messages()) else { return true };
        let keys = keys.iter().map(|key| key.as_str().to_owned()).collect();
        self.calls.run("publish", self.publish(messages, keys)).await.is_ok()
    }

    async fn publish(
        &self,
        messages: &dyn Messages,
        keys: Vec<String>,
    ) -> Result<(), crate::provider::Error> {
        let sequence = self.sequence.fetch_add(1, Ordering::SeqCst) + 1;
        if keys.is_empty() {
            self.upkeep.hearing().own = (sequence, self.calls.clock.elapsed());
        }
        let notice = Notice {
            instance: self.instance,
            sequence,
            sent_at_us: self.calls.clock.now().as_micros(),
            epochs_version: self.epochs.known().1,
            keys,
        };
        messages.publish(&self.channel(), Bytes::from(notice.encode())).await
    }

    /// The number names the format of the messages.
    fn channel(&self) -> String {
        format!("{}:~changes1", self.prefix.as_str())
    }

    /// One beat: sends what is owed, or asks what is new, and lets itself be heard.
    async fn beat(&self) {
        let provider = &self.calls.provider;
        if let (Some(_), Some(messages)) = (provider.copies(), provider.messages()) {
            let _ = self.calls.run("publish", self.publish(messages, Vec::new())).await;
        }
        let is_known = if self.epochs.owes() { self.pay().await } else { self.ask().await };
        self.sight(is_known);
        if is_known {
            self.audit_some().await;
        }
    }

    /// Before the first word of the shared epochs nothing can be stored that others could read. In vain when they cannot
    /// be reached: then it cannot be stored either.
    pub(super) async fn know_epochs(self: &Arc<Self>) {
        self.attend();
        if self.epoch_store().is_some() && self.epochs.known().0 == 0 {
            self.ask().await;
        }
    }

    /// Asks for the shared epochs.
    async fn ask(&self) -> bool {
        let Some(store) = self.epoch_store() else { return !self.shares_epochs };
        let (began, entered) = (self.calls.clock.elapsed(), store.entered());
        let (incarnation, version) = self.epochs.known();
        match self.calls.run("read_epochs", store.read(incarnation, version)).await {
            Ok(record) => {
                if let Some(record) = record {
                    self.epochs.adopt(&record);
                }
                self.upkeep.epochs_heard(began, entered);
                true
            }
            Err(_) => false,
        }
    }

    /// While the shared record was out of sight, others may have changed things and been unable to say so. What strict
    /// usages stored before is therefore ended, here at once and for all once it can be sent.
    fn sight(&self, is_known: bool) {
        let had_lost_sight = self.upkeep.has_lost_sight.swap(!is_known, Ordering::SeqCst);
        match (had_lost_sight, is_known) {
            (false, false) => {
                self.epochs.raise(&[Slot::STRICT]);
                warn!(
                    provider = self.calls.provider.name(),
                    "cache has lost sight of the other processes' changes"
                );
            }
            (true, true) => {
                info!(provider = self.calls.provider.name(), "cache sees the other processes' changes again");
            }
            _ => {}
        }
    }

    async fn hear(&self, message: Message) {
        let Some(copies) = self.calls.provider.copies() else { return };
        let notice = match &message {
            Message::Gap => None,
            Message::Payload(bytes) => Notice::decode(bytes),
        };
        let Some(notice) = notice else {
            // Listening began anew, or somebody sends what cannot be read: anything may have been missed.
            self.upkeep.own_heard_us.store(NEVER, Ordering::SeqCst);
            self.upkeep.hearing().heard.gap();
            copies.forget_all().await;
            self.calls.counters.gaps.one();
            self.upkeep.wake();
            return;
        };
        let (verdict, own_beat) = {
            let mut hearing = self.upkeep.hearing();
            (hearing.heard.note(notice.instance, notice.sequence), hearing.own)
        };
        if notice.instance == self.instance {
            if own_beat.0 == notice.sequence {
                raise_to(&self.upkeep.own_heard_us, own_beat.1);
            }
            return;
        }
        match verdict {
            Verdict::InOrder => {}
            Verdict::Old => return,
            Verdict::Missing => {
                debug!(
                    instance = notice.instance,
                    "a message of another process is missing: all copies are dropped"
                );
                copies.forget_all().await;
                self.calls.counters.gaps.one();
            }
        }
        if !notice.keys.is_empty() {
            let keys: Vec<Key> = notice.keys.iter().filter_map(|key| self.prefix.parse(key)).collect();
            self.audit_copies(&keys, notice.sent_at_us);
            copies.forget(&keys);
            for key in &keys {
                self.flights.refuse(key);
            }
        }
        if notice.epochs_version > self.epochs.known().1 {
            self.upkeep.wake();
        }
    }
}

/// The running upkeep of a cache, as long as somebody uses that.
#[derive(Debug)]
struct Running(Weak<Core>);

impl Drop for Running {
    /// The runtime may end before the cache does: the next use begins anew.
    fn drop(&mut self) {
        if let Some(core) = self.0.upgrade() {
            core.upkeep.is_running.store(false, Ordering::SeqCst);
        }
    }
}

async fn attend(running: Running) {
    let mut inbox = running.0.upgrade().and_then(|core| listen(&core));
    loop {
        let Some(core) = running.0.upgrade() else { return };
        core.beat().await;
        let until_beat = sleep(core.upkeep.beat);
        tokio::pin!(until_beat);
        loop {
            let hint = OptionFuture::from(core.epoch_store().map(EpochStore::changed));
            tokio::select! {
                () = &mut until_beat => break,
                () = core.upkeep.wake.notified() => {
                    // A pause, so that many changes at once cost one beat.
                    sleep(core.upkeep.beat / 20).await;
                    break;
                }
                Some(()) = hint => break,
                message = receive(&mut inbox) => match message {
                    Some(message) => core.hear(message).await,
                    None => inbox = None,
                },
            }
        }
    }
}

fn listen(core: &Arc<Core>) -> Option<mpsc::Receiver<Message>> {
    let provider = &core.calls.provider;
    provider.copies()?;
    Some(provider.messages()?.subscribe(&core.channel()))
}

async fn receive(inbox: &mut Option<mpsc::Receiver<Message>>) -> Option<Message> {
    match inbox {
        Some(inbox) => inbox.recv().await,
        None => std::future::pending().await,
    }
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(NEVER - 1).min(NEVER - 1)
}

fn raise_to(heard: &AtomicU64, elapsed: Duration) {
    let elapsed = micros(elapsed);
    let later = |known: u64| if known == NEVER { elapsed } else { known.max(elapsed) };
    let _ = heard.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |known| Some(later(known)));
}
