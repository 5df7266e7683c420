//! `recache job import`.

use std::time::Duration;

use recache_api::client::Client;
use recache_api::{TrackedImport, TrackedImportUnread};
use recache_cache::foreign::ForeignRedis;
use recache_store::Store;

use super::super::failure::{Failure, of_store};
use super::super::name::far;
use super::{Context, Outcome};
use crate::cli_error::{CliError, ExitStatus};
use crate::import::{Import as Source, ImportError, Target};
use crate::output::Format;

/// A Redis that does not answer in this time is not asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Keys that could not be read and are shown in a table.
const UNREAD_SHOWN: usize = 50;

/// Take over jobs and batches from a tracker that keeps them in a Redis
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache job import --redis redis://localhost:6379/0 --prefix magic_actions_

Reads JSON under PREFIXjob_ID, PREFIXbatch_ID and PREFIXbatch_jobs_ID, and changes
nothing there. It can be run again, and closes a batch when it has ended there. The
exit code is 1 when something could not be read. With --server this program reads, and the server keeps.")]
pub(super) struct Import {
    /// Where: `redis://[user:password@]host[:port][/database]`
    #[arg(long, value_name = "URL")]
    redis: String,
    /// With what the keys begin
    #[arg(long, default_value = "magic_actions_")]
    prefix: String,
    /// Who they belong to here
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Jobs that have not ended fail after this long without a word
    #[arg(long, value_name = "TIME", value_parser = far, default_value = "1h")]
    stale_after: Duration,
}

impl Import {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        self.into_target(&store, context).await
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        self.into_target(client, context).await
    }

    async fn into_target(self, target: &dyn Target, context: &mut Context<'_>) -> Outcome {
        // The URL may hold a password and is not shown.
        let source = |error: &dyn std::fmt::Display| {
            CliError::new("E-REDIS", ExitStatus::Unavailable, format!("the Redis cannot be read: {error}"))
                .help("check --redis, and that the server is there")
        };
        let mut redis =
            ForeignRedis::open(&self.redis, ANSWER_WITHIN).await.map_err(|error| source(&error))?;
        let import =
            Source { prefix: &self.prefix, namespace: &self.namespace, stale_after: self.stale_after };
        let imported = import.run(&mut redis, target).await.map_err(|error| match error {
            ImportError::Source(error) => source(&error).into(),
            ImportError::Store(error) => of_store(&error).into(),
            ImportError::Server(error) => Failure::from(error),
            ImportError::TooMany => CliError::new("E-INVALID", ExitStatus::Usage, error.to_string())
                .help("name a longer --prefix, and import in parts")
                .into(),
        })?;
        let is_whole = imported.unread.is_empty();
        match context.format() {
            Format::Json | Format::Jsonl => {
                let unread =
                    imported.unread.into_iter().map(|(key, reason)| TrackedImportUnread { key, reason });
                let mut document = TrackedImport::new(unread.collect());
                document.jobs_new = imported.jobs_new;
                document.jobs_known = imported.jobs_known;
                document.batches_new = imported.batches_new;
                document.batches_known = imported.batches_known;
                document.batches_open = imported.batches_open;
                context.print(&document)?;
            }
            Format::Table => {
                let mut table = context.table(["", "NEW", "KNOWN"]);
                for (kind, new, known) in [
                    ("jobs", imported.jobs_new, imported.jobs_known),
                    ("batches", imported.batches_new, imported.batches_known),
                ] {
                    table.row([kind.to_owned(), new.to_string(), known.to_string()]);
                }
                let mut text = table.text();
                if imported.batches_open > 0 {
                    context.note(&format!(
                        "{} batches still run there and stay open here; import again when they have ended",
                        imported.batches_open
                    ))?;
                }
                if !is_whole {
                    let mut table = context.table(["NOT READ", "WHY"]);
                    let count = imported.unread.len();
                    for (key, why) in imported.unread.into_iter().take(UNREAD_SHOWN) {
                        table.row([key, why]);
                    }
                    text = format!("{text}\n{}", table.text());
                    if count > UNREAD_SHOWN {
                        context.note(&format!("{count} were not read; -o json names them all"))?;
                    }
                }
                context.print_text(&text)?;
            }
        }
        Ok(if is_whole { ExitStatus::Ok } else { ExitStatus::Failed })
    }
}
