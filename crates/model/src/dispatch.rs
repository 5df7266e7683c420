//! How many jobs a worker process may hold: enough never to wait for the database, never so many that a
//! crash or a slow neighbour keeps them.

use std::time::Duration;

/// A claimed job should start within this time; the local buffer holds no more than what starts in it.
pub const BUFFER_TARGET: Duration = Duration::from_millis(50);

/// How many jobs to claim now.
///
/// * `slots`: handlers that may run at once.
/// * `held`: jobs that this process holds, running or waiting in its buffer.
/// * `mean_run_time`: of recent jobs; `None` while none has ended.
/// * `claim_rows_max`: no claim asks for more.
///
/// With slow handlers the answer is the number of free slots. With handlers faster than a round trip it
/// grows to what they finish within [`BUFFER_TARGET`], at most `claim_rows_max` beyond the slots: one claim then
/// serves hundreds of jobs, and an idle system still pays for none.
pub fn claim_size(
    slots: usize,
    held: usize,
    mean_run_time: Option<Duration>,
    claim_rows_max: usize,
) -> usize {
    let buffer = match mean_run_time {
        None => 0,
        Some(mean) => {
            let rounds = BUFFER_TARGET.as_nanos() / mean.as_nanos().max(1_000);
            usize::try_from(rounds).unwrap_or(usize::MAX).saturating_mul(slots).min(claim_rows_max)
        }
    };
    // While the buffer is shallower than one round of the slots, prefetching only makes jobs wait here
    // instead of where another process could take them.
    let buffer = if buffer < slots { 0 } else { buffer };
    (slots + buffer).saturating_sub(held).min(claim_rows_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_handlers_claim_no_more_than_free_slots() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(claim_size(8, 0, second, 500), 8);
        assert_eq!(claim_size(8, 5, second, 500), 3);
        assert_eq!(claim_size(8, 8, second, 500), 0);
        assert_eq!(claim_size(8, 9, second, 500), 0);
    }

    #[test]
    fn first_claim_takes_no_more_than_the_slots() {
        assert_eq!(claim_size(4, 0, None, 500), 4);
    }

    #[test]
    fn fast_handlers_claim_hundreds() {
        assert_eq!(claim_size(4, 0, Some(Duration::from_micros(5)), 500), 500);
        assert_eq!(claim_size(4, 400, Some(Duration::from_micros(5)), 500), 104);
    }
}
