//! Entries: what is stored is found, under its own key, for its own time.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use recache_cache::KeyPrefix;
use recache_cache::key::KEY_BYTES_MAX;
use recache_cache::provider::{Capability, Entry, Scope};

use super::world::{KEEP_FOR, World, item};

pub(crate) async fn missing_key_is_absent(world: &World) {
    assert_eq!(world.read(&world.key("k")).await, None);
}

pub(crate) async fn provider_that_retains_nothing_gives_nothing(world: &World) {
    if world.has(Capability::Retains) {
        return world.skip("no retaining");
    }
    world.put(&world.key("k"), b"v").await;
    assert_eq!(world.read(&world.key("k")).await, None);
}

pub(crate) async fn stored_bytes_come_back_unchanged(world: &World) {
    if world.lacks(Capability::Retains) {
        return;
    }
    let every_byte: Vec<u8> = (0..=255).collect();
    for bytes in [&b""[..], b"\r\n", b"END\r\n", b"$-1\r\n", &every_byte, &vec![b'x'; 100_000]] {
        world.put(&world.key("k"), bytes).await;
        assert_eq!(world.read(&world.key("k")).await.as_deref(), Some(bytes));
    }
}

pub(crate) async fn set_replaces_the_entry(world: &World) {
    if world.lacks(Capability::Retains) {
        return;
    }
    world.put(&world.key("k"), b"old").await;
    world.put(&world.key("k"), b"new").await;
    assert_eq!(world.read(&world.key("k")).await.unwrap(), b"new");
}

pub(crate) async fn entry_ends_with_its_keep_for(world: &World) {
    if world.lacks(Capability::Retains) {
        return;
    }
    let (short, long) = (world.key("short"), world.key("long"));
    world.provider.set(&short, item(b"v"), world.ticks(2)).await.unwrap();
    world.provider.set(&long, item(b"v"), world.ticks(8)).await.unwrap();
    assert!(world.read(&short).await.is_some());
    if let Some(clock) = world.clock() {
        clock.advance(Duration::from_millis(1_999));
        assert!(world.read(&short).await.is_some());
        clock.advance(Duration::from_millis(1));
    } else {
        world.pass(2).await;
    }
    assert_eq!(world.read(&short).await, None);
    assert!(world.read(&long).await.is_some());
    world.pass(6).await;
    assert_eq!(world.read(&long).await, None);
}

pub(crate) async fn replaced_entry_lives_by_its_own_keep_for(world: &World) {
    if world.lacks(Capability::Retains) {
        return;
    }
    for (first, second) in [(2, 20), (20, 2)] {
        world.provider.set(&world.key("k"), item(b"first"), world.ticks(first)).await.unwrap();
        world.provider.set(&world.key("k"), item(b"second"), world.ticks(second)).await.unwrap();
        world.pass(3).await;
        let is_there = world.read(&world.key("k")).await.is_some();
        assert_eq!(is_there, second > 3, "{first} ticks, then {second} ticks");
    }
}

pub(crate) async fn very_long_keep_for_is_accepted(world: &World) {
    world.provider.set(&world.key("k"), item(b"v"), recache_cache::KEEP_FOR_MAX).await.unwrap();
    if let Some(clock) = world.clock() {
        clock.advance(Duration::from_hours(960));
    }
    assert_eq!(world.read(&world.key("k")).await.is_some(), world.has(Capability::Retains));
}

pub(crate) async fn delete_removes_one_key(world: &World) {
    if world.lacks(Capability::Retains) {
        return;
    }
    world.put(&world.key("a"), b"1").await;
    world.put(&world.key("b"), b"2").await;
    world.provider.delete(&[world.key("a")]).await.unwrap();
    assert_eq!(world.read(&world.key("a")).await, None);
    assert_eq!(world.read(&world.key("b")).await.unwrap(), b"2");
}

