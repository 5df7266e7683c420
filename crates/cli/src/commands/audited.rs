//! What operators do with a database leaves a row in the audit, as what they ask of a server does.

use recache_server::{audit_state, recorded};
use recache_store::{AuditOutcome, NewAudit, Store, Word};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::failure::{Failure, Result};

/// An action of an operator.
pub(super) struct Deed {
    /// What: `jobs.cancel`, as over HTTP.
    pub(super) action: &'static str,
    /// Where, if what it is done to belongs to a namespace.
    pub(super) namespace: Option<String>,
    /// To what.
    pub(super) target: String,
    /// Who, and why.
    pub(super) word: Word,
}

impl Deed {
    /// To something that belongs to no namespace.
    pub(super) fn new(action: &'static str, target: impl Into<String>, word: Word) -> Self {
        Self { action, namespace: None, target: target.into(), word }
    }

    /// To something of this namespace.
    pub(super) fn of(self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self }
    }
}

/// Does it, with its row. `act` answers what is answered, and how things stand then.
pub(super) async fn audited<T>(
    store: &dyn Store,
    deed: Deed,
    before: &impl Serialize,
    act: impl Future<Output = Result<(T, Value)>>,
) -> Result<T> {
    let row = NewAudit {
        id: Uuid::now_v7(),
        word: deed.word,
        action: deed.action.to_owned(),
        namespace: deed.namespace,
        target: deed.target,
        request_id: None,
        before: audit_state(before),
    };
    recorded(store, row, judge, act).await
}

fn judge(failure: &Failure) -> (AuditOutcome, String) {
    match failure {
        Failure::Said(error) if error.code == "E-OUTCOME-UNKNOWN" => {
            (AuditOutcome::Unknown, error.code.to_owned())
        }
        Failure::Said(error) => (AuditOutcome::Refused, error.code.to_owned()),
        Failure::Reported(_) | Failure::Output(_) => (AuditOutcome::Unknown, "E-OUTPUT".to_owned()),
    }
}
