//! What processes do together on memcached, beyond the conformance suite: leases on entries that stand, epochs that are
//! lost, numbers at their ends.
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

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use recache_cache::epochs::Slot;
use recache_cache::provider::{Entry, Error, Item, Lease, Leased, Memcached};
use recache_cache::{Key, KeyPrefix, Provider, SystemClock};
use server::{Front, Fronted, Server, connected, provider, until};

const KEEP_FOR: Duration = Duration::from_mins(10);
const LEASE_FOR: Duration = Duration::from_mins(1);

fn key(name: &str) -> Key {
    KeyPrefix::new("p").space("s").key([name])
}

fn item(bytes: &[u8]) -> Item {
    Item::from(Bytes::copy_from_slice(bytes))
}

async fn put(provider: &Memcached, bytes: &[u8]) {
    provider.set(&key("k"), item(bytes), KEEP_FOR).await.unwrap();
}

async fn read(provider: &Memcached) -> Option<Vec<u8>> {
    provider.get(&key("k")).await.unwrap().map(|item| item.bytes.to_vec())
}

async fn ask(provider: &Memcached, lease_for: Duration, seen: Option<&[u8]>) -> Leased {
    let token = uuid::Uuid::new_v4().as_u128();
    provider.leases().unwrap().take(&key("k"), token, lease_for, seen.map(item).as_ref()).await.unwrap()
}

async fn take(provider: &Memcached, lease_for: Duration, seen: Option<&[u8]>) -> Lease {
    match ask(provider, lease_for, seen).await {
        Leased::Granted(lease) => lease,
        other => panic!("expected a lease, got {other:?}"),
    }
}

async fn fill(provider: &Memcached, lease: &Lease, bytes: &[u8]) -> bool {
    provider.leases().unwrap().fill(&key("k"), lease, item(bytes), KEEP_FOR).await.unwrap()
}

/// Two processes on one server, for each dialect.
async fn both_dialects() -> Vec<(Memcached, Memcached, Server, Option<Fronted>)> {
    let pair = async |port| {
        let one = connected(provider(&[port], Arc::new(SystemClock), "p")).await;
        (one, connected(provider(&[port], Arc::new(SystemClock), "p")).await)
    };
    let server = Server::start(&[]);
    let behind = Server::start(&[]);
    let old = Fronted::start(Front::Old, behind.address()).await;
    let (meta, classic) = (pair(server.port()).await, pair(old.port).await);
    vec![(meta.0, meta.1, server, None), (classic.0, classic.1, behind, Some(old))]
}

#[tokio::test]
async fn placeholder_is_never_served_and_never_taken_for_a_value() {
    for (one, other, _server, _front) in both_dialects().await {
        let lease = take(&one, LEASE_FOR, None).await;
        for provider in [&one, &other] {
            assert_eq!(read(provider).await, None);
            assert!(provider.get_many(&[key("k")]).await.unwrap()[0].is_none());
            assert_eq!(provider.atomics().unwrap().read(&key("k")).await.unwrap(), None);
            for seen in [&b""[..], &lease.token.to_le_bytes()] {
                assert!(!provider.replace(&key("k"), &item(seen), item(b"x"), KEEP_FOR).await.unwrap());
            }
            assert!(matches!(ask(provider, LEASE_FOR, None).await, Leased::Held));
            assert!(matches!(ask(provider, LEASE_FOR, Some(b"")).await, Leased::Held));
        }
        assert!(fill(&one, &lease, b"").await);
        assert_eq!(read(&other).await.unwrap(), b"", "an empty value is a value");
    }
}

#[tokio::test]
async fn entry_stays_readable_while_one_refreshes_it() {
    for (one, other, server, _front) in both_dialects().await {
        put(&one, b"old").await;
        let lease = take(&one, LEASE_FOR, Some(b"old")).await;
        assert_eq!(read(&other).await.unwrap(), b"old");
        assert!(matches!(ask(&other, LEASE_FOR, Some(b"old")).await, Leased::Held));
        assert!(matches!(ask(&other, LEASE_FOR, None).await, Leased::Present(there) if there.bytes == "old"));
        let ttl = server.ttl(key("k").as_str()).unwrap();
        assert!((598..=601).contains(&ttl), "the lease does not change its time: {ttl}");
        assert!(fill(&one, &lease, b"new").await);
        assert_eq!(read(&other).await.unwrap(), b"new");
        // The lease is over: the next is granted at once.
        assert!(
            matches!(ask(&other, LEASE_FOR, Some(b"old")).await, Leased::Present(there) if there.bytes == "new")
        );
        take(&other, LEASE_FOR, Some(b"new")).await;
    }
}

