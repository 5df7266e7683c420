//! Values that only the cache has: where they are, which of them are there, and what the store is told of those that are not.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use recache_cache::provider::Capability;
use recache_cache::{Cache, Coherence, Key, LoadError, Policy, Space, Usage};
use recache_model::held_value::digest_of;
use recache_model::ids::ViewId;
use recache_store::{
    Error, HELD_ITEMS_MAX, HeldItem, HeldPlace, Result, StagedItem, Store, ViewName, item_digest,
};

/// How long a value lives in the cache when nothing drops it. When this is over, it is made anew.
const KEPT_FOR: Duration = Duration::from_hours(7 * 24);
/// Items that are asked of the store at once; it takes as many.
pub(crate) const PAGE_ROWS: u32 = 1_000;
/// Values of one call of the cache.
const VALUES_A_CALL: usize = 200;
/// Bytes of values of one call that fills it, before the one that exceeds them.
const BYTES_A_CALL: usize = 1024 * 1024;

/// The values of items that are kept in the cache only, under view and digest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HeldValues {
    cache: Cache,
    space: Space,
}

/// What was read in place of what stands for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeldRead {
    /// Items with their values, in their order.
    pub there: Vec<(String, String)>,
    /// Items whose values are gone.
    pub gone: Vec<HeldItem>,
}

impl HeldValues {
    /// Those of this cache.
    pub fn new(cache: &Cache) -> Self {
        Self { space: cache.keys().space("view_value"), cache: cache.clone() }
    }

