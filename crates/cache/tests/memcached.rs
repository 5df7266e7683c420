//! Memcached, on real servers of the tests' own: entries, keys, sizes, times, batches, capabilities.
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
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use recache_cache::config::{MemcachedConfig, ServerUrl};
use recache_cache::provider::Memcached;
use recache_cache::provider::{Capability, Entry, Error, Item, Known, MemcachedSettings, Source};
use recache_cache::{Coherence, Key, KeyPrefix, ManualClock, Provider, SystemClock, Timestamp};
use server::{Front, Fronted, Server, connected, provider, provider_of, until};

const KEEP_FOR: Duration = Duration::from_mins(10);
const DAY: Duration = Duration::from_hours(24);

fn key(name: &str) -> Key {
    KeyPrefix::new("p").space("s").key([name])
}

fn item(bytes: &[u8]) -> Item {
    Item::from(Bytes::copy_from_slice(bytes))
}

async fn read(provider: &dyn Provider, key: &Key) -> Option<Vec<u8>> {
    provider.get(key).await.unwrap().map(|item| item.bytes.to_vec())
}

/// Both dialects, over one real server each.
async fn both_dialects() -> Vec<(Memcached, Server, Option<Fronted>)> {
    let server = Server::start(&[]);
    let meta = connected(server.provider()).await;
    let behind = Server::start(&[]);
    let old = Fronted::start(Front::Old, behind.address()).await;
    let classic = connected(provider(&[old.port], Arc::new(SystemClock), "p")).await;
    vec![(meta, server, None), (classic, behind, Some(old))]
}

#[tokio::test]
async fn old_server_is_never_sent_a_meta_command() {
    let behind = Server::start(&[]);
    let old = Fronted::start(Front::Old, behind.address()).await;
    let provider = connected(provider(&[old.port], Arc::new(SystemClock), "p")).await;
    provider.set(&key("k"), item(b"v"), KEEP_FOR).await.unwrap();
    assert_eq!(read(&provider, &key("k")).await.unwrap(), b"v");
    assert!(provider.replace(&key("k"), &item(b"v"), item(b"w"), KEEP_FOR).await.unwrap());
    provider.delete(&[key("k")]).await.unwrap();
    assert_eq!(read(&provider, &key("k")).await, None);
    assert_eq!(provider.atomics().unwrap().add(&key("n"), -3, KEEP_FOR).await.unwrap(), -3);
    assert_eq!(behind.stat("cmd_meta"), 0);
}

#[tokio::test]
async fn keys_of_every_length_and_byte_reach_their_own_entry_and_no_other() {
    for (provider, server, _front) in both_dialects().await {
        // What stands beside: none of the keys below may touch it.
        server.say(b"set bystander 0 0 4\r\nhere\r\n", &["STORED"]);
        let space = KeyPrefix::new("p").space("s");
        let mut names: Vec<String> =
            (0..=255_u8).map(|byte| String::from_utf8_lossy(&[byte]).into_owned()).collect();
        names.extend((0..=255_u8).map(|byte| format!("a{}b", char::from(byte))));
        names.extend(
            [1, 2, 100, 192, 193, 200, 249, 250, 251, 252, 1_000, 10_000].map(|length| "k".repeat(length)),
        );
        names.extend([1, 62, 63, 64, 83, 250, 3_000].map(|length| "é ".repeat(length)));
        names.extend(
            [
                "",
                " ",
                "\r\n",
                "k\r\nflush_all\r\n",
                "k 0 0 1\r\nx\r\nset bystander 0 0 1",
                "\0",
                "bystander",
                "a b",
            ]
            .map(str::to_owned),
        );
        names.sort_unstable();
        names.dedup();
        let values = |name: &String| match name.len() % 4 {
            0 => format!("flush_all\r\n{name}"),
            1 => format!("\r\nset bystander 0 0 1\r\nx\r\n{name}"),
            2 => format!("END\r\n{name}"),
            _ => format!("VA 3 kbystander\r\n{name}"),
        };
        for name in &names {
            let entry =
                Entry { key: space.key([name]), item: item(values(name).as_bytes()), keep_for: KEEP_FOR };
            provider.set_many(vec![entry]).await.unwrap();
        }
        for name in &names {
            let found = read(&provider, &space.key([name])).await;
            assert_eq!(found.as_deref(), Some(values(name).as_bytes()), "a name of {} bytes", name.len());
        }
        let (odd, even): (Vec<_>, Vec<_>) = names.iter().enumerate().partition(|(place, _)| place % 2 == 1);
        let condemned: Vec<_> = odd.iter().map(|(_, name)| space.key([*name])).collect();
        provider.delete(&condemned).await.unwrap();
        for (_, name) in odd {
            assert_eq!(read(&provider, &space.key([name])).await, None);
        }
        for (_, name) in even {
            assert_eq!(read(&provider, &space.key([name])).await.as_deref(), Some(values(name).as_bytes()));
        }
        assert_eq!(server.say(b"get bystander\r\n", &["END"]), ["VALUE bystander 0 4", "here", "END"]);
    }
}

