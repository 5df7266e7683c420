//! `recache view history` and `recache view diff`: what builds did, and in what generations differ.

use recache_api::client::{Client, ViewBuildsQuery, ViewDiffQuery};
use recache_api::{ViewBuild, ViewDiff, ViewHistory};
use recache_model::ids::JobId;
use recache_store::{Error, Store};

use super::super::name::ViewName;
use super::super::{Context, Outcome, page};
use super::word;
use crate::cli_error::ExitStatus;
use crate::output::{self, Format};

/// Show the builds of a view: what became of each, and how much of its work was used
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache view history shop/prices --limit 20")]
pub(super) struct History {
    /// The view
    #[arg(value_name = "NAMESPACE/KEY")]
    view: ViewName,
    /// At most so many, 1 to 1000
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only those older than this one: the last one of the page before
    #[arg(long, value_name = "JOB")]
    before: Option<JobId>,
}

/// Show at which items two generations differ
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache view diff shop/prices 41 42
  recache view diff shop/prices 41 42 -o jsonl

Exit code 5 when one of them is no longer kept.")]
pub(super) struct Diff {
    /// The view
    #[arg(value_name = "NAMESPACE/KEY")]
    view: ViewName,
    /// The first generation
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    from: i64,
    /// The second
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    to: i64,
    /// At most so many items, 1 to 10000
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Only items after this one: the last one of the page before
    #[arg(long, value_name = "ITEM")]
    after: Option<String>,
}

impl History {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let view = store.view_get(&self.view.namespace, &self.view.key).await?.id;
        let mut builds =
            store.view_control().view_builds(view, self.before, page::rows_max(self.limit)).await?;
        let has_more = page::cut(&mut builds, self.limit);
        let next = builds.last().filter(|_| has_more).map(|build| build.id.to_string());
        let history = output::view_history(store, (&self.view.in_store(), view), builds, next).await?;
        print_history(history, context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let query = ViewBuildsQuery {
            limit: Some(self.limit),
            before: self.before.map(|id| id.to_string()),
            cursor: None,
        };
        let mut history = client.view_history(&self.view.namespace, &self.view.key, &query).await?;
        history.next = history.next.and(history.builds.last().map(|last| last.job.id.clone()));
        print_history(history, context)
    }
}

fn print_history(history: ViewHistory, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(&history)?,
        Format::Jsonl => context.print_lines(&history.builds)?,
        Format::Table => {
            if history.builds.is_empty() {
                context.note("no builds are kept")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table =
                context.table(["BUILD", "VERSION", "STATE", "BY", "AT", "REUSED", "STARTED", "ATTEMPT"]);
            table = table.leaving_out(&["ATTEMPT", "STARTED"]);
            for ViewBuild { job, successor_version, successor_reused, .. } in history.builds {
                let reused = match (successor_version, successor_reused) {
                    (Some(version), Some(reused)) => format!("{reused} by {version}"),
                    _ => String::new(),
                };
                table.row([
                    job.id,
                    job.view_version.map(|version| version.to_string()).unwrap_or_default(),
                    serde_json::to_value(job.state).map_or_else(|_| String::new(), word),
                    job.superseded_by.map(|version| version.to_string()).unwrap_or_default(),
                    job.progress.map(|done| format!("{:.0} %", done * 100.0)).unwrap_or_default(),
                    reused,
                    job.started_at.map(output::instant).unwrap_or_default(),
                    format!("{}/{}", job.attempt, job.attempts_max),
                ]);
            }
            context.print_text(&table.text())?;
            if let Some(next) = history.next {
                context.note(&format!("there are more: --before {next}"))?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}

impl Diff {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let view = store.view_get(&self.view.namespace, &self.view.key).await?.id;
        let found = store
            .view_control()
            .generations_diff(view, self.from, self.to, self.after, page::rows_max(self.limit))
            .await?;
        let Some(mut items) = found else {
            let what = format!(
                "version {} or {} of view `{}` is not kept: `recache view show {}` lists those that are",
                self.from, self.to, self.view, self.view
            );
            return Err(Error::Conflict(what).into());
        };
        let has_more = page::cut(&mut items, self.limit);
        let next = items.last().filter(|_| has_more).map(|(item, _)| item.clone());
        let diff = output::view_diff(&self.view.in_store(), (self.from, self.to), items, next);
        print_diff(diff, context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let wanted = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let mut query = ViewDiffQuery {
            from: self.from,
            to: self.to,
            limit: Some(self.limit.min(PAGE_OF_SERVER)),
            after: self.after,
            cursor: None,
        };
        let (namespace, key) = (&self.view.namespace, &self.view.key);
        let mut diff = client.view_diff(namespace, key, &query).await?;
        while let Some(next) = diff.next.take_if(|_| diff.items.len() < wanted) {
            query.after = None;
            query.cursor = Some(next);
            let mut more = client.view_diff(namespace, key, &query).await?;
            diff.items.append(&mut more.items);
            diff.next = more.next;
        }
        let has_more = diff.next.is_some() || diff.items.len() > wanted;
        diff.items.truncate(wanted);
        diff.next = diff.items.last().filter(|_| has_more).map(|last| last.item.clone());
        print_diff(diff, context)
    }
}

/// Rows that a server answers at once.
const PAGE_OF_SERVER: u32 = 1_000;

fn print_diff(diff: ViewDiff, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(&diff)?,
        Format::Jsonl => context.print_lines(&diff.items)?,
        Format::Table => {
            if diff.items.is_empty() {
                context.note("they do not differ")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table = context.table(["ITEM", "CHANGE"]);
            for difference in diff.items {
                let change = serde_json::to_value(difference.change).map_or_else(|_| String::new(), word);
                table.row([difference.item, change]);
            }
            context.print_text(&table.text())?;
            if let Some(next) = diff.next {
                context.note(&format!("there are more: --after {next}"))?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}
