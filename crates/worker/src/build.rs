//! Building a view's next version: put items, or take them over unchanged.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::context::Context;
use crate::failure::Failure;
use crate::known::{Asked, Known, KnownItem, KnownPlace, Pages};
use crate::link::Item;

/// Items that are sent together.
const ITEMS_A_CALL: usize = 64;
/// Bytes of values that are sent together.
const BYTES_A_CALL: usize = 256 * 1024;
/// No item waits longer than this for others when one more is put: what was not sent is lost to the next build when
/// this one is superseded, because its token is void by then.
const WAIT_MAX: Duration = Duration::from_millis(20);
/// Longest item key, in bytes.
pub const ITEM_KEY_BYTES_MAX: usize = 1024;
/// Largest value of an item, in bytes of JSON.
pub const ITEM_VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What changed since the live version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// Anything may have.
    All,
    /// Only these items.
    Only(Vec<String>),
}

/// What a build starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildSource {
    /// The view's namespace.
    pub namespace: String,
    /// The view's key.
    pub key: String,
    /// The version to make.
    pub version: i64,
    /// What readers see now; 0 for nothing.
    pub live_version: i64,
    /// What changed since then.
    pub touched: Touched,
    /// The live items.
    pub live: Vec<KnownItem>,
    /// What superseded or failed builds have made since.
    pub staged: Vec<KnownItem>,
    /// In place of both, where they are many: they are asked for page by page.
    pub pages: Option<(Pages, Pages)>,
    /// Keys of items that were put which the build remembers, where whoever keeps them tells of them too.
    pub put_keys_max: usize,
}

/// What a build did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildSummary {
    /// Live items that were not put: gone after publication.
    pub removed: Vec<String>,
    /// Items of the new generation.
    pub total: u64,
    /// Values computed.
    pub computed: u64,
    /// Items taken over.
    pub reused: u64,
}

/// An item as it is sent, if it can be one.
pub(crate) fn checked_item<T: Serialize + ?Sized>(
    item: &str,
    fingerprint: Option<&str>,
    value: &T,
) -> Result<Item, Failure> {
    if item.is_empty() || item.len() > ITEM_KEY_BYTES_MAX || item.contains('\0') {
        return Err(Failure::permanent(
            "item_key",
            format!(
                "an item's key must have 1 to {ITEM_KEY_BYTES_MAX} bytes and no NUL, and has {}",
                item.len()
            ),
        ));
    }
    let value = serde_json::to_string(value)
        .map_err(|error| Failure::permanent("item_value", format!("item `{item}`: {error}")))?;
    if value.len() > ITEM_VALUE_BYTES_MAX {
        return Err(Failure::permanent(
            "item_value",
            format!("item `{item}` has {} bytes; at most {ITEM_VALUE_BYTES_MAX} are kept", value.len()),
        ));
    }
    Ok(Item { key: item.to_owned(), fingerprint: fingerprint.map(str::to_owned), value: Some(value) })
}

#[derive(Debug)]
struct Progress {
    live: Known,
    staged: Known,
    /// What was put or taken over from what is staged. `None`: too many to be remembered here; the link tells.
    put: Option<HashSet<String>>,
    waiting: Vec<Item>,
    waiting_bytes: usize,
    /// When the first of them was put.
    waiting_since: Option<Instant>,
    computed: u64,
    /// Taken over from what is staged.
    taken: u64,
}

#[derive(Debug)]
struct Inner {
    context: Context,
    source: BuildSource,
    progress: Mutex<Progress>,
}

/// Handed to every builder; cheap to clone. What is put becomes visible all at once when the builder returns `Ok`, and
/// not at all otherwise. An item that is neither put nor taken over is gone from the new generation.
#[derive(Debug, Clone)]
pub struct BuildContext(Arc<Inner>);

impl BuildContext {
    /// Made by whoever runs the builder.
    pub fn new(context: Context, mut source: BuildSource) -> Self {
        let (live, staged) = match source.pages.take() {
            Some((live, staged)) => {
                (Known::paged(KnownPlace::Live, live), Known::paged(KnownPlace::Staged, staged))
            }
            None => {
                (Known::all(std::mem::take(&mut source.live)), Known::all(std::mem::take(&mut source.staged)))
            }
        };
        let progress = Progress {
            live,
            staged,
            put: Some(HashSet::new()),
            waiting: Vec::new(),
            waiting_bytes: 0,
            waiting_since: None,
            computed: 0,
            taken: 0,
        };
        Self(Arc::new(Inner { context, source, progress: Mutex::new(progress) }))
    }

    /// The job's own context: facts, checkpoint, progress.
    pub fn context(&self) -> &Context {
        &self.0.context
    }

    /// The view's namespace.
    pub fn namespace(&self) -> &str {
        &self.0.source.namespace
    }

    /// The view's key.
    pub fn key(&self) -> &str {
        &self.0.source.key
    }

    /// The version that this build makes.
    pub fn version(&self) -> i64 {
        self.0.source.version
    }

