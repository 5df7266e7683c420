//! `recache cache stats`, `health` and `explain`: they change nothing.

use std::sync::Arc;
use std::time::Duration;

use recache_api::{CacheExplanation, CacheFleet, CacheOverview, CacheStats, Json};
use recache_cache::coordination::Instance;
use recache_cache::{Cache, Condition, FleetFigures, FleetReads, SystemClock};

use super::super::failure::Result;
use super::super::{Context, Outcome};
use super::key::key;
use super::opened::Opened;
use crate::cli_error::ExitStatus;
use crate::output::{self, Format, Tone};

/// Show what this process counted, and what the backend tells
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache cache stats
  recache cache stats -o json

Each process counts for itself: what is shown of the process is this command's
own look at the backend. Evictions are the backend's, by all who use it. Below
stands what the caches of all processes answered, those that have ended included,
where the backend can sum it.")]
pub(super) struct Stats {}

/// Say whether the cache can be used, and why not
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache cache health
  recache cache health --timeout 10s -o json

Exit code 6 when it is degraded or disabled.")]
pub(super) struct HealthArgs {}

/// Show what the backend can do, or why a key is answered as it is
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache cache explain
  recache cache explain shop article 42
  recache cache explain --raw recache:shop:article:42 -o json")]
pub(super) struct Explain {
    /// The space and the parts of a key
    #[arg(value_name = "SPACE PART", num_args = 1.., conflicts_with = "raw")]
    pub(super) names: Vec<String>,
    /// The key as it is stored, prefix included
    #[arg(long, value_name = "KEY")]
    pub(super) raw: Option<String>,
}

impl Stats {
    pub(super) async fn run(self, patience: Duration, context: &mut Context<'_>) -> Outcome {
        let opened = Opened::usable(patience, context).await?;
        let stats = opened.cache.stats();
        let document = output::cache_stats(opened.health.provider, &stats, fleet(&opened.cache).await);
        match context.format() {
            Format::Json | Format::Jsonl => context.print(&document)?,
            Format::Table => {
                let mut table = context.table(["", ""]);
                table.row(["provider".to_owned(), document.provider.clone()]);
                let evictions =
                    document.evictions.map_or_else(|| "not told".to_owned(), |count| count.to_string());
                table.row(["evictions".to_owned(), evictions]);
                let counters = document.process.as_object().cloned().unwrap_or_default();
                for (name, value) in counters.iter().filter(|(name, _)| name.as_str() != "evictions") {
                    if value.is_u64() {
                        table.row([name.replace('_', " "), value.to_string()]);
                    }
                }
                for calls in &stats.calls {
                    let at = |per_mille| {
                        calls.took.quantile(per_mille).map_or_else(String::new, |took| format!("{took:?}"))
                    };
                    let (count, p50, p99) = (calls.took.count(), at(500), at(990));
                    let text = format!("{count} calls, half within {p50}, 99 % within {p99}");
                    table.row([format!("call of {}", calls.operation), text]);
                }
                context.print_text(&format!("{}{}", table.text(), fleet_text(&document, context)))?;
            }
        }
        opened.note_in_process(context)?;
        Ok(ExitStatus::Ok)
    }
}

/// What all processes shared. This one only looks, and is not counted among them.
async fn fleet(cache: &Cache) -> std::result::Result<FleetFigures, String> {
    let me = Instance::new("recache cache stats", std::process::id(), 0);
    let read = FleetReads::new(cache, me, Arc::new(SystemClock));
    read.read().await.map_err(|error| error.to_string())
}

/// What the caches of all processes answered, for people.
pub(super) fn fleet_text(stats: &CacheStats, context: &Context<'_>) -> String {
    let Some(fleet) = &stats.fleet else {
        let reason = stats.fleet_reason.as_deref().unwrap_or("this server does not tell");
        return format!("\nall processes: not known: {reason}\n");
    };
    let CacheFleet { strategy, strategy_reason, instances, usages } = fleet;
    let mut text =
        format!("\nall processes: {instances} heard of within a minute, {strategy}: {strategy_reason}\n");
    if !usages.is_empty() {
        let mut table = context.table(["USAGE", "HITS", "STALE", "MISSES", "REBUILDS"]);
        for one in usages {
            let counts = [one.hits, one.stale_hits, one.misses, one.rebuilds].map(|count| count.to_string());
            let [hits, stale, misses, rebuilds] = counts;
            table.row([one.usage.clone(), hits, stale, misses, rebuilds]);
        }
        text.push_str(&table.text());
    }
    text
}

