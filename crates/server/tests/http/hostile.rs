use std::time::Duration;

use recache_server::Settings;
use recache_store::conformance::sqlite_database;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{Answer, World};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bodies_are_refused_with_everything_that_is_wrong() {
    let world = World::sqlite().await;
    let cases = [
        ("", 422, "invalid", vec!["/handler"]),
        ("{", 400, "malformed", vec![]),
        ("[]", 422, "invalid", vec![""]),
        (r#"{"handler":"a","handler":"b"}"#, 422, "invalid", vec!["/handler"]),
        (r#"{"handler":"a","input":{"x":1,"x":2}}"#, 422, "invalid", vec!["/input/x"]),
        (r#"{"handler":"","quue":1,"priority":"x"}"#, 422, "invalid", vec!["/handler", "/priority", "/quue"]),
        (r#"{"handler":"a","priority":99999999999999999999}"#, 422, "invalid", vec!["/priority"]),
        (
            r#"{"handler":"a","retry":{"attempts_max":0,"x":1}}"#,
            422,
            "invalid",
            vec!["/retry/attempts_max", "/retry/x"],
        ),
        (r#"{"handler":"a\u0000"}"#, 422, "invalid", vec!["/handler"]),
        (r#"{"handler":"a","due_at":"tomorrow"}"#, 422, "invalid", vec!["/due_at"]),
    ];
    for (body, status, code, pointers) in cases {
        let answer = world.post("/v1/jobs", body).await;
        assert_eq!(answer.code(status), code, "{body}");
        let mut found: Vec<_> = answer.json()["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["pointer"].as_str().unwrap().to_owned())
            .collect();
        found.sort();
        assert_eq!(found, pointers, "{body}: {answer:?}");
    }
    assert_eq!(world.get("/v1/jobs").await.expect(200)["jobs"], json!([]), "nothing was stored");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_other_forms_sizes_and_depths_are_refused() {
    let settings = Settings { body_bytes_max: 100_000, ..Settings::default() };
    let world = World::over(sqlite_database(), settings).await;
    let body = r#"{"handler":"a"}"#;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"] {
        let answer = world.send("POST", "/v1/jobs", &[("content-type", kind)], body).await;
        assert_eq!(answer.code(415), "unsupported_media_type", "{kind}");
    }
    assert_eq!(world.send("POST", "/v1/jobs", &[], body).await.code(415), "unsupported_media_type");
    let zipped = [("content-type", "application/json"), ("content-encoding", "gzip")];
    assert_eq!(world.send("POST", "/v1/jobs", &zipped, body).await.code(415), "unsupported_media_type");
    let deep = format!(r#"{{"handler":"a","input":{}{}}}"#, "[".repeat(70), "]".repeat(70));
    assert_eq!(world.post("/v1/jobs", &deep).await.code(422), "invalid");
    let bomb = format!(r#"{{"handler":"a","input":{}"#, "[".repeat(90_000));
    assert!(matches!(world.post("/v1/jobs", &bomb).await.status, 400 | 422));
    let large = format!(r#"{{"handler":"a","input":"{}"}}"#, "x".repeat(100_000));
    assert_eq!(world.post("/v1/jobs", &large).await.code(413), "too_large");
    let many = json!({ "jobs": vec![json!({ "handler": "a" }); 1_001] });
    assert_eq!(world.post("/v1/jobs/bulk", &many.to_string()).await.code(422), "invalid");
    assert_eq!(world.post("/v1/jobs", body).await.status, 201, "and others are not harmed");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_paths_methods_and_parameters_are_problems() {
    let world = World::sqlite().await;
    assert_eq!(world.get("/nothing").await.code(404), "not_found");
    let answer = world.send("DELETE", "/v1/jobs", &[], "").await;
    assert_eq!(answer.code(405), "method_not_allowed");
    assert!(answer.header("allow").unwrap().contains("GET"));
    for query in [
        "limit=-1",
        "limit=1000000000000000000",
        "limit=x",
        "limit=1&limit=2",
        "x=1",
        "state=gone",
        "cursor=AAAA",
    ] {
        let answer = world.get(&format!("/v1/jobs?{query}")).await;
        assert_eq!(answer.code(400), "invalid_parameter", "{query}");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_its_headers_and_the_request_s_id() {
    let world = World::sqlite().await;
    let answer = world.send("GET", "/v1/jobs", &[("x-request-id", "mine-1")], "").await;
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert!(answer.header("content-security-policy").unwrap().contains("default-src 'none'"));
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let forged = world.send("GET", "/nothing", &[("x-request-id", "a\"b c")], "").await;
    assert_ne!(forged.header("x-request-id"), Some("a\"b c"));
    assert_eq!(forged.code(404), "not_found");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn web_pages_of_others_are_kept_out() {
    let world = World::sqlite().await;
    let body = r#"{"handler":"a"}"#;
    let kind = ("content-type", "application/json");
    let evil = world.send("POST", "/v1/jobs", &[kind, ("origin", "http://evil.example")], body).await;
    assert_eq!(evil.code(403), "forbidden");
    let rebound = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(Answer::read(&world.raw(rebound.as_bytes()).await).code(421), "misdirected");
    let preflight = [("origin", "http://evil.example"), ("access-control-request-method", "POST")];
    let answer = world.send("OPTIONS", "/v1/jobs", &preflight, "").await;
    assert!(answer.status >= 400 && answer.header("access-control-allow-origin").is_none(), "{answer:?}");
    assert_eq!(world.get("/v1/jobs").await.expect(200)["jobs"], json!([]));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_that_two_readers_could_read_differently_hides_no_second_one() {
    let world = World::sqlite().await;
    let host = world.address;
    let hidden = format!("GET /v1/hidden HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let both = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: 6\r\n\
         transfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
    );
    let twice = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: {host}\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n123456{hidden}"
    );
    let odd = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"
    );
    for text in [both, twice, odd] {
        let answers = world.raw(text.as_bytes()).await;
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{text:?}: {answers:?}");
        // Of the first request, and not of the hidden one, whose path no route has. (Only the status and the code are looked at: an id
        // of a request may hold any digits.)
        let answer = Answer::read(&answers);
        assert!(matches!(answer.status, 400 | 422), "{text:?}: {answer:?}");
        if !answer.body.is_empty() {
            assert_ne!(answer.json()["code"], "not_found", "{text:?}: {answer:?}");
        }
    }
    for text in
        ["GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", "\0\0\0\0\r\n\r\n", "GET /a b HTTP/1.1\r\n\r\n"]
    {
        let answer = world.raw(text.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{text:?}: {answer:?}");
    }
    let many = "x: 1\r\n".repeat(200);
    let answer = world.raw(format!("GET /v1/jobs HTTP/1.1\r\nhost: {host}\r\n{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer:?}");
    let long = format!("GET /v1/jobs HTTP/1.1\r\nhost: {host}\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    assert!(world.raw(long.as_bytes()).await.starts_with("HTTP/1.1 431"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_ended_and_others_served() {
    let settings = Settings {
        headers_wait_max: Duration::from_millis(200),
        body_wait_max: Duration::from_millis(200),
        ..Settings::default()
    };
    let world = World::over(sqlite_database(), settings).await;
    let mut slow = TcpStream::connect(world.address).await.unwrap();
    slow.write_all(b"GET /v1/jobs HT").await.unwrap();
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{",
        world.address
    );
    let mut slow_body = TcpStream::connect(world.address).await.unwrap();
    slow_body.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(world.get("/v1/jobs").await.status, 200);
    let mut said = Vec::new();
    let _ = slow.read_to_end(&mut said).await;
    let mut said = vec![0; 4096];
    let read = slow_body.read(&mut said).await.unwrap();
    let answer = Answer::read(&String::from_utf8_lossy(&said[..read]));
    assert_eq!(answer.code(408), "too_slow");
    world.end().await;
}

/// More than the kernel holds for a connection on its own.
const LONG: usize = 24 * 1024 * 1024;

async fn with_a_long_answer(settings: Settings) -> World {
    let world = World::over(sqlite_database(), settings).await;
    let body = json!({ "handler": "none", "input": "x".repeat(LONG / 6) }).to_string();
    for _ in 0..6 {
        world.post("/v1/jobs", &body).await.expect(201);
    }
    world
}

/// Waits until so many connections are open beside the one that asks.
async fn connections(world: &World, expected: usize) {
    let line = format!("http_connections {}", expected + 1);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let metrics = world.get("/metrics").await.body;
        if metrics.lines().any(|found| found.ends_with(&line)) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "never {expected} connections:\n{metrics}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn ask(world: &World) -> TcpStream {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = format!("GET /v1/jobs HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", world.address);
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn read_all(mut stream: TcpStream, pause: Duration) -> usize {
    let (mut buffer, mut read) = (vec![0; 256 * 1024], 0);
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return read,
            Ok(count) => read += count,
        }
        tokio::time::sleep(pause).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_does_not_read_its_answer_is_hung_up_on() {
    let settings = Settings { answer_wait_max: Duration::from_secs(1), ..Settings::default() };
    let world = with_a_long_answer(settings).await;
    let held = [ask(&world).await, ask(&world).await];
    connections(&world, 2).await;
    // Without a word of theirs.
    connections(&world, 0).await;
    for stream in held {
        let read = read_all(stream, Duration::ZERO).await;
        assert!((1..LONG).contains(&read), "{read} bytes are none or all of it");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_reads_slowly_gets_all_of_its_answer() {
    let settings = Settings { answer_wait_max: Duration::from_secs(2), ..Settings::default() };
    let world = with_a_long_answer(settings).await;
    let began = tokio::time::Instant::now();
    let read = read_all(ask(&world).await, Duration::from_millis(20)).await;
    assert!(read > LONG, "{read} bytes are not all of it");
    assert!(began.elapsed() > Duration::from_secs(2), "it took longer than the limit of one part");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_and_requests_beyond_the_limit_are_told_to_come_back() {
    let settings = Settings { connections_max: 2, ..Settings::default() };
    let world = World::over(sqlite_database(), settings).await;
    let held =
        [TcpStream::connect(world.address).await.unwrap(), TcpStream::connect(world.address).await.unwrap()];
    // The listener takes connections in order: the third is one too many.
    let answer = Answer::read(&world.raw(b"").await);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    drop(held);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while world.get("/health/live").await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline);
    }
    world.end().await;

    let settings = Settings { requests_per_second_max: 1, ..Settings::default() };
    let world = World::over(sqlite_database(), settings).await;
    let mut refused = None;
    for _ in 0..10 {
        let answer = world.get("/v1/jobs").await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("the third is one too many");
    assert_eq!(refused.code(429), "too_many_requests");
    assert!(refused.header("retry-after").is_some());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_is_refused_with_a_time_to_come_back_and_the_queue_has_an_end() {
    let settings =
        Settings { requests_max: 1, admission_wait: Duration::from_secs(30), ..Settings::default() };
    let world = World::over(sqlite_database(), settings).await;
    let work = async || world.get("/health/detailed").await.json()["work"].clone();
    // Its body does not come: it has the only place.
    let mut holder = TcpStream::connect(world.address).await.unwrap();
    let head = "POST /v1/jobs HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 18\r\n\r\n";
    holder.write_all(head.as_bytes()).await.unwrap();
    while work().await["requests_working"] != 1 {}
    let mut queued = Vec::new();
    for _ in 0..16 {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream
            .write_all(b"GET /v1/jobs HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        queued.push(stream);
    }
    let figures = async || world.get("/metrics").await.body;
    while !figures().await.contains("recache_http_requests_queued 16") {}
    for (method, path) in [("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/nowhere")] {
        let refused = world.send(method, path, &[("content-type", "application/json")], "{}").await;
        assert_eq!(refused.code(503), "overloaded", "{method} {path}");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    let shed = figures().await;
    assert!(shed.contains("recache_http_requests_shed_total{kind=\"read\"} 2"), "{shed}");
    assert!(shed.contains("recache_http_requests_shed_total{kind=\"write\"} 1"), "{shed}");
    assert_eq!(world.get("/health/ready").await.status, 200, "whoever looks after it finds a place");
    // Nobody was forgotten who stood in the queue.
    holder.write_all(b"{\"handler\":\"none\"}").await.unwrap();
    for stream in queued {
        assert!(read_all(stream, Duration::ZERO).await > 0);
    }
    while work().await["requests_working"] != 0 {}
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_requests_take_no_place_at_work() {
    let settings =
        Settings { requests_max: 1, admission_wait: Duration::from_secs(10), ..Settings::default() };
    let world = World::over(sqlite_database(), settings).await;
    let job = world.post("/v1/jobs", r#"{"handler":"none"}"#).await.expect(201);
    let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    let waiting = world.send("GET", &path, &[("prefer", "wait=20")], "");
    let cancelling = async {
        loop {
            if world.get("/health/detailed").await.json()["work"]["requests_waiting"] == 1 {
                break;
            }
        }
        world.post(&format!("{path}/cancel"), "{}").await.expect(200);
    };
    let (waited, ()) = tokio::join!(waiting, cancelling);
    assert_eq!(waited.expect(200)["job"]["state"], "cancelled");
    world.end().await;
}
