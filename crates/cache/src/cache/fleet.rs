//! The right to load a key among all processes: at most one loads, the others wait for what it stores.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::calls::Failure;
use super::entry::{Live, Value};
use super::read::{Found, Look};
use super::{Cache, Core};
use crate::key::Key;
use crate::policy::Policy;
use crate::provider::{Item, Lease, Leased};
use crate::usage::Verdict;

/// How long a waiter sleeps before it asks again when nobody has woken it: a part of the time that it has waited, so that
/// it comes late by no more than that part of the load, and a long load is not asked for often.
const ASK_AGAIN_PART: u32 = 5;
const ASK_AGAIN_FIRST: Duration = Duration::from_millis(5);
const ASK_AGAIN_LONGEST: Duration = Duration::from_millis(200);

/// What a process that wants to load a key is to do.
#[derive(Debug)]
pub(super) enum Turn<V> {
    /// Load, and store under the lease if there is one.
    Load(Option<HeldLease>),
    /// Load and store nothing: whether that would be right cannot be known.
    LoadOnly,
    /// Somebody has made it.
    Answer(Arc<Live<V>>),
    /// Somebody is making it, and there is something to serve meanwhile.
    ServeKept,
}

/// How long to wait before a lease that could not be given back is tried to be given back again; doubled each time, up to
/// the second.
const GIVE_BACK_FIRST: Duration = Duration::from_millis(50);
const GIVE_BACK_LONGEST: Duration = Duration::from_millis(500);

/// How long what a write leaves may stand, on backends that count in whole seconds too.
const WRITE_LEFT_FOR: Duration = Duration::from_secs(4);

/// A lease that was asked for. When the answer never comes, because the backend failed or the caller went away, it may have
/// been granted all the same, and everybody would wait for its end: it is given back as soon as that can be sent.
#[derive(Debug)]
struct Asked {
    core: Arc<Core>,
    key: Key,
    token: u128,
    lease_for: Duration,
    is_answered: bool,
}

impl Asked {
    fn new(core: &Arc<Core>, key: &Key, token: u128, lease_for: Duration) -> Self {
        Self { core: Arc::clone(core), key: key.clone(), token, lease_for, is_answered: false }
    }

    fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.is_answered {
            let lease = Lease { token: self.token, fence: Lease::FENCE_UNKNOWN };
            give_back(&self.core, &self.key, lease, self.lease_for);
        }
    }
}

/// What is left at the backend by a call that failed, or whose caller went away.
#[derive(Debug)]
enum Left {
    /// A lease that may have been granted.
    Lease(Key, Lease),
    /// What the first half of a write has left under its keys for the second. They are not served any more in any case.
    Writes(Vec<Key>),
}

/// Ends a lease in the background.
fn give_back(core: &Arc<Core>, key: &Key, lease: Lease, lease_for: Duration) {
    sweep_up(core, Left::Lease(key.clone(), lease), lease_for);
}

/// Ends in the background what a write that failed has left.
pub(super) fn give_up_write(core: &Arc<Core>, keys: &[Key]) {
    sweep_up(core, Left::Writes(keys.to_vec()), WRITE_LEFT_FOR);
}

/// While the backend cannot be told, it is tried again until what is left has ended by itself: it may have come about just
/// before an outage, and all who load the key after that would wait for it.
fn sweep_up(core: &Arc<Core>, left: Left, ends_in: Duration) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let core = Arc::clone(core);
    runtime.spawn(async move {
        let Some(leases) = core.calls.provider.leases() else { return };
        let (mut waited, mut pause) = (Duration::ZERO, GIVE_BACK_FIRST);
        while waited < ends_in {
            let told = match &left {
                Left::Lease(key, lease) => core.calls.run("release_lease", leases.release(key, lease)).await,
                Left::Writes(keys) => core.calls.run("delete", core.calls.provider.delete(keys)).await,
            };
            if told.is_ok() {
                return;
            }
            sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(GIVE_BACK_LONGEST);
        }
    });
}

