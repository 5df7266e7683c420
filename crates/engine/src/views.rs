//! Reading views: one generation, through the cache.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recache_cache::{Cache, Key, LoadError, Policy, Space, Usage};
use recache_model::ids::ViewId;
use recache_model::time::Timestamp;
use recache_store::{Neighbours, ViewName};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::engine::{Engine, Shared, deadline};
use crate::error::{Error, Result};
use crate::kept;

/// How long an item of a generation may stay in the cache. It cannot become wrong: its key names the generation.
const ITEM_FRESH: Duration = Duration::from_secs(3600);
/// A reader whose generation was removed between the look at its number and the read looks so often, before it asks for both in one statement.
const LOOKS_MAX: usize = 2;
/// The same of a list, which has no such statement.
const LIST_LOOKS_MAX: usize = 5;

/// One item as a reader gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewItem {
    /// The view.
    pub view: ViewId,
    /// The generation that it was read from; 0 when none was published yet.
    pub version: i64,
    /// When that was published, by the store's clock.
    pub published_at: Option<Timestamp>,
    /// Names the generation beyond its number, which is given a second time when the view is deleted and defined anew, or a backup is put back.
    pub generation: Uuid,
    /// The newest version that was wanted then.
    pub wanted: i64,
    /// For how long an input has been known to have changed since what was read was made; zero when none has. As of this process's last look at the
    /// view, which is no older than [`view_head_fresh`](crate::Options::view_head_fresh).
    pub staleness: Duration,
    /// How long ago the generation was published.
    pub age: Option<Duration>,
    /// Its value as JSON; `None` when the generation has no such item, or it is gone.
    pub value: Option<Arc<String>>,
    /// The generation has the item, but only the cache kept its value, and has it no more, or cannot be asked. The view is touched for it, so it is
    /// soon there again, in a newer version.
    pub is_gone: bool,
}

/// Items of one generation.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewItems {
    /// The view.
    pub view: ViewId,
    /// The generation that all of them were read from; 0 when none was published yet.
    pub version: i64,
    /// When it was published, by the store's clock.
    pub published_at: Option<Timestamp>,
    /// Names the generation beyond its number, which is given a second time when the view is deleted and defined anew, or a backup is put back.
    pub generation: Uuid,
    /// The newest version that was wanted then.
    pub wanted: i64,
    /// For how long it has been stale: see [`ViewItem::staleness`].
    pub staleness: Duration,
    /// How long ago the generation was published.
    pub age: Option<Duration>,
    /// In the order in which they were asked for.
    pub values: Vec<Option<Arc<String>>>,
    /// Items without a value because it is gone: see [`ViewItem::is_gone`].
    pub gone: Vec<String>,
}

/// A page of the items of one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewPage {
    /// The view.
    pub view: ViewId,
    /// The generation that they were read from; 0 when none was published yet.
    pub version: i64,
    /// When it was published, by the store's clock.
    pub published_at: Option<Timestamp>,
    /// Names the generation that is live beyond its number: see [`ViewItem::generation`]. As long as it is the same, so is a page of one `version`.
    pub generation: Uuid,
    /// The newest version that was wanted then.
    pub wanted: i64,
    /// For how long it has been stale: see [`ViewItem::staleness`]. Of a generation that is no longer live, at least since it was replaced.
    pub staleness: Duration,
    /// How long ago the generation was published.
    pub age: Option<Duration>,
    /// Keys and values, as JSON, in the order of the keys.
    pub items: Vec<(String, String)>,
    /// Items of the page that are left out because their values are gone: see [`ViewItem::is_gone`].
    pub gone: Vec<String>,
    /// The last key of the page, with a value or without: where the next one begins. `None` for an empty page.
    pub last: Option<String>,
    /// There are more after that.
    pub has_more: bool,
}

impl ViewItem {
    /// Whether an input is known to have changed since what was read was made: a newer version is wanted.
    pub fn is_stale(&self) -> bool {
        self.wanted > self.version
    }
}

impl ViewItems {
    /// The same as [`ViewItem::is_stale`].
    pub fn is_stale(&self) -> bool {
        self.wanted > self.version
    }
}

