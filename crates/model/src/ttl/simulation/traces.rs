//! Traces of reads and changes.

/// What happened, in seconds from the beginning.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// What it is called.
    pub name: &'static str,
    /// What it costs to make the value of each key, in seconds.
    pub costs: Vec<f64>,
    /// When each key's value changed, rising.
    pub changes: Vec<Vec<f64>>,
    /// When which key was read, rising.
    pub reads: Vec<(f64, usize)>,
}

const DAY_S: f64 = 86_400.0;

/// A flight that left: on which day, counted from 0, and to where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// The day.
    pub day: u32,
    /// The key of the destination.
    pub key: usize,
}

/// Figures for each destination, that change with every flight there: real departures of days in a row, in their order.
///
/// The records tell the day and the order in it, but not the hour: a day's flights are spread evenly from five in the
/// morning to midnight. Nobody recorded who looked at the figures; `reads_per_s` reads are drawn, as often for a destination
/// as there are flights to it, nine in ten of them in those hours.
pub fn flights(departures: &[Departure], keys: usize, reads_per_s: f64, seed: u64) -> Trace {
    let days = departures.iter().map(|one| one.day + 1).max().unwrap_or(0);
    let mut changes = vec![Vec::new(); keys];
    for day in 0..days {
        let today: Vec<&Departure> = departures.iter().filter(|one| one.day == day).collect();
        for (place, departure) in today.iter().enumerate() {
            let part = (float(place) + 0.5) / float(today.len());
            if let Some(changes) = changes.get_mut(departure.key) {
                changes.push(DAY_S * f64::from(day) + 5.0 * 3_600.0 + part * 19.0 * 3_600.0);
            }
        }
    }
    let weights: Vec<f64> = changes.iter().map(|changes: &Vec<f64>| float(changes.len())).collect();
    let mut chance = Chance(seed);
    let by_hour = |at: f64| if at % DAY_S < 5.0 * 3_600.0 { 0.1 / 5.0 } else { 0.9 / 19.0 };
    let reads = reads(&weights, reads_per_s, DAY_S * f64::from(days), |at| by_hour(at) * 24.0, &mut chance);
    // All flights to a destination are looked at.
    let costs = weights.iter().map(|flights| 0.02 + 0.000_1 * flights).collect();
    Trace { name: "flights", costs, changes, reads }
}

/// Popularity by Zipf's law and demand that follows the sun; how often a value changes has nothing to do with how often it is
/// read: from every two minutes to every three days.
pub fn zipf(keys: usize, days: u32, reads_per_s: f64, seed: u64) -> Trace {
    let mut chance = Chance(seed);
    let seconds = DAY_S * f64::from(days);
    let weights: Vec<f64> = (0..keys).map(|key| 1.0 / (float(key) + 1.0)).collect();
    let mut changes = Vec::with_capacity(keys);
    let mut costs = Vec::with_capacity(keys);
    for _ in 0..keys {
        // Even in the logarithm.
        let every = 120.0 * (2_160.0_f64).powf(chance.below_one());
        changes.push(poisson(every, seconds, &mut chance));
        costs.push(0.01 * 30.0_f64.powf(chance.below_one()));
    }
    let sun = |at: f64| 1.0 - 0.8 * (std::f64::consts::TAU * at / DAY_S).cos();
    let reads = reads(&weights, reads_per_s, seconds, sun, &mut chance);
    Trace { name: "zipf", costs, changes, reads }
}

/// A writer that comes in bursts: for minutes a key changes every few seconds, then not for hours. Each key has a writer of
/// its own pace.
pub fn bursts(keys: usize, days: u32, reads_per_s: f64, seed: u64) -> Trace {
    let mut chance = Chance(seed);
    let seconds = DAY_S * f64::from(days);
    let weights: Vec<f64> = (0..keys).map(|key| 1.0 / (float(key) + 1.0).sqrt()).collect();
    let mut changes = Vec::with_capacity(keys);
    let mut costs = Vec::with_capacity(keys);
    for _ in 0..keys {
        let quiet = 1_800.0 * 64.0_f64.powf(chance.below_one());
        let mut at = chance.exponential() * quiet;
        let mut times = Vec::new();
        while at < seconds {
            let end = at + 60.0 + 240.0 * chance.below_one();
            while at < end.min(seconds) {
                times.push(at);
                at += 5.0 * chance.exponential();
            }
            at = end + chance.exponential() * quiet;
        }
        changes.push(times);
        costs.push(0.01 * 30.0_f64.powf(chance.below_one()));
    }
    let reads = reads(&weights, reads_per_s, seconds, |_| 1.0, &mut chance);
    Trace { name: "bursts", costs, changes, reads }
}

/// Times of a Poisson process.
fn poisson(every_s: f64, seconds: f64, chance: &mut Chance) -> Vec<f64> {
    let mut at = chance.exponential() * every_s;
    let mut times = Vec::new();
    while at < seconds {
        times.push(at);
        at += chance.exponential() * every_s;
    }
    times
}

/// Reads of keys by weight; `pace` says how fast they come at an instant, 1 on average and at most 2.
fn reads(
    weights: &[f64],
    reads_per_s: f64,
    seconds: f64,
    pace: impl Fn(f64) -> f64,
    chance: &mut Chance,
) -> Vec<(f64, usize)> {
    let mut sums = Vec::with_capacity(weights.len());
    let mut sum = 0.0;
    for weight in weights {
        sum += weight;
        sums.push(sum);
    }
    let mut reads = Vec::new();
    let mut at = 0.0;
    loop {
        // Thinning (Lewis and Shedler 1979): come twice as fast, and let go what is too many.
        at += chance.exponential() / (reads_per_s * 2.0);
        if at >= seconds || sums.is_empty() {
            return reads;
        }
        if chance.below_one() * 2.0 < pace(at) {
            let drawn = chance.below_one() * sum;
            reads.push((at, sums.partition_point(|sum| *sum <= drawn).min(sums.len() - 1)));
        }
    }
}

/// Numbers as if by chance, from a seed: SplitMix64 (Steele, Lea, Flood 2014).
struct Chance(u64);

impl Chance {
    fn below_one(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        f64::from(u32::try_from(mixed >> 32).unwrap_or(0)) / 4_294_967_296.0
    }

    /// With mean 1.
    fn exponential(&mut self) -> f64 {
        -(1.0 - self.below_one()).ln()
    }
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
