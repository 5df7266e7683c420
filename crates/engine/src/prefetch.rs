//! Puts items of a new generation into the cache before anybody asks for them, where a view's definition wants that.
//!
//! Each process does so for the views that it reads or builds, so the copies in its own memory are warm too. One view at a time, so many items
//! and bytes at most, off the way of the publication: whatever fails here costs a reader what it would have cost anyway.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use recache_model::ids::ViewId;
use recache_model::view_options::Prefetch;
use recache_store::ViewName;
use tokio::sync::Notify;

use crate::engine::Shared;
use crate::kept;
use crate::stats::{add, one};
use crate::views::{Head, Missing};

/// Items that are read together.
const ITEMS_A_CALL: usize = 200;
/// Bytes of values of one generation, after which no more is fetched.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Views that may wait to be fetched; one more is left out, and counted.
const WAITING_MAX: usize = 1_000;

/// Publications to be looked at: of each view the newest.
#[derive(Debug, Default)]
pub(crate) struct Published {
    waiting: Mutex<HashMap<ViewId, i64>>,
    came: Notify,
}

impl Published {
    /// False: too many wait.
    fn add(&self, view: ViewId, version: i64) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= WAITING_MAX && !waiting.contains_key(&view) {
            return false;
        }
        let newest = waiting.entry(view).or_insert(version);
        *newest = version.max(*newest);
        drop(waiting);
        self.came.notify_one();
        true
    }

    fn take(&self) -> Option<ViewId> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let view = waiting.keys().next().copied()?;
        waiting.remove(&view);
        Some(view)
    }
}

/// A generation was published. Costs a look into a table; the rest is [`run`]'s.
pub(crate) fn published(shared: &Shared, view: ViewId, version: i64) {
    if shared.heads.may_be_ahead(view).is_some() && !shared.published.add(view, version) {
        one(&shared.counters.prefetches_left_out);
    }
}

pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        while let Some(view) = shared.published.take() {
            tokio::select! {
                () = shared.ending.cancelled() => return,
                () = look(&shared, view) => {}
            }
        }
        tokio::select! {
            () = shared.ending.cancelled() => return,
            () = shared.published.came.notified() => {}
        }
    }
}

async fn look(shared: &Shared, view: ViewId) {
    let Some((namespace, key)) = shared.heads.may_be_ahead(view) else { return };
    let record = match shared.store.view_get(&namespace, &key).await {
        Ok(record) => record,
        Err(error) => {
            tracing::debug!(%error, namespace, key, "a generation was not fetched ahead");
            one(&shared.counters.prefetches_left_out);
            return;
        }
    };
    let prefetch = record.definition.options.prefetch;
    shared.heads.is_ahead(view, prefetch.is_some());
    let Some(prefetch) = prefetch else { return };
    // Asked anew, so that a reader that comes now need not.
    let Ok(head) = shared.head(&namespace, &key, std::time::Duration::ZERO).await else { return };
    if let Err(missing) = fetch(shared, head, &namespace, &key, prefetch).await {
        // Published anew meanwhile: that one is fetched instead.
        if matches!(missing, Missing::Store(_)) {
            tracing::debug!(error = %missing, namespace, key, "a generation was not fetched ahead to its end");
            one(&shared.counters.prefetches_left_out);
        }
    }
}

async fn fetch(
    shared: &Shared,
    head: Head,
    namespace: &str,
    key: &str,
    prefetch: Prefetch,
) -> Result<(), Missing> {
    let name = ViewName::new(namespace, key);
    let mut bytes = 0;
    let mut fetch = async |items: &[&str]| -> Result<bool, Missing> {
        let mut values = shared.generation_items(head, namespace, key, items).await?;
        kept::resolve(shared, &name, items, &mut values).await;
        let found = values.iter().flatten();
        add(&shared.counters.items_prefetched, found.clone().count());
        bytes += found.map(|value| value.len()).sum::<usize>();
        Ok(bytes < BYTES_MAX)
    };
    match prefetch {
        Prefetch::Items(items) => {
            for items in items.chunks(ITEMS_A_CALL) {
                let items: Vec<&str> = items.iter().map(String::as_str).collect();
                if !fetch(&items).await? {
                    break;
                }
            }
        }
        Prefetch::First(count) => {
            let (mut left, mut after) = (count, None);
            while left > 0 {
                let rows = left.min(u32::try_from(ITEMS_A_CALL).unwrap_or(u32::MAX));
                let page = shared.store.generation_page(head.view, head.version, after, rows).await;
                let page = page.map_err(|error| Missing::Store(error.to_string()))?;
                let page = page.ok_or(Missing::Generation)?;
                let items: Vec<&str> = page.iter().map(|(item, _)| item.as_str()).collect();
                let Some(last) = items.last() else { break };
                after = Some((*last).to_owned());
                left -= rows;
                if !fetch(&items).await? {
                    break;
                }
            }
        }
    }
    Ok(())
}