impl ViewPage {
    /// The same as [`ViewItem::is_stale`].
    pub fn is_stale(&self) -> bool {
        self.wanted > self.version
    }
}

/// A page as it is cached: its key names the generation, so it cannot become wrong.
#[derive(Debug, Serialize, Deserialize)]
struct Page {
    items: Vec<(String, String)>,
    has_more: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) view: ViewId,
    pub(crate) version: i64,
    /// Names the generation beyond its number.
    stamp: Option<Uuid>,
    /// The newest version that was wanted then; never less than `version`.
    wanted: i64,
    published_at: Option<Timestamp>,
    /// The first touch that it does not show.
    dirty_since: Option<Timestamp>,
    /// What the store's clock showed when it said so.
    at: Timestamp,
    /// When the store said so; `None`: it must be asked again.
    seen: Option<Instant>,
    /// When the answer was there. A question that was asked later cannot be answered with less, unless the database went back.
    learned: Instant,
}

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<(String, String), Head>,
    names: HashMap<ViewId, (String, String)>,
    /// Views of which nothing is fetched ahead, as far as this process knows.
    not_ahead: HashSet<ViewId>,
    /// What the store is being asked now, with who waits for the answer.
    asking: HashMap<(String, String), watch::Receiver<()>>,
}

impl Head {
    /// What names the live generation beyond its number.
    fn generation(&self) -> Uuid {
        named(self.stamp, self.view)
    }

    /// What the store's clock shows about now.
    fn now(&self) -> Timestamp {
        self.at.plus(self.learned.elapsed())
    }

    fn staleness(&self) -> Duration {
        self.dirty_since.map_or(Duration::ZERO, |since| self.now().since(since))
    }

    /// What names the generation in keys of the cache: by its stamp too, because a database that was put back from a backup gives a number a second time,
    /// to other content.
    fn key_part(&self) -> String {
        let stamp = self.stamp.map(|stamp| stamp.simple().to_string()).unwrap_or_default();
        format!("{}.{stamp}", self.version)
    }
}

/// Before there were stamps, and before the first publication, the view's own id: it is not given a second time either.
fn named(stamp: Option<Uuid>, view: ViewId) -> Uuid {
    stamp.unwrap_or_else(|| view.uuid())
}

/// What a reader does for the head of a view.
enum Look<'a> {
    /// It is known, and new enough.
    Known(Head),
    /// It asks the store, for others too.
    Ask(Asking<'a>),
    /// Another one asks; it waits until that has its answer, or gave up.
    Wait(watch::Receiver<()>),
}

/// The store is being asked for a head; whoever waits for the answer looks again when this is dropped.
struct Asking<'a> {
    heads: &'a Heads,
    name: (String, String),
    _answered: watch::Sender<()>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.heads.known().asking.remove(&self.name);
    }
}

/// Which version of each view is live, as far as this process knows. It never goes back, unless the database did: a backup was put back.
#[derive(Debug)]
pub(crate) struct Heads {
    known: Mutex<Known>,
    items: Space,
    pages: Space,
}

