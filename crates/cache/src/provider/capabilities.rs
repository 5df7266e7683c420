//! What a provider can do, and how that is known.
//!
//! Three sources may speak of one capability. The most trusted wins: what was *probed* on the live server by doing it,
//! then what the provider's code *declares*, then the *table* of known servers, then a registered *detector*. A wrapper
//! starts from what it wraps and overrides what it changes.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::usage::Coherence;

/// Something that a provider can do, or a limit that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Capability {
    /// It keeps entries at all. Where it does not, the cache does not even encode values.
    Retains,
    /// All processes that use it see the same entries.
    Shared,
    /// A number in it can be raised by many at once, and none is lost.
    AtomicIncrement,
    /// A value can be replaced only if it is still what was read.
    CompareAndSwap,
    /// A value can be stored only if there is none.
    SetIfAbsent,
    /// It grants one load per key to the whole fleet, and refuses the fill of who lost that grant.
    Leases,
    /// It tells how long an entry will still be kept.
    TtlInspection,
    /// Several deployments can share it without seeing each other's entries.
    Namespaces,
    /// Entries can be invalidated by tag.
    Tags,
    /// Many entries cost one exchange.
    Batch,
    /// It carries messages between processes, so that near copies are dropped at once.
    PushInvalidation,
    /// The longest key in bytes.
    MaxKeyBytes,
    /// The largest entry in bytes, envelope included. Larger ones are not offered to it.
    MaxValueBytes,
}

impl Capability {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 13] = [
        Self::Retains,
        Self::Shared,
        Self::AtomicIncrement,
        Self::CompareAndSwap,
        Self::SetIfAbsent,
        Self::Leases,
        Self::TtlInspection,
        Self::Namespaces,
        Self::Tags,
        Self::Batch,
        Self::PushInvalidation,
        Self::MaxKeyBytes,
        Self::MaxValueBytes,
    ];

    /// As it is shown: `atomic_increment`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retains => "retains",
            Self::Shared => "shared",
            Self::AtomicIncrement => "atomic_increment",
            Self::CompareAndSwap => "compare_and_swap",
            Self::SetIfAbsent => "set_if_absent",
            Self::Leases => "leases",
            Self::TtlInspection => "ttl_inspection",
            Self::Namespaces => "namespaces",
            Self::Tags => "tags",
            Self::Batch => "batch",
            Self::PushInvalidation => "push_invalidation",
            Self::MaxKeyBytes => "max_key_bytes",
            Self::MaxValueBytes => "max_value_bytes",
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|known| *known == self).unwrap_or_default()
    }

    /// Its place among the bits of [`Capabilities::bits`].
    #[cfg(feature = "cache-redis")]
    pub(crate) fn bit(self) -> u32 {
        u32::try_from(self.index()).ok().and_then(|index| 1_u32.checked_shl(index)).unwrap_or_default()
    }
}

/// Where knowledge of a capability comes from; the later ones are trusted more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Nobody said anything: it is taken for absent.
    Unknown,
    /// A detector that the application registered.
    Detector,
    /// The table of known servers.
    KnownTable,
    /// The provider's code says so.
    Declared,
    /// It was done on the live server.
    Probed,
}

/// What is known of one capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It has it, or has it not.
    Has(bool),
    /// A limit in bytes; `None` when there is none.
    Limit(Option<usize>),
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Has(true) => f.write_str("yes"),
            Self::Has(false) => f.write_str("no"),
            Self::Limit(None) => f.write_str("unlimited"),
            Self::Limit(Some(bytes)) => write!(f, "{bytes}"),
        }
    }
}

impl Serialize for Known {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Has(has) => serializer.serialize_bool(*has),
            Self::Limit(limit) => limit.serialize(serializer),
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CapabilityRow {
    /// Which.
    pub capability: Capability,
    /// What is known.
    pub value: Known,
    /// From where.
    pub source: Source,
}

/// What a provider can do. Plain data: a snapshot that may be handed around; providers that probe give a new one after
/// each reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    rows: [(Known, Source); Capability::ALL.len()],
    coherence: Coherence,
}

impl Capabilities {
    /// Nothing known yet: no capability, no limit, eventual.
    pub fn unknown() -> Self {
        let rows = Capability::ALL.map(|capability| (absent(capability), Source::Unknown));
        Self { rows, coherence: Coherence::Eventual }
    }

