//! One load of a key for the whole fleet.
//!
//! *Nothing stands under the key.* The taker's read makes an empty placeholder for the time of the lease (`mg … N`), and
//! the one reader that made it is told so. Its CAS number is the fence: whoever sets or deletes the key, and the
//! placeholder's own end, void it. A server without vivification is asked to `add` a placeholder that carries the token.
//!
//! *An entry stands there*, and somebody refreshes it. The entry must stay readable, so the lease is an item of its own,
//! added under a name beside the key; and the entry is given a new CAS number, which is the fence. The next holder does
//! the same, so that the fill of one whose time has run out finds another number; and who holds no lease item any more
//! does not even try.
//!
//! Times are whole seconds: a lease lasts as long as asked for, and up to two seconds longer. Nobody is told of its end.

use std::time::Duration;

use async_trait::async_trait;

use super::wire::{Answer, Command, Found, Mode, WireKey};
use super::{Memcached, SWAPS_MAX, contended, record, refused, store_entry, unexpected};
use crate::key::Key;
use crate::provider::{Error, Item, Lease, Leased, Leases};

/// In the fence of a lease on an entry that stands.
const BESIDE_AN_ENTRY: u64 = 1 << 63;

/// The lower part of a fence is a CAS number, which counts up from 1 on each server; above it is which server that is.
const CAS_BITS: u32 = 48;
const CAS_MASK: u64 = (1 << CAS_BITS) - 1;

/// Under which name the lease on a standing entry lies. `~` cannot come from escaping.
pub(super) fn name(key: &Key) -> String {
    format!("{}:~lease", key.as_str())
}

#[async_trait]
impl Leases for Memcached {
    async fn take(
        &self,
        key: &Key,
        token: u128,
        lease_for: Duration,
        seen: Option<&Item>,
    ) -> Result<Leased, Error> {
        let lease_name = name(key);
        let (key, lease_key) = (WireKey::new(key.as_str())?, WireKey::new(&lease_name)?);
        let seconds = record::seconds_for(lease_for);
        let token_bytes = token.to_le_bytes();
        let server = self.server_part(key)?;
        // A number that does not fit would be no fence, so nobody gets the lease: that takes 2.8 * 10^14 writes.
        let granted = |cas: u64, beside| match cas & !CAS_MASK {
            0 => Leased::Granted(Lease { token, fence: cas | server | beside }),
            _ => Leased::Held,
        };
        for _ in 0..SWAPS_MAX {
            let look = Command::Fetch { key, with_value: true, vivify: Some(seconds) };
            let found = match self.ask_one(key, look).await? {
                Answer::Found(found) => found,
                Answer::Missing => {
                    // It cannot vivify. Who stores the placeholder reads it back for its number.
                    self.add_lease(key, key, &token_bytes, seconds).await?;
                    continue;
                }
                other => return Err(unexpected(&other)),
            };
            if found.is_won || is_lease_of(&found, &token_bytes) {
                return Ok(granted(found.cas, 0));
            }
            if found.kind != record::ENTRY {
                return Ok(Leased::Held);
            }
            if let Some(there) = record::entry(&found, self.clock.now())
                && seen.is_none_or(|seen| seen.bytes != there.bytes)
            {
                return Ok(Leased::Present(there));
            }
            if !self.add_lease(key, lease_key, &token_bytes, seconds).await? {
                return Ok(Leased::Held);
            }
            if let Some(cas) = self.bump(key, &found).await? {
                return Ok(granted(cas, BESIDE_AN_ENTRY));
            }
            // The entry was changed or removed meanwhile: another look decides.
            self.ask_one(key, Command::Remove { key: lease_key, cas: None }).await?;
        }
        Err(contended())
    }

    async fn fill(&self, key: &Key, lease: &Lease, item: Item, keep_for: Duration) -> Result<bool, Error> {
        if self.is_large(&item) {
            self.release(key, lease).await?;
            return Err(refused(format!("an entry of more than {} bytes", self.value_bytes_max())));
        }
        let lease_name = name(key);
        let (key, lease_key) = (WireKey::new(key.as_str())?, WireKey::new(&lease_name)?);
        if !self.is_of_server(key, lease)? {
            return Ok(false);
        }
        let ends_at = record::ends_at(self.clock.now(), keep_for);
        let store = store_entry(key, Mode::Swap(lease.fence & CAS_MASK), &ends_at, &item, keep_for);
        let stored = if lease.fence & BESIDE_AN_ENTRY == 0 {
            self.ask_one(key, store).await?
        } else {
            let Some(lease_cas) = self.own_lease(key, lease_key, lease).await? else { return Ok(false) };
            let end = Command::Remove { key: lease_key, cas: Some(lease_cas) };
            self.ask(key, &[store, end]).await?.into_iter().next().unwrap_or(Answer::Missing)
        };
        match stored {
            Answer::Done { .. } => Ok(true),
            Answer::Changed | Answer::Missing => Ok(false),
            other => Err(unexpected(&other)),
        }
    }

