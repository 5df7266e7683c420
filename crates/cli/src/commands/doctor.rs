//! `recache doctor`: what is well, what is not, and what to do about it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use miette::Severity;
use recache_api::{Check, CheckStatus, Diagnosis};
use recache_model::time::{Clock as _, SystemClock, Timestamp};
use recache_store::Store;

use super::database::{Database, Opened};
use super::failure::{Result, of_store};
use super::{Context, Outcome};
use crate::cli_error::{CliError, ExitStatus};
use crate::config::{self, Loaded, Problem};
use crate::output::{self, Format, Tone};

/// Check configuration, database, disk and clock
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache doctor
  recache doctor --database postgres://app@db/app -o json

Changes nothing. Exit code 1 when a check fails; warnings do not count.")]
pub(crate) struct Args {}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let loaded =
            config::load_file(context.globals.config.as_deref(), &context.environment, &context.flags());
        let mut checks = vec![configuration(&loaded)];
        if !loaded.is_clean() && !context.globals.quiet {
            loaded.write_problems(context.style(), Severity::Warning, context.err)?;
        }
        if loaded.problems.is_empty() {
            let database = context.database()?;
            look_at(&database, &mut checks).await;
        } else {
            checks.extend(["database", "schema", "writable", "disk", "clock", "counts"].map(not_checked));
        }
        let diagnosis = Diagnosis::new(checks);
        let status = diagnosis.status;
        print(diagnosis, context)?;
        Ok(if status == CheckStatus::Fail { ExitStatus::Failed } else { ExitStatus::Ok })
    }
}

fn print(diagnosis: Diagnosis, context: &mut Context<'_>) -> Result<()> {
    match context.format() {
        Format::Json => context.print(&diagnosis),
        Format::Jsonl => context.print_lines(&diagnosis.checks),
        Format::Table => {
            let mut table = context.table(["CHECK", "STATUS", "FOUND"]);
            for check in diagnosis.checks {
                let (word, tone) = match check.status {
                    CheckStatus::Ok => ("ok", Tone::Good),
                    CheckStatus::Warn => ("warn", Tone::Doubtful),
                    CheckStatus::Fail => ("fail", Tone::Bad),
                };
                let plain = |text| (text, Tone::Plain);
                table.toned([plain(check.name), (word.to_owned(), tone), plain(check.message)]);
                for (name, text) in [("at", check.place), ("help:", check.remedy)] {
                    if let Some(text) = text {
                        table.row([String::new(), String::new(), format!("  {name} {text}")]);
                    }
                }
            }
            context.print_text(&table.text())
        }
    }
}

fn check(name: &str, status: CheckStatus, message: impl Into<String>) -> Check {
    Check { name: name.to_owned(), status, message: message.into(), place: None, remedy: None }
}

fn failed(name: &str, error: CliError) -> Check {
    let CliError { what, place, remedy, .. } = error;
    Check { place, remedy, ..check(name, CheckStatus::Fail, what) }
}

fn not_checked(name: &str) -> Check {
    check(name, CheckStatus::Warn, "not checked: something above it does not work")
}

