//! Named places at which a test has this process die, fail, stand still or lose an answer.
//!
//! Only with the feature `fail-points`, which no release has; without it the places are no code at all. What happens is
//! said by the variable `RECACHE_FAIL_POINT`, as `settle.before_commit=abort@3`: at every third visit. That a place was reached is left as a file
//! named by `RECACHE_FAIL_MARK`, because a process that dies says nothing.

/// A place. Inside an async function that answers a store's result.
macro_rules! fail_point {
    ($name:literal) => {
        #[cfg(feature = "fail-points")]
        $crate::fail::reach($name).await?;
    };
}
pub(crate) use fail_point;

#[cfg(feature = "fail-points")]
pub use armed::{MARK_VARIABLE, POINTS, VARIABLE, WAYS, reach};

#[cfg(feature = "fail-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use crate::error::{Error, Result};

    /// Says what is to happen, and where.
    pub const VARIABLE: &str = "RECACHE_FAIL_POINT";
    /// Names the file that is made when it happens.
    pub const MARK_VARIABLE: &str = "RECACHE_FAIL_MARK";

    /// Every place.
    pub const POINTS: [&str; 31] = [
        "migrate.before",
        "migrate.after",
        "session.before_reply",
        "submit.before_insert",
        "submit.before_reply",
        "workflow.after_rows",
        "workflow.before_commit",
        "workflow.before_reply",
        "claim.before_commit",
        "claim.before_reply",
        "settle.before_tx",
        "settle.after_state",
        "settle.after_unblock",
        "settle.before_commit",
        "settle.before_reply",
        "beat.before_commit",
        "reap.between",
        "reap.before_commit",
        "supersede.between",
        "touch.before_commit",
        "reconcile.before_commit",
        "publish.before_commit",
        "publish.before_reply",
        "drain.release",
        "cancel.before_commit",
        "cancel.workflow",
        "batch.before_commit",
        "draft.before_commit",
        "outbox.routed",
        "outbox.before_commit",
        "cron.before_commit",
    ];

    /// What can happen at one.
    pub const WAYS: [&str; 4] = ["abort", "error", "pause", "lose"];

    /// Longer than any lease of a test.
    const PAUSE: Duration = Duration::from_millis(1_200);

    struct Armed {
        point: String,
        way: String,
        every: u64,
        hits: AtomicU64,
    }

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    fn read() -> Option<Armed> {
        let text = std::env::var(VARIABLE).ok()?;
        let (point, rest) = text.split_once('=')?;
        let (way, every) = rest.split_once('@')?;
        let every = every.parse().ok().filter(|every| *every > 0)?;
        Some(Armed { point: point.to_owned(), way: way.to_owned(), every, hits: AtomicU64::new(0) })
    }

    /// Does what is to happen at this place, if anything.
    pub async fn reach(point: &'static str) -> Result<()> {
        let Some(armed) = ARMED.get_or_init(read) else { return Ok(()) };
        if armed.point != point
            || !(armed.hits.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(armed.every)
        {
            return Ok(());
        }
        if let Ok(mark) = std::env::var(MARK_VARIABLE) {
            let _ = std::fs::write(mark, point);
        }
        let message = format!("the test has `{point}` fail");
        match armed.way.as_str() {
            "abort" => std::process::abort(),
            "error" => Err(Error::Unavailable { message, source: None }),
            "pause" => {
                tokio::time::sleep(PAUSE).await;
                Ok(())
            }
            _ => Err(Error::Unknown { message, source: None }),
        }
    }
}
