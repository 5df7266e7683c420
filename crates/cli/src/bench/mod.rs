//! `recache bench`: figures of this machine, measured now.
//!
//! Every figure stands beside one of the same run that the machine or the database sets: a bare durable transaction. The
//! ratio says more than the figure, which changes with the disk and with who else uses it.

mod batch;
mod jobs;
mod pressure;
mod report;
mod saturation;
mod touch;
mod views;
mod workflows;

use std::path::PathBuf;
use std::sync::Arc;

use recache_store::{OpenOptions, Store, open};

use crate::cli_error::{CliError, ExitStatus};
use crate::commands::Database;

pub(crate) use report::Report;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
#[command(disable_help_subcommand = true)]
enum What {
    /// One batch of many tracked jobs, reported by many callers at once
    #[command(after_help = "Example:\n  recache bench batch --members 1000000")]
    Batch(batch::BatchArgs),
    /// No-op jobs: submit in bulk, drain, and one at a time from submit to done
    #[command(
        after_help = "Examples:\n  recache bench jobs --jobs 100000\n  recache bench jobs --jobs 100000 --unique"
    )]
    Jobs(jobs::JobsArgs),
    /// Submits, starts, lists beside woken workers, a backlog, a held transaction, much history (PostgreSQL)
    #[command(
        after_help = "Examples:\n  recache bench pressure --database postgres://app@db/bench\n  recache bench pressure --parts fairness --backlog 1000000 \\\n    --database postgres://app@db/bench\n  recache bench pressure --parts finished --finished 10000000 \\\n    --database postgres://app@db/bench"
    )]
    Pressure(pressure::PressureArgs),
    /// Jobs that stand in each other's way: fixed limits beside the one that the engine finds
    #[command(after_help = "Example:\n  recache bench saturation --capacity 8 --seconds 20")]
    Saturation(saturation::SaturationArgs),
    /// From the commit of a touch to the running build's handler seeing it
    #[command(
        after_help = "Examples:\n  recache bench touch --rounds 500\n  recache bench touch --processes --database postgres://app@db/bench\n  recache bench touch --processes --without-notifications --rounds 50 --database postgres://app@db/bench"
    )]
    Touch(touch::TouchArgs),
    /// One view of many items: build, publish with few of them changed, read
    #[command(
        after_help = "Example:\n  recache bench views --items 1000000 --changed 0,10,1000 --cache redis://localhost:6379"
    )]
    Views(views::ViewsArgs),
    /// Workflows of no-op steps in several shapes: one at a time, and many side by side
    #[command(
        after_help = "Examples:\n  recache bench workflows --shapes linear4,dag7\n  recache bench workflows --shapes linear4 --history 1000,100000,1000000"
    )]
    Workflows(workflows::WorkflowsArgs),
}

/// Runs a bench. Without a database it makes an SQLite file in a throw-away folder.
pub(crate) async fn run(args: BenchArgs, database: Option<&Database>) -> Result<Report, CliError> {
    let deaf = match &args.what {
        What::Touch(args) if args.is_deaf() => database.map(Database::deaf),
        _ => None,
    };
    let place = Place::new(deaf.as_ref().or(database)).await?;
    let result = match args.what {
        What::Batch(args) => batch::run(&args, &place).await,
        What::Jobs(args) => jobs::run(&args, &place).await,
        What::Pressure(args) => pressure::run(&args, &place).await,
        What::Saturation(args) => saturation::run(&args, &place).await,
        What::Touch(args) => touch::run(&args, &place).await,
        What::Views(args) => views::run(&args, &place).await,
        What::Workflows(args) => workflows::run(&args, &place).await,
    };
    place.remove();
    result.map_err(|error| CliError::new("E-BENCH", ExitStatus::Failed, error.to_string()))
}

pub(crate) type BenchResult<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Where the database of a bench is.
struct Place {
    database: Opening,
    /// With its password: not to be shown.
    url: String,
    folder: Option<PathBuf>,
}

enum Opening {
    Given(Arc<dyn Store>),
    Own(OpenOptions),
}

impl Place {
    async fn new(database: Option<&Database>) -> Result<Self, CliError> {
        if let Some(database) = database {
            let url = database.secret_url().to_owned();
            let store = database.open_or_create().await?;
            return Ok(Self { database: Opening::Given(store), url, folder: None });
        }
        let folder = std::env::temp_dir().join(format!("recache-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|error| {
            CliError::new("E-BENCH", ExitStatus::Failed, format!("no throw-away folder: {error}"))
                .at(folder.display().to_string())
        })?;
        let url = format!("sqlite:{}", folder.join("bench.db").display());
        let own = Opening::Own(OpenOptions::new(url.clone()));
        Ok(Self { database: own, url, folder: Some(folder) })
    }

    async fn open(&self) -> BenchResult<Arc<dyn Store>> {
        match &self.database {
            Opening::Given(store) => Ok(Arc::clone(store)),
            Opening::Own(options) => Ok(open(options).await?),
        }
    }

    /// One that was given is opened once, for all.
    async fn close(&self, store: &dyn Store) {
        if matches!(self.database, Opening::Own(_)) {
            store.close().await;
        }
    }

    fn remove(self) {
        if let Some(folder) = self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
