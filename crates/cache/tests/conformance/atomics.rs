//! Values that many processes change at once: nothing is lost.

use std::sync::Arc;

use bytes::Bytes;
use recache_cache::Key;
use recache_cache::provider::Atomics;

use super::world::{KEEP_FOR, World};

async fn number(atomics: &dyn Atomics, key: &Key) -> Option<i64> {
    let bytes = atomics.read(key).await.unwrap()?;
    Some(std::str::from_utf8(&bytes).unwrap().trim().parse().unwrap())
}

pub(crate) async fn adds_at_once_are_all_counted(world: &World) {
    const TASKS: i64 = 16;
    const ADDS: i64 = 1_000;
    let Some(atomics) = world.atomics() else { return };
    let key = world.key("counter");
    let tasks: Vec<_> = (0..TASKS)
        .map(|number| {
            let provider = Arc::clone(if number % 2 == 0 { &world.provider } else { world.peer() });
            let key = key.clone();
            tokio::spawn(async move {
                let atomics = provider.atomics().unwrap();
                let mut last = 0;
                for _ in 0..ADDS {
                    let now = atomics.add(&key, 1, KEEP_FOR).await.unwrap();
                    assert!(now > last, "each add gets a number of its own");
                    last = now;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(number(atomics, &key).await, Some(TASKS * ADDS));
}

pub(crate) async fn added_number_can_be_read_and_ends_with_its_keep_for(world: &World) {
    let Some(atomics) = world.atomics() else { return };
    let key = world.key("gauge");
    assert_eq!(number(atomics, &key).await, None);
    assert_eq!(atomics.add(&key, 5, KEEP_FOR).await.unwrap(), 5);
    assert_eq!(atomics.add(&key, -7, KEEP_FOR).await.unwrap(), -2);
    assert_eq!(number(atomics, &key).await, Some(-2));
    assert_eq!(atomics.add(&key, 0, world.ticks(2)).await.unwrap(), -2);
    world.pass(2).await;
    assert_eq!(number(atomics, &key).await, None, "the last keep-for counts");
    assert_eq!(atomics.add(&key, 1, KEEP_FOR).await.unwrap(), 1);
}

pub(crate) async fn compare_and_swap_swaps_only_what_is_expected(world: &World) {
    let Some(atomics) = world.atomics() else { return };
    let key = world.key("k");
    let swap = async |expected: Option<&[u8]>, new: Option<&'static [u8]>| {
        atomics.compare_and_swap(&key, expected, new.map(Bytes::from_static), KEEP_FOR).await.unwrap()
    };
    let there = async || atomics.read(&key).await.unwrap().map(|bytes| bytes.to_vec());
    assert!(!swap(Some(b"x"), Some(b"y")).await, "nothing is there");
    assert!(!swap(Some(b""), Some(b"y")).await, "nothing is not an empty value");
    assert!(swap(None, None).await);
    assert_eq!(there().await, None);
    assert!(swap(None, Some(b"a\r\n\0")).await);
    assert!(!swap(None, Some(b"b")).await);
    assert!(!swap(Some(b"a"), Some(b"b")).await);
    assert_eq!(there().await.unwrap(), b"a\r\n\0");
    assert!(swap(Some(b"a\r\n\0"), Some(b"")).await);
    assert_eq!(there().await.unwrap(), b"");
    assert!(!swap(None, Some(b"b")).await, "an empty value is not nothing");
    assert!(!swap(Some(b"b"), None).await);
    assert!(swap(Some(b""), None).await);
    assert_eq!(there().await, None);
    assert!(
        atomics.compare_and_swap(&key, None, Some(Bytes::from_static(b"v")), world.ticks(2)).await.unwrap()
    );
    world.pass(2).await;
    assert_eq!(there().await, None);
    assert!(swap(None, Some(b"v")).await);
}

pub(crate) async fn swaps_at_once_lose_nothing(world: &World) {
    const TASKS: usize = 8;
    const SWAPS: usize = 25;
    let Some(atomics) = world.atomics() else { return };
    let key = world.key("k");
    let tasks: Vec<_> = (0..TASKS)
        .map(|number| {
            let provider = Arc::clone(if number % 2 == 0 { &world.provider } else { world.peer() });
            let key = key.clone();
            tokio::spawn(async move {
                let atomics = provider.atomics().unwrap();
                for _ in 0..SWAPS {
                    loop {
                        let old = atomics.read(&key).await.unwrap();
                        let count: usize = match &old {
                            Some(bytes) => std::str::from_utf8(bytes).unwrap().parse().unwrap(),
                            None => 0,
                        };
                        let new = Some(Bytes::from((count + 1).to_string()));
                        if atomics.compare_and_swap(&key, old.as_deref(), new, KEEP_FOR).await.unwrap() {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let found = atomics.read(&key).await.unwrap().unwrap();
    assert_eq!(&found[..], (TASKS * SWAPS).to_string().as_bytes());
}