#[tokio::test]
async fn set_and_delete_beat_a_refresh_and_let_the_next_one_in() {
    for (one, other, _server, _front) in both_dialects().await {
        put(&one, b"old").await;
        let lease = take(&one, LEASE_FOR, Some(b"old")).await;
        put(&other, b"set").await;
        assert!(!fill(&one, &lease, b"late").await);
        assert_eq!(read(&one).await.unwrap(), b"set");

        let lease = take(&one, LEASE_FOR, Some(b"set")).await;
        // The same bytes once more are a write all the same.
        put(&other, b"set").await;
        assert!(!fill(&one, &lease, b"late").await);

        let lease = take(&one, LEASE_FOR, Some(b"set")).await;
        other.delete(&[key("k")]).await.unwrap();
        assert!(!fill(&one, &lease, b"late").await);
        assert_eq!(read(&one).await, None);

        put(&one, b"old").await;
        let lease = take(&one, LEASE_FOR, Some(b"old")).await;
        let entry = Entry { key: key("k"), item: item(b"many"), keep_for: KEEP_FOR };
        other.set_many(vec![entry]).await.unwrap();
        assert!(!fill(&one, &lease, b"late").await);
        let lease = take(&other, LEASE_FOR, Some(b"many")).await;
        one.leases().unwrap().release(&key("k"), &lease).await.unwrap();
        take(&one, LEASE_FOR, Some(b"many")).await;
    }
}

#[tokio::test]
async fn refresh_past_its_time_is_refused_with_and_without_another_holder() {
    for (one, other, _server, _front) in both_dialects().await {
        put(&one, b"old").await;
        let late = take(&one, Duration::from_millis(900), Some(b"old")).await;
        until(async || !matches!(ask(&other, Duration::from_millis(1), Some(b"old")).await, Leased::Held))
            .await;
        // That one has let it run out as well. The entry is as it was, and nobody holds a lease.
        until(async || {
            let lease = ask(&other, LEASE_FOR, Some(b"old")).await;
            if let Leased::Granted(lease) = &lease {
                other.leases().unwrap().release(&key("k"), lease).await.unwrap();
            }
            matches!(lease, Leased::Granted(_))
        })
        .await;
        assert!(!fill(&one, &late, b"late").await, "nobody else holds it");
        let next = take(&other, LEASE_FOR, Some(b"old")).await;
        assert!(!fill(&one, &late, b"late").await, "another one holds it");
        one.leases().unwrap().release(&key("k"), &late).await.unwrap();
        assert!(matches!(ask(&one, LEASE_FOR, Some(b"old")).await, Leased::Held));
        assert!(fill(&other, &next, b"next").await);
        assert_eq!(read(&one).await.unwrap(), b"next");
    }
}

#[tokio::test]
async fn too_large_a_fill_is_refused_and_ends_the_lease() {
    for (one, other, _server, _front) in both_dialects().await {
        let lease = take(&one, LEASE_FOR, None).await;
        let large = item(&vec![0; 2 << 20]);
        let error = one.leases().unwrap().fill(&key("k"), &lease, large, KEEP_FOR).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }));
        assert_eq!(read(&other).await, None);
        take(&other, LEASE_FOR, None).await;
    }
}

