//! The triggers that write changes of state as events. They are there only while somebody asks for such: without them a
//! settlement costs what it did before. What they write is what the functions of
//! `migrations/postgres/0010_events.sql` write.

use sqlx::{Executor as _, Row as _};

use super::Connection;
use crate::error::Result;

/// Each trigger with the statements that make it and take it away.
const TRIGGERS: [(&str, &str, &str); 3] = [
    (
        "events_of_jobs",
        "CREATE TRIGGER events_of_jobs AFTER INSERT ON job_history \
         WHEN EXISTS (SELECT 1 FROM events_wanted WHERE type = 'job.' || NEW.to_state) BEGIN \
         INSERT INTO events (id, namespace, type, at, job_id, workflow_id, step, attempt, correlation_id, data) \
         SELECT randomblob(16), j.namespace, 'job.' || NEW.to_state, NEW.at, j.id, j.workflow_id, j.step, NEW.attempt, \
         j.correlation_id, json_object('queue', j.queue, 'handler', j.handler, 'from', NEW.from_state, \
         'to', NEW.to_state, 'seq', NEW.seq, 'detail', NEW.detail) FROM jobs j WHERE j.id = NEW.job_id; END",
        "DROP TRIGGER events_of_jobs",
    ),
    (
        "events_of_workflows",
        "CREATE TRIGGER events_of_workflows AFTER UPDATE ON workflows WHEN NEW.state <> OLD.state BEGIN \
         INSERT INTO events (id, namespace, type, at, workflow_id, correlation_id, data) \
         SELECT randomblob(16), NEW.namespace, w.type, COALESCE(NEW.finished_at, \
         CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)), NEW.id, NEW.correlation_id, \
         json_object('from', OLD.state, 'to', NEW.state, 'template_digest', NEW.template_digest) \
         FROM events_wanted w WHERE w.type = 'workflow.' || NEW.state; END",
        "DROP TRIGGER events_of_workflows",
    ),
    (
        "events_of_views",
        "CREATE TRIGGER events_of_views AFTER UPDATE ON views WHEN NEW.recache_version > OLD.recache_version \
         OR NEW.live_version > OLD.live_version OR NEW.recache_status <> OLD.recache_status BEGIN \
         INSERT INTO events (id, namespace, type, at, data) SELECT randomblob(16), NEW.namespace, w.type, \
         COALESCE(CASE w.type WHEN 'view.touched' THEN NEW.touched_at WHEN 'view.published' THEN NEW.last_recached_at END, \
         CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)), \
         json_object('view_id', lower(substr(hex(NEW.id), 1, 8) || '-' || substr(hex(NEW.id), 9, 4) || '-' || \
         substr(hex(NEW.id), 13, 4) || '-' || substr(hex(NEW.id), 17, 4) || '-' || substr(hex(NEW.id), 21)), \
         'key', NEW.key, 'recache_version', NEW.recache_version, 'live_version', NEW.live_version, \
         'error', NEW.last_error) FROM events_wanted w WHERE w.type = 'view.touched' \
         AND NEW.recache_version > OLD.recache_version OR w.type = 'view.published' AND NEW.live_version > OLD.live_version \
         OR w.type = 'view.failed' AND NEW.recache_status = 'failed' AND OLD.recache_status <> 'failed'; END",
        "DROP TRIGGER events_of_views",
    ),
];

/// What is wanted of the triggers of one table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// Some of its changes.
    pub(super) is_wanted: bool,
    /// More kinds of them than before. There is one writer, so nobody is in the middle of one.
    #[expect(dead_code, reason = "PostgreSQL has to wait for its writers")]
    pub(super) has_more: bool,
}

/// Sees to it that these triggers are there and no others.
pub(super) async fn set(db: &mut Connection, needs: [Need; 3]) -> Result<()> {
    let rows = sqlx::query(
        "SELECT name FROM sqlite_master WHERE type = 'trigger' \
         AND name IN ('events_of_jobs', 'events_of_workflows', 'events_of_views')",
    )
    .fetch_all(&mut *db)
    .await?;
    let there = rows.iter().map(|row| Ok(row.try_get("name")?)).collect::<Result<Vec<String>>>()?;
    for ((name, make, take_away), need) in TRIGGERS.into_iter().zip(needs) {
        let is_there = there.iter().any(|there| there == name);
        if is_there != need.is_wanted {
            db.execute(if need.is_wanted { make } else { take_away }).await?;
        }
    }
    Ok(())
}