    /// The provider declares that it has exactly these; all others it has not, limits aside.
    pub fn declared(coherence: Coherence, having: &[Capability]) -> Self {
        let mut capabilities = Self::unknown();
        capabilities.coherence = coherence;
        for capability in Capability::ALL {
            let value = match absent(capability) {
                Known::Has(_) => Known::Has(having.contains(&capability)),
                limit @ Known::Limit(_) => limit,
            };
            capabilities.claim(capability, value, Source::Declared);
        }
        capabilities
    }

    /// Takes note of `value`, unless a more trusted source has spoken. Of two equally trusted ones the later holds.
    pub fn claim(&mut self, capability: Capability, value: Known, source: Source) {
        if let Some(row) = self.rows.get_mut(capability.index())
            && source >= row.1
        {
            *row = (value, source);
        }
    }

    /// As [`claim`](Self::claim) for a declared limit.
    #[must_use]
    pub fn limited(mut self, capability: Capability, bytes: usize) -> Self {
        self.claim(capability, Known::Limit(Some(bytes)), Source::Declared);
        self
    }

    /// What a wrapper changes, whoever has spoken before.
    #[must_use]
    pub fn overridden(mut self, capability: Capability, value: Known) -> Self {
        if let Some(row) = self.rows.get_mut(capability.index()) {
            *row = (value, Source::Declared);
        }
        self
    }

    /// The same with another coherence.
    #[must_use]
    pub fn coherent(mut self, coherence: Coherence) -> Self {
        self.coherence = coherence;
        self
    }

    /// Whether it has it; no, as long as nobody said so.
    pub fn has(&self, capability: Capability) -> bool {
        matches!(self.rows.get(capability.index()), Some((Known::Has(true), _)))
    }

    /// Those that it has, each as its [`bit`](Capability::bit).
    #[cfg(feature = "cache-redis")]
    pub(crate) fn bits(&self) -> u32 {
        let had = Capability::ALL.into_iter().filter(|capability| self.has(*capability));
        had.fold(0, |bits, capability| bits | capability.bit())
    }

    /// A limit in bytes, when there is one.
    pub fn limit(&self, capability: Capability) -> Option<usize> {
        match self.rows.get(capability.index()) {
            Some((Known::Limit(limit), _)) => *limit,
            _ => None,
        }
    }

    /// The strongest coherence that it gives, alone or in the present combination.
    pub fn coherence(&self) -> Coherence {
        self.coherence
    }

    /// The whole table, for people.
    pub fn rows(&self) -> impl Iterator<Item = CapabilityRow> + '_ {
        Capability::ALL.into_iter().zip(self.rows).map(|(capability, (value, source))| CapabilityRow {
            capability,
            value,
            source,
        })
    }
}

impl Serialize for Capabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.rows())
    }
}

fn absent(capability: Capability) -> Known {
    match capability {
        Capability::MaxKeyBytes | Capability::MaxValueBytes => Known::Limit(None),
        _ => Known::Has(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_trusted_source_wins_whatever_the_order() {
        let claims = [
            (false, Source::Detector),
            (true, Source::KnownTable),
            (false, Source::Declared),
            (true, Source::Probed),
        ];
        for turn in 0..claims.len() {
            let mut capabilities = Capabilities::unknown();
            for (has, source) in claims.iter().cycle().skip(turn).take(claims.len()) {
                capabilities.claim(Capability::Leases, Known::Has(*has), *source);
            }
            assert!(capabilities.has(Capability::Leases));
        }
    }

    #[test]
    fn a_wrapper_inherits_and_overrides() {
        let inner = Capabilities::declared(Coherence::Strict, &[Capability::Shared, Capability::Batch]);
        let outer = inner.overridden(Capability::Batch, Known::Has(false));
        assert!(outer.has(Capability::Shared) && !outer.has(Capability::Batch));
        assert_eq!(outer.coherence(), Coherence::Strict);
    }

    #[test]
    fn what_nobody_said_is_absent() {
        let capabilities = Capabilities::unknown();
        assert!(
            capabilities
                .rows()
                .all(|row| row.source == Source::Unknown && row.value == absent(row.capability))
        );
    }
}
