//! What operators do leaves a row: who, what, why, and how it stood before and after.
//!
//! The row is written before the action, so that none is done without one, and completed after it. A process that dies between leaves a
//! row that says `begun`. A caller that hangs up does not stop it: the frame carries such a request out to its end.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use recache_store::audit::STATE_BYTES_MAX;
use recache_store::{AuditOutcome, NewAudit, Store};
use serde::Serialize;
use uuid::Uuid;

use crate::access::Caller;
use crate::frame::RequestId;
use crate::refusal::{Code, Refusal};

/// An action of an operator.
pub(crate) struct Deed<'a> {
    /// What: `jobs.cancel`.
    pub(crate) action: &'a str,
    /// Where, if what it is done to belongs to a namespace.
    pub(crate) namespace: Option<&'a str>,
    /// To what.
    pub(crate) target: String,
    /// Why.
    pub(crate) reason: &'a str,
    /// The request that asks for it.
    pub(crate) request: &'a RequestId,
}

/// Does it, with its row. `act` answers what is answered, and how things stand then.
pub(crate) async fn audited<T, A: Serialize>(
    store: &dyn Store,
    caller: &Caller,
    deed: Deed<'_>,
    before: &impl Serialize,
    act: impl Future<Output = Result<(T, A), Refusal>>,
) -> Result<T, Refusal> {
    let row = NewAudit {
        id: Uuid::now_v7(),
        word: caller.word(deed.reason),
        action: deed.action.to_owned(),
        namespace: deed.namespace.map(str::to_owned),
        target: deed.target,
        request_id: Some(deed.request.as_str().to_owned()),
        before: state(before),
    };
    let judge = |refusal: &Refusal| {
        let outcome = match refusal.code() {
            Code::OutcomeUnknown | Code::TimedOut | Code::Internal => AuditOutcome::Unknown,
            _ => AuditOutcome::Refused,
        };
        (outcome, refusal.code().word().to_owned())
    };
    recorded(store, row, judge, act).await
}

/// Does something with this row, for whoever it is that acts. `judge` tells of an error what became of the action, and its code.
pub async fn recorded<T, A: Serialize, E: From<recache_store::Error>>(
    store: &dyn Store,
    row: NewAudit,
    judge: impl FnOnce(&E) -> (AuditOutcome, String),
    act: impl Future<Output = Result<(T, A), E>>,
) -> Result<T, E> {
    let (id, action) = (row.id, row.action.clone());
    store.audits().audit_begin(row).await?;
    let done = AssertUnwindSafe(act).catch_unwind().await;
    let (outcome, after) = match &done {
        Ok(Ok((_, after))) => (AuditOutcome::Done, state(after)),
        Ok(Err(error)) => {
            let (outcome, code) = judge(error);
            (outcome, state(&code))
        }
        Err(_) => (AuditOutcome::Unknown, state(&Code::Internal.word())),
    };
    if let Err(error) = store.audits().audit_end(id, outcome, after).await {
        // It is done; its row says that it was begun, and the log says the rest.
        tracing::warn!(%error, audit = %id, action, "an audit row was not completed");
    }
    match done {
        Ok(done) => done.map(|(answer, _)| answer),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// How something stands, as a row keeps it: JSON, where it is not too long.
pub fn state(state: &impl Serialize) -> Option<String> {
    let text = serde_json::to_string(state).ok()?;
    if text.len() <= STATE_BYTES_MAX {
        Some(text)
    } else {
        Some(format!("\"{} bytes, not kept\"", text.len()))
    }
}
