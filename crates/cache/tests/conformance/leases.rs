//! Leases: one load per key for the whole fleet, and a fill that lost its right changes nothing.

use std::sync::Arc;
use std::time::Duration;

use recache_cache::provider::{Capability, Entry, Lease, Leased, Leases, Scope};
use recache_cache::{Key, Provider};
use tokio::time::Instant;
use uuid::Uuid;

use super::world::{KEEP_FOR, PATIENCE, World, item};

const LEASE_FOR: Duration = Duration::from_mins(1);

/// Writes that are given up, each a little later than the one before, in steps shorter than an exchange with a server.
const WRITES_GIVEN_UP: u32 = 400;
const GIVEN_UP_STEP: Duration = Duration::from_micros(50);

async fn ask(leases: &dyn Leases, key: &Key) -> Leased {
    leases.take(key, Uuid::new_v4().as_u128(), LEASE_FOR, None).await.unwrap()
}

async fn take(leases: &dyn Leases, key: &Key) -> Lease {
    match ask(leases, key).await {
        Leased::Granted(lease) => lease,
        other => panic!("expected a lease, got {other:?}"),
    }
}

/// A time shorter than a timer can tell.
async fn moment(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        tokio::task::yield_now().await;
    }
}

async fn assert_held(leases: &dyn Leases, key: &Key) {
    let answer = ask(leases, key).await;
    assert!(matches!(answer, Leased::Held), "{answer:?}");
}

fn peer_leases(world: &World) -> &dyn Leases {
    world.peer().leases().unwrap()
}

pub(crate) async fn lease_is_granted_to_one_of_many_at_once(world: &World) {
    let Some(_) = world.leases() else { return };
    for round in 0..20 {
        let key = world.key(&round.to_string());
        let tasks: Vec<_> = (0..8)
            .map(|number| {
                let provider: Arc<dyn Provider> =
                    Arc::clone(if number % 2 == 0 { &world.provider } else { world.peer() });
                let key = key.clone();
                tokio::spawn(async move { ask(provider.leases().unwrap(), &key).await })
            })
            .collect();
        let mut granted = 0;
        for task in tasks {
            match task.await.unwrap() {
                Leased::Granted(_) => granted += 1,
                Leased::Held => {}
                Leased::Present(_) => panic!("nobody stored anything"),
            }
        }
        assert_eq!(granted, 1, "round {round}");
    }
}

pub(crate) async fn lease_holder_stores_and_the_lease_ends(world: &World) {
    let Some(leases) = world.leases() else { return };
    let key = world.key("k");
    let lease = take(leases, &key).await;
    assert_held(peer_leases(world), &key).await;
    assert_eq!(world.read(&key).await, None, "a lease is no value");
    assert!(leases.fill(&key, &lease, item(b"loaded"), KEEP_FOR).await.unwrap());
    assert_eq!(world.read(&key).await.unwrap(), b"loaded");
    assert!(!leases.fill(&key, &lease, item(b"again"), KEEP_FOR).await.unwrap(), "it is spent");
    assert_eq!(world.read(&key).await.unwrap(), b"loaded");
}

pub(crate) async fn taker_is_given_what_was_stored_meanwhile(world: &World) {
    let Some(leases) = world.leases() else { return };
    let key = world.key("k");
    world.put(&key, b"stored").await;
    let token = || Uuid::new_v4().as_u128();
    let seen = |bytes| Some(item(bytes));
    for seen in [None, seen(&b"stale"[..])] {
        match leases.take(&key, token(), LEASE_FOR, seen.as_ref()).await.unwrap() {
            Leased::Present(found) => assert_eq!(&found.bytes[..], b"stored"),
            other => panic!("{other:?}"),
        }
    }
    let again = leases.take(&key, token(), LEASE_FOR, seen(b"stored").as_ref()).await.unwrap();
    let Leased::Granted(lease) = again else { panic!("what was seen is what stands there: {again:?}") };
    assert_eq!(world.read(&key).await.unwrap(), b"stored", "the old value is served meanwhile");
    let held = leases.take(&key, token(), LEASE_FOR, seen(b"stored").as_ref()).await.unwrap();
    assert!(matches!(held, Leased::Held), "{held:?}");
    assert!(leases.fill(&key, &lease, item(b"fresh"), KEEP_FOR).await.unwrap());
    match leases.take(&key, token(), LEASE_FOR, seen(b"stored").as_ref()).await.unwrap() {
        Leased::Present(found) => assert_eq!(&found.bytes[..], b"fresh"),
        other => panic!("{other:?}"),
    }
}

