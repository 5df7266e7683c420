//! One direction of one connection: takes what arrives and the time, and says what is to be done next. Pure, so that every
//! fault is tested without a socket.

use std::collections::VecDeque;
use std::time::Duration;

use crate::counts::count;
use crate::plan::{Cut, CutAt, Ending, Flip, Flow, Lane};
use crate::random::Random;

/// Bytes that wait at most; beyond it nothing is read.
pub(crate) const WAITING_BYTES_MAX: usize = 1 << 20;

/// In how many slices a second's worth of a limited lane is sent.
const SLICES_A_SECOND: u64 = 50;

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Write this.
    Forward { bytes: Vec<u8>, flipped_bits: u64 },
    /// Nothing: so many bytes are gone.
    Swallowed(u64),
    /// Nothing, until this time, or until something arrives or changes.
    WaitUntil(Duration),
    /// Nothing, until something arrives or changes.
    Wait,
    /// Pass on that the sender has ended, or broken off.
    Finish { is_broken: bool },
    /// End the connection.
    Cut { ending: Ending, once: bool },
}

/// How far the sender is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Open,
    Ended,
    Broken,
}

/// What has arrived and was not forwarded, and how far the faults are. Times are counted from the connection's beginning.
#[derive(Debug)]
pub(crate) struct State {
    waiting: VecDeque<Arrival>,
    waiting_bytes: usize,
    source: Source,
    /// Bytes forwarded since the plan changed.
    passed: u64,
    /// When the rate limit allows the next slice.
    free_at: Duration,
    /// How much of the cut's pattern the last forwarded bytes make up.
    matched: usize,
    /// The place of the cut was reached, and chance let it pass.
    is_spared: bool,
    /// The cut is due before the next byte.
    is_cut_due: bool,
    random: Random,
}

#[derive(Debug)]
struct Arrival {
    due: Duration,
    bytes: VecDeque<u8>,
}

