//! Estimates of the end against ends that were played out.

use std::time::Duration;

use recache_model::analysis::{CONFIDENCE, Spread, StepFacts, StepHistory, analyze};
use recache_model::job::JobState;
use recache_model::template::graph::Graph;

use super::{at, in_state};

/// Numbers as if by chance: xorshift, from a seed.
struct Chance(u64);

impl Chance {
    fn below_one(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX)
    }

    /// About normal with mean 0 and deviation 1: twelve of them added.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.below_one()).sum::<f64>() - 6.0
    }
}

fn random_graph(chance: &mut Chance, steps: usize) -> Vec<Vec<usize>> {
    (0..steps)
        .map(|step| (0..step).filter(|before| step - before < 6 && chance.below_one() < 0.35).collect())
        .collect()
}

#[test]
fn interval_holds_the_end_about_as_often_as_it_says() {
    const WORKFLOWS: u32 = 200;
    const ENDS: u32 = 50;
    let mut chance = Chance(0x5eed);
    let (mut held, mut error_sum) = (0_u32, 0.0);
    for _ in 0..WORKFLOWS {
        let dependencies = random_graph(&mut chance, 30);
        let spreads: Vec<(f64, f64)> = (0..30)
            .map(|_| {
                let mean = 2.0 + 20.0 * chance.below_one();
                (mean, mean * 0.3 * chance.below_one())
            })
            .collect();
        let graph = Graph::new(dependencies.clone()).unwrap();
        let facts: Vec<StepFacts> = spreads
            .iter()
            .zip(&dependencies)
            .map(|((mean, deviation), needed)| {
                let run = Spread {
                    mean: Duration::from_secs_f64(*mean),
                    deviation: Duration::from_secs_f64(*deviation),
                };
                let state = if needed.is_empty() { JobState::Queued } else { JobState::Blocked };
                StepFacts {
                    history: Some(StepHistory { samples: 100, run, wait: Spread::default() }),
                    ..in_state(state)
                }
            })
            .collect();
        let completion = analyze(&graph, &facts, at(0)).completion.unwrap();
        assert_eq!(analyze(&graph, &facts, at(0)).completion, Ok(completion), "the same again");
        let mut ends_sum = 0.0;
        for _ in 0..ENDS {
            let mut ends: Vec<f64> = Vec::new();
            for (step, (mean, deviation)) in spreads.iter().enumerate() {
                let begins = dependencies[step].iter().map(|before| ends[*before]).fold(0.0, f64::max);
                ends.push(begins + (mean + deviation * chance.normal()).max(0.0));
            }
            let end = ends.iter().copied().fold(0.0, f64::max);
            ends_sum += end;
            held += u32::from(
                completion.remaining_low.as_secs_f64() <= end
                    && end <= completion.remaining_high.as_secs_f64(),
            );
        }
        let mean = ends_sum / f64::from(ENDS);
        error_sum += completion.remaining.as_secs_f64() / mean - 1.0;
    }
    let share = f64::from(held) / f64::from(WORKFLOWS * ENDS);
    let bias = error_sum / f64::from(WORKFLOWS);
    println!("{share:.3} of ends in the interval of {CONFIDENCE}; mean estimate {:+.2} % off", bias * 100.0);
    assert!((0.87..=0.95).contains(&share), "{share}");
    assert!(bias.abs() < 0.03, "{bias}");
}
