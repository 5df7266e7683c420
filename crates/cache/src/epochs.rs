//! Which stored entries are still reachable: invalidation without looking for the entries.
//!
//! Every key belongs to a few *slots*: one for everything, one for its space, one for the key itself and one for each of
//! its tags, and one more for what strict usages store. A slot has an *epoch*, a number that only rises. An entry is stamped with the epochs that its writer knew
//! when its load began, and is served only while the reader's epochs give the same stamp. Raising an epoch therefore ends
//! every entry of the slot at once, those that nobody could delete and those that are still being loaded included.
//!
//! Slots are shared by hash, so memory is fixed; that two spaces, keys or tags share one costs misses and never serves
//! anything wrong. Entries outlive processes, so the epochs of a shared backend live in it ([`EpochStore`]), under an
//! *incarnation* that changes whenever the record was lost or may have gone back in time.
//!
//! A raise counts in this process at once. Until the shared record has it too it is *owed*: kept, sent again, and
//! the entries stay unreachable here meanwhile.
//!
//! [`EpochStore`]: crate::provider::EpochStore

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use crate::key::{Key, Space};

/// Number of slots for key spaces.
const SPACE_SLOTS: u16 = 256;
/// Number of slots that keys and tags share.
const NAME_SLOTS: u16 = 2_048;
/// One for everything and one for what strict usages store, then spaces, then names.
const SLOTS: usize = 2 + 256 + 2_048;
const SPACES_FROM: u16 = 2;
const NAMES_FROM: u16 = SPACES_FROM + SPACE_SLOTS;

/// The part of a slot's number that the shared record knows; above it are the raises that are owed.
const SHARED_BITS: u32 = 40;
const SHARED_MASK: u64 = (1 << SHARED_BITS) - 1;
const OWED_ONE: u64 = 1 << SHARED_BITS;

/// Changes that one cache may see before its numbers reach those of the next one.
const CHANGES_APART: u64 = 1 << 40;

/// Place of an epoch in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot of everything under the cache's prefix.
    pub const EVERYTHING: Self = Self(0);

    /// Of what strict usages store. Raised by each process that lost sight of the shared record for a while: others may
    /// have changed things and been unable to say so.
    pub const STRICT: Self = Self(1);

    /// A key space's.
    pub fn of_space(space: &Space) -> Self {
        Self::of_space_text(space.as_str())
    }

    fn of_space_text(text: &str) -> Self {
        Self(SPACES_FROM + within(text.as_bytes(), SPACE_SLOTS))
    }

    /// A key's own.
    pub fn of_key(key: &Key) -> Self {
        Self(NAMES_FROM + within(key.as_str().as_bytes(), NAME_SLOTS))
    }

    /// A tag's.
    pub fn of_tag(tag: &str) -> Self {
        let text = [b"tag\0", tag.as_bytes()].concat();
        Self(NAMES_FROM + within(&text, NAME_SLOTS))
    }

    /// Of a number that was stored; `None` when no slot has it.
    pub fn from_number(number: u16) -> Option<Self> {
        (usize::from(number) < SLOTS).then_some(Self(number))
    }

    /// As it is stored.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// The same in every process and version.
fn within(bytes: &[u8], slots: u16) -> u16 {
    u16::try_from(xxh3_64(bytes) % u64::from(slots)).unwrap_or(0)
}

/// The slots of one key, its tags aside. Kept in the key, so that a hit computes no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeySlots {
    space: Slot,
    key: Slot,
}

impl KeySlots {
    pub(crate) fn new(space: &str, key: &str) -> Self {
        Self { space: Slot::of_space_text(space), key: Slot(NAMES_FROM + within(key.as_bytes(), NAME_SLOTS)) }
    }
}

/// The epochs as a backend keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EpochRecord {
    /// Changes when the record was lost or may have gone back. Never 0.
    pub incarnation: u64,
    /// Rises with every raise.
    pub version: u64,
    /// Those that were ever raised.
    pub epochs: Vec<(Slot, u64)>,
}