fn configuration(loaded: &Loaded) -> Check {
    let first = |problems: &[Problem], status| {
        let what = match problems.len() {
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        let first = problems.first().map(Problem::to_error);
        let message = match &first {
            Some(first) => format!("{what}, the first: {}", first.what),
            None => what,
        };
        Check {
            place: first.and_then(|first| first.place),
            remedy: Some("run `recache config check` for all of them".to_owned()),
            ..check("configuration", status, message)
        }
    };
    if !loaded.problems.is_empty() {
        first(&loaded.problems, CheckStatus::Fail)
    } else if !loaded.warnings.is_empty() {
        // A problem in the cache's own sections only switches the cache off.
        first(&loaded.warnings, CheckStatus::Warn)
    } else {
        let is_there = loaded.source.is_some();
        let message = if is_there { "no problems" } else { "no configuration file: defaults hold" };
        check("configuration", CheckStatus::Ok, message)
    }
}

async fn look_at(database: &Database, checks: &mut Vec<Check>) {
    let place = Some(database.place());
    match database.reach().await {
        Err(error) => {
            checks.push(failed("database", error));
            checks.extend(["schema", "writable"].map(not_checked));
            checks.extend(disk(database));
            checks.extend(["clock", "counts"].map(not_checked));
        }
        Ok(Opened::WrongSchema(error)) => {
            checks.push(Check { place, ..check("database", CheckStatus::Ok, "can be reached") });
            checks.push(failed("schema", error));
            checks.push(not_checked("writable"));
            checks.extend(disk(database));
            checks.extend(["clock", "counts"].map(not_checked));
        }
        Ok(Opened::Ready(store)) => {
            checks.push(Check { place, ..check("database", CheckStatus::Ok, "can be reached") });
            let version = format!("version {}, up to date", recache_store::newest_schema());
            checks.push(check("schema", CheckStatus::Ok, version));
            checks.push(match store.check_writable().await {
                Ok(()) => check("writable", CheckStatus::Ok, "a write was committed and undone"),
                Err(error) => failed("writable", of_store(&error).at(database.place())),
            });
            checks.extend(disk(database));
            checks.push(clock(&store).await);
            checks.push(counts(&*store, database).await);
            store.close().await;
        }
    }
}

/// Workflows that a doctor looks at; the maintenance of a running engine looks at all.
const COMPARED_MAX: u32 = 10_000;

/// Whether what workflows count is what is there.
async fn counts(store: &dyn Store, database: &Database) -> Check {
    let compared = async {
        let workflows = store.maintenance().counts_compare(None, COMPARED_MAX).await?;
        Ok((workflows, store.batches().batches_compare(None, COMPARED_MAX).await?))
    };
    let (workflows, batches) = match compared.await {
        Err(error) => return failed("counts", of_store(&error).at(database.place())),
        Ok(compared) => compared,
    };
    let workflow = workflows.differences.first().map(|first| first.workflow.to_string());
    let batch = batches.differences.first().map(|first| first.batch.to_string());
    let looked_at = format!("{} workflows and {} open batches", workflows.workflows, batches.batches);
    let Some(place) = workflow.or(batch) else {
        return check("counts", CheckStatus::Ok, format!("true for {looked_at}"));
    };
    let wrong = workflows.differences.len() + batches.differences.len();
    let remedy = "this is a bug, or somebody changed the tables by hand: please report it".to_owned();
    Check {
        place: Some(place),
        remedy: Some(remedy),
        ..check("counts", CheckStatus::Fail, format!("{wrong} of {looked_at} count wrong"))
    }
}

/// Free space on the volume of an SQLite file; nothing is known of a server's.
fn disk(database: &Database) -> Option<Check> {
    let path = database.file()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let free = free_bytes(folder)?;
    Some(Check { place: Some(folder.display().to_string()), ..enough(free) })
}

/// Below this much free space a write may fail at any moment.
const FREE_BYTES_MIN: u64 = 64 * MIB;
/// Below this much somebody should look.
const FREE_BYTES_GOOD: u64 = 1024 * MIB;
const MIB: u64 = 1024 * 1024;

fn enough(free: u64) -> Check {
    let status = match free {
        0..FREE_BYTES_MIN => CheckStatus::Fail,
        FREE_BYTES_MIN..FREE_BYTES_GOOD => CheckStatus::Warn,
        _ => CheckStatus::Ok,
    };
    let remedy =
        (status != CheckStatus::Ok).then(|| "free space on the volume of the database file".to_owned());
    Check { remedy, ..check("disk", status, format!("{} MiB free", free / MIB)) }
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let volume = rustix::fs::statvfs(folder).ok()?;
    volume.f_bavail.checked_mul(volume.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}

/// Compares the database's clock, which judges every deadline, with this machine's.
async fn clock(store: &Arc<dyn Store>) -> Check {
    let before = SystemClock.now();
    match store.now().await {
        Ok(now) => same_time(before, now, SystemClock.now()),
        Err(error) => failed("clock", of_store(&error)),
    }
}

/// Beyond this difference times in logs and in the database do not tell one story any more.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(2);

/// `there` was read between `before` and `after`.
fn same_time(before: Timestamp, there: Timestamp, after: Timestamp) -> Check {
    let (behind, ahead) = (before.since(there), there.since(after));
    let difference = behind.max(ahead);
    if difference <= CLOCK_DIFFERENCE_MAX {
        return check("clock", CheckStatus::Ok, "the database's clock and this machine's agree");
    }
    let word = if behind > ahead { "behind" } else { "ahead of" };
    let ms = u64::try_from(difference.as_millis()).unwrap_or(u64::MAX);
    let message = format!("the database's clock is {} {word} this machine's", output::duration(ms));
    Check {
        remedy: Some("let both machines follow a time server".to_owned()),
        ..check("clock", CheckStatus::Warn, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_judged_by_its_bounds() {
        for (free, expected) in [
            (0, CheckStatus::Fail),
            (FREE_BYTES_MIN - 1, CheckStatus::Fail),
            (FREE_BYTES_MIN, CheckStatus::Warn),
            (FREE_BYTES_GOOD - 1, CheckStatus::Warn),
            (FREE_BYTES_GOOD, CheckStatus::Ok),
            (u64::MAX, CheckStatus::Ok),
        ] {
            let check = enough(free);
            assert_eq!((check.status, check.remedy.is_some()), (expected, expected != CheckStatus::Ok));
        }
    }

    #[test]
    fn clocks_may_differ_by_two_seconds() {
        let at = |ms: i64| Timestamp::from_micros(1_700_000_000_000_000 + ms * 1000);
        let judged = |there| same_time(at(0), at(there), at(100));
        for (there, expected) in [
            (0, CheckStatus::Ok),
            (-2000, CheckStatus::Ok),
            (2100, CheckStatus::Ok),
            (-2001, CheckStatus::Warn),
        ] {
            assert_eq!(judged(there).status, expected, "{there} ms");
        }
        assert!(judged(-5000).message.contains("5.000 s behind"), "{}", judged(-5000).message);
        assert!(judged(65_100).message.contains("1 m 5 s ahead"), "{}", judged(65_100).message);
    }
}
