//! From a request's headers to who sends it.

use std::sync::Arc;

use axum::http::HeaderMap;

use super::permission::Grants;
use crate::refusal::{Code, Refusal};

/// Somebody who is known.
#[derive(Debug, Clone)]
pub struct Identity {
    /// In histories and the audit: `key:deploy`, `jwt:alice`, `anonymous`.
    pub name: Arc<str>,
    /// What they may do.
    pub grants: Arc<Grants>,
}

/// Tells who sends a request.
#[derive(Debug)]
pub(crate) struct Gate {
    anonymous: Option<Identity>,
}

impl Gate {
    /// Everybody who can connect may do everything: for loopback addresses only.
    pub(crate) fn open() -> Self {
        let grants = Arc::new(Grants::everything());
        Self { anonymous: Some(Identity { name: "anonymous".into(), grants }) }
    }

    /// Whether everybody may do everything.
    pub(crate) fn is_open(&self) -> bool {
        self.anonymous.is_some()
    }

    /// Who sends these headers.
    pub(crate) async fn identify(&self, _headers: &HeaderMap) -> Result<Identity, Refusal> {
        match &self.anonymous {
            Some(identity) => Ok(identity.clone()),
            None => Err(Refusal::new(Code::Unauthenticated, "no credentials were sent")),
        }
    }
}
