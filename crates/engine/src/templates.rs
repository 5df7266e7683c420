//! Templates, kept in the store and read through the cache.
//!
//! A version never changes, so the only answer that a put can outdate is that there is none. It is outdated in the put's
//! own transaction: from then on no process answers it any more.

use std::sync::Arc;
use std::time::Duration;

use recache_cache::epochs::Slot;
use recache_cache::provider::Capability;
use recache_cache::{Cache, Key, KeyPrefix, LoadError, Space, Usage};
use recache_model::template::Template;
use recache_store::{CacheRaise, TemplateRecord};

use crate::engine::{Engine, Shared};
use crate::error::{Error, Result};

/// For how long it is remembered that there is no such template.
const ABSENT_FOR: Duration = Duration::from_mins(1);

/// The cache as templates use it.
#[derive(Debug)]
pub(crate) struct Templates {
    cache: Cache,
    space: Space,
}

impl Templates {
    pub(crate) fn new(cache: &Cache) -> Self {
        Self { cache: cache.for_usage(&Usage::Template), space: space(cache.keys()) }
    }

    pub(crate) fn raise(&self, template: &TemplateRecord) -> CacheRaise {
        template_raise(self.cache.keys(), template)
    }
}

/// What whoever stores a template raises with it, so that no cache with this prefix and with
/// [`StoreEpochs`](crate::StoreEpochs) still answers that there is none. For those who put it into the store themselves.
pub fn template_raise(prefix: &KeyPrefix, template: &TemplateRecord) -> CacheRaise {
    let TemplateRecord { namespace, name, version, digest, .. } = template;
    let keys = [prefix.template(namespace, name, version), by_digest(&space(prefix), digest)];
    CacheRaise {
        prefix: prefix.as_str().to_owned(),
        slots: keys.iter().map(|key| Slot::of_key(key).number()).collect(),
    }
}

fn space(prefix: &KeyPrefix) -> Space {
    prefix.space("template")
}

/// No name has a single part.
fn by_digest(space: &Space, digest: &str) -> Key {
    space.key([digest])
}

impl Engine {
    /// Stores a template. The same version with another content is a conflict. When this returns, no process that reads
    /// through a cache with epochs in this store still answers that there is no such template.
    pub async fn put_template(&self, template: &Template) -> Result<()> {
        let record = record(template);
        let raise = self.shared.templates.raise(&record);
        let keys = [
            self.shared.templates.cache.keys().template(&record.namespace, &record.name, &record.version),
            by_digest(&self.shared.templates.space, &record.digest),
        ];
        self.shared.store.template_put(record, Some(raise)).await?;
        crate::registry::changed(&self.shared);
        // A backend that all processes share keeps its epochs itself: there nothing was raised with the put.
        let cache = &self.shared.templates.cache;
        if cache.capabilities().has(Capability::Shared) {
            for key in &keys {
                cache.invalidate(key).await;
            }
        }
        Ok(())
    }

    /// A template by what it is called.
    pub async fn template(&self, namespace: &str, name: &str, version: &str) -> Result<Arc<TemplateRecord>> {
        let key = self.shared.templates.cache.keys().template(namespace, name, version);
        let what = || format!("{namespace}/{name} {version}");
        let load = || self.shared.store.template_find(namespace, name, Some(version));
        cached_template(&self.shared, &key, what, load).await
    }

    /// A template by the digest of its content.
    pub async fn template_by_digest(&self, digest: &str) -> Result<Arc<TemplateRecord>> {
        template_by_digest(&self.shared, digest).await
    }
}

pub(crate) async fn template_by_digest(shared: &Shared, digest: &str) -> Result<Arc<TemplateRecord>> {
    let key = by_digest(&shared.templates.space, digest);
    cached_template(shared, &key, || digest.to_owned(), || shared.store.template_get(digest)).await
}

async fn cached_template<F>(
    shared: &Shared,
    key: &Key,
    what: impl FnOnce() -> String,
    load: impl FnOnce() -> F,
) -> Result<Arc<TemplateRecord>>
where
    F: Future<Output = recache_store::Result<TemplateRecord>>,
{
    let cache = &shared.templates.cache;
    // A shared backend keeps its epochs itself, out of the put's transaction: "there is none" could outlive a put there.
    let policy = if cache.capabilities().has(Capability::Shared) {
        cache.default_policy()
    } else {
        cache.default_policy().negative_for(ABSENT_FOR)
    };
    let loader = || {
        let loading = load();
        async move {
            match loading.await {
                Ok(template) => Ok(Some(template)),
                Err(recache_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        }
    };
    match cache.get_or_load(key, &policy, loader).await {
        Ok(Some(template)) => Ok(template),
        Ok(None) => Err(recache_store::Error::NotFound { what: "template", id: what() }.into()),
        Err(LoadError::Failed(error)) => Err(of_load(error)),
        Err(error @ LoadError::TimedOut(_)) => Err(unavailable(error.to_string())),
    }
}

/// The error itself where nobody else waits for it, else what can be said of it again.
fn of_load(error: Arc<recache_store::Error>) -> Error {
    match Arc::try_unwrap(error) {
        Ok(error) => error.into(),
        Err(shared) => unavailable(shared.to_string()),
    }
}

fn unavailable(message: String) -> Error {
    recache_store::Error::Unavailable { message, source: None }.into()
}

/// As it is pinned.
pub(crate) fn record(template: &Template) -> TemplateRecord {
    TemplateRecord {
        digest: template.digest().to_string(),
        namespace: template.namespace().to_owned(),
        name: template.name().to_owned(),
        version: template.version().to_string(),
        content: template.canonical_json().to_owned(),
    }
}
