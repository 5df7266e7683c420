//! Which queues have their turn when not all that waits may run.

/// What a claim asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fair {
    /// The queues that have less than their share, by their numbers.
    pub queues: Vec<usize>,
    /// So many rows: what is missing to their shares.
    pub rows_max: usize,
}

/// Divides `limit` evenly among queues of which so many jobs run, and answers those that have less than their part. `None`: none has,
/// or there is only one queue. What they have no jobs for is left to the others by a claim without this one.
pub fn fair_claim(limit: u32, running: &[u32]) -> Option<Fair> {
    let queues = u32::try_from(running.len()).unwrap_or(u32::MAX);
    if queues < 2 || limit == 0 {
        return None;
    }
    // At least one each: with more queues than may run, those that have none come first.
    let share = (limit / queues).max(1);
    let below: Vec<usize> =
        running.iter().enumerate().filter(|(_, running)| **running < share).map(|(queue, _)| queue).collect();
    let total = running.iter().fold(0_u32, |sum, running| sum.saturating_add(*running));
    let missing: u32 =
        below.iter().filter_map(|queue| running.get(*queue)).map(|running| share - running).sum();
    let rows_max = missing.min(limit.saturating_sub(total));
    (!below.is_empty() && rows_max > 0)
        .then(|| Fair { queues: below, rows_max: usize::try_from(rows_max).unwrap_or(usize::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_below_their_share_come_first() {
        let claim =
            |limit, running: &[u32]| fair_claim(limit, running).map(|fair| (fair.queues, fair.rows_max));
        assert_eq!(claim(8, &[6, 0]), Some((vec![1], 2)), "no more than there is room");
        assert_eq!(claim(8, &[4, 1]), Some((vec![1], 3)));
        assert_eq!(claim(8, &[0, 0]), Some((vec![0, 1], 8)));
        assert_eq!(claim(8, &[4, 4]), None);
        assert_eq!(claim(8, &[8, 0]), None, "nothing may begin");
        assert_eq!(claim(2, &[1, 0, 0]), Some((vec![1, 2], 1)), "one each, as far as it goes");
        assert_eq!(claim(8, &[3]), None, "one queue has all");
        assert_eq!(claim(0, &[0, 0]), None);
    }
}
