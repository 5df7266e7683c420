//! Which server has which key, and one round trip to each of several at once.

use std::sync::Arc;

use futures_util::future::try_join_all;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::pool::Pool;
use super::probe::Facts;
use super::wire::{Answer, Command, WireKey};
use super::{unavailable, unexpected};
use crate::provider::Error;

/// All servers, in the order of the configuration, which does not matter: each key goes to the server that scores highest
/// for it (rendezvous hashing), so that one server more or less moves only the keys that it has.
#[derive(Debug)]
pub(super) struct Servers(Vec<(u64, Arc<Pool>)>);

impl Servers {
    pub(super) fn new(pools: Vec<Arc<Pool>>) -> Self {
        Self(pools.into_iter().map(|pool| (xxh3_64(pool.server().to_string().as_bytes()), pool)).collect())
    }

    pub(super) fn of(&self, key: WireKey<'_>) -> Result<&Arc<Pool>, Error> {
        let server = match self.0.as_slice() {
            [server] => Some(server),
            servers => servers.iter().max_by_key(|(seed, _)| xxh3_64_with_seed(key.as_bytes(), *seed)),
        };
        server.map(|(_, pool)| pool).ok_or_else(|| unavailable("no server is configured"))
    }

    /// Which of them, in this process, has `key`. CAS numbers are told apart by it: each server counts its own.
    pub(super) fn place(&self, key: WireKey<'_>) -> Result<usize, Error> {
        let pool = self.of(key)?;
        let place = self.0.iter().position(|(_, other)| Arc::ptr_eq(other, pool));
        place.ok_or_else(|| unavailable("no server is configured"))
    }

    /// What holds for all of them.
    pub(super) fn facts(&self) -> Facts {
        self.0.iter().map(|(_, pool)| pool.facts()).reduce(Facts::weaker).unwrap_or_default()
    }

    pub(super) fn evictions(&self) -> Option<u64> {
        self.0.iter().map(|(_, pool)| pool.facts().evictions).sum()
    }

    /// Carries out commands on many keys: one round trip to each server that has some of them, all at once. Answers come
    /// with the place of their commands.
    pub(super) async fn all<const N: usize>(
        &self,
        commands: &[(WireKey<'_>, [Command<'_>; N])],
    ) -> Result<Vec<(usize, Vec<Answer>)>, Error> {
        let mut all: Vec<(usize, Vec<Answer>)> = Vec::with_capacity(commands.len());
        self.each(commands, |place, answer| {
            match all.last_mut() {
                Some((last, answers)) if *last == place => answers.push(answer),
                _ => all.push((place, vec![answer])),
            }
            Ok(())
        })
        .await?;
        Ok(all)
    }

    /// The same; `take` is given each answer as it comes, those of one place one after the other.
    pub(super) async fn each<const N: usize>(
        &self,
        commands: &[(WireKey<'_>, [Command<'_>; N])],
        mut take: impl FnMut(usize, Answer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut shares: Vec<(&Arc<Pool>, Vec<usize>)> = Vec::new();
        for (place, (key, _)) in commands.iter().enumerate() {
            let pool = self.of(*key)?;
            match shares.iter_mut().find(|(of, _)| Arc::ptr_eq(of, pool)) {
                Some((_, places)) => places.push(place),
                None => shares.push((pool, vec![place])),
            }
        }
        let exchanges = shares.into_iter().map(|(pool, places)| async move {
            let of_places = places.iter().filter_map(|place| commands.get(*place));
            let share: Vec<_> = of_places.flat_map(|(_, of_key)| *of_key).collect();
            Ok::<_, Error>((places, pool.exchange(&share).await?))
        });
        for (places, answers) in try_join_all(exchanges).await? {
            let places = places.into_iter().flat_map(|place| std::iter::repeat_n(place, N));
            for (place, answer) in places.zip(answers) {
                take(place, answer)?;
            }
        }
        Ok(())
    }

    pub(super) async fn health(&self) -> Result<(), Error> {
        let checks = self.0.iter().map(|(_, pool)| async move {
            match pool.exchange(&[Command::Stats { settings: false }]).await?.as_slice() {
                [Answer::Stats(stats)] => {
                    let evictions = stats.iter().find(|(name, _)| name == "evictions");
                    if let Some(evictions) = evictions.and_then(|(_, count)| count.parse().ok()) {
                        pool.note_evictions(evictions);
                    }
                    Ok(())
                }
                answers => Err(answers.first().map_or_else(|| unavailable("no answer"), unexpected)),
            }
        });
        let checked = try_join_all(checks).await?;
        if checked.is_empty() { Err(unavailable("no server is configured")) } else { Ok(()) }
    }
}
