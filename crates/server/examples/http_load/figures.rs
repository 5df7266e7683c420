//! What was answered, and when.

use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Seen {
    good: Vec<Duration>,
    refused: Vec<Duration>,
    /// Neither: a wrong answer, or none.
    failed: usize,
    time: Duration,
}

impl Seen {
    pub(crate) fn note(&mut self, status: Option<u16>, took: Duration) {
        match status {
            Some(200..300) => self.good.push(took),
            Some(429 | 503) => self.refused.push(took),
            _ => self.failed += 1,
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.good.extend(other.good);
        self.refused.extend(other.refused);
        self.failed += other.failed;
    }

    pub(crate) fn within(mut self, time: Duration) -> Self {
        self.time = time;
        self.good.sort_unstable();
        self.refused.sort_unstable();
        self
    }

    /// Good answers.
    pub(crate) fn per_second(&self) -> f64 {
        f64::from(u32::try_from(self.good.len()).expect("few")) / self.time.as_secs_f64()
    }

    /// `things` a request.
    pub(crate) fn line(&self, things: u32) -> String {
        format!(
            "{:>8.0} requests/s, {:>8.0} things/s; {}; {} refused, {} failed",
            self.per_second(),
            self.per_second() * f64::from(things),
            times(&self.good),
            self.refused.len(),
            self.failed
        )
    }

    /// Under overload, beside what can be done.
    pub(crate) fn beside(&self, capacity: &Self, offered: f64) -> String {
        let answered = self.good.len() + self.refused.len() + self.failed;
        let asked = f64::from(u32::try_from(answered).expect("few")) / self.time.as_secs_f64();
        format!(
            "capacity {:.0}/s; {offered:.0}/s wanted, {asked:.0}/s asked: {:.0}/s done, {:.0} % of the capacity, {}; {} refused, {}; {} failed",
            capacity.per_second(),
            self.per_second(),
            100.0 * self.per_second() / capacity.per_second(),
            times(&self.good),
            self.refused.len(),
            times(&self.refused),
            self.failed
        )
    }
}

fn times(sorted: &[Duration]) -> String {
    let at = |per_mille: usize| {
        let place = sorted.len().saturating_sub(1) * per_mille / 1_000;
        sorted.get(place).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    format!("p50 {:.2} ms, p99 {:.2} ms, longest {:.1} ms", at(500), at(990), at(1_000))
}
