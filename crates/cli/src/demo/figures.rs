//! What is computed for one destination of one alliance: the items of the demo's views.
//!
//! A flight that was cancelled or diverted has no arrival delay. It counts as a flight and is left out of every
//! delay figure. A percentile is the nearest rank: the smallest delay that at least so many percent of the
//! flights did not exceed. Everything is a whole number, so that two computations agree to the last digit.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The item that lists all others, with their fingerprints: readers hold the rest of a read against it.
pub(super) const SUMMARY: &str = "_summary";
/// Raised when the shape or meaning of an item changes: items of another format are computed anew.
const FORMAT: u32 = 1;
/// Minutes from which a flight counts as delayed: more than this.
const DELAYED_OVER_MINUTES: i64 = 15;

/// One member's place at a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) carrier: String,
    /// `None` where none of its flights arrived; such a member comes last.
    pub(super) mean_delay_seconds: Option<i64>,
}

/// An item's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Destination {
    pub(super) dest: String,
    /// What it was computed from.
    pub(super) fingerprint: String,
    pub(super) flights: usize,
    /// Of them cancelled or diverted.
    pub(super) not_arrived: usize,
    /// Of those that arrived, how many of a thousand were more than 15 minutes late.
    pub(super) delayed_per_thousand: Option<i64>,
    pub(super) mean_delay_seconds: Option<i64>,
    pub(super) p50_minutes: Option<i64>,
    pub(super) p90_minutes: Option<i64>,
    pub(super) p99_minutes: Option<i64>,
    /// Best first: by mean arrival delay in whole seconds, ties by code.
    pub(super) ranking: Vec<Place>,
}

/// The value of [`SUMMARY`]: destination and fingerprint.
pub(super) type Summary = BTreeMap<String, String>;

/// Which carrier flies where. The flights never change, so this is read once.
#[derive(Debug, Clone, Default)]
pub(super) struct Routes(BTreeMap<String, BTreeSet<String>>);

impl Routes {
    /// From pairs of destination and carrier.
    pub(super) fn new(served: Vec<(String, String)>) -> Self {
        let mut routes = BTreeMap::<String, BTreeSet<String>>::new();
        for (dest, carrier) in served {
            routes.entry(dest).or_default().insert(carrier);
        }
        Self(routes)
    }

    /// The destinations that at least two of `members` serve, with those who do.
    pub(super) fn shared(&self, members: &BTreeSet<String>) -> BTreeMap<String, Vec<String>> {
        self.0
            .iter()
            .map(|(dest, carriers)| {
                (dest.clone(), carriers.intersection(members).cloned().collect::<Vec<_>>())
            })
            .filter(|(_, serving)| serving.len() >= 2)
            .collect()
    }
}

/// Of the inputs of a destination: who serves it. The flights themselves never change.
pub(super) fn fingerprint(serving: &[String]) -> String {
    format!("{FORMAT}:{}", serving.join("+"))
}

/// Of the inputs of the summary: all destinations and who serves them follow from the members.
pub(super) fn summary_fingerprint(members: &BTreeSet<String>) -> String {
    format!("{FORMAT}:{}", members.iter().cloned().collect::<Vec<_>>().join("+"))
}

/// The summary of an alliance that serves these destinations.
pub(super) fn summary(shared: &BTreeMap<String, Vec<String>>) -> Summary {
    shared.iter().map(|(dest, serving)| (dest.clone(), fingerprint(serving))).collect()
}