#[tokio::test]
async fn largest_value_fits_and_a_larger_one_is_refused_with_what_stood_there_before() {
    for options in [&[][..], &["-I", "2m"]] {
        let server = Server::start(options);
        let provider = connected(server.provider()).await;
        let limit = provider.capabilities().limit(Capability::MaxValueBytes).unwrap();
        let item_bytes_max = if options.is_empty() { 1 << 20 } else { 2 << 20 };
        assert_eq!(limit, item_bytes_max - 512);
        let longest =
            (1..200).map(|length| key(&"k".repeat(length))).max_by_key(|key| key.as_str().len()).unwrap();
        for key in [key("k"), longest] {
            let largest = vec![b'x'; limit];
            provider.set(&key, item(&largest), KEEP_FOR).await.unwrap();
            assert_eq!(read(&provider, &key).await.unwrap(), largest);
            for too_large in [limit + 1, 1 << 20, item_bytes_max + 1, 5 << 20] {
                let too_large = item(&vec![b'x'; too_large.max(limit + 1)]);
                provider.set(&key, item(b"before"), KEEP_FOR).await.unwrap();
                let error = provider.set(&key, too_large.clone(), KEEP_FOR).await.unwrap_err();
                assert!(matches!(error, Error::Refused { .. }) && !error.is_failure(), "{error}");
                assert_eq!(read(&provider, &key).await, None, "what stood before is not served");
                provider.set(&key, item(b"before"), KEEP_FOR).await.unwrap();
                let replaced = provider.replace(&key, &item(b"before"), too_large, KEEP_FOR).await;
                assert!(matches!(replaced, Err(Error::Refused { .. })));
                assert_eq!(read(&provider, &key).await, None);
            }
        }
    }
}

#[tokio::test]
async fn set_many_stores_what_fits_and_tells_of_what_does_not() {
    let server = Server::start(&[]);
    let provider = connected(server.provider()).await;
    let entry = |name, bytes: &[u8]| Entry { key: key(name), item: item(bytes), keep_for: KEEP_FOR };
    provider.set(&key("large"), item(b"before"), KEEP_FOR).await.unwrap();
    let entries = vec![entry("a", b"1"), entry("large", &vec![0; 1 << 20]), entry("b", b"2")];
    let error = provider.set_many(entries).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert_eq!(read(&provider, &key("a")).await.unwrap(), b"1");
    assert_eq!(read(&provider, &key("b")).await.unwrap(), b"2");
    assert_eq!(read(&provider, &key("large")).await, None);
}

