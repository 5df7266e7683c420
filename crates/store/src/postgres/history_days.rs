//! The history of jobs by days: each is a part of the table, made ahead and dropped as a whole. Which day a job belongs to, the time in its
//! id says. Why so, and what it costs: `docs/decisions/0077-history-goes-by-days.md`.
//!
//! Making and dropping parts takes locks. They are not waited for: what is held up is tried again later, and what comes meanwhile lies in
//! `job_history_default`, which takes everything that has no part of its own.

use std::time::Duration;

use recache_model::time::Timestamp;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use uuid::Uuid;

use super::statements::maintenance::check_lead;
use super::{Connection, Driver};
use crate::error::{Error, Result};
use crate::maintenance::{HistoryRule, HistoryTended, Leadership};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Days that are there before they begin.
const DAYS_AHEAD: u64 = 3;
/// More parts are not made: each is a table that every look through all of them opens.
const PARTS_MAX: usize = 400;
/// A day goes so long after the last of its jobs could have been removed: removing takes its time, and jobs end after the day they came in.
const GRACE: Duration = Duration::from_hours(6);
/// Of a day that goes, rows of jobs that are left are carried over. With more of them, or more such jobs, it stays and is swept.
const CARRIED_MAX: i64 = 10_000;
/// Rows that lie outside already are taken in when their day is made late. With more of them the day stays outside.
const TAKEN_IN_MAX: i64 = 10_000;
/// A job of a younger id takes its history with it when it is removed, so that who submits that id again finds none.
const LEFT_FROM: Duration = Duration::from_hours(2);
/// A job that is submitted with an older id may find history of a former one. Less than the other, for clocks that differ.
const FOUND_FROM: Duration = Duration::from_hours(1);
/// Locks are waited for this long, and one statement under them takes no longer. What others wait for is less than the sum.
const LIMITS: &str = "SET LOCAL lock_timeout TO '100ms'; SET LOCAL statement_timeout TO '500ms'";
/// Who makes or drops parts has this lock, "rcky" and "hist" as numbers. Nothing else waits for it.
const ALONE: &str = "SET LOCAL lock_timeout TO '1s'; SELECT pg_advisory_xact_lock(1919118201, 1751741300)";
/// What has no part of its own.
pub(super) const OUTSIDE: &str = "job_history_default";
const COLUMNS: &str = "job_id, seq, at, from_state, to_state, attempt, epoch, session_id, detail";

/// A part that goes as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    name: String,
    /// Ids from this one on.
    first: Uuid,
    /// Ids before this one.
    past: Uuid,
    /// It stays for long; up to here it was swept.
    swept_to: Option<Uuid>,
}

impl Part {
    fn of_day(day: u64) -> Self {
        let ms = day * DAY_MS;
        let date = Timestamp::from_micros(i64::try_from(ms * 1000).unwrap_or(i64::MAX)).rfc3339();
        let digits: String =
            date.chars().take_while(|one| *one != 'T').filter(char::is_ascii_digit).collect();
        Self {
            name: format!("job_history_{digits}"),
            first: id_at(ms),
            past: id_at(ms + DAY_MS),
            swept_to: None,
        }
    }

    /// Its name as SQL has it.
    fn table(&self) -> String {
        format!("recache.\"{}\"", self.name.replace('"', "\"\""))
    }

    fn is_swept(&self) -> bool {
        self.swept_to == Some(self.past)
    }
}

/// What became of a part that was to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Here,
    /// It is there, or too much of it lies outside.
    Not,
}

/// The least id of this time.
fn id_at(ms: u64) -> Uuid {
    Uuid::from_u128(u128::from(ms) << 80)
}

fn ms(at: Timestamp) -> u64 {
    u64::try_from(at.micros() / 1000).unwrap_or(0)
}

/// The least id that was made then.
fn id_of(at: Timestamp) -> Uuid {
    id_at(ms(at))
}

