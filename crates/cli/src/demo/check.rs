//! The self-check: what an alliance's items must be, computed a second time and in another way.
//!
//! It knows neither the store nor the build handler nor `figures`: it walks over the parsed records, counts delays in
//! a table, and reads mean and percentiles off that.

use std::collections::{BTreeMap, BTreeSet};

use recache_store::Leg;
use serde_json::{Value, json};

use super::figures::SUMMARY;

/// Delay in minutes and how many flights had it.
type Delays = BTreeMap<i64, i64>;

#[derive(Debug, Default)]
struct Flown {
    flights: i64,
    delays: Delays,
}

/// Every item that an alliance of these carriers must have, the summary included.
pub(super) fn expected(legs: &[Leg], members: &BTreeSet<String>) -> BTreeMap<String, Value> {
    let mut flown: BTreeMap<&str, BTreeMap<&str, Flown>> = BTreeMap::new();
    for leg in legs.iter().filter(|leg| members.contains(&leg.carrier)) {
        let of_carrier = flown.entry(&leg.dest).or_default().entry(&leg.carrier).or_default();
        of_carrier.flights += 1;
        if let Some(delay) = leg.arr_delay {
            *of_carrier.delays.entry(delay).or_default() += 1;
        }
    }
    let mut items = BTreeMap::new();
    let mut summary = BTreeMap::new();
    for (dest, by_carrier) in flown {
        if by_carrier.len() < 2 {
            continue;
        }
        let codes: Vec<&str> = by_carrier.keys().copied().collect();
        let fingerprint = format!("1:{}", codes.join("+"));
        summary.insert(dest.to_owned(), fingerprint.clone());
        items.insert(dest.to_owned(), item(dest, &fingerprint, &by_carrier));
    }
    items.insert(SUMMARY.to_owned(), json!(summary));
    items
}

fn item(dest: &str, fingerprint: &str, by_carrier: &BTreeMap<&str, Flown>) -> Value {
    let mut all = Delays::new();
    let mut flights = 0;
    let mut order: Vec<(Option<i64>, &str)> = Vec::new();
    for (carrier, flown) in by_carrier {
        flights += flown.flights;
        for (delay, count) in &flown.delays {
            *all.entry(*delay).or_default() += count;
        }
        order.push((mean_seconds(&flown.delays), carrier));
    }
    order.sort_by_key(|(mean, carrier)| (mean.unwrap_or(i64::MAX), *carrier));
    let ranking: Vec<Value> = order
        .iter()
        .map(|(mean, carrier)| json!({ "carrier": carrier, "mean_delay_seconds": mean }))
        .collect();
    let arrived: i64 = all.values().sum();
    let late: i64 = all.range(16..).map(|(_, count)| count).sum();
    json!({
        "dest": dest,
        "fingerprint": fingerprint,
        "flights": flights,
        "not_arrived": flights - arrived,
        "delayed_per_thousand": nearest(late * 1000, arrived),
        "mean_delay_seconds": mean_seconds(&all),
        "p50_minutes": percentile(&all, 50),
        "p90_minutes": percentile(&all, 90),
        "p99_minutes": percentile(&all, 99),
        "ranking": ranking,
    })
}

fn mean_seconds(delays: &Delays) -> Option<i64> {
    let sum: i64 = delays.iter().map(|(delay, count)| delay * count * 60).sum();
    nearest(sum, delays.values().sum())
}

/// The whole number next to a quotient; of two equally near ones the larger.
fn nearest(part: i64, whole: i64) -> Option<i64> {
    if whole == 0 {
        return None;
    }
    let (below, rest) = (part.div_euclid(whole), part.rem_euclid(whole));
    Some(if rest * 2 >= whole { below + 1 } else { below })
}

/// The first delay at which the flights counted so far are at least `percent` of all.
fn percentile(delays: &Delays, percent: i64) -> Option<i64> {
    let all: i64 = delays.values().sum();
    let mut so_far = 0;
    for (delay, count) in delays {
        so_far += count;
        if so_far * 100 >= all * percent {
            return Some(*delay);
        }
    }
    None
}

/// What differs between the items that must be and those that were found, by name; empty when nothing does.
pub(super) fn differences(
    expected: &BTreeMap<String, Value>,
    found: &BTreeMap<String, Value>,
) -> Vec<String> {
    let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| match (expected.get(name), found.get(name)) {
            (Some(must), Some(is)) if must == is => None,
            (Some(_), Some(_)) => Some(format!("{name} has another value")),
            (Some(_), None) => Some(format!("{name} is absent")),
            (None, _) => Some(format!("{name} should not be there")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::figures::{self, Routes};
    use super::*;

    fn legs() -> Vec<Leg> {
        let mut legs = Vec::new();
        for number in 0..500_i64 {
            let carrier = ["AA", "DL", "UA", "B6"][usize::try_from(number % 4).unwrap()];
            let dest = ["ATL", "BOS", "HNL"][usize::try_from(number * 7 % 3).unwrap()];
            let arr_delay = (number % 11 != 0).then_some(number * 37 % 120 - 30);
            legs.push(Leg { carrier: carrier.to_owned(), dest: dest.to_owned(), arr_delay });
        }
        legs.push(Leg { carrier: "HA".to_owned(), dest: "HNL".to_owned(), arr_delay: None });
        legs
    }

    #[test]
    fn both_ways_of_computing_agree() {
        let legs = legs();
        let routes = Routes::new(legs.iter().map(|leg| (leg.dest.clone(), leg.carrier.clone())).collect());
        let members: BTreeSet<String> = ["AA", "HA", "UA"].map(str::to_owned).into();
        let shared = routes.shared(&members);
        assert!(!shared.is_empty());
        let mut found = BTreeMap::from([(SUMMARY.to_owned(), json!(figures::summary(&shared)))]);
        for (dest, serving) in &shared {
            let flights: Vec<_> = legs
                .iter()
                .filter(|leg| leg.dest == *dest && serving.contains(&leg.carrier))
                .map(|leg| (leg.carrier.clone(), leg.arr_delay))
                .collect();
            found.insert(dest.clone(), json!(figures::destination(dest, serving, &flights)));
        }
        assert_eq!(differences(&expected(&legs, &members), &found), Vec::<String>::new());
    }

    #[test]
    fn differences_are_named() {
        let (must, is) = (json!({ "n": 1 }), json!({ "n": 2 }));
        let expected = BTreeMap::from([("ATL".to_owned(), must.clone()), ("BOS".to_owned(), must.clone())]);
        let found = BTreeMap::from([("ATL".to_owned(), is), ("HNL".to_owned(), must)]);
        assert_eq!(
            differences(&expected, &found),
            ["ATL has another value", "BOS is absent", "HNL should not be there"]
        );
    }
}