#[tokio::test]
async fn times_around_thirty_days_are_neither_for_ever_nor_in_the_past() {
    let month = 30 * DAY;
    let before = |seconds| month.checked_sub(Duration::from_secs(seconds)).unwrap();
    for (provider, server, _front) in both_dialects().await {
        let second = Duration::from_secs(1);
        for keep_for in
            [second / 1_000, second, DAY, before(2), before(1), month, month + second, 60 * DAY, 3_000 * DAY]
        {
            provider.set(&key("k"), item(b"v"), keep_for).await.unwrap();
            if keep_for >= second {
                assert_eq!(read(&provider, &key("k")).await.unwrap(), b"v", "{keep_for:?}");
            }
            let ttl =
                Duration::from_secs(server.ttl(key("k").as_str()).unwrap().try_into().expect("not for ever"));
            assert!(
                ttl >= keep_for.saturating_sub(second) && ttl <= keep_for + 2 * second,
                "{keep_for:?}: {ttl:?}"
            );
        }
        // Longer than memcached can count: as long as it can.
        provider.set(&key("k"), item(b"v"), Duration::from_secs(u64::MAX)).await.unwrap();
        assert_eq!(read(&provider, &key("k")).await.unwrap(), b"v");
    }
}

#[tokio::test]
async fn entry_ends_exactly_at_its_keep_for_by_the_clock_that_was_given() {
    let server = Server::start(&[]);
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(7)));
    let provider = connected(provider(&[server.port()], clock.clone(), "p")).await;
    provider.set(&key("k"), item(b"v"), Duration::from_micros(1_500)).await.unwrap();
    clock.advance(Duration::from_micros(1_499));
    assert_eq!(read(&provider, &key("k")).await.unwrap(), b"v");
    clock.advance(Duration::from_micros(1));
    assert_eq!(read(&provider, &key("k")).await, None);
    assert!(provider.get_many(&[key("k")]).await.unwrap()[0].is_none());
    assert!(!provider.replace(&key("k"), &item(b"v"), item(b"w"), KEEP_FOR).await.unwrap());
    provider.set(&key("k"), item(b"v"), Duration::ZERO).await.unwrap();
    assert_eq!(read(&provider, &key("k")).await, None, "a time of nothing is not for ever");
    assert!(server.ttl(key("k").as_str()).is_none_or(|ttl| (0..=1).contains(&ttl)));
}

#[tokio::test]
async fn batches_are_one_round_trip_and_writes_two() {
    let server = Server::start(&[]);
    let keys: Vec<_> = (0..100).map(|number| key(&number.to_string())).collect();
    // Whoever waits for an answer before all is sent would wait for ever here.
    let exchanges: [(&[usize], _); 3] = [(&[100], "get_many"), (&[100, 400], "set_many"), (&[200], "delete")];
    for (lines, what) in exchanges {
        let front = Fronted::start(Front::UntilSent(lines), server.address()).await;
        let provider = provider(&[front.port], Arc::new(SystemClock), "p");
        let entries = keys.iter().map(|key| Entry { key: key.clone(), item: item(b"v"), keep_for: KEEP_FOR });
        let call = async {
            match what {
                "get_many" => provider.get_many(&keys).await.map(|found| found.len()),
                "set_many" => provider.set_many(entries.collect()).await.map(|()| 100),
                _ => provider.delete(&keys).await.map(|()| 100),
            }
        };
        let done = tokio::time::timeout(server::PATIENCE, call).await.expect(what);
        assert_eq!(done.unwrap(), 100, "{what}");
    }
}

#[tokio::test]
async fn large_batches_do_not_block_each_other_up() {
    let server = Server::start(&["-m", "256"]);
    let provider = connected(server.provider()).await;
    let keys: Vec<_> = (0..6_000).map(|number| key(&number.to_string())).collect();
    let value = vec![b'v'; 3_000];
    let entries = keys.iter().map(|key| Entry { key: key.clone(), item: item(&value), keep_for: KEEP_FOR });
    provider.set_many(entries.collect()).await.unwrap();
    let found = provider.get_many(&keys).await.unwrap();
    assert!(found.iter().all(|found| found.as_ref().is_some_and(|item| item.bytes == value)));
}

