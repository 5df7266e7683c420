//! Between a caller's typed value and a stored item.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::envelope::{self, DecodeError, Header};
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
}

/// The value could not be written in its codec.
#[derive(Debug, thiserror::Error)]
#[error("a value of type {type_name} cannot be written as {codec:?}")]
pub(super) struct EncodeError {
    type_name: &'static str,
    codec: Codec,
}

impl<V: Value> Live<V> {
    /// Takes the decoded value where the provider has kept it, and decodes the bytes otherwise.
    pub(super) fn open(key: &Key, item: Item) -> Result<Arc<Self>, DecodeError> {
        if let Some(Ok(live)) = item.decoded.map(Arc::downcast::<Self>) {
            return Ok(live);
        }
        let (header, payload) = envelope::decode(key, &item.bytes)?;
        let wrong = DecodeError::Payload { codec: header.codec };
        let value = match (header.is_absent, header.codec) {
            (true, _) => None,
            (false, Codec::Json) => Some(serde_json::from_slice(payload).map_err(|_| wrong)?),
            (false, Codec::Postcard) => match postcard::take_from_bytes(payload) {
                Ok((value, [])) => Some(value),
                _ => return Err(wrong),
            },
        };
        Ok(Arc::new(Self { header, value: value.map(Arc::new) }))
    }

    pub(super) fn seal(self, key: &Key) -> Result<Item, EncodeError> {
        let payload = self.value.as_deref().map_or(Some(Vec::new()), |value| match self.header.codec {
            Codec::Json => serde_json::to_vec(value).ok(),
            Codec::Postcard => postcard::to_allocvec(value).ok(),
        });
        let Some(payload) = payload else {
            return Err(EncodeError { type_name: std::any::type_name::<V>(), codec: self.header.codec });
        };
        let bytes = envelope::encode(key, &self.header, &payload);
        Ok(Item { bytes, decoded: Some(Arc::new(self)) })
    }
}