/// The days from now on that are not there, none where there are too many.
fn missing(now: Timestamp, parts: &[Part]) -> Vec<Part> {
    let today = ms(now) / DAY_MS;
    let days = (today..=today + DAYS_AHEAD).map(Part::of_day);
    let is_free = |day: &Part| parts.iter().all(|part| part.past <= day.first || day.past <= part.first);
    days.filter(is_free).take(PARTS_MAX.saturating_sub(parts.len())).collect()
}

/// The parts whose time is over, the oldest first.
fn over(now: Timestamp, keep: Duration, parts: &[Part]) -> Vec<&Part> {
    let ended_by = id_of(now.minus(keep.saturating_add(GRACE)));
    parts.iter().filter(|part| part.past <= ended_by).collect()
}

/// Whether history of a former job may be there under this id.
pub(super) fn may_have_history(id: Uuid, now: Timestamp) -> bool {
    id < id_of(now.minus(FOUND_FROM))
}

/// Of jobs that are removed, those whose history is removed row by row: it lies in no part, or in one that stays for long.
pub(super) async fn outliving(db: &mut Connection, now: Timestamp, jobs: &[Uuid]) -> Result<Vec<Uuid>> {
    let rows = sqlx::query(
        "SELECT id FROM unnest($1::uuid[]) AS g (id) WHERE id >= $2 OR NOT EXISTS (SELECT 1 FROM job_history_days d \
         WHERE d.first_id <= g.id AND d.past_id > g.id AND d.swept_to IS NULL)",
    )
    .bind(jobs)
    .bind(id_of(now.minus(LEFT_FROM)))
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

/// Removes history row by row. By a join: of a list, each part would look for all of it.
pub(super) async fn remove(db: &mut Connection, jobs: &[Uuid]) -> Result<()> {
    if !jobs.is_empty() {
        sqlx::query("DELETE FROM job_history h USING unnest($1::uuid[]) AS g (id) WHERE h.job_id = g.id")
            .bind(jobs)
            .execute(db)
            .await?;
    }
    Ok(())
}

impl Driver {
    /// Makes the days that are missing, whoever leads. One that cannot be made now is made later.
    pub(super) async fn make_history_days(&self) {
        let made = async {
            let (now, parts) = self.write(work!([] db, now, effects => Ok((now, read(db).await?)))).await?;
            for day in missing(now, &parts) {
                self.write(work!([day] db, now, effects => make(db, &day).await)).await?;
            }
            Ok::<(), Error>(())
        };
        if let Err(error) = made.await {
            tracing::warn!(%error, "days of the history of jobs could not be made; they are made later");
        }
    }

    pub(super) async fn tend_history(&self, lead: &Leadership, rule: HistoryRule) -> Result<HistoryTended> {
        let given = lead.clone();
        let (now, parts, outside_bytes) = self
            .write(work!([given] db, now, effects => {
                check_lead(db, &given).await?;
                Ok((now, read(db).await?, outside_bytes(db).await?))
            }))
            .await?;
        let mut tended = HistoryTended { outside_bytes, ..HistoryTended::default() };
        // What is over goes also where nothing can be made, and the other way round.
        self.make_missing(lead, now, &parts, &mut tended).await?;
        match self.drop_over(lead, rule, now, &parts, &mut tended).await {
            Ok(()) => {}
            Err(error @ Error::Conflict(_)) => return Err(error),
            Err(error) => tended.held_up = tended.held_up.or_else(|| Some(error.to_string())),
        }
        tended.parts = u64::try_from(parts.len()).unwrap_or(u64::MAX) + tended.made - tended.dropped;
        Ok(tended)
    }

    async fn make_missing(
        &self,
        lead: &Leadership,
        now: Timestamp,
        parts: &[Part],
        tended: &mut HistoryTended,
    ) -> Result<()> {
        for day in missing(now, parts) {
            let lead = lead.clone();
            let made = self.write(work!([lead, day] db, now, effects => {
                check_lead(db, &lead).await?;
                make(db, &day).await
            }));
            match made.await {
                Ok(made) => tended.made += u64::from(made == Made::Here),
                Err(error @ Error::Conflict(_)) => return Err(error),
                // The next one may be easier: less of it lies outside.
                Err(error) => tended.held_up = tended.held_up.take().or_else(|| Some(error.to_string())),
            }
        }
        Ok(())
    }

    /// One of them at a time: dropped, or looked through for a while.
    async fn drop_over(
        &self,
        lead: &Leadership,
        rule: HistoryRule,
        now: Timestamp,
        parts: &[Part],
        tended: &mut HistoryTended,
    ) -> Result<()> {
        let over = over(now, rule.keep, parts);
        if let Some(begun) = over.iter().find(|part| part.swept_to.is_some() && !part.is_swept()) {
            return self.sweep_history(lead, rule, begun, tended).await;
        }
        for part in over {
            let (given, old) = (lead.clone(), part.clone());
            let dropped = self.write(work!([given, old] db, now, effects => {
                check_lead(db, &given).await?;
                drop_part(db, &old).await
            }));
            if let Some(carried) = dropped.await? {
                tended.dropped += 1;
                tended.carried += carried;
                tended.has_more = true;
                return Ok(());
            }
            if !part.is_swept() {
                return self.sweep_history(lead, rule, part, tended).await;
            }
        }
        Ok(())
    }

    async fn sweep_history(
        &self,
        lead: &Leadership,
        rule: HistoryRule,
        part: &Part,
        tended: &mut HistoryTended,
    ) -> Result<()> {
        let (lead, part) = (lead.clone(), part.clone());
        let swept = self.write(work!([lead, part] db, now, effects => {
            check_lead(db, &lead).await?;
            sweep(db, &part, rule.rows_max).await
        }));
        tended.swept += swept.await?;
        tended.has_more = true;
        Ok(())
    }
}

/// The parts that are there, the oldest first. What somebody took away by hand is forgotten.
async fn read(db: &mut Connection) -> Result<Vec<Part>> {
    sqlx::query(
        "DELETE FROM job_history_days d WHERE NOT EXISTS (SELECT 1 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = 'recache.job_history'::regclass AND c.relname = d.part)",
    )
    .execute(&mut *db)
    .await?;
    let rows =
        sqlx::query("SELECT part, first_id, past_id, swept_to FROM job_history_days ORDER BY first_id")
            .fetch_all(db)
            .await?;
    rows.iter()
        .map(|row| {
            Ok(Part {
                name: row.try_get("part")?,
                first: row.try_get("first_id")?,
                past: row.try_get("past_id")?,
                swept_to: row.try_get("swept_to")?,
            })
        })
        .collect()
}

async fn outside_bytes(db: &mut Connection) -> Result<u64> {
    let row =
        sqlx::query("SELECT pg_relation_size('recache.job_history_default') AS bytes").fetch_one(db).await?;
    Ok(u64::try_from(row.try_get::<i64, _>("bytes")?).unwrap_or(0))
}

/// Makes the table beside the others and then attaches it, which holds up only who has to do with what lies outside.
async fn make(db: &mut Connection, day: &Part) -> Result<Made> {
    db.execute(ALONE).await?;
    let looked = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM job_history_days WHERE first_id < $2 AND past_id > $1) AS is_there, \
         (SELECT count(*) FROM (SELECT 1 FROM job_history_default WHERE job_id >= $1 AND job_id < $2 LIMIT $3) AS n) AS outside, \
         (SELECT string_agg(format('%I = %L', o.option_name, o.option_value), ', ') FROM pg_class c, pg_options_to_table(c.reloptions) o \
         WHERE c.oid = 'recache.job_history_default'::regclass) AS settings",
    )
    .bind(day.first)
    .bind(day.past)
    .bind(TAKEN_IN_MAX + 1)
    .fetch_one(&mut *db)
    .await?;
    if looked.try_get("is_there")? || looked.try_get::<i64, _>("outside")? > TAKEN_IN_MAX {
        return Ok(Made::Not);
    }
    let settings = looked.try_get::<Option<String>, _>("settings")?;
    let settings = settings.map(|settings| format!(" WITH ({settings})")).unwrap_or_default();
    let (table, first, past) = (day.table(), day.first, day.past);
    db.execute(LIMITS).await?;
    for change in [
        "LOCK TABLE ONLY recache.job_history IN SHARE UPDATE EXCLUSIVE MODE".to_owned(),
        "LOCK TABLE ONLY recache.job_history_default IN ACCESS EXCLUSIVE MODE".to_owned(),
        format!("CREATE TABLE {table} (LIKE recache.job_history INCLUDING ALL){settings}"),
        format!(
            "WITH outside AS (DELETE FROM recache.job_history_default WHERE job_id >= '{first}' AND job_id < '{past}' \
             RETURNING {COLUMNS}) INSERT INTO {table} ({COLUMNS}) SELECT {COLUMNS} FROM outside"
        ),
        format!(
            "ALTER TABLE recache.job_history ATTACH PARTITION {table} FOR VALUES FROM ('{first}') TO ('{past}')"
        ),
    ] {
        sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut *db).await?;
    }
    sqlx::query("INSERT INTO job_history_days (part, first_id, past_id) VALUES ($1, $2, $3)")
        .bind(&day.name)
        .bind(first)
        .bind(past)
        .execute(db)
        .await?;
    Ok(Made::Here)
}

