//! Streams of events, read by clients that are really connected.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use recache_model::ids::WorkflowId;
use recache_model::template::Template;
use recache_server::{Auth, Grant, Grants, Settings, make_key};
use recache_store::Word;
use recache_store::conformance::{postgres_database, sqlite_database};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::World;

const SOON: Duration = Duration::from_secs(20);

/// One block of a stream.
#[derive(Debug, Clone, Default, PartialEq)]
struct Block {
    id: Option<i64>,
    event: Option<String>,
    data: Value,
}

/// A client of a stream, by hand.
struct Client {
    stream: TcpStream,
    /// What was read and not yet looked at: raw, and taken out of its chunks.
    raw: Vec<u8>,
    text: String,
    head: Option<String>,
    is_over: bool,
    last_id: Option<i64>,
}

impl Client {
    async fn open(world: &World, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let mut text = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n", world.address);
        for (name, value) in headers {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        text.push_str("\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut client =
            Self { stream, raw: Vec::new(), text: String::new(), head: None, is_over: false, last_id: None };
        while client.head.is_none() {
            client.more().await;
        }
        client
    }

    fn status(&self) -> u16 {
        self.head.as_ref().unwrap().split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Reads something.
    async fn more(&mut self) {
        let mut buffer = vec![0; 64 * 1024];
        let count = timeout(SOON, self.stream.read(&mut buffer)).await.unwrap().unwrap_or(0);
        self.is_over |= count == 0;
        self.raw.extend_from_slice(&buffer[..count]);
        if self.head.is_none()
            && let Some(end) = self.raw.windows(4).position(|four| four == b"\r\n\r\n")
        {
            self.head = Some(String::from_utf8(self.raw.drain(..end + 4).collect()).unwrap());
        }
        if self.head.is_none() {
            assert!(!self.is_over, "no answer");
            return;
        }
        while let Some(end) = self.raw.windows(2).position(|two| two == b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&self.raw[..end]).unwrap(), 16).unwrap();
            if self.raw.len() < end + 2 + size + 2 {
                break;
            }
            let chunk: Vec<u8> = self.raw.drain(..end + 2 + size + 2).collect();
            self.text.push_str(std::str::from_utf8(&chunk[end + 2..end + 2 + size]).unwrap());
            if size == 0 {
                self.is_over = true;
                break;
            }
        }
    }

    /// The next block that says something; `None` at the end.
    async fn next(&mut self) -> Option<Block> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let text: String = self.text.drain(..end + 2).collect();
                let mut block = Block::default();
                let mut data = String::new();
                for line in text.lines() {
                    match line.split_once(": ") {
                        Some(("id", id)) => block.id = Some(id.parse().unwrap()),
                        Some(("event", name)) => block.event = Some(name.to_owned()),
                        Some(("data", more)) => data.push_str(more),
                        _ => {}
                    }
                }
                self.last_id = block.id.or(self.last_id);
                if !data.is_empty() {
                    block.data = serde_json::from_str(&data).unwrap();
                    return Some(block);
                }
            }
            if self.is_over {
                return None;
            }
            self.more().await;
        }
    }

    /// The next event itself.
    async fn event(&mut self) -> Block {
        loop {
            let block = self.next().await.expect("the stream goes on");
            if block.event.is_none() {
                return block;
            }
            assert_eq!(block.event.as_deref(), Some("open"), "{block:?}");
        }
    }

    async fn events(&mut self, count: usize) -> Vec<Block> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            events.push(self.event().await);
        }
        events
    }
}

async fn submit(world: &World, count: usize, namespace: &str, queue: &str) -> BTreeSet<String> {
    let jobs: Vec<_> =
        (0..count).map(|_| json!({ "handler": "echo", "namespace": namespace, "queue": queue })).collect();
    let mut ids = BTreeSet::new();
    for jobs in jobs.chunks(500) {
        let answer = world.post("/v1/jobs/bulk", &json!({ "jobs": jobs }).to_string()).await.expect(200);
        let jobs = answer["jobs"].as_array().unwrap();
        ids.extend(jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()));
    }
    ids
}