#[tokio::test]
async fn capabilities_are_probed_in_four_round_trips_and_declared_before() {
    let server = Server::start(&[]);
    let nowhere = provider(&[Server::later().port()], Arc::new(SystemClock), "p");
    assert!(nowhere.capabilities().rows().all(|row| row.source == Source::Declared));
    let front = Fronted::start(Front::Counting, server.address()).await;
    let memcached = connected(provider_of(&[front.port], 1, Arc::new(SystemClock), "p")).await;
    // One of them is the look at its health that found it connected.
    assert!(front.turns.load(Ordering::SeqCst) <= 5, "{}", front.turns.load(Ordering::SeqCst));
    let probed = [
        Capability::Retains,
        Capability::AtomicIncrement,
        Capability::CompareAndSwap,
        Capability::SetIfAbsent,
        Capability::Leases,
    ];
    let capabilities = memcached.capabilities();
    for row in capabilities.rows() {
        if probed.contains(&row.capability) {
            assert_eq!((row.value, row.source), (Known::Has(true), Source::Probed), "{row:?}");
        }
    }
    let shown: Vec<_> =
        capabilities.rows().map(|row| format!("{}: {}", row.capability.name(), row.value)).collect();
    let expected = [
        "retains: yes",
        "shared: yes",
        "atomic_increment: yes",
        "compare_and_swap: yes",
        "set_if_absent: yes",
        "leases: yes",
        "ttl_inspection: no",
        "namespaces: yes",
        "tags: yes",
        "batch: yes",
        "push_invalidation: no",
        "max_key_bytes: 250",
        "max_value_bytes: 1048064",
    ];
    assert_eq!(shown, expected);
    assert_eq!(capabilities.coherence(), Coherence::Strict);
    // Nothing of the probe is left, whatever it was called.
    assert_eq!(server.stat("curr_items"), 0);
}

#[tokio::test]
async fn server_without_cas_has_no_leases_and_no_epochs() {
    let server = Server::start(&["-C"]);
    let provider = connected(server.provider()).await;
    let capabilities = provider.capabilities();
    assert!(!capabilities.has(Capability::CompareAndSwap) && !capabilities.has(Capability::Leases));
    assert!(provider.leases().is_none() && provider.epochs().is_none() && provider.atomics().is_some());
    assert_eq!(capabilities.coherence(), Coherence::Eventual);
    provider.set(&key("k"), item(b"v"), KEEP_FOR).await.unwrap();
    assert_eq!(read(&provider, &key("k")).await.unwrap(), b"v");
}

#[tokio::test]
async fn capabilities_are_probed_again_when_another_server_answers() {
    let first = Server::start(&["-I", "4m"]);
    let front = Fronted::start(Front::Counting, first.address()).await;
    let provider = connected(provider(&[front.port], Arc::new(SystemClock), "p")).await;
    let limit = |provider: &Memcached| provider.capabilities().limit(Capability::MaxValueBytes);
    assert_eq!(limit(&provider), Some((4 << 20) - 512));
    first.kill();
    let second = Server::start_on(first.port(), &["-I", "2m"]);
    until(async || provider.health().await.is_ok()).await;
    assert_eq!(limit(&provider), Some((2 << 20) - 512));
    drop(second);
}

