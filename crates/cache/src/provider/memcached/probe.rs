//! What a server can do, found out by doing it: three round trips at the most, with items that end by themselves.

use tokio::time::Instant;

use super::connection::{Connection, Terms};
use super::wire::{Answer, Command, Dialect, Mode, WireKey};
use super::{draw, record};
use crate::provider::{Capabilities, Capability, Error, Known, Source};

/// memcached's own limit of one item, when nothing else is set.
const ITEM_BYTES_MAX_DEFAULT: usize = 1 << 20;

/// The items of a probe end after so many seconds, should their removal be lost.
const PROBE_SECONDS: u32 = 10;

/// What is known of one server.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Facts {
    /// `None` as long as it was never reached.
    pub(super) dialect: Option<Dialect>,
    /// What its clock showed, and when that was.
    clock: Option<(i64, Instant)>,
    item_bytes_max: Option<usize>,
    pub(super) evictions: Option<u64>,
    /// What was tried: `None` as long as it was not.
    swaps: Option<bool>,
    adds: Option<bool>,
    counts: Option<bool>,
    vivifies: Option<bool>,
}

impl Facts {
    /// The largest value that fits, ours and the server's own bytes beside it aside.
    pub(super) fn value_bytes_max(&self) -> usize {
        self.item_bytes_max.unwrap_or(ITEM_BYTES_MAX_DEFAULT).saturating_sub(record::OVERHEAD_BYTES)
    }

    pub(super) fn terms(&self) -> Terms {
        let server_now = self.clock.map(|(shown, then)| {
            let since = i64::try_from(then.elapsed().as_secs()).unwrap_or(i64::MAX);
            shown.saturating_add(since)
        });
        Terms { server_now, value_bytes_max: self.item_bytes_max.unwrap_or(ITEM_BYTES_MAX_DEFAULT) }
    }

    /// Whether it swaps by CAS numbers and stores what is absent, as far as is known: what was not tried is taken for
    /// granted, as all that is declared is.
    pub(super) fn may_keep_epochs(&self) -> bool {
        [self.swaps, self.adds].iter().all(|tried| tried.unwrap_or(true))
    }

    /// Whether it grants leases, likewise.
    pub(super) fn may_grant_leases(&self) -> bool {
        self.may_keep_epochs() && self.vivifies.unwrap_or(true)
    }

    /// Whether it counts, likewise.
    pub(super) fn may_count(&self) -> bool {
        self.counts.unwrap_or(true)
    }

    /// Adds what was found out to `capabilities`. Of several servers the weakest counts.
    pub(super) fn claim(&self, capabilities: &mut Capabilities) {
        let mut claim = |capability, tried: Option<bool>| {
            if let Some(has) = tried {
                capabilities.claim(capability, Known::Has(has), Source::Probed);
            }
        };
        claim(Capability::CompareAndSwap, self.swaps);
        claim(Capability::SetIfAbsent, self.adds);
        claim(Capability::AtomicIncrement, self.counts);
        let leases = self.swaps.zip(self.adds).zip(self.vivifies);
        claim(Capability::Leases, leases.map(|((swaps, adds), vivifies)| swaps && adds && vivifies));
        claim(Capability::Retains, self.adds);
        if self.item_bytes_max.is_some() {
            let limit = Known::Limit(Some(self.value_bytes_max()));
            capabilities.claim(Capability::MaxValueBytes, limit, Source::Probed);
        }
    }

    /// What holds for both servers.
    pub(super) fn weaker(self, other: Self) -> Self {
        let both = |one: Option<bool>, two: Option<bool>| match (one, two) {
            (Some(one), Some(two)) => Some(one && two),
            (one, two) => one.or(two),
        };
        let least = |one: Option<usize>, two: Option<usize>| match (one, two) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        Self {
            dialect: self.dialect.or(other.dialect),
            clock: None,
            item_bytes_max: least(self.item_bytes_max, other.item_bytes_max),
            evictions: None,
            swaps: both(self.swaps, other.swaps),
            adds: both(self.adds, other.adds),
            counts: both(self.counts, other.counts),
            vivifies: both(self.vivifies, other.vivifies),
        }
    }
}

