//! Whoever a handler acts for.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use recache_store::Word;

use super::Permission;
use super::gate::Identity;
use super::permission::Reach;
use crate::refusal::{Code, Refusal};
use crate::state::App;

/// Who asks, and the permission that let them in. The route puts it there; a route that is open to all has none.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) identity: Identity,
    pub(crate) permission: Permission,
}

impl FromRequestParts<App> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Refusal> {
        // Missing only where a route that is open to all asks for it: our bug, and the answer is no.
        parts.extensions.get::<Self>().cloned().ok_or_else(Refusal::internal)
    }
}

impl Caller {
    /// Whether it may do this in a namespace that it names itself.
    pub(crate) fn check_namespace(&self, namespace: &str) -> Result<(), Refusal> {
        if self.identity.grants.allow_in(self.permission, namespace) {
            return Ok(());
        }
        let detail = format!("`{}` is not permitted in namespace `{namespace}`", self.permission);
        Err(Refusal::new(Code::Forbidden, detail))
    }

    /// Whether it may do this to something of a namespace. If not, the thing does not exist.
    pub(crate) fn check_found(&self, namespace: &str, what: &str, id: &str) -> Result<(), Refusal> {
        if self.identity.grants.allow_in(self.permission, namespace) {
            return Ok(());
        }
        Err(Refusal::not_found(what, id))
    }

    /// The same for something that may belong to all namespaces at once: then only whoever may do it in all of them sees it.
    pub(crate) fn check_found_in(
        &self,
        namespace: Option<&str>,
        what: &str,
        id: &str,
    ) -> Result<(), Refusal> {
        match namespace {
            Some(namespace) => self.check_found(namespace, what, id),
            None if self.identity.grants.reach(self.permission) == Reach::All => Ok(()),
            None => Err(Refusal::not_found(what, id)),
        }
    }

    /// The namespace that a list is limited to: the one that was asked for, or the only one that the caller may see. `None`:
    /// all.
    pub(crate) fn list_namespace(&self, asked: Option<String>) -> Result<Option<String>, Refusal> {
        if let Some(asked) = asked {
            return self.check_namespace(&asked).map(|()| Some(asked));
        }
        match self.identity.grants.reach(self.permission) {
            Reach::All => Ok(None),
            Reach::Only(mut namespaces) if namespaces.len() == 1 => Ok(namespaces.pop_first()),
            Reach::Only(namespaces) => {
                let known: Vec<_> = namespaces.into_iter().collect();
                Err(Refusal::field(
                    Code::InvalidParameter,
                    "?namespace",
                    format!("must be given: one of `{}`", known.join("`, `")),
                ))
            }
        }
    }

    /// Its name in histories.
    pub(crate) fn actor(&self) -> &str {
        &self.identity.name
    }

    /// That it says so, for this reason.
    pub(crate) fn word(&self, reason: &str) -> Word {
        Word::new(self.actor(), reason)
    }
}