#[tokio::test]
async fn server_that_wants_a_login_gets_it_and_no_other_learns_it() {
    let file = std::env::temp_dir().join(format!("recache-memcached-{}", uuid::Uuid::new_v4()));
    std::fs::write(&file, "user:p@ss\n").unwrap();
    let asking = Server::start(&["-Y", file.to_str().unwrap()]);
    let open = Server::start(&[]);
    let with = |login: &str, port: u16| {
        let url = ServerUrl::new(format!("tcp://{login}127.0.0.1:{port}"));
        let config = MemcachedConfig { url, ..MemcachedConfig::default() };
        let settings = MemcachedSettings::from_config(&config, Arc::new(SystemClock)).unwrap();
        Memcached::new(settings, &KeyPrefix::new("p"))
    };
    let welcome = connected(with("user:p%40ss@", asking.port())).await;
    welcome.set(&key("k"), item(b"v"), KEEP_FOR).await.unwrap();
    assert_eq!(read(&welcome, &key("k")).await.unwrap(), b"v");
    for login in ["", "user:wr0ng@"] {
        let refused = with(login, asking.port());
        let error = async || refused.health().await.unwrap_err().to_string();
        until(async || error().await.contains("user")).await;
        assert!(!error().await.contains("wr0ng"));
    }
    let unneeded = connected(with("user:p%40ss@", open.port())).await;
    unneeded.set(&key("k"), item(b"v"), KEEP_FOR).await.unwrap();
    assert_eq!(open.say(b"get ~login\r\n", &["END"]), ["END"], "it is not kept as an item");
    assert!(!format!("{unneeded:?}").contains("p@ss"));
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn each_key_has_its_server_and_only_its_keys_fail_with_it() {
    let servers = [Server::start(&[]), Server::start(&[]), Server::start(&[])];
    let ports: Vec<_> = servers.iter().map(Server::port).collect();
    let memcached = connected(provider(&ports, Arc::new(SystemClock), "p")).await;
    let keys: Vec<_> = (0..300).map(|number| key(&number.to_string())).collect();
    let entries = keys.iter().map(|key| Entry {
        key: key.clone(),
        item: item(key.as_str().as_bytes()),
        keep_for: KEEP_FOR,
    });
    memcached.set_many(entries.collect()).await.unwrap();
    for server in &servers {
        assert!((50..150).contains(&server.stat("curr_items")), "{}", server.stat("curr_items"));
    }
    let found = memcached.get_many(&keys).await.unwrap();
    for (key, found) in keys.iter().zip(&found) {
        assert_eq!(found.as_ref().unwrap().bytes, key.as_str().as_bytes());
    }
    // Whoever names them in another order finds the same.
    let reversed: Vec<_> = ports.iter().rev().copied().collect();
    let other = connected(provider(&reversed, Arc::new(SystemClock), "p")).await;
    for key in &keys {
        assert_eq!(read(&other, key).await.unwrap(), key.as_str().as_bytes());
    }
    servers[0].kill();
    let mut lost = 0;
    for key in &keys {
        match memcached.get(key).await {
            Ok(found) => assert_eq!(found.unwrap().bytes, key.as_str().as_bytes()),
            Err(error) => {
                assert!(error.is_failure());
                lost += 1;
            }
        }
    }
    assert!((50..150).contains(&lost), "{lost}");
    assert!(memcached.health().await.is_err());
    // Back, and empty: never what it held before.
    assert!(servers[0].run());
    until(async || memcached.health().await.is_ok()).await;
    let found = memcached.get_many(&keys).await.unwrap();
    assert_eq!(found.iter().filter(|found| found.is_none()).count(), lost);
}

#[tokio::test]
async fn full_server_evicts_and_the_count_is_told() {
    let server = Server::start(&["-m", "2"]);
    let provider = connected(server.provider()).await;
    assert_eq!(provider.evictions(), Some(0));
    for number in 0..3_000 {
        provider.set(&key(&number.to_string()), item(&[0; 5_000]), KEEP_FOR).await.unwrap();
    }
    provider.health().await.unwrap();
    assert!(provider.evictions().unwrap() > 1_000, "{:?}", provider.evictions());
    assert!(read(&provider, &key("2999")).await.is_some());
}

#[tokio::test]
async fn errors_name_no_key_and_no_value() {
    let server = Server::start(&[]);
    let front = Fronted::start(Front::Nonsense, server.address()).await;
    let nonsense = provider(&[front.port], Arc::new(SystemClock), "p");
    let provider = connected(server.provider()).await;
    let mut errors = Vec::new();
    let secret = key("secretkey");
    provider
        .atomics()
        .unwrap()
        .compare_and_swap(&secret, None, Some(Bytes::from("secretvalue")), KEEP_FOR)
        .await
        .unwrap();
    errors.push(provider.atomics().unwrap().add(&secret, 1, KEEP_FOR).await.unwrap_err());
    errors.push(provider.set(&secret, item(&b"secretvalue".repeat(200_000)), KEEP_FOR).await.unwrap_err());
    errors.push(nonsense.get(&secret).await.unwrap_err());
    errors.push(nonsense.set(&secret, item(b"secretvalue"), KEEP_FOR).await.unwrap_err());
    server.kill();
    errors.push(provider.get(&secret).await.unwrap_err());
    for error in errors {
        let told = format!("{error} {error:?}");
        assert!(!told.contains("secret"), "{told}");
    }
}