/// Asks the server at the other end.
pub(super) async fn probe(connection: &mut Connection, prefix: &str) -> Result<Facts, Error> {
    let mut facts = Facts { dialect: Some(connection.dialect()), ..Facts::default() };
    let asked = [Command::Stats { settings: true }, Command::Stats { settings: false }];
    let answers = connection.exchange(&asked, facts.terms()).await?;
    for answer in &answers {
        let Answer::Stats(stats) = answer else { continue };
        let read = |wanted| stats.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        facts.item_bytes_max =
            facts.item_bytes_max.or(read("item_size_max").and_then(|text| text.parse().ok()));
        facts.evictions = facts.evictions.or(read("evictions").and_then(|text| text.parse().ok()));
        let shown = read("time").and_then(|text| text.parse().ok());
        facts.clock = facts.clock.or(shown.map(|shown| (shown, Instant::now())));
    }
    try_all(connection, prefix, &mut facts).await?;
    Ok(facts)
}

/// Two round trips: one that leaves items behind, one that looks at them and removes them.
async fn try_all(connection: &mut Connection, prefix: &str, facts: &mut Facts) -> Result<(), Error> {
    let names = ["swap", "count", "lease"].map(|name| format!("{prefix}:{:x}:{name}", draw::number()));
    let [swap, count, lease] = [WireKey::new(&names[0])?, WireKey::new(&names[1])?, WireKey::new(&names[2])?];
    let store = |mode| Command::Store {
        key: swap,
        mode,
        kind: record::PLAIN,
        seconds: PROBE_SECONDS,
        value: [b"v", b""],
    };
    let add_one =
        Command::Count { key: count, delta: 1, initial: record::NUMBER_ZERO, seconds: PROBE_SECONDS };
    let number = record::NUMBER_ZERO.to_string();
    let make_number = Command::Store {
        key: count,
        mode: Mode::Add,
        kind: record::NUMBER,
        seconds: PROBE_SECONDS,
        value: [number.as_bytes(), b""],
    };
    let fetch = Command::Fetch { key: swap, with_value: true, vivify: None };
    let vivify = Command::Fetch { key: lease, with_value: true, vivify: Some(PROBE_SECONDS) };
    let first = [store(Mode::Add), store(Mode::Add), fetch, make_number, add_one, vivify];
    let answers = connection.exchange(&first, facts.terms()).await?;
    let [added, not_added, Answer::Found(found), _, counted, vivified] = answers.as_slice() else {
        facts.adds = Some(false);
        return Ok(());
    };
    facts.adds = Some(matches!(added, Answer::Done { .. }) && *not_added == Answer::NotStored);
    facts.counts = Some(*counted == Answer::Counted(record::NUMBER_ZERO + 1));
    // The classic dialect has leases by `add`.
    facts.vivifies = Some(match vivified {
        Answer::Found(placeholder) => placeholder.is_won,
        _ => connection.dialect() == Dialect::Classic,
    });

    // A server without CAS numbers says 0 for all of them.
    let wrong = found.cas.wrapping_add(1_000_000);
    let second = [
        store(Mode::Swap(wrong)),
        store(Mode::Swap(found.cas)),
        Command::Remove { key: swap, cas: None },
        Command::Remove { key: count, cas: None },
        Command::Remove { key: lease, cas: None },
    ];
    let answers = connection.exchange(&second, facts.terms()).await?;
    let told_apart = answers.first() == Some(&Answer::Changed);
    facts.swaps = Some(found.cas != 0 && told_apart && matches!(answers.get(1), Some(Answer::Done { .. })));
    Ok(())
}
