//! migrate, doctor and config.

use super::world::{World, files, recache, run};
use recache_store::conformance::empty_postgres_database;
use serde_json::Value;

#[test]
fn migrate_creates_a_file_and_says_its_schema_version() {
    let folder = tempfile::tempdir().unwrap();
    let migrate = |arguments: &[&str]| run(recache(folder.path()).arg("migrate").args(arguments));
    let newest = recache_store::newest_schema();
    assert_eq!(migrate(&[]).expect(0), format!("sqlite:recache.db: schema version {newest}\n"));
    let again = migrate(&["-o", "json"]).json();
    assert_eq!(
        again,
        serde_json::json!({ "schema": "recache.migration.v1", "database": "sqlite:recache.db", "schema_version": newest })
    );
    assert_eq!(files(folder.path()).keys().collect::<Vec<_>>(), ["recache.db"]);
    assert_eq!(run(recache(folder.path()).args(["job", "list", "-o", "jsonl"])).expect(0), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_makes_the_tables_on_a_server() {
    let Some(database) = empty_postgres_database().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let recache =
        |arguments: &[&str]| run(recache(folder.path()).args(["--database", database.url()]).args(arguments));
    recache(&["job", "list"]).refused(5, &["E-DATABASE-SCHEMA", "no tables of Recache", "recache migrate"]);
    assert!(recache(&["doctor"]).expect(1).contains("no tables of Recache"));
    recache(&["job", "list"]).refused(5, &["no tables of Recache"]);
    assert!(
        recache(&["migrate"])
            .expect(0)
            .ends_with(&format!(": schema version {}\n", recache_store::newest_schema()))
    );
    assert_eq!(recache(&["job", "list", "-o", "jsonl"]).expect(0), "");
    recache(&["doctor"]).expect(0);
}

fn status(document: &Value) -> Vec<(&str, &str)> {
    let checks = document["checks"].as_array().unwrap();
    checks.iter().map(|check| (check["name"].as_str().unwrap(), check["status"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_finds_nothing_wrong_with_a_good_database() {
    let world = World::sqlite().await;
    let rows = world.rows().await;
    let table = world.run(&["doctor"]).expect(0);
    for check in ["configuration", "database", "schema", "writable", "clock", "counts"] {
        assert!(table.lines().any(|line| line.starts_with(check) && line.contains("  ok  ")), "{table}");
    }
    let document = world.run(&["doctor", "-o", "json"]).json();
    let names: Vec<&str> = status(&document).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["configuration", "database", "schema", "writable", "disk", "clock", "counts"]);
    assert_eq!(world.rows().await, rows, "doctor changes nothing");
}

#[test]
fn doctor_says_what_is_wrong_where_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let doctor =
        |arguments: &[&str]| run(recache(folder.path()).args(["doctor", "-o", "json"]).args(arguments));
    let document = |ran: super::world::Ran| -> Value { serde_json::from_str(&ran.expect(1)).unwrap() };

    let missing = document(doctor(&[]));
    assert_eq!(missing["status"], "fail");
    assert_eq!(status(&missing)[..3], [("configuration", "ok"), ("database", "fail"), ("schema", "warn")]);
    let database = &missing["checks"][1];
    assert_eq!(database["place"], "sqlite:recache.db");
    assert!(database["remedy"].as_str().unwrap().contains("recache migrate --database sqlite:recache.db"));
    assert_eq!(files(folder.path()).len(), 0, "doctor creates nothing");

    std::fs::write(folder.path().join("recache.db"), "").unwrap();
    let empty = document(doctor(&[]));
    assert_eq!(status(&empty)[..3], [("configuration", "ok"), ("database", "ok"), ("schema", "fail")]);
    assert_eq!(files(folder.path())["recache.db"], b"");

    std::fs::write(folder.path().join("bad.toml"), "[engine]\nslots = \"many\"\n").unwrap();
    let wrong = doctor(&["--config", "bad.toml"]);
    assert!(wrong.err.contains("bad.toml:2:"), "{}", wrong.err);
    let wrong = document(wrong);
    assert_eq!(status(&wrong)[..2], [("configuration", "fail"), ("database", "warn")]);
}

#[test]
fn config_is_checked_and_explained_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.toml"), "[engine]\nslots = 3\n").unwrap();
    let config = |arguments: &[&str]| {
        run(recache(folder.path()).args(["--config", "good.toml", "config"]).args(arguments))
    };
    assert_eq!(config(&["check"]).expect(0), "good.toml: no problems\n");
    assert!(config(&["explain"]).expect(0).contains("engine.slots"));
    let all = config(&["explain", "-o", "json"]).json();
    let lines = config(&["explain", "-o", "jsonl"]).expect(0);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(all["options"], Value::from(lines));
    let url = config(&["explain", "database.url", "--database", "postgres://u:hunter2@h/d"]).expect(0);
    assert!(url.contains("postgres://u:***@h/d") && url.contains("flag --database"), "{url}");
    let variable = run(recache(folder.path()).env("RECACHE_DATABASE", "sqlite:a.db").args([
        "config",
        "explain",
        "database.url",
    ]));
    assert!(variable.expect(0).contains("flag --database (RECACHE_DATABASE)"));
    let both = run(recache(folder.path()).env("RECACHE_DATABASE", "sqlite:a.db").args([
        "config",
        "explain",
        "database.url",
        "--database",
        "sqlite:b.db",
    ]));
    assert!(both.expect(0).contains("sqlite:b.db"));
    let nothing =
        run(recache(folder.path()).env("RECACHE_DATABASE", "").args(["config", "explain", "database.url"]));
    assert!(nothing.expect(0).contains("origin    default"));
    config(&["explain", "engine.slot"]).refused(2, &["did you mean `engine.slots`"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bench_of_pressure_measures_each_part_with_it_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let bench = |arguments: &[&str]| {
        let light = "--seconds 1 --rounds 1 --writers 2 --fleet 1 --backlog 200 --rate 10 -o json";
        run(recache(folder.path()).args(["bench", "pressure"]).args(arguments).args(light.split(' ')))
    };
    bench(&[]).refused(1, &["E-BENCH", "--database postgres://"]);
    let Some(database) = empty_postgres_database().await else { return };
    let report = bench(&["--database", database.url()]).json();
    let rows = report["rows"].as_array().unwrap();
    for (name, unit) in [
        ("2 writers submit one at a time, alone", "jobs/s"),
        ("the same, 1 workers are woken", "jobs/s"),
        ("the same, calls of these workers", "calls/s"),
        ("submit beside woken workers against alone", "%"),
        ("fixed limit: p99 against idle", "x"),
        ("adaptive limit: p99 against idle", "x"),
    ] {
        let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {report:#}"));
        assert_eq!(row["unit"], unit);
        assert!(row["value"].as_f64().unwrap() > 0.0, "{row}");
    }
    let fairness = bench(&["--database", database.url(), "--parts", "fairness"]).json();
    assert!(!fairness.to_string().contains("writers"), "one part alone");
}