    async fn release(&self, key: &Key, lease: &Lease) -> Result<(), Error> {
        let lease_name = name(key);
        let (key, lease_key) = (WireKey::new(key.as_str())?, WireKey::new(&lease_name)?);
        if lease.fence == Lease::FENCE_UNKNOWN {
            return self.release_unknown(key, lease_key, lease).await;
        }
        if !self.is_of_server(key, lease)? {
            return Ok(());
        }
        let remove = if lease.fence & BESIDE_AN_ENTRY == 0 {
            Command::Remove { key, cas: Some(lease.fence & CAS_MASK) }
        } else {
            let Some(lease_cas) = self.own_lease(key, lease_key, lease).await? else { return Ok(()) };
            Command::Remove { key: lease_key, cas: Some(lease_cas) }
        };
        match self.ask_one(key, remove).await? {
            Answer::Done { .. } | Answer::Missing | Answer::Changed => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// For ever: memcached tells nobody anything.
    async fn ended(&self, _key: &Key) {
        std::future::pending::<()>().await;
    }
}

impl Memcached {
    /// The part of a fence that says which server's number it is.
    fn server_part(&self, key: WireKey<'_>) -> Result<u64, Error> {
        let place = self.servers.place(key)?;
        let place = u64::try_from(place).unwrap_or(u64::MAX);
        Ok((place << CAS_BITS) & !BESIDE_AN_ENTRY)
    }

    /// Whether the lease is one of a key on the same server; on another one its number means nothing.
    fn is_of_server(&self, key: WireKey<'_>, lease: &Lease) -> Result<bool, Error> {
        Ok(lease.fence & !CAS_MASK & !BESIDE_AN_ENTRY == self.server_part(key)?)
    }

    /// Makes a lease item under `lease_key`, on the server of `key`; whether there was none.
    async fn add_lease(
        &self,
        key: WireKey<'_>,
        lease_key: WireKey<'_>,
        token: &[u8],
        seconds: u32,
    ) -> Result<bool, Error> {
        let add = Command::Store {
            key: lease_key,
            mode: Mode::Add,
            kind: record::LEASE,
            seconds,
            value: [token, b""],
        };
        match self.ask_one(key, add).await? {
            Answer::Done { .. } => Ok(true),
            Answer::NotStored => Ok(false),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends a lease of which only the token is known. A placeholder that vivification made bears no token: it is removed
    /// whoever made it, which at worst costs another holder his fill.
    async fn release_unknown(
        &self,
        key: WireKey<'_>,
        lease_key: WireKey<'_>,
        lease: &Lease,
    ) -> Result<(), Error> {
        if let Some(cas) = self.own_lease(key, lease_key, lease).await? {
            self.ask_one(key, Command::Remove { key: lease_key, cas: Some(cas) }).await?;
        }
        if let Some(found) = self.fetch(key).await?
            && (is_placeholder(&found) || is_lease_of(&found, &lease.token.to_le_bytes()))
        {
            self.ask_one(key, Command::Remove { key, cas: Some(found.cas) }).await?;
        }
        Ok(())
    }

    /// The CAS number of the lease item, if it is still that of `lease`.
    async fn own_lease(
        &self,
        key: WireKey<'_>,
        lease_key: WireKey<'_>,
        lease: &Lease,
    ) -> Result<Option<u64>, Error> {
        match self.ask_one(key, Command::Fetch { key: lease_key, with_value: true, vivify: None }).await? {
            Answer::Found(found) if is_lease_of(&found, &lease.token.to_le_bytes()) => Ok(Some(found.cas)),
            Answer::Found(_) | Answer::Missing => Ok(None),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives the entry a new CAS number, which is the answer; `None` when it is not what was found any more.
    async fn bump(&self, key: WireKey<'_>, found: &Found) -> Result<Option<u64>, Error> {
        match self.ask_one(key, Command::Bump { key, cas: found.cas }).await? {
            Answer::Done { cas: Some(cas) } => Ok(Some(cas)),
            // The classic dialect does not tell the number. It is read while the lease item is ours; should that end
            // just now, and another holder bump again before this read, the fill finds the lease item to be theirs.
            Answer::Done { cas: None } => {
                let now = self.fetch(key).await?;
                Ok(now.filter(|now| now.value == found.value && now.kind == found.kind).map(|now| now.cas))
            }
            Answer::Changed | Answer::NotStored | Answer::Missing => Ok(None),
            other => Err(unexpected(&other)),
        }
    }
}

/// What vivification leaves: the server makes it, with no kind of ours and no bytes.
fn is_placeholder(found: &Found) -> bool {
    found.kind == record::NUMBER && found.value.is_empty()
}

fn is_lease_of(found: &Found, token: &[u8]) -> bool {
    found.kind == record::LEASE && found.value == token
}
