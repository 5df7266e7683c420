//! The cache as documents.

use recache_api as api;
use recache_cache::coordination::Strategy;
use recache_cache::provider::{Capabilities, CapabilityRow};
use recache_cache::{
    Answer, BreakerReport, Cache, EntryFacts, Explanation, FleetFigures, FleetUsage, Health, Stats, Token,
    Usage,
};
use recache_engine::adaptive::Adaptive;
use serde::Serialize;

use super::records::ms;

/// The usages that the engine has a name for.
const USAGES: [Usage; 7] = [
    Usage::Template,
    Usage::Analytics,
    Usage::GraphAnalysis,
    Usage::Handlers,
    Usage::HealthDetail,
    Usage::JobState,
    Usage::ViewItem,
];

/// Whether it does what it was configured to do.
pub fn cache_health(health: &Health) -> api::CacheHealth {
    let breaker = |report: &BreakerReport| api::CacheBreaker {
        class: report.class.name().to_owned(),
        state: report.state.to_owned(),
        failures_in_a_row: report.failures_in_a_row,
    };
    api::CacheHealth {
        schema: api::CacheHealth::SCHEMA.to_owned(),
        condition: word(&health.condition),
        provider: health.provider.to_owned(),
        reasons: health.reasons.clone(),
        breakers: health.breakers.iter().map(breaker).collect(),
    }
}

/// What a process counted, and what all of them did, or why that is not known.
pub fn cache_stats(provider: &str, stats: &Stats, fleet: Result<FleetFigures, String>) -> api::CacheStats {
    let (fleet, fleet_reason) = match fleet {
        Ok(fleet) => (Some(cache_fleet(fleet)), None),
        Err(reason) => (None, Some(reason)),
    };
    api::CacheStats {
        schema: api::CacheStats::SCHEMA.to_owned(),
        provider: provider.to_owned(),
        evictions: stats.evictions,
        process: serde_json::to_value(stats).unwrap_or_default(),
        fleet,
        fleet_reason,
    }
}

fn cache_fleet(fleet: FleetFigures) -> api::CacheFleet {
    let usage = |reads: FleetUsage| api::CacheFleetUsage {
        usage: reads.usage.to_owned(),
        hits: reads.hits,
        stale_hits: reads.stale_hits,
        misses: reads.misses,
        rebuilds: reads.loads,
    };
    api::CacheFleet {
        strategy: fleet.strategy.name().to_owned(),
        strategy_reason: fleet.why.to_owned(),
        instances: fleet.instances,
        usages: fleet.usages.into_iter().map(usage).collect(),
    }
}

/// What it can do, and what follows from that.
pub fn cache_overview(cache: &Cache) -> api::CacheOverview {
    let (provider, capabilities) = (cache.provider(), cache.capabilities());
    let strategy = Strategy::choose(provider.name(), &capabilities, provider.atomics().is_some());
    let usage = |usage: &Usage| api::CacheUsage {
        usage: usage.name().to_owned(),
        needs: usage.coherence(cache.lifetimes()).to_string(),
        is_on: cache.for_usage(usage).is_on(),
    };
    api::CacheOverview {
        schema: api::CacheOverview::SCHEMA.to_owned(),
        provider: provider.name().to_owned(),
        key_prefix: cache.keys().as_str().to_owned(),
        coherence: capabilities.coherence().to_string(),
        coordination: strategy.strategy.name().to_owned(),
        coordination_reason: strategy.why.to_owned(),
        capabilities: cache_capabilities(&capabilities),
        usages: USAGES.iter().map(usage).collect(),
    }
}

/// What it can do, and who says so.
pub fn cache_capabilities(capabilities: &Capabilities) -> Vec<api::CacheCapability> {
    let capability = |row: CapabilityRow| api::CacheCapability {
        capability: row.capability.name().to_owned(),
        value: row.value.to_string(),
        source: word(&row.source),
    };
    capabilities.rows().map(capability).collect()
}

