//! Memcached, by the meta protocol, or by the classic one where the server is older.
//!
//! | File | What |
//! |---|---|
//! | `wire/` | the protocol, pure: commands to bytes, bytes to answers |
//! | `connection` | one connection, one exchange at a time |
//! | `pool` | the connections to one server: lent, opened, mended |
//! | `servers` | which server has which key |
//! | `record` | what we put into an item |
//! | `probe` | what a server can do, by doing it |
//! | `writes` | storing entries, in two round trips |
//! | `leases`, `epochs`, `atomics` | what processes do together |
//!
//! What it cannot do: find entries (so `clear` leaves them to their epochs), and tell anybody of anything (so waiters ask
//! again). It keeps nothing over a restart, which changes the epochs' incarnation.

mod atomics;
mod connection;
mod draw;
mod epochs;
mod leases;
mod pool;
mod probe;
mod record;
mod servers;
mod wire;
mod writes;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::epochs::LastSeen;
use self::pool::Pool;
use self::servers::Servers;
#[cfg(fuzzing)]
pub use self::wire::reader_withstands;
use self::wire::{Answer, Command, Found, Mode, WireKey};
use super::{
    Atomics, Capabilities, Capability, Copies, Entry, EpochStore, Error, Item, Known, Leases, Messages,
    Provider, Scope, Source, latest,
};
use crate::clock::{Clock, Timestamp};
use crate::config::{MemcachedConfig, MemcachedServer};
use crate::key::{Key, KeyPrefix};
use crate::usage::Coherence;

const NAME: &str = "memcached";

/// How often a change is tried again when others change the same item at the same time.
const SWAPS_MAX: u32 = 64;

/// Where and how to connect.
#[derive(Debug, Clone)]
pub struct MemcachedSettings {
    /// The servers; a key always lies on the same one of them. While that one is down its keys are not available: were
    /// they moved to another one, what they were before would be back with their server.
    pub servers: Vec<MemcachedServer>,
    /// Connections held at most, to each server.
    pub max_connections: u32,
    /// How long a connection may take to come about. No call waits for so long.
    pub connection_timeout: Duration,
    /// By which entries end.
    pub clock: Arc<dyn Clock>,
}

impl MemcachedSettings {
    /// As configured; what is wrong with the address otherwise.
    pub fn from_config(config: &MemcachedConfig, clock: Arc<dyn Clock>) -> Result<Self, String> {
        Ok(Self {
            servers: config.servers()?,
            max_connections: config.max_connections,
            connection_timeout: Duration::from_secs(config.connection_timeout_seconds),
            clock,
        })
    }
}

/// One memcached server, or several with the keys spread over them.
///
/// Entries end exactly at their keep-for by the clock that was given; leases, numbers and plain values live at least as
/// long as asked for and up to two seconds longer, since the server counts in whole seconds.
#[derive(Debug)]
pub struct Memcached {
    servers: Servers,
    clock: Arc<dyn Clock>,
    epochs_key: String,
    epochs_seen: LastSeen,
}

impl Memcached {
    /// Connects by itself, at once when there is a runtime and otherwise with the first call; neither waits nor fails.
    /// The epochs of all processes lie under `prefix`.
    pub fn new(settings: MemcachedSettings, prefix: &KeyPrefix) -> Self {
        let MemcachedSettings { servers, max_connections, connection_timeout, clock } = settings;
        // `~` cannot come from escaping, so that no key of an entry looks like these.
        let probe_prefix = format!("{}:~probe", prefix.as_str());
        let pools = servers
            .into_iter()
            .map(|server| Pool::new(server, max_connections, connection_timeout, probe_prefix.clone()));
        Self {
            servers: Servers::new(pools.collect()),
            clock,
            epochs_key: format!("{}:~epochs", prefix.as_str()),
            epochs_seen: LastSeen::default(),
        }
    }