impl HealthArgs {
    pub(super) async fn run(self, patience: Duration, context: &mut Context<'_>) -> Outcome {
        let opened = Opened::any(patience, context).await?;
        let document = output::cache_health(&opened.health);
        match context.format() {
            Format::Json | Format::Jsonl => context.print(&document)?,
            Format::Table => {
                let tone = match opened.health.condition {
                    Condition::Active => Tone::Good,
                    Condition::Disabled => Tone::Doubtful,
                    _ => Tone::Bad,
                };
                let mut table = context.table(["", ""]);
                table.toned([("condition".to_owned(), Tone::Plain), (document.condition, tone)]);
                table.row(["provider".to_owned(), document.provider]);
                table.row(["at".to_owned(), opened.place()]);
                for breaker in document.breakers {
                    table.row([format!("breaker of {}s", breaker.class), breaker.state]);
                }
                for reason in document.reasons {
                    table.row(["reason".to_owned(), reason]);
                }
                context.print_text(&table.text())?;
            }
        }
        opened.check()?;
        Ok(ExitStatus::Ok)
    }
}

impl Explain {
    pub(super) async fn run(self, patience: Duration, context: &mut Context<'_>) -> Outcome {
        let opened = Opened::usable(patience, context).await?;
        if self.names.is_empty() && self.raw.is_none() {
            return overview(&opened, context);
        }
        let key = key(&self.names, self.raw.as_deref(), opened.cache.keys())?;
        // A first look brings the epochs that all processes share: without them every entry seems outdated.
        opened.cache.lookup::<Json>(&key).await;
        print_explanation(&output::cache_explanation(opened.cache.explain(&key).await), context)?;
        opened.note_in_process(context)?;
        Ok(ExitStatus::Ok)
    }
}

fn overview(opened: &Opened, context: &mut Context<'_>) -> Outcome {
    print_overview(output::cache_overview(&opened.cache), &opened.place(), context)?;
    Ok(ExitStatus::Ok)
}

pub(super) fn print_overview(document: CacheOverview, place: &str, context: &mut Context<'_>) -> Result<()> {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(&document),
        Format::Table => overview_tables(document, place, context),
    }
}

pub(super) fn print_explanation(explanation: &CacheExplanation, context: &mut Context<'_>) -> Result<()> {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(explanation),
        Format::Table => {
            let text = explanation_text(explanation, context);
            context.print_text(&text)
        }
    }
}

fn overview_tables(document: CacheOverview, place: &str, context: &mut Context<'_>) -> Result<()> {
    let mut facts = context.table(["", ""]);
    facts.row(["provider".to_owned(), format!("{} {place}", document.provider).trim_end().to_owned()]);
    facts.row(["key prefix".to_owned(), document.key_prefix]);
    facts.row(["coherence".to_owned(), document.coherence]);
    let coordination = format!("{}: {}", document.coordination, document.coordination_reason);
    facts.row(["coordination".to_owned(), coordination]);
    let mut capabilities = context.table(["CAPABILITY", "VALUE", "SOURCE"]);
    for row in document.capabilities {
        capabilities.row([row.capability, row.value, row.source]);
    }
    let mut usages = context.table(["USAGE", "NEEDS", "CACHE"]);
    for usage in document.usages {
        let (state, tone) = if usage.is_on { ("on", Tone::Good) } else { ("off", Tone::Doubtful) };
        usages.toned([(usage.usage, Tone::Plain), (usage.needs, Tone::Plain), (state.to_owned(), tone)]);
    }
    context.print_text(&format!("{}\n{}\n{}", facts.text(), capabilities.text(), usages.text()))
}

fn explanation_text(explanation: &CacheExplanation, context: &Context<'_>) -> String {
    let mut table = context.table(["", ""]);
    let mut fact = |name: &str, value: String| table.row([name.to_owned(), value]);
    fact("key", explanation.key.clone());
    fact("provider", explanation.provider.clone());
    fact("answer", explanation.verdict.clone());
    fact("near", explanation.near.clone());
    for (level, entry) in [("near entry", &explanation.near_entry), ("entry", &explanation.entry)] {
        let Some(entry) = entry else { continue };
        fact(level, entry.state.clone());
        fact("  bytes", entry.bytes.to_string());
        fact("  age", output::duration(entry.age_ms));
        fact("  fresh for", output::duration(entry.fresh_for_ms));
        fact("  kept for", output::duration(entry.keep_for_ms));
        fact("  cost to make", output::duration(entry.build_cost_ms));
        let now = entry.stamp_now.clone().unwrap_or_else(|| "changing".to_owned());
        fact("  epochs", format!("{}, now {now}", entry.stamp));
        fact("  layout", format!("{:#010x}", entry.layout));
        fact("  codec", entry.codec.clone().unwrap_or_else(|| "not known".to_owned()));
        fact("  says there is none", if entry.is_absent { "yes" } else { "no" }.to_owned());
    }
    table.text()
}