/// An item, from the flights of the members that serve the destination.
pub(super) fn destination(dest: &str, serving: &[String], flights: &[(String, Option<i64>)]) -> Destination {
    let mut delays: Vec<i64> = flights.iter().filter_map(|(_, delay)| *delay).collect();
    delays.sort_unstable();
    let late = delays.len() - delays.partition_point(|delay| *delay <= DELAYED_OVER_MINUTES);
    let mut ranking: Vec<Place> = serving
        .iter()
        .map(|carrier| {
            let own = flights.iter().filter(|(by, _)| by == carrier).filter_map(|(_, delay)| *delay);
            let (sum, count) = own.fold((0, 0), |(sum, count), delay| (sum + delay, count + 1));
            Place { carrier: carrier.clone(), mean_delay_seconds: rounded(sum * 60, count) }
        })
        .collect();
    ranking.sort_by(|one, other| {
        let key = |place: &Place| (place.mean_delay_seconds.is_none(), place.mean_delay_seconds);
        key(one).cmp(&key(other)).then_with(|| one.carrier.cmp(&other.carrier))
    });
    Destination {
        dest: dest.to_owned(),
        fingerprint: fingerprint(serving),
        flights: flights.len(),
        not_arrived: flights.len() - delays.len(),
        delayed_per_thousand: rounded(number(late) * 1000, number(delays.len())),
        mean_delay_seconds: rounded(delays.iter().sum::<i64>() * 60, number(delays.len())),
        p50_minutes: nearest_rank(&delays, 50),
        p90_minutes: nearest_rank(&delays, 90),
        p99_minutes: nearest_rank(&delays, 99),
        ranking,
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// `part / whole` to the nearest whole number, halves up; `None` of nothing.
fn rounded(part: i64, whole: i64) -> Option<i64> {
    (whole > 0).then(|| (2 * part + whole).div_euclid(2 * whole))
}

/// `sorted` has the smallest first.
fn nearest_rank(sorted: &[i64], percent: usize) -> Option<i64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carriers(codes: &[&str]) -> Vec<String> {
        codes.iter().map(|code| (*code).to_owned()).collect()
    }

    #[test]
    fn nearest_rank_is_a_value_that_occurred() {
        let sorted: Vec<i64> = (1..=200).collect();
        assert_eq!(nearest_rank(&sorted, 50), Some(100));
        assert_eq!(nearest_rank(&sorted, 99), Some(198));
        assert_eq!(nearest_rank(&[7], 50), Some(7));
        assert_eq!(nearest_rank(&[1, 2, 3], 50), Some(2));
        assert_eq!(nearest_rank(&[], 50), None);
    }

    #[test]
    fn cancelled_flights_count_as_flights_and_not_as_delays() {
        let flights = [("AA", Some(16)), ("AA", None), ("DL", Some(15)), ("DL", Some(-4)), ("UA", None)]
            .map(|(carrier, delay)| (carrier.to_owned(), delay));
        let found = destination("ATL", &carriers(&["AA", "DL", "UA"]), &flights);
        assert_eq!((found.flights, found.not_arrived), (5, 2));
        assert_eq!(found.delayed_per_thousand, Some(333), "one of three; 15 minutes is not over 15");
        assert_eq!(found.mean_delay_seconds, Some(540));
        assert_eq!((found.p50_minutes, found.p99_minutes), (Some(15), Some(16)));
        let order: Vec<&str> = found.ranking.iter().map(|place| place.carrier.as_str()).collect();
        assert_eq!(order, ["DL", "AA", "UA"], "who never arrived comes last");
    }

    #[test]
    fn ties_in_the_ranking_go_by_code() {
        let flights = [("UA", Some(3)), ("AA", Some(3))].map(|(carrier, delay)| (carrier.to_owned(), delay));
        let found = destination("ATL", &carriers(&["UA", "AA"]), &flights);
        assert_eq!(found.ranking[0].carrier, "AA");
    }

    #[test]
    fn halves_round_up_on_both_sides_of_zero() {
        assert_eq!(rounded(5, 2), Some(3));
        assert_eq!(rounded(-5, 2), Some(-2));
        assert_eq!(rounded(1, 0), None);
    }

    #[test]
    fn only_what_two_members_serve_is_shared_and_only_those_who_serve_it_are_in_its_fingerprint() {
        let routes = Routes::new(
            [("ATL", "AA"), ("ATL", "DL"), ("ATL", "UA"), ("BOS", "B6"), ("BOS", "AA"), ("HNL", "HA")]
                .map(|(dest, carrier)| (dest.to_owned(), carrier.to_owned()))
                .to_vec(),
        );
        let shared = routes.shared(&carriers(&["AA", "DL", "HA"]).into_iter().collect());
        assert_eq!(summary(&shared), Summary::from([("ATL".to_owned(), "1:AA+DL".to_owned())]));
    }
}