    /// The version that readers see meanwhile; 0 for none.
    pub fn live_version(&self) -> i64 {
        self.0.source.live_version
    }

    /// What changed since the live version.
    pub fn touched(&self) -> &Touched {
        &self.0.source.touched
    }

    /// See [`Context::checkpoint`].
    pub async fn checkpoint(&self) -> Result<(), Failure> {
        self.0.context.checkpoint().await
    }

    /// See [`Context::progress`]. A build that is superseded keeps it in its history.
    pub async fn progress(&self, fraction: f64, message: Option<&str>) -> Result<(), Failure> {
        self.0.context.progress(fraction, message).await
    }

    /// Takes `item` over if it was computed from the same inputs: live, or made by a build that was superseded.
    /// True: done, nothing to compute. A live item costs no write. Where there are many items, ask in the order of their keys.
    pub async fn reuse(&self, item: &str, fingerprint: &str) -> Result<bool, Failure> {
        let source = self.0.context.link().known();
        let mut progress = self.0.progress.lock().await;
        if progress.live.ask(item, source).await? == Asked::There(Some(fingerprint)) {
            if !progress.has_put(item) {
                progress.live.keep(item);
            }
            return Ok(true);
        }
        if progress.staged.ask(item, source).await? == Asked::There(Some(fingerprint)) {
            if progress.note_put(item) {
                progress.taken += 1;
                let taken =
                    Item { key: item.to_owned(), fingerprint: Some(fingerprint.to_owned()), value: None };
                self.send_later(&mut progress, taken).await?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Keeps a live item as it is, whatever its fingerprint. False when there is no such item, or nothing is left of it but its key: put it then. (Only
    /// views whose values are kept in the cache alone can lose some.)
    pub async fn keep(&self, item: &str) -> Result<bool, Failure> {
        let source = self.0.context.link().known();
        let mut progress = self.0.progress.lock().await;
        let exists = matches!(progress.live.ask(item, source).await?, Asked::There(_));
        if exists && !progress.has_put(item) {
            progress.live.keep(item);
        }
        Ok(exists)
    }

    /// The values that these items have in the live version, in their order; `None` where it has no such item. For what is made of what was: a
    /// counter, a running mean. Values that do not fit the type are a permanent failure.
    pub async fn previous<T: DeserializeOwned>(&self, items: &[String]) -> Result<Vec<Option<T>>, Failure> {
        self.0.context.previous(items).await
    }

    /// Puts an item that was computed. With a fingerprint of its inputs, a later build can take it over. An item that was put before is refused, as long
    /// as the build has put no more than 20,000; after that the later value counts.
    pub async fn put<T: Serialize + ?Sized>(
        &self,
        item: &str,
        fingerprint: Option<&str>,
        value: &T,
    ) -> Result<(), Failure> {
        let item = checked_item(item, fingerprint, value)?;
        let mut progress = self.0.progress.lock().await;
        let is_kept = progress.live.has_kept(&item.key) == Some(true);
        if is_kept || !progress.note_put(&item.key) {
            return Err(Failure::permanent(
                "item_twice",
                format!("item `{}` was put twice in one build", item.key),
            ));
        }
        progress.computed += 1;
        self.send_later(&mut progress, item).await
    }

    /// For each item: takes it over if its fingerprint is known, else computes and puts it, at most
    /// `at_once` at a time. Stops at the first failure, and when the build shall stop.
    pub fn for_each<T, C, F>(
        &self,
        items: impl IntoIterator<Item = (String, String), IntoIter: Send>,
        at_once: usize,
        compute: C,
    ) -> impl Future<Output = Result<(), Failure>> + Send
    where
        T: Serialize + Send + Sync,
        C: Fn(String) -> F + Send + Sync,
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let items = items.into_iter();
        async move {
            let compute = &compute;
            stream::iter(items)
                .map(|(item, fingerprint)| async move {
                    self.checkpoint().await?;
                    if self.reuse(&item, &fingerprint).await? {
                        return Ok(());
                    }
                    let value = compute(item.clone()).await?;
                    self.put(&item, Some(&fingerprint), &value).await
                })
                .buffer_unordered(at_once.max(1))
                .try_collect::<()>()
                .await
        }
    }

    async fn send_later(&self, progress: &mut Progress, item: Item) -> Result<(), Failure> {
        if progress.put.as_ref().is_some_and(|put| put.len() > self.0.source.put_keys_max)
            && self.0.context.link().known().is_some()
        {
            progress.put = None;
        }
        progress.waiting_bytes += item.value.as_ref().map_or(0, String::len);
        progress.waiting.push(item);
        let since = *progress.waiting_since.get_or_insert_with(Instant::now);
        if progress.waiting.len() >= ITEMS_A_CALL
            || progress.waiting_bytes >= BYTES_A_CALL
            || since.elapsed() >= WAIT_MAX
        {
            self.send(progress).await?;
        }
        Ok(())
    }

    async fn send(&self, progress: &mut Progress) -> Result<(), Failure> {
        if progress.waiting.is_empty() {
            return Ok(());
        }
        progress.waiting_bytes = 0;
        progress.waiting_since = None;
        let items = std::mem::take(&mut progress.waiting);
        Ok(self.0.context.link().put(items).await?)
    }

    /// Sends what is still here, so that a build that is stopped loses none of it.
    pub async fn flush(&self) -> Result<(), Failure> {
        self.send(&mut *self.0.progress.lock().await).await
    }

    /// Sends what is still here and sums up. Called by whoever runs the builder, after it returned `Ok`.
    pub async fn finish(&self) -> Result<BuildSummary, Failure> {
        let mut progress = self.0.progress.lock().await;
        self.send(&mut progress).await?;
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let source = self.0.context.link().known();
        let (removed, total) = match (&progress.put, &progress.live, source) {
            (Some(put), Known::All { .. }, _) => {
                let removed = progress.live.left_of(put);
                (removed, count(put.len()) + progress.live.kept_count())
            }
            (_, live, Some(source)) => {
                let removed = live.left(source).await?;
                let stay = live.count().saturating_sub(count(removed.len()));
                (removed, stay + source.new_items().await?)
            }
            (_, _, None) => {
                return Err(Failure::permanent("refused", "nobody tells of known items"));
            }
        };
        let reused = progress.live.kept_count() + progress.taken;
        Ok(BuildSummary { removed, total, computed: progress.computed, reused })
    }
}

impl Progress {
    /// Whether an item was put, or taken over from what is staged, as far as that is remembered here.
    fn has_put(&self, item: &str) -> bool {
        self.put.as_ref().is_some_and(|put| put.contains(item))
    }

    /// True: it was not put before. Where that is not remembered, what waits to be sent is.
    fn note_put(&mut self, item: &str) -> bool {
        match &mut self.put {
            Some(put) => put.insert(item.to_owned()),
            None => !self.waiting.iter().any(|waiting| waiting.key == item),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Lock;

    use async_trait::async_trait;

    use super::*;
    use crate::context::JobFacts;
    use crate::link::{Link, LinkError};
    use crate::stop::StopSignal;

    #[derive(Debug, Default)]
    struct Calls(Lock<Vec<Vec<String>>>);

    #[async_trait]
    impl Link for Calls {
        async fn check(&self) -> Result<(), LinkError> {
            Ok(())
        }
        async fn progress(&self, _: f64, _: Option<String>) -> Result<(), LinkError> {
            Ok(())
        }
        async fn save(&self, _: String) -> Result<(), LinkError> {
            Ok(())
        }

        async fn log(&self, _: Vec<String>) -> Result<(), LinkError> {
            Ok(())
        }

        async fn put(&self, items: Vec<Item>) -> Result<(), LinkError> {
            self.0.lock().unwrap().push(items.into_iter().map(|item| item.key).collect());
            Ok(())
        }
    }

    fn build() -> (BuildContext, Arc<Calls>) {
        let calls = Arc::new(Calls::default());
        let link: Arc<dyn Link> = calls.clone();
        let context = Context::new(JobFacts::default(), StopSignal::new(), link);
        let source = BuildSource {
            namespace: "n".to_owned(),
            key: "k".to_owned(),
            version: 2,
            live_version: 1,
            touched: Touched::All,
            live: vec![KnownItem {
                key: "live".to_owned(),
                fingerprint: Some("1".to_owned()),
                is_gone: false,
            }],
            staged: vec![],
            pages: None,
            put_keys_max: usize::MAX,
        };
        (BuildContext::new(context, source), calls)
    }

    fn is_send<T: Send>(work: T) -> T {
        work
    }

    #[tokio::test(start_paused = true)]
    async fn slow_items_do_not_wait_for_a_full_call() {
        let (build, calls) = build();
        for item in ["a", "b", "c"] {
            build.put(item, Some("1"), &1).await.unwrap();
            tokio::time::advance(Duration::from_millis(12)).await;
        }
        assert_eq!(*calls.0.lock().unwrap(), [["a", "b", "c"]], "the third came 24 ms after the first");
        build.put("d", Some("1"), &1).await.unwrap();
        assert_eq!(calls.0.lock().unwrap().len(), 1, "a new wait begins");
    }

    #[tokio::test]
    async fn for_each_computes_only_what_has_no_known_fingerprint_and_its_future_can_move_between_threads() {
        let (build, calls) = build();
        let base = 40;
        let items = [("live", "1"), ("new", "1")].map(|(item, mark)| (item.to_owned(), mark.to_owned()));
        let work = build.for_each(items, 2, |item| {
            let base = &base;
            async move {
                assert_eq!(item, "new");
                Ok(base + 2)
            }
        });
        is_send(work).await.unwrap();
        let summary = build.finish().await.unwrap();
        assert_eq!((summary.computed, summary.reused), (1, 1));
        assert_eq!(*calls.0.lock().unwrap(), [["new"]]);
    }
}