impl Heads {
    pub(crate) fn new(cache: &Cache) -> Self {
        let keys = cache.keys();
        Self { known: Mutex::default(), items: keys.space("view"), pages: keys.space("view_page") }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hints were lost: every head is looked up again before its next use. Versions stay, so that none goes back.
    pub(crate) fn forget(&self) {
        for head in self.known().by_name.values_mut() {
            head.seen = None;
        }
    }

    /// A newer version is live: what is known is looked up again before its next use.
    pub(crate) fn published(&self, view: ViewId, version: i64) {
        let mut known = self.known();
        let Some(name) = known.names.get(&view).cloned() else { return };
        if let Some(head) = known.by_name.get_mut(&name)
            && head.version < version
        {
            head.seen = None;
        }
    }

    /// A view that this process builds: it hears of its publications, whether or not anybody reads it here.
    pub(crate) fn builds(&self, view: ViewId, namespace: &str, key: &str) {
        let mut known = self.known();
        known.names.entry(view).or_insert_with(|| (namespace.to_owned(), key.to_owned()));
        // Whether anything is fetched ahead is looked up after the publication: the definition may have changed.
        known.not_ahead.remove(&view);
    }

    /// What a view is called, if this process reads or builds it, and something may be fetched ahead.
    pub(crate) fn may_be_ahead(&self, view: ViewId) -> Option<(String, String)> {
        let known = self.known();
        known.names.get(&view).filter(|_| !known.not_ahead.contains(&view)).cloned()
    }

    /// Whether its definition asks for that.
    pub(crate) fn is_ahead(&self, view: ViewId, is_asked: bool) {
        let mut known = self.known();
        if is_asked {
            known.not_ahead.remove(&view);
        } else {
            known.not_ahead.insert(view);
        }
    }

    /// One reader at a time asks the store, already when a head has half of its time behind it: the others read on with that, and do not all
    /// ask at once when its time is over.
    fn look(&self, namespace: &str, key: &str, fresh_for: Duration) -> Look<'_> {
        let mut known = self.known();
        // One allocation for the look-up; the map is small and this is not the hot part of a read.
        let name = (namespace.to_owned(), key.to_owned());
        let head = known.by_name.get(&name);
        let fresh = head.and_then(|head| Some((*head, head.seen?.elapsed())));
        let fresh = fresh.filter(|(_, age)| *age < fresh_for);
        match (fresh, known.asking.get(&name)) {
            (Some((head, age)), _) if age < fresh_for / 2 => return Look::Known(head),
            (Some((head, _)), Some(_)) => return Look::Known(head),
            (None, Some(asking)) => return Look::Wait(asking.clone()),
            (_, None) => {}
        }
        let (answered, waiting) = watch::channel(());
        known.asking.insert(name.clone(), waiting);
        Look::Ask(Asking { heads: self, name, _answered: answered })
    }

    /// `asked`: when the question was, to which `found` is the answer.
    fn learn(&self, namespace: &str, key: &str, found: Head, asked: Instant) -> Head {
        let mut known = self.known();
        let name = (namespace.to_owned(), key.to_owned());
        known.names.insert(found.view, name.clone());
        let head = known.by_name.entry(name).or_insert(found);
        if is_newer(head, &found, asked) {
            if found.view == head.view && found.version < head.version {
                tracing::warn!(
                    namespace,
                    key,
                    known = head.version,
                    found = found.version,
                    "the database went back behind what was read from it: a backup was put back"
                );
            }
            let former = std::mem::replace(head, found).view;
            if former != found.view {
                known.names.remove(&former);
            }
            return found;
        }
        *head
    }
}

/// Whether an answer tells more than what is known. Answers overtake each other: one to a question that was asked before something was
/// known counts only if its version is as new. One that was asked after that, and knows of no version as new as ours, is from
/// a database that went back; no version is ever wanted less.
fn is_newer(known: &Head, found: &Head, asked: Instant) -> bool {
    if found.view != known.view {
        // The name was given anew.
        return asked >= known.learned;
    }
    found.version >= known.version || (asked >= known.learned && found.wanted < known.version)
}

/// The generation of a read.
#[derive(Debug, Clone, Copy)]
struct Of {
    view: ViewId,
    version: i64,
    published_at: Option<Timestamp>,
    generation: Uuid,
    wanted: i64,
    staleness: Duration,
    age: Option<Duration>,
}

impl Of {
    fn head(head: &Head) -> Self {
        Self {
            view: head.view,
            version: head.version,
            published_at: head.published_at,
            generation: head.generation(),
            wanted: head.wanted,
            staleness: head.staleness(),
            age: head.published_at.map(|at| head.now().since(at)),
        }
    }
}

fn read_of(of: Of, values: Vec<Option<Arc<String>>>, gone: Vec<String>) -> ViewItems {
    let Of { view, version, published_at, generation, wanted, staleness, age } = of;
    ViewItems { view, version, published_at, generation, wanted, staleness, age, values, gone }
}

fn page_of(of: Of, page: Page) -> ViewPage {
    let Of { view, version, published_at, generation, wanted, staleness, age } = of;
    let last = page.items.last().map(|(item, _)| item.clone());
    let (items, has_more) = (page.items, page.has_more);
    ViewPage {
        view,
        version,
        published_at,
        generation,
        wanted,
        staleness,
        age,
        items,
        gone: Vec::new(),
        last,
        has_more,
    }
}

