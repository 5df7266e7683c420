//! `recache migrate`: create the database's tables or bring them up to date.

use recache_api::Migration;
use recache_store::newest_schema;

use super::{Context, Outcome};
use crate::cli_error::ExitStatus;
use crate::output::Format;

/// Create the database's tables, or bring them up to date
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache migrate --database sqlite:recache.db
  RECACHE_DATABASE=postgres://app@db/app recache migrate

A file is created when it is not there; a folder or a server's database is not.
Safe to run again, and from several machines at once.")]
pub(crate) struct Args {}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let database = context.database()?;
        database.open_or_create().await?.close().await;
        match context.format() {
            Format::Json | Format::Jsonl => {
                context.print(&Migration::new(database.place(), newest_schema()))?;
            }
            Format::Table => {
                context.print_text(&format!("{}: schema version {}\n", database.place(), newest_schema()))?;
            }
        }
        Ok(ExitStatus::Ok)
    }
}