/// Where it keeps values, the nearest first.
pub fn cache_tiers(cache: &Cache, health: Option<&Health>) -> Vec<api::CacheTier> {
    let provider = cache.provider();
    let is_near = provider.name() == "moka";
    let condition = if health.is_some_and(|health| health.is_healthy) { "active" } else { "degraded" };
    let tier = |tier: &str, provider: &str, condition: &str| api::CacheTier {
        tier: tier.to_owned(),
        provider: provider.to_owned(),
        condition: condition.to_owned(),
    };
    if provider.name() == "noop" {
        return Vec::new();
    }
    if provider.copies().is_none() {
        return vec![tier(if is_near { "near" } else { "far" }, provider.name(), condition)];
    }
    let far = health.and_then(|health| health.breakers.first()).map_or("unknown", |one| one.backend);
    vec![tier("near", "moka", "active"), tier("far", far, condition)]
}

/// Why a key is answered as it is.
pub fn cache_explanation(explanation: Explanation) -> api::CacheExplanation {
    api::CacheExplanation {
        schema: api::CacheExplanation::SCHEMA.to_owned(),
        key: explanation.key,
        provider: explanation.provider.to_owned(),
        verdict: explanation.verdict,
        near: explanation.near,
        near_entry: explanation.near_entry.map(|facts| entry(&facts)),
        entry: explanation.entry.map(|facts| entry(&facts)),
    }
}

/// What is cached under a key; `far`: the backend answered.
pub fn cache_value(found: &Explanation, answer: &Answer<api::Json>, far: bool) -> api::CacheValue {
    let (fresh_for, keep_for) =
        found.entry.as_ref().map_or_else(Default::default, |entry| (entry.fresh_for, entry.keep_for));
    api::CacheValue {
        schema: api::CacheValue::SCHEMA.to_owned(),
        key: found.key.clone(),
        is_absent: answer.value.is_none(),
        value: answer.value.as_deref().cloned(),
        is_fresh: answer.is_fresh,
        tier: if far { "far" } else { "near" }.to_owned(),
        age_ms: ms(answer.age),
        fresh_for_ms: ms(fresh_for),
        keep_for_ms: ms(keep_for),
        build_cost_ms: ms(answer.build_cost),
    }
}

/// A change of it.
pub fn cache_change(action: &str, changed: api::Changed, name: &str, token: Token) -> api::CacheChange {
    api::CacheChange {
        schema: api::CacheChange::SCHEMA.to_owned(),
        action: action.to_owned(),
        changed,
        name: name.to_owned(),
        token: token.to_string(),
        is_confirmed: token.is_confirmed(),
    }
}

fn entry(facts: &EntryFacts) -> api::CacheEntry {
    api::CacheEntry {
        state: facts.state.clone(),
        bytes: u64::try_from(facts.bytes).unwrap_or(u64::MAX),
        age_ms: ms(facts.age),
        fresh_for_ms: ms(facts.fresh_for),
        keep_for_ms: ms(facts.keep_for),
        build_cost_ms: ms(facts.build_cost),
        stamp: format!("{:x}", facts.stamp),
        stamp_now: facts.stamp_now.map(|stamp| format!("{stamp:x}")),
        is_absent: facts.is_absent,
        layout: facts.schema,
        codec: facts.codec.map(|codec| word(&codec).to_lowercase()),
    }
}

/// The wire's word for an enum.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// How long values of each class of keys live, and why; `None` where lives are not chosen.
pub fn ttl_explanation(adaptive: Option<&Adaptive>) -> api::TtlExplanation {
    let settings = adaptive.map(|adaptive| *adaptive.settings()).unwrap_or_default();
    let classes = adaptive.map(Adaptive::explain).unwrap_or_default();
    api::TtlExplanation {
        schema: api::TtlExplanation::SCHEMA.to_owned(),
        enabled: adaptive.is_some(),
        staleness_ms: ms(settings.staleness),
        stale_share_max: settings.stale_share_max,
        saves: settings.saves.as_str().to_owned(),
        classes: classes
            .into_iter()
            .map(|one| api::TtlClass {
                bound: one.bound().map(str::to_owned),
                class: one.class,
                phase: one.phase,
                reads_per_s: one.observed.rates.reads_per_s,
                changes_per_s: one.observed.rates.changes_per_s,
                rebuild_ms: one.observed.rates.rebuild_s * 1_000.0,
                rebuilt: one.observed.rebuilt,
                changed: one.observed.changed,
                invalidated: one.observed.invalidated,
                ttl_ms: ms(one.decision.ttl),
                usage_ms: one.usage.map(ms),
                stale_share: one.decision.stale_share,
                rebuilds_per_s: one.decision.rebuilds_per_s,
            })
            .collect(),
    }
}