fn job_ids(events: &[Block]) -> Vec<String> {
    events.iter().map(|block| block.data["job_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_told_as_they_happen_through_the_clients_filter() {
    for world in World::both().await {
        let mut all = Client::open(&world, "/v1/events", &[]).await;
        let head = all.head.clone().unwrap();
        assert_eq!(all.status(), 200, "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        let opened = all.next().await.unwrap();
        assert_eq!((opened.event.as_deref(), opened.id), (Some("open"), opened.data["place"].as_i64()));
        let mut shop = Client::open(&world, "/v1/events?namespace=shop&types=job.completed", &[]).await;
        let mut queue = Client::open(&world, "/v1/events?types=job.*&queue=mail&handler=echo", &[]).await;
        let mut view = Client::open(&world, "/v1/events?view=shop/prices", &[]).await;

        submit(&world, 1, "other", "default").await;
        let mail = submit(&world, 1, "other", "mail").await;
        let ours = submit(&world, 1, "shop", "default").await;
        let defined = r#"{"handler":"counting","debounce_quiet_ms":0}"#;
        world.send("PUT", "/v1/views/shop/prices", &[("content-type", "application/json")], defined).await;
        world.post("/v1/views/shop/prices/touch", "{}").await.expect(200);

        let completed = shop.event().await;
        assert_eq!(completed.data["type"], "job.completed");
        assert_eq!(BTreeSet::from([completed.data["job_id"].as_str().unwrap().to_owned()]), ours);
        assert_eq!(completed.data["data"]["handler"], "echo");
        let of_queue = queue.events(2).await;
        let types: Vec<_> = of_queue.iter().map(|block| block.data["type"].clone()).collect();
        assert_eq!(types, ["job.running", "job.completed"]);
        assert_eq!(job_ids(&of_queue).into_iter().collect::<BTreeSet<_>>(), mail);
        let of_view = view.events(2).await;
        let types: BTreeSet<_> =
            of_view.iter().map(|block| block.data["type"].as_str().unwrap().to_owned()).collect();
        assert_eq!(types, ["view.published".to_owned(), "view.touched".to_owned()].into());
        // Two changes of each of the jobs and the build, and two of the view.
        let told = all.events(10).await;
        let ids: Vec<_> = told.iter().map(|block| block.id.unwrap()).collect();
        assert!(ids.windows(2).all(|two| two[0] < two[1]), "{ids:?}");
        let id = told[0].data["id"].as_str().unwrap();
        assert_eq!(world.get(&format!("/v1/events/kept/{id}")).await.expect(200)["id"], id);
        let kept = world.get("/v1/events/kept?type=view.touched").await.expect(200);
        assert_eq!(kept["events"].as_array().unwrap().len(), 1);
        pages_of_kept(&world).await;
        world.end().await;
    }
}

/// The list of kept events, read at once and page by page.
async fn pages_of_kept(world: &World) {
    let all = world.get("/v1/events/kept?limit=1000").await.expect(200);
    assert_eq!(all["next"], Value::Null);
    let all = all["events"].as_array().unwrap().clone();
    let (mut paged, mut path) = (Vec::new(), "/v1/events/kept?limit=3".to_owned());
    loop {
        let page = world.get(&path).await.expect(200);
        paged.extend(page["events"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        assert_eq!(
            world.get(&format!("/v1/events/kept?type=x&cursor={next}")).await.code(400),
            "invalid_parameter"
        );
        path = format!("/v1/events/kept?limit=3&cursor={next}");
    }
    assert_eq!(paged, all);
    let second = all[1]["id"].as_str().unwrap();
    let behind = world.get(&format!("/v1/events/kept?before={second}&limit=1000")).await.expect(200);
    assert_eq!(behind["events"].as_array().unwrap()[..], all[2..]);
    for wrong in ["before=evt_1", "before=evt_00000000-0000-7000-8000-0000000000ff", "cursor=x"] {
        let refused = world.get(&format!("/v1/events/kept?{wrong}")).await;
        assert_eq!(refused.code(400), "invalid_parameter", "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_comes_back_loses_nothing_and_hears_nothing_twice() {
    for world in World::both().await {
        let path = "/v1/events?types=job.completed";
        let mut client = Client::open(&world, path, &[]).await;
        let first = submit(&world, 30, "default", "default").await;
        let mut heard = client.events(10).await;
        let last = heard.last().unwrap().id.unwrap().to_string();
        // It hangs up in the middle, and more happens while it is away.
        drop(client);
        let more = submit(&world, 30, "default", "default").await;
        let mut client = Client::open(&world, path, &[("last-event-id", &last)]).await;
        heard.extend(client.events(50).await);
        let ids = job_ids(&heard);
        assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "none twice");
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), &first | &more);
        // The same in one go, and in the query instead of the header.
        let end = heard.last().unwrap().id.unwrap();
        let once = world.get(&format!("{path}&seconds=0&after=0")).await;
        assert_eq!(once.body.matches("\"type\":\"job.completed\"").count(), 60, "{}", once.body);
        assert!(once.body.contains("event: end"));
        let nothing = world.get(&format!("{path}&seconds=0&after={end}")).await;
        assert!(!nothing.body.contains("job.completed") && !nothing.body.contains("event: gap"));
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gap_is_told_and_never_passed_over_in_silence() {
    for world in World::both().await {
        let job = r#"{"handler":"echo"}"#;
        world.post("/v1/jobs", job).await.expect(201);
        let mut client = Client::open(&world, "/v1/events?types=job.completed", &[]).await;
        submit(&world, 1, "default", "default").await;
        let id = client.event().await.id.unwrap();
        let gap = async |path: String| {
            let mut client = Client::open(&world, &path, &[]).await;
            assert_eq!(client.next().await.unwrap().event.as_deref(), Some("open"));
            client.next().await.unwrap()
        };
        let unwritten = gap("/v1/events?types=job.completed&after=0&seconds=0".to_owned()).await;
        assert_eq!(
            (unwritten.event.as_deref(), &unwritten.data["reason"]),
            (Some("gap"), &json!("unwritten")),
            "{unwritten:?}"
        );
        let unknown = gap(format!("/v1/events?types=job.completed&after={}&seconds=0", id + 1_000)).await;
        assert_eq!(unknown.data["reason"], "unknown", "{unknown:?}");
        let maintenance = world.store.maintenance();
        let lead = maintenance.leader_take("test", uuid::Uuid::new_v4(), Duration::from_secs(60)).await;
        let lead = lead.unwrap().unwrap();
        assert!(world.store.events().events_remove(&lead, Duration::ZERO, 1_000).await.unwrap() > 0);
        let removed = gap("/v1/events?types=order.*&after=0&seconds=0".to_owned()).await;
        assert_eq!(removed.data["reason"], "removed", "{removed:?}");
        for bad in ["x", "-1", "1.5", "99999999999999999999", ""] {
            let answer = world.send("GET", "/v1/events?seconds=0", &[("last-event-id", bad)], "").await;
            assert_eq!(answer.code(400), "invalid_parameter", "{bad}");
        }
        for bad in ["types=job.nothing", "types=*x", "types=,", "seconds=-1", "after=-1", "job=x", "view=x/"]
        {
            assert_eq!(world.get(&format!("/v1/events?{bad}")).await.code(400), "invalid_parameter", "{bad}");
        }
        world.end().await;
    }
}

/// One reader of the store serves them all.
#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_clients_hear_everything_beside_one_that_takes_nothing() {
    for database in [Some(sqlite_database()), postgres_database().await].into_iter().flatten() {
        let settings = Settings {
            stream_stall_max: Duration::from_millis(500),
            stream_keep_alive: Duration::from_millis(200),
            ..Settings::default()
        };
        let world = World::over(database, settings).await;
        let mut clients = Vec::new();
        for _ in 0..300 {
            clients.push(Client::open(&world, "/v1/events?types=job.completed", &[]).await);
        }
        // It asks, and never reads.
        let mut deaf = TcpStream::connect(world.address).await.unwrap();
        let ask = format!("GET /v1/events HTTP/1.1\r\nhost: {}\r\n\r\n", world.address);
        deaf.write_all(ask.as_bytes()).await.unwrap();
        let expected = submit(&world, 200, "default", "default").await;
        let reading: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                tokio::spawn(async move {
                    let events = client.events(200).await;
                    (job_ids(&events), client)
                })
            })
            .collect();
        let mut clients = Vec::new();
        for reading in reading {
            let (ids, client) = reading.await.unwrap();
            assert_eq!(ids.len(), 200);
            assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), expected);
            clients.push(client);
        }
        let figures = world.get("/metrics").await.body;
        let figure = |name: &str| -> u64 {
            let line = figures.lines().find(|line| line.starts_with(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name}")).rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert_eq!(figure("recache_event_streams_replayed_total"), 0, "none had to ask the store itself");
        assert!(figure("recache_event_streams") >= 300);
        // Whoever listens is let go when the server stops.
        let ends: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                tokio::spawn(async move {
                    let mut last = None;
                    while let Some(block) = client.next().await {
                        last = Some(block);
                    }
                    last
                })
            })
            .collect();
        world.app.stop().cancel();
        for end in ends {
            let last = end.await.unwrap().expect("a last word");
            assert_eq!((last.event.as_deref(), &last.data["reason"]), (Some("end"), &json!("draining")));
        }
        drop(deaf);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_takes_nothing_is_cut_off() {
    let settings = Settings { stream_stall_max: Duration::from_millis(300), ..Settings::default() };
    let world = World::over(sqlite_database(), settings).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(world.address).await.unwrap();
    let ask = format!("GET /v1/events?types=job.* HTTP/1.1\r\nhost: {}\r\n\r\n", world.address);
    deaf.write_all(ask.as_bytes()).await.unwrap();
    let figure = async |name: &str| -> u64 {
        let figures = world.get("/metrics").await.body;
        let line = figures.lines().find(|line| line.starts_with(&format!("{name} "))).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{name}")).rsplit(' ').next().unwrap().parse().unwrap()
    };
    // Until the buffers of two sockets and ours are full.
    let ended = timeout(Duration::from_secs(60), async {
        while figure("recache_event_streams_slow_total").await == 0 {
            submit(&world, 500, "default", "default").await;
        }
    });
    ended.await.unwrap();
    assert_eq!(figure("recache_event_streams").await, 0);
    // What had been written arrives; then the connection is gone.
    let mut rest = Vec::new();
    let _ = timeout(SOON, deaf.read_to_end(&mut rest)).await.expect("it was hung up on");
    assert!(!rest.is_empty());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_limit_are_refused_and_a_place_comes_free() {
    let settings = Settings { streams_max: 2, ..Settings::default() };
    let world = World::over(sqlite_database(), settings).await;
    let first = Client::open(&world, "/v1/events", &[]).await;
    let second = Client::open(&world, "/v1/events", &[]).await;
    assert_eq!((first.status(), second.status()), (200, 200));
    let third = world.get("/v1/events").await;
    assert_eq!(third.code(503), "overloaded");
    assert_eq!(third.header("retry-after"), Some("5"));
    drop(first);
    let again = timeout(SOON, async {
        while world.get("/v1/events?seconds=0").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    again.await.unwrap();
    world.end().await;
}

async fn token(world: &World, name: &str, scopes: &[&str]) -> String {
    let grants = Grants::new(scopes.iter().map(|scope| scope.parse::<Grant>().unwrap()).collect());
    let random = |bytes: &mut [u8]| {
        for chunk in bytes.chunks_mut(16) {
            chunk.copy_from_slice(&uuid::Uuid::new_v4().as_bytes()[..chunk.len()]);
        }
    };
    let (token, key) = make_key(name, &grants, None, "test", random);
    world.store.api_keys().api_key_put(key).await.unwrap();
    format!("Bearer {token}")
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_shows_one_namespace_and_ends_with_its_key() {
    let settings = Settings { streams_per_caller_max: 1, ..Settings::default() };
    let auth = Auth { api_keys: true, jwt: None };
    let world = World::guarded(sqlite_database(), settings, auth).await;
    let mut bearers = BTreeMap::new();
    for (name, scopes) in [
        ("a", &["events:read@a"][..]),
        ("b", &["events:read@b"]),
        ("ab", &["events:read@a", "events:read@b"]),
        ("writer", &["jobs:write"]),
    ] {
        bearers.insert(name, token(&world, name, scopes).await);
    }
    let headers =
        |name: &str| [("authorization", bearers[name].clone()), ("content-type", "application/json".into())];
    let send = async |name: &str, method: &str, path: &str, body: &str| {
        let headers = headers(name);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        world.send(method, path, &headers, body).await
    };
    let open = async |name: &str, path: &str| {
        let headers = headers(name);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Client::open(&world, path, &headers).await
    };
    let mut a = open("a", "/v1/events?types=job.queued,job.completed").await;
    let mut b = open("b", "/v1/events?types=job.completed").await;
    assert_eq!(send("a", "GET", "/v1/events?namespace=b&seconds=0", "").await.code(403), "forbidden");
    assert_eq!(send("ab", "GET", "/v1/events?seconds=0", "").await.code(400), "invalid_parameter");
    assert_eq!(send("ab", "GET", "/v1/events?namespace=b&seconds=0", "").await.status, 200);
    let second = send("a", "GET", "/v1/events?seconds=0", "").await;
    assert_eq!(second.code(429), "too_many_requests");
    assert!(second.header("retry-after").is_some());
    for namespace in ["a", "b", "c"] {
        let body = json!({ "handler": "echo", "namespace": namespace }).to_string();
        send("writer", "POST", "/v1/jobs", &body).await.expect(201);
    }
    let of_a = a.event().await;
    assert_eq!((&of_a.data["namespace"], &of_a.data["type"]), (&json!("a"), &json!("job.completed")));
    assert_eq!(b.event().await.data["namespace"], "b");
    let id = of_a.data["id"].as_str().unwrap();
    assert_eq!(send("b", "GET", &format!("/v1/events/kept/{id}"), "").await.code(404), "not_found");

    let key = bearers["a"].strip_prefix("Bearer rck_").unwrap()[..16].to_owned();
    let word = Word::new("test", "leaked");
    world.store.api_keys().api_key_revoke(&key, word).await.unwrap();
    let last = timeout(Duration::from_secs(6), async {
        let mut last = None;
        while let Some(block) = a.next().await {
            last = Some(block);
        }
        last
    });
    let last = last.await.expect("it ends within the time that a revoked key has").unwrap();
    assert_eq!((last.event.as_deref(), &last.data["reason"]), (Some("end"), &json!("revoked")));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_wait_for_their_publishers_are_seen_waiting() {
    for world in World::both().await {
        let source = json!({
            "name": "t", "version": "1.0.0",
            "steps": [{
                "name": "a", "handler": { "callable": "echo" },
                "publishes_events": [{ "name": "e.made", "publisher": "nobody" }, "e.plain"],
            }],
        });
        let template = Template::parse(&source.to_string(), "t.json").unwrap();
        let id = world.engine.submit_workflow(WorkflowId::make(), &template, &json!({})).await.unwrap();
        timeout(SOON, world.engine.wait_for_workflow(id)).await.unwrap().unwrap();
        let kept = world.get("/v1/events/kept?waiting=true").await.expect(200);
        let events = kept["events"].as_array().unwrap();
        assert_eq!((events.len(), &events[0]["type"]), (1, &json!("e.made")), "{kept}");
        assert_eq!((&events[0]["waits_for"], &events[0]["data"]), (&json!("nobody"), &json!(null)));
        let all = world.get("/v1/events/kept").await.expect(200);
        assert_eq!(all["events"].as_array().unwrap().len(), 2, "{all}");
        let id = events[0]["id"].as_str().unwrap();
        assert_eq!(world.get(&format!("/v1/events/kept/{id}")).await.expect(200), events[0]);
        let both = world.get("/v1/events/kept?waiting=true&refused=true").await;
        assert_eq!(both.code(400), "invalid_parameter");
        let figures = world.get("/metrics").await.body;
        assert!(figures.lines().any(|line| line == "recache_events_unmade 1"), "{figures}");
        assert!(figures.contains("recache_events_unmade_oldest_seconds "), "{figures}");
        assert_eq!(world.get("/health/detailed").await.expect(200)["work"]["events_unmade"], json!(1));
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousand_streams_of_one_key_are_open_at_once_as_it_comes() {
    let auth = Auth { api_keys: true, jwt: None };
    let world = World::guarded(sqlite_database(), Settings::default(), auth).await;
    let bearer = token(&world, "page", &["events:read"]).await;
    let mut streams = Vec::new();
    for number in 0..1_000 {
        let stream = Client::open(&world, "/v1/events", &[("authorization", &bearer)]).await;
        assert_eq!(stream.status(), 200, "stream {number}");
        streams.push(stream);
    }
    let other = token(&world, "other", &["events:read", "jobs:read"]).await;
    let stream = Client::open(&world, "/v1/events", &[("authorization", &other)]).await;
    assert_eq!(stream.status(), 200, "one caller leaves room");
    assert_eq!(world.send("GET", "/v1/jobs", &[("authorization", &other)], "").await.status, 200);
    drop((stream, streams));
    world.end().await;
}
