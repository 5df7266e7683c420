//! A real Prometheus scrapes a real server, with the rules of `ops/`.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::names::ops;
use crate::served::{Running, Served, ask};

/// Set by `cargo xtask test`, which installs it where it may.
const VARIABLE: &str = "RECACHE_TEST_PROMETHEUS";

fn program() -> Option<PathBuf> {
    let named = std::env::var_os(VARIABLE).map(PathBuf::from);
    let on_path = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join("prometheus")).find(|file| file.is_file())
    };
    let found = named.or_else(on_path);
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no prometheus: run `cargo xtask test`, which installs it");
        eprintln!(
            "SKIPPED: no prometheus, and {VARIABLE} is not set (`cargo xtask test` installs Debian's package)"
        );
    }
    found
}

fn query(address: &str, path: &str) -> Value {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\naccept-encoding: identity\r\n\r\n"
    );
    let body = ask(address, &request);
    // Short answers have a length, longer ones come in chunks; either way the document is one line of JSON.
    let line = body.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{body}"));
    serde_json::from_str(line).unwrap()
}

/// The value of the only sample that a query finds.
fn sample(address: &str, expression: &str) -> Option<f64> {
    let answer = query(address, &format!("/api/v1/query?query={expression}"));
    let value = answer["data"]["result"].get(0)?["value"][1].as_str()?.parse();
    value.ok()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn prometheus_accepts_what_a_running_server_publishes_and_the_rules_about_it() {
    let Some(program) = program() else { return };
    let served = Served::start(&[]);
    for _ in 0..3 {
        served.post("/v1/jobs", r#"{"handler":"echo"}"#);
    }
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(ops().join("prometheus/prometheus.yml")).unwrap();
    let rules = ops().join("prometheus/alerts.yml");
    let text = text
        .replace("15s", "1s")
        .replace("127.0.0.1:7878", &served.address)
        .replace("- alerts.yml", &format!("- {}", rules.display()));
    let config = folder.path().join("prometheus.yml");
    std::fs::write(&config, text).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let child = Command::new(program)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    until("it listens", || {
        assert!(running.0.try_wait().unwrap().is_none(), "prometheus ended: are its files right?");
        std::net::TcpStream::connect(&address).ok()
    });
    until("it is ready", || {
        let head = std::panic::catch_unwind(|| query(&address, "/api/v1/query?query=1"));
        head.ok().filter(|answer| answer["status"] == "success")
    });
    let up = until("it has scraped", || sample(&address, "up").filter(|up| *up > 0.5));
    assert!((up - 1.0).abs() < f64::EPSILON);
    let submitted = "sum(recache_http_requests_total%7Broute=%22/v1/jobs%22,method=%22POST%22%7D)";
    let counted = until("the requests are counted", || sample(&address, submitted));
    assert!((counted - 3.0).abs() < f64::EPSILON, "{counted}");
    let ready = until("the verdict is there", || sample(&address, "recache_ready"));
    assert!((ready - 1.0).abs() < f64::EPSILON);
    let buckets = until("histograms are there", || {
        sample(&address, "count(recache_http_request_duration_seconds_bucket)")
    });
    assert!(buckets > 10.0);
    let rules = until("the rules are evaluated", || {
        let answer = query(&address, "/api/v1/rules");
        let rules = answer["data"]["groups"][0]["rules"].as_array()?.clone();
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    });
    for rule in &rules {
        assert_eq!((&rule["health"], &rule["state"]), (&"ok".into(), &"inactive".into()), "{rule}");
    }
    let targets = query(&address, "/api/v1/targets");
    assert_eq!(targets["data"]["activeTargets"][0]["lastError"], "");
}
