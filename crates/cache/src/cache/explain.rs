//! Why a key is answered as it is.

use std::time::Duration;

use serde::Serialize;

use super::Cache;
use super::read::Nearness;
use crate::envelope::{self, Freshness};
use crate::key::Key;
use crate::policy::Codec;
use crate::provider::Item;
use crate::usage::Verdict;

/// What each level holds under a key, and what this handle would be answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The key as it is stored.
    pub key: String,
    /// The provider.
    pub provider: &'static str,
    /// Whether a copy in this process would do, and why not.
    pub near: String,
    /// What lies in this process.
    pub near_entry: Option<EntryFacts>,
    /// What lies in the tier that all processes share, or in the only one.
    pub entry: Option<EntryFacts>,
    /// The answer: `hit`, `stale`, `miss`, `off`, with the reason.
    pub verdict: String,
}

/// What is known of one stored entry without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EntryFacts {
    /// Bytes, envelope included.
    pub bytes: usize,
    /// How old the data is that it is based on.
    pub age: Duration,
    /// How long it is still fresh.
    pub fresh_for: Duration,
    /// How long it is still kept.
    pub keep_for: Duration,
    /// What it cost to make.
    pub build_cost: Duration,
    /// The epochs under which it was made.
    pub stamp: u64,
    /// The epochs that it would have to carry now; absent while they change.
    pub stamp_now: Option<u64>,
    /// Whether it says that there is no such thing.
    pub is_absent: bool,
    /// Fingerprint of the value's layout; who reads under another one misses. See [`Cache::with_schema`].
    pub schema: u32,
    /// How the value is written; absent where the entry cannot be read.
    pub codec: Option<Codec>,
    /// `fresh`, `stale`, `expired`, `outdated: …`, `not readable: …`
    pub state: String,
}

impl Cache {
    /// Looks at every level and says what it finds. Counts nothing, changes nothing.
    pub async fn explain(&self, key: &Key) -> Explanation {
        let core = &self.core;
        let provider = &core.calls.provider;
        let nearness = self.nearness();
        let near = match (nearness, self.verdict) {
            (_, Verdict::Refuse) => "the usage is off",
            (Nearness::Exact, Verdict::ServeUnshared) => {
                "the usage is strict: only the shared tier may answer"
            }
            (Nearness::Exact, _) => {
                "the other processes were not heard lately: only the shared tier may answer"
            }
            (Nearness::Nearest, _) => "copies may answer",
        };
        let near_item = core.calls.peek(key, core.calls.clock.now_coarse());
        let read = core.calls.run("get", provider.get(key)).await;
        let (entry, failure) = match read {
            Ok(item) => (item.map(|item| self.facts(key, &item)), None),
            Err(failure) => (None, Some(failure.to_string())),
        };
        let near_entry = near_item.map(|item| self.facts(key, &item));
        let answering = match nearness {
            Nearness::Nearest => near_entry.as_ref().filter(|facts| is_served(facts)).or(entry.as_ref()),
            Nearness::Exact => entry.as_ref(),
        };
        let verdict = match (self.is_on(), answering, failure) {
            (false, _, _) => "off: the provider cannot give the coherence that this usage needs".to_owned(),
            (_, Some(facts), _) if facts.state == "fresh" => "hit".to_owned(),
            (_, Some(facts), _) if facts.state == "stale" => {
                "stale: past its freshness, still kept".to_owned()
            }
            (_, Some(facts), _) => format!("miss: {}", facts.state),
            (_, None, Some(failure)) => format!("miss: {failure}"),
            (_, None, None) => "miss: nothing is stored under the key".to_owned(),
        };
        Explanation {
            key: key.as_str().to_owned(),
            provider: provider.name(),
            near: near.to_owned(),
            near_entry,
            entry,
            verdict,
        }
    }

    fn facts(&self, key: &Key, item: &Item) -> EntryFacts {
        let now = self.core.calls.clock.now();
        match envelope::decode(key, &item.bytes) {
            Err(error) => EntryFacts {
                bytes: item.bytes.len(),
                age: Duration::ZERO,
                fresh_for: Duration::ZERO,
                keep_for: Duration::ZERO,
                build_cost: Duration::ZERO,
                stamp: 0,
                stamp_now: None,
                is_absent: false,
                schema: 0,
                codec: None,
                state: format!("not readable: {error}"),
            },
            Ok((header, _)) => {
                let stamp_now = self.core.stamp(key, &header);
                let age_max = match self.verdict {
                    Verdict::ServeUpToAge(age_max) => Some(age_max),
                    _ => None,
                };
                let state = if stamp_now == Some(header.stamp) {
                    match header.freshness(now, age_max) {
                        Freshness::Fresh => "fresh",
                        Freshness::Stale => "stale",
                        Freshness::Expired => "expired",
                    }
                } else {
                    "outdated: invalidated since it was made"
                };
                EntryFacts {
                    bytes: item.bytes.len(),
                    age: now.saturating_since(header.written_at),
                    fresh_for: header.fresh_until.saturating_since(now),
                    keep_for: header.keep_until.saturating_since(now),
                    build_cost: header.build_cost,
                    stamp: header.stamp,
                    stamp_now,
                    is_absent: header.is_absent,
                    schema: header.schema,
                    codec: Some(header.codec),
                    state: state.to_owned(),
                }
            }
        }
    }
}

fn is_served(facts: &EntryFacts) -> bool {
    matches!(facts.state.as_str(), "fresh" | "stale")
}
