//! What every provider must do. A case is an ordinary function; `conformance!` holds the only list of them, and a
//! provider joins with one factory. A case that needs a capability asks for it in its first line.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use recache_cache::key::KEY_BYTES_MAX;
use recache_cache::provider::{Capability, Entry, Item, Reach, Scope};
use recache_cache::{Key, KeyPrefix, ManualClock, Provider};

/// `conformance!(module_name, factory)`, where the factory makes a provider over an `Arc<ManualClock>`.
macro_rules! conformance {
    ($provider:ident, $factory:expr) => {
        conformance! { @list $provider, $factory,
            missing_key_is_absent,
            provider_that_retains_nothing_gives_nothing,
            stored_bytes_come_back_unchanged,
            set_replaces_the_entry,
            entry_ends_with_its_keep_for,
            replaced_entry_lives_by_its_own_keep_for,
            very_long_keep_for_is_accepted,
            delete_removes_one_key,
            deleting_a_missing_key_succeeds,
            longest_key_is_accepted,
            keys_that_look_alike_are_apart,
            get_many_answers_in_order_with_gaps,
            get_many_sees_the_end_of_keep_for,
            set_many_stores_all,
            empty_batches_succeed,
            clearing_a_space_leaves_other_spaces,
            clearing_a_prefix_leaves_other_prefixes,
            entry_set_after_clear_stays,
            dropped_calls_leave_the_provider_usable,
            it_is_healthy,
        }
    };
    (@list $provider:ident, $factory:expr, $($case:ident,)*) => {
        mod $provider {
            $(
                #[tokio::test]
                async fn $case() {
                    let clock = std::sync::Arc::new(recache_cache::ManualClock::default());
                    let factory = $factory;
                    let provider = factory(std::sync::Arc::clone(&clock));
                    crate::conformance::$case(&provider, &clock).await;
                }
            )*
            #[allow(unused_imports, reason = "what the factory needs")]
            use super::*;
        }
    };
}
pub(crate) use conformance;

const KEEP_FOR: Duration = Duration::from_mins(1);

/// Whether the case does not apply; says so.
#[expect(clippy::print_stdout, reason = "what was skipped is printed")]
fn skipped(provider: &dyn Provider, capability: &str, has_it: bool) -> bool {
    if !has_it {
        println!("skipped for {}: needs {capability}", provider.name());
    }
    !has_it
}

fn retains(provider: &dyn Provider) -> bool {
    provider.capabilities().has(Capability::Retains)
}

fn key(name: &str) -> Key {
    KeyPrefix::new("p").space("s").key([name])
}

fn item(bytes: &[u8]) -> Item {
    Item::from(Bytes::copy_from_slice(bytes))
}

async fn put(provider: &dyn Provider, key: &Key, bytes: &[u8]) {
    provider.set(key, item(bytes), KEEP_FOR).await.unwrap();
}

async fn read(provider: &dyn Provider, key: &Key) -> Option<Vec<u8>> {
    provider.get(key, Reach::Nearest).await.unwrap().map(|item| item.bytes.to_vec())
}

pub(crate) async fn missing_key_is_absent(provider: &dyn Provider, _clock: &ManualClock) {
    assert_eq!(read(provider, &key("k")).await, None);
}

pub(crate) async fn provider_that_retains_nothing_gives_nothing(
    provider: &dyn Provider,
    _clock: &ManualClock,
) {
    if skipped(provider, "no retaining", !retains(provider)) {
        return;
    }
    put(provider, &key("k"), b"v").await;
    assert_eq!(read(provider, &key("k")).await, None);
}

pub(crate) async fn stored_bytes_come_back_unchanged(provider: &dyn Provider, _clock: &ManualClock) {
    if skipped(provider, "retains", retains(provider)) {
        return;
    }
    let every_byte: Vec<u8> = (0..=255).collect();
    for bytes in [&b""[..], b"\r\n", b"END\r\n", &every_byte, &vec![b'x'; 100_000]] {
        put(provider, &key("k"), bytes).await;
        assert_eq!(read(provider, &key("k")).await.as_deref(), Some(bytes));
    }
}

pub(crate) async fn set_replaces_the_entry(provider: &dyn Provider, _clock: &ManualClock) {
    if skipped(provider, "retains", retains(provider)) {
        return;
    }
    put(provider, &key("k"), b"old").await;
    put(provider, &key("k"), b"new").await;
    assert_eq!(read(provider, &key("k")).await.unwrap(), b"new");
}

