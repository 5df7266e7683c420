//! The adaptive way against the best fixed one, on traces with seeds.

use recache_model::ttl::Settings;
use recache_model::ttl::simulation::{Departure, Trace, Way, bursts, compare, flights, least, play, zipf};

/// Short traces, so that a debug build plays them in seconds; `recache cache ttl simulate` plays the long ones.
fn judged(trace: &Trace, saved_min: f64) {
    let settings = Settings::default();
    let rows = compare(trace, &settings);
    let adaptive = rows[0].outcome.unwrap();
    // The budget is for the 99th percentile; the traces are no Poisson processes, and the first hours are for learning.
    let budget = settings.staleness.as_secs_f64();
    assert!(adaptive.staleness_p99_s <= budget * 1.5, "{}", adaptive.staleness_p99_s);
    for row in &rows[1..] {
        if !matches!(row.way, Way::Told(_)) {
            assert!(row.saved.unwrap() >= saved_min, "{:?}: {:?}", row.way, row.saved);
        }
        assert!(row.outcome.is_none_or(|one| one.staleness_p99_s <= adaptive.staleness_p99_s));
    }
    // Nobody does better than who knows the future.
    let bound = least(trace, adaptive.staleness_p99_s);
    for outcome in rows.iter().filter_map(|row| row.outcome) {
        let rebuilds = f64::from(u32::try_from(outcome.rebuilds).unwrap());
        assert!(bound.rebuilds > 0.0 && rebuilds >= bound.rebuilds, "{outcome:?} {bound:?}");
        assert!(bound.cost_s > 0.0 && outcome.cost_s >= bound.cost_s, "{outcome:?} {bound:?}");
    }
}

#[test]
fn lives_by_rule_save_rebuilds_under_zipf_and_the_sun() {
    judged(&zipf(60, 2, 1.0, 7), 0.30);
}

#[test]
fn lives_by_rule_save_rebuilds_with_a_bursty_writer() {
    judged(&bursts(60, 2, 1.0, 7), 0.30);
}

/// A seed that nothing was ever looked at with.
const FRESH: u64 = 20_261_127;

#[test]
fn lives_by_rule_save_rebuilds_under_zipf_with_a_fresh_seed() {
    judged(&zipf(60, 2, 1.0, FRESH), 0.30);
}

#[test]
fn lives_by_rule_save_rebuilds_with_a_bursty_writer_with_a_fresh_seed() {
    judged(&bursts(60, 2, 1.0, FRESH), 0.30);
}

/// The bound against all sequences of rebuilds there are: of one key with few reads.
#[test]
fn nothing_is_possible_below_the_bound_and_the_bound_is_reached() {
    for (changes, reads, staleness_s) in [
        (vec![4.5, 9.5], 12, 2.0),
        (vec![0.5, 1.5, 2.5, 3.5], 10, 1.0),
        (vec![], 9, 1.0),
        (vec![3.5, 3.6, 8.5], 12, 0.5),
    ] {
        let trace = Trace {
            name: "by hand",
            costs: vec![0.5],
            changes: vec![changes.clone()],
            reads: (0..reads).map(|second| (f64::from(second), 0)).collect(),
        };
        // Fewer than a hundred reads: none may be too stale. The first read has its value made.
        let is_good = |made: u32| {
            let mut held = 0.0;
            (0..reads).all(|second| {
                let at = f64::from(second);
                if second == 0 || made & (1 << second) != 0 {
                    held = at;
                }
                changes.iter().find(|change| **change > held).is_none_or(|change| at - change <= staleness_s)
            })
        };
        let fewest =
            (0..1_u32 << reads).filter(|made| made & 1 == 1 && is_good(*made)).map(u32::count_ones).min();
        let bound = least(&trace, staleness_s);
        let fewest = f64::from(fewest.unwrap());
        assert!((bound.rebuilds - fewest).abs() < 1e-6, "{bound:?}, not {fewest}: {changes:?}");
        assert!((bound.cost_s - fewest * 0.5).abs() < 1e-6, "{bound:?}");
    }
}

#[test]
fn traces_are_the_same_for_the_same_seed() {
    assert_eq!(zipf(5, 1, 0.1, 3), zipf(5, 1, 0.1, 3));
    assert_ne!(bursts(5, 1, 0.1, 3), bursts(5, 1, 0.1, 4));
    let departures: Vec<Departure> = (0..20).map(|place| Departure { day: place / 10, key: 0 }).collect();
    let trace = flights(&departures, 1, 0.01, 3);
    assert_eq!(trace.changes[0].len(), 20);
    assert!(trace.changes[0].is_sorted() && trace.reads.is_sorted_by(|one, other| one.0 <= other.0));
    // 0.01 reads a second for two days.
    assert!((1_500..1_950).contains(&trace.reads.len()), "{}", trace.reads.len());
}

#[test]
fn staleness_is_read_off_the_trace() {
    // One key, changed at 10 s, read every second until 40 s; a life of 25 s.
    let trace = Trace {
        name: "by hand",
        costs: vec![0.5],
        changes: vec![vec![10.0]],
        reads: (0..40).map(|second| (f64::from(second), 0)).collect(),
    };
    let outcome = play(&trace, &Way::Fixed { life_s: 25.0 });
    assert_eq!((outcome.reads, outcome.rebuilds), (40, 2));
    assert!((outcome.cost_s - 1.0).abs() < 1e-12);
    // Seconds 10 to 24 are stale, by 0 to 14 s.
    assert!((outcome.stale_share - 15.0 / 40.0).abs() < 1e-12);
    assert!((outcome.staleness_p99_s - 14.0).abs() < 1e-12);
}