/// A lease that is given back when it is dropped without having been used.
#[derive(Debug)]
pub(super) struct HeldLease {
    core: Arc<Core>,
    key: Key,
    lease: Lease,
    lease_for: Duration,
    is_used: bool,
}

impl Cache {
    /// Asks for the right to load `key`. `look` is what was found; `may_serve_kept` says that its stale or fresh value
    /// can be served when somebody else loads.
    pub(super) async fn turn<V: Value>(
        &self,
        key: &Key,
        policy: &Policy,
        look: &Look<V>,
        may_serve_kept: bool,
    ) -> Turn<V> {
        let core = &self.core;
        let Some(leases) = core.calls.provider.leases() else {
            return Turn::Load(None);
        };
        if !look.was_answered {
            return Turn::LoadOnly;
        }
        let token = core.chance.token();
        let began = Instant::now();
        let deadline = began + policy.follow_limit();
        let mut ask_again = ASK_AGAIN_FIRST;
        let mut seen: Option<Item> = look.item.clone();
        loop {
            // Begins before asking, so that a lease that ends in between is noticed.
            let mut ended = pin!(leases.ended(key));
            let has_ended = poll_fn(|context| Poll::Ready(ended.as_mut().poll(context).is_ready())).await;
            let asked = Asked::new(core, key, token, policy.lease_limit());
            let take = leases.take(key, token, policy.lease_limit(), seen.as_ref());
            let taken = core.calls.run("take_lease", take).await;
            if taken.as_ref().map_or_else(Failure::was_not_sent, |_| true) {
                asked.answered();
            }
            match taken {
                Err(_) => return Turn::LoadOnly,
                Ok(Leased::Granted(lease)) => {
                    return Turn::Load(Some(HeldLease {
                        core: Arc::clone(core),
                        key: key.clone(),
                        lease,
                        lease_for: policy.lease_limit(),
                        is_used: false,
                    }));
                }
                Ok(Leased::Present(item)) => {
                    if let Found::Fresh(live) =
                        self.judge_shared(key, &item, policy.schema_of(), core.calls.clock.now())
                    {
                        core.calls.counters.fleet_coalesced.one();
                        return Turn::Answer(live);
                    }
                    if Instant::now() >= deadline {
                        return Turn::LoadOnly;
                    }
                    seen = Some(item);
                    continue;
                }
                Ok(Leased::Held) => {}
            }
            if may_serve_kept {
                return Turn::ServeKept;
            }
            // A strict caller takes nothing from a load that may have begun before his call.
            if self.verdict == Verdict::ServeUnshared || Instant::now() >= deadline {
                return Turn::LoadOnly;
            }
            core.calls.counters.lease_waits.one();
            let pause = ask_again.mul_f64(0.5 + core.chance.part() / 2.0);
            let woken = async {
                // Over at once if it ended while we asked: a finished future must not be polled again.
                if !has_ended {
                    tokio::select! {
                        () = &mut ended => {}
                        () = sleep(pause) => {}
                    }
                }
            };
            let _ = timeout_at(deadline, woken).await;
            ask_again = (began.elapsed() / ASK_AGAIN_PART).clamp(ASK_AGAIN_FIRST, ASK_AGAIN_LONGEST);
            let look = self.look::<V>(key, policy.schema_of()).await;
            if let Found::Fresh(live) = look.found {
                core.calls.counters.fleet_coalesced.one();
                return Turn::Answer(live);
            }
            seen = look.item;
        }
    }
}

impl HeldLease {
    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// It was used: nothing is to be given back.
    pub(super) fn used(mut self) {
        self.is_used = true;
    }
}

impl Drop for HeldLease {
    /// The load brought nothing, or its caller went away: the others need not wait for the lease's end.
    fn drop(&mut self) {
        if !self.is_used {
            give_back(&self.core, &self.key, self.lease, self.lease_for);
        }
    }
}
