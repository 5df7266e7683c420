//! The newest events, as many as fit.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use recache_store::PlacedEvent;

use super::filter::About;
use super::frames;

/// Events that are kept, at most.
const EVENTS_MAX: usize = 20_000;
/// Bytes of their frames, at most; the newest event stays whatever its size.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// An event, written out once for all who get it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) place: i64,
    pub(super) about: About,
    pub(super) frame: Bytes,
}

impl Told {
    pub(super) fn new(placed: PlacedEvent) -> Self {
        let about = About::of(&placed.event);
        Self { place: placed.place, about, frame: frames::event(placed.place, placed.event) }
    }
}

/// All events after one place and up to another.
#[derive(Debug)]
pub(super) struct Ring {
    after: i64,
    through: i64,
    bytes: usize,
    told: VecDeque<Arc<Told>>,
    events_max: usize,
    bytes_max: usize,
}

impl Ring {
    /// Empty, and begins after this place.
    pub(super) fn new(after: i64) -> Self {
        Self::bounded(after, EVENTS_MAX, BYTES_MAX)
    }

    fn bounded(after: i64, events_max: usize, bytes_max: usize) -> Self {
        Self { after, through: after, bytes: 0, told: VecDeque::new(), events_max, bytes_max }
    }

    /// The place after which it begins.
    pub(super) fn begins_after(&self) -> i64 {
        self.after
    }

    /// The place up to which it goes.
    pub(super) fn through(&self) -> i64 {
        self.through
    }

    /// Takes what comes next; the oldest make room.
    pub(super) fn push(&mut self, told: Arc<Told>) {
        self.through = self.through.max(told.place);
        self.bytes += told.frame.len();
        self.told.push_back(told);
        while self.told.len() > self.events_max || (self.bytes > self.bytes_max && self.told.len() > 1) {
            let Some(oldest) = self.told.pop_front() else { break };
            self.bytes -= oldest.frame.len();
            self.after = oldest.place;
        }
    }

    /// At most so many events after a place, and the place up to which that is all. `None`: some of them are gone from here.
    pub(super) fn after(&self, place: i64, count_max: usize) -> Option<(Vec<Arc<Told>>, i64)> {
        if place < self.after {
            return None;
        }
        let begin = self.told.partition_point(|told| told.place <= place);
        let told: Vec<_> = self.told.iter().skip(begin).take(count_max).map(Arc::clone).collect();
        let is_all = begin + told.len() == self.told.len();
        let through = if is_all { self.through } else { told.last().map_or(place, |last| last.place) };
        Some((told, through.max(place)))
    }
}

#[cfg(test)]
mod tests {
    use recache_model::ids::EventId;
    use recache_model::time::Timestamp;
    use recache_store::EventRecord;

    use super::*;

    fn told(place: i64, data: &str) -> Arc<Told> {
        let event = EventRecord {
            id: EventId::make(),
            namespace: "n".to_owned(),
            name: "x".to_owned(),
            at: Timestamp::from_micros(0),
            job: None,
            workflow: None,
            step: None,
            attempt: None,
            outcome: None,
            correlation_id: None,
            data: data.to_owned(),
            problem: None,
            waits_for: None,
        };
        Arc::new(Told::new(PlacedEvent { place, event }))
    }

    fn places(found: Option<(Vec<Arc<Told>>, i64)>) -> Option<(Vec<i64>, i64)> {
        found.map(|(told, through)| (told.iter().map(|told| told.place).collect(), through))
    }

    #[test]
    fn reader_gets_what_comes_after_and_is_told_when_that_is_gone() {
        let mut ring = Ring::new(10);
        assert_eq!(places(ring.after(10, 5)), Some((vec![], 10)));
        assert_eq!(places(ring.after(9, 5)), None);
        // Places may be left out.
        for place in [11, 13, 14] {
            ring.push(told(place, "1"));
        }
        assert_eq!(places(ring.after(10, 5)), Some((vec![11, 13, 14], 14)));
        assert_eq!(places(ring.after(12, 1)), Some((vec![13], 13)));
        assert_eq!(places(ring.after(14, 1)), Some((vec![], 14)));
        assert_eq!(places(ring.after(20, 1)), Some((vec![], 20)), "a place ahead of it stays where it is");
    }

    #[test]
    fn ring_is_bounded_in_events_and_in_bytes() {
        let mut ring = Ring::bounded(0, 100, 4_000_000);
        for place in 1..=105 {
            ring.push(told(place, "1"));
        }
        assert_eq!((ring.told.len(), ring.begins_after()), (100, 5));
        let large = format!("\"{}\"", "x".repeat(1_000_000));
        for place in 201..=210 {
            ring.push(told(place, &large));
        }
        assert_eq!((ring.told.len(), ring.begins_after()), (3, 207));
        assert!(ring.bytes <= 4_000_000 && ring.through() == 210);
        let enormous = format!("\"{}\"", "x".repeat(5_000_000));
        ring.push(told(211, &enormous));
        assert_eq!(places(ring.after(210, 9)), Some((vec![211], 211)));
    }
}