impl State {
    pub(crate) fn new(random: Random) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            source: Source::Open,
            passed: 0,
            free_at: Duration::ZERO,
            matched: 0,
            is_spared: false,
            is_cut_due: false,
            random,
        }
    }

    /// Whether more is to be read.
    pub(crate) fn wants_more(&self) -> bool {
        self.source == Source::Open && self.waiting_bytes < WAITING_BYTES_MAX
    }

    /// The sender has sent this; nothing means that it has ended.
    pub(crate) fn arrive(&mut self, now: Duration, bytes: &[u8], lane: &Lane) {
        if bytes.is_empty() {
            self.source = Source::Ended;
            return;
        }
        let earliest = self.waiting.back().map_or(Duration::ZERO, |last| last.due);
        let due = earliest.max(now + self.draw_delay(lane));
        self.waiting_bytes += bytes.len();
        self.waiting.push_back(Arrival { due, bytes: bytes.iter().copied().collect() });
    }

    /// The sender has broken off.
    pub(crate) fn break_off(&mut self) {
        self.source = Source::Broken;
    }

    /// Counting begins anew. Without a delay, what was delayed is due now.
    pub(crate) fn plan_changed(&mut self, now: Duration, lane: &Lane) {
        self.passed = 0;
        self.matched = 0;
        self.is_spared = false;
        self.is_cut_due = false;
        self.free_at = now;
        if lane.delay.is_zero() && lane.jitter.is_zero() {
            for arrival in &mut self.waiting {
                arrival.due = arrival.due.min(now);
            }
        }
    }

    /// What is to be done now.
    pub(crate) fn next(&mut self, now: Duration, lane: &Lane) -> Step {
        match lane.flow {
            Flow::Hold => return Step::Wait,
            Flow::Swallow => return self.swallow(),
            Flow::Pass => {}
        }
        if let (true, Some(cut)) = (self.is_cut_due, &lane.cut) {
            return Step::Cut { ending: cut.ending, once: cut.once };
        }
        let Some(front) = self.waiting.front() else {
            return match self.source {
                Source::Open => Step::Wait,
                Source::Ended => Step::Finish { is_broken: false },
                Source::Broken => Step::Finish { is_broken: true },
            };
        };
        let due = front.due.max(self.free_at);
        if due > now {
            return Step::WaitUntil(due);
        }
        let mut take = front.bytes.len();
        if let Some(slice) = lane.slice_bytes {
            take = take.min(slice.max(1));
        }
        if let Some(rate) = lane.bytes_per_second {
            take = take.min(usize::try_from(rate / SLICES_A_SECOND).unwrap_or(usize::MAX).max(1));
        }
        if let Some(cut) = &lane.cut {
            match self.until_cut(cut, take) {
                Some(0) => return Step::Cut { ending: cut.ending, once: cut.once },
                Some(fewer) => take = fewer,
                None => {}
            }
        }
        self.forward(take, now, lane)
    }

    fn draw_delay(&mut self, lane: &Lane) -> Duration {
        let Ok(span) = u64::try_from(lane.jitter.as_micros() * 2 + 1) else {
            return lane.delay;
        };
        (lane.delay + Duration::from_micros(self.random.below(span))).saturating_sub(lane.jitter)
    }

    fn swallow(&mut self) -> Step {
        if self.waiting_bytes == 0 {
            return Step::Wait;
        }
        let gone = count(self.waiting_bytes);
        self.waiting.clear();
        self.waiting_bytes = 0;
        Step::Swallowed(gone)
    }

    /// How many of the next `take` bytes may be forwarded before the cut has to be looked at again; 0: it is now. `None`: no
    /// cut among them.
    fn until_cut(&mut self, cut: &Cut, take: usize) -> Option<usize> {
        let (pattern, is_before) = match &cut.at {
            CutAt::Bytes(bytes) => {
                let left = bytes.checked_sub(self.passed).filter(|_| !self.is_spared)?;
                if left == 0 && !cut.chance.is_hit(&mut self.random) {
                    self.is_spared = true;
                    return None;
                }
                return Some(take.min(usize::try_from(left).unwrap_or(usize::MAX)));
            }
            CutAt::Before(pattern) => (pattern, Some(true)),
            CutAt::After(pattern) => (pattern, Some(false)),
            CutAt::Around(pattern) => (pattern, None),
        };
        let ahead = self.waiting.front()?.bytes.iter().take(take).copied();
        match before_last_byte(pattern, self.matched, ahead)? {
            // The next byte makes the pattern whole.
            0 if cut.chance.is_hit(&mut self.random) => {
                let is_before = is_before.unwrap_or_else(|| self.random.below(2) == 0);
                self.is_cut_due = true;
                Some(usize::from(!is_before))
            }
            0 => Some(1),
            fewer => Some(fewer),
        }
    }

    fn forward(&mut self, take: usize, now: Duration, lane: &Lane) -> Step {
        let Some(front) = self.waiting.front_mut() else {
            return Step::Wait;
        };
        let mut bytes: Vec<u8> = front.bytes.drain(..take).collect();
        if front.bytes.is_empty() {
            self.waiting.pop_front();
        }
        self.waiting_bytes -= take;
        if let Some(cut) = &lane.cut
            && let CutAt::Before(pattern) | CutAt::After(pattern) | CutAt::Around(pattern) = &cut.at
        {
            self.matched = bytes.iter().fold(self.matched, |matched, &byte| advance(pattern, matched, byte));
        }
        let flipped_bits = self.flip(&mut bytes, lane.flip);
        self.passed += count(take);
        if let Some(rate) = lane.bytes_per_second {
            let nanos = count(take).saturating_mul(1_000_000_000) / rate.max(1);
            self.free_at = self.free_at.max(now) + Duration::from_nanos(nanos);
        }
        Step::Forward { bytes, flipped_bits }
    }

    fn flip(&mut self, bytes: &mut [u8], flip: Option<Flip>) -> u64 {
        let mut flipped = 0;
        match flip {
            None => {}
            Some(Flip::At(bit)) => {
                let place = (bit / 8).checked_sub(self.passed).and_then(|place| usize::try_from(place).ok());
                if let Some(byte) = place.and_then(|place| bytes.get_mut(place)) {
                    *byte ^= 1 << (bit % 8);
                    flipped = 1;
                }
            }
            Some(Flip::Chance(chance)) => {
                for byte in bytes {
                    if chance.is_hit(&mut self.random) {
                        *byte ^= 1 << self.random.below(8);
                        flipped += 1;
                    }
                }
            }
        }
        flipped
    }
}

/// How much of `pattern` is made up when `byte` follows what made up `matched` of it.
fn advance(pattern: &[u8], matched: usize, byte: u8) -> usize {
    if matched == 0 && pattern.first().is_some_and(|&first| first != byte) {
        return 0;
    }
    // Patterns are short: the longest head of the pattern that ends what is there now is looked for the plain way.
    let seen: Vec<u8> = pattern.iter().take(matched).copied().chain([byte]).collect();
    (0..=seen.len().min(pattern.len())).rev().find(|&length| seen.ends_with(&pattern[..length])).unwrap_or(0)
}