pub(crate) async fn entry_ends_with_its_keep_for(provider: &dyn Provider, clock: &ManualClock) {
    if skipped(provider, "retains", retains(provider)) {
        return;
    }
    provider.set(&key("short"), item(b"v"), Duration::from_secs(1)).await.unwrap();
    provider.set(&key("long"), item(b"v"), Duration::from_secs(10)).await.unwrap();
    clock.advance(Duration::from_millis(999));
    assert!(read(provider, &key("short")).await.is_some());
    clock.advance(Duration::from_millis(1));
    assert_eq!(read(provider, &key("short")).await, None);
    assert!(read(provider, &key("long")).await.is_some());
    clock.advance(Duration::from_secs(9));
    assert_eq!(read(provider, &key("long")).await, None);
}

pub(crate) async fn replaced_entry_lives_by_its_own_keep_for(provider: &dyn Provider, clock: &ManualClock) {
    if skipped(provider, "retains", retains(provider)) {
        return;
    }
    for (first, second) in [(1, 10), (10, 1)] {
        provider.set(&key("k"), item(b"first"), Duration::from_secs(first)).await.unwrap();
        provider.set(&key("k"), item(b"second"), Duration::from_secs(second)).await.unwrap();
        clock.advance(Duration::from_secs(5));
        assert_eq!(read(provider, &key("k")).await.is_some(), second > 5, "{first} s, then {second} s");
    }
}

pub(crate) async fn very_long_keep_for_is_accepted(provider: &dyn Provider, clock: &ManualClock) {
    provider.set(&key("k"), item(b"v"), recache_cache::KEEP_FOR_MAX).await.unwrap();
    clock.advance(Duration::from_hours(960));
    assert_eq!(read(provider, &key("k")).await.is_some(), retains(provider));
}

pub(crate) async fn delete_removes_one_key(provider: &dyn Provider, _clock: &ManualClock) {
    if skipped(provider, "retains", retains(provider)) {
        return;
    }
    put(provider, &key("a"), b"1").await;
    put(provider, &key("b"), b"2").await;
    provider.delete(&[key("a")]).await.unwrap();
    assert_eq!(read(provider, &key("a")).await, None);
    assert_eq!(read(provider, &key("b")).await.unwrap(), b"2");
}

pub(crate) async fn deleting_a_missing_key_succeeds(provider: &dyn Provider, _clock: &ManualClock) {
    provider.delete(&[key("k")]).await.unwrap();
}

pub(crate) async fn longest_key_is_accepted(provider: &dyn Provider, _clock: &ManualClock) {
    let longest =
        (1..KEY_BYTES_MAX).map(|len| key(&"x".repeat(len))).max_by_key(|key| key.as_str().len()).unwrap();
    assert_eq!(longest.as_str().len(), KEY_BYTES_MAX);
    put(provider, &longest, b"v").await;
    assert_eq!(read(provider, &longest).await.is_some(), retains(provider));
}

pub(crate) async fn keys_that_look_alike_are_apart(provider: &dyn Provider, _clock: &ManualClock) {
    if skipped(provider, "retains", retains(provider)) {
        return;
    }
    let space = KeyPrefix::new("p").space("s");
    let keys = [&["a", "b"][..], &["a:b"], &["a_b"], &["a b"], &["a", "b", ""], &["", "a", "b"], &["A", "b"]]
        .map(|parts| space.key(parts));
    for key in &keys {
        put(provider, key, key.as_str().as_bytes()).await;
    }
    for key in &keys {
        assert_eq!(read(provider, key).await.unwrap(), key.as_str().as_bytes());
    }
}

pub(crate) async fn get_many_answers_in_order_with_gaps(provider: &dyn Provider, _clock: &ManualClock) {
    let keys = ["a", "missing", "b", "a"].map(key);
    put(provider, &keys[0], b"1").await;
    put(provider, &keys[2], b"2").await;
    let found = provider.get_many(&keys, Reach::Nearest).await.unwrap();
    let found: Vec<_> = found.iter().map(|item| item.as_ref().map(|item| &item.bytes[..])).collect();
    if retains(provider) {
        assert_eq!(found, [Some(&b"1"[..]), None, Some(&b"2"[..]), Some(&b"1"[..])]);
    } else {
        assert_eq!(found, [None; 4]);
    }
}

