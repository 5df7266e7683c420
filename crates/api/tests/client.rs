//! The client against a server that does what bad networks do.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what it expects")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use recache_api::client::{Client, Error, JobsQuery, Options, StreamQuery, Streamed};
use recache_api::{Because, HealthStatus, SubmitJob};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Answers one connection after the other with these texts; an empty one hangs up without a word. Gives back what was asked.
async fn server(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut text, mut part) = (String::new(), [0; 4096]);
            while !text.contains("\r\n\r\n") || text.starts_with("POST") && !text.ends_with('}') {
                let read = stream.read(&mut part).await.unwrap();
                assert!(read > 0, "half a request: {text}");
                text.push_str(std::str::from_utf8(&part[..read]).unwrap());
            }
            asked.push(text);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    });
    (url, serving)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

fn problem(status: &str, code: &str, headers: &str) -> String {
    let number = status.split(' ').next().unwrap();
    let body = format!(
        r#"{{"type":"about:blank","title":"t","status":{number},"code":"{code}","detail":"d","remedy":null,"request_id":"r","errors":[]}}"#
    );
    answer(status, headers, &body)
}

fn client(url: &str, patience: Duration) -> Client {
    let made = AtomicUsize::new(0);
    let make_key = move || format!("key-{}", made.fetch_add(1, Ordering::SeqCst));
    Client::new(url, Options { token: Some("rck_t".to_owned()), patience, ..Options::new(make_key) }).unwrap()
}

fn header<'a>(request: &'a str, name: &str) -> &'a str {
    let line = request.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {request}")).split_once(':').unwrap().1.trim()
}

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn write_whose_answer_is_lost_is_repeated_with_its_key() {
    let submitted =
        r#"{"schema":"recache.job-submitted.v1","id":"job_1","existed":false,"replaced":false,"job":null}"#;
    let answers = vec![
        String::new(),
        problem("503 Service Unavailable", "outcome_unknown", "retry-after: 0\r\n"),
        problem("409 Conflict", "in_progress", "retry-after: 0\r\n"),
        answer("502 Bad Gateway", "", "<html>"),
        answer("201 Created", "", submitted),
    ];
    let (url, serving) = server(answers).await;
    let job: SubmitJob = serde_json::from_str(r#"{"handler":"echo"}"#).unwrap();
    let client = client(&url, PATIENCE);
    assert_eq!(client.submit_job(&job, Some(Duration::from_millis(1_500))).await.unwrap().id, "job_1");
    let asked = serving.await.unwrap();
    let keys: Vec<_> = asked.iter().map(|request| header(request, "idempotency-key")).collect();
    assert_eq!(keys, ["key-0"; 5]);
    assert_eq!(header(&asked[0], "authorization"), "Bearer rck_t");
    assert_eq!(header(&asked[0], "prefer"), "wait=2");
    let bodies: Vec<_> = asked.iter().map(|request| request.split_once("\r\n\r\n").unwrap().1).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0] && body.contains("echo")), "{bodies:?}");
}

#[tokio::test]
async fn refusal_that_would_be_the_same_again_is_told_at_once() {
    let answers = vec![
        problem("404 Not Found", "not_found", ""),
        problem("504 Gateway Timeout", "timed_out", ""),
        answer("302 Found", "location: http://127.0.0.1:9/\r\n", ""),
        answer("200 OK", "", "hello"),
    ];
    let (url, serving) = server(answers).await;
    let client = client(&url, PATIENCE);
    for code in ["not_found", "timed_out"] {
        match client.cancel_job("job_1", &Because::default()).await {
            Err(Error::Refused(problem)) => assert_eq!(problem.code, code),
            other => panic!("{other:?}"),
        }
    }
    for _ in 0..2 {
        let unread = client.jobs(&JobsQuery::default()).await;
        assert!(matches!(unread, Err(Error::Unreadable { .. })), "{unread:?}");
    }
    let asked = serving.await.unwrap();
    assert_eq!(header(&asked[1], "idempotency-key"), "key-1", "another call, another key");
    assert!(!asked[2].to_ascii_lowercase().contains("idempotency-key"), "a look needs none");
}

#[tokio::test]
async fn patience_has_an_end() {
    let busy = || problem("503 Service Unavailable", "overloaded", "retry-after: 3600\r\n");
    let (url, serving) = server(vec![busy(), busy()]).await;
    let refused = client(&url, Duration::from_millis(2_500)).jobs(&JobsQuery::default()).await;
    assert!(matches!(&refused, Err(Error::Refused(problem)) if problem.code == "overloaded"), "{refused:?}");
    assert_eq!(
        serving.await.unwrap().len(),
        2,
        "once more within 2.5 s, for all that the server would have waited longer"
    );

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let silent = client(&url, Duration::from_millis(100)).jobs(&JobsQuery::default()).await;
    assert!(
        matches!(&silent, Err(Error::Unreachable { reason, .. }) if reason.contains("refused")),
        "{silent:?}"
    );
}

/// A stream that breaks off after these blocks.
fn stream(blocks: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n{blocks}")
}

fn happened(place: i64) -> String {
    let event = format!(
        r#"{{"id":"evt_{place}","type":"job.completed","namespace":"default","at":"2026-01-01T00:00:00Z","job_id":null,"workflow_id":null,"step":null,"attempt":null,"outcome":null,"correlation_id":null,"data":{{}},"problem":null,"waits_for":null}}"#
    );
    format!("id: {place}\ndata: {event}\n\n")
}

