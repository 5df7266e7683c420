//! `recache demo`: what Recache is for, shown in half a minute on real data, with nothing installed.
//!
//! Carriers join and leave alliances; each alliance is a view of figures over 336,776 real flights; readers watch. The same
//! morning is then run once more without version control, as a plain job queue. What is printed was measured.

pub(crate) mod data;
mod figures;
mod schedule;

mod stage;
mod with;
mod without;

mod check;
mod history;
mod home;
mod readers;
mod report;
mod show;
mod tally;
pub(crate) mod through;

use std::io::{self, Write};
use std::path::PathBuf;

use home::Home;
use report::{Report, SelfCheck};
use schedule::{ALLIANCES, Members, Schedule};
use show::Show;
use stage::Stage;

use crate::cli_error::{CliError, ExitStatus};

/// Flags of `recache demo`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoArgs {
    /// Keep the database in DIR (DIR/demo.db), and go on there if a run was killed; else it is thrown away
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// How many times a carrier joins or leaves an alliance
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) touches: u32,
    /// What the changes follow from: the same seed, the same changes
    #[arg(long, value_name = "N", default_value_t = 2013)]
    pub(crate) seed: u64,
    /// Read through a cache on this server: redis://HOST:PORT, rediss://HOST:PORT or, for Memcached, tcp://HOST:PORT;
    /// else through this program's memory
    #[arg(long, value_name = "URL")]
    pub(crate) cache: Option<String>,
    /// Print one JSON document instead of the table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where the demo runs.
pub(crate) struct Surroundings<'a> {
    /// The global `--database`, if it was given.
    pub(crate) database: Option<String>,
    /// Whether somebody watches stderr.
    pub(crate) is_terminal: bool,
    /// Gets the result and nothing else.
    pub(crate) out: &'a mut dyn Write,
}

