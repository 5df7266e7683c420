//! Keys of those who ask over HTTP. The secret itself never comes here.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use recache_model::time::Timestamp;

use crate::error::Result;
use crate::queues::Word;

/// Bytes of a salt and of a digest.
pub const DIGEST_BYTES: usize = 32;
/// Keys that one list shows.
pub const KEYS_LISTED_MAX: i64 = 1_000;

/// A key to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApiKey {
    /// Its public part, by which it is found.
    pub id: String,
    /// What people call it; one live key has it.
    pub name: String,
    /// Drawn for this key: what its secret is hashed under.
    pub salt: [u8; DIGEST_BYTES],
    /// Of its secret.
    pub digest: [u8; DIGEST_BYTES],
    /// What it may do; the store does not look into it.
    pub scopes: Vec<String>,
    /// It is good for this long; `None`: until it is revoked.
    pub lifetime: Option<Duration>,
    /// Who made it.
    pub created_by: String,
}

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// Its public part.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What its secret is hashed under.
    pub salt: [u8; DIGEST_BYTES],
    /// Of its secret.
    pub digest: [u8; DIGEST_BYTES],
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// From when on it is no longer good.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked, by whom and why.
    pub revoked: Option<(Timestamp, Word)>,
}

impl ApiKeyRecord {
    /// Whether it is good at this instant.
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// Keys.
#[async_trait]
pub trait ApiKeys: Send + Sync + Debug {
    /// Keeps a key. A name that a live key has, or an id that any has, is a conflict.
    async fn api_key_put(&self, key: NewApiKey) -> Result<ApiKeyRecord>;

    /// A key by its public part.
    async fn api_key_get(&self, id: &str) -> Result<ApiKeyRecord>;

    /// Keys, the newest first; at most [`KEYS_LISTED_MAX`].
    async fn api_keys_list(&self) -> Result<Vec<ApiKeyRecord>>;

    /// Makes a key good for nothing, by its id or its name. False when it was already.
    async fn api_key_revoke(&self, id_or_name: &str, word: Word) -> Result<bool>;

    /// Notes that a key was used now.
    async fn api_key_used(&self, id: &str) -> Result<()>;
}
