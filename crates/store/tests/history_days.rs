//! The history of jobs by days, as PostgreSQL has it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test says what it expects")]

use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::JobId;
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::time::{Clock as _, Timestamp};
use recache_store::conformance::{Subject, empty_postgres_database, postgres_database};
use recache_store::{
    ClaimRequest, ClaimedJob, HistoryRow, HistoryRule, HistoryTended, Leadership, NewJob, OpenOptions,
    Outcome, Settled, Settlement, open,
};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use uuid::Uuid;

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);
/// How long what has ended is kept.
const KEEP: Duration = Duration::from_hours(7 * 24);
/// As long as a day is waited for after that.
const GRACE: Duration = Duration::from_hours(6);
/// Of a day that goes, so many rows are carried over.
const CARRIED_MAX: i64 = 10_000;

/// A store at noon of the day before the first that has a part, and a hand in its tables.
struct World {
    subject: Subject,
    hand: PgConnection,
    lead: Leadership,
    /// When the first day with a part begins.
    first_day: Timestamp,
}

impl World {
    async fn new() -> Option<Self> {
        let database = postgres_database().await?;
        let mut hand = PgConnection::connect(database.url()).await.unwrap();
        hand.execute("SET search_path TO recache").await.unwrap();
        let before = "SELECT past_id FROM job_history_days WHERE part = 'job_history_before'";
        let past: Uuid = hand.fetch_one(before).await.unwrap().try_get("past_id").unwrap();
        let first_day = Timestamp::from_micros(i64::try_from(past.as_u128() >> 80).unwrap() * 1000);
        let subject = Subject::new(database).await;
        subject.advance(first_day.minus(12 * HOUR).since(subject.clock.now()));
        let lead = subject.store.maintenance().leader_take("test", Uuid::new_v4(), 1000 * DAY).await;
        Some(Self { hand, lead: lead.unwrap().unwrap(), first_day, subject })
    }

    /// An id as it would be made at noon of this day, from the first with a part on.
    fn id(&self, day: u32, number: u32) -> JobId {
        id_at(self.first_day.plus(DAY * day + 12 * HOUR), number)
    }

    /// To noon of a day.
    fn go_to(&self, day: u32) {
        self.go_to_time(self.first_day.plus(DAY * day + 12 * HOUR));
    }

    fn go_to_time(&self, at: Timestamp) {
        self.subject.advance(at.since(self.subject.clock.now()));
    }

    /// When a day has been over for long enough.
    fn end_of(&self, day: u32) -> Timestamp {
        self.first_day.plus(DAY * (day + 1) + KEEP + GRACE)
    }

    async fn claim(&self, id: JobId) -> ClaimedJob {
        self.subject.store.jobs_submit(vec![NewJob { id, ..NewJob::new("work", "1") }]).await.unwrap();
        let session = self.subject.session().await;
        let claimed = self.subject.claim_one(session).await;
        assert_eq!(claimed.token.job, id);
        claimed
    }

    /// A job from its submission to its end.
    async fn run(&self, id: JobId, outcome: Outcome) {
        let claimed = self.claim(id).await;
        assert_eq!(self.subject.settle(&claimed, outcome).await, Settled::Accepted);
    }

    async fn history(&self, id: JobId) -> Vec<HistoryRow> {
        self.subject.store.job_history(id).await.unwrap()
    }

    async fn tend(&self) -> HistoryTended {
        let rule = HistoryRule { keep: KEEP, rows_max: 4_000 };
        self.subject.store.maintenance().history_tend(&self.lead, rule).await.unwrap()
    }

    /// Until there is no more to do.
    async fn tend_all(&self) -> Vec<HistoryTended> {
        let mut all = vec![self.tend().await];
        while all.last().unwrap().has_more {
            all.push(self.tend().await);
        }
        all
    }

