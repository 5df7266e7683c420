//! Memcached that is not there, dies, freezes, comes back, or is given up half way: nothing waits for it, nothing stays
//! broken, and no answer reaches another call.
#![cfg(feature = "cache-memcached")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "support/memcached.rs"]
mod server;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use recache_cache::config::MemcachedServer;
use recache_cache::provider::{Error, Item, Memcached, MemcachedSettings};
use recache_cache::{Key, KeyPrefix, Provider, SystemClock};
use server::{Front, Fronted, Server, connected, provider, until};
use tokio::time::{Instant, timeout};

const KEEP_FOR: Duration = Duration::from_mins(10);

/// What the cache gives one call.
const BUDGET: Duration = Duration::from_millis(50);

fn key(name: &str) -> Key {
    KeyPrefix::new("p").space("s").key([name])
}

fn item(bytes: &[u8]) -> Item {
    Item::from(Bytes::copy_from_slice(bytes))
}

/// Polls once, as a caller does who is cancelled afterwards.
fn poll_once<T>(call: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
    Pin::new(call).poll(&mut Context::from_waker(Waker::noop()))
}

async fn put(provider: &Memcached, name: &str) {
    provider.set(&key(name), item(name.as_bytes()), KEEP_FOR).await.unwrap();
}

async fn is_there(provider: &Memcached, name: &str) -> bool {
    let found = provider.get(&key(name)).await.unwrap();
    found.is_some_and(|item| item.bytes == name.as_bytes())
}

/// How long so many calls take that all fail at once.
async fn failing_calls(provider: &Memcached, count: u32) -> Duration {
    let began = Instant::now();
    for _ in 0..count {
        let error = provider.get(&key("k")).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }) && error.is_failure(), "{error}");
    }
    began.elapsed()
}

/// How many calls of a server that does not answer wait for it (about five, more where the machine is busy), with what the cache gives a call, and how many do not.
async fn slow_and_quick_calls(provider: &Memcached, count: u32) -> (u32, u32) {
    let (mut slow, mut quick) = (0, 0);
    for _ in 0..count {
        let began = Instant::now();
        let result = timeout(BUDGET, provider.get(&key("k"))).await;
        assert!(!matches!(result, Ok(Ok(_))));
        // Half of the budget: less may be this machine.
        if began.elapsed() > BUDGET / 2 {
            slow += 1;
        } else {
            quick += 1;
        }
    }
    (slow, quick)
}

#[tokio::test]
async fn absent_server_costs_nobody_anything_and_is_found_when_it_comes() {
    let server = Server::later();
    let provider = server.provider();
    until(async || provider.health().await.is_err()).await;
    let took = failing_calls(&provider, 1_000).await;
    assert!(took < Duration::from_millis(500), "{took:?} for 1000 calls");
    assert!(server.run());
    until(async || provider.set(&key("k"), item(b"k"), KEEP_FOR).await.is_ok()).await;
    assert!(is_there(&provider, "k").await);
}

#[test]
fn provider_can_be_made_before_there_is_a_runtime() {
    let server = Server::start(&[]);
    let provider = server.provider();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        put(&provider, "k").await;
        assert!(is_there(&provider, "k").await);
    });
    // Its connections die with that runtime, and it opens others in the next.
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        until(async || provider.get(&key("k")).await.is_ok()).await;
        assert!(is_there(&provider, "k").await);
    });
}

#[tokio::test]
async fn silent_server_is_waited_for_once_and_not_by_each_call() {
    let real = Server::start(&[]);
    let silent = Fronted::start(Front::Silent, real.address()).await;
    let provider = provider(&[silent.port], Arc::new(SystemClock), "p");
    let (slow, at_once) = slow_and_quick_calls(&provider, 1_000).await;
    assert!(slow <= 20, "{slow} slow, {at_once} at once");
}

#[tokio::test]
async fn connection_timeout_ends_an_attempt_and_the_next_one_succeeds() {
    let real = Server::start(&[]);
    let silent = Fronted::start(Front::Silent, real.address()).await;
    let port = silent.port;
    let settings = MemcachedSettings {
        servers: vec![MemcachedServer::new("127.0.0.1", port)],
        max_connections: 2,
        connection_timeout: Duration::from_millis(200),
        clock: Arc::new(SystemClock),
    };
    let provider = Memcached::new(settings, &KeyPrefix::new("p"));
    until(async || provider.health().await.is_err_and(|error| error.to_string().contains("within 200ms")))
        .await;
    drop(silent);
    tokio::task::yield_now().await;
    let _server = Server::start_on(port, &[]);
    until(async || provider.health().await.is_ok()).await;
}

