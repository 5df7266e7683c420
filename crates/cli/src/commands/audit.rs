//! `recache audit`: what operators did.

use clap::Subcommand;
use recache_api::client::{AuditQuery, Client};
use recache_api::{AuditList, AuditRow};
use recache_server::documents;
use recache_store::{AuditFilter, Store};
use uuid::Uuid;

use super::against::Against;
use super::{Context, Outcome, page};
use crate::cli_error::ExitStatus;
use crate::output::{self, Format, Tone};

/// Look at what operators did
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Example:
  recache audit list --actor key:ops"
)]
pub(crate) struct Args {
    #[command(flatten)]
    against: Against,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(List),
}

/// List what operators did, newest first: who, what, to which thing, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache audit list --namespace shop --limit 10
  recache audit list --target mail -o json

How it stood before and after is in the JSON.")]
struct List {
    /// Only of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Only of this actor: key:ops, jwt:alice, a user of the command line
    #[arg(long)]
    actor: Option<String>,
    /// Only to this thing: an id or a name
    #[arg(long)]
    target: Option<String>,
    /// At most so many, 1 to 1000
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only older than this row: the last one of the page before
    #[arg(long, value_name = "ID")]
    before: Option<Uuid>,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let Verb::List(list) = self.verb;
        if let Some(client) = self.against.client(context)? {
            return list.ask(&client, context).await;
        }
        let store = context.open().await?;
        let outcome = list.run(&*store, context).await;
        store.close().await;
        outcome
    }
}

impl List {
    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let query = AuditQuery {
            namespace: self.namespace,
            actor: self.actor,
            target: self.target,
            limit: Some(self.limit),
            before: self.before.map(|id| id.to_string()),
            cursor: None,
        };
        let mut list = client.audit(&query).await?;
        list.next = list.next.and(list.rows.last().map(|last| last.id.clone()));
        print(list, context)
    }

    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let filter = AuditFilter {
            namespace: self.namespace,
            actor: self.actor,
            target: self.target,
            before: self.before,
            rows_max: page::rows_max(self.limit),
        };
        let found = store.audits().audits_list(filter).await?;
        let mut rows: Vec<AuditRow> = found.into_iter().map(documents::audit_row).collect();
        let next = page::cut_at(&mut rows, self.limit, |row| &row.id);
        print(AuditList::new(rows, next), context)
    }
}

fn print(list: AuditList, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(&list)?,
        Format::Jsonl => context.print_lines(&list.rows)?,
        Format::Table => {
            if list.rows.is_empty() {
                context.note("nothing was done that is kept")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table = context
                .table(["AT", "ACTOR", "ACTION", "TARGET", "OUTCOME", "NAMESPACE", "REASON"])
                .leaving_out(&["NAMESPACE", "AT"]);
            for row in list.rows {
                let plain = |text| (text, Tone::Plain);
                let tone = match row.outcome.as_str() {
                    "done" => Tone::Good,
                    "refused" => Tone::Bad,
                    _ => Tone::Doubtful,
                };
                table.toned([
                    plain(output::instant(row.at)),
                    plain(row.actor),
                    plain(row.action),
                    plain(row.target),
                    (row.outcome, tone),
                    plain(row.namespace.unwrap_or_default()),
                    plain(row.reason),
                ]);
            }
            context.print_text(&table.text())?;
            if let Some(next) = list.next {
                context.note(&format!("there are more: --before {next}"))?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}