/// Raises that the shared record does not have yet: for each slot the number of the last one. Numbers are never used
/// twice, so a late answer to an earlier payment clears no newer debt.
#[derive(Debug, Default)]
struct Owed {
    last: u64,
    slots: BTreeMap<Slot, u64>,
}

/// The epochs as this process knows them.
#[derive(Debug)]
pub(crate) struct Epochs {
    /// Odd while a record is being taken over.
    turn: AtomicU64,
    /// Rises after every change of a stamp.
    changes: AtomicU64,
    incarnation: AtomicU64,
    version: AtomicU64,
    slots: Box<[AtomicU64]>,
    /// Drawn at random. What is owed is known here alone, so what is stored meanwhile must not look right to another process
    /// that happens to owe as much.
    own: u64,
    /// Taken by whoever changes anything; readers take nothing.
    owed: Mutex<Owed>,
}

impl Epochs {
    /// `own` is drawn at random.
    pub(crate) fn new(own: u64) -> Self {
        /// Far apart, so that two caches over one provider do not take each other's changes for their own.
        static CHANGES_NEXT: AtomicU64 = AtomicU64::new(CHANGES_APART);
        Self {
            own,
            turn: AtomicU64::new(0),
            changes: AtomicU64::new(CHANGES_NEXT.fetch_add(CHANGES_APART, Ordering::Relaxed)),
            incarnation: AtomicU64::new(0),
            version: AtomicU64::new(0),
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            owed: Mutex::default(),
        }
    }

    /// A number that is another one after every change of any stamp; never 0. What was reachable after this was read is
    /// reachable for as long as it stays the same.
    #[inline]
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// What an entry of `key` with these tags must carry to be served now. `None` for the moment in which a record is
    /// being taken over: half of each of two records would be neither.
    pub(crate) fn stamp(&self, key: &Key, tags: &[Slot]) -> Option<u64> {
        let turn = self.turn.load(Ordering::SeqCst);
        let KeySlots { space, key } = key.slots();
        let mut stamp = self.incarnation.load(Ordering::SeqCst);
        for slot in [Slot::EVERYTHING, space, key].iter().chain(tags) {
            let epoch = self.at(*slot);
            stamp = mix(stamp, if epoch < OWED_ONE { epoch } else { epoch ^ self.own });
        }
        let is_whole = turn.is_multiple_of(2) && self.turn.load(Ordering::SeqCst) == turn;
        is_whole.then_some(stamp & STAMP_MASK)
    }

    /// Ends every entry of the slots, in this process at once.
    pub(crate) fn raise(&self, slots: &[Slot]) {
        let mut owed = self.owed();
        for slot in slots {
            if let Some(epoch) = self.slots.get(usize::from(slot.0)) {
                epoch.fetch_add(OWED_ONE, Ordering::SeqCst);
            }
            owed.last += 1;
            let number = owed.last;
            owed.slots.insert(*slot, number);
        }
        self.changed();
    }

    /// What the shared record does not have yet.
    pub(crate) fn owed_slots(&self) -> Vec<Slot> {
        self.owed().slots.keys().copied().collect()
    }

    pub(crate) fn owes(&self) -> bool {
        !self.owed().slots.is_empty()
    }

    /// Which record was adopted last, for [`EpochStore::read`](crate::provider::EpochStore::read).
    pub(crate) fn known(&self) -> (u64, u64) {
        (self.incarnation.load(Ordering::SeqCst), self.version.load(Ordering::SeqCst))
    }

    /// What is owed now, by the number of each raise; to be given to [`paid`](Self::paid) once the record has it.
    pub(crate) fn debts(&self) -> Vec<(Slot, u64)> {
        self.owed().slots.iter().map(|(slot, number)| (*slot, *number)).collect()
    }

    /// Takes over the record. Older ones are ignored, so that answers may overtake each other.
    pub(crate) fn adopt(&self, record: &EpochRecord) {
        let _owed = self.owed();
        self.adopt_locked(record);
    }

