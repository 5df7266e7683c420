//! Leases: a random token under a name of its own beside the entry. Every set and delete of the entry removes it in
//! the same step, so a fill that finds its token still there was overtaken by nothing.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::errors::protocol;
use super::{Redis, millis, names, script, value, wakes};
use crate::key::Key;
use crate::provider::{Error, Item, Lease, Leased, Leases};

#[async_trait]
impl Leases for Redis {
    async fn take(
        &self,
        key: &Key,
        token: u128,
        lease_for: Duration,
        seen: Option<&Item>,
    ) -> Result<Leased, Error> {
        let (lease, token_text) = (names::lease(key), text(token));
        let keys = [key.as_str(), lease.as_str()];
        let lease_ms = millis(lease_for);
        let (has_seen, seen): (&[u8], &[u8]) = match seen {
            Some(seen) => (b"1", &seen.bytes),
            None => (b"0", b""),
        };
        let arguments = [token_text.as_bytes(), lease_ms.as_bytes(), has_seen, seen];
        let answer = self.inner.servers.script(&script::TAKE, &keys, &arguments).await?;
        let mut answer = value::array(answer)?.into_iter();
        match answer.next() {
            Some(Value::Int(0)) => Ok(Leased::Held),
            Some(Value::Int(1)) => Ok(Leased::Granted(Lease { token, fence: 0 })),
            Some(Value::Int(2)) => match answer.next().map(value::item).transpose()?.flatten() {
                Some(item) => Ok(Leased::Present(item)),
                None => Err(protocol("a value was expected")),
            },
            _ => Err(protocol("not an answer to who asks for a lease")),
        }
    }

    async fn fill(&self, key: &Key, lease: &Lease, item: Item, keep_for: Duration) -> Result<bool, Error> {
        let (name, token, keep_ms) = (names::lease(key), text(lease.token), millis(keep_for));
        let message = wakes::of_keys([key]);
        let channel = self.inner.wakes.channel();
        let arguments: [&[u8]; 5] =
            [token.as_bytes(), &item.bytes, keep_ms.as_bytes(), channel.as_bytes(), message.as_bytes()];
        let keys = [key.as_str(), name.as_str()];
        let stored = self.inner.servers.script(&script::FILL, &keys, &arguments).await?;
        Ok(value::integer(&stored)? == 1)
    }

    async fn release(&self, key: &Key, lease: &Lease) -> Result<(), Error> {
        let (name, token) = (names::lease(key), text(lease.token));
        let message = wakes::of_keys([key]);
        let arguments: [&[u8]; 3] =
            [token.as_bytes(), self.inner.wakes.channel().as_bytes(), message.as_bytes()];
        let released = self.inner.servers.script(&script::RELEASE, &[&name], &arguments).await?;
        value::integer(&released).map(drop)
    }

    /// Waits from the call on, not only from the first poll.
    fn ended<'life0, 'life1, 'async_trait>(
        &'life0 self,
        key: &'life1 Key,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        self.hear_wakes();
        Box::pin(self.inner.wakes.lease_ended(key.as_str()))
    }
}

/// Always as long: a waiter's mark comes after it.
pub(super) fn text(token: u128) -> String {
    format!("{token:032x}")
}
