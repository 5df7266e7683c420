//! The rule against brute force and against what is known in closed form.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use recache_model::ttl::{Bound, Correction, Rates, Saves, Settings, decide};

/// By summing over ages instead of integrating in closed form.
fn share_by_sum(rates: &Rates, ttl: f64, within: f64) -> f64 {
    const PARTS: u32 = 4_000;
    let step = ttl / f64::from(PARTS);
    let stale: f64 = (0..PARTS)
        .map(|part| {
            let age = (f64::from(part) + 0.5) * step;
            step * (1.0 - (-rates.changes_per_s * (age - within).max(0.0)).exp())
        })
        .sum();
    stale / (ttl + 1.0 / rates.reads_per_s)
}

fn rates() -> impl Strategy<Value = Rates> {
    // Even in the logarithm: a read from every 20 minutes to 50 a second, a change from every 20 s to every 5 days.
    (-7.0..4.0_f64, -13.0..-3.0_f64, -5.0..1.0_f64).prop_map(|(reads, changes, cost)| Rates {
        reads_per_s: reads.exp(),
        changes_per_s: changes.exp(),
        rebuild_s: cost.exp(),
    })
}

#[test]
fn life_is_the_square_root_where_reads_are_many_and_changes_few() {
    let one = Rates { reads_per_s: 100.0, changes_per_s: 1e-6, rebuild_s: 0.3 };
    let other = Rates { reads_per_s: 100.0, changes_per_s: 4e-6, rebuild_s: 0.1 };
    let settings =
        Settings { stale_share_max: 1e-4, class_share_max: 0.5, saves: Saves::Cost, ..Settings::default() };
    let decisions = decide(&[one, other], &settings);
    for (rates, decision) in [one, other].iter().zip(&decisions.classes) {
        let within = settings.staleness.as_secs_f64();
        let expected = (within * within
            + 2.0 * rates.rebuild_s / (decisions.price * rates.reads_per_s * rates.changes_per_s))
            .sqrt();
        let ttl = decision.ttl.as_secs_f64();
        assert!((ttl / expected - 1.0).abs() < 0.01, "{ttl}, not {expected}");
        assert_eq!(decision.bound, None);
    }
    assert!(
        (decisions.stale_share / 1e-4 - 1.0).abs() < 0.01,
        "the budget is used up: {}",
        decisions.stale_share
    );
}

#[test]
fn what_never_changes_lives_as_long_as_it_may() {
    let never = Rates { reads_per_s: 1.0, changes_per_s: 0.0, rebuild_s: 0.1 };
    let decision = decide(&[never], &Settings::default()).classes[0];
    assert_eq!((decision.ttl, decision.bound), (Settings::default().ttl_max, Some(Bound::TtlMax)));
}

#[test]
fn no_class_is_given_up_for_the_others() {
    let mostly_quiet = Rates { reads_per_s: 1_000.0, changes_per_s: 1e-5, rebuild_s: 0.1 };
    let restless = Rates { reads_per_s: 1.0, changes_per_s: 1.0, rebuild_s: 10.0 };
    let decisions = decide(&[mostly_quiet, restless], &Settings::default());
    assert!(decisions.classes[1].stale_share <= Settings::default().class_share_max * 1.001);
    assert_eq!(decisions.classes[1].bound, Some(Bound::ClassShareMax));
    let free = Settings { class_share_max: 0.999_9, ..Settings::default() };
    assert!(decide(&[mostly_quiet, restless], &free).classes[1].stale_share > 0.5, "it would be");
}