    /// One round trip with the server that has `key`.
    async fn ask(&self, key: WireKey<'_>, commands: &[Command<'_>]) -> Result<Vec<Answer>, Error> {
        self.servers.of(key)?.exchange(commands).await
    }

    /// As [`ask`](Self::ask), for one command.
    async fn ask_one(&self, key: WireKey<'_>, command: Command<'_>) -> Result<Answer, Error> {
        self.ask(key, &[command]).await?.into_iter().next().ok_or_else(|| protocol("no answer"))
    }

    async fn fetch(&self, key: WireKey<'_>) -> Result<Option<Found>, Error> {
        match self.ask_one(key, Command::Fetch { key, with_value: true, vivify: None }).await? {
            Answer::Found(found) => Ok(Some(found)),
            Answer::Missing => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    fn value_bytes_max(&self) -> usize {
        self.servers.facts().value_bytes_max()
    }

    /// Refuses what no server would take, and then removes what stood there: it is not what the caller wants to be found.
    async fn refuse_large(&self, keys: &[Key]) -> Result<(), Error> {
        self.delete(keys).await?;
        Err(refused(format!("an entry of more than {} bytes", self.value_bytes_max())))
    }

    fn is_large(&self, item: &Item) -> bool {
        item.bytes.len() > self.value_bytes_max()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Provider for Memcached {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        let facts = self.servers.facts();
        let mut capabilities = Capabilities::declared(
            Coherence::Strict,
            &[
                Capability::Retains,
                Capability::Shared,
                Capability::AtomicIncrement,
                Capability::CompareAndSwap,
                Capability::SetIfAbsent,
                Capability::Leases,
                Capability::Namespaces,
                Capability::Tags,
                Capability::Batch,
            ],
        )
        .limited(Capability::MaxKeyBytes, wire::KEY_BYTES_MAX)
        .limited(Capability::MaxValueBytes, facts.value_bytes_max());
        facts.claim(&mut capabilities);
        if !capabilities.has(Capability::CompareAndSwap) {
            // Without it there are no epochs, and without epochs an invalidation is only a removal.
            capabilities.claim(Capability::Tags, Known::Has(false), Source::Probed);
            capabilities = capabilities.coherent(Coherence::Eventual);
        }
        capabilities
    }

    fn peek(&self, _key: &Key, _now: Timestamp) -> Option<Item> {
        None
    }

    fn glance(&self, _key: &Key, _now: Timestamp, _see: &mut dyn FnMut(&Item)) {}

    async fn get(&self, key: &Key) -> Result<Option<Item>, Error> {
        let found = self.fetch(WireKey::new(key.as_str())?).await?;
        Ok(found.and_then(|found| record::entry(&found, self.clock.now())))
    }

    async fn set(&self, key: &Key, item: Item, keep_for: Duration) -> Result<(), Error> {
        self.set_many(vec![Entry { key: key.clone(), item, keep_for }]).await
    }

    /// The lease goes with the entry, in the same round trip.
    async fn delete(&self, keys: &[Key]) -> Result<(), Error> {
        let lease_names: Vec<_> = keys.iter().map(leases::name).collect();
        let mut commands = Vec::with_capacity(keys.len());
        for (key, lease_name) in keys.iter().zip(&lease_names) {
            let (key, lease) = (WireKey::new(key.as_str())?, WireKey::new(lease_name)?);
            let remove = |key| Command::Remove { key, cas: None };
            commands.push((key, [remove(key), remove(lease)]));
        }
        for (_, answers) in self.servers.all(&commands).await? {
            for answer in answers {
                match answer {
                    Answer::Done { .. } | Answer::Missing => {}
                    other => return Err(unexpected(&other)),
                }
            }
        }
        Ok(())
    }

    async fn replace(&self, key: &Key, seen: &Item, item: Item, keep_for: Duration) -> Result<bool, Error> {
        if self.is_large(&item) {
            return self.refuse_large(std::slice::from_ref(key)).await.map(|()| false);
        }
        let key = WireKey::new(key.as_str())?;
        for _ in 0..SWAPS_MAX {
            let Some(found) = self.fetch(key).await? else { return Ok(false) };
            let now = self.clock.now();
            if record::entry(&found, now).is_none_or(|there| there.bytes != seen.bytes) {
                return Ok(false);
            }
            let ends_at = record::ends_at(now, keep_for);
            match self
                .ask_one(key, store_entry(key, Mode::Swap(found.cas), &ends_at, &item, keep_for))
                .await?
            {
                Answer::Done { .. } => return Ok(true),
                Answer::Missing => return Ok(false),
                // Perhaps by the same value: what stands there now decides.
                Answer::Changed => {}
                other => return Err(unexpected(&other)),
            }
        }
        Err(contended())
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, Error> {
        let mut commands = Vec::with_capacity(keys.len());
        for key in keys {
            let key = WireKey::new(key.as_str())?;
            commands.push((key, [Command::Fetch { key, with_value: true, vivify: None }]));
        }
        let now = self.clock.now();
        let mut items = vec![None; keys.len()];
        self.servers
            .each(&commands, |place, answer| match (answer, items.get_mut(place)) {
                (Answer::Found(found), Some(item)) => {
                    *item = record::entry(&found, now);
                    Ok(())
                }
                (Answer::Missing, Some(_)) => Ok(()),
                (other, _) => Err(unexpected(&other)),
            })
            .await?;
        Ok(items)
    }

    /// Entries that are too large are refused after the others have been stored.
    async fn set_many(&self, entries: Vec<Entry>) -> Result<(), Error> {
        let (large, entries): (Vec<_>, Vec<_>) =
            latest(entries).into_iter().partition(|entry| self.is_large(&entry.item));
        let written = self.write(&entries).await;
        if !large.is_empty() {
            let keys: Vec<_> = large.into_iter().map(|entry| entry.key).collect();
            self.refuse_large(&keys).await?;
        }
        written
    }

    /// Leaves them: memcached cannot list its keys, and `flush_all` would reach other deployments. The caller has raised
    /// the epoch, so nobody is served what is left, nor what a lease from before fills.
    async fn clear(&self, _scope: &Scope) -> Result<(), Error> {
        Ok(())
    }

    /// Every server must answer: each has keys that no other has.
    async fn health(&self) -> Result<(), Error> {
        self.servers.health().await
    }

    /// As of the last probe or look at its health, summed over the servers.
    fn evictions(&self) -> Option<u64> {
        self.servers.evictions()
    }

    fn read_limit(&self) -> Option<Duration> {
        None
    }

    fn copies(&self) -> Option<&dyn Copies> {
        None
    }

    // Asked at every call, so without putting together all capabilities.

    fn leases(&self) -> Option<&dyn Leases> {
        self.servers.facts().may_grant_leases().then_some(self)
    }

    fn epochs(&self) -> Option<&dyn EpochStore> {
        self.servers.facts().may_keep_epochs().then_some(self)
    }

    fn atomics(&self) -> Option<&dyn Atomics> {
        self.servers.facts().may_count().then_some(self)
    }

    fn messages(&self) -> Option<&dyn Messages> {
        None
    }
}

fn store_entry<'a>(
    key: WireKey<'a>,
    mode: Mode,
    ends_at: &'a [u8],
    item: &'a Item,
    keep_for: Duration,
) -> Command<'a> {
    let seconds = record::seconds_for(keep_for);
    Command::Store { key, mode, kind: record::ENTRY, seconds, value: [ends_at, &item.bytes] }
}

fn unavailable(reason: impl Into<String>) -> Error {
    Error::Unavailable { provider: NAME, reason: reason.into() }
}

fn refused(reason: impl Into<String>) -> Error {
    Error::Refused { provider: NAME, reason: reason.into() }
}

fn protocol(reason: impl fmt::Display) -> Error {
    Error::Protocol { provider: NAME, reason: reason.to_string() }
}

/// Others changed the same item, again and again: the server is well, and this call is not carried out.
fn contended() -> Error {
    refused(format!("the item was changed by others {SWAPS_MAX} times in a row"))
}

/// An answer that makes no sense here, told without what is in it.
fn unexpected(answer: &Answer) -> Error {
    let what = match answer {
        Answer::Refused(reason) => return refused(*reason),
        Answer::Found(_) => "an item",
        Answer::Missing => "that there is no item",
        Answer::Done { .. } => "that it is done",
        Answer::NotStored => "that it is not stored",
        Answer::Changed => "that the item has changed",
        Answer::Counted(_) => "a number",
        Answer::Hello { .. } | Answer::Stats(_) => "something about itself",
        Answer::Denied => return unavailable("it wants a user and a password"),
    };
    protocol(format!("it answered {what}, which makes no sense here"))
}