impl Shared {
    pub(crate) async fn head(&self, namespace: &str, key: &str, fresh_for: Duration) -> Result<Head> {
        // Whoever wants it as it is now cannot do with an answer to an earlier question.
        let _asking = if fresh_for.is_zero() {
            None
        } else {
            match self.heads.look(namespace, key, fresh_for) {
                Look::Known(head) => return Ok(head),
                Look::Ask(asking) => Some(asking),
                Look::Wait(mut asking) => {
                    // It ends with an error: nothing is ever sent.
                    let _ = asking.changed().await;
                    match self.heads.look(namespace, key, fresh_for) {
                        Look::Known(head) => return Ok(head),
                        Look::Ask(asking) => Some(asking),
                        // The store is slow or away: each waits for its own answer, not for one question after the other.
                        Look::Wait(_) => None,
                    }
                }
            }
        };
        let asked = Instant::now();
        let (record, at) = self.store.view_look(namespace, key).await?;
        self.heads.is_ahead(record.id, record.definition.options.prefetch.is_some());
        let found = Head {
            view: record.id,
            version: record.versions.live,
            stamp: record.live_stamp,
            wanted: record.versions.wanted,
            published_at: record.last_recached_at,
            dirty_since: record.versions.dirty_since,
            at,
            seen: Some(asked),
            learned: Instant::now(),
        };
        Ok(self.heads.learn(namespace, key, found, asked))
    }

    /// Through the cache; what that has not is read with one statement, however many items it is.
    pub(crate) async fn generation_items(
        &self,
        head: Head,
        namespace: &str,
        key: &str,
        items: &[&str],
    ) -> std::result::Result<Vec<Option<Arc<String>>>, Missing> {
        let version = head.key_part();
        let key_of = |item: &str| self.heads.items.key([namespace, key, version.as_str(), item]);
        let policy = Policy::new(ITEM_FRESH).negative_for(ITEM_FRESH);
        let cache = self.cache.for_usage(&Usage::ViewItem);
        if let [item] = items {
            let loader = || async { Ok(self.load(head, vec![(*item).to_owned()]).await?.remove(*item)) };
            let value = cache.get_or_load(&key_of(item), &policy, loader).await.map_err(missing)?;
            return Ok(vec![value]);
        }
        let keys: Vec<Key> = items.iter().map(|item| key_of(item)).collect();
        let by_key: HashMap<&Key, &str> = keys.iter().zip(items.iter().copied()).collect();
        let loader = |asked: Vec<Key>| {
            let wanted: Vec<String> =
                asked.iter().filter_map(|key| by_key.get(key)).map(|item| (*item).to_owned()).collect();
            async move {
                let found = self.load(head, wanted.clone()).await?;
                // An item that is asked for twice is answered twice.
                Ok(wanted.iter().map(|item| found.get(item).cloned()).collect())
            }
        };
        cache.get_or_load_many(&keys, &policy, loader).await.map_err(missing)
    }

    /// A page of the live generation, through the cache.
    async fn live_page(
        &self,
        head: Head,
        (namespace, key): (&str, &str),
        after: Option<&str>,
        rows_max: u32,
    ) -> std::result::Result<Page, Missing> {
        let (version, rows) = (head.key_part(), rows_max.to_string());
        let place = [namespace, key, version.as_str(), after.unwrap_or_default(), rows.as_str()];
        let loader = || async {
            self.load_page(head.view, head.version, after, rows_max)
                .await?
                .ok_or(Missing::Generation)
                .map(Some)
        };
        let cache = self.cache.for_usage(&Usage::ViewItem);
        let page = cache.get_or_load(&self.heads.pages.key(place), &Policy::new(ITEM_FRESH), loader).await;
        let page = page.map_err(missing)?.ok_or(Missing::Generation)?;
        // Whoever came alone need not copy it.
        Ok(Arc::try_unwrap(page)
            .unwrap_or_else(|page| Page { items: page.items.clone(), has_more: page.has_more }))
    }