#[test]
fn rates_that_are_no_numbers_do_no_harm() {
    let odd = Rates { reads_per_s: f64::NAN, changes_per_s: f64::INFINITY, rebuild_s: -1.0 };
    let good = Rates { reads_per_s: 5.0, changes_per_s: 0.01, rebuild_s: 0.1 };
    let decisions = decide(&[odd, good], &Settings::default());
    assert!(decisions.stale_share <= 0.01 && decisions.price.is_finite());
    assert!(decisions.classes[1].ttl >= Settings::default().staleness);
    assert!(decide(&[], &Settings::default()).classes.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn budget_holds_and_no_other_lives_within_it_cost_less(
        classes in vec(rates(), 1..4),
        shifts in vec(-0.7..0.7_f64, 4),
    ) {
        let settings = Settings { class_share_max: 0.5, saves: Saves::Cost, ..Settings::default() };
        let within = settings.staleness.as_secs_f64();
        let decisions = decide(&classes, &settings);
        let reads: f64 = classes.iter().map(|class| class.reads_per_s).sum();
        let stale_and_cost = |lives: &[f64]| {
            let stale: f64 =
                classes.iter().zip(lives).map(|(class, ttl)| class.reads_per_s * share_by_sum(class, *ttl, within)).sum();
            let cost: f64 =
                classes.iter().zip(lives).map(|(class, ttl)| class.rebuild_s / (ttl + 1.0 / class.reads_per_s)).sum();
            (stale / reads, cost)
        };
        let lives: Vec<f64> = decisions.classes.iter().map(|decision| decision.ttl.as_secs_f64()).collect();
        let (stale, cost) = stale_and_cost(&lives);
        prop_assert!(stale <= settings.stale_share_max * 1.02, "{stale}");
        prop_assert!((stale - decisions.stale_share).abs() <= 0.001, "{} is told as {}", stale, decisions.stale_share);
        for (decision, class) in decisions.classes.iter().zip(&classes) {
            prop_assert!(decision.ttl >= settings.ttl_min && decision.ttl <= settings.ttl_max);
            prop_assert!(decision.stale_share <= settings.class_share_max * 1.01);
            let rebuilds = 1.0 / (decision.ttl.as_secs_f64() + 1.0 / class.reads_per_s);
            prop_assert!((decision.rebuilds_per_s / rebuilds - 1.0).abs() < 1e-6);
        }
        // Any other lives between the bounds: they cost more, or they are too stale.
        let others: Vec<f64> = lives
            .iter()
            .zip(&shifts)
            .zip(&classes)
            .map(|((ttl, shift), class)| {
                let other = (ttl * shift.exp()).clamp(1.0, settings.ttl_max.as_secs_f64());
                let is_allowed = share_by_sum(class, other, within) <= settings.class_share_max;
                if is_allowed { other } else { *ttl }
            })
            .collect();
        let (other_stale, other_cost) = stale_and_cost(&others);
        prop_assert!(
            other_stale > stale - 2e-4 || other_cost >= cost * 0.999,
            "{:?} cost {} at {}; {:?} cost {} at {}", lives, cost, stale, others, other_cost, other_stale
        );
        // The exact statement: at the price that was found nothing is better.
        let at_price = |(stale, cost): (f64, f64)| cost + decisions.price * stale * reads;
        prop_assert!(at_price((other_stale, other_cost)) >= at_price((stale, cost)) * 0.995 - 1e-9);
    }

    /// What saves some of both makes fewer values than what saves cost alone, and cheaper ones than what saves rebuilds alone.
    #[test]
    fn what_saves_both_lies_between_what_saves_either(classes in vec(rates(), 1..6)) {
        let saves = |saves| {
            let decided = decide(&classes, &Settings { saves, ..Settings::default() });
            let rebuilds: f64 = decided.classes.iter().map(|one| one.rebuilds_per_s).sum();
            let cost: f64 =
                decided.classes.iter().zip(&classes).map(|(one, class)| one.rebuilds_per_s * class.rebuild_s).sum();
            (rebuilds, cost, decided.stale_share)
        };
        let [both, cost, rebuilds] = Saves::ALL.map(saves);
        // All three use the budget up, but for what a step of the search leaves.
        for (_, _, share) in [both, cost, rebuilds] {
            prop_assert!(share <= Settings::default().stale_share_max * 1.001);
        }
        prop_assert!(both.0 <= cost.0 * 1.01 && both.0 >= rebuilds.0 * 0.99, "{both:?} {cost:?} {rebuilds:?}");
        prop_assert!(both.1 >= cost.1 * 0.99 && both.1 <= rebuilds.1 * 1.01, "{both:?} {cost:?} {rebuilds:?}");
    }

    #[test]
    fn a_tighter_budget_never_lengthens_a_life(classes in vec(rates(), 1..5)) {
        let loose = Settings { stale_share_max: 0.05, class_share_max: 0.5, ..Settings::default() };
        let tight = Settings { stale_share_max: 0.005, ..loose };
        let pairs = decide(&classes, &loose).classes.into_iter().zip(decide(&classes, &tight).classes);
        for (loose, tight) in pairs {
            prop_assert!(tight.ttl <= loose.ttl + Duration::from_millis(1));
        }
    }
}

#[test]
fn planned_share_follows_what_is_measured() {
    let settings = Settings::default();
    let mut correction = Correction::default();
    // Twice as many stale reads as the budget allows, each time.
    let mut share = settings.stale_share_max;
    for look in 1..=5_u32 {
        let seen = (f64::from(look) * 1_000.0, f64::from(look) * 20.0);
        let corrected = correction.correct(&settings, seen).stale_share_max;
        assert!(corrected < share, "{corrected} after {share}");
        share = corrected;
    }
    // Nothing new says nothing; what was forgotten neither.
    assert!((correction.correct(&settings, (5_000.0, 100.0)).stale_share_max - share).abs() < 1e-12);
    assert!((correction.correct(&settings, (10.0, 1.0)).stale_share_max - share).abs() < 1e-12);
    for look in 1..=40_u32 {
        share = correction.correct(&settings, (10.0 + f64::from(look) * 1_000.0, 1.0)).stale_share_max;
    }
    assert!(share > settings.stale_share_max && share <= settings.stale_share_max * 2.0, "{share}");
}
