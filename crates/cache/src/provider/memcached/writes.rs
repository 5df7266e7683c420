//! Storing entries in two round trips: the first learns the CAS number of what stands under each key, a placeholder if
//! nothing does, and the second stores if that number still stands there.
//!
//! A command may be held back in the network for longer than its caller waits for it. Were a write one command, it would be
//! carried out whenever it arrives, over what others have removed and been told is gone. In two, whatever arrives late is
//! harmless: the first leaves at most a placeholder that ends by itself, and the second finds another number, or nothing.

use std::collections::BTreeMap;

use super::wire::{Answer, Command, Mode, WireKey};
use super::{Memcached, leases, record, refused, store_entry, unexpected};
use crate::provider::{Entry, Error, Provider, WRITE_WITHIN};

impl Memcached {
    /// Stores `entries`, each with a key of its own and none too large. An entry that somebody else has changed in between
    /// is removed: of two who change it at once nobody can tell which is right.
    pub(super) async fn write(&self, entries: &[Entry]) -> Result<(), Error> {
        // Without CAS numbers there is no fence, and a late write cannot be told from others.
        let fences = if self.leases().is_some() { Some(self.fences(entries).await?) } else { None };
        let now = self.clock.now();
        let beside: Vec<_> = entries
            .iter()
            .map(|entry| (record::ends_at(now, entry.keep_for), leases::name(&entry.key)))
            .collect();
        let (mut refusal, mut contended) = (None, Vec::new());
        let mut commands = Vec::with_capacity(entries.len());
        for ((place, entry), (ends_at, lease_name)) in entries.iter().enumerate().zip(&beside) {
            let Entry { key, item, keep_for } = entry;
            let mode = match fences.as_ref().map(|fences| fences.get(&place)) {
                None => Mode::Set,
                Some(Some(cas)) => Mode::Swap(*cas),
                // Changed by somebody else again and again while this write goes on.
                Some(None) => {
                    contended.push(entry);
                    continue;
                }
            };
            let (key, lease) = (WireKey::new(key.as_str())?, WireKey::new(lease_name)?);
            let store = store_entry(key, mode, ends_at, item, *keep_for);
            commands.push((place, (key, [store, Command::Remove { key: lease, cas: None }])));
        }
        let (places, commands): (Vec<_>, Vec<_>) = commands.into_iter().unzip();
        for (at, answers) in self.servers.all(&commands).await? {
            for answer in answers {
                match answer {
                    Answer::Done { .. } | Answer::Missing => {}
                    Answer::Changed => {
                        contended.extend(places.get(at).and_then(|place| entries.get(*place)));
                    }
                    Answer::Refused(what) => refusal = Some(refused(what)),
                    other => return Err(unexpected(&other)),
                }
            }
        }
        if !contended.is_empty() {
            let keys: Vec<_> = contended.into_iter().map(|entry| entry.key.clone()).collect();
            self.delete(&keys).await?;
        }
        refusal.map_or(Ok(()), Err)
    }

    /// What stands under each key, by the place of its entry.
    async fn fences(&self, entries: &[Entry]) -> Result<BTreeMap<usize, u64>, Error> {
        let seconds = record::seconds_for(WRITE_WITHIN);
        let look = |key| Command::Fetch { key, with_value: false, vivify: Some(seconds) };
        let mut fences = BTreeMap::new();
        let mut commands = Vec::with_capacity(entries.len());
        for entry in entries {
            let key = WireKey::new(entry.key.as_str())?;
            commands.push((key, [look(key)]));
        }
        let mut missing = Vec::new();
        for (place, answers) in self.servers.all(&commands).await? {
            match answers.first() {
                Some(Answer::Found(found)) => drop(fences.insert(place, found.cas)),
                Some(Answer::Missing) => missing.push(place),
                Some(other) => return Err(unexpected(other)),
                None => {}
            }
        }
        if missing.is_empty() {
            return Ok(fences);
        }
        // The classic dialect makes no placeholder by looking.
        let mut commands = Vec::with_capacity(missing.len());
        for entry in missing.iter().filter_map(|place| entries.get(*place)) {
            let key = WireKey::new(entry.key.as_str())?;
            let (mode, kind, value) = (Mode::Add, record::LEASE, [&b""[..], b""]);
            commands.push((key, [Command::Store { key, mode, kind, seconds, value }, look(key)]));
        }
        for (at, answers) in self.servers.all(&commands).await? {
            if let (Some(Answer::Found(found)), Some(place)) = (answers.last(), missing.get(at)) {
                fences.insert(*place, found.cas);
            }
        }
        Ok(fences)
    }
}
