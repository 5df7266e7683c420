//! The triggers that write changes of state as events. They are there only while somebody asks for such: without them a
//! settlement costs what it did before. What they do stands in `migrations/postgres/0010_events.sql`.

use sqlx::{Executor as _, Row as _};

use super::Connection;
use crate::error::Result;

/// Each trigger, what waits for the writers of its table, and the statements that make it and take it away.
const TRIGGERS: [((&str, &str), &str, &str); 3] = [
    (
        ("events_of_jobs", "LOCK TABLE ONLY recache.job_history IN SHARE ROW EXCLUSIVE MODE"),
        "CREATE TRIGGER events_of_jobs AFTER INSERT ON recache.job_history REFERENCING NEW TABLE AS moved \
         FOR EACH STATEMENT EXECUTE FUNCTION recache.events_of_jobs()",
        "DROP TRIGGER events_of_jobs ON recache.job_history",
    ),
    (
        ("events_of_workflows", "LOCK TABLE recache.workflows IN SHARE ROW EXCLUSIVE MODE"),
        "CREATE TRIGGER events_of_workflows AFTER UPDATE ON recache.workflows FOR EACH ROW \
         WHEN (NEW.state IS DISTINCT FROM OLD.state) EXECUTE FUNCTION recache.events_of_workflows()",
        "DROP TRIGGER events_of_workflows ON recache.workflows",
    ),
    (
        ("events_of_views", "LOCK TABLE recache.views IN SHARE ROW EXCLUSIVE MODE"),
        "CREATE TRIGGER events_of_views AFTER UPDATE ON recache.views FOR EACH ROW \
         WHEN (NEW.recache_version > OLD.recache_version OR NEW.live_version > OLD.live_version \
         OR NEW.recache_status IS DISTINCT FROM OLD.recache_status) EXECUTE FUNCTION recache.events_of_views()",
        "DROP TRIGGER events_of_views ON recache.views",
    ),
];

/// What is wanted of the triggers of one table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// Some of its changes.
    pub(super) is_wanted: bool,
    /// More kinds of them than before.
    pub(super) has_more: bool,
}

/// Sees to it that these triggers are there and no others. A table is locked only where something changes, and not waited for
/// behind long transactions: then the call is to be tried again.
pub(super) async fn set(db: &mut Connection, needs: [Need; 3]) -> Result<()> {
    let rows = sqlx::query(
        "SELECT t.tgname::text AS name FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'recache' AND t.tgparentid = 0 \
         AND t.tgname IN ('events_of_jobs', 'events_of_workflows', 'events_of_views')",
    )
    .fetch_all(&mut *db)
    .await?;
    let there = rows.iter().map(|row| Ok(row.try_get("name")?)).collect::<Result<Vec<String>>>()?;
    for (((name, wait_for_writers), make, take_away), need) in TRIGGERS.into_iter().zip(needs) {
        let is_there = there.iter().any(|there| there == name);
        if is_there != need.is_wanted {
            db.execute("SET LOCAL lock_timeout TO '2s'").await?;
            db.execute(if need.is_wanted { make } else { take_away }).await?;
        } else if need.has_more {
            // A change whose trigger ran before this and is committed after it would be written by nobody.
            db.execute("SET LOCAL lock_timeout TO '2s'").await?;
            db.execute(wait_for_writers).await?;
        }
    }
    Ok(())
}
