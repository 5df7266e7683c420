//! Telling the other processes which copies to drop, and noticing when nobody tells.
//!
//! Each process numbers what it sends and sends a beat when it has nothing to say; so a listener knows when a message
//! is missing, and drops all its copies then. It also hears its own beats: as long as they come back, the way through
//! the backend is open. The part that decides is [`Heard`], which knows neither sockets nor clocks.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Processes that a listener keeps count of. Beyond it the one heard longest ago is forgotten, which costs its next
/// message a drop of all copies.
const SENDERS_MAX: usize = 4_096;

/// One message. Stored nowhere, so its format may change with a new channel name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notice {
    /// Who sends; drawn at random when the process began.
    pub(super) instance: u64,
    /// Rises by one with each message of this sender.
    pub(super) sequence: u64,
    /// When it was sent, by the sender's wall clock, in microseconds. Only for figures.
    pub(super) sent_at_us: i64,
    /// The version of the epochs that the sender knows: who knows an older one asks.
    pub(super) epochs_version: u64,
    /// The keys that were changed. None: a beat.
    pub(super) keys: Vec<String>,
}

impl Notice {
    pub(super) fn encode(&self) -> Vec<u8> {
        // Numbers and strings into a growing vector: nothing to refuse.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        match postcard::take_from_bytes(bytes) {
            Ok((notice, [])) => Some(notice),
            _ => None,
        }
    }
}

/// What a message means for the copies in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It follows on what was heard before.
    InOrder,
    /// It was heard already.
    Old,
    /// At least one before it is missing.
    Missing,
}

/// What was heard from whom.
#[derive(Debug, Default)]
pub(super) struct Heard {
    senders: HashMap<u64, Sender>,
    turn: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sender {
    sequence: u64,
    turn: u64,
}

impl Heard {
    /// Anything may have been missed; what comes next is taken as it comes. The caller drops all copies.
    pub(super) fn gap(&mut self) {
        self.senders.clear();
    }

    /// Takes note of a message.
    pub(super) fn note(&mut self, instance: u64, sequence: u64) -> Verdict {
        self.turn += 1;
        let turn = self.turn;
        let Some(sender) = self.senders.get_mut(&instance) else {
            self.make_room();
            self.senders.insert(instance, Sender { sequence, turn });
            // A process whose first message this is has said nothing before. Of one that was forgotten, or that spoke
            // before this process listened, nobody knows.
            return if sequence <= 1 { Verdict::InOrder } else { Verdict::Missing };
        };
        sender.turn = turn;
        match sequence.checked_sub(sender.sequence) {
            None | Some(0) => Verdict::Old,
            Some(ahead) => {
                sender.sequence = sequence;
                if ahead == 1 { Verdict::InOrder } else { Verdict::Missing }
            }
        }
    }

    /// Whether everything that `instance` sent up to `sequence` was heard.
    pub(super) fn has(&self, instance: u64, sequence: u64) -> bool {
        self.senders.get(&instance).is_some_and(|sender| sender.sequence >= sequence)
    }

    fn make_room(&mut self) {
        if self.senders.len() < SENDERS_MAX {
            return;
        }
        let oldest = self.senders.iter().min_by_key(|(_, sender)| sender.turn).map(|(instance, _)| *instance);
        if let Some(oldest) = oldest {
            self.senders.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_message_is_noticed_and_a_repeated_one_is_not() {
        let mut heard = Heard::default();
        assert_eq!(heard.note(7, 1), Verdict::InOrder);
        assert_eq!(heard.note(7, 2), Verdict::InOrder);
        assert_eq!(heard.note(7, 2), Verdict::Old);
        assert_eq!(heard.note(7, 1), Verdict::Old);
        assert_eq!(heard.note(7, 4), Verdict::Missing);
        assert_eq!(heard.note(7, 5), Verdict::InOrder);
        assert!(heard.has(7, 5) && !heard.has(7, 6) && !heard.has(8, 1));
    }

    #[test]
    fn senders_are_told_apart_and_forgotten_after_a_gap() {
        let mut heard = Heard::default();
        assert_eq!(heard.note(7, 1), Verdict::InOrder);
        assert_eq!(heard.note(8, 40), Verdict::Missing, "what it said before was not heard");
        assert_eq!(heard.note(8, 41), Verdict::InOrder);
        heard.gap();
        assert!(!heard.has(7, 1));
    }

    #[test]
    fn memory_is_bounded_and_the_longest_silent_go_first() {
        let mut heard = Heard::default();
        let beyond = u64::try_from(SENDERS_MAX).unwrap() + 10;
        for instance in 0..beyond {
            heard.note(instance, 1);
        }
        assert_eq!(heard.senders.len(), SENDERS_MAX);
        assert!(heard.has(beyond - 1, 1) && !heard.has(0, 1));
    }

    #[test]
    fn other_bytes_are_not_a_notice() {
        let notice = Notice {
            instance: 1,
            sequence: 2,
            sent_at_us: 3,
            epochs_version: 4,
            keys: vec!["p:s:k".to_owned()],
        };
        let bytes = notice.encode();
        assert_eq!(Notice::decode(&bytes), Some(notice));
        assert_eq!(Notice::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Notice::decode(b""), None);
        assert_eq!(Notice::decode(&[bytes.as_slice(), b"x"].concat()), None);
    }
}
