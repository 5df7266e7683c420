//! Wrong input: what is said, with which exit code, and that nothing changes.

use std::path::Path;

use assert_cmd::Command;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::world::{DONE, FAILED, UNKNOWN, World, assert_same_files, files, recache, run};
use recache_store::conformance::postgres_database;

/// One of each verb that opens a database and must find it there.
const VERBS: &[&[&str]] = &[
    &["job", "list"],
    &["job", "show", FAILED],
    &["job", "cancel", FAILED],
    &["job", "retry", FAILED],
    &["view", "touch", "shop/prices"],
    &["view", "show", "shop/prices"],
    &["view", "items", "shop/prices"],
    &["view", "get", "shop/prices", "sku-1"],
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_command_changes_no_row_and_says_why() {
    refuse_each(&World::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_command_changes_no_row_and_says_why_over_postgresql() {
    if let Some(database) = postgres_database().await {
        let world = World::filled(database).await;
        refuse_each(&world).await;
        world.store.close().await;
    }
}

async fn refuse_each(world: &World) {
    let rows = world.rows().await;
    for verb in ["show", "cancel", "retry"] {
        world.run(&["job", verb, UNKNOWN]).refused(3, &["E-NOT-FOUND", UNKNOWN, "help: "]);
        world.run(&["job", verb, "7"]).refused(2, &["expected a UUID, optionally prefixed with `job_`"]);
        world.run(&["job", verb, "view_00000000-0000-7000-8000-000000000001"]).refused(2, &["job_"]);
    }
    world.run(&["job", "retry", DONE]).refused(5, &["E-CONFLICT", "is completed; only a failed job"]);
    world.run(&["job", "cancel", DONE]).refused(5, &["E-CONFLICT", "is completed; only a job that has not"]);
    for verb in ["touch", "show", "items"] {
        world.run(&["view", verb, "shop/none"]).refused(3, &["E-NOT-FOUND", "shop/none", "help: "]);
        world.run(&["view", verb, "prices"]).refused(2, &["expected NAMESPACE/KEY"]);
    }
    world.run(&["view", "get", "shop/none", "x"]).refused(3, &["shop/none"]);
    world
        .run(&["view", "get", "shop/prices", "sku-9"])
        .refused(3, &["version 2", "no item `sku-9`", "view items"]);
    world.run(&["view", "get", "shop/untouched", "x"]).refused(3, &["no generation yet", "--min-version 1"]);
    assert_eq!(world.rows().await, rows);
}

#[test]
fn wrong_command_line_is_a_usage_error_and_creates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, texts) in [
        (&["job", "list", "--nonsense"][..], &["--nonsense"][..]),
        (&["job", "list", "--limit", "0"], &["1..=1000"]),
        (&["job", "list", "--limit", "1001"], &["1..=1000"]),
        (&["job", "list", "--limit", "-1"], &["-1"]),
        (&["job", "list", "--state", "processing"], &["is no job state", "queued"]),
        (&["job", "list", "-o", "xml"], &["jsonl"]),
        (&["job", "list", "-q", "-v"], &["cannot be used with"]),
        (&["job", "lst"], &["list"]),
        (&["nonsense"], &["unrecognized subcommand"]),
        (&["view", "get", "a/b", "c", "--timeout", "5"], &["500ms, 5s, 2m"]),
        (&["view", "get", "a/b", "c", "--min-version", "-1"], &["-1"]),
        (&["job"], &["recache job list"]),
        (&[], &["recache migrate"]),
    ] {
        run(recache(folder.path()).args(arguments)).refused(2, texts);
    }
    assert_eq!(files(folder.path()).len(), 0);
}

#[test]
fn missing_database_is_not_created_by_a_verb_that_needs_one() {
    let folder = tempfile::tempdir().unwrap();
    for verb in VERBS {
        let ran = run(recache(folder.path()).args(*verb).args(["--database", "sqlite:sub/x.db"]));
        ran.refused(
            6,
            &["`sub/x.db` does not exist", "at sqlite:sub/x.db", "mkdir -p sub", "recache migrate"],
        );
        let ran = run(recache(folder.path()).args(*verb).args(["--database", "sqlite:x.db"]));
        ran.refused(6, &["`x.db` does not exist", "recache migrate --database sqlite:x.db"]);
        let ran = run(recache(folder.path()).args(*verb).args(["--database", "sqlite::memory:"]));
        ran.refused(5, &["in memory is empty"]);
    }
    let migrate = run(recache(folder.path()).args(["migrate", "--database", "sqlite:sub/x.db"]));
    migrate.refused(6, &["`sub/x.db` does not exist", "mkdir -p sub"]);
    assert_eq!(files(folder.path()).len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_is_no_database_of_ours_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    std::fs::write(folder.path().join("garbage"), "certainly no database ".repeat(100)).unwrap();
    std::fs::write(folder.path().join("empty"), "").unwrap();
    for (name, journal) in [("foreign", "DELETE"), ("foreign_wal", "WAL")] {
        let url = format!("sqlite:{}?mode=rwc", folder.path().join(name).display());
        let mut foreign = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let make = format!("PRAGMA journal_mode = {journal}; CREATE TABLE theirs (n INT)");
        foreign.execute(AssertSqlSafe(make)).await.unwrap();
        foreign.close().await.unwrap();
    }
    let before = files(folder.path());
    for verb in VERBS {
        for (name, code, texts) in [
            ("folder", 6, &["is a folder", "sqlite:folder/recache.db"][..]),
            ("garbage", 6, &["is not an SQLite database", "left as it is"]),
            ("empty", 5, &["is empty", "recache migrate --database sqlite:empty"]),
            ("foreign", 5, &["never been opened by `recache migrate`"]),
            ("foreign_wal", 5, &["no tables of Recache"]),
        ] {
            let url = format!("sqlite:{name}");
            run(recache(folder.path()).args(*verb).args(["--database", &url])).refused(code, texts);
        }
    }
    for name in ["folder", "garbage"] {
        let url = format!("sqlite:{name}");
        run(recache(folder.path()).args(["migrate", "--database", &url])).refused(6, &[name]);
    }
    assert_same_files(folder.path(), &before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_of_a_newer_version_is_left_as_it_is() {
    let world = World::sqlite().await;
    let folder = world.closed_folder().await;
    let url = format!("sqlite:{}", folder.join("test.db").display());
    let mut newer = sqlx::SqliteConnection::connect(&url).await.unwrap();
    newer.execute(FROM_THE_FUTURE).await.unwrap();
    newer.close().await.unwrap();
    let before = files(&folder);
    for verb in VERBS.iter().chain(&[&["migrate"][..]]) {
        world
            .run(verb)
            .refused(5, &["E-DATABASE-SCHEMA", "version 9999", "newer", &url, "knows schema version 10"]);
    }
    let doctor = world.run(&["doctor"]).expect(1);
    assert!(doctor.contains("version 9999"), "{doctor}");
    assert_same_files(&folder, &before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_of_a_newer_version_is_left_as_it_is_over_postgresql() {
    let Some(database) = postgres_database().await else { return };
    let url = database.url().to_owned();
    let world = World::filled(database).await;
    let mut newer = sqlx::PgConnection::connect(&url).await.unwrap();
    newer.execute("SET search_path TO recache").await.unwrap();
    newer.execute(FROM_THE_FUTURE).await.unwrap();
    newer.close().await.unwrap();
    let rows = world.rows().await;
    for verb in VERBS.iter().chain(&[&["migrate"][..]]) {
        world.run(verb).refused(5, &["E-DATABASE-SCHEMA", "version 9999", "newer"]);
    }
    assert_eq!(world.rows().await, rows);
    world.store.close().await;
}

const FROM_THE_FUTURE: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                               SELECT 9999, 'later', success, checksum, 0 FROM _sqlx_migrations LIMIT 1";

#[test]
fn server_that_is_not_there_is_given_up_within_5_seconds() {
    let folder = tempfile::tempdir().unwrap();
    // A port that was just free: bound and let go.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://app:hunter2@127.0.0.1:{port}/app");
    for verb in [&["job", "list"][..], &["migrate"]] {
        let start = tokio::time::Instant::now();
        let ran = run(recache(folder.path()).args(verb).args(["--database", &url]));
        assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(!ran.err.contains("hunter2"), "{}", ran.err);
        let place = format!("at postgres://app:***@127.0.0.1:{port}/app");
        ran.refused(6, &["E-UNAVAILABLE", &place, "help: check that the database runs"]);
    }
}

#[test]
fn bad_configuration_stops_with_place_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.toml"), "[database]\nurl = \"mysql://u:hunter2@h/d\"\n").unwrap();
    for verb in VERBS.iter().chain(&[&["migrate"][..]]) {
        let ran = run(recache(folder.path()).args(["--config", "bad.toml"]).args(*verb));
        assert!(!ran.err.contains("hunter2"), "{}", ran.err);
        ran.refused(1, &["E-CONFIG", "at bad.toml:2:", "help: ", "postgres://"]);
        let ran = run(recache(folder.path()).args(["--config", "none.toml"]).args(*verb));
        ran.refused(1, &["none.toml", "cannot read the configuration file"]);
        let ran = run(recache(folder.path()).args(["--database", "nonsense:hunter2"]).args(*verb));
        assert!(!ran.err.contains("hunter2"), "{}", ran.err);
        ran.refused(1, &["from flag --database", "sqlite:PATH"]);
    }
    assert_eq!(files(folder.path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn problem_in_the_cache_s_sections_is_only_a_warning() {
    let world = World::sqlite().await;
    let config = tempfile::tempdir().unwrap();
    let file = config.path().join("cache.toml");
    std::fs::write(&file, "[common.cache]\nbackend = \"punchcards\"\n").unwrap();
    let ran = world.run(&["--config", file.to_str().unwrap(), "job", "list"]);
    assert!(ran.err.contains("warning[E-CONFIG]") && ran.err.contains("punchcards"), "{}", ran.err);
    assert!(ran.expect(0).contains(DONE));
    let quiet = world.run(&["--config", file.to_str().unwrap(), "job", "list", "-q"]);
    assert_eq!((quiet.code, quiet.err.as_str()), (0, ""));
}

/// Root may write anywhere, so then the command runs as somebody else, from a copy that this one may read.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_that_may_not_be_written_is_said_to_be_so() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;

    let set_mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let folder = tempfile::tempdir().unwrap();
    set_mode(folder.path(), 0o755);
    let binary = folder.path().join("recache");
    std::fs::copy(Command::cargo_bin("recache").unwrap().get_program(), &binary).unwrap();
    let locked = folder.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    run(recache(&locked).arg("migrate")).expect(0);
    std::fs::write(locked.join("secret.db"), "nobody reads this").unwrap();
    set_mode(&locked.join("secret.db"), 0o000);
    set_mode(&locked.join("recache.db"), 0o444);
    set_mode(&locked, 0o555);
    let is_root = std::fs::write(locked.join("probe"), "").is_ok();
    if is_root {
        std::fs::remove_file(locked.join("probe")).unwrap();
    }
    let as_nobody = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&binary);
        command.args(arguments).current_dir(&locked).env_clear();
        if is_root {
            const NOBODY: u32 = 65534;
            command.uid(NOBODY).gid(NOBODY);
        }
        run(&mut Command::from_std(command))
    };
    let bytes = std::fs::read(locked.join("recache.db")).unwrap();
    for arguments in [&["job", "list"][..], &["view", "touch", "a/b"], &["migrate"]] {
        as_nobody(arguments).refused(6, &["E-UNAVAILABLE", "recache.db", "permissions"]);
    }
    as_nobody(&["migrate", "--database", "sqlite:new.db"]).refused(6, &["new.db", "writable"]);
    as_nobody(&["job", "list", "--database", "sqlite:secret.db"])
        .refused(6, &["cannot be read", "permissions"]);
    let doctor = as_nobody(&["doctor"]);
    assert_eq!(doctor.code, 1, "{doctor:?}");
    assert!(std::fs::read(locked.join("recache.db")).unwrap() == bytes);
    let names: Vec<_> = std::fs::read_dir(&locked).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    set_mode(&locked, 0o755);
}
