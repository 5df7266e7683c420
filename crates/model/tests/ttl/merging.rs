//! Observations of many processes: merging obeys its laws, and what is concluded is right.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use recache_model::time::Timestamp;
use recache_model::ttl::{CLASSES_MAX, Classes, Observation, Phase, Settings};

const WINDOW: Duration = Duration::from_secs(3_600);

fn settings() -> Settings {
    Settings { window: WINDOW, ..Settings::default() }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::default().plus(Duration::from_secs(seconds))
}

fn observation() -> impl Strategy<Value = (u8, u64, Observation)> {
    let seconds = Duration::from_secs;
    let seen = prop_oneof![
        (1..50_u64).prop_map(Observation::Reads),
        (1..500_u64, any::<bool>(), 0..5_u64).prop_map(move |(age, changed, cost)| {
            Observation::Rebuilt {
                age: seconds(age),
                changed,
                cost: seconds(cost),
                life: Duration::from_secs(1),
                reads: 1,
            }
        }),
        (0..5_u64).prop_map(move |cost| Observation::Made { cost: seconds(cost) }),
        (1..5_u64).prop_map(Observation::Invalidated),
    ];
    (0..3_u8, 0..9_000_u64, seen)
}

fn seen_by(instance: u64, seen: &[(u8, u64, Observation)]) -> Classes {
    let mut classes = Classes::default();
    for (class, second, one) in seen {
        assert!(classes.observe(
            &format!("class {class}"),
            Phase::default(),
            instance,
            at(*second),
            &settings(),
            *one
        ));
    }
    classes
}

proptest! {
    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        one in vec(observation(), 0..20),
        two in vec(observation(), 0..20),
        three in vec(observation(), 0..20),
    ) {
        let [one, two, three] = [(1, one), (2, two), (3, three)].map(|(instance, seen)| seen_by(instance, &seen));
        let merged = |parts: &[&Classes]| {
            let mut all = Classes::default();
            for part in parts {
                all.merge(part);
            }
            all
        };
        let all = merged(&[&one, &two, &three]);
        prop_assert_eq!(&all, &merged(&[&three, &one, &two, &one]));
        prop_assert_eq!(&all, &merged(&[&merged(&[&one, &two]), &merged(&[&three, &two])]));
        for instance in 1..4 {
            let own = all.of_instance(instance);
            prop_assert_eq!(&all, &merged(&[&all, &own]));
        }
        // What was lost on the way is made up for by the next message.
        let mut late = one.clone();
        prop_assert!(late.observe("class 0", Phase::default(), 1, at(9_000), &settings(), Observation::Reads(5)));
        prop_assert_eq!(&merged(&[&one, &late]), &late);
    }

    #[test]
    fn many_processes_conclude_what_one_would(seen in vec(observation(), 1..40)) {
        let single = seen_by(1, &seen);
        let mut fleet = Classes::default();
        for (place, one) in seen.iter().enumerate() {
            let instance = u64::try_from(place % 4).unwrap();
            let mut own = fleet.of_instance(instance);
            own.merge(&fleet);
            let was_counted = own.observe(&format!("class {}", one.0), Phase::default(), instance, at(one.1), &settings(), one.2);
            prop_assert!(was_counted);
            fleet.merge(&own);
        }
        let (one, many) = (single.observed(at(9_000), &settings()), fleet.observed(at(9_000), &settings()));
        prop_assert_eq!(one.len(), many.len());
        for ((_, _, one), (_, _, many)) in one.iter().zip(&many) {
            prop_assert!((one.rates.changes_per_s - many.rates.changes_per_s).abs() < 1e-9);
            prop_assert!((one.rates.reads_per_s - many.rates.reads_per_s).abs() < 1e-9);
        }
    }
}

#[test]
fn change_rate_is_found_although_several_changes_look_like_one() {
    // A change every 100 s, looked for every 150 s: 1 - exp(-1.5) of lives have changed.
    let mut classes = Classes::default();
    for rebuild in 0..1_000_u64 {
        let seen = Observation::Rebuilt {
            age: Duration::from_secs(150),
            changed: rebuild % 1_000 < 777,
            cost: Duration::ZERO,
            life: Duration::from_secs(1),
            reads: 1,
        };
        assert!(classes.observe("a", Phase::default(), 1, at(100), &settings(), seen));
    }
    assert!(classes.observe("a", Phase::default(), 1, at(100), &settings(), Observation::Reads(500)));
    let observed = classes.observed(at(200), &settings())[0].2;
    assert!((observed.rates.changes_per_s * 100.0 - 1.0).abs() < 0.01, "{observed:?}");
    assert!(
        (observed.rates.reads_per_s - 5.0).abs() < 1e-9,
        "500 reads in the 100 s since the first: {observed:?}"
    );
}

#[test]
fn class_that_was_hardly_seen_is_taken_for_a_common_one() {
    let mut classes = Classes::default();
    for _ in 0..200 {
        let seen = Observation::Rebuilt {
            age: Duration::from_secs(10),
            changed: true,
            cost: Duration::from_secs(1),
            life: Duration::from_secs(1),
            reads: 1,
        };
        assert!(classes.observe("busy", Phase::default(), 1, at(100), &settings(), seen));
    }
    for class in ["busy", "new"] {
        assert!(classes.observe(class, Phase::default(), 1, at(100), &settings(), Observation::Reads(10)));
    }
    let observed = classes.observed(at(160), &settings());
    let [(_, _, busy), (_, _, new)] = observed.as_slice() else { panic!("{observed:?}") };
    assert!((busy.rates.changes_per_s / new.rates.changes_per_s - 1.0).abs() < 0.02);
    assert!((new.rates.rebuild_s - 1.0).abs() < 1e-9, "what others cost");
}

#[test]
fn old_stretches_fade_and_are_forgotten() {
    let mut classes = Classes::default();
    let rebuilt = Observation::Rebuilt {
        age: Duration::from_secs(5),
        changed: true,
        cost: Duration::ZERO,
        life: Duration::from_secs(1),
        reads: 1,
    };
    assert!(classes.observe("a", Phase::default(), 1, at(10), &settings(), Observation::Reads(3_600)));
    assert!(classes.observe("a", Phase::default(), 1, at(10), &settings(), rebuilt));
    let reads = |classes: &Classes, second| {
        classes.observed(at(second), &settings()).first().map(|(_, _, observed)| observed.rates.reads_per_s)
    };
    assert!((reads(&classes, 3_610).unwrap() - 1.0).abs() < 0.01);
    assert!((reads(&classes, 5_400).unwrap() - 0.5).abs() < 0.01, "half of it lies in the last hour");
    assert_eq!(reads(&classes, 7_200), None);
    classes.forget(at(7_200), WINDOW);
    assert!(classes.is_empty());
}

#[test]
fn classes_are_bounded() {
    let mut classes = Classes::default();
    for class in 0..CLASSES_MAX {
        assert!(classes.observe(
            &class.to_string(),
            Phase::default(),
            1,
            at(1),
            &settings(),
            Observation::Reads(1)
        ));
    }
    assert!(!classes.observe("one more", Phase::default(), 1, at(1), &settings(), Observation::Reads(1)));
    assert!(classes.observe("7", Phase::default(), 1, at(1), &settings(), Observation::Reads(1)));
    let mut other = Classes::default();
    assert!(other.observe("one more", Phase::default(), 2, at(1), &settings(), Observation::Reads(1)));
    classes.merge(&other);
    assert_eq!(classes.len(), CLASSES_MAX);
}
