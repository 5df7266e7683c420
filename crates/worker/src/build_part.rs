//! A step's part of a build: where a workflow builds a view, each of its steps puts items of its own.

use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::build::{Touched, checked_item};
use crate::context::Context;
use crate::failure::Failure;
use crate::link::{Item, Keep, PartSource};

/// Items of one call.
const ITEMS_A_CALL: usize = 500;
/// Bytes of values of one call, before the item that exceeds it.
const BYTES_A_CALL: usize = 1024 * 1024;

/// Handed out by [`Context::build_part`]; cheap to clone. What all steps put and keep becomes visible at once when the workflow has
/// completed, and not at all otherwise. A live item that no step puts or keeps is gone from the new generation.
///
/// Every call keeps what it says before it returns: nothing is lost when the step ends, or its worker dies. Use the calls for many.
#[derive(Debug, Clone)]
pub struct BuildPart {
    context: Context,
    source: PartSource,
}

impl BuildPart {
    pub(crate) fn new(context: Context, source: PartSource) -> Self {
        Self { context, source }
    }

    /// The view's namespace.
    pub fn namespace(&self) -> &str {
        &self.source.namespace
    }

    /// The view's key.
    pub fn key(&self) -> &str {
        &self.source.key
    }

    /// The version that the workflow makes.
    pub fn version(&self) -> i64 {
        self.source.version
    }

    /// The version that readers see meanwhile; 0 for none.
    pub fn live_version(&self) -> i64 {
        self.source.live_version
    }

    /// What changed since the live version.
    pub fn touched(&self) -> &Touched {
        &self.source.touched
    }

    /// See [`Context::checkpoint`].
    pub async fn checkpoint(&self) -> Result<(), Failure> {
        self.context.checkpoint().await
    }

    /// The values that these items have in the live version, in their order; `None` where it has no such item.
    pub async fn previous<T: DeserializeOwned>(&self, items: &[String]) -> Result<Vec<Option<T>>, Failure> {
        self.context.previous(items).await
    }

    /// Puts an item that was computed. With a fingerprint of its inputs, a later build can take it over. An item that another step of the
    /// same workflow has put is refused; the step itself may put it again.
    pub async fn put<T: Serialize + ?Sized>(
        &self,
        item: &str,
        fingerprint: Option<&str>,
        value: &T,
    ) -> Result<(), Failure> {
        let item = checked_item(item, fingerprint, value)?;
        self.send(vec![item]).await
    }

    /// Puts many: item, fingerprint, value. They are sent some at a time; what was sent before a failure stays put.
    pub async fn put_many<T>(
        &self,
        items: impl IntoIterator<Item = (String, Option<String>, T), IntoIter: Send>,
    ) -> Result<(), Failure>
    where
        T: Serialize + Send + Sync,
    {
        let (mut waiting, mut bytes) = (Vec::new(), 0);
        let items: Vec<_> = items.into_iter().collect();
        for (item, fingerprint, value) in items {
            let item = checked_item(&item, fingerprint.as_deref(), &value)?;
            bytes += item.value.as_ref().map_or(0, String::len);
            waiting.push(item);
            if waiting.len() >= ITEMS_A_CALL || bytes >= BYTES_A_CALL {
                bytes = 0;
                self.send(std::mem::take(&mut waiting)).await?;
            }
        }
        self.send(waiting).await
    }

    async fn send(&self, items: Vec<Item>) -> Result<(), Failure> {
        self.context.checkpoint().await?;
        if items.is_empty() {
            return Ok(());
        }
        Ok(self.context.link().put(items).await?)
    }

    /// Takes over those of these items (with the fingerprints of their inputs) that were computed from the same: live, or made by a
    /// build that came to nothing. Answers which: there is nothing to compute for them.
    pub async fn reuse(&self, items: &[(String, String)]) -> Result<Vec<bool>, Failure> {
        let mut answers = Vec::with_capacity(items.len());
        for items in items.chunks(ITEMS_A_CALL) {
            self.context.checkpoint().await?;
            answers.extend(self.context.link().keep(Keep::Unchanged(items.to_vec())).await?);
        }
        Ok(answers)
    }

    /// Keeps live items as they are, whatever their fingerprints. Answers which are there.
    pub async fn keep(&self, items: &[String]) -> Result<Vec<bool>, Failure> {
        let mut answers = Vec::with_capacity(items.len());
        for items in items.chunks(ITEMS_A_CALL) {
            self.context.checkpoint().await?;
            answers.extend(self.context.link().keep(Keep::Live(items.to_vec())).await?);
        }
        Ok(answers)
    }

    /// Keeps every live item that no step puts or [drops](Self::drop_items): for a build that looks only at what was touched.
    pub async fn keep_rest(&self) -> Result<(), Failure> {
        self.context.checkpoint().await?;
        self.context.link().keep(Keep::Rest).await?;
        Ok(())
    }

    /// Says of items that they go, although [the rest stays](Self::keep_rest).
    pub async fn drop_items(&self, items: &[String]) -> Result<(), Failure> {
        for items in items.chunks(ITEMS_A_CALL) {
            self.context.checkpoint().await?;
            self.context.link().keep(Keep::Dropped(items.to_vec())).await?;
        }
        Ok(())
    }

    /// For each item: takes it over if its fingerprint is known, else computes and puts it, at most `at_once` at a time. What is
    /// ready is put without waiting for the rest. Stops at the first failure, and when the step shall stop.
    pub async fn for_each<T, C, F>(
        &self,
        items: Vec<(String, String)>,
        at_once: usize,
        compute: C,
    ) -> Result<(), Failure>
    where
        T: Serialize + Send + Sync,
        C: Fn(String) -> F + Send + Sync,
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let known = self.reuse(&items).await?;
        let wanted = items.into_iter().zip(known).filter(|(_, is_known)| !is_known).map(|(item, _)| item);
        let compute = &compute;
        let computing = stream::iter(wanted)
            .map(|(item, fingerprint)| async move {
                self.context.checkpoint().await?;
                let value = compute(item.clone()).await?;
                checked_item(&item, Some(&fingerprint), &value)
            })
            .buffer_unordered(at_once.max(1));
        let mut ready = std::pin::pin!(computing.ready_chunks(at_once.clamp(1, ITEMS_A_CALL)));
        while let Some(items) = ready.next().await {
            let (mut made, mut failed) = (Vec::with_capacity(items.len()), None);
            for item in items {
                match item {
                    Ok(item) => made.push(item),
                    Err(failure) => failed = failed.or(Some(failure)),
                }
            }
            self.send(made).await?;
            if let Some(failure) = failed {
                return Err(failure);
            }
        }
        Ok(())
    }
}
