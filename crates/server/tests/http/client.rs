//! The typed client against a real server.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use recache_api::HealthStatus;
use recache_api::client::{Client, Error, EventStream, Options, StreamQuery, Streamed};
use recache_server::{Auth, Settings};
use recache_store::conformance::sqlite_database;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::world::World;

const SOON: Duration = Duration::from_secs(60);

fn client(address: SocketAddr) -> Client {
    Client::new(&format!("http://{address}"), Options::new(|| uuid::Uuid::new_v4().to_string())).unwrap()
}

/// Passes bytes on until it is dropped, with everything that goes through it.
struct Wire(JoinHandle<()>);

impl Wire {
    /// On this port, or one that is free.
    async fn lay(from: Option<SocketAddr>, to: SocketAddr) -> (Self, SocketAddr) {
        let from = from.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        let listener = TcpListener::bind(from).await.unwrap();
        let address = listener.local_addr().unwrap();
        let passing = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        (Self(passing), address)
    }

    async fn cut(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

async fn submit(world: &World, count: usize) -> BTreeSet<String> {
    let jobs: Vec<_> = (0..count).map(|_| json!({ "handler": "echo" })).collect();
    let answer = world.post("/v1/jobs/bulk", &json!({ "jobs": jobs }).to_string()).await.expect(200);
    let jobs = answer["jobs"].as_array().unwrap().iter();
    jobs.map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

/// The jobs of the next events.
async fn completed(events: &mut EventStream, count: usize) -> Vec<String> {
    let mut jobs = Vec::new();
    while jobs.len() < count {
        match timeout(SOON, events.next()).await.expect("it comes").unwrap().expect("it goes on") {
            Streamed::Event { event, .. } => jobs.push(event.job_id.unwrap()),
            Streamed::Gap(gap) => panic!("{gap:?}"),
        }
    }
    jobs
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_once_each_though_the_connection_is_cut() {
    for world in World::both().await {
        let (wire, address) = Wire::lay(None, world.address).await;
        let query = StreamQuery { types: Some("job.completed".to_owned()), ..StreamQuery::default() };
        let mut events = client(address).event_stream(&query);
        // What happens is told from when it is open; nothing happens yet.
        let opening = async {
            while events.place().is_none() {
                assert!(timeout(Duration::from_millis(500), events.next()).await.is_err());
            }
        };
        timeout(SOON, opening).await.expect("it is open");
        let mut expected = submit(&world, 20).await;
        let mut told = completed(&mut events, 20).await;
        wire.cut().await;
        expected.extend(submit(&world, 30).await);
        let (wire, _) = Wire::lay(Some(address), world.address).await;
        told.extend(completed(&mut events, 30).await);
        assert_eq!(told.len(), expected.len());
        assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), expected, "each once");

        // Another one goes on where this one is, to what has happened so far.
        let more = submit(&world, 5).await;
        let after = events.place();
        assert_eq!(completed(&mut events, 5).await.into_iter().collect::<BTreeSet<_>>(), more);
        let mut again = client(address).event_stream(&StreamQuery { after, seconds: Some(0), ..query });
        assert_eq!(completed(&mut again, 5).await.into_iter().collect::<BTreeSet<_>>(), more);
        assert_eq!(timeout(SOON, again.next()).await.unwrap().unwrap(), None);
        wire.cut().await;
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_says_why_it_is_refused() {
    let world =
        World::guarded(sqlite_database(), Settings::default(), Auth { api_keys: true, ..Auth::default() })
            .await;
    let refused = client(world.address).event_stream(&StreamQuery::default()).next().await;
    assert!(
        matches!(&refused, Err(Error::Refused(problem)) if problem.code == "unauthenticated"),
        "{refused:?}"
    );
    world.end().await;
    let world = World::sqlite().await;
    let wrong = StreamQuery { job: Some("none".to_owned()), ..StreamQuery::default() };
    let refused = client(world.address).event_stream(&wrong).next().await;
    assert!(
        matches!(&refused, Err(Error::Refused(problem)) if problem.code == "invalid_parameter"),
        "{refused:?}"
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verdict_and_figures_are_read() {
    let world = World::sqlite().await;
    let client = client(world.address);
    client.live().await.unwrap();
    let health = client.ready().await.unwrap();
    assert_eq!((health.status, health.store.as_str()), (HealthStatus::Ready, "sqlite"));
    let figures = client.metrics().await.unwrap();
    assert!(figures.contains("recache_http_requests_total") && figures.ends_with("# EOF\n"), "{figures}");
    world.end().await;
}