/// Why the demo did not get to its end.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the flights in the binary cannot be read: {0}")]
    Data(#[from] csv::Error),
    #[error("folder `{}` cannot be used: {source}", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error("another demo is running in `{}`", folder.display())]
    Busy { folder: PathBuf },
    #[error("change {number} was made by somebody else: another demo is running on this database")]
    NotAlone { number: i64 },
    #[error("change {number} could not be made: the database stays busy")]
    ChangeRefused { number: i64 },
    #[error("the members of `{alliance}` are not those that seed {seed} leads to")]
    OtherSeed { alliance: String, seed: u64 },
    #[error("a rebuild of `{alliance}` failed: {message}")]
    Rebuild { alliance: String, message: String },
    #[error(transparent)]
    Store(#[from] recache_store::Error),
    #[error(transparent)]
    Engine(#[from] recache_engine::Error),
    #[error(transparent)]
    Handler(#[from] recache_worker::RegisterError),
    #[error(transparent)]
    Cache(#[from] through::Problem),
    #[error("the result could not be printed: {0}")]
    Print(#[from] io::Error),
}

impl From<Failed> for CliError {
    fn from(failed: Failed) -> Self {
        let what = failed.to_string();
        match &failed {
            Failed::Folder { .. } => Self::new("E-DEMO-DIR", ExitStatus::Usage, what)
                .help("name a folder that you can write to, or leave --data-dir out"),
            Failed::Busy { .. } | Failed::NotAlone { .. } => {
                Self::new("E-DEMO-BUSY", ExitStatus::Conflict, what)
                    .help("wait until it has ended, or use another --data-dir or database")
            }
            Failed::OtherSeed { .. } => Self::new("E-DEMO-SEED", ExitStatus::Conflict, what).help(
                "give the --seed that this database was begun with, or use another --data-dir or database",
            ),
            Failed::Store(error) | Failed::Engine(recache_engine::Error::Store(error)) => match error {
                recache_store::Error::Unavailable { .. } | recache_store::Error::Unknown { .. } => {
                    Self::new("E-DATABASE", ExitStatus::Unavailable, what)
                }
                recache_store::Error::Invalid(_) => Self::new("E-DATABASE", ExitStatus::Usage, what),
                _ => Self::new("E-DATABASE", ExitStatus::Failed, what),
            },
            Failed::Cache(through::Problem::Url(_)) => Self::new("E-USAGE", ExitStatus::Usage, what),
            Failed::Cache(through::Problem::Away(_)) => Self::new("E-CACHE", ExitStatus::Unavailable, what)
                .help("start the server, or leave --cache out"),
            Failed::Engine(recache_engine::Error::TimedOut { .. }) => {
                Self::new("E-DEMO", ExitStatus::TimedOut, what)
            }
            _ => Self::new("E-DEMO", ExitStatus::Failed, what),
        }
    }
}

/// Runs the demo. Interrupted, it leaves nothing behind but what `--data-dir` names.
pub(crate) async fn run(args: DemoArgs, surroundings: Surroundings<'_>) -> Result<ExitStatus, CliError> {
    let home = match (&args.data_dir, &surroundings.database) {
        (Some(_), Some(_)) => {
            return Err(CliError::new(
                "E-USAGE",
                ExitStatus::Usage,
                "--data-dir and --database exclude each other",
            )
            .help("--data-dir keeps an SQLite file, --database names a database that is there"));
        }
        (Some(folder), None) => Home::folder(folder).await?,
        (None, Some(url)) => Home::database(url),
        (None, None) => Home::throw_away()?,
    };
    let show = Show::new(surroundings.is_terminal);
    let (stage, carriers) = tokio::select! {
        stage = set(&args, &home, show) => stage?,
        () = interrupted() => return Ok(ExitStatus::Interrupted),
    };
    let report = tokio::select! {
        report = morning(&args, &stage, &carriers, show) => report.map(Some),
        () = interrupted() => Ok(None),
    };
    stage.clear().await;
    let Some(report) = report? else {
        show::line("interrupted");
        return Ok(ExitStatus::Interrupted);
    };
    let out = surroundings.out;
    if args.json { report.write_json(out) } else { report.write_table(home.shown.as_deref(), out) }
        .and_then(|()| out.flush())
        .map_err(Failed::Print)?;
    verdict(&report)
}

/// Broken promises are the one thing that the demo must not be quiet about.
fn verdict(report: &Report) -> Result<ExitStatus, CliError> {
    if report.is_kept() {
        return Ok(ExitStatus::Ok);
    }
    let mut broken = Vec::new();
    let (misses, torn) = (report.recache.misses, report.recache.torn_reads);
    if misses + torn > 0 {
        broken.push(format!("readers met {misses} misses and {torn} torn reads"));
    }
    if !report.self_check.passed {
        broken.push("published items differ from a second computation:".to_owned());
        broken.extend(report.self_check.differences.iter().take(20).cloned());
    }
    Err(CliError::new("E-DEMO-BROKEN", ExitStatus::Failed, broken.join("\n"))
        .help("this is a bug in Recache: please report it, with the seed and this output"))
}

async fn interrupted() {
    // Without a handler for the signal the process simply ends at it.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn set(args: &DemoArgs, home: &Home, show: Show) -> Result<(Stage, Vec<String>), Failed> {
    let carriers: Vec<String> = data::airlines()?.into_keys().collect();
    let legs = data::flights()?;
    let cache = match &args.cache {
        Some(url) => Some(through::open(url).await?),
        None => None,
    };
    let stage = Stage::set(&home.url, cache, legs, &carriers, args.seed, show).await?;
    Ok((stage, carriers))
}

async fn morning(args: &DemoArgs, stage: &Stage, carriers: &[String], show: Show) -> Result<Report, Failed> {
    without::cancel_left(stage).await?;
    let last = stage.flights.alliance_last_change().await?.unwrap_or(0);
    let mut schedule = Schedule::new(args.seed, carriers.to_vec());
    schedule.take_until(last);
    same_members(stage, schedule.members()).await?;
    let founding = schedule.take_until(Schedule::founding());
    let before = schedule.members().clone();
    let changes = schedule.take_until(until(last, i64::from(args.touches)));
    if last > Schedule::founding() {
        show::line(&format!("{last} changes are made already; {} more follow", changes.len()));
    }

    show::line(&format!(
        "{} alliances of airlines; {} times a carrier joins or leaves one. Each alliance is a view: for every\n\
         destination that two members serve, delays and a ranking. Readers read them all the while.",
        ALLIANCES.len(),
        changes.len()
    ));
    let bar = show.phase("The morning, with Recache", changes.len());
    let with = with::run(stage, &founding, &changes, schedule.members(), &bar).await?;
    bar.done(&format!(
        "With Recache: fresh {} ms after the last of {} changes",
        with.figures.fresh_after_ms,
        changes.len()
    ));

    let bar = show.phase("The same morning, without version control", changes.len());
    let without = without::run(stage, &before, &changes, &with.moments, &bar).await?;
    bar.done(&format!("Without version control: fresh {} ms after the last change", without.fresh_after_ms));

    let passed = with.differences.is_empty();
    let self_check = SelfCheck { passed, items: with.items_checked, differences: with.differences };
    let mut report = Report::new(args.seed, with.figures, without, self_check);
    report.flights = stage.legs.len();
    report.alliances = ALLIANCES.len();
    report.changes = changes.len();
    report.changes_before = last;
    report.slots = stage::SLOTS;
    report.readers = readers::READERS;
    report.history = Some(with.history);
    report.cache = stage.cache.as_ref().map(|(cache, backend)| through::figures(cache, backend));
    Ok(report)
}

/// The number of the last change of a run: a list that was broken off is finished, one that was finished gets its next
/// stretch.
fn until(last: i64, touches: i64) -> i64 {
    let made = (last - Schedule::founding()).max(0);
    Schedule::founding() + (made / touches + 1) * touches
}

async fn same_members(stage: &Stage, expected: &Members) -> Result<(), Failed> {
    for (alliance, expected) in expected {
        let found = stage.flights.alliance_members(alliance).await?;
        if !found.iter().eq(expected.iter()) {
            return Err(Failed::OtherSeed { alliance: alliance.clone(), seed: stage.seed });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_was_broken_off_is_finished_and_a_finished_one_goes_on() {
        let founding = Schedule::founding();
        assert_eq!(until(0, 400), founding + 400);
        assert_eq!(until(founding - 3, 400), founding + 400);
        assert_eq!(until(founding + 399, 400), founding + 400);
        assert_eq!(until(founding + 400, 400), founding + 800);
    }
}
