//! `recache health`.

use recache_api::{HealthDetails, HealthStatus, PoolHealth, WriterHealth};

use super::against::Against;
use super::{Context, Outcome};
use crate::cli_error::{CliError, ExitStatus};
use crate::output::{Format, Table, Tone, duration, instant};

/// Tell how a server does: database, cache, work, how much may run
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache health
  recache health --server https://recache.example -o json

Without --server it asks http://127.0.0.1:7878. Exit code 6 when the server cannot
commit a write. What this machine lacks says `recache doctor`.")]
pub(crate) struct Args {
    #[command(flatten)]
    against: Against,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let details = self.against.client_or_local(context)?.health_details().await?;
        match context.format() {
            Format::Json | Format::Jsonl => context.print(&details)?,
            Format::Table => {
                let text = tables(&details, context);
                context.print_text(&text)?;
            }
        }
        if details.health.status == HealthStatus::Ready {
            return Ok(ExitStatus::Ok);
        }
        let what = format!("the server is not ready: {}", details.health.reasons.join("; "));
        Err(CliError::new("E-UNAVAILABLE", ExitStatus::Unavailable, what)
            .help("the server's log says more")
            .into())
    }
}

fn tables(details: &HealthDetails, context: &Context<'_>) -> String {
    let HealthDetails { health, database, cache, work, .. } = details;
    let mut table = context.table(["", ""]);
    let (word, tone) = match health.status {
        HealthStatus::Ready => ("ready", Tone::Good),
        HealthStatus::NotReady => ("not ready", Tone::Bad),
    };
    table.toned([("server".to_owned(), Tone::Plain), (format!("{word}, version {}", health.version), tone)]);
    for (name, reasons) in [("because", &health.reasons), ("degraded", &health.degraded)] {
        for reason in reasons {
            table.row([name.to_owned(), reason.clone()]);
        }
    }
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    let version =
        database.schema_version.map_or_else(|| "not known".to_owned(), |version| version.to_string());
    row("database", format!("{}, tables of version {version}", database.kind));
    row("one commit", database.commit_ms.map_or_else(|| "none".to_owned(), duration));
    if let Some(ahead) = database.clock_ahead_ms {
        row("its clock", format!("{ahead} ms ahead"));
    }
    let breakers =
        if cache.breakers.is_empty() { String::new() } else { format!(", {}", cache.breakers.join(", ")) };
    row("cache", format!("{}, {}{breakers}", cache.provider, cache.condition));
    row("cache reads", format!("{} hits, {} misses", cache.hits, cache.misses));
    row(
        "running jobs",
        format!("{} of {} ({}), slots {}", work.held, work.limit.limit, work.limit.reason, work.limit.slots),
    );
    row(
        "attempts here",
        format!("{} begun, {} ended well, {} failed for good", work.started, work.completed, work.failed),
    );
    row("taken back", format!("{} jobs of dead workers", work.swept));
    row("calls that failed", work.store_errors.to_string());
    if let Some(count) = work.events_unmade.filter(|count| *count > 0) {
        row("events unmade", format!("{count}, see `recache event list --waiting`"));
    }
    if let Some(workers) = &details.workers {
        let silent = |count: u64, ms: Option<u64>| match ms {
            Some(ms) => format!("{count}, silent for {} at most", duration(ms)),
            None => count.to_string(),
        };
        row("nodes", silent(workers.nodes, workers.nodes_silent_ms));
        row("remote workers", silent(workers.remote, workers.remote_silent_ms));
    }
    if let Some(leader) = &details.leader {
        let since = leader.since.map(|since| format!(" since {}", instant(since))).unwrap_or_default();
        let node = leader.node.as_deref().unwrap_or("a process that does not say who it is");
        row("maintenance", format!("{node}{since}"));
    }
    if let Some(at) = details.sweep.last_at {
        let overdue = details.sweep.overdue.filter(|count| *count > 0);
        let overdue = overdue.map(|count| format!(", {count} overdue")).unwrap_or_default();
        row("last sweep", format!("{}{overdue}", instant(at)));
    }
    row("oldest due job", work.oldest_due_ms.map_or_else(|| "none".to_owned(), duration));
    row("requests", format!("{} at work, {} waiting", work.requests_working, work.requests_waiting));
    let mut parts = vec![table.text()];
    parts.extend(database.pool.as_ref().map(|pool| pool_text(pool, context.table(["POOL", ""]))));
    parts.extend(database.writer.as_ref().map(|writer| writer_text(writer, context.table(["WRITER", ""]))));
    parts.join("\n")
}

fn pool_text(pool: &PoolHealth, mut table: Table) -> String {
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("in use", format!("{} of {}, {} open: {}", pool.busy, pool.max, pool.size, pool.band));
    row("waiting", format!("{} now, {} of {} since the start", pool.waiting, pool.waited, pool.taken));
    row("waited for", duration(pool.waited_ms));
    row("opened", format!("{}, the oldest lived {}", pool.opened, duration(pool.age_max_ms)));
    if let Some(advice) = &pool.advice {
        row("advice", format!("{} connections: {}", advice.connections, advice.why));
    }
    table.text()
}

fn writer_text(writer: &WriterHealth, mut table: Table) -> String {
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("in use", format!("{:.0} %: {}", writer.utilisation * 100.0, writer.band));
    row("waiting", format!("{} now, {} go together", writer.waiting, writer.group_max));
    row("written", format!("{} calls in {} transactions", writer.calls, writer.transactions));
    row("waited for", duration(writer.waited_ms));
    if let Some(advice) = &writer.advice {
        row("advice", advice.clone());
    }
    table.text()
}