    /// `None`: the generation is no longer kept.
    async fn load_page(
        &self,
        view: ViewId,
        version: i64,
        after: Option<&str>,
        rows_max: u32,
    ) -> std::result::Result<Option<Page>, Missing> {
        let after = after.map(str::to_owned);
        let found = self.store.generation_page(view, version, after, rows_max.saturating_add(1)).await;
        let Some(mut items) = found.map_err(|error| Missing::Store(error.to_string()))? else {
            return Ok(None);
        };
        let rows_max = usize::try_from(rows_max).unwrap_or(usize::MAX);
        let has_more = items.len() > rows_max;
        items.truncate(rows_max);
        Ok(Some(Page { items, has_more }))
    }

    async fn load(
        &self,
        head: Head,
        items: Vec<String>,
    ) -> std::result::Result<HashMap<String, String>, Missing> {
        match self.store.generation_read(head.view, head.version, items).await {
            Ok(Some(found)) => Ok(found.into_iter().collect()),
            Ok(None) => Err(Missing::Generation),
            Err(error) => Err(Missing::Store(error.to_string())),
        }
    }
}

impl Engine {
    /// Reads one item of the live generation.
    pub async fn read_item(&self, namespace: &str, key: &str, item: &str) -> Result<ViewItem> {
        let mut items = self.read_items(namespace, key, &[item]).await?;
        Ok(ViewItem {
            view: items.view,
            version: items.version,
            published_at: items.published_at,
            generation: items.generation,
            wanted: items.wanted,
            staleness: items.staleness,
            age: items.age,
            value: items.values.pop().flatten(),
            is_gone: !items.gone.is_empty(),
        })
    }

    /// Reads items, all of the same generation: the live one, or the one before it for at most
    /// [`view_head_fresh`](crate::Options::view_head_fresh) after another process published.
    pub async fn read_items(&self, namespace: &str, key: &str, items: &[&str]) -> Result<ViewItems> {
        let mut fresh_for = self.shared.options.view_head_fresh;
        for _ in 0..LOOKS_MAX {
            let head = self.shared.head(namespace, key, fresh_for).await?;
            if head.version == 0 {
                let values = vec![None; items.len()];
                return Ok(read_of(Of::head(&head), values, Vec::new()));
            }
            match self.shared.generation_items(head, namespace, key, items).await {
                Ok(values) => {
                    return Ok(self.with_values(namespace, key, items, Of::head(&head), values).await);
                }
                // It was removed while this reader slept: take the live one as it is now.
                Err(Missing::Generation) => fresh_for = Duration::ZERO,
                Err(Missing::Store(message)) => {
                    return Err(recache_store::Error::Unavailable { message, source: None }.into());
                }
            }
        }
        self.read_at_once(namespace, key, items).await
    }

    /// Which version is live and what it holds in one statement, past the cache: nothing can be removed in between. For a reader who is
    /// slower than generations come and go.
    async fn read_at_once(&self, namespace: &str, key: &str, items: &[&str]) -> Result<ViewItems> {
        let wanted = items.iter().map(|item| (*item).to_owned()).collect();
        let read = self.shared.store.view_read(namespace, key, Some(wanted)).await?;
        let found: HashMap<String, Arc<String>> =
            read.items.into_iter().map(|(item, value)| (item, Arc::new(value))).collect();
        let values = items.iter().map(|item| found.get(*item).cloned()).collect();
        let of = Of {
            view: read.view,
            version: read.version,
            published_at: read.published_at,
            generation: named(read.stamp, read.view),
            wanted: read.wanted,
            staleness: read.staleness,
            age: read.age,
        };
        Ok(self.with_values(namespace, key, items, of, values).await)
    }

    /// Of a view whose values only the cache keeps, with these in place of what stands for them.
    async fn with_values(
        &self,
        namespace: &str,
        key: &str,
        items: &[&str],
        of: Of,
        mut values: Vec<Option<Arc<String>>>,
    ) -> ViewItems {
        // The name is only made where it is needed: this is the hot part of a read.
        let gone = if kept::are_held(&values) {
            kept::resolve(&self.shared, &ViewName::new(namespace, key), items, &mut values).await
        } else {
            Vec::new()
        };
        read_of(of, values, gone)
    }