pub(crate) async fn get_many_sees_the_end_of_keep_for(provider: &dyn Provider, clock: &ManualClock) {
    put(provider, &key("k"), b"v").await;
    clock.advance(KEEP_FOR);
    assert!(provider.get_many(&[key("k")], Reach::Nearest).await.unwrap()[0].is_none());
}

pub(crate) async fn set_many_stores_all(provider: &dyn Provider, clock: &ManualClock) {
    if skipped(provider, "retains", retains(provider)) {
        return;
    }
    let entry = |name, keep_for| Entry { key: key(name), item: item(name.as_bytes()), keep_for };
    provider.set_many(vec![entry("a", KEEP_FOR), entry("b", KEEP_FOR / 2)]).await.unwrap();
    assert_eq!(read(provider, &key("a")).await.unwrap(), b"a");
    assert_eq!(read(provider, &key("b")).await.unwrap(), b"b");
    clock.advance(KEEP_FOR / 2);
    assert!(read(provider, &key("a")).await.is_some());
    assert_eq!(read(provider, &key("b")).await, None);
}

pub(crate) async fn empty_batches_succeed(provider: &dyn Provider, _clock: &ManualClock) {
    provider.set_many(Vec::new()).await.unwrap();
    assert!(provider.get_many(&[], Reach::Nearest).await.unwrap().is_empty());
}

pub(crate) async fn clearing_a_space_leaves_other_spaces(provider: &dyn Provider, _clock: &ManualClock) {
    if skipped(provider, "retains", retains(provider)) {
        return;
    }
    let prefix = KeyPrefix::new("p");
    let many: Vec<_> = (0..600).map(|number| prefix.space("s").key([number.to_string()])).collect();
    let spared = [
        prefix.space("s2").key(["a"]),
        prefix.space("").key(["s"]),
        KeyPrefix::new("p2").space("s").key(["a"]),
    ];
    for key in many.iter().chain(&spared) {
        put(provider, key, b"v").await;
    }
    provider.clear(&Scope::Space(prefix.space("s"))).await.unwrap();
    for key in &many {
        assert_eq!(read(provider, key).await, None, "{key}");
    }
    for key in &spared {
        assert!(read(provider, key).await.is_some(), "{key}");
    }
}

pub(crate) async fn clearing_a_prefix_leaves_other_prefixes(provider: &dyn Provider, _clock: &ManualClock) {
    if skipped(provider, "retains", retains(provider)) {
        return;
    }
    let inside = [KeyPrefix::new("p").space("s").key(["a"]), KeyPrefix::new("p").space("t").key(["a"])];
    let outside = [KeyPrefix::new("p2").space("s").key(["a"]), KeyPrefix::new("").space("p").key(["s"])];
    for key in inside.iter().chain(&outside) {
        put(provider, key, b"v").await;
    }
    provider.clear(&Scope::Prefix(KeyPrefix::new("p"))).await.unwrap();
    for key in &inside {
        assert_eq!(read(provider, key).await, None, "{key}");
    }
    for key in &outside {
        assert!(read(provider, key).await.is_some(), "{key}");
    }
}

pub(crate) async fn entry_set_after_clear_stays(provider: &dyn Provider, _clock: &ManualClock) {
    if skipped(provider, "retains", retains(provider)) {
        return;
    }
    for _ in 0..100 {
        put(provider, &key("k"), b"old").await;
        provider.clear(&Scope::Space(key("k").space())).await.unwrap();
        put(provider, &key("k"), b"new").await;
        assert_eq!(read(provider, &key("k")).await.unwrap(), b"new");
    }
}

pub(crate) async fn dropped_calls_leave_the_provider_usable(provider: &dyn Provider, _clock: &ManualClock) {
    drop(provider.set(&key("k"), item(b"never polled"), KEEP_FOR));
    assert_eq!(read(provider, &key("k")).await, None);
    poll_once(provider.set(&key("k"), item(b"polled once"), KEEP_FOR));
    poll_once(provider.get(&key("k"), Reach::Nearest));
    poll_once(provider.clear(&Scope::Space(key("k").space())));
    poll_once(provider.delete(&[key("k")]));
    put(provider, &key("k"), b"v").await;
    assert_eq!(read(provider, &key("k")).await.is_some(), retains(provider));
}

pub(crate) async fn it_is_healthy(provider: &dyn Provider, _clock: &ManualClock) {
    provider.health().await.unwrap();
}

/// Polls once and drops, as a caller does who is cancelled.
fn poll_once<T>(call: impl Future<Output = T>) {
    let _ = pin!(call).poll(&mut Context::from_waker(Waker::noop()));
}
