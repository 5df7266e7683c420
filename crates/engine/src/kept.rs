//! Items whose values only the cache has, in a running engine.
//!
//! The store holds, for each generation, what stands for each item's value: its digest. The cache holds the value under view and digest
//! ([`HeldValues`]). So what the cache answers is the value of the generation that was asked for, or it is nothing: it cannot be stale, and a read
//! cannot be torn. What is not there is told to the reader as gone, and to the store, once for many readers, so that the view makes it anew. A
//! build asks for every value that it could take over before it begins.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use recache_cache::Cache;
use recache_model::held_value::digest_of;
use recache_model::ids::{JobId, ViewId};
use recache_store::{
    Error, HELD_ITEMS_MAX, HeldItem, HeldPlace, HeldView, LeaseToken, Result, Revoked, StagedItem, ViewName,
};
use tokio::sync::Notify;

use crate::engine::Shared;
use crate::held_values::{HeldValues, PAGE_ROWS, away};
use crate::stats::{add, one};

/// A build whose values cannot be kept now waits so long before it looks again.
pub(crate) const AWAY_PAUSE: Duration = Duration::from_secs(1);
/// Builds of which is remembered whether their values are kept in the cache.
const BUILDS_MAX: usize = 1_000;
/// Views of which values were missed and that the store was not yet told of; of more nothing is told until somebody misses them again.
const VIEWS_MAX: usize = 1_000;
/// Between two times that the store is told: however many readers miss values, it is one statement for each view in this time.
const TELL_PAUSE: Duration = Duration::from_secs(1);

/// What this process knows of such items.
#[derive(Debug)]
pub(crate) struct Kept {
    values: HeldValues,
    /// `None`: the build's values are the store's.
    builds: Mutex<HashMap<JobId, Option<HeldView>>>,
    missed: Mutex<HashMap<ViewName, HashSet<HeldItem>>>,
    came: Notify,
}

impl Kept {
    pub(crate) fn new(cache: &Cache) -> Self {
        let values = HeldValues::new(cache);
        Self { values, builds: Mutex::default(), missed: Mutex::default(), came: Notify::new() }
    }

    pub(crate) fn values(&self) -> &HeldValues {
        &self.values
    }

    fn builds(&self) -> MutexGuard<'_, HashMap<JobId, Option<HeldView>>> {
        self.builds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn missed(&self) -> MutexGuard<'_, HashMap<ViewName, HashSet<HeldItem>>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some of a view's values, no more than one call of the store takes: the build that follows finds the others.
    fn miss(&self, view: &ViewName, items: impl Iterator<Item = HeldItem>) {
        let mut missed = self.missed();
        if missed.len() >= VIEWS_MAX && !missed.contains_key(view) {
            return;
        }
        let of_view = missed.entry(view.clone()).or_default();
        for item in items {
            if of_view.len() >= HELD_ITEMS_MAX {
                break;
            }
            of_view.insert(item);
        }
        drop(missed);
        self.came.notify_one();
    }
}

// --- builds ---------------------------------------------------------------------------------------------------

/// Asks for all that the build, which has just begun, could take over. Answers how much of it is gone: the store knows of it, and what the build
/// starts from must be asked for again.
pub(crate) async fn check(shared: &Shared, view: ViewId, name: &ViewName) -> Result<u64> {
    let values = &shared.kept.values;
    if let Some(why) = values.is_away().await {
        return Err(away(name, &why));
    }
    let held = shared.store.held_items();
    let mut gone = 0;
    for place in [HeldPlace::Live, HeldPlace::Staged] {
        let mut after = None;
        loop {
            let page = held.held_page(view, place, after, PAGE_ROWS).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.item.clone());
            let missing = values.missing(name, page).await;
            if missing.is_empty() {
                continue;
            }
            // A cache that fails has nothing either.
            if let Some(why) = values.is_away().await {
                return Err(away(name, &why));
            }
            gone += match place {
                HeldPlace::Staged => held.staged_gone(view, missing).await?,
                HeldPlace::Live | HeldPlace::Version(_) => held.items_gone(view, missing).await?,
            };
        }
    }
    if gone > 0 {
        tracing::warn!(view = %name, items = gone, "values are gone from the cache, which alone had them: they are made anew");
    }
    Ok(gone)
}

/// Puts items of a build: values that only the cache shall have go there first, because what is staged may be published.
pub(crate) async fn put(
    shared: &Shared,
    token: LeaseToken,
    items: Vec<StagedItem>,
) -> Result<Option<Revoked>> {
    let Some(held) = of_build(shared, token).await? else {
        return shared.store.build_put(token, items).await;
    };
    if let Some(why) = shared.kept.values.refusal() {
        return Err(Error::Invalid(format!("view {}: {why}", held.name)));
    }
    shared.kept.values.keep(&held.name, &items).await?;
    shared.store.held_items().build_put_held(token, items).await
}