/// Drops a part, and carries over what belongs to jobs that are left: answers how many rows. `None`: there are too many.
///
/// Its own lock and that of what lies outside are taken first: while somebody reads one of them for long, nothing else waits.
async fn drop_part(db: &mut Connection, part: &Part) -> Result<Option<u64>> {
    db.execute(ALONE).await?;
    let table = part.table();
    let left = format!(
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM jobs WHERE id >= $1 AND id < $2 LIMIT $3) AS n) AS jobs, \
         (SELECT count(*) FROM (SELECT 1 FROM (SELECT id FROM jobs WHERE id >= $1 AND id < $2 LIMIT $3) AS j \
         CROSS JOIN LATERAL (SELECT 1 FROM {table} h WHERE h.job_id = j.id LIMIT $3) AS h LIMIT $3) AS n) AS history"
    );
    let left = sqlx::query(AssertSqlSafe(left))
        .persistent(false)
        .bind(part.first)
        .bind(part.past)
        .bind(CARRIED_MAX + 1)
        .fetch_one(&mut *db)
        .await?;
    if left.try_get::<i64, _>("jobs")?.max(left.try_get("history")?) > CARRIED_MAX {
        return Ok(None);
    }
    db.execute(LIMITS).await?;
    for change in [
        format!("LOCK TABLE ONLY {table}, ONLY recache.job_history_default IN ACCESS EXCLUSIVE MODE"),
        "LOCK TABLE ONLY recache.job_history IN ACCESS EXCLUSIVE MODE".to_owned(),
        format!("ALTER TABLE recache.job_history DETACH PARTITION {table}"),
    ] {
        sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut *db).await?;
    }
    // All of it, also what came since it was counted.
    let carry = format!(
        "INSERT INTO recache.job_history_default ({COLUMNS}) SELECT h.* FROM (SELECT id FROM jobs WHERE id >= $1 AND id < $2) AS j \
         CROSS JOIN LATERAL (SELECT {COLUMNS} FROM {table} WHERE job_id = j.id OFFSET 0) AS h"
    );
    let carried = sqlx::query(AssertSqlSafe(carry))
        .persistent(false)
        .bind(part.first)
        .bind(part.past)
        .execute(&mut *db)
        .await?
        .rows_affected();
    sqlx::raw_sql(AssertSqlSafe(format!("DROP TABLE {table}"))).execute(&mut *db).await?;
    sqlx::query("DELETE FROM job_history_days WHERE part = $1").bind(&part.name).execute(db).await?;
    Ok(Some(carried))
}