    async fn remove(&self) -> u64 {
        let removed = self.subject.store.maintenance();
        removed.jobs_remove(&self.lead, JobState::Completed, KEEP, 100).await.unwrap()
    }

    /// The table in which history of a job lies, and how many rows.
    async fn lies_in(&mut self, id: JobId) -> (String, i64) {
        let found = sqlx::query(
            "SELECT tableoid::regclass::text AS part, count(*) AS rows FROM job_history WHERE job_id = $1 GROUP BY 1",
        )
        .bind(id.uuid())
        .fetch_all(&mut self.hand)
        .await
        .unwrap();
        assert!(found.len() < 2, "in one place");
        let Some(row) = found.first() else { return (String::new(), 0) };
        (row.try_get("part").unwrap(), row.try_get("rows").unwrap())
    }

    async fn parts(&mut self) -> Vec<String> {
        let parts = "SELECT part FROM job_history_days ORDER BY first_id";
        let rows = self.hand.fetch_all(parts).await.unwrap();
        rows.iter().map(|row| row.try_get("part").unwrap()).collect()
    }

    fn part(&self, day: u32) -> String {
        part_at(self.first_day.plus(DAY * day))
    }

    async fn number(&mut self, sql: &str) -> i64 {
        self.hand.fetch_one(AssertSqlSafe(sql.to_owned())).await.unwrap().try_get(0).unwrap()
    }

    /// So many more jobs of a day, all in this state at their end, each with a row of history.
    async fn fill(&mut self, day: u32, count: i64, state: &str) {
        let model = self.id(day, 1);
        self.run(model, Outcome::Completed { output: "1".to_owned() }).await;
        let (model, prefix) = (model.uuid(), self.id(day, 2).uuid().to_string()[..24].to_owned());
        for sql in [
            format!(
                "INSERT INTO jobs SELECT r.* FROM jobs j, generate_series(1, {count}) n, LATERAL jsonb_populate_record(j, \
                 jsonb_build_object('id', '{prefix}' || lpad(to_hex(n + 16), 12, '0'), 'state', '{state}')) r WHERE j.id = '{model}'"
            ),
            format!(
                "INSERT INTO job_history SELECT id, 1, 1, 'running', '{state}', 1, 1, NULL, NULL FROM jobs \
                 WHERE id::text LIKE '{prefix}%' AND id <> '{model}'"
            ),
        ] {
            self.hand.execute(AssertSqlSafe(sql)).await.unwrap();
        }
    }
}

fn id_at(at: Timestamp, number: u32) -> JobId {
    let ms = u128::try_from(at.micros() / 1000).unwrap();
    JobId::from_uuid(Uuid::from_u128(ms << 80 | 0x7000_8000_0000_0000_0000 | u128::from(number)))
}

fn part_at(at: Timestamp) -> String {
    let date: String = at.rfc3339().chars().take(10).filter(char::is_ascii_digit).collect();
    format!("job_history_{date}")
}

fn completed() -> Outcome {
    Outcome::Completed { output: "1".to_owned() }
}

fn failed() -> Outcome {
    Outcome::Failed { error: JobError::new(ErrorKind::Permanent, "no") }
}