pub(crate) async fn delete_removes_many_keys(world: &World) {
    if world.lacks(Capability::Retains) {
        return;
    }
    let keys: Vec<_> = (0..500).map(|number| world.key(&number.to_string())).collect();
    let entries = keys.iter().map(|key| Entry { key: key.clone(), item: item(b"v"), keep_for: KEEP_FOR });
    world.provider.set_many(entries.collect()).await.unwrap();
    let (kept, removed) = keys.split_at(100);
    world.provider.delete(removed).await.unwrap();
    let found = world.provider.get_many(&keys).await.unwrap();
    for (index, item) in found.iter().enumerate() {
        assert_eq!(item.is_some(), index < kept.len(), "{index}");
    }
    world.provider.delete(&[]).await.unwrap();
}

pub(crate) async fn deleting_a_missing_key_succeeds(world: &World) {
    world.provider.delete(&[world.key("k")]).await.unwrap();
}

pub(crate) async fn longest_key_is_accepted(world: &World) {
    let longest = (1..KEY_BYTES_MAX)
        .map(|len| world.key(&"x".repeat(len)))
        .max_by_key(|key| key.as_str().len())
        .unwrap();
    assert_eq!(longest.as_str().len(), KEY_BYTES_MAX);
    world.put(&longest, b"v").await;
    assert_eq!(world.read(&longest).await.is_some(), world.has(Capability::Retains));
}

pub(crate) async fn keys_that_look_alike_are_apart(world: &World) {
    if world.lacks(Capability::Retains) {
        return;
    }
    let space = world.prefix().space("s");
    let keys = [
        &["a", "b"][..],
        &["a:b"],
        &["a_b"],
        &["a b"],
        &["a", "b", ""],
        &["", "a", "b"],
        &["A", "b"],
        &["{a}"],
        &["a"],
    ]
    .map(|parts| space.key(parts));
    for key in &keys {
        world.put(key, key.as_str().as_bytes()).await;
    }
    for key in &keys {
        assert_eq!(world.read(key).await.unwrap(), key.as_str().as_bytes());
    }
}

pub(crate) async fn get_many_answers_in_order_with_gaps(world: &World) {
    let keys = ["a", "missing", "b", "a"].map(|name| world.key(name));
    world.put(&keys[0], b"1").await;
    world.put(&keys[2], b"2").await;
    let found = world.provider.get_many(&keys).await.unwrap();
    let found: Vec<_> = found.iter().map(|item| item.as_ref().map(|item| &item.bytes[..])).collect();
    if world.has(Capability::Retains) {
        assert_eq!(found, [Some(&b"1"[..]), None, Some(&b"2"[..]), Some(&b"1"[..])]);
    } else {
        assert_eq!(found, [None; 4]);
    }
}

pub(crate) async fn get_many_sees_the_end_of_keep_for(world: &World) {
    world.provider.set(&world.key("k"), item(b"v"), world.ticks(2)).await.unwrap();
    world.pass(2).await;
    assert!(world.provider.get_many(&[world.key("k")]).await.unwrap()[0].is_none());
}

pub(crate) async fn set_many_stores_all(world: &World) {
    if world.lacks(Capability::Retains) {
        return;
    }
    let (a, b) = (world.key("a"), world.key("b"));
    let entry = |key, keep_for| Entry { key, item: item(b"v"), keep_for };
    let entries = vec![entry(a.clone(), KEEP_FOR), entry(b.clone(), world.ticks(2))];
    world.provider.set_many(entries).await.unwrap();
    assert!(world.read(&a).await.is_some() && world.read(&b).await.is_some());
    world.pass(2).await;
    assert!(world.read(&a).await.is_some());
    assert_eq!(world.read(&b).await, None);
}

pub(crate) async fn empty_batches_succeed(world: &World) {
    world.provider.set_many(Vec::new()).await.unwrap();
    assert!(world.provider.get_many(&[]).await.unwrap().is_empty());
}