/// A lease is void: the fill is refused, what is there stays, and somebody else may load.
async fn assert_void(world: &World, key: &Key, lease: &Lease, stays: Option<&[u8]>) {
    let leases = world.leases().unwrap();
    assert!(!leases.fill(key, lease, item(b"too late"), KEEP_FOR).await.unwrap());
    let found = world.provider.get(key).await.unwrap();
    assert_eq!(found.as_ref().map(|item| &item.bytes[..]), stays);
}

pub(crate) async fn set_voids_a_lease(world: &World) {
    let Some(leases) = world.leases() else { return };
    for by_peer in [false, true] {
        let key = world.key(if by_peer { "theirs" } else { "mine" });
        let lease = take(leases, &key).await;
        let writer = if by_peer { world.peer() } else { &world.provider };
        writer.set(&key, item(b"set"), KEEP_FOR).await.unwrap();
        assert_void(world, &key, &lease, Some(b"set")).await;
    }
}

pub(crate) async fn set_many_voids_leases(world: &World) {
    let Some(leases) = world.leases() else { return };
    let keys = ["a", "b", "c"].map(|name| world.key(name));
    let mut held = Vec::new();
    for key in &keys {
        held.push(take(leases, key).await);
    }
    let entries =
        keys.iter().map(|key| Entry { key: key.clone(), item: item(b"set"), keep_for: KEEP_FOR }).collect();
    world.peer().set_many(entries).await.unwrap();
    for (key, lease) in keys.iter().zip(&held) {
        assert_void(world, key, lease, Some(b"set")).await;
    }
}

pub(crate) async fn delete_voids_a_lease(world: &World) {
    let Some(leases) = world.leases() else { return };
    for by_peer in [false, true] {
        let keys = [world.key(&format!("a {by_peer}")), world.key(&format!("b {by_peer}"))];
        let lease = take(leases, &keys[1]).await;
        let writer = if by_peer { world.peer() } else { &world.provider };
        writer.delete(&keys).await.unwrap();
        assert_void(world, &keys[1], &lease, None).await;
        let next = take(leases, &keys[1]).await;
        assert!(leases.fill(&keys[1], &next, item(b"next"), KEEP_FOR).await.unwrap());
    }
}

pub(crate) async fn clear_voids_a_lease(world: &World) {
    let Some(leases) = world.leases() else { return };
    let (key, outside) = (world.key("k"), world.prefix().space("other").key(["k"]));
    world.put(&key, b"old").await;
    let spared = take(leases, &outside).await;
    let lease = {
        let seen = item(b"old");
        match leases.take(&key, 7, LEASE_FOR, Some(&seen)).await.unwrap() {
            Leased::Granted(lease) => lease,
            other => panic!("{other:?}"),
        }
    };
    world.peer().clear(&Scope::Space(key.space())).await.unwrap();
    if world.read(&key).await.is_some() {
        // It left the entries, so it may leave the leases: what they fill is stamped with an epoch of the past.
        return world.skip("a clear that finds entries");
    }
    assert_void(world, &key, &lease, None).await;
    assert!(leases.fill(&outside, &spared, item(b"v"), KEEP_FOR).await.unwrap());
}

/// A replacement is a write like any other, but that of who only lengthens a life; it may leave the lease.
pub(crate) async fn replace_leaves_nothing_old_behind_a_lease(world: &World) {
    let Some(leases) = world.leases() else { return };
    let key = world.key("k");
    let lease = take(leases, &key).await;
    assert!(!world.provider.replace(&key, &item(b"old"), item(b"new"), KEEP_FOR).await.unwrap());
    assert!(leases.fill(&key, &lease, item(b"loaded"), KEEP_FOR).await.unwrap(), "nothing was written");
    assert_eq!(world.read(&key).await.unwrap(), b"loaded");
}

/// A write that is given up half way, or comes late, may take the lease of one that goes on. That one stores its value or none, and
/// what was there before is gone in any case: its writer is told that it is.
pub(crate) async fn write_beside_one_that_is_given_up_leaves_nothing_old(world: &World) {
    let Some(_) = world.leases() else { return };
    for round in 0..WRITES_GIVEN_UP {
        let key = world.key(&round.to_string());
        world.put(&key, b"old").await;
        let given_up = async {
            moment(GIVEN_UP_STEP * (round % 20)).await;
            tokio::select! {
                _ = world.peer().set(&key, item(b"given up"), KEEP_FOR) => {}
                () = moment(GIVEN_UP_STEP) => {}
            }
        };
        let ((), stored) = tokio::join!(given_up, world.provider.set(&key, item(b"new"), KEEP_FOR));
        stored.unwrap();
        assert_ne!(world.read(&key).await.as_deref(), Some(&b"old"[..]), "round {round}");
    }
}

