//! The cache of a server: what its process sees of it, what lies in it, and what is to be outdated.

use recache_api::client::Client;
use recache_api::{CacheChange, CacheHealth, CacheStats, InvalidateCache};
use recache_cache::{Key, KeyPrefix};

use super::Verb;
use super::changes::Invalidate;
use super::key::key;
use super::looks::{Explain, fleet_text, print_explanation, print_overview};
use crate::cli_error::{CliError, ExitStatus};
use crate::commands::failure::{Failure, Result};
use crate::commands::{Context, Outcome};
use crate::output::{Format, Tone};

impl Verb {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::Stats(_) => stats(&client.cache_stats().await?, context),
            Self::Health(_) => health(&client.cache_health().await?, context),
            Self::Invalidate(arguments) => invalidate(&arguments, client, context).await,
            Self::Explain(arguments) => explain(&arguments, client, context).await,
            Self::Get(arguments) => arguments.ask(client, context).await,
            Self::Ttl(arguments) => arguments.ask(client, context).await,
            Self::Set(_) => Err(not_by_a_server("set", "values are made by the programs that know how")),
            Self::Del(_) => {
                Err(not_by_a_server("del", "`recache cache invalidate` outdates a value everywhere"))
            }
            Self::Bench(_) => Err(not_by_a_server("bench", "it measures the machine that it runs on")),
        }
    }
}

/// Servers answer no such thing, on purpose.
fn not_by_a_server(verb: &str, why: &str) -> Failure {
    let what = format!("`recache cache {verb}` has no form against a server: {why}");
    let error = CliError::new("E-UNSUPPORTED", ExitStatus::Usage, what);
    error.help("run it where the backend can be reached, without --server").into()
}

/// The key as the server has it: keys are named by their parts here, and the prefix is the server's.
pub(super) async fn key_there(names: &[String], raw: Option<&str>, client: &Client) -> Result<Key> {
    let prefix = KeyPrefix::new(&client.cache().await?.key_prefix);
    Ok(key(names, raw, &prefix)?)
}

async fn explain(asked: &Explain, client: &Client, context: &mut Context<'_>) -> Outcome {
    if asked.names.is_empty() && asked.raw.is_none() {
        print_overview(client.cache().await?, "", context)?;
        return Ok(ExitStatus::Ok);
    }
    let key = key_there(&asked.names, asked.raw.as_deref(), client).await?;
    print_explanation(&client.explain_cache_key(key.as_str()).await?, context)?;
    Ok(ExitStatus::Ok)
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
            context.print_text(&format!("{}{}", table.text(), fleet_text(stats, context)))?;
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
