//! Epochs: one record for all processes, in which numbers only rise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use recache_cache::epochs::{EpochRecord, Slot};
use recache_cache::provider::{EpochStore, Scope};

use super::world::World;

async fn whole(epochs: &dyn EpochStore) -> EpochRecord {
    epochs.read(0, 0).await.unwrap().expect("nobody knows incarnation 0")
}

fn numbers(record: &EpochRecord) -> BTreeMap<Slot, u64> {
    record.epochs.iter().copied().filter(|(_, epoch)| *epoch > 0).collect()
}

fn slot(number: u16) -> Slot {
    Slot::from_number(number).unwrap()
}

pub(crate) async fn epoch_record_is_made_once(world: &World) {
    let Some(_) = world.epochs() else { return };
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let provider = Arc::clone(if number % 2 == 0 { &world.provider } else { world.peer() });
            tokio::spawn(async move { whole(provider.epochs().unwrap()).await })
        })
        .collect();
    let mut incarnations = BTreeSet::new();
    for task in tasks {
        let record = task.await.unwrap();
        incarnations.insert(record.incarnation);
        assert!(numbers(&record).is_empty());
    }
    assert_eq!(incarnations.len(), 1);
    assert!(!incarnations.contains(&0));
}

pub(crate) async fn unchanged_epoch_record_is_not_given_again(world: &World) {
    let Some(epochs) = world.epochs() else { return };
    let record = whole(epochs).await;
    assert_eq!(epochs.read(record.incarnation, record.version).await.unwrap(), None);
    let raised = world.peer().epochs().unwrap().raise(&[Slot::EVERYTHING]).await.unwrap();
    assert_eq!(raised.incarnation, record.incarnation);
    assert!(raised.version > record.version);
    let seen = epochs.read(record.incarnation, record.version).await.unwrap().expect("it has changed");
    assert_eq!((seen.incarnation, seen.version), (raised.incarnation, raised.version));
    assert_eq!(numbers(&seen), numbers(&raised));
    assert_eq!(epochs.read(seen.incarnation, seen.version).await.unwrap(), None);
    let other = epochs.read(seen.incarnation ^ 1, seen.version).await.unwrap();
    assert!(other.is_some(), "another incarnation's version says nothing");
}

pub(crate) async fn raise_reaches_its_slots_and_no_other(world: &World) {
    let Some(epochs) = world.epochs() else { return };
    let first = epochs.raise(&[slot(1), slot(300)]).await.unwrap();
    let second = epochs.raise(&[slot(300), slot(2_000)]).await.unwrap();
    let (first, second) = (numbers(&first), numbers(&second));
    assert_eq!(first.keys().copied().collect::<Vec<_>>(), [slot(1), slot(300)]);
    assert_eq!(second.keys().copied().collect::<Vec<_>>(), [slot(1), slot(300), slot(2_000)]);
    assert_eq!(second[&slot(1)], first[&slot(1)]);
    assert!(second[&slot(300)] > first[&slot(300)]);
}

pub(crate) async fn raises_at_once_are_all_counted(world: &World) {
    const TASKS: u16 = 16;
    const RAISES: u16 = 20;
    let Some(epochs) = world.epochs() else { return };
    let tasks: Vec<_> = (0..TASKS)
        .map(|number| {
            let provider = Arc::clone(if number % 2 == 0 { &world.provider } else { world.peer() });
            tokio::spawn(async move {
                let epochs = provider.epochs().unwrap();
                let mut last = 0;
                for _ in 0..RAISES {
                    let record = epochs.raise(&[slot(5), slot(100 + number)]).await.unwrap();
                    let mine = numbers(&record)[&slot(100 + number)];
                    assert!(mine > last, "a raise sees itself");
                    last = mine;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let record = whole(epochs).await;
    let epochs = numbers(&record);
    assert!(epochs[&slot(5)] >= u64::from(TASKS * RAISES), "{}", epochs[&slot(5)]);
    assert!(record.version >= u64::from(TASKS * RAISES));
    for number in 0..TASKS {
        assert!(epochs[&slot(100 + number)] >= u64::from(RAISES));
    }
}

pub(crate) async fn every_slot_can_be_raised(world: &World) {
    let Some(epochs) = world.epochs() else { return };
    let all: Vec<_> = (0..=u16::MAX).map_while(Slot::from_number).collect();
    epochs.raise(&all).await.unwrap();
    assert_eq!(numbers(&whole(epochs).await).len(), all.len());
}

pub(crate) async fn clear_leaves_the_epoch_record(world: &World) {
    let Some(epochs) = world.epochs() else { return };
    let before = epochs.raise(&[slot(7)]).await.unwrap();
    world.provider.clear(&Scope::Prefix(world.prefix())).await.unwrap();
    assert_eq!(epochs.read(before.incarnation, before.version).await.unwrap(), None);
}

pub(crate) async fn epoch_records_of_prefixes_are_apart(world: &World) {
    let Some(epochs) = world.epochs() else { return };
    let before = whole(epochs).await;
    // Another deployment beside this one clears and writes what it likes.
    let beside = world.prefix_beside();
    world.put(&beside.space("s").key(["~epochs"]), b"v").await;
    world.put(&world.prefix().space("~epochs").key::<&str>([]), b"v").await;
    world.provider.clear(&Scope::Prefix(beside)).await.unwrap();
    assert_eq!(epochs.read(before.incarnation, before.version).await.unwrap(), None);
}
