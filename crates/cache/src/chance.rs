//! Randomness, passed in, so that a test can repeat what happened.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// Who draws random numbers: for lease tokens, the identity of this process, jitter and early refresh.
pub trait Chance: fmt::Debug + Send + Sync + 'static {
    /// 64 random bits.
    fn draw(&self) -> u64;

    /// A number that nobody has drawn or will draw again.
    fn token(&self) -> u128 {
        (u128::from(self.draw()) << 64) | u128::from(self.draw())
    }

    /// A number from 0 to 1, 1 excluded.
    fn part(&self) -> f64 {
        // The upper 32 bits are enough for a share, and an f64 holds them exactly.
        f64::from(u32::try_from(self.draw() >> 32).unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014), seeded by the operating system.
#[derive(Debug)]
pub struct SystemChance(Seeded);

impl Default for SystemChance {
    fn default() -> Self {
        let (seed, _) = Uuid::new_v4().as_u64_pair();
        Self(Seeded::new(seed))
    }
}

impl Chance for SystemChance {
    fn draw(&self) -> u64 {
        self.0.draw()
    }

    fn token(&self) -> u128 {
        Uuid::new_v4().as_u128()
    }
}

/// The same numbers for the same seed. For tests.
#[derive(Debug)]
pub struct Seeded(AtomicU64);

impl Seeded {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Chance for Seeded {
    fn draw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fill_the_range() {
        let chance = Seeded::new(7);
        let parts: Vec<_> = (0..1_000).map(|_| chance.part()).collect();
        assert!(parts.iter().all(|part| (0.0..1.0).contains(part)));
        assert!(parts.iter().any(|part| *part < 0.01) && parts.iter().any(|part| *part > 0.99));
    }

    #[test]
    fn two_processes_draw_differently() {
        assert_ne!(SystemChance::default().draw(), SystemChance::default().draw());
    }
}
