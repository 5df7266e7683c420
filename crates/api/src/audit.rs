//! What operators did, and the keys of those who ask.

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::json::Json;

/// An action of an operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditRow {
    /// Its id.
    pub id: String,
    /// When it was begun.
    pub at: Instant,
    /// Who did it.
    pub actor: String,
    /// What: `jobs.cancel`.
    pub action: String,
    /// Where, if that what it was done to belongs to a namespace.
    pub namespace: Option<String>,
    /// To what.
    pub target: String,
    /// Why.
    pub reason: String,
    /// `begun`, `done`, `refused` or `unknown`.
    pub outcome: String,
    /// How it stood before.
    pub before: Option<Json>,
    /// How it stood after; of one that was refused, why.
    pub after: Option<Json>,
    /// The request that asked for it.
    pub request_id: Option<String>,
}

/// Actions, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditList {
    /// [`AuditList::SCHEMA`]
    pub schema: String,
    /// The page.
    pub rows: Vec<AuditRow>,
    /// What to give for the next page; `null` on the last one.
    pub next: Option<String>,
}

impl AuditList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.audit.v1";

    /// A page.
    pub fn new(rows: Vec<AuditRow>, next: Option<String>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), rows, next }
    }
}

/// A key of somebody who asks over HTTP; its secret is shown once, when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApiKey {
    /// Its public part.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it may do: `RESOURCE:ACTION`, and `@NAMESPACE`.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: Instant,
    /// By whom.
    pub created_by: String,
    /// From when on it is no longer good; `null`: until it is revoked.
    pub expires_at: Option<Instant>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Instant>,
    /// When it was revoked.
    pub revoked_at: Option<Instant>,
    /// By whom.
    pub revoked_by: Option<String>,
    /// Why.
    pub revoke_reason: Option<String>,
}

/// Keys, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApiKeyList {
    /// [`ApiKeyList::SCHEMA`]
    pub schema: String,
    /// All of them.
    pub keys: Vec<ApiKey>,
}

impl ApiKeyList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.api-keys.v1";

    /// A list.
    pub fn new(keys: Vec<ApiKey>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), keys }
    }
}

/// A key that was made, with its token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyCreated {
    /// [`ApiKeyCreated::SCHEMA`]
    pub schema: String,
    /// The key.
    pub key: ApiKey,
    /// What is sent as `Authorization: Bearer TOKEN`. It is not kept and cannot be shown again.
    pub token: String,
}

impl std::fmt::Debug for ApiKeyCreated {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ApiKeyCreated").field("key", &self.key).finish_non_exhaustive()
    }
}

impl ApiKeyCreated {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.api-key-created.v1";

    /// A key with its token.
    pub fn new(key: ApiKey, token: String) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), key, token }
    }
}

/// What revoking a key did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyRevoked {
    /// [`ApiKeyRevoked::SCHEMA`]
    pub schema: String,
    /// As it was named.
    pub key: String,
    /// False when it was revoked before.
    pub changed: bool,
}

impl ApiKeyRevoked {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.api-key-revoked.v1";

    /// What a call did.
    pub fn new(key: String, changed: bool) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), key, changed }
    }
}