/// Ten nodes, twenty callers each, one cold key: one loads, all are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_load_for_two_hundred_callers_on_ten_nodes() {
    let server = Server::start(&[]);
    let loads = Arc::new(AtomicU64::new(0));
    let mut callers = Vec::new();
    for _ in 0..10 {
        let node = Arc::new(connected(server.provider()).await);
        for _ in 0..20 {
            let (node, loads) = (Arc::clone(&node), Arc::clone(&loads));
            callers.push(tokio::spawn(async move {
                loop {
                    match ask(&node, LEASE_FOR, None).await {
                        Leased::Granted(lease) => {
                            loads.fetch_add(1, Ordering::SeqCst);
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            assert!(fill(&node, &lease, b"loaded").await);
                        }
                        Leased::Held => tokio::time::sleep(Duration::from_millis(10)).await,
                        Leased::Present(there) => return assert_eq!(there.bytes, "loaded"),
                    }
                }
            }));
        }
    }
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn lost_epochs_get_an_incarnation_that_was_never_there() {
    let slot = Slot::from_number(300).unwrap();
    for (one, other, server, _front) in both_dialects().await {
        let record = one.epochs().unwrap().raise(&[slot]).await.unwrap();
        let known = (record.incarnation, record.version);
        assert_eq!(one.epochs().unwrap().read(known.0, known.1).await.unwrap(), None);

        // Evicted.
        server.say(b"delete p:~epochs\r\n", &["DELETED"]);
        let next = one.epochs().unwrap().read(known.0, known.1).await.unwrap().unwrap();
        assert!(next.incarnation != record.incarnation && next.incarnation != 0);
        assert_eq!(other.epochs().unwrap().read(next.incarnation, next.version).await.unwrap(), None);

        // Not readable any more.
        server.say(b"set p:~epochs 0 0 5\r\nhello\r\n", &["STORED"]);
        let after = other.epochs().unwrap().raise(&[slot]).await.unwrap();
        assert!(after.incarnation != next.incarnation);

        // Restarted, and made anew by another process so that it carries the CAS number that it carried before.
        server.kill();
        assert!(server.run());
        until(async || other.epochs().unwrap().raise(&[slot]).await.is_ok()).await;
        until(async || one.health().await.is_ok()).await;
        let seen = one.epochs().unwrap().read(after.incarnation, after.version).await.unwrap().unwrap();
        assert_ne!(seen.incarnation, after.incarnation);
    }
}

#[tokio::test]
async fn unchanged_epochs_cost_a_line() {
    let server = Server::start(&[]);
    let provider = connected(server.provider()).await;
    let all: Vec<_> = (0..=u16::MAX).map_while(Slot::from_number).collect();
    let record = provider.epochs().unwrap().raise(&all).await.unwrap();
    provider.epochs().unwrap().read(0, 0).await.unwrap().unwrap();
    let before = server.stat("bytes_written");
    for _ in 0..100 {
        assert_eq!(provider.epochs().unwrap().read(record.incarnation, record.version).await.unwrap(), None);
    }
    let written = server.stat("bytes_written") - before;
    // The question for the figure is itself an answer of about 2 KiB.
    assert!(written < 12_000, "{written} bytes for 100 reads");
}

#[tokio::test]
async fn numbers_have_signs_and_ends() {
    for (one, other, _server, _front) in both_dialects().await {
        let (one, other) = (one.atomics().unwrap(), other.atomics().unwrap());
        let n = key("n");
        assert_eq!(one.add(&n, -5, KEEP_FOR).await.unwrap(), -5);
        assert_eq!(other.add(&n, 3, KEEP_FOR).await.unwrap(), -2);
        assert_eq!(other.read(&n).await.unwrap().unwrap(), "-2");
        assert!(one.compare_and_swap(&n, Some(b"-2"), None, KEEP_FOR).await.unwrap());
        assert_eq!(one.add(&n, i64::MAX, KEEP_FOR).await.unwrap(), i64::MAX);
        assert_eq!(one.add(&n, i64::MIN, KEEP_FOR).await.unwrap(), -1);
        assert_eq!(one.add(&n, i64::MIN, KEEP_FOR).await.unwrap(), i64::MIN, "it stops there");
        assert_eq!(one.add(&n, 0, KEEP_FOR).await.unwrap(), i64::MIN);
        assert_eq!(one.read(&n).await.unwrap().unwrap(), i64::MIN.to_string());
        // Across the places where its digits become more or fewer.
        for _ in 0..2 {
            assert!(
                one.compare_and_swap(&n, Some(i64::MIN.to_string().as_bytes()), None, KEEP_FOR)
                    .await
                    .unwrap()
            );
            let near = 10_i64.pow(18) * 7 / 9;
            one.add(&n, near, KEEP_FOR).await.unwrap();
            assert_eq!(one.add(&n, -near - 1, KEEP_FOR).await.unwrap(), -1);
            assert_eq!(other.read(&n).await.unwrap().unwrap(), "-1");
            one.add(&n, i64::MIN + 1, KEEP_FOR).await.unwrap();
        }
    }
}

#[tokio::test]
async fn value_that_is_no_number_is_refused_and_stays() {
    for (one, _other, _server, _front) in both_dialects().await {
        let atomics = one.atomics().unwrap();
        assert!(
            atomics.compare_and_swap(&key("k"), None, Some(Bytes::from("text")), KEEP_FOR).await.unwrap()
        );
        let error = atomics.add(&key("k"), 1, KEEP_FOR).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert_eq!(atomics.read(&key("k")).await.unwrap().unwrap(), "text");
    }
}