/// Removes history whose job is gone from a part that stays for long, of the next jobs in it. Answers how many rows.
async fn sweep(db: &mut Connection, part: &Part, rows_max: u32) -> Result<u64> {
    let table = part.table();
    let sweep = format!(
        "WITH page AS MATERIALIZED (SELECT job_id FROM {table} WHERE job_id > $1 GROUP BY job_id ORDER BY job_id LIMIT $2), \
         gone AS (DELETE FROM {table} h USING page p WHERE h.job_id = p.job_id \
         AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = p.job_id) RETURNING 1) \
         SELECT (SELECT count(*) FROM gone) AS gone, (SELECT count(*) FROM page) AS jobs, \
         (SELECT job_id FROM page ORDER BY job_id DESC LIMIT 1) AS last"
    );
    let row = sqlx::query(AssertSqlSafe(sweep))
        .persistent(false)
        .bind(part.swept_to.unwrap_or(part.first))
        .bind(i64::from(rows_max))
        .fetch_one(&mut *db)
        .await?;
    let is_end = row.try_get::<i64, _>("jobs")? < i64::from(rows_max);
    let last = row.try_get::<Option<Uuid>, _>("last")?.filter(|_| !is_end);
    sqlx::query("UPDATE job_history_days SET swept_to = $2 WHERE part = $1")
        .bind(&part.name)
        .bind(last.unwrap_or(part.past))
        .execute(db)
        .await?;
    Ok(u64::try_from(row.try_get::<i64, _>("gone")?).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const DAY: Duration = Duration::from_hours(24);

    fn noon(day: u64) -> Timestamp {
        Timestamp::from_micros(0).plus(DAY * u32::try_from(day).unwrap() + 12 * HOUR)
    }

    #[test]
    fn part_of_a_day_has_its_date_and_the_ids_made_in_it() {
        let day = Part::of_day(20_000);
        assert_eq!(day.name, "job_history_20241004");
        let begin = Timestamp::from_micros(20_000 * 86_400_000_000);
        assert_eq!(day.first, id_of(begin));
        assert_eq!(day.past, Part::of_day(20_001).first);
        let seconds = 20_000 * 86_400;
        let id = |seconds, nanos| Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos));
        let (first, last) = (id(seconds, 0), id(seconds + 86_399, 999_999_999));
        assert!(day.first <= first && last < day.past && day.past <= id(seconds + 86_400, 0));
    }

    #[test]
    fn days_from_today_on_are_missing_where_no_part_covers_them() {
        let all: Vec<Part> = (100..=100 + DAYS_AHEAD).map(Part::of_day).collect();
        assert_eq!(missing(noon(100), &[]), all);
        assert_eq!(missing(noon(100), &all), []);
        assert_eq!(missing(noon(101), &all), [Part::of_day(101 + DAYS_AHEAD)]);
        let before = Part { name: "before".to_owned(), first: Uuid::nil(), ..Part::of_day(101) };
        assert_eq!(missing(noon(100), &[before]), all[2..]);
    }

    #[test]
    fn no_more_parts_are_made_than_may_be() {
        let parts: Vec<Part> = (0..).map(Part::of_day).take(PARTS_MAX - 1).collect();
        assert_eq!(missing(noon(5_000), &parts), [Part::of_day(5_000)]);
        let parts: Vec<Part> = (0..).map(Part::of_day).take(PARTS_MAX).collect();
        assert_eq!(missing(noon(5_000), &parts), []);
    }

    #[test]
    fn part_is_over_when_all_of_it_is_older_than_what_is_kept() {
        let parts: Vec<Part> = (100..104).map(Part::of_day).collect();
        let over_at = |at: Timestamp| over(at, DAY, &parts).len();
        // The first day ends at 101; kept for a day, and the time of grace.
        assert_eq!(over_at(noon(102).minus(6 * HOUR).minus(Duration::from_millis(1))), 0);
        assert_eq!(over_at(noon(102).minus(6 * HOUR)), 1);
        assert_eq!(over_at(noon(104)), 3);
        assert_eq!(over(noon(104), Duration::MAX, &parts), Vec::<&Part>::new(), "kept for ever");
    }

    /// Whatever history is left is found by whoever submits its id again, also when their clocks differ by most of an hour.
    #[test]
    fn history_is_looked_for_before_it_is_left() {
        let now = noon(100);
        let left = id_of(now.minus(LEFT_FROM));
        let skew = Duration::from_mins(59);
        assert!(may_have_history(left, now) && may_have_history(left, now.minus(skew)));
        assert!(!may_have_history(id_of(now), now), "a new id costs nothing");
    }
}
