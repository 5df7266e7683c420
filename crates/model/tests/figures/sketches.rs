//! Quantiles within their error, however they were merged.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use recache_model::figures::Sketch;

/// The true one: of rank `ceil(part * count)`.
fn true_quantile(sorted: &[u64], part: f64) -> u64 {
    let count = u32::try_from(sorted.len()).unwrap();
    let rank = (1..=count).find(|rank| f64::from(*rank) >= f64::from(count) * part - 1e-9).unwrap_or(count);
    sorted[usize::try_from(rank).unwrap() - 1]
}

/// Even in the logarithm: from a microsecond to years.
fn micros() -> impl Strategy<Value = u64> {
    (0_u32..47, any::<u32>()).prop_map(|(bits, low)| (1_u64 << bits) + u64::from(low) % (1_u64 << bits))
}

proptest! {
    #[test]
    fn quantile_is_off_by_one_part_in_a_hundred_at_most(
        mut values in vec(micros(), 1..300),
        part in 0.0..=1.0_f64,
        split in any::<prop::sample::Index>(),
    ) {
        let at = split.index(values.len());
        let mut halves = [Sketch::default(), Sketch::default()];
        for (place, value) in values.iter().enumerate() {
            halves[usize::from(place >= at)].insert(Duration::from_micros(*value));
        }
        let [mut sketch, other] = halves;
        sketch.merge(&other);
        values.sort_unstable();
        let told = sketch.quantile(part).unwrap().as_secs_f64() * 1e6;
        let truth = Duration::from_micros(true_quantile(&values, part)).as_secs_f64() * 1e6;
        // The value is stored in whole nanoseconds.
        prop_assert!((told - truth).abs() <= Sketch::ERROR * truth * 1.000_001 + 0.001, "{} is told as {}", truth, told);
        prop_assert_eq!(sketch.count(), u64::try_from(values.len()).unwrap());
    }

    #[test]
    fn sketch_comes_back_from_its_text(values in vec(micros(), 0..100)) {
        let mut sketch = Sketch::default();
        for value in &values {
            sketch.insert(Duration::from_micros(*value));
        }
        let text = serde_json::to_string(&sketch).unwrap();
        prop_assert_eq!(serde_json::from_str::<Sketch>(&text).unwrap(), sketch);
    }
}

#[test]
fn extremes_fit() {
    let mut sketch = Sketch::default();
    assert_eq!(sketch.quantile(0.5), None);
    sketch.insert(Duration::ZERO);
    sketch.insert(Duration::MAX);
    assert_eq!(sketch.quantile(0.0), Some(Duration::ZERO));
    assert!(sketch.quantile(1.0).unwrap() > Duration::from_secs(1 << 43));
    assert_eq!(sketch.quantile(f64::NAN), None);
}