    /// Why this cache cannot be the only place of a value.
    pub fn refusal(&self) -> Option<&'static str> {
        let capabilities = self.cache.capabilities();
        let is_shared = capabilities.has(Capability::Shared) && capabilities.has(Capability::Retains);
        (!is_shared || !self.near().is_on()).then_some(
            "its items are kept in the cache only, and the cache of this process is not one that all processes share: configure one on a \
             server (redis, dragonfly, valkey, memcached, or tiered in front of one), or define the view with durable items",
        )
    }

    /// Why it can neither be asked nor filled now.
    pub async fn is_away(&self) -> Option<String> {
        if let Some(why) = self.refusal() {
            return Some(why.to_owned());
        }
        let health = self.cache.health().await;
        (!health.is_healthy).then(|| health.reasons.join("; "))
    }

    /// Items of a page of the store, with values in place of what stands for them.
    pub async fn read(&self, view: &ViewName, items: Vec<(String, String)>) -> HeldRead {
        if items.iter().all(|(_, value)| digest_of(value).is_none()) {
            return HeldRead { there: items, gone: Vec::new() };
        }
        let (names, values): (Vec<String>, Vec<String>) = items.into_iter().unzip();
        let mut values: Vec<Option<Arc<String>>> =
            values.into_iter().map(|value| Some(Arc::new(value))).collect();
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let gone = self.resolve(view, &asked, &mut values).await;
        let there = names.into_iter().zip(values);
        HeldRead {
            there: there.filter_map(|(item, value)| Some((item, Arc::unwrap_or_clone(value?)))).collect(),
            gone,
        }
    }

    /// Tells the store of values that a reader missed, as far as nobody finds them: the view is touched for them. Nothing is told while the
    /// cache is away: what cannot be read now may be there again, and could not be written. Answers which version is wanted, where that is news.
    pub async fn tell(
        &self,
        store: &dyn Store,
        view: &ViewName,
        mut items: Vec<HeldItem>,
    ) -> Result<Option<i64>> {
        items.truncate(HELD_ITEMS_MAX);
        let missing = self.missing(view, items).await;
        if missing.is_empty() || self.is_away().await.is_some() {
            return Ok(None);
        }
        store.held_items().items_lost(view.clone(), missing).await
    }

    /// How many values of a generation are gone.
    pub async fn gone_of(
        &self,
        store: &dyn Store,
        view: ViewId,
        name: &ViewName,
        version: i64,
    ) -> Result<usize> {
        if let Some(why) = self.is_away().await {
            return Err(away(name, &why));
        }
        let (mut after, mut gone) = (None, 0);
        loop {
            let place = HeldPlace::Version(version);
            let page = store.held_items().held_page(view, place, after, PAGE_ROWS).await?;
            let Some(last) = page.last() else { return Ok(gone) };
            after = Some(last.item.clone());
            gone += self.missing(name, page).await.len();
        }
    }

    /// Puts values in place of what stands for them. Answers the items whose values are gone.
    pub(crate) async fn resolve(
        &self,
        view: &ViewName,
        items: &[&str],
        values: &mut [Option<Arc<String>>],
    ) -> Vec<HeldItem> {
        let held: Vec<(usize, Key)> = values
            .iter()
            .enumerate()
            .filter_map(|(place, value)| Some((place, self.key(view, digest_of(value.as_deref()?)?))))
            .collect();
        let cache = self.near();
        let mut gone = Vec::new();
        for some in held.chunks(VALUES_A_CALL) {
            let keys: Vec<Key> = some.iter().map(|(_, key)| key.clone()).collect();
            let found: Vec<Option<Arc<String>>> = cache.get_many(&keys).await;
            for ((place, _), value) in some.iter().zip(found) {
                let (Some(slot), Some(item)) = (values.get_mut(*place), items.get(*place)) else { continue };
                let is_gone = value.is_none();
                let stood = std::mem::replace(slot, value);
                if is_gone {
                    let stands = stood.map(Arc::unwrap_or_clone).unwrap_or_default();
                    gone.push(HeldItem { item: (*item).to_owned(), stands });
                }
            }
        }
        gone
    }

    /// Those of these items whose values are nowhere. A cache that is [away](Self::is_away) has none either.
    pub(crate) async fn missing(&self, view: &ViewName, items: Vec<HeldItem>) -> Vec<HeldItem> {
        let cache = self.exact();
        let mut missing = Vec::new();
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let some: Vec<HeldItem> = items.by_ref().take(VALUES_A_CALL).collect();
            let keys: Vec<Key> =
                some.iter().map(|held| self.key(view, digest_of(&held.stands).unwrap_or_default())).collect();
            let found: Vec<Option<Arc<String>>> = cache.get_many(&keys).await;
            missing.extend(
                some.into_iter().zip(found).filter(|(_, value)| value.is_none()).map(|(held, _)| held),
            );
        }
        missing
    }

    /// Keeps the values of these items. When this answers well, all of them were there.
    pub(crate) async fn keep(&self, view: &ViewName, items: &[StagedItem]) -> Result<()> {
        self.check_sizes(items)?;
        let (mut values, mut bytes) = (HashMap::new(), 0);
        for value in items.iter().filter_map(|item| item.value.as_deref()) {
            // Two items of one value are one entry.
            values.insert(self.key(view, &item_digest(value)), value.to_owned());
            bytes += value.len();
            if values.len() >= VALUES_A_CALL || bytes >= BYTES_A_CALL {
                self.fill(view, &std::mem::take(&mut values)).await?;
                bytes = 0;
            }
        }
        self.fill(view, &values).await
    }

    /// What the cache would not take would be missing for good.
    fn check_sizes(&self, items: &[StagedItem]) -> Result<()> {
        // What stands around a value there.
        const ENVELOPE_BYTES: usize = 1024;
        let Some(max) = self.cache.capabilities().limit(Capability::MaxValueBytes) else { return Ok(()) };
        let max = max.saturating_sub(ENVELOPE_BYTES);
        let problems: Vec<String> = items
            .iter()
            .filter_map(|item| Some((item, item.value.as_ref()?.len())).filter(|(_, bytes)| *bytes > max))
            .map(|(item, bytes)| {
                let item = item.item.escape_debug();
                format!("item `{item}` has {bytes} bytes; the cache, which alone keeps it, takes {max}")
            })
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.join("; "))) }
    }

    /// As a load and not as a write, where that will do: a write that fails outdates others, and what has a digest in its key is never outdated. What is
    /// there already stays.
    async fn fill(&self, view: &ViewName, values: &HashMap<Key, String>) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let (cache, policy) = (self.exact(), Policy::new(KEPT_FOR));
        let keys: Vec<Key> = values.keys().cloned().collect();
        let loader = |asked: Vec<Key>| {
            let found: Vec<Option<String>> = asked.iter().map(|key| values.get(key).cloned()).collect();
            async move { Ok::<_, Infallible>(found) }
        };
        let filled: std::result::Result<Vec<Option<Arc<String>>>, LoadError<Infallible>> =
            cache.get_or_load_many(&keys, &policy, loader).await;
        filled.map_err(|error| away(view, &error.to_string()))?;
        // The loader answers whether or not the cache took it.
        let missing = absent(&cache, &keys).await;
        if missing.is_empty() {
            return Ok(());
        }
        let entries = missing.iter().filter_map(|key| Some((key.clone(), values.get(key)?.clone())));
        cache.set_many(entries.collect(), &policy).await;
        let missing = absent(&cache, &missing).await;
        if missing.is_empty() {
            return Ok(());
        }
        Err(away(view, &format!("it did not keep {} of {} values", missing.len(), keys.len())))
    }

    fn key(&self, view: &ViewName, digest: &str) -> Key {
        self.space.key([view.namespace.as_str(), view.key.as_str(), digest])
    }

    /// With the copies that this process has.
    fn near(&self) -> Cache {
        self.cache.for_usage(&Usage::ViewItem)
    }

    /// What all processes share, past the copies in this one: what it answers is there for everybody.
    fn exact(&self) -> Cache {
        if self.cache.capabilities().coherence() == Coherence::Strict {
            self.cache.for_usage(&Usage::user("view_value", Coherence::Strict))
        } else {
            self.near()
        }
    }
}

async fn absent(cache: &Cache, keys: &[Key]) -> Vec<Key> {
    let found: Vec<Option<Arc<String>>> = cache.get_many(keys).await;
    keys.iter().zip(found).filter(|(_, value)| value.is_none()).map(|(key, _)| key.clone()).collect()
}

/// The cache that alone has a view's values cannot be used now.
pub(crate) fn away(view: &ViewName, why: &str) -> Error {
    let message =
        format!("view {view}: its items are kept in the cache only, and that cannot be used now: {why}");
    Error::Unavailable { message, source: None }
}
