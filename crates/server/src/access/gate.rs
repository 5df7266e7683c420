//! From a request's headers to who sends it.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use recache_model::time::Clock;
use recache_store::Store;

use super::jwt::{Jwt, JwtSettings};
use super::keys::{self, KeyRing};
use super::permission::Grants;
use crate::refusal::{Code, Refusal};

/// Longest `Authorization` header that is looked at, in bytes.
const CREDENTIALS_BYTES_MAX: usize = 8 * 1024;

/// Somebody who is known.
#[derive(Debug, Clone)]
pub struct Identity {
    /// In histories and the audit: `key:deploy`, `jwt:alice`, `anonymous`.
    pub name: Arc<str>,
    /// What they may do.
    pub grants: Arc<Grants>,
}

/// By what callers are known. With neither, everybody who can connect may do everything.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    /// By API keys of the store.
    pub api_keys: bool,
    /// By tokens that somebody else signed.
    pub jwt: Option<JwtSettings>,
}

impl Auth {
    /// Whether callers must be known.
    pub fn is_on(&self) -> bool {
        self.api_keys || self.jwt.is_some()
    }
}

/// Tells who sends a request.
#[derive(Debug)]
pub(crate) struct Gate {
    anonymous: Option<Identity>,
    keys: Option<KeyRing>,
    jwt: Option<Jwt>,
}

impl Gate {
    /// Knows callers by what is switched on.
    pub(crate) fn new(auth: Auth, store: &Arc<dyn Store>, clock: &Arc<dyn Clock>) -> Self {
        let everything = || Identity { name: "anonymous".into(), grants: Arc::new(Grants::everything()) };
        Self {
            anonymous: (!auth.is_on()).then(everything),
            keys: auth.api_keys.then(|| KeyRing::new(Arc::clone(store), Arc::clone(clock))),
            jwt: auth.jwt.map(|settings| Jwt::new(settings, Arc::clone(clock))),
        }
    }

    /// Whether everybody may do everything.
    pub(crate) fn is_open(&self) -> bool {
        self.anonymous.is_some()
    }

    /// Looks for what it needs of others before the first request does.
    pub(crate) async fn prepare(&self) {
        if let Some(jwt) = &self.jwt {
            jwt.prepare().await;
        }
    }

    /// Why callers may not be known that should be.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.jwt.as_ref().and_then(Jwt::trouble)
    }

    /// Who sends these headers.
    pub(crate) async fn identify(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        if let Some(identity) = &self.anonymous {
            return Ok(identity.clone());
        }
        let token = bearer(headers)?;
        if keys::is_token(token) {
            match &self.keys {
                Some(keys) => keys.identify(token).await,
                None => Err(Refusal::new(Code::Unauthenticated, "API keys are not switched on here")),
            }
        } else {
            match &self.jwt {
                Some(jwt) => jwt.identify(token).await,
                None => {
                    Err(Refusal::new(Code::Unauthenticated, "the token is of no kind that is known here"))
                }
            }
        }
    }
}

/// The one token of a request.
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let first = given.next().ok_or_else(|| {
        Refusal::new(Code::Unauthenticated, "no credentials were sent")
            .remedy("send `Authorization: Bearer TOKEN`; `recache token create` makes one")
    })?;
    let text = first.to_str().ok().filter(|text| text.len() <= CREDENTIALS_BYTES_MAX);
    let token = text
        .and_then(|text| text.split_once(' '))
        .and_then(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()));
    match (token, given.next()) {
        (Some(token), None) if !token.is_empty() => Ok(token),
        _ => Err(Refusal::new(Code::Unauthenticated, "the credentials are not one bearer token")),
    }
}