fn has(request: &str, name: &str) -> bool {
    request.lines().any(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))
}

#[tokio::test]
async fn stream_that_breaks_off_goes_on_behind_what_was_read() {
    let open = "retry: 1\nid: 4\nevent: open\ndata: {\"place\":4}\n\n";
    let half = happened(9);
    let gap = r#"{"after":11,"through":12,"reason":"removed","detail":"too old"}"#;
    let answers = vec![
        // Half a block is none, and is asked for again.
        stream(&format!("{open}{}{}", happened(7), &half[..half.len() - 9])),
        String::new(),
        problem("503 Service Unavailable", "unavailable", "retry-after: 0\r\n"),
        stream(&format!("{}: alive\nid: 11\n\nevent: gap\ndata: {gap}\n\n", happened(9))),
        stream("event: end\ndata: {\"reason\":\"draining\",\"detail\":\"d\"}\n\n"),
        stream(&format!("{}event: end\ndata: {{\"reason\":\"over\",\"detail\":\"d\"}}\n\n", happened(13))),
    ];
    let (url, serving) = server(answers).await;
    let query = StreamQuery { types: Some("job.*".to_owned()), seconds: Some(60), ..StreamQuery::default() };
    let mut events = client(&url, PATIENCE).event_stream(&query);
    assert_eq!(events.place(), None);
    let (mut places, mut gaps) = (Vec::new(), Vec::new());
    while let Some(streamed) = events.next().await.unwrap() {
        match streamed {
            Streamed::Event { place, event } => {
                assert_eq!(event.id, format!("evt_{place}"));
                places.push(place);
            }
            Streamed::Gap(gap) => gaps.push((gap.after, gap.through)),
        }
    }
    assert_eq!((places, gaps, events.place()), (vec![7, 9, 13], vec![(11, 12)], Some(13)));
    assert_eq!(events.next().await.unwrap(), None, "over is over");
    let asked = serving.await.unwrap();
    assert!(asked[0].starts_with("GET /v1/events?seconds=60&types=job.* "), "{}", asked[0]);
    assert!(!has(&asked[0], "last-event-id") && header(&asked[0], "authorization") == "Bearer rck_t");
    let behind: Vec<_> = asked[1..].iter().map(|request| header(request, "last-event-id")).collect();
    assert_eq!(behind, ["7", "7", "7", "11", "11"]);
}

#[tokio::test]
async fn stream_that_is_refused_or_never_there_says_so() {
    let answers = vec![
        stream(
            "retry: 1\nid: 4\nevent: open\ndata: {}\n\nevent: end\ndata: {\"reason\":\"revoked\",\"detail\":\"d\"}\n\n",
        ),
        problem("401 Unauthorized", "unauthenticated", ""),
        problem("503 Service Unavailable", "overloaded", "retry-after: 3600\r\n"),
    ];
    let (url, serving) = server(answers).await;
    let mut events = client(&url, Duration::from_millis(500))
        .event_stream(&StreamQuery { after: Some(3), ..StreamQuery::default() });
    for code in ["unauthenticated", "overloaded"] {
        let refused = events.next().await;
        assert!(matches!(&refused, Err(Error::Refused(problem)) if problem.code == code), "{refused:?}");
    }
    let asked = serving.await.unwrap();
    assert!(
        asked[0].starts_with("GET /v1/events ") && header(&asked[0], "last-event-id") == "3",
        "{}",
        asked[0]
    );
    assert_eq!(header(&asked[1], "last-event-id"), "4");
}

#[tokio::test]
async fn verdict_of_a_server_that_is_not_ready_is_an_answer() {
    let verdict = r#"{"schema":"recache.health.v1","status":"not_ready","reasons":["no commit"],"degraded":[],"version":"1","store":"sqlite","checked_at":"2026-01-01T00:00:00Z"}"#;
    let answers = vec![
        answer("503 Service Unavailable", "content-type: application/json\r\n", verdict),
        problem(
            "503 Service Unavailable",
            "overloaded",
            "content-type: application/problem+json\r\nretry-after: 0\r\n",
        ),
        answer("200 OK", "content-type: application/json\r\n", &verdict.replace("not_ready", "ready")),
        answer("200 OK", "content-type: text/plain\r\n", "live"),
        answer("200 OK", "content-type: application/openmetrics-text\r\n", "a 1\n# EOF\n"),
    ];
    let (url, serving) = server(answers).await;
    let client = client(&url, PATIENCE);
    let health = client.ready().await.unwrap();
    assert_eq!((health.status, health.reasons), (HealthStatus::NotReady, vec!["no commit".to_owned()]));
    assert_eq!(
        client.ready().await.unwrap().status,
        HealthStatus::Ready,
        "a refusal is none: it asked again"
    );
    client.live().await.unwrap();
    assert_eq!(client.metrics().await.unwrap(), "a 1\n# EOF\n");
    let asked = serving.await.unwrap();
    let paths: Vec<_> = asked.iter().map(|request| request.split(' ').nth(1).unwrap()).collect();
    assert_eq!(paths, ["/health/ready", "/health/ready", "/health/ready", "/health/live", "/metrics"]);
}