#[tokio::test]
async fn restarted_server_is_used_again_at_once() {
    let server = Server::start(&[]);
    let provider = connected(server.provider()).await;
    for round in 0..5 {
        // Several connections, all of which die.
        let puts = (0..8).map(|number| {
            let name = format!("{number}");
            let provider = &provider;
            async move { put(provider, &name).await }
        });
        futures_util::future::join_all(puts).await;
        server.kill();
        if round % 2 == 1 {
            // Seen while it is away: then it takes as long as the pause between two tries.
            assert!(provider.get(&key("1")).await.is_err());
        }
        assert!(server.run());
        if round % 2 == 1 {
            let began = Instant::now();
            until(async || provider.get(&key("1")).await.is_ok()).await;
            assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
        }
        assert!(!is_there(&provider, "1").await, "it came back empty");
        put(&provider, "1").await;
        assert!(is_there(&provider, "1").await);
    }
}

#[tokio::test]
async fn calls_under_way_when_the_server_dies_fail_and_do_not_hang() {
    let server = Server::start(&[]);
    let provider = connected(server.provider()).await;
    put(&provider, "k").await;
    server.freeze();
    let k = key("k");
    let calls = (0..10).map(|_| provider.get(&k));
    let all = futures_util::future::join_all(calls);
    let kill = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        server.kill();
    };
    let (results, ()) = timeout(server::PATIENCE, futures_util::future::join(all, kill)).await.unwrap();
    assert!(results.iter().all(Result::is_err));
}

