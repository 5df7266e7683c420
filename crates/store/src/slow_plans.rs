//! Which slow statements have their plans looked up, and how often. How a plan is had is each engine's own.
//!
//! A statement is explained after it has run, by its text alone and on a connection that nobody waits for: it is not run a second
//! time, its caller has gone on, and what it was given is in neither text nor plan.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The plan of one statement is looked up no more often.
const EVERY: Duration = Duration::from_secs(60);
/// Statements that are remembered; beyond them none is explained until some are a minute old.
const STATEMENTS_MAX: usize = 400;
/// Statements that may wait to be explained.
const WAITING_MAX: usize = 16;
/// Looking one up takes no longer.
pub(crate) const PLAN_WITHIN: Duration = Duration::from_secs(2);
/// So much of a statement is logged.
const TEXT_BYTES_MAX: usize = 4_000;

/// A driver's: as long as it is there, plans are looked up.
#[derive(Debug)]
pub(crate) struct SlowPlans {
    pub(crate) notes: Arc<Notes>,
    /// The only strong one, so that who looks plans up ends with the driver, whoever else holds on to the notes.
    _asked: mpsc::Sender<Asked>,
}

/// A connection's: takes note of slow statements.
#[derive(Debug)]
pub(crate) struct Notes {
    slow: Duration,
    asked: mpsc::WeakSender<Asked>,
    /// When statements were last explained, by a hash of their texts.
    last: Mutex<HashMap<u64, Instant>>,
}

/// A statement whose plan is wanted.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The method of the contract that it belongs to.
    call: &'static str,
    pub(crate) sql: SqlStr,
    took: Duration,
}

impl SlowPlans {
    /// What takes so long is slow. Answers where what is to be explained comes out.
    pub(crate) fn new(slow: Duration) -> (Self, mpsc::Receiver<Asked>) {
        let (asked, waiting) = mpsc::channel(WAITING_MAX);
        let notes = Arc::new(Notes { slow, asked: asked.downgrade(), last: Mutex::default() });
        (Self { notes, _asked: asked }, waiting)
    }
}

impl Notes {
    /// A statement begins. It has ended when the answer is dropped.
    pub(crate) fn begin(notes: &Arc<Self>, call: &'static str, sql: &SqlStr) -> Running {
        Running { notes: Arc::clone(notes), call, sql: sql.clone(), since: Instant::now() }
    }

    fn ended(&self, call: &'static str, sql: &SqlStr, took: Duration) {
        if took < self.slow || !has_plan(sql.as_str()) {
            return;
        }
        // Where many are slow at once, the plans of some will do: what finds no place may ask again.
        let Some(asked) = self.asked.upgrade() else { return };
        if let Ok(place) = asked.try_reserve()
            && self.is_due(sql.as_str(), Instant::now())
        {
            place.send(Asked { call, sql: sql.clone(), took });
        }
    }

    fn is_due(&self, sql: &str, now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        sql.hash(&mut hasher);
        let name = hasher.finish();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |then: &Instant| now.duration_since(*then) >= EVERY;
        if last.get(&name).is_some_and(|then| !is_old(then)) {
            return false;
        }
        if last.len() >= STATEMENTS_MAX {
            last.retain(|_, then| !is_old(then));
        }
        let has_room = last.len() < STATEMENTS_MAX;
        if has_room {
            last.insert(name, now);
        }
        has_room
    }
}

/// A statement runs.
#[derive(Debug)]
pub(crate) struct Running {
    notes: Arc<Notes>,
    call: &'static str,
    sql: SqlStr,
    since: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.notes.ended(self.call, &self.sql, self.since.elapsed());
    }
}

impl Asked {
    /// The statement behind a word that has it explained.
    pub(crate) fn behind(&self, word: &str) -> SqlStr {
        // Texts of ours, in which what callers give is never written.
        AssertSqlSafe(format!("{word} {}", self.sql.as_str())).into_sql_str()
    }

    /// Logs what was found, or why nothing was.
    pub(crate) fn log(&self, plan: Result<Vec<String>, String>) {
        let (call, took_ms) = (self.call, self.took.as_millis());
        let text = self.sql.as_str();
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        match plan {
            Ok(lines) => {
                let plan = lines.join("\n");
                tracing::warn!(statement = call, took_ms, sql = text, plan, "plan of a slow statement");
            }
            Err(error) => {
                tracing::warn!(
                    statement = call,
                    took_ms,
                    sql = text,
                    error,
                    "slow statement without its plan"
                );
            }
        }
    }
}

/// Whether a statement is one that databases make plans for: `COMMIT`, `BEGIN` and the like are not.
fn has_plan(sql: &str) -> bool {
    let word: String = sql.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
    ["SELECT", "WITH", "INSERT", "UPDATE", "DELETE"].iter().any(|known| known.eq_ignore_ascii_case(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(text: &str) -> SqlStr {
        AssertSqlSafe(text.to_owned()).into_sql_str()
    }

    #[tokio::test]
    async fn plan_of_a_slow_statement_is_asked_for_once_a_minute() {
        tokio::time::pause();
        let (plans, mut asked) = SlowPlans::new(Duration::from_millis(100));
        let run = async |text: &str, ms| {
            let running = Notes::begin(&plans.notes, "jobs_claim", &sql(text));
            tokio::time::advance(Duration::from_millis(ms)).await;
            drop(running);
        };
        run("SELECT 1", 99).await;
        run("COMMIT", 500).await;
        assert!(asked.try_recv().is_err(), "one was fast, the other has no plan");
        run("SELECT 1", 100).await;
        run("SELECT 1", 100).await;
        run("  with x AS (SELECT 1) SELECT * FROM x", 100).await;
        let found = [asked.try_recv().unwrap(), asked.try_recv().unwrap()];
        assert_eq!(found.each_ref().map(|asked| &asked.sql.as_str()[..6]), ["SELECT", "  with"]);
        assert!(asked.try_recv().is_err(), "again within a minute");
        tokio::time::advance(EVERY).await;
        run("SELECT 1", 100).await;
        assert_eq!(asked.try_recv().unwrap().took, Duration::from_millis(100));
    }

    #[tokio::test]
    async fn statements_and_those_who_wait_are_bounded() {
        tokio::time::pause();
        let (plans, mut asked) = SlowPlans::new(Duration::ZERO);
        let run = |number: usize| drop(Notes::begin(&plans.notes, "x", &sql(&format!("SELECT {number}"))));
        (0..=WAITING_MAX).for_each(run);
        assert_eq!(asked.len(), WAITING_MAX, "what finds no place is left out, and nobody waits for it");
        asked.try_recv().unwrap();
        run(WAITING_MAX);
        assert_eq!(asked.len(), WAITING_MAX, "and comes when there is one");
        for number in 0..STATEMENTS_MAX + 50 {
            while asked.try_recv().is_ok() {}
            run(number);
        }
        assert_eq!(plans.notes.last.lock().unwrap().len(), STATEMENTS_MAX);
        tokio::time::advance(EVERY).await;
        assert!(plans.notes.is_due("SELECT 'new'", Instant::now()), "the old ones are forgotten");
    }
}
