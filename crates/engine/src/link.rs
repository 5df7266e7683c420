//! The link of a handler that runs beside the store.

use std::sync::Arc;

use async_trait::async_trait;
use recache_store::{ItemMark, LeaseToken, PartStart, Revoked, StagedItem, TouchedItems};
use recache_worker::{Item, Keep, KnownItem, KnownPlace, KnownSource, Link, LinkError, PartSource, Touched};

use crate::engine::Shared;
use crate::held::stop_for;
use crate::kept;

#[derive(Debug)]
pub(crate) struct StoreLink {
    pub(crate) shared: Arc<Shared>,
    pub(crate) token: LeaseToken,
}

fn refused(error: &recache_store::Error) -> LinkError {
    if error.is_retryable() {
        LinkError::Unavailable(error.to_string())
    } else {
        LinkError::Refused(error.to_string())
    }
}

fn answer(revoked: recache_store::Result<Option<Revoked>>) -> Result<(), LinkError> {
    match revoked {
        Ok(None) => Ok(()),
        Ok(Some(why)) => Err(LinkError::Revoked(stop_for(why))),
        Err(error) => Err(refused(&error)),
    }
}

fn found<T>(asked: recache_store::Result<Result<T, Revoked>>) -> Result<T, LinkError> {
    match asked {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(why)) => Err(LinkError::Revoked(stop_for(why))),
        Err(error) => Err(refused(&error)),
    }
}

fn source(start: PartStart) -> PartSource {
    PartSource {
        namespace: start.namespace,
        key: start.key,
        version: start.version,
        live_version: start.live_version,
        touched: match start.touched {
            TouchedItems::All => Touched::All,
            TouchedItems::Only(items) => Touched::Only(items),
        },
    }
}

#[async_trait]
impl Link for StoreLink {
    async fn check(&self) -> Result<(), LinkError> {
        match answer(self.shared.store.job_revoked(self.token).await) {
            Err(LinkError::Revoked(why)) => Err(LinkError::Revoked(why)),
            // A checkpoint asks, it does not depend: until the store says otherwise the token stays good.
            Ok(()) | Err(LinkError::Unavailable(_) | LinkError::Refused(_)) => Ok(()),
        }
    }

    async fn progress(&self, fraction: f64, message: Option<String>) -> Result<(), LinkError> {
        answer(self.shared.store.job_progress(self.token, fraction, message).await)
    }

    async fn save(&self, checkpoint: String) -> Result<(), LinkError> {
        answer(self.shared.store.attempts().checkpoint_save(self.token, &checkpoint).await)
    }

    async fn log(&self, lines: Vec<String>) -> Result<(), LinkError> {
        answer(self.shared.store.attempts().log_append(self.token, lines).await)
    }

    async fn put(&self, items: Vec<Item>) -> Result<(), LinkError> {
        let items = items
            .into_iter()
            .map(|item| StagedItem { item: item.key, fingerprint: item.fingerprint, value: item.value })
            .collect();
        answer(kept::put(&self.shared, self.token, items).await)
    }

    async fn part(&self) -> Result<PartSource, LinkError> {
        found(self.shared.store.build_workflows().part_begin(self.token).await).map(source)
    }

    async fn keep(&self, keep: Keep) -> Result<Vec<bool>, LinkError> {
        let keep = match keep {
            Keep::Unchanged(items) => recache_store::Keep::Unchanged(items),
            Keep::Live(items) => recache_store::Keep::Live(items),
            Keep::Rest => recache_store::Keep::Rest,
            Keep::Dropped(items) => recache_store::Keep::Dropped(items),
        };
        found(self.shared.store.build_workflows().part_keep(self.token, keep).await)
    }

    fn known(&self) -> Option<&dyn KnownSource> {
        Some(self)
    }

    async fn previous(&self, items: Vec<String>) -> Result<Vec<(String, String)>, LinkError> {
        found(kept::previous(&self.shared, self.token, items).await)
    }
}

#[async_trait]
impl KnownSource for StoreLink {
    async fn read(
        &self,
        place: KnownPlace,
        from: String,
        until: Option<String>,
    ) -> Result<Vec<KnownItem>, LinkError> {
        let place = match place {
            KnownPlace::Live => recache_store::KnownPlace::Live,
            KnownPlace::Staged => recache_store::KnownPlace::Staged,
        };
        let marks = found(self.shared.store.known_items().known_read(self.token, place, from, until).await)?;
        Ok(marks.into_iter().map(known).collect())
    }

    async fn put(&self, from: String, until: Option<String>) -> Result<Vec<(String, bool)>, LinkError> {
        found(self.shared.store.known_items().known_put(self.token, from, until).await)
    }

    async fn new_items(&self) -> Result<u64, LinkError> {
        found(self.shared.store.known_items().known_new(self.token).await)
    }
}

pub(crate) fn known(mark: ItemMark) -> KnownItem {
    KnownItem { key: mark.item, fingerprint: mark.fingerprint, is_gone: mark.is_gone }
}