#[tokio::test]
async fn frozen_server_is_cut_off_after_the_first_calls_and_used_again_when_it_thaws() {
    let server = Server::start(&[]);
    let provider = connected(server.provider()).await;
    let k = key("k");
    let warm = (0..10).map(|_| provider.get(&k));
    futures_util::future::join_all(warm).await;
    put(&provider, "k").await;
    server.freeze();
    let (slow, at_once) = slow_and_quick_calls(&provider, 1_000).await;
    assert!(slow <= 20, "{slow} slow, {at_once} at once");
    server.thaw();
    let began = Instant::now();
    until(async || provider.get(&key("k")).await.is_ok()).await;
    assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
    assert!(is_there(&provider, "k").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_connections_are_opened_than_allowed() {
    let server = Server::start(&[]);
    for max_connections in [1, 4] {
        let settings = MemcachedSettings {
            servers: vec![server.as_configured()],
            max_connections,
            connection_timeout: Duration::from_secs(5),
            clock: Arc::new(SystemClock),
        };
        let before = server.stat("total_connections");
        let provider = connected(Memcached::new(settings, &KeyPrefix::new("p"))).await;
        let calls = (0..500).map(|number| {
            let provider = &provider;
            async move {
                let name = format!("{number}");
                put(provider, &name).await;
                assert!(is_there(provider, &name).await);
            }
        });
        futures_util::future::join_all(calls).await;
        // One is that of the question itself, and one was opened before any call asked for it.
        let opened = server.stat("total_connections") - before;
        assert!(opened <= u64::from(max_connections) + 2, "{opened} for {max_connections}");
        if max_connections > 1 {
            assert!(opened > 2, "they are used");
        }
    }
}

#[tokio::test]
async fn write_that_was_given_up_does_not_appear_later() {
    let server = Server::start(&[]);
    let provider = connected(server.provider()).await;
    for round in 0..300_u32 {
        let old = format!("old {round}");
        let new = format!("new {round}");
        let polls = round % 4;
        let k = key("k");
        let mut call = provider.set(&k, item(old.as_bytes()), KEEP_FOR);
        for _ in 0..=polls {
            if poll_once(&mut call).is_ready() {
                break;
            }
            if polls > 1 {
                tokio::task::yield_now().await;
            }
        }
        drop(call);
        let condemned = [key("k")];
        let mut gone = provider.delete(&condemned);
        let _ = poll_once(&mut gone);
        drop(gone);
        provider.set(&key("k"), item(new.as_bytes()), KEEP_FOR).await.unwrap();
        for _ in 0..5 {
            let found = provider.get(&key("k")).await.unwrap();
            assert_eq!(found.unwrap().bytes, new, "round {round}");
        }
    }
}

/// Calls that are dropped at random, beside others that are not. Every value names its key, so an answer that reaches
/// another call is seen.
#[expect(clippy::print_stdout, reason = "how many there were is worth knowing")]
async fn cancel_at_random(provider: Arc<Memcached>, cancels: u64) {
    const TASKS: u64 = 8;
    const KEYS: u64 = 50;
    let cancelled = Arc::new(AtomicU64::new(0));
    let answered = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (provider, cancelled, answered) =
                (Arc::clone(&provider), Arc::clone(&cancelled), Arc::clone(&answered));
            tokio::spawn(async move {
                // A xorshift generator: repeatable, and as random as is needed here.
                let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (task + 1);
                let mut draw = move |below: u64| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state % below
                };
                while cancelled.load(Ordering::Relaxed) < cancels {
                    let name = format!("{}", draw(KEYS));
                    let limit = Duration::from_micros(draw(400));
                    let own = |found: &Option<Item>, name: &str| {
                        found.as_ref().is_none_or(|item| {
                            item.bytes.split(|byte| *byte == b' ').next() == Some(name.as_bytes())
                        })
                    };
                    let value = format!("{name} {}", "x".repeat(usize::try_from(draw(3_000)).unwrap()));
                    let is_done = match draw(5) {
                        0 => {
                            let key = key(&name);
                            let call = provider.set(&key, item(value.as_bytes()), KEEP_FOR);
                            timeout(limit, call).await.is_ok()
                        }
                        1 => timeout(limit, provider.delete(std::slice::from_ref(&key(&name)))).await.is_ok(),
                        2 => {
                            let names: Vec<_> = (0..10).map(|_| draw(KEYS).to_string()).collect();
                            let keys: Vec<_> = names.iter().map(|name| key(name)).collect();
                            match timeout(limit, provider.get_many(&keys)).await {
                                Ok(Ok(found)) => {
                                    assert!(found.iter().zip(&names).all(|(found, name)| own(found, name)));
                                    true
                                }
                                other => other.is_ok(),
                            }
                        }
                        _ => match timeout(limit, provider.get(&key(&name))).await {
                            Ok(Ok(found)) => {
                                assert!(own(&found, &name), "an answer of another key");
                                true
                            }
                            other => other.is_ok(),
                        },
                    };
                    if is_done { &answered } else { &cancelled }.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    println!(
        "{} cancelled, {} answered",
        cancelled.load(Ordering::Relaxed),
        answered.load(Ordering::Relaxed)
    );
    assert!(answered.load(Ordering::Relaxed) > 0);
    // All of it still works, with every place in the pool.
    until(async || provider.health().await.is_ok()).await;
    let calls = (0..100).map(|number| {
        let provider = &provider;
        async move {
            let name = format!("after {number}");
            put(provider, &name).await;
            assert!(is_there(provider, &name).await);
        }
    });
    timeout(server::PATIENCE, futures_util::future::join_all(calls)).await.unwrap();
}

/// `RECACHE_TEST_CANCELS` says how many; 2000 without it, since each costs a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_calls_leave_no_answer_to_others() {
    let cancels = std::env::var("RECACHE_TEST_CANCELS").ok().map_or(2_000, |count| count.parse().unwrap());
    let server = Server::start(&[]);
    cancel_at_random(Arc::new(connected(server.provider()).await), cancels).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_calls_leave_no_answer_to_others_in_the_classic_dialect() {
    let server = Server::start(&[]);
    let old = Fronted::start(Front::Old, server.address()).await;
    let provider = connected(provider(&[old.port], Arc::new(SystemClock), "p")).await;
    cancel_at_random(Arc::new(provider), 500).await;
}

#[tokio::test]
async fn nonsense_is_a_broken_protocol_and_never_an_answer() {
    let real = Server::start(&[]);
    let nonsense = Fronted::start(Front::Nonsense, real.address()).await;
    let provider = provider(&[nonsense.port], Arc::new(SystemClock), "p");
    for _ in 0..20 {
        assert!(provider.get(&key("k")).await.unwrap_err().is_failure());
    }
}
