//! Webhooks, and publishers over HTTP: the real command, a real receiver on loopback, both databases.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test says what it expects"
)]

mod receiver;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use recache_model::webhook::{Secret, is_signed_by};
use recache_store::conformance::{TestDatabase, postgres_database, sqlite_database};
use receiver::Receiver;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// A database, and the command over it.
struct Scene {
    folder: tempfile::TempDir,
    database: TestDatabase,
}

/// `recache serve`, killed when it is dropped.
struct Serving(Child);

impl Serving {
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Scene {
    fn over(database: TestDatabase) -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap(), database };
        scene.run(&["migrate"], 0);
        let template = json!({
            "name": "order", "version": "1.0.0",
            "steps": [{ "name": "place", "handler": { "callable": "echo" }, "publishes_events": ["order.placed"] }],
        });
        std::fs::write(scene.folder.path().join("order.json"), template.to_string()).unwrap();
        scene
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recache"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RECACHE") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(self.folder.path())
            .env("RECACHE_DATABASE", self.database.url())
            .env("RECACHE__SERVER__ADDRESS", "127.0.0.1:0")
            .env("RECACHE__ENGINE__POLL_MS", "100")
            .env("RECACHE__OUTBOUND__ALLOW_PRIVATE_ADDRESSES", "true")
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str], code: i32) -> (String, String) {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
        (out, err)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[arguments, &["-o", "json"]].concat(), 0).0).unwrap()
    }

    fn add(&self, name: &str, url: &str, more: &[&str]) -> Secret {
        let arguments = [&["webhook", "add", name, url, "--event", "*", "--plain"], more].concat();
        self.json(&arguments)["secret"].as_str().unwrap().parse().unwrap()
    }

    /// A workflow whose one step publishes `order.placed`.
    fn happen(&self) {
        self.run(&["run", "order.json", "--input", "{\"id\":7}"], 0);
    }

    fn serve(command: &mut Command) -> Serving {
        let mut child = Serving(command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
        let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
        while !lines.next().expect("it starts").unwrap().contains("ready, health on") {}
        // It must not stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        child
    }

    fn serving(&self) -> Serving {
        Self::serve(&mut self.command(&["serve"]))
    }

    fn delivery(&self, name: &str) -> Value {
        self.json(&["webhook", "deliveries", name])["deliveries"][0].clone()
    }

    /// Waits until the newest delivery is as it shall be.
    fn until(&self, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let delivery = self.delivery(name);
            if is_so(&delivery) {
                return delivery;
            }
            assert!(began.elapsed() < LIMIT, "in vain: {what}: {delivery}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn delivered(&self, name: &str) -> Value {
        self.until(name, "delivered", |delivery| delivery["state"] == "delivered")
    }
}

fn is_signed(request: &receiver::Request, secret: &Secret) -> bool {
    let header = |name: &str| request.header(name).unwrap();
    is_signed_by(
        secret,
        header("webhook-signature"),
        header("webhook-id"),
        header("webhook-timestamp").parse().unwrap(),
        request.body.as_bytes(),
    )
}

#[test]
fn webhook_is_delivered_signed_and_its_secret_rotates() {
    let (scene, receiver) = (Scene::over(sqlite_database()), Receiver::start());
    let first = scene.add("shop", &receiver.url("/status/204?token=hunter2"), &[]);
    let _serving = scene.serving();
    scene.happen();
    let delivery = scene.delivered("shop");
    let request = receiver.next();
    assert!(is_signed(&request, &first), "{request:?}");
    assert_eq!(request.header("webhook-id"), delivery["event_id"].as_str());
    assert_eq!(request.header("content-type"), Some("application/json"));
    let body: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!((&body["type"], &body["step"]), (&json!("order.placed"), &json!("place")));
    assert_eq!(body["data"]["input"], json!({ "id": 7 }));
    assert!(body["timestamp"].as_str().unwrap().ends_with('Z'), "{body}");

    let second: Secret =
        scene.json(&["webhook", "rotate", "shop"])["secret"].as_str().unwrap().parse().unwrap();
    scene.happen();
    let request = receiver.next();
    assert!(is_signed(&request, &first) && is_signed(&request, &second), "both sign for a time");
    let third = scene.json(&["webhook", "rotate", "shop", "--overlap", "0s"]);
    let third: Secret = third["secret"].as_str().unwrap().parse().unwrap();
    scene.delivered("shop");
    scene.happen();
    let request = receiver.next();
    assert!(is_signed(&request, &third) && !is_signed(&request, &second), "only the new one signs");

    // Secrets were shown once; an address is shown without its query.
    for arguments in [&["webhook", "show", "shop"][..], &["webhook", "list"], &["event", "subscribers"]] {
        for format in ["table", "json"] {
            let (out, err) = scene.run(&[arguments, &["-o", format]].concat(), 0);
            for secret in [&first, &second, &third] {
                assert!(!out.contains(&secret.reveal()) && !err.contains(&secret.reveal()), "{out}");
            }
            assert!(!out.contains("hunter2"), "{out}");
        }
    }
    // Made once more: the same id.
    let id = delivery["event_id"].as_str().unwrap();
    scene.run(&["webhook", "redeliver", "shop", "--event", id], 0);
    assert_eq!(receiver.next().header("webhook-id"), Some(id));
    let show = scene.run(&["event", "show", id], 0).0;
    assert!(show.contains("order.placed") && show.contains("completed"), "{show}");
}

#[test]
fn answers_decide_as_the_specification_says() {
    let (scene, receiver) = (Scene::over(sqlite_database()), Receiver::start());
    for (name, path) in [
        ("failing", "/status/500"),
        ("busy", "/busy"),
        ("moved", "/moved"),
        ("hangs", "/hangs"),
        ("slow", "/slow-body"),
        ("gone", "/status/410"),
    ] {
        scene.add(name, &receiver.url(path), &["--timeout", "1s"]);
    }
    let _serving = scene.serving();
    scene.happen();
    // A status is an answer, however long the body takes.
    let slow = scene.delivered("slow");
    assert_eq!(slow["status"], 200);
    let gone = scene.until("gone", "given up", |delivery| delivery["state"] == "dead");
    assert_eq!(gone["status"], 410);
    let shown = scene.json(&["webhook", "show", "gone"]);
    assert_eq!((&shown["state"], &shown["state_actor"]), (&json!("gone"), &json!("receiver")));
    let refused = scene.run(&["webhook", "resume", "gone"], 5).1;
    assert!(refused.contains("gone for good"), "{refused}");
    let hangs = scene.until("hangs", "tried", |delivery| !delivery["error"].is_null());
    assert!(hangs["error"].as_str().unwrap().contains("within 1000 ms"), "{hangs}");
    let moved = scene.until("moved", "tried", |delivery| !delivery["error"].is_null());
    assert_eq!((&moved["status"], &moved["state"]), (&json!(302), &json!("pending")));
    let busy = scene.until("busy", "tried", |delivery| !delivery["error"].is_null());
    assert_eq!(busy["status"], 429);
    let wait = |delivery: &Value| {
        let at = |name: &str| delivery[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        at("due_at").as_second() - at("created_at").as_second()
    };
    assert!(wait(&busy) >= 3_600, "Retry-After is honoured in full: {busy}");
    let failing = scene.until("failing", "tried twice", |delivery| delivery["attempt"] == 2);
    assert_eq!(failing["status"], 500);
    let event = failing["event_id"].as_str().unwrap();
    let tries = scene.json(&["webhook", "deliveries", "failing", "--event", event]);
    let tries = tries["deliveries"][0]["attempts"].as_array().unwrap().clone();
    assert!(
        !tries.is_empty() && tries[0]["status"] == 500 && tries[0]["error"] == "it answered 500",
        "{tries:?}"
    );
    assert!(receiver.paths().iter().all(|path| path != "/elsewhere"), "no redirect is followed");
    let of_failing = receiver.requests().into_iter().filter(|request| request.path == "/status/500");
    let ids: Vec<String> =
        of_failing.map(|request| request.header("webhook-id").unwrap().to_owned()).collect();
    assert!(ids.len() >= 2 && ids.iter().all(|id| id == event), "{ids:?}");
}

#[test]
fn private_addresses_are_not_reached_unless_allowed() {
    let (scene, receiver) = (Scene::over(sqlite_database()), Receiver::start());
    let url = receiver.url("/status/204");
    let refuse = |name: &str, url: &str| {
        let mut command = scene.command(&["webhook", "add", name, url, "--event", "*", "--plain"]);
        let output = command.env_remove("RECACHE__OUTBOUND__ALLOW_PRIVATE_ADDRESSES").output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refuse("a", &url).contains("not a public address"));
    assert!(refuse("a", "http://[::ffff:127.0.0.1]/").contains("not a public address"));
    let without_tls = scene.run(&["webhook", "add", "a", "http://example.com/", "--event", "*"], 2).1;
    assert!(without_tls.contains("--plain"), "{without_tls}");
    // Added while it was allowed, by number and by name; judged again when it is sent.
    scene.add("number", &url, &[]);
    scene.add("name", &url.replace("127.0.0.1", "localhost"), &[]);
    let mut command = scene.command(&["serve"]);
    command.env_remove("RECACHE__OUTBOUND__ALLOW_PRIVATE_ADDRESSES");
    let _serving = Scene::serve(&mut command);
    scene.happen();
    for name in ["number", "name"] {
        let tried = scene.until(name, "tried", |delivery| !delivery["error"].is_null());
        assert!(tried["error"].as_str().unwrap().contains("not a public address"), "{tried}");
    }
    assert!(receiver.requests().is_empty(), "nothing was connected to");
}

fn killed_while_it_delivers(database: TestDatabase) {
    let (scene, receiver) = (Scene::over(database), Receiver::start());
    scene.add("shop", &receiver.url("/first-hangs"), &["--timeout", "60s"]);
    let mut serving = scene.serving();
    scene.happen();
    let first = receiver.next();
    // The receiver has it, and has not answered: whoever sent it is killed in the middle.
    serving.kill();
    let _other = scene.serving();
    let second = receiver.next();
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"), "sent again, by the same id");
    assert_eq!(first.body, second.body);
    let delivery = scene.delivered("shop");
    assert_eq!(delivery["attempt"], 2);
    assert_eq!(receiver.requests().len(), 2);
}

#[test]
fn crash_between_send_and_record_sends_again_with_the_same_id() {
    killed_while_it_delivers(sqlite_database());
}

#[tokio::test]
async fn crash_between_send_and_record_sends_again_over_postgresql() {
    if let Some(database) = postgres_database().await {
        tokio::task::spawn_blocking(|| killed_while_it_delivers(database)).await.unwrap();
    }
}

#[test]
fn webhooks_are_paused_listed_and_removed() {
    let (scene, receiver) = (Scene::over(sqlite_database()), Receiver::start());
    scene.add("shop", &receiver.url("/status/204"), &["--namespace", "default"]);
    let again = scene.run(&["webhook", "add", "shop", &receiver.url("/"), "--event", "*", "--plain"], 5).1;
    assert!(again.contains("E-CONFLICT"), "{again}");
    let paused = scene.run(&["webhook", "pause", "shop", "--reason", "they move", "--actor", "ops"], 0).0;
    assert!(paused.contains("paused") && paused.contains("by ops: they move"), "{paused}");
    let _serving = scene.serving();
    scene.happen();
    let waiting = scene.until("shop", "it waits", |delivery| delivery["state"] == "pending");
    assert_eq!(waiting["attempt"], 0);
    assert!(scene.run(&["webhook", "list"], 0).0.contains("paused"));
    scene.run(&["webhook", "resume", "shop"], 0);
    scene.delivered("shop");
    let table = scene.run(&["webhook", "deliveries"], 0).0;
    assert!(table.contains("order.placed") && table.contains("delivered"), "{table}");
    assert!(scene.run(&["event", "list", "--type", "order.placed"], 0).0.contains("order.placed"));
    assert!(scene.run(&["event", "list", "--refused"], 0).1.contains("no events"));
    // Behind the only one there is nothing, and with one more a second page.
    let event = scene.json(&["event", "list"])["events"][0]["id"].as_str().unwrap().to_owned();
    assert!(scene.run(&["event", "list", "--before", &event], 0).1.contains("no events"));
    scene.happen();
    scene.until("shop", "a second one", |delivery| {
        delivery["state"] == "delivered" && delivery["event_id"] != event
    });
    let said = scene.run(&["event", "list", "--limit", "1"], 0).1;
    assert!(said.contains("there are more: --before evt_"), "{said}");
    let first = scene.json(&["webhook", "deliveries", "--limit", "1"]);
    let next = first["next"].as_str().unwrap();
    let second = scene.json(&["webhook", "deliveries", "--limit", "1", "--cursor", next]);
    assert_eq!((&second["deliveries"][0]["event_id"], &second["next"]), (&json!(event), &json!(null)));
    scene.run(&["webhook", "deliveries", "--cursor", "x"], 2);
    scene.run(&["webhook", "remove", "shop"], 0);
    let gone = scene.run(&["webhook", "show", "shop"], 3).1;
    assert!(gone.contains("E-NOT-FOUND") && gone.contains("recache"), "{gone}");
    scene.run(&["event", "show", "evt_00000000-0000-7000-8000-0000000000ff"], 3);
    let wrong = scene.run(&["webhook", "add", "x", "https://example.com/", "--event", "job.done"], 2).1;
    assert!(wrong.contains("`job.done`") && wrong.contains("job.failed"), "{wrong}");
}

/// A template whose step publishes what these publishers make of its end, stored.
fn publishing(scene: &Scene, publishers: &[&str]) {
    let events: Vec<Value> =
        publishers.iter().map(|name| json!({ "name": format!("by.{name}"), "publisher": name })).collect();
    let template = json!({
        "name": "made", "version": "1.0.0",
        "steps": [{ "name": "place", "handler": { "callable": "echo" }, "publishes_events": events }],
    });
    std::fs::write(scene.folder.path().join("made.json"), template.to_string()).unwrap();
    scene.run(&["template", "apply", "made.json"], 0);
}

fn submit(scene: &Scene) {
    scene.run(&["workflow", "submit", "default/made", "--input", "{\"id\":7}"], 0);
}

#[test]
fn publisher_over_http_makes_the_payload_that_a_webhook_is_sent() {
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let (scene, made, hooks) = (Scene::over(sqlite_database()), Receiver::start(), Receiver::start());
    scene.add("shop", &hooks.url("/status/204"), &[]);
    publishing(&scene, &["shop.payload", "text", "nobody"]);
    let mut command = scene.command(&["serve"]);
    let publishers = format!("shop.payload={}, text={}", made.url("/echo?token=hunter2"), made.url("/text"));
    command.env("RECACHE__HANDLERS__PUBLISHERS", publishers);
    command.env("RECACHE__HANDLERS__HTTP_SIGNING", format!("127.0.0.1={SECRET}"));
    let _serving = Scene::serve(&mut command);
    submit(&scene);

    let told = hooks.next();
    let body: Value = serde_json::from_str(&told.body).unwrap();
    assert_eq!(body["type"], "by.shop.payload");
    // The receiver answered what it was asked with.
    let asked = &body["data"];
    assert_eq!((&asked["outcome"], &asked["result"]["input"]), (&json!("completed"), &json!({ "id": 7 })));
    assert_eq!((&asked["type"], &asked["publisher"]), (&json!("by.shop.payload"), &json!("shop.payload")));
    for name in ["id", "job_id", "workflow_id", "step", "attempt", "correlation_id", "namespace", "timestamp"]
    {
        assert_eq!(asked[name], body[name], "{name}");
    }
    assert_eq!(asked["workflow_input"], json!({ "id": 7 }));
    let request = made.requests().into_iter().find(|request| request.path == "/echo").unwrap();
    assert_eq!(request.header("webhook-id"), told.header("webhook-id"));
    assert!(is_signed(&request, &SECRET.parse().unwrap()), "{request:?}");

    let refused = || scene.json(&["event", "list", "--refused"])["events"].clone();
    let began = Instant::now();
    while refused().as_array().is_none_or(Vec::is_empty) {
        assert!(began.elapsed() < LIMIT, "an answer that is no JSON is no payload");
        std::thread::sleep(Duration::from_millis(50));
    }
    let why = refused()[0]["problem"].as_str().unwrap().to_owned();
    assert!(why.contains("/text answered no JSON") && !why.contains("hunter2"), "{why}");
    let waiting = scene.json(&["event", "list", "--waiting"]);
    let waits_for: Vec<&Value> =
        waiting["events"].as_array().unwrap().iter().map(|event| &event["waits_for"]).collect();
    assert_eq!(waits_for, ["nobody"]);
    let table = scene.run(&["event", "list", "--waiting"], 0).0;
    assert!(table.contains("WAITS FOR") && table.contains("nobody"), "{table}");
    let shown = scene.run(&["event", "show", waiting["events"][0]["id"].as_str().unwrap()], 0).0;
    assert!(shown.contains("waits for") && shown.contains("nobody"), "{shown}");
    scene.run(&["event", "list", "--waiting", "--refused"], 2);
    assert_eq!(hooks.requests().len(), 1, "nobody is told of the others");
}

fn killed_while_a_payload_is_made(database: TestDatabase) {
    let (scene, made) = (Scene::over(database), Receiver::start());
    publishing(&scene, &["shop"]);
    let serve = || {
        let mut command = scene.command(&["serve"]);
        command.env("RECACHE__HANDLERS__PUBLISHERS", format!("shop={}", made.url("/first-hangs-echo")));
        Scene::serve(&mut command)
    };
    let mut serving = serve();
    submit(&scene);
    let first = made.next();
    // The step has ended, and its payload is not made: whoever was at it is killed in the middle.
    serving.kill();
    let states = scene.json(&["workflow", "list"]);
    assert_eq!(states["workflows"][0]["state"], "completed", "{states}");
    let _other = serve();
    let second = made.next();
    let id = |request: &receiver::Request| {
        let body: Value = serde_json::from_str(&request.body).unwrap();
        body["id"].clone()
    };
    assert_eq!(id(&first), id(&second), "asked again for the same event");
    let began = Instant::now();
    let events = loop {
        let events = scene.json(&["event", "list"])["events"].as_array().unwrap().clone();
        if events[0]["waits_for"].is_null() {
            break events;
        }
        assert!(began.elapsed() < LIMIT, "in vain: {events:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!((events.len(), &events[0]["id"]), (1, &id(&first)), "one event");
    assert_eq!(events[0]["data"]["result"]["input"], json!({ "id": 7 }));
    assert_eq!(made.requests().len(), 2);
}

#[test]
fn crash_between_a_steps_end_and_its_payload_loses_no_event() {
    killed_while_a_payload_is_made(sqlite_database());
}

#[tokio::test]
async fn crash_between_a_steps_end_and_its_payload_loses_no_event_over_postgresql() {
    if let Some(database) = postgres_database().await {
        tokio::task::spawn_blocking(|| killed_while_a_payload_is_made(database)).await.unwrap();
    }
}
