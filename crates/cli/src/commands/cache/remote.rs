//! The cache of a server: what its process sees of it, and what is to be outdated.

use recache_api::client::Client;
use recache_api::{CacheChange, CacheHealth, CacheStats, InvalidateCache};
use recache_cache::KeyPrefix;

use super::Verb;
use super::changes::Invalidate;
use crate::cli_error::{CliError, ExitStatus};
use crate::commands::against::no_remote_form;
use crate::commands::failure::Result;
use crate::commands::{Context, Outcome};
use crate::output::{Format, Tone};

impl Verb {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let no_form = |verb: &str| Err(no_remote_form(&format!("recache cache {verb}")));
        match self {
            Self::Stats(_) => stats(&client.cache_stats().await?, context),
            Self::Health(_) => health(&client.cache_health().await?, context),
            Self::Invalidate(arguments) => invalidate(&arguments, client, context).await,
            Self::Get(_) => no_form("get"),
            Self::Set(_) => no_form("set"),
            Self::Del(_) => no_form("del"),
            Self::Explain(_) => no_form("explain"),
            Self::Bench(_) => no_form("bench"),
            Self::Ttl(_) => no_form("ttl"),
        }
    }
}

fn stats(stats: &CacheStats, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(stats)?,
        Format::Table => {
            let mut table = context.table(["", ""]);
            table.row(["provider".to_owned(), stats.provider.clone()]);
            let evictions = stats.evictions.map_or_else(|| "not told".to_owned(), |count| count.to_string());
            table.row(["evictions".to_owned(), evictions]);
            for (name, value) in stats.process.as_object().into_iter().flatten() {
                if value.is_u64() && name != "evictions" {
                    table.row([name.replace('_', " "), value.to_string()]);
                }
            }
            context.print_text(&table.text())?;
        }
    }
    Ok(ExitStatus::Ok)
}

/// Exit code 6 when it is degraded or disabled, as for one's own cache.
fn health(health: &CacheHealth, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(health)?,
        Format::Table => {
            let tone = match health.condition.as_str() {
                "active" => Tone::Good,
                "disabled" => Tone::Doubtful,
                _ => Tone::Bad,
            };
            let mut table = context.table(["", ""]);
            table.toned([("condition".to_owned(), Tone::Plain), (health.condition.clone(), tone)]);
            table.row(["provider".to_owned(), health.provider.clone()]);
            for breaker in &health.breakers {
                table.row([format!("breaker of {}s", breaker.class), breaker.state.clone()]);
            }
            for reason in &health.reasons {
                table.row(["reason".to_owned(), reason.clone()]);
            }
            context.print_text(&table.text())?;
        }
    }
    let reasons = health.reasons.join("; ");
    let (code, what) = match health.condition.as_str() {
        "active" => return Ok(ExitStatus::Ok),
        "disabled" => ("E-CACHE-DISABLED", format!("the cache of the server is {reasons}")),
        _ => ("E-CACHE-DEGRADED", format!("the cache of the server cannot be used: {reasons}")),
    };
    Err(CliError::new(code, ExitStatus::Unavailable, what)
        .help("the server's configuration and log say more")
        .into())
}

async fn invalidate(asked: &Invalidate, client: &Client, context: &mut Context<'_>) -> Outcome {
    asked.check_consent()?;
    // Keys are named by their parts here; the prefix is the server's.
    let prefix = KeyPrefix::new(&client.cache().await?.key_prefix);
    let what = InvalidateCache {
        key: asked.key(&prefix)?.map(|key| key.as_str().to_owned()),
        space: asked.space.clone(),
        tag: asked.tag.clone(),
        all: asked.all,
        reason: Some("invalidated from the command line".to_owned()),
    };
    let change = client.invalidate_cache(&what).await?;
    print_change(&change, context)?;
    if change.is_confirmed {
        return Ok(ExitStatus::Ok);
    }
    let what = "the server's backend did not confirm it: other processes may serve what was there";
    Err(CliError::new("E-CACHE-UNCONFIRMED", ExitStatus::Unavailable, what)
        .help("the server tells it when it is back; until then it is outdated at this server only")
        .into())
}

fn print_change(change: &CacheChange, context: &mut Context<'_>) -> Result<()> {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(change),
        Format::Table => {
            context.print_text(&format!("{}\n", change.token))?;
            let confirmed = if change.is_confirmed { "confirmed" } else { "not confirmed" };
            context.note(&format!("{} {}: {confirmed}", change.action, change.name))
        }
    }
}
