//! The adaptive way against the best fixed one, on traces with seeds.

use recache_model::ttl::Settings;
use recache_model::ttl::simulation::{Departure, Trace, Way, bursts, compare, flights, play, zipf};

/// Short traces, so that a debug build plays them in seconds; `recache cache ttl simulate` plays the long ones.
fn judged(trace: &Trace, saved_min: f64) {
    let settings = Settings::default();
    let rows = compare(trace, &settings);
    let adaptive = rows[0].outcome.unwrap();
    // The budget is for the 99th percentile; the traces are no Poisson processes, and the first hours are for learning.
    let budget = settings.staleness.as_secs_f64();
    assert!(adaptive.staleness_p99_s <= budget * 1.5, "{}", adaptive.staleness_p99_s);
    for row in &rows[1..] {
        assert!(row.saved.unwrap() >= saved_min, "{:?}: {:?}", row.way, row.saved);
        assert!(row.outcome.unwrap().staleness_p99_s <= adaptive.staleness_p99_s);
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
