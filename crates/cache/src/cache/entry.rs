//! Between a caller's typed value and a stored item.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Answer;
use crate::clock::Timestamp;
use crate::envelope::{self, DecodeError, Header};
use crate::epochs::Epochs;
use crate::key::Key;
use crate::policy::Codec;
use crate::provider::Item;

/// What can be cached: anything that serde can write and read. A value that was cached in this process is handed out
/// again as the very same [`Arc`], so it must not be changed through interior mutability.
pub trait Value: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Value for T {}

/// An entry in memory; `value` is `None` for the cached answer "there is none".
#[derive(Debug)]
pub(super) struct Live<V> {
    pub(super) header: Header,
    pub(super) value: Option<Arc<V>>,
    /// At which [`Epochs::changes`] it was last found reachable, so that a hit need not look at the epochs while
    /// nothing is invalidated.
    reachable_at: AtomicU64,
}

/// The value could not be written in its codec.
#[derive(Debug, thiserror::Error)]
#[error("a value of type {type_name} cannot be written as {codec:?}")]
pub(super) struct EncodeError {
    type_name: &'static str,
    codec: Codec,
}

impl<V> Live<V> {
    pub(super) fn new(header: Header, value: Option<Arc<V>>) -> Self {
        Self { header, value, reachable_at: AtomicU64::new(0) }
    }

    /// Whether nothing that it depends on has been invalidated since its load began.
    pub(super) fn is_reachable(&self, key: &Key, epochs: &Epochs) -> bool {
        // Read before the epochs: what changes after this makes the next look go to the epochs again.
        let changes = epochs.changes();
        if self.reachable_at.load(Ordering::Relaxed) == changes {
            return true;
        }
        let is_reachable = epochs.stamp(key, self.header.tags.as_slice()) == Some(self.header.stamp);
        if is_reachable {
            self.reachable_at.store(changes, Ordering::Relaxed);
        }
        is_reachable
    }
}

impl<V: Value> Live<V> {
    /// As a caller gets it.
    pub(super) fn answer(&self, is_fresh: bool, now: Timestamp) -> Answer<V> {
        let Header { written_at, build_cost, .. } = self.header;
        Answer { value: self.value.clone(), is_fresh, age: now.saturating_since(written_at), build_cost }
    }

    /// The decoded value, where it was kept beside the bytes.
    pub(super) fn kept(item: &Item) -> Option<&Self> {
        item.decoded()?.downcast_ref()
    }

    /// Takes the decoded value where it was kept, and decodes the bytes otherwise, keeping the value where the item `stays` in
    /// this process; for a reader whose values are laid out by `schema`.
    pub(super) fn open(key: &Key, item: &Item, schema: u32, stays: bool) -> Result<Arc<Self>, DecodeError> {
        if let Some(Ok(live)) = item.decoded().cloned().map(Arc::downcast::<Self>) {
            return same_schema(&live.header, schema).map(|()| live);
        }
        let (header, payload) = envelope::decode(key, &item.bytes)?;
        same_schema(&header, schema)?;
        let wrong = DecodeError::Payload { codec: header.codec };
        let value = match (header.is_absent, header.codec) {
            (true, _) => None,
            (false, Codec::Json) => Some(serde_json::from_slice(&payload).map_err(|_| wrong)?),
            (false, Codec::Postcard) => match postcard::take_from_bytes(&payload) {
                Ok((value, [])) => Some(value),
                _ => return Err(wrong),
            },
        };
        let live = Arc::new(Self::new(header, value.map(Arc::new)));
        if stays {
            item.keep_decoded(live.clone());
        }
        Ok(live)
    }

    /// Compressed when it has at least `compress_from` bytes.
    pub(super) fn seal(self, key: &Key, compress_from: Option<usize>) -> Result<Item, EncodeError> {
        let payload = self.value.as_deref().map_or(Some(Vec::new()), |value| match self.header.codec {
            Codec::Json => serde_json::to_vec(value).ok(),
            Codec::Postcard => postcard::to_allocvec(value).ok(),
        });
        let Some(payload) = payload else {
            return Err(EncodeError { type_name: std::any::type_name::<V>(), codec: self.header.codec });
        };
        let bytes = envelope::encode(key, &self.header, &payload, compress_from);
        Ok(Item::with_decoded(bytes, Arc::new(self)))
    }
}

fn same_schema(header: &Header, expected: u32) -> Result<(), DecodeError> {
    let found = header.schema;
    if found == expected { Ok(()) } else { Err(DecodeError::Schema { found, expected }) }
}