/// How many of the bytes ahead come before the one that makes the pattern whole; `None` when none does.
fn before_last_byte(pattern: &[u8], mut matched: usize, ahead: impl Iterator<Item = u8>) -> Option<usize> {
    for (place, byte) in ahead.enumerate() {
        matched = advance(pattern, matched, byte);
        if matched == pattern.len() {
            return Some(place);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::Chance;

    const START: Duration = Duration::ZERO;

    fn state() -> State {
        State::new(Random::new(1))
    }

    /// Everything that comes out at one moment, and the step after it.
    fn drain(state: &mut State, now: Duration, lane: &Lane) -> (Vec<Vec<u8>>, Step) {
        let mut slices = Vec::new();
        loop {
            match state.next(now, lane) {
                Step::Forward { bytes, .. } => slices.push(bytes),
                other => return (slices, other),
            }
        }
    }

    /// What comes out of a lane that is given `chunks` and then ends.
    fn run(lane: &Lane, chunks: &[&[u8]]) -> (Vec<u8>, Step) {
        let mut state = state();
        for chunk in chunks {
            state.arrive(START, chunk, lane);
        }
        state.arrive(START, b"", lane);
        let (slices, last) = drain(&mut state, START, lane);
        (slices.concat(), last)
    }

    const CLOSED: Step = Step::Cut { ending: Ending::Close, once: false };

    #[test]
    fn without_faults_bytes_pass_and_then_the_end() {
        assert_eq!(
            run(&Lane::default(), &[b"one ", b"two"]),
            (b"one two".to_vec(), Step::Finish { is_broken: false })
        );
        let mut broken = state();
        broken.break_off();
        assert_eq!(broken.next(START, &Lane::default()), Step::Finish { is_broken: true });
    }

    #[test]
    fn held_bytes_wait_and_swallowed_bytes_are_gone() {
        let mut state = state();
        state.arrive(START, b"one", &Lane::default());
        assert_eq!(state.next(START, &Lane::default().held()), Step::Wait);
        assert_eq!(drain(&mut state, START, &Lane::default()).0, [b"one"]);
        state.arrive(START, b"two", &Lane::default());
        assert_eq!(state.next(START, &Lane::default().swallowed()), Step::Swallowed(3));
        state.arrive(START, b"", &Lane::default());
        assert_eq!(state.next(START, &Lane::default().swallowed()), Step::Wait, "the end waits too");
        assert_eq!(state.next(START, &Lane::default()), Step::Finish { is_broken: false });
    }

    #[test]
    fn no_more_is_read_than_may_wait() {
        let mut state = state();
        state.arrive(START, &vec![0; WAITING_BYTES_MAX], &Lane::default());
        assert!(!state.wants_more());
        drain(&mut state, START, &Lane::default());
        assert!(state.wants_more());
    }

    #[test]
    fn delayed_bytes_come_in_order_within_the_jitter() {
        let lane = Lane::default().delayed(Duration::from_millis(20), Duration::from_millis(15));
        let mut state = state();
        let mut due = Vec::new();
        for number in 0..100_u8 {
            state.arrive(START, &[number], &lane);
        }
        let mut now = START;
        let mut order = Vec::new();
        while order.len() < 100 {
            match state.next(now, &lane) {
                Step::WaitUntil(at) => {
                    assert!(at > now);
                    now = at;
                }
                Step::Forward { bytes, .. } => {
                    order.extend(bytes);
                    due.push(now);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(order, (0..100).collect::<Vec<u8>>());
        assert!(due[0] >= Duration::from_millis(5) && due[99] <= Duration::from_millis(35), "{due:?}");
        assert!(due[99] > due[0], "delays vary");
    }

    #[test]
    fn healing_brings_what_was_delayed_at_once() {
        let lane = Lane::default().delayed(Duration::from_mins(1), Duration::ZERO);
        let mut state = state();
        state.arrive(START, b"one", &lane);
        assert_eq!(state.next(START, &lane), Step::WaitUntil(Duration::from_mins(1)));
        state.plan_changed(START, &Lane::default());
        assert_eq!(drain(&mut state, START, &Lane::default()).0, [b"one"]);
    }

    #[test]
    fn limited_bytes_take_their_time() {
        let lane = Lane::default().limited(1_000);
        let mut state = state();
        state.arrive(START, &[7; 500], &lane);
        let (mut now, mut passed) = (START, 0);
        while passed < 500 {
            match state.next(now, &lane) {
                Step::WaitUntil(at) => now = at,
                Step::Forward { bytes, .. } => {
                    assert!(bytes.len() <= 20);
                    passed += bytes.len();
                }
                other => panic!("{other:?}"),
            }
        }
        // The last slice of 20 bytes need not be waited for.
        assert_eq!(now, Duration::from_millis(480));
    }

    #[test]
    fn slices_have_their_size() {
        let lane = Lane::default().sliced(2);
        let mut state = state();
        state.arrive(START, b"abcde", &lane);
        assert_eq!(drain(&mut state, START, &lane).0, [&b"ab"[..], b"cd", b"e"]);
    }

    #[test]
    fn cut_comes_after_its_bytes() {
        let lane = Lane::default().cut(Cut::after_bytes(5));
        assert_eq!(run(&lane, &[b"abc", b"defg"]), (b"abcde".to_vec(), CLOSED));
        assert_eq!(run(&Lane::default().cut(Cut::after_bytes(0)), &[b"abc"]), (vec![], CLOSED));
    }

    #[test]
    fn cut_before_or_after_a_pattern_is_exact_however_it_is_sliced() {
        let text = b"BEGIN;COMCOMMIT;more";
        for size in 1..=text.len() {
            let chunks: Vec<&[u8]> = text.chunks(size).collect();
            for slice in [1, 3, 100] {
                let lane = |cut| Lane::default().sliced(slice).cut(cut);
                let before = run(&lane(Cut::before("COMMIT;")), &chunks);
                assert_eq!(before, (b"BEGIN;COMCOMMIT".to_vec(), CLOSED), "chunks of {size}");
                let after = run(&lane(Cut::after("COMMIT;")), &chunks);
                assert_eq!(after, (b"BEGIN;COMCOMMIT;".to_vec(), CLOSED), "chunks of {size}");
            }
        }
    }

    #[test]
    fn cut_around_a_pattern_falls_on_both_sides() {
        let lane = Lane::default().cut(Cut::around("X"));
        let mut random = Random::new(5);
        let mut lengths = [0_u32; 2];
        for _ in 0..1_000 {
            let mut state = State::new(Random::new(random.next()));
            state.arrive(START, b"X", &lane);
            let (slices, last) = drain(&mut state, START, &lane);
            assert_eq!(last, CLOSED);
            lengths[slices.len()] += 1;
        }
        assert!(lengths.iter().all(|&times| times > 400), "{lengths:?}");
    }

    #[test]
    fn a_cut_that_chance_spares_lets_everything_pass() {
        for cut in [Cut::after_bytes(2), Cut::before("b"), Cut::after("b"), Cut::around("b")] {
            let lane = Lane::default().cut(cut.with_chance(Chance::NEVER));
            assert_eq!(run(&lane, &[b"abc"]), (b"abc".to_vec(), Step::Finish { is_broken: false }));
        }
    }

    #[test]
    fn one_bit_or_some_bits_are_flipped() {
        let at = Lane::default().sliced(1).flipped(Flip::At(8 + 3));
        assert_eq!(run(&at, &[&[0, 0, 0]]).0, [0, 8, 0]);
        let some = Lane::default().flipped(Flip::Chance(Chance::percent(10)));
        let mut state = state();
        state.arrive(START, &[0; 10_000], &some);
        let Step::Forward { bytes, flipped_bits } = state.next(START, &some) else { panic!() };
        let wrong: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(u64::from(wrong), flipped_bits);
        assert!((800..1_200).contains(&wrong), "{wrong}");
    }

    proptest! {
        /// Whatever is combined, what comes out is a head of what went in, and all of it without a cut.
        #[test]
        fn nothing_is_lost_doubled_or_reordered(
            chunks in prop::collection::vec(prop::collection::vec(0_u8..4, 1..20), 0..20),
            slice in prop::option::of(1_usize..5),
            rate in prop::option::of(1_u64..1_000),
            delay_ms in 0_u64..50,
            pattern in prop::collection::vec(0_u8..4, 1..4),
            has_cut: bool,
            seed: u64,
        ) {
            let mut lane = Lane::default()
                .delayed(Duration::from_millis(delay_ms), Duration::from_millis(delay_ms / 2));
            lane.slice_bytes = slice;
            lane.bytes_per_second = rate;
            lane.cut = has_cut.then(|| Cut::around(pattern.clone()));
            let mut state = State::new(Random::new(seed));
            let sent = chunks.concat();
            for chunk in &chunks {
                state.arrive(START, chunk, &lane);
            }
            state.arrive(START, b"", &lane);
            let (mut now, mut got) = (START, Vec::new());
            let last = loop {
                match state.next(now, &lane) {
                    Step::Forward { bytes, .. } => got.extend(bytes),
                    Step::WaitUntil(at) => now = at,
                    other => break other,
                }
            };
            prop_assert!(sent.starts_with(&got));
            let first = sent.windows(pattern.len()).position(|window| window == pattern).filter(|_| has_cut);
            if let Some(place) = first {
                let end = place + pattern.len();
                prop_assert!(got.len() == end || got.len() == end - 1);
                prop_assert_eq!(last, CLOSED);
            } else {
                prop_assert_eq!(got, sent);
                prop_assert_eq!(last, Step::Finish { is_broken: false });
            }
        }
    }
}
