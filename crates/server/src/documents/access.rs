//! Keys and the audit as documents.

use recache_api as api;
use recache_store::{ApiKeyRecord, AuditRecord};

use super::records::{instant, json};

/// A key, without anything of its secret.
pub fn api_key(record: ApiKeyRecord) -> api::ApiKey {
    let (revoked_at, word) = record.revoked.unzip();
    let (revoked_by, revoke_reason) = word.map(|word| (word.actor, word.reason)).unzip();
    api::ApiKey {
        id: record.id,
        name: record.name,
        scopes: record.scopes,
        created_at: instant(record.created_at),
        created_by: record.created_by,
        expires_at: record.expires_at.map(instant),
        last_used_at: record.last_used_at.map(instant),
        revoked_at: revoked_at.map(instant),
        revoked_by,
        revoke_reason,
    }
}

/// An action of an operator.
pub fn audit_row(record: AuditRecord) -> api::AuditRow {
    let new = record.new;
    api::AuditRow {
        id: new.id.to_string(),
        at: instant(record.at),
        actor: new.word.actor,
        action: new.action,
        namespace: new.namespace,
        target: new.target,
        reason: new.word.reason,
        outcome: record.outcome.as_str().to_owned(),
        before: new.before.as_deref().map(json),
        after: record.after.as_deref().map(json),
        request_id: new.request_id,
    }
}
