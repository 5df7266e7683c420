//! Counters that are counted up at every hit. A locked instruction costs about as much as a look into a hash table, and
//! when several threads share the counter many times that. So each of the first [`STRIPES`] threads has a *stripe* of
//! its own, to which nobody else writes: a plain load and a plain store. Further threads share one stripe with locked
//! additions. Who reads sums up all.
//!
//! A thread takes its stripe's number when it first counts and gives it back when it ends; the next owner goes on from
//! where the last one stopped, which the lock around the free numbers lets it see.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Threads that count without a locked instruction, at the same time.
const STRIPES: usize = 32;

/// Of a thread that has not counted yet.
const UNSET: usize = usize::MAX;
/// Of a thread that shares the last stripe.
const SHARED: usize = STRIPES;

/// `CELLS` counters.
pub(super) struct Stripes<const CELLS: usize> {
    stripes: Box<[Stripe<CELLS>]>,
}

/// Two cache lines apart: processors fetch them in pairs.
#[repr(align(128))]
struct Stripe<const CELLS: usize>([AtomicU64; CELLS]);

impl<const CELLS: usize> Stripes<CELLS> {
    /// Nothing when there is no such cell.
    #[inline]
    pub(super) fn one(&self, cell: usize) {
        let number = stripe_of_this_thread();
        let Some(counter) = self.stripes.get(number).and_then(|stripe| stripe.0.get(cell)) else {
            return;
        };
        if number == SHARED {
            counter.fetch_add(1, Ordering::Relaxed);
        } else {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    pub(super) fn sum(&self, cell: usize) -> u64 {
        let counters = self.stripes.iter().filter_map(|stripe| stripe.0.get(cell));
        counters.map(|counter| counter.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

impl<const CELLS: usize> Default for Stripes<CELLS> {
    fn default() -> Self {
        let stripe = || Stripe(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { stripes: std::iter::repeat_with(stripe).take(STRIPES + 1).collect() }
    }
}

impl<const CELLS: usize> fmt::Debug for Stripes<CELLS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stripes({CELLS} cells)")
    }
}

thread_local! {
    /// Needs no destructor, so that it can be read without asking whether it is still there.
    static NUMBER: Cell<usize> = const { Cell::new(UNSET) };
    static CLAIM: Claim = Claim::new();
}

#[inline]
fn stripe_of_this_thread() -> usize {
    let number = NUMBER.get();
    if number == UNSET { claim() } else { number }
}

#[cold]
fn claim() -> usize {
    // A thread that is ending has no claim any more.
    let number = CLAIM.try_with(|claim| claim.0).unwrap_or(SHARED);
    NUMBER.set(number);
    number
}

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers { used: 0, free: Vec::new() });

struct Numbers {
    used: usize,
    free: Vec<usize>,
}

fn numbers() -> MutexGuard<'static, Numbers> {
    NUMBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread's right to write to one stripe.
struct Claim(usize);

impl Claim {
    fn new() -> Self {
        let mut numbers = numbers();
        if let Some(number) = numbers.free.pop() {
            return Self(number);
        }
        if numbers.used == STRIPES {
            return Self(SHARED);
        }
        numbers.used += 1;
        Self(numbers.used - 1)
    }
}

impl Drop for Claim {
    /// What the thread still counts while it ends goes to the shared stripe.
    fn drop(&mut self) {
        NUMBER.set(SHARED);
        if self.0 != SHARED {
            numbers().free.push(self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};
    use std::thread;

    use super::*;

    #[test]
    fn no_count_is_lost_with_more_threads_than_stripes() {
        const THREADS: usize = STRIPES * 2;
        let stripes = Arc::new(Stripes::<3>::default());
        let all_at_once = Arc::new(Barrier::new(THREADS));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (stripes, all_at_once) = (Arc::clone(&stripes), Arc::clone(&all_at_once));
                thread::spawn(move || {
                    stripes.one(0);
                    all_at_once.wait();
                    for _ in 0..20_000 {
                        stripes.one(1);
                    }
                    stripe_of_this_thread()
                })
            })
            .collect();
        let numbers: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(stripes.sum(0), 64);
        assert_eq!(stripes.sum(1), 64 * 20_000);
        assert_eq!(stripes.sum(2), 0);
        let shared = numbers.iter().filter(|number| **number == SHARED).count();
        assert!(shared >= STRIPES, "{shared} of {THREADS} threads share a stripe");
    }

    #[test]
    fn stripes_of_ended_threads_are_used_again() {
        let stripes = Arc::new(Stripes::<1>::default());
        for _ in 0..STRIPES * 4 {
            let stripes = Arc::clone(&stripes);
            let count = move || {
                stripes.one(0);
                stripe_of_this_thread()
            };
            thread::spawn(count).join().unwrap();
        }
        assert_eq!(stripes.sum(0), 128);
        assert!(numbers().used <= STRIPES);
    }

    #[test]
    fn a_cell_that_is_not_there_is_not_counted() {
        let stripes = Stripes::<1>::default();
        stripes.one(1);
        assert_eq!(stripes.sum(0), 0);
    }
}