/// A provider that cannot find entries may leave them, but then it leaves all.
pub(crate) async fn clearing_a_space_leaves_other_spaces(world: &World) {
    if world.lacks(Capability::Retains) {
        return;
    }
    let prefix = world.prefix();
    let many: Vec<_> = (0..600).map(|number| prefix.space("s").key([number.to_string()])).collect();
    let spared = [
        prefix.space("s2").key(["a"]),
        prefix.space("").key(["s"]),
        world.prefix_beside().space("s").key(["a"]),
        KeyPrefix::new("").space(world.prefix_text()).key(["s", "a"]),
    ];
    let entries = many.iter().chain(&spared).map(|key| Entry {
        key: key.clone(),
        item: item(b"v"),
        keep_for: KEEP_FOR,
    });
    world.provider.set_many(entries.collect()).await.unwrap();
    world.provider.clear(&Scope::Space(prefix.space("s"))).await.unwrap();
    let left = world.provider.get_many(&many).await.unwrap().into_iter().flatten().count();
    assert!(left == 0 || left == many.len(), "{left} of {} are left", many.len());
    if !world.has(Capability::Shared) {
        assert_eq!(left, 0, "a provider in the process finds its entries");
    }
    for key in &spared {
        assert!(world.read(key).await.is_some(), "{key}");
    }
}

pub(crate) async fn clearing_a_prefix_leaves_other_prefixes(world: &World) {
    if world.lacks(Capability::Retains) {
        return;
    }
    let inside = [world.prefix().space("s").key(["a"]), world.prefix().space("t").key(["a"])];
    let outside = [
        world.prefix_beside().space("s").key(["a"]),
        KeyPrefix::new("").space(world.prefix_text()).key(["s"]),
    ];
    for key in inside.iter().chain(&outside) {
        world.put(key, b"v").await;
    }
    world.provider.clear(&Scope::Prefix(world.prefix())).await.unwrap();
    if !world.has(Capability::Shared) {
        for key in &inside {
            assert_eq!(world.read(key).await, None, "{key}");
        }
    }
    for key in &outside {
        assert!(world.read(key).await.is_some(), "{key}");
    }
}

pub(crate) async fn entry_set_after_clear_stays(world: &World) {
    if world.lacks(Capability::Retains) {
        return;
    }
    let key = world.key("k");
    for _ in 0..100 {
        world.put(&key, b"old").await;
        world.provider.clear(&Scope::Space(key.space())).await.unwrap();
        world.put(&key, b"new").await;
        assert_eq!(world.read(&key).await.unwrap(), b"new");
    }
}

pub(crate) async fn dropped_calls_leave_the_provider_usable(world: &World) {
    let (provider, key) = (&world.provider, world.key("k"));
    drop(provider.set(&key, item(b"never polled"), KEEP_FOR));
    assert_eq!(world.read(&key).await, None);
    for round in 0..50 {
        poll_once(provider.set(&key, item(b"polled once"), KEEP_FOR));
        poll_once(provider.get(&key));
        poll_once(provider.get_many(std::slice::from_ref(&key)));
        poll_once(provider.clear(&Scope::Space(key.space())));
        poll_once(provider.delete(std::slice::from_ref(&key)));
        world.put(&key, b"v").await;
        let expected = world.has(Capability::Retains).then(|| b"v".to_vec());
        assert_eq!(world.read(&key).await, expected, "round {round}");
    }
}

pub(crate) async fn peek_never_differs_from_get(world: &World) {
    let key = world.key("k");
    let check = async |moment: &str| {
        if let Some(peeked) = world.peek(&key) {
            assert_eq!(Some(peeked.bytes.to_vec()), world.read(&key).await, "{moment}");
        }
    };
    check("before anything").await;
    assert!(world.peek(&key).is_none());
    world.put(&key, b"one").await;
    check("after set").await;
    world.read(&key).await;
    check("after get").await;
    world.put(&key, b"two").await;
    check("after another set").await;
    world.provider.delete(std::slice::from_ref(&key)).await.unwrap();
    assert!(world.peek(&key).is_none(), "after delete");
    world.provider.set(&key, item(b"short"), world.ticks(2)).await.unwrap();
    world.pass(2).await;
    assert!(world.peek(&key).is_none(), "after its keep-for");
}

