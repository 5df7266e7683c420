//! A collector of our own takes what servers and workers tell, over a socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::served::{Running, Served, ask, recache, terminate};

const PARENT: &str = "b7ad6b7169203331";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Takes OTLP over HTTP, and keeps it.
struct Collector {
    endpoint: String,
    taken: Arc<Mutex<Vec<(String, String, Value)>>>,
}

/// A span as it was told, with the process that told it.
#[derive(Debug, Clone)]
struct Span {
    name: String,
    trace: String,
    id: String,
    parent: String,
    seconds: f64,
    begun: f64,
    role: String,
    pid: String,
    attributes: Value,
    links: Value,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn of(attributes: &Value, key: &str) -> String {
    let found = attributes.as_array().into_iter().flatten().find(|one| one["key"] == key);
    found
        .map(|one| one["value"].as_object().unwrap().values().next().unwrap().clone())
        .map_or_else(String::new, |value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let taken: Arc<Mutex<Vec<_>>> = Arc::default();
        let keeping = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let keeping = Arc::clone(&keeping);
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    loop {
                        let (mut path, mut length, mut authorization) = (String::new(), 0, String::new());
                        let mut line = String::new();
                        while reader.read_line(&mut line).unwrap_or(0) > 0 && line.trim() != "" {
                            let lower = line.to_ascii_lowercase();
                            if let Some(rest) = line.strip_prefix("POST ") {
                                rest.split(' ').next().unwrap().clone_into(&mut path);
                            } else if let Some(rest) = lower.strip_prefix("content-length:") {
                                length = rest.trim().parse().unwrap();
                            } else if lower.starts_with("authorization:") {
                                line[14..].trim().clone_into(&mut authorization);
                            }
                            line.clear();
                        }
                        if path.is_empty() {
                            return;
                        }
                        let mut body = vec![0; length];
                        reader.read_exact(&mut body).unwrap();
                        let body = serde_json::from_slice(&body).unwrap();
                        keeping.lock().unwrap().push((path, authorization, body));
                        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
                        reader.get_mut().write_all(answer.as_bytes()).unwrap();
                    }
                });
            }
        });
        Self { endpoint, taken }
    }

    fn bodies(&self, path: &str) -> Vec<Value> {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|(known, ..)| known == path).map(|(_, _, body)| body.clone()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let mut found = Vec::new();
        for body in self.bodies("/v1/traces") {
            let resource = &body["resourceSpans"][0];
            for span in resource["scopeSpans"][0]["spans"].as_array().unwrap() {
                let time = |name: &str| span[name].as_str().unwrap().parse::<f64>().unwrap() / 1e9;
                let (begun, ended) = (time("startTimeUnixNano"), time("endTimeUnixNano"));
                found.push(Span {
                    name: text(&span["name"]),
                    trace: text(&span["traceId"]),
                    id: text(&span["spanId"]),
                    parent: text(&span["parentSpanId"]),
                    seconds: ended - begun,
                    begun,
                    role: of(&resource["resource"]["attributes"], "recache.role"),
                    pid: of(&resource["resource"]["attributes"], "process.pid"),
                    attributes: span["attributes"].clone(),
                    links: span["links"].clone(),
                });
            }
        }
        found
    }

    /// Waits for a span.
    fn span(&self, what: impl Fn(&Span) -> bool) -> Span {
        let begun = Instant::now();
        loop {
            let spans = self.spans();
            if let Some(found) = spans.iter().find(|span| what(span)) {
                return found.clone();
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{spans:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn trace_goes_from_the_callers_request_over_the_wait_to_the_attempt_in_another_process() {
    let collector = Collector::start();
    let variables = [
        ("RECACHE__TELEMETRY__OTLP_ENDPOINT", collector.endpoint.as_str()),
        ("RECACHE__TELEMETRY__AUTHORIZATION", "Bearer canary-7"),
        ("RECACHE__TELEMETRY__FIGURES_EVERY_SECONDS", "1"),
        ("RECACHE__SERVER__BUILTIN_HANDLERS", "off"),
    ];
    let mut served = Served::start(&variables);
    let traceparent = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");
    let job = r#"{"handler":"sleep","input":{"seconds":0.4}}"#;
    served.post_with(&traceparent, "/v1/jobs", job);
    // Nobody does it yet: it waits.
    std::thread::sleep(Duration::from_millis(300));
    let server = format!("http://{}", served.address);
    let mut worker = Running(recache(&["worker", "--server", &server], &variables).spawn().unwrap());

    let attempt = collector.span(|span| span.name == "attempt" && span.trace == TRACE);
    let request = collector.span(|span| span.name == "request" && span.trace == TRACE);
    let wait = collector.span(|span| span.name == "wait" && span.trace == TRACE);
    assert_eq!(request.parent, PARENT);
    assert_eq!(
        (of(&request.attributes, "route").as_str(), of(&request.attributes, "status").as_str()),
        ("/v1/jobs", "201")
    );
    assert_eq!((attempt.parent.as_str(), wait.parent.as_str()), (request.id.as_str(), request.id.as_str()));
    assert_eq!(of(&attempt.attributes, "handler"), "sleep");
    assert_eq!(
        (request.role.as_str(), wait.role.as_str(), attempt.role.as_str()),
        ("serve", "serve", "worker")
    );
    assert_ne!(request.pid, attempt.pid);
    assert!((0.4..5.0).contains(&attempt.seconds), "{attempt:?}");
    assert!((0.25..20.0).contains(&wait.seconds), "{wait:?}");
    assert!(request.seconds < 5.0 && request.begun <= wait.begun + wait.seconds);
    assert!(wait.begun + wait.seconds <= attempt.begun + 0.1, "{wait:?} {attempt:?}");
    // A request of a caller that traces nothing begins a trace of its own.
    served.get("/v1/jobs");
    let alone = collector.span(|span| span.name == "request" && of(&span.attributes, "method") == "GET");
    assert!(alone.parent.is_empty() && alone.trace != TRACE && alone.trace.len() == 32);

    assert_eq!(terminate(&mut worker), Some(0));
    // What is told last arrives although the process ends: no second has passed since.
    served.post_with(&traceparent.replace("0af7", "ffff"), "/v1/jobs", r#"{"handler":"none"}"#);
    assert_eq!(served.terminate(), Some(0));
    let last = collector.spans();
    assert!(last.iter().any(|span| span.trace.starts_with("ffff")), "{last:#?}");

    let lines: Vec<Value> = collector.bodies("/v1/logs");
    let lines = Value::from(lines).to_string();
    assert!(
        lines.contains("stopping: no new work") && lines.contains("\"severityText\":\"INFO\""),
        "{lines}"
    );
    let figures = Value::from(collector.bodies("/v1/metrics")).to_string();
    for name in ["recache_http_requests", "recache_http_request_duration_seconds", "recache_ready"] {
        assert!(figures.contains(&format!("\"name\":\"{name}\"")), "{figures}");
    }
    let taken = collector.taken.lock().unwrap();
    assert!(taken.iter().all(|(_, authorization, _)| authorization == "Bearer canary-7"));
    let bodies = format!("{:?}", taken.iter().map(|(_, _, body)| body).collect::<Vec<_>>());
    let said = served.said.lock().unwrap().join("\n");
    assert!(!bodies.contains("canary-7") && !said.contains("canary-7"));
}

/// Steps that a decision and a list make later, the workflow that does a step, and ticks of a schedule.
#[test]
fn all_steps_of_a_workflow_belong_to_the_trace_of_its_submit_and_a_tick_begins_one() {
    let collector = Collector::start();
    let mut served = Served::start(&[("RECACHE__TELEMETRY__OTLP_ENDPOINT", collector.endpoint.as_str())]);
    let put = |path: &str, kind: &str, body: &str| {
        let (address, length) = (&served.address, body.len());
        let head = format!("PUT {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
        ask(address, &format!("{head}content-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"));
    };
    let inner = "name: inner\nversion: 1.0.0\nsteps:\n  - { name: deep, handler: { callable: echo } }\n";
    let outer = "name: outer\nversion: 1.0.0\nsteps:\n\
                 \u{20} - { name: each, handler: { callable: echo }, for_each: \"[1, 2]\" }\n\
                 \u{20} - { name: below, workflow: { name: inner }, depends_on: [each] }\n\
                 \u{20} - { name: last, handler: { callable: echo }, depends_on: [below] }\n";
    put("/v1/templates", "application/yaml", inner);
    put("/v1/templates", "application/yaml", outer);
    let traced = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\nprefer: wait=20\r\n");
    let done = served.post_with(&traced, "/v1/workflows", r#"{"template":"outer"}"#);
    let done: Value = serde_json::from_str(&done).unwrap();
    assert_eq!(done["workflow"]["state"], "completed", "{done}");
    let request = collector.span(|span| span.name == "request" && span.trace == TRACE);
    // Two runs of the list, the other workflow's step, and the last one: each by its handler.
    let begun = Instant::now();
    let attempts = loop {
        let mut spans = collector.spans();
        spans.retain(|span| {
            span.name == "attempt" && span.trace == TRACE && of(&span.attributes, "handler") == "echo"
        });
        if spans.len() >= 4 {
            break spans;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{spans:#?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(attempts.len(), 4, "{attempts:#?}");
    assert!(attempts.iter().all(|span| span.parent == request.id), "{attempts:#?}");

    let schedule = r#"{"cron":"* * * * * *","handler":"echo"}"#;
    put("/v1/schedules/default/pulse", "application/json", schedule);
    let tick = collector.span(|span| span.name == "tick");
    assert!(tick.parent.is_empty() && tick.trace != TRACE, "{tick:?}");
    let attempt = collector.span(|span| span.name == "attempt" && span.trace == tick.trace);
    assert_eq!(attempt.parent, tick.id);
    assert_eq!(of(&attempt.attributes, "job_id"), of(&tick.attributes, "job_id"));
    assert_eq!(served.terminate(), Some(0));
}

/// What is made later, by whoever notices: it goes on in the trace of the call that it follows from, and names the others.
#[test]
fn callbacks_of_a_batch_and_builds_of_a_view_belong_to_the_traces_of_the_calls_behind_them() {
    const OTHER: &str = "0af7651916cd43dd8448eb211c80319d";
    let collector = Collector::start();
    let mut served = Served::start(&[("RECACHE__TELEMETRY__OTLP_ENDPOINT", collector.endpoint.as_str())]);
    let traced = |trace: &str| format!("traceparent: 00-{trace}-{PARENT}-01\r\n");
    let asked = |trace: &'static str, route: &'static str| {
        move |span: &Span| {
            span.name == "request" && span.trace == trace && of(&span.attributes, "route") == route
        }
    };
    let batch = r#"{"action":"import","expected":1,"on_finish":{"handler":"echo"}}"#;
    let batch: Value = serde_json::from_str(&served.post_with(&traced(TRACE), "/v1/batches", batch)).unwrap();
    let member = format!(r#"{{"handler":"echo","batch_id":{}}}"#, batch["batch"]["id"]);
    served.post_with(&traced(OTHER), "/v1/jobs", &member);
    let made = collector.span(asked(TRACE, "/v1/batches"));
    let submitted = collector.span(asked(OTHER, "/v1/jobs"));
    let attempt = collector.span(|span| span.name == "attempt" && span.trace == OTHER);
    assert_eq!(attempt.parent, submitted.id, "a member is in the trace of the call that made it");
    let callback = collector.span(|span| span.name == "callback");
    assert_eq!((callback.trace.as_str(), &callback.parent), (TRACE, &made.id), "{callback:?}");
    assert_eq!(callback.links, serde_json::json!([{ "traceId": OTHER, "spanId": submitted.id }]));
    let attempt = collector.span(|span| span.name == "attempt" && span.parent == callback.id);
    assert_eq!(attempt.trace, TRACE);

    let view = r#"{"handler":"echo","debounce_quiet_ms":2000}"#;
    let (address, length) = (&served.address, view.len());
    let head = format!("PUT /v1/views/shop/prices HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    ask(address, &format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{view}"));
    for trace in [OTHER, TRACE] {
        served.post_with(&traced(trace), "/v1/views/shop/prices/touch", "{}");
    }
    let route = "/v1/views/{namespace}/{key}/touch";
    let (first, last) = (collector.span(asked(OTHER, route)), collector.span(asked(TRACE, route)));
    let build = collector.span(|span| span.name == "build");
    assert_eq!((build.trace.as_str(), &build.parent), (TRACE, &last.id), "{build:?}");
    assert_eq!(build.links, serde_json::json!([{ "traceId": OTHER, "spanId": first.id }]));
    collector.span(|span| span.name == "attempt" && span.parent == build.id);
    assert_eq!(served.terminate(), Some(0));
}

#[test]
fn collector_that_is_away_slows_nothing_and_is_told_of_once() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let mut served = Served::start(&[
        ("RECACHE__TELEMETRY__OTLP_ENDPOINT", endpoint.as_str()),
        ("RECACHE__TELEMETRY__FIGURES_EVERY_SECONDS", "1"),
    ]);
    let begun = Instant::now();
    let traceparent = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");
    for _ in 0..200 {
        served.post_with(&traceparent, "/v1/jobs", r#"{"handler":"echo"}"#);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // Long enough for several tries.
    std::thread::sleep(Duration::from_secs(4).saturating_sub(begun.elapsed()));
    let stopping = Instant::now();
    assert_eq!(served.terminate(), Some(0));
    assert!(stopping.elapsed() < Duration::from_secs(10));
    let said = served.said.lock().unwrap().clone();
    let told: Vec<_> = said.iter().filter(|line| line.contains("the collector cannot be told")).collect();
    assert_eq!(told.len(), 1, "{said:#?}");
    assert!(told[0].contains(&endpoint), "{told:?}");
}

#[test]
fn nothing_is_told_where_no_collector_is_configured() {
    let mut served = Served::start(&[]);
    let answer = served.post_with(
        &format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n"),
        "/v1/jobs",
        r#"{"handler":"echo"}"#,
    );
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let job = served.get(&format!("/v1/jobs/{}", answer["id"].as_str().unwrap()));
    let job: Value = serde_json::from_str(&job).unwrap();
    // The caller's trace is carried on all the same.
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    assert_eq!(job["job"]["trace_context"], traceparent);
    let template = r#"{"namespace":"default","name":"t","version":"1.0.0","steps":[{"name":"s","handler":{"callable":"echo"}}]}"#;
    let length = template.len();
    let put = format!("PUT /v1/templates HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", served.address);
    let put = format!("{put}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{template}");
    ask(&served.address, &put);
    let workflow =
        served.post_with(&format!("traceparent: {traceparent}\r\n"), "/v1/workflows", r#"{"template":"t"}"#);
    let workflow: Value = serde_json::from_str(&workflow).unwrap();
    let steps = served.get(&format!("/v1/workflows/{}/steps", workflow["id"].as_str().unwrap()));
    let steps: Value = serde_json::from_str(&steps).unwrap();
    let step = served.get(&format!("/v1/jobs/{}", steps["steps"][0]["job_id"].as_str().unwrap()));
    assert!(step.contains(&traceparent), "{step}");
    assert_eq!(served.terminate(), Some(0));
}