/// Once a view keeps its values in the cache it does so for good, so that is remembered; where it did not when a build first put something, the
/// values of that build are the store's.
async fn of_build(shared: &Shared, token: LeaseToken) -> Result<Option<HeldView>> {
    if let Some(known) = shared.kept.builds().get(&token.job) {
        return Ok(known.clone());
    }
    let found = shared.store.held_items().build_holds(token).await?;
    let mut known = shared.kept.builds();
    if known.len() >= BUILDS_MAX {
        known.clear();
    }
    known.insert(token.job, found.clone());
    Ok(found)
}

/// Values of live items, for whoever builds; what is gone from the cache is not among them.
pub(crate) async fn previous(
    shared: &Shared,
    token: LeaseToken,
    items: Vec<String>,
) -> Result<std::result::Result<Vec<(String, String)>, Revoked>> {
    let found = match shared.store.build_workflows().previous_read(token, items).await? {
        Ok(found) => found,
        Err(revoked) => return Ok(Err(revoked)),
    };
    if found.iter().all(|(_, value)| digest_of(value).is_none()) {
        return Ok(Ok(found));
    }
    let Some(held) = shared.store.held_items().build_holds(token).await? else { return Ok(Ok(Vec::new())) };
    let read = shared.kept.values.read(&held.name, found).await;
    missed(shared, &held.name, &read.gone);
    Ok(Ok(read.there))
}

// --- readers --------------------------------------------------------------------------------------------------

/// Whether something stands for one of these values.
pub(crate) fn are_held(values: &[Option<Arc<String>>]) -> bool {
    values.iter().flatten().any(|value| digest_of(value).is_some())
}

/// Puts values in place of what stands for them. Answers the items whose values are gone.
pub(crate) async fn resolve(
    shared: &Shared,
    view: &ViewName,
    items: &[&str],
    values: &mut [Option<Arc<String>>],
) -> Vec<String> {
    if !are_held(values) {
        return Vec::new();
    }
    let gone = shared.kept.values.resolve(view, items, values).await;
    missed(shared, view, &gone);
    gone.into_iter().map(|held| held.item).collect()
}

/// The same of items with their values. Answers what is there, and what is gone.
pub(crate) async fn resolve_page(
    shared: &Shared,
    view: &ViewName,
    items: Vec<(String, String)>,
) -> (Vec<(String, String)>, Vec<String>) {
    let read = shared.kept.values.read(view, items).await;
    missed(shared, view, &read.gone);
    (read.there, read.gone.into_iter().map(|held| held.item).collect())
}

fn missed(shared: &Shared, view: &ViewName, gone: &[HeldItem]) {
    if !gone.is_empty() {
        add(&shared.counters.items_gone, gone.len());
        shared.kept.miss(view, gone.iter().cloned());
    }
}

/// Tells the store of what readers missed.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.ending.cancelled() => return,
            () = shared.kept.came.notified() => {}
        }
        let missed = std::mem::take(&mut *shared.kept.missed());
        for (view, items) in missed {
            tokio::select! {
                () = shared.ending.cancelled() => return,
                () = tell(&shared, &view, items) => {}
            }
        }
        tokio::select! {
            () = shared.ending.cancelled() => return,
            () = tokio::time::sleep(TELL_PAUSE) => {}
        }
    }
}

async fn tell(shared: &Shared, view: &ViewName, items: HashSet<HeldItem>) {
    match shared.kept.values.tell(&*shared.store, view, items.into_iter().collect()).await {
        Ok(Some(version)) => {
            one(&shared.counters.views_touched_for_gone);
            tracing::warn!(%view, version, "values are gone from the cache, which alone had them: the view is touched");
        }
        // It was touched before, or published anew meanwhile; or the cache is away.
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%view, %error, "values are gone from the cache, and the view could not be touched for them");
        }
    }
}

#[cfg(test)]
mod tests {
    use recache_cache::{CacheConfig, SystemClock};
    use recache_model::held_value::standing_for;

    use super::*;

    #[test]
    fn however_many_readers_miss_whatever_little_is_remembered() {
        let cache = Cache::configure(&CacheConfig::default(), Arc::new(SystemClock)).build();
        let kept = Kept::new(&cache);
        assert!(kept.values.refusal().is_some(), "a cache that is switched off keeps nothing");
        let item = |number: usize| HeldItem { item: number.to_string(), stands: standing_for("d") };
        for view in 0..VIEWS_MAX + 5 {
            kept.miss(&ViewName::new("n", view.to_string()), (0..2).map(item));
        }
        kept.miss(&ViewName::new("n", "0"), (0..HELD_ITEMS_MAX + 5).map(item));
        let missed = kept.missed();
        assert_eq!(missed.len(), VIEWS_MAX);
        assert_eq!(missed[&ViewName::new("n", "0")].len(), HELD_ITEMS_MAX);
    }
}