    /// The record has all of `debts`: takes it over, and forgets what was owed, but for what came meanwhile.
    pub(crate) fn paid(&self, debts: &[(Slot, u64)], record: &EpochRecord) {
        let mut owed = self.owed();
        self.adopt_locked(record);
        for (slot, number) in debts {
            let Some(epoch) = self.slots.get(usize::from(slot.0)) else { continue };
            if owed.slots.get(slot) == Some(number) {
                epoch.fetch_and(SHARED_MASK, Ordering::SeqCst);
                owed.slots.remove(slot);
            }
        }
        self.changed();
    }

    fn adopt_locked(&self, record: &EpochRecord) {
        let (incarnation, version) = self.known();
        if record.incarnation == incarnation && record.version <= version {
            return;
        }
        self.turn.fetch_add(1, Ordering::SeqCst);
        if record.incarnation != incarnation {
            for epoch in &self.slots {
                epoch.fetch_and(!SHARED_MASK, Ordering::SeqCst);
            }
        }
        for (slot, shared) in &record.epochs {
            if let Some(epoch) = self.slots.get(usize::from(slot.0)) {
                let owed = epoch.load(Ordering::SeqCst) & !SHARED_MASK;
                epoch.store(owed | (shared & SHARED_MASK), Ordering::SeqCst);
            }
        }
        self.incarnation.store(record.incarnation, Ordering::SeqCst);
        self.version.store(record.version, Ordering::SeqCst);
        self.turn.fetch_add(1, Ordering::SeqCst);
        self.changed();
    }

    fn at(&self, slot: Slot) -> u64 {
        self.slots.get(usize::from(slot.0)).map_or(0, |epoch| epoch.load(Ordering::SeqCst))
    }