    /// Like [`read_items`](Self::read_items), but of version `min_version` or newer: waits for it up to `wait`.
    pub async fn read_items_since(
        &self,
        namespace: &str,
        key: &str,
        items: &[&str],
        min_version: i64,
        wait: Duration,
    ) -> Result<ViewItems> {
        self.wait_for_version(namespace, key, min_version, wait).await?;
        self.read_items(namespace, key, items).await
    }

    /// Waits until `min_version` or a newer version is live, and answers which.
    pub async fn wait_for_version(
        &self,
        namespace: &str,
        key: &str,
        min_version: i64,
        wait: Duration,
    ) -> Result<i64> {
        let deadline = deadline(wait);
        let view = self.shared.head(namespace, key, self.shared.options.view_head_fresh).await?.view;
        let watch = self.shared.waiters.watch(view.uuid());
        loop {
            let changed = watch.changed();
            let head = self.shared.head(namespace, key, Duration::ZERO).await?;
            if head.version >= min_version {
                return Ok(head.version);
            }
            let look_again = self.pause(changed);
            if tokio::time::timeout_at(deadline, look_again).await.is_err() {
                let what =
                    format!("{namespace}/{key} is at version {}, wanted is {min_version}", head.version);
                return Err(Error::TimedOut { what, waited: wait });
            }
        }
    }

    /// Says from which others a view is made, in place of what was said before. A publication above that changed anything touches it from then on; one
    /// that changed nothing does not. A circle is a conflict. True when it is news; the view is touched then.
    pub async fn derive_view(&self, view: ViewName, from: Vec<ViewName>) -> Result<bool> {
        Ok(self.shared.store.chains().view_derive(view, from).await?)
    }

    /// The views that a view is made from, and those that are made from it.
    pub async fn view_neighbours(&self, view: ViewName) -> Result<Neighbours> {
        Ok(self.shared.store.chains().view_neighbours(view).await?)
    }

    /// Items of one generation in the order of their keys, page by page. The first page is of the live generation; give its version and
    /// the key of its last item for the next one. A generation that was removed meanwhile is a conflict: begin again. Pages of the live generation go through
    /// the cache.
    pub async fn list_items(
        &self,
        namespace: &str,
        key: &str,
        from: Option<(i64, String)>,
        rows_max: u32,
    ) -> Result<ViewPage> {
        let rows_max = rows_max.max(1);
        let mut fresh_for = self.shared.options.view_head_fresh;
        for look in 0..LIST_LOOKS_MAX {
            let head = self.shared.head(namespace, key, fresh_for).await?;
            fresh_for = Duration::ZERO;
            let live = Of::head(&head);
            let (version, after) = match &from {
                // Another process said so, which knows of a newer one.
                Some((version, _)) if *version > head.version && look == 0 => continue,
                Some((version, after)) => (*version, Some(after.as_str())),
                None if head.version == 0 => {
                    return Ok(page_of(live, Page { items: Vec::new(), has_more: false }));
                }
                None => (head.version, None),
            };
            let (found, of) = if version == head.version {
                (self.shared.live_page(head, (namespace, key), after, rows_max).await.map(Some), live)
            } else {
                let page = self.shared.load_page(head.view, version, after, rows_max).await;
                (page, self.replaced(&head, version).await?)
            };
            match found {
                Ok(Some(page)) => {
                    let mut page = page_of(of, page);
                    let items = std::mem::take(&mut page.items);
                    let name = ViewName::new(namespace, key);
                    (page.items, page.gone) = kept::resolve_page(&self.shared, &name, items).await;
                    return Ok(page);
                }
                Ok(None) | Err(Missing::Generation) if from.is_some() => {
                    let what =
                        format!("version {version} of {namespace}/{key} is no longer kept: begin again");
                    return Err(recache_store::Error::Conflict(what).into());
                }
                // The live generation was replaced and removed while this reader slept.
                Ok(None) | Err(Missing::Generation) => {}
                Err(Missing::Store(message)) => {
                    return Err(recache_store::Error::Unavailable { message, source: None }.into());
                }
            }
        }
        let message = format!("{namespace}/{key} is published faster than it can be read");
        Err(recache_store::Error::Unavailable { message, source: None }.into())
    }

