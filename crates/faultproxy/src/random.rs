//! Chance that can be repeated.

/// Numbers that look random and follow from a seed: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators, 2014; the constants are from Vigna's public-domain code). Not `rand`, whose small generators may change from
/// one version to the next: a seed in a report must mean the same next year.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// What follows from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another sequence, for the part of the run that `name` stands for: what one part draws does not change what another
    /// gets.
    pub fn fork(seed: u64, name: u64) -> Self {
        Self(Self(seed ^ Self(name).next()).next())
    }

    /// 64 bits.
    #[expect(clippy::should_implement_trait, reason = "endless: an iterator's Option would be in the way")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when `end` is 0. The bias of the remainder is below 2⁻⁴⁰ for what tests draw.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_is_the_published_one() {
        let mut random = Random::new(1_234_567);
        let drawn = [random.next(), random.next(), random.next()];
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn parts_of_a_run_draw_differently_and_repeatably() {
        let drawn = |name| Random::fork(7, name).next();
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert_ne!(Random::fork(8, 1).next(), drawn(1));
    }
}
