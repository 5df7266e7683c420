//! What the caches of several servers over one Redis answered.

use super::{Served, text};

/// Through the server, as often.
fn read_figures(served: &Served, times: u64) {
    for _ in 0..times {
        served.there(&["analytics", "performance", "-o", "json"]).ok();
    }
}

/// Reads of figures by all servers, as this one tells, and how many servers it has heard of.
fn reads(served: &Served) -> (u64, u64) {
    let stats = served.there(&["cache", "stats", "-o", "json"]).json();
    let fleet = &stats["fleet"];
    assert_eq!(
        (text(&fleet["strategy"]), &stats["fleet_reason"]),
        ("distributed_basic", &().into()),
        "{stats}"
    );
    let usages = fleet["usages"].as_array().unwrap();
    let analytics = usages.iter().find(|one| one["usage"] == "analytics").expect("figures were read");
    let count = |what: &str| analytics[what].as_u64().unwrap();
    assert!(count("rebuilds") >= 1, "{analytics}");
    (count("hits") + count("stale_hits") + count("misses"), fleet["instances"].as_u64().unwrap())
}

#[test]
fn reads_of_all_servers_are_summed_exactly_though_one_is_killed_and_comes_back() {
    let Ok(redis) = std::env::var("RECACHE_TEST_REDIS_URL") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "RECACHE_TEST_REDIS_URL is not set: run `cargo xtask test`"
        );
        eprintln!("SKIPPED: no Redis; RECACHE_TEST_REDIS_URL is not set");
        return;
    };
    let prefix = format!("fleet-{}", uuid::Uuid::new_v4().simple());
    let cached = [
        ("RECACHE__COMMON__CACHE__ENABLED", "true"),
        ("RECACHE__COMMON__CACHE__BACKEND", "redis"),
        ("RECACHE__COMMON__CACHE__KEY_PREFIX", prefix.as_str()),
        ("RECACHE__COMMON__CACHE__REDIS__URL", redis.as_str()),
    ];
    let start = || {
        let served = Served::start(&cached);
        // It begins without waiting for its backend.
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        while served.there(&["cache", "stats", "-o", "json"]).json()["fleet"]["strategy"]
            != "distributed_basic"
        {
            assert!(tokio::time::Instant::now() < deadline, "{:?}", served.there(&["cache", "stats"]));
        }
        served
    };
    let (first, second) = (start(), start());
    read_figures(&first, 5);
    read_figures(&second, 3);
    // Who is asked shares at once.
    assert!((5..=8).contains(&reads(&first).0), "its own, and the other's if it has shared them by now");
    assert_eq!(reads(&second), (8, 2));
    // With `kill -9`.
    drop(first);
    assert_eq!(reads(&second).0, 8, "what it had shared stays");
    let first = start();
    read_figures(&first, 4);
    assert_eq!(reads(&first).0, 12);
    assert_eq!(reads(&second).0, 12, "and is counted once");
    assert!(second.there(&["cache", "stats"]).ok().contains("distributed_basic"));
    // A command that looks into the backend by itself sees the same, and is no member.
    let mut command = super::command(second.folder.path());
    let output = command.args(["cache", "stats", "-o", "json"]).envs(cached).output().unwrap();
    let stats: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(stats["fleet"]["instances"], 3, "{stats}");
}
