//! What no way can do better than, not even one that knows the future.

use super::traces::Trace;

/// Steps in which the price of a stale read is narrowed down: each leaves two thirds.
const PRICE_STEPS: u32 = 30;
/// Prices that are looked at, in rebuilds for a stale read, as powers of e.
const PRICE_LN_RANGE: (f64, f64) = (-16.0, 4.0);

/// Lower bounds: no sequence of rebuilds whatever has less, if only one read in a hundred may be staler than that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Least {
    /// Rebuilds.
    pub rebuilds: f64,
    /// What they cost, in seconds.
    pub cost_s: f64,
}

/// The bounds for a trace.
///
/// Of one key, and at a price of a stale read, the best sequence is found from its end: a value that was made at one read is best
/// kept at least until the first read that would be too stale (what is made later is never staler), and which read after that one has
/// it made again is looked for. All keys share the stale reads that are allowed; the price at which the sum of what all keys
/// then pay, less the price of the allowed ones, is the greatest gives the bound (the Lagrangian dual, which is never above what it
/// bounds).
pub fn least(trace: &Trace, staleness_s: f64) -> Least {
    let keys = keys(trace, staleness_s);
    let allowed = float(trace.reads.len() / 100);
    let bound = |weight: &dyn Fn(usize) -> f64, unit: f64| {
        let at = |price_ln: f64| {
            let price = price_ln.exp() * unit;
            let paid: f64 = keys.iter().enumerate().map(|(key, late)| pays(late, weight(key), price)).sum();
            paid - price * allowed
        };
        let (mut low, mut high) = PRICE_LN_RANGE;
        let mut best = 0.0_f64;
        for _ in 0..PRICE_STEPS {
            let third = (high - low) / 3.0;
            let (one, other) = (at(low + third), at(high - third));
            best = best.max(one).max(other);
            if one < other { low += third } else { high -= third }
        }
        best
    };
    let costs = trace.costs.iter().sum::<f64>() / float(trace.costs.len().max(1));
    Least { rebuilds: bound(&|_| 1.0, 1.0), cost_s: bound(&|key| trace.costs[key], costs) }
}

/// For each read of each key, the first one after it that would be too stale if the value had been made at it.
fn keys(trace: &Trace, staleness_s: f64) -> Vec<Vec<usize>> {
    let mut reads = vec![Vec::new(); trace.changes.len()];
    for &(at, key) in &trace.reads {
        reads[key].push(at);
    }
    let late = reads.iter().zip(&trace.changes).map(|(reads, changes)| {
        let (mut change, mut late) = (0, 0);
        let firsts = reads.iter().map(|made_at| {
            while changes.get(change).is_some_and(|changed| changed <= made_at) {
                change += 1;
            }
            match changes.get(change) {
                Some(changed) => {
                    while reads.get(late).is_some_and(|at| at - changed <= staleness_s) {
                        late += 1;
                    }
                    late
                }
                None => reads.len(),
            }
        });
        firsts.collect()
    });
    late.collect()
}

/// What a key pays at least: for each time that its value is made, and for each read that is too stale.
fn pays(late: &[usize], weight: f64, price: f64) -> f64 {
    let reads = late.len();
    if reads == 0 {
        return 0.0;
    }
    // From a read on, the least of `price * its place + weight + what follows` over all reads from it to the end, the end too.
    let mut best = vec![price * float(reads); reads + 1];
    let mut follows = 0.0;
    for made_at in (0..reads).rev() {
        let first = late[made_at];
        follows = best[first] - price * float(first);
        best[made_at] = best[made_at + 1].min(price * float(made_at) + weight + follows);
    }
    weight + follows
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