    /// Nothing under it can panic half way.
    fn owed(&self) -> MutexGuard<'_, Owed> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry has room for 48 bits of its stamp: two of them are alike by chance once in 2.8 * 10^14.
pub(crate) const STAMP_MASK: u64 = (1 << 48) - 1;

/// The finaliser of MurmurHash3 (Appleby, public domain) over a running combination: every bit of both numbers reaches
/// every bit of the result.
fn mix(state: u64, value: u64) -> u64 {
    let mut mixed = state.rotate_left(25) ^ value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 33;
    mixed = mixed.wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^= mixed >> 33;
    mixed = mixed.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyPrefix;

    fn key(space: &str, name: &str) -> Key {
        KeyPrefix::new("p").space(space).key([name])
    }

    fn record(incarnation: u64, version: u64, epochs: &[(Slot, u64)]) -> EpochRecord {
        EpochRecord { incarnation, version, epochs: epochs.to_vec() }
    }

    #[test]
    fn a_raise_ends_what_was_stamped_before_in_its_slot_only() {
        let epochs = Epochs::new(1);
        let (a, b) = (key("s", "a"), key("s", "b"));
        let other = key("t", "a");
        let tag = Slot::of_tag("red");
        let stamps = || [epochs.stamp(&a, &[]), epochs.stamp(&b, &[]), epochs.stamp(&other, &[tag])];
        let before = stamps();
        epochs.raise(&[Slot::of_key(&a)]);
        let after_key = stamps();
        assert!(after_key[0] != before[0] && after_key[1..] == before[1..]);
        epochs.raise(&[Slot::of_space(&a.space())]);
        let after_space = stamps();
        assert!(after_space[1] != before[1] && after_space[2] == before[2]);
        epochs.raise(&[tag]);
        assert_ne!(stamps()[2], before[2]);
        let before_all = stamps();
        epochs.raise(&[Slot::EVERYTHING]);
        assert!(stamps().iter().zip(before_all).all(|(now, before)| *now != before));
    }

    #[test]
    fn two_processes_with_the_same_record_give_the_same_stamp() {
        let (one, two) = (Epochs::new(1), Epochs::new(2));
        let slot = Slot::of_key(&key("s", "a"));
        one.raise(&[slot]);
        let debts = one.debts();
        let shared = record(7, 3, &[(slot, 2)]);
        one.paid(&debts, &shared);
        two.adopt(&shared);
        assert!(!one.owes());
        assert_eq!(one.stamp(&key("s", "a"), &[]), two.stamp(&key("s", "a"), &[]));
    }

    #[test]
    fn what_is_owed_counts_until_it_is_paid_and_longer_when_more_came() {
        let epochs = Epochs::new(1);
        let key = key("s", "a");
        let slot = Slot::of_key(&key);
        epochs.adopt(&record(7, 1, &[]));
        let old = epochs.stamp(&key, &[]);
        epochs.raise(&[slot]);
        let debts = epochs.debts();
        epochs.adopt(&record(7, 2, &[]));
        assert_ne!(epochs.stamp(&key, &[]), old, "a record without the raise does not undo it");
        epochs.raise(&[slot]);
        epochs.paid(&debts, &record(7, 3, &[(slot, 1)]));
        assert_eq!(epochs.owed_slots(), [slot], "the second raise is still owed");
    }

    #[test]
    fn a_late_answer_to_an_earlier_payment_clears_no_newer_debt() {
        let epochs = Epochs::new(1);
        let key = key("s", "a");
        let slot = Slot::of_key(&key);
        epochs.adopt(&record(7, 1, &[]));
        epochs.raise(&[slot]);
        let (first, second) = (epochs.debts(), epochs.debts());
        epochs.paid(&second, &record(7, 3, &[(slot, 2)]));
        assert!(!epochs.owes());
        let stored_between = epochs.stamp(&key, &[]);
        epochs.raise(&[slot]);
        epochs.paid(&first, &record(7, 2, &[(slot, 1)]));
        assert_eq!(epochs.owed_slots(), [slot]);
        assert_ne!(epochs.stamp(&key, &[]), stored_between);
    }

    #[test]
    fn every_change_of_a_stamp_changes_the_number_of_changes() {
        let epochs = Epochs::new(1);
        let key = key("s", "a");
        let slot = Slot::of_key(&key);
        let mut seen = (epochs.stamp(&key, &[]), epochs.changes());
        assert_ne!(seen.1, 0);
        assert_ne!(seen.1, Epochs::new(1).changes());
        let mut debts = Vec::new();
        let steps: [&mut dyn FnMut(); 5] = [
            &mut || epochs.raise(&[slot]),
            &mut || epochs.adopt(&record(7, 1, &[])),
            &mut || {
                epochs.raise(&[slot]);
                debts = epochs.debts();
            },
            &mut || epochs.paid(&epochs.debts(), &record(7, 2, &[(slot, 1)])),
            &mut || epochs.adopt(&record(8, 1, &[])),
        ];
        for (step, act) in steps.into_iter().enumerate() {
            act();
            let now = (epochs.stamp(&key, &[]), epochs.changes());
            assert!(now.0 != seen.0 && now.1 != seen.1, "step {step}");
            seen = now;
        }
    }

    #[test]
    fn an_older_record_changes_nothing_and_another_incarnation_everything() {
        let epochs = Epochs::new(1);
        let key = key("s", "a");
        epochs.adopt(&record(7, 5, &[(Slot::EVERYTHING, 4)]));
        let stamp = epochs.stamp(&key, &[]);
        epochs.adopt(&record(7, 4, &[(Slot::EVERYTHING, 3)]));
        assert_eq!(epochs.stamp(&key, &[]), stamp);
        epochs.adopt(&record(8, 1, &[]));
        assert_ne!(epochs.stamp(&key, &[]), stamp);
    }

    #[test]
    fn what_two_processes_owe_is_not_the_same() {
        let (one, two) = (Epochs::new(0x1111_2222_3333), Epochs::new(0x4444_5555_6666));
        let key = key("s", "a");
        for epochs in [&one, &two] {
            epochs.adopt(&record(7, 1, &[]));
        }
        assert_eq!(one.stamp(&key, &[]), two.stamp(&key, &[]));
        for epochs in [&one, &two] {
            epochs.raise(&[Slot::of_key(&key)]);
        }
        assert_ne!(one.stamp(&key, &[]), two.stamp(&key, &[]), "an entry from before the other's raise");
    }
}
