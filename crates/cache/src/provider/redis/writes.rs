//! Writing entries in two exchanges: the first takes the lease of each key, whoever held it, and the second stores under it.
//!
//! A command may be held back in the network for longer than its caller waits for it. Were a write one command, it would be
//! carried out whenever it arrives, over what others have removed and been told is gone. In two, whatever arrives late is
//! harmless: the first alone stores nothing and ends by itself, and the second is refused, since every removal and every
//! other write has voided its lease.

use futures_util::future::try_join_all;
use redis::Value;
use uuid::Uuid;

use super::servers::Share;
use super::{Redis, leases, millis, names, script, value, wakes};
use crate::provider::{Entry, Error, WRITE_WITHIN};

/// Entries of one script: more would keep the server from others for too long.
const ENTRIES_A_SCRIPT: usize = 100;

impl Redis {
    /// Stores `entries`, each with a key of its own.
    pub(super) async fn write(&self, entries: &[Entry]) -> Result<(), Error> {
        let shares = self.inner.servers.shares(entries.iter().map(|entry| entry.key.as_str()))?;
        let parts = shares.iter().flat_map(parts);
        let written = parts.map(|indices| async move {
            let part: Vec<&Entry> = indices.iter().filter_map(|index| entries.get(*index)).collect();
            self.write_part(&part).await
        });
        try_join_all(written).await.map(drop)
    }

    /// Entries whose keys share a slot.
    async fn write_part(&self, entries: &[&Entry]) -> Result<(), Error> {
        let token = leases::text(Uuid::new_v4().as_u128());
        let lease_names: Vec<_> = entries.iter().map(|entry| names::lease(&entry.key)).collect();
        let leases: Vec<_> = lease_names.iter().map(String::as_str).collect();
        let within = millis(WRITE_WITHIN);
        let servers = &self.inner.servers;
        servers.script(&script::SEIZE, &leases, &[token.as_bytes(), within.as_bytes()]).await?;

        let beside: Vec<_> =
            entries.iter().map(|entry| (millis(entry.keep_for), wakes::of_keys([&entry.key]))).collect();
        let mut keys = Vec::with_capacity(2 * entries.len());
        let mut arguments: Vec<&[u8]> = vec![token.as_bytes(), self.inner.wakes.channel().as_bytes()];
        for ((entry, lease), (keep_ms, message)) in entries.iter().zip(&leases).zip(&beside) {
            keys.extend([entry.key.as_str(), *lease]);
            arguments.extend([&entry.item.bytes[..], keep_ms.as_bytes(), message.as_bytes()]);
        }
        // Those that were overtaken are not among the stored, and need not be: what was there before them is gone.
        let stored: Value = servers.script(&script::WRITE, &keys, &arguments).await?;
        value::integer(&stored).map(drop)
    }
}

fn parts(share: &Share) -> impl Iterator<Item = &[usize]> {
    share.slots.iter().flat_map(|indices| indices.chunks(ENTRIES_A_SCRIPT))
}