pub(crate) async fn lease_ends_with_its_time(world: &World) {
    let Some(leases) = world.leases() else { return };
    let key = world.key("k");
    let Leased::Granted(lease) = leases.take(&key, 7, world.ticks(2), None).await.unwrap() else {
        panic!("nobody else is here")
    };
    world.pass(2).await;
    assert_void(world, &key, &lease, None).await;
    let next = take(peer_leases(world), &key).await;
    assert!(peer_leases(world).fill(&key, &next, item(b"next"), KEEP_FOR).await.unwrap());
}

pub(crate) async fn lease_of_another_holder_survives_a_late_fill_and_release(world: &World) {
    let Some(leases) = world.leases() else { return };
    let key = world.key("k");
    let late = take(leases, &key).await;
    world.provider.delete(std::slice::from_ref(&key)).await.unwrap();
    let next = take(peer_leases(world), &key).await;
    assert!(!leases.fill(&key, &late, item(b"late"), KEEP_FOR).await.unwrap());
    leases.release(&key, &late).await.unwrap();
    assert_held(leases, &key).await;
    assert_eq!(world.read(&key).await, None);
    assert!(peer_leases(world).fill(&key, &next, item(b"next"), KEEP_FOR).await.unwrap());
    assert_eq!(world.provider.get(&key).await.unwrap().unwrap().bytes, "next");
}

pub(crate) async fn released_lease_lets_the_next_in(world: &World) {
    let Some(leases) = world.leases() else { return };
    let key = world.key("k");
    let lease = take(leases, &key).await;
    leases.release(&key, &lease).await.unwrap();
    let next = take(peer_leases(world), &key).await;
    assert!(!leases.fill(&key, &lease, item(b"late"), KEEP_FOR).await.unwrap());
    assert!(peer_leases(world).fill(&key, &next, item(b"v"), KEEP_FOR).await.unwrap());
    leases.release(&key, &next).await.unwrap();
    let found = world.provider.get(&key).await.unwrap().unwrap();
    assert_eq!(found.bytes, "v", "a release after the fill takes nothing away");
}

pub(crate) async fn leases_of_different_keys_are_apart(world: &World) {
    let Some(leases) = world.leases() else { return };
    let (a, b) = (world.key("a"), world.key("b"));
    let lease_a = take(leases, &a).await;
    let lease_b = take(leases, &b).await;
    assert!(!leases.fill(&b, &lease_a, item(b"wrong"), KEEP_FOR).await.unwrap());
    world.provider.delete(std::slice::from_ref(&a)).await.unwrap();
    assert!(leases.fill(&b, &lease_b, item(b"right"), KEEP_FOR).await.unwrap());
}

pub(crate) async fn filled_value_lives_by_its_keep_for(world: &World) {
    let Some(leases) = world.leases() else { return };
    let key = world.key("k");
    let lease = take(leases, &key).await;
    assert!(leases.fill(&key, &lease, item(b"v"), world.ticks(2)).await.unwrap());
    assert!(world.read(&key).await.is_some());
    world.pass(2).await;
    assert_eq!(world.read(&key).await, None);
}

/// How a lease ends, each of which wakes who waits for it.
#[derive(Debug, Clone, Copy)]
enum End {
    Fill,
    Release,
    Set,
    Delete,
}

pub(crate) async fn waiter_is_woken_when_a_lease_ends(world: &World) {
    if world.lacks(Capability::PushInvalidation) {
        return;
    }
    let Some(leases) = world.leases() else { return };
    let waiting = peer_leases(world);
    for end in [End::Fill, End::Release, End::Set, End::Delete] {
        let key = world.key(&format!("{end:?}"));
        let lease = take(leases, &key).await;
        let ended = async {
            let woken = waiting.ended(&key);
            assert_held(waiting, &key).await;
            tokio::time::timeout(PATIENCE, woken).await
        };
        let act = async {
            // Not before the waiter has said that it waits.
            tokio::time::sleep(Duration::from_millis(300)).await;
            match end {
                End::Fill => assert!(leases.fill(&key, &lease, item(b"v"), KEEP_FOR).await.unwrap()),
                End::Release => leases.release(&key, &lease).await.unwrap(),
                End::Set => world.provider.set(&key, item(b"v"), KEEP_FOR).await.unwrap(),
                End::Delete => world.provider.delete(std::slice::from_ref(&key)).await.unwrap(),
            }
        };
        let (woken, ()) = tokio::join!(ended, act);
        assert!(woken.is_ok(), "nobody was woken by {end:?}");
    }
}