fn done(tended: &[HistoryTended]) -> (u64, u64, u64, u64) {
    assert!(tended.iter().all(|one| one.held_up.is_none()), "{tended:?}");
    let sum = |value: fn(&HistoryTended) -> u64| tended.iter().map(value).sum();
    (sum(|one| one.made), sum(|one| one.dropped), sum(|one| one.carried), sum(|one| one.swept))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_lies_in_the_part_of_the_day_that_its_jobs_id_tells() {
    let Some(mut world) = World::new().await else { return };
    let today = id_at(world.subject.clock.now(), 1);
    let random = JobId::from_uuid(Uuid::from_u128(0xf47a_c10b_58cc_4372_a567_0e02_b2c3_d479));
    let homes = [
        (today, "job_history_before".to_owned()),
        (world.id(0, 1), world.part(0)),
        (world.id(1, 1), world.part(1)),
        (world.id(30, 1), "job_history_default".to_owned()),
        (random, "job_history_default".to_owned()),
        (JobId::from_uuid(Uuid::nil()), "job_history_before".to_owned()),
    ];
    for (id, part) in homes {
        world.run(id, completed()).await;
        assert_eq!(world.lies_in(id).await, (part, 2), "{id}");
        assert_eq!(world.history(id).await.len(), 2);
    }
    world.subject.assert_sound().await;
    world.subject.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_are_made_before_they_begin() {
    let Some(mut world) = World::new().await else { return };
    let parts = |world: &World, days: &[u32]| {
        let days = days.iter().map(|day| world.part(*day));
        std::iter::once("job_history_before".to_owned()).chain(days).collect::<Vec<_>>()
    };
    assert_eq!(world.parts().await, parts(&world, &[0, 1, 2]), "by whoever made the tables");
    assert_eq!(done(&[world.tend().await]), (0, 0, 0, 0));
    world.go_to(0);
    let tended = world.tend().await;
    assert_eq!((tended.made, tended.parts, tended.held_up), (1, 5, None));
    assert_eq!(world.parts().await, parts(&world, &[0, 1, 2, 3]));
    // Nobody was there for days.
    world.go_to(6);
    assert_eq!(done(&[world.tend().await]), (4, 0, 0, 0));
    assert_eq!(world.parts().await, parts(&world, &[0, 1, 2, 3, 6, 7, 8, 9]));
    let between = world.id(5, 1);
    world.run(between, completed()).await;
    assert_eq!(world.lies_in(between).await, ("job_history_default".to_owned(), 2));
    world.subject.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_that_lies_outside_is_taken_in_when_its_day_is_made() {
    let Some(mut world) = World::new().await else { return };
    let (early, other) = (world.id(3, 1), world.id(30, 1));
    for id in [early, other] {
        world.run(id, completed()).await;
    }
    let before = world.history(early).await;
    assert!(world.tend().await.outside_bytes > 0);
    world.go_to(0);
    assert_eq!(done(&[world.tend().await]), (1, 0, 0, 0));
    assert_eq!(world.lies_in(early).await, (world.part(3), 2));
    assert_eq!(world.lies_in(other).await, ("job_history_default".to_owned(), 2));
    assert_eq!(world.history(early).await, before);
    world.subject.assert_sound().await;
    world.subject.store.close().await;
}

/// A day is not worth that others wait while much is moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn day_of_which_much_lies_outside_stays_there() {
    let Some(mut world) = World::new().await else { return };
    world.fill(3, CARRIED_MAX, "completed").await;
    world.go_to(0);
    assert_eq!(done(&[world.tend().await]), (0, 0, 0, 0));
    let late = world.id(3, 1_000_000);
    world.run(late, completed()).await;
    assert_eq!(world.lies_in(late).await, ("job_history_default".to_owned(), 2));
    world.go_to(1);
    assert_eq!(done(&[world.tend().await]), (1, 0, 0, 0), "the next day is made");
    // What lies outside goes with its job.
    world.go_to(20);
    assert_eq!(world.remove().await, 100);
    assert_eq!(
        world
            .number(
                "SELECT count(*) FROM job_history h WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE id = job_id)"
            )
            .await,
        0
    );
    world.subject.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn day_goes_as_a_whole_when_the_time_of_its_jobs_is_over() {
    let Some(mut world) = World::new().await else { return };
    world.go_to(0);
    let ids = [world.id(0, 1), world.id(0, 2), world.id(0, 3)];
    for id in ids {
        world.run(id, completed()).await;
    }
    world.go_to_time(world.end_of(0).minus(HOUR));
    assert_eq!(world.remove().await, 3);
    for id in ids {
        assert!(world.history(id).await.is_empty(), "nobody sees it any more");
        assert_eq!(world.lies_in(id).await, (world.part(0), 2), "and it is not removed row by row");
    }
    let first = done(&world.tend_all().await);
    assert_eq!((first.1, world.parts().await.contains(&world.part(0))), (1, true), "only what was before");
    world.go_to_time(world.end_of(0));
    let second = done(&world.tend_all().await);
    assert_eq!((second.1, second.2), (1, 0));
    assert!(!world.parts().await.contains(&world.part(0)));
    let tables = format!("SELECT count(*) FROM pg_class WHERE relname = '{}'", world.part(0));
    assert_eq!(world.number(&tables).await, 0);
    // Somebody comes back with an old id.
    world.run(ids[0], completed()).await;
    assert_eq!(world.lies_in(ids[0]).await, ("job_history_default".to_owned(), 2));
    world.subject.assert_sound().await;
    world.subject.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_day_is_carried_over() {
    let Some(mut world) = World::new().await else { return };
    world.go_to(0);
    let (gone, open, waiting) = (world.id(0, 1), world.id(0, 2), world.id(0, 3));
    world.run(gone, completed()).await;
    world.run(open, failed()).await;
    let before = world.history(open).await;
    world.go_to_time(world.end_of(0));
    assert_eq!(world.remove().await, 1);
    world.subject.store.jobs_submit(vec![NewJob { id: waiting, ..NewJob::new("later", "1") }]).await.unwrap();
    let tended = done(&world.tend_all().await);
    assert_eq!((tended.1, tended.2), (2, 2));
    assert_eq!(world.lies_in(open).await, ("job_history_default".to_owned(), 2));
    assert_eq!(world.lies_in(gone).await.1, 0);
    assert_eq!(world.history(open).await, before);
    // It goes on where it was.
    world.subject.store.job_retry(open).await.unwrap();
    let session = world.subject.session().await;
    let again = world.subject.claim_one(session).await;
    world.subject.settle(&again, completed()).await;
    assert_eq!(world.history(open).await.len(), 5);
    world.subject.assert_sound().await;
    // And at its end nothing is left of it.
    world.subject.advance(KEEP);
    assert_eq!(world.remove().await, 1);
    assert_eq!(world.lies_in(open).await.1, 0);
    world.subject.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn day_of_which_much_is_left_stays_without_history_of_jobs_that_are_gone() {
    let Some(mut world) = World::new().await else { return };
    world.go_to(0);
    world.fill(0, CARRIED_MAX + 1, "failed").await;
    let gone = world.id(0, 1);
    world.go_to_time(world.end_of(0));
    assert_eq!(world.remove().await, 1);
    assert_eq!(world.lies_in(gone).await, (world.part(0), 2));
    let tended = world.tend_all().await;
    let swept = done(&tended);
    assert_eq!((swept.1, swept.3), (1, 2), "only what was before went");
    assert_eq!(world.lies_in(gone).await.1, 0);
    assert!(world.parts().await.contains(&world.part(0)));
    let part = world.part(0);
    assert_eq!(
        world.number(&format!("SELECT count(*) FROM {part}")).await,
        CARRIED_MAX + 1,
        "of jobs that are left"
    );
    assert_eq!(done(&world.tend_all().await), (0, 0, 0, 0), "nothing is looked through twice");
    // From now on it goes with its job.
    world.hand.execute("UPDATE jobs SET state = 'completed' WHERE state = 'failed'").await.unwrap();
    assert_eq!(world.remove().await, 100);
    assert_eq!(world.number(&format!("SELECT count(*) FROM {part}")).await, CARRIED_MAX - 99);
    // Now it is little enough.
    let tended = done(&world.tend_all().await);
    assert_eq!((tended.1, tended.2), (1, u64::try_from(CARRIED_MAX).unwrap() - 99));
    assert!(!world.parts().await.contains(&part));
    world.subject.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_make_the_same_days_once() {
    let Some(mut world) = World::new().await else { return };
    let other = world.subject.second().await;
    for round in 1..4 {
        world.go_to(round * 10);
        let rule = HistoryRule { keep: 1_000 * DAY, rows_max: 1 };
        let (first, second) = (world.subject.store.maintenance(), other.maintenance());
        let (first, second, one, two) = tokio::join!(
            first.history_tend(&world.lead, rule),
            second.history_tend(&world.lead, rule),
            world.subject.second(),
            world.subject.second()
        );
        assert_eq!((first.unwrap().held_up, second.unwrap().held_up), (None, None));
        let mut made = world.parts().await;
        assert_eq!(made.len(), 4 + 4 * usize::try_from(round).unwrap());
        made.dedup();
        let parts = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'recache.job_history'::regclass";
        assert_eq!(world.number(parts).await, i64::try_from(made.len()).unwrap() + 1, "and what has none");
        one.close().await;
        two.close().await;
    }
    other.close().await;
    world.subject.store.close().await;
}

/// As a backup is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_reader_holds_up_days_and_nobody_else() {
    let Some(mut world) = World::new().await else { return };
    let old = world.id(0, 1);
    world.go_to(0);
    world.run(old, completed()).await;
    world.go_to_time(world.end_of(0));
    world.remove().await;
    let read = "BEGIN; SELECT count(*) FROM job_history";
    world.hand.execute(read).await.unwrap();
    let held_up = world.tend().await;
    assert!(held_up.held_up.is_some(), "{held_up:?}");
    assert_eq!((held_up.made, held_up.dropped, held_up.has_more), (0, 0, false));
    // Days are as they were; what comes lies outside.
    let (fine, wrong) = (id_at(world.subject.clock.now(), 1), id_at(world.subject.clock.now(), 2));
    world.run(fine, completed()).await;
    world.run(wrong, failed()).await;
    world.hand.execute("COMMIT").await.unwrap();
    let tended = done(&world.tend_all().await);
    assert_eq!((tended.0, tended.1), (4, 2));
    assert_eq!(world.lies_in(fine).await, (part_at(world.subject.clock.now()), 2), "taken in");
    assert_eq!(world.history(wrong).await.len(), 2);
    world.subject.assert_sound().await;
    world.subject.store.close().await;
}

/// What is done to other days is nothing to it, and their number costs it nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settlement_has_to_do_with_the_day_of_its_job_alone() {
    let Some(mut world) = World::new().await else { return };
    let others = format!(
        "BEGIN; LOCK TABLE ONLY job_history_default, ONLY job_history_before, ONLY {}, ONLY {} IN ACCESS EXCLUSIVE MODE",
        world.part(1),
        world.part(2)
    );
    world.go_to(0);
    world.hand.execute(AssertSqlSafe(others)).await.unwrap();
    let id = world.id(0, 1);
    let ran = tokio::time::timeout(Duration::from_secs(20), world.run(id, completed())).await;
    assert!(ran.is_ok(), "it waited for other days");
    world.hand.execute("ROLLBACK").await.unwrap();
    assert_eq!(world.lies_in(id).await, (world.part(0), 2));
    world.subject.store.close().await;
}

/// It had found its way to where everything else lies, and waited there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settlement_into_a_day_that_is_just_made_is_carried_out() {
    let Some(mut world) = World::new().await else { return };
    let id = world.id(3, 1);
    let claimed = world.claim(id).await;
    assert_eq!(world.lies_in(id).await, ("job_history_default".to_owned(), 1));
    world.hand.execute("BEGIN; LOCK TABLE ONLY job_history_default IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let store = Arc::clone(&world.subject.store);
    let settling =
        tokio::spawn(
            async move { store.jobs_dispatch(vec![Settlement::of(&claimed, completed())], None).await },
        );
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'recache.job_history_default'::regclass";
    while world.number(waiting).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (first, past) = (world.first_day.plus(DAY * 3), world.first_day.plus(DAY * 4));
    let bound = |at| id_at(at, 0).uuid().to_string().replace("7000-8000", "0000-0000");
    let (part, first, past) = (world.part(3), bound(first), bound(past));
    world
        .hand
        .execute(AssertSqlSafe(format!(
            "CREATE TABLE {part} (LIKE job_history INCLUDING ALL); INSERT INTO {part} SELECT * FROM job_history_default; \
             DELETE FROM job_history_default; ALTER TABLE job_history ATTACH PARTITION {part} FOR VALUES FROM ('{first}') TO ('{past}'); COMMIT"
        )))
        .await
        .unwrap();
    assert_eq!(settling.await.unwrap().unwrap().settled, [Settled::Accepted]);
    assert_eq!(world.lies_in(id).await, (part, 2));
    assert_eq!(world.history(id).await.len(), 2);
    world.subject.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn part_that_somebody_took_away_is_forgotten() {
    let Some(mut world) = World::new().await else { return };
    let (part, id) = (world.part(1), world.id(1, 1));
    world.hand.execute(AssertSqlSafe(format!("DROP TABLE {part}"))).await.unwrap();
    world.run(id, completed()).await;
    assert_eq!(world.lies_in(id).await, ("job_history_default".to_owned(), 2));
    assert_eq!(done(&[world.tend().await]), (1, 0, 0, 0), "made anew");
    assert_eq!(world.lies_in(id).await, (part, 2));
    world.subject.store.close().await;
}

/// What is set for what lies outside holds for days that are made later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_are_made_with_the_settings_of_what_lies_outside() {
    let Some(mut world) = World::new().await else { return };
    let set =
        "ALTER TABLE job_history_default SET (autovacuum_vacuum_insert_scale_factor = 0.5, fillfactor = 90)";
    world.hand.execute(set).await.unwrap();
    world.go_to(0);
    assert_eq!(done(&[world.tend().await]), (1, 0, 0, 0));
    let settings = format!(
        "SELECT count(*) FROM pg_class WHERE relname = '{}' AND reloptions = \
         '{{autovacuum_vacuum_insert_scale_factor=0.5,fillfactor=90}}'",
        world.part(3)
    );
    assert_eq!(world.number(&settings).await, 1);
    world.subject.store.close().await;
}

/// The last version whose history was one table.
const VERSION_BEFORE: i64 = 50;

async fn migrate_to_the_version_before(hand: &mut PgConnection) {
    let all = Migrator::new(std::path::Path::new("migrations/postgres")).await.unwrap();
    let old = all.iter().filter(|one| one.version <= VERSION_BEFORE).cloned().collect();
    hand.execute("CREATE SCHEMA recache; SET search_path TO recache").await.unwrap();
    Migrator::with_migrations(old).run(&mut *hand).await.unwrap();
}

/// Rows stay what they are, also of jobs that run meanwhile; who might read may read, who listened hears.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migration_keeps_all_history_and_whoever_listens_to_it() {
    let Some(database) = empty_postgres_database().await else { return };
    let mut hand = PgConnection::connect(database.url()).await.unwrap();
    migrate_to_the_version_before(&mut hand).await;
    let role = format!("reader_{}", Uuid::new_v4().simple());
    let ids = [JobId::make(), JobId::from_uuid(Uuid::new_v4()), JobId::from_uuid(Uuid::from_u128(u128::MAX))];
    hand.execute(AssertSqlSafe(format!(
        "CREATE ROLE {role}; GRANT USAGE ON SCHEMA recache TO {role}; GRANT SELECT ON job_history TO {role}; \
         ALTER TABLE job_history SET (fillfactor = 80)"
    )))
    .await
    .unwrap();
    hand.execute(
        "INSERT INTO events_wanted (type) VALUES ('job.completed'); CREATE TRIGGER events_of_jobs AFTER INSERT ON job_history \
         REFERENCING NEW TABLE AS moved FOR EACH STATEMENT EXECUTE FUNCTION recache.events_of_jobs()",
    )
    .await
    .unwrap();
    for id in ids {
        for (seq, from, to) in [(1_i64, "queued", "running"), (2, "running", "queued")] {
            let row = "INSERT INTO job_history VALUES ($1, $2, 7, $3, $4, 1, 1, NULL, 'said')";
            sqlx::query(row).bind(id.uuid()).bind(seq).bind(from).bind(to).execute(&mut hand).await.unwrap();
        }
        let job = "INSERT INTO jobs (id, namespace, queue, handler, state, priority, due_at, input, retry, attempts_max, \
                   correlation_id, created_at, transitions, attempt, epoch) VALUES ($1, 'default', 'default', 'work', 'queued', \
                   0, 0, '1', $2, 9, 'c', 0, 2, 1, 1)";
        let retry = serde_json::to_string(&recache_model::retry::RetryPolicy::once()).unwrap();
        sqlx::query(job).bind(id.uuid()).bind(retry).execute(&mut hand).await.unwrap();
    }
    // As somebody makes it who spares the migration a look through all rows: it must not hold for what comes.
    let ahead = format!(
        "ALTER TABLE job_history ADD CONSTRAINT ahead CHECK (job_id < '{}') NOT VALID",
        ids[2].uuid()
    );
    hand.execute(AssertSqlSafe(ahead)).await.unwrap();
    let store = open(&OpenOptions::new(database.url())).await.unwrap();
    for id in ids {
        let history = store.job_history(id).await.unwrap();
        assert_eq!(
            history.iter().map(|row| (row.seq, row.to)).collect::<Vec<_>>(),
            [(1, JobState::Running), (2, JobState::Queued)]
        );
        assert_eq!(history[0].detail.as_deref(), Some("said"));
    }
    let session = recache_model::ids::SessionId::make();
    store.session_open(session, "test", DAY).await.unwrap();
    let claim = ClaimRequest {
        session,
        queues: vec!["default".to_owned()],
        handlers: vec!["work".to_owned()],
        rows_max: 10,
    };
    let claimed = store.jobs_dispatch(Vec::new(), Some(claim)).await.unwrap().claimed;
    assert_eq!(claimed.len(), 3);
    let settlements = claimed.iter().map(|job| Settlement::of(job, completed())).collect();
    let settled = store.jobs_dispatch(settlements, None).await.unwrap().settled;
    assert_eq!(settled, [Settled::Accepted; 3]);
    for id in ids {
        assert_eq!(store.job_history(id).await.unwrap().len(), 4);
    }
    let count = async |hand: &mut PgConnection, sql: &'static str| -> i64 {
        hand.fetch_one(sql).await.unwrap().try_get(0).unwrap()
    };
    assert_eq!(count(&mut hand, "SELECT count(*) FROM events WHERE type = 'job.completed'").await, 3);
    // Whoever stops listening takes the trigger away where it is now.
    store
        .event_stream()
        .stream_listen("a", vec!["job.failed".to_owned()], Duration::from_mins(1))
        .await
        .unwrap();
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname = 'events_of_jobs' AND tgrelid = 'recache.job_history'::regclass";
    assert_eq!(count(&mut hand, triggers).await, 1);
    let set = "SELECT count(*) FROM pg_class WHERE relname LIKE 'job\\_history\\_%' AND relkind = 'r' AND relname <> 'job_history_days' \
               AND reloptions = '{fillfactor=80}'";
    assert_eq!(count(&mut hand, set).await, 5, "before, outside, and three days to come");
    hand.execute(AssertSqlSafe(format!("SET ROLE {role}"))).await.unwrap();
    assert_eq!(count(&mut hand, "SELECT count(*) FROM recache.job_history").await, 12);
    let owned = format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}");
    hand.execute(AssertSqlSafe(owned)).await.unwrap();
    store.close().await;
}