pub(crate) async fn forgetting_drops_no_more_than_the_copies_in_this_process(world: &World) {
    let Some(copies) = world.provider.copies() else {
        world.skip("copies");
        return;
    };
    let (key, other) = (world.key("k"), world.key("other"));
    world.put(&key, b"v").await;
    world.put(&other, b"v").await;
    assert!(world.peek(&key).is_some());
    copies.forget(std::slice::from_ref(&key));
    assert!(world.peek(&key).is_none() && world.peek(&other).is_some());
    assert!(world.read(&key).await.is_some(), "the shared entry is not touched");
    copies.forget(&[]);
    copies.forget_all().await;
    assert!(world.peek(&other).is_none());
    assert!(world.read(&other).await.is_some(), "the shared entry is not touched");
}

pub(crate) async fn copy_that_was_forgotten_since_its_mark_is_not_kept(world: &World) {
    let Some(copies) = world.provider.copies() else {
        world.skip("copies");
        return;
    };
    let (key, other) = (world.key("k"), world.key("other"));
    let keep = |key: &recache_cache::Key, mark: u64| copies.keep(key, item(b"copy"), KEEP_FOR, mark);
    let mark = copies.mark();
    copies.forget(std::slice::from_ref(&key));
    keep(&key, mark);
    keep(&other, mark);
    assert!(world.peek(&key).is_none() && world.peek(&other).is_some());
    let mark = copies.mark();
    copies.forget_all().await;
    keep(&other, mark);
    assert!(world.peek(&other).is_none());
    let mark = copies.mark();
    world.provider.delete(std::slice::from_ref(&key)).await.unwrap();
    keep(&key, mark);
    assert!(world.peek(&key).is_none(), "deleted since");
    keep(&key, copies.mark());
    assert!(world.peek(&key).is_some());
}

pub(crate) async fn shared_reach_sees_what_another_process_wrote(world: &World) {
    if world.lacks(Capability::Shared) {
        return;
    }
    let (key, peer) = (world.key("k"), world.peer());
    world.put(&key, b"mine").await;
    assert!(world.read(&key).await.is_some());
    peer.set(&key, item(b"theirs"), KEEP_FOR).await.unwrap();
    let found = world.provider.get(&key).await.unwrap().unwrap();
    assert_eq!(&found.bytes[..], b"theirs");
    peer.delete(std::slice::from_ref(&key)).await.unwrap();
    assert!(world.provider.get(&key).await.unwrap().is_none());
    let many = world.provider.get_many(std::slice::from_ref(&key)).await.unwrap();
    assert!(many[0].is_none());
}

pub(crate) async fn it_is_healthy(world: &World) {
    world.provider.health().await.unwrap();
}

/// "The method is there" is not taken for "it works", but where the table says yes the method must be there.
pub(crate) async fn accessors_and_capabilities_agree(world: &World) {
    let provider = &world.provider;
    assert_eq!(provider.leases().is_some(), world.has(Capability::Leases));
    assert_eq!(provider.messages().is_some(), world.has(Capability::PushInvalidation));
    assert_eq!(provider.atomics().is_some(), world.has(Capability::AtomicIncrement));
    if world.has(Capability::Leases) {
        assert!(provider.epochs().is_some(), "fleet-wide loads need fleet-wide invalidation");
    }
}

/// Polls once and drops, as a caller does who is cancelled.
fn poll_once<T>(call: impl Future<Output = T>) {
    let _ = pin!(call).poll(&mut Context::from_waker(Waker::noop()));
}
