//! Replacing what was seen, and nothing else.

use std::sync::Arc;

use recache_cache::provider::Capability;

use super::world::{KEEP_FOR, World, item};

pub(crate) async fn replace_stores_only_over_what_was_seen(world: &World) {
    let (provider, key) = (&world.provider, world.key("k"));
    assert!(
        !provider.replace(&key, &item(b"old"), item(b"new"), KEEP_FOR).await.unwrap(),
        "nothing is there"
    );
    assert_eq!(world.read(&key).await, None);
    if world.lacks(Capability::CompareAndSwap) {
        return;
    }
    world.put(&key, b"old").await;
    assert!(!provider.replace(&key, &item(b"other"), item(b"new"), KEEP_FOR).await.unwrap());
    assert_eq!(world.read(&key).await.unwrap(), b"old");
    assert!(provider.replace(&key, &item(b"old"), item(b"new"), KEEP_FOR).await.unwrap());
    assert_eq!(world.read(&key).await.unwrap(), b"new");
    provider.delete(std::slice::from_ref(&key)).await.unwrap();
    assert!(!provider.replace(&key, &item(b"new"), item(b"newer"), KEEP_FOR).await.unwrap());
    assert_eq!(world.read(&key).await, None, "a removed entry does not come back");
}

pub(crate) async fn replaced_value_lives_by_its_own_keep_for(world: &World) {
    if world.lacks(Capability::CompareAndSwap) {
        return;
    }
    let (provider, key) = (&world.provider, world.key("k"));
    world.put(&key, b"old").await;
    assert!(provider.replace(&key, &item(b"old"), item(b"new"), world.ticks(2)).await.unwrap());
    world.pass(2).await;
    assert_eq!(world.read(&key).await, None);
}

pub(crate) async fn of_many_replacements_of_one_value_one_succeeds(world: &World) {
    if world.lacks(Capability::CompareAndSwap) {
        return;
    }
    let key = world.key("k");
    for round in 0..20 {
        world.put(&key, b"seen").await;
        let tasks: Vec<_> = (0..8)
            .map(|number| {
                let provider = Arc::clone(if number % 2 == 0 { &world.provider } else { world.peer() });
                let key = key.clone();
                let mine = item(format!("from {number}").as_bytes());
                tokio::spawn(async move {
                    let done = provider.replace(&key, &item(b"seen"), mine.clone(), KEEP_FOR).await.unwrap();
                    done.then(|| mine.bytes.clone())
                })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            winners.extend(task.await.unwrap());
        }
        assert_eq!(winners.len(), 1, "round {round}");
        let found = world.provider.get(&key).await.unwrap().unwrap();
        assert_eq!(found.bytes, winners[0]);
    }
}