    /// The first page of [`list_items`](Self::list_items), of version `min_version` or newer: waits for it up to `wait`.
    pub async fn list_items_since(
        &self,
        namespace: &str,
        key: &str,
        min_version: i64,
        wait: Duration,
        rows_max: u32,
    ) -> Result<ViewPage> {
        self.wait_for_version(namespace, key, min_version, wait).await?;
        self.list_items(namespace, key, None, rows_max).await
    }

    /// What is known of a generation that is no longer live.
    async fn replaced(&self, head: &Head, version: i64) -> Result<Of> {
        let told = self.shared.store.generation_get(head.view, version).await?;
        let published_at = told.as_ref().map(|generation| generation.published_at);
        let now = head.now();
        // What replaced it showed a change that it does not.
        let since = told.and_then(|generation| generation.replaced_at).map(|at| now.since(at));
        let staleness = since.unwrap_or_default().max(head.staleness());
        let age = published_at.map(|at| now.since(at));
        Ok(Of { version, published_at, staleness, age, ..Of::head(head) })
    }
}

fn missing(error: LoadError<Missing>) -> Missing {
    match error {
        LoadError::Failed(missing) => (*missing).clone(),
        LoadError::TimedOut(_) => Missing::Store(error.to_string()),
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Missing {
    #[error("the generation was removed")]
    Generation,
    #[error("{0}")]
    Store(String),
}

#[cfg(test)]
mod tests {
    use recache_cache::{CacheConfig, SystemClock};

    use super::*;

    fn head(view: ViewId, version: i64, wanted: i64, learned: Instant) -> Head {
        let at = Timestamp::from_micros(0);
        let (published_at, dirty_since, seen) = (None, None, Some(learned));
        Head { view, version, stamp: None, wanted, published_at, dirty_since, at, seen, learned }
    }

    #[test]
    fn late_answer_does_not_take_a_view_back_and_a_restored_database_does() {
        let view = ViewId::make();
        let asked_early = Instant::now();
        let learned = asked_early + Duration::from_millis(5);
        let known = head(view, 8, 8, learned);
        let now = learned + Duration::from_millis(5);
        assert!(is_newer(&known, &head(view, 9, 9, now), asked_early));
        assert!(!is_newer(&known, &head(view, 7, 7, now), asked_early), "it was overtaken");
        // A reader of a copy that lags sees an older live version, but of the same history.
        assert!(!is_newer(&known, &head(view, 7, 8, now), now));
        assert!(is_newer(&known, &head(view, 5, 6, now), now), "8 was never wanted: the database went back");
        assert!(is_newer(&known, &head(ViewId::make(), 0, 0, now), now), "deleted, and made anew");
        assert!(!is_newer(&known, &head(ViewId::make(), 9, 9, now), asked_early));
    }

    #[tokio::test(start_paused = true)]
    async fn one_reader_asks_while_the_others_read_on() {
        let heads = Heads::new(&Cache::from_config(&CacheConfig::default(), Arc::new(SystemClock)));
        let fresh_for = Duration::from_millis(100);
        let Look::Ask(first) = heads.look("n", "k", fresh_for) else { panic!("nothing is known") };
        let Look::Wait(mut waiting) = heads.look("n", "k", fresh_for) else { panic!("it is being asked") };
        assert!(matches!(heads.look("n", "other", fresh_for), Look::Ask(_)));
        heads.learn("n", "k", head(ViewId::make(), 1, 1, Instant::now()), Instant::now());
        drop(first);
        assert!(waiting.changed().await.is_err(), "whoever waits looks again");
        assert!(matches!(heads.look("n", "k", fresh_for), Look::Known(_)));

        tokio::time::advance(fresh_for / 2).await;
        let early = heads.look("n", "k", fresh_for);
        assert!(matches!(early, Look::Ask(_)), "before its time is over");
        assert!(matches!(heads.look("n", "k", fresh_for), Look::Known(_)));
        tokio::time::advance(fresh_for / 2).await;
        assert!(matches!(heads.look("n", "k", fresh_for), Look::Wait(_)), "no older than was promised");
        // The reader who asked went away.
        drop(early);
        assert!(matches!(heads.look("n", "k", fresh_for), Look::Ask(_)));
    }
}
