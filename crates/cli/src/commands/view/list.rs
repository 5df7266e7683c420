//! `recache view list`.

use recache_api::client::{Client, ViewsQuery};
use recache_api::{View, ViewList, ViewStatus};
use recache_store::Store;

use super::super::name::ViewName;
use super::super::{Context, Outcome, page};
use super::word;
use crate::cli_error::ExitStatus;
use crate::output::{self, Format};

/// List views by namespace and key
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache view list --namespace shop
  recache view list --status failed -o jsonl")]
pub(super) struct List {
    /// Only of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Only in this status: idle, pending, processing, completed or failed
    #[arg(long, value_parser = status)]
    status: Option<ViewStatus>,
    /// At most so many, 1 to 1000
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only those after this one: the last one of the page before
    #[arg(long, value_name = "NAMESPACE/KEY")]
    after: Option<ViewName>,
}

fn status(text: &str) -> Result<ViewStatus, String> {
    serde_json::from_value(serde_json::Value::from(text))
        .map_err(|_| "expected idle, pending, processing, completed or failed".to_owned())
}

impl List {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let now = store.now().await?;
        let mut after = self.after.map(|view| (view.namespace, view.key));
        let mut views: Vec<View> = Vec::new();
        // A status is looked for page by page: views are few, and those in one status may be fewer.
        let wanted = usize::try_from(page::rows_max(self.limit)).unwrap_or(usize::MAX);
        while views.len() < wanted {
            let rows =
                store.views_list(self.namespace.as_deref(), after.take(), page::rows_max(self.limit)).await?;
            let is_last = rows.len() < wanted;
            after = rows.last().map(|row| (row.definition.namespace.clone(), row.definition.key.clone()));
            let found = rows.into_iter().map(|record| output::view(record, now));
            views.extend(found.filter(|view| self.status.is_none_or(|status| view.recache_status == status)));
            if is_last {
                break;
            }
        }
        let has_more = page::cut(&mut views, self.limit);
        let last = views.last().filter(|_| has_more);
        let next = last.map(|view| format!("{}/{}", view.namespace, view.key));
        print_list(ViewList::new(views, next), context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let wanted = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let mut query = ViewsQuery {
            namespace: self.namespace,
            limit: Some(self.limit),
            after: self.after.map(|view| view.to_string()),
            cursor: None,
        };
        let mut views: Vec<View> = Vec::new();
        loop {
            let page = client.views(&query).await?;
            let is_wanted = |view: &View| self.status.is_none_or(|status| view.recache_status == status);
            views.extend(page.views.into_iter().filter(is_wanted));
            let Some(next) = page.next else { break };
            query = ViewsQuery { after: None, cursor: Some(next), ..query };
            // One more than is shown, or as many with more behind them where nothing was left out.
            if views.len() > wanted || (views.len() == wanted && self.status.is_none()) {
                let next = views
                    .get(wanted.saturating_sub(1))
                    .map(|view| format!("{}/{}", view.namespace, view.key));
                views.truncate(wanted);
                return print_list(ViewList::new(views, next), context);
            }
        }
        let has_more = page::cut(&mut views, self.limit);
        let last = views.last().filter(|_| has_more);
        let next = last.map(|view| format!("{}/{}", view.namespace, view.key));
        print_list(ViewList::new(views, next), context)
    }
}

fn print_list(list: ViewList, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(&list)?,
        Format::Jsonl => context.print_lines(&list.views)?,
        Format::Table => {
            if list.views.is_empty() {
                context.note("no views")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table =
                context.table(["VIEW", "STATUS", "LIVE", "WANTED", "BEHIND", "PUBLISHED", "HANDLER"]);
            table = table.leaving_out(&["HANDLER", "PUBLISHED"]);
            for view in list.views {
                let status = serde_json::to_value(view.recache_status).map_or_else(|_| String::new(), word);
                table.row([
                    format!("{}/{}", view.namespace, view.key),
                    if view.pause.is_some() { format!("{status}, paused") } else { status },
                    view.live_version.to_string(),
                    view.recache_version.to_string(),
                    if view.staleness_ms == 0 { String::new() } else { output::duration(view.staleness_ms) },
                    view.last_recached_at.map(output::instant).unwrap_or_default(),
                    view.workflow.map_or(view.handler, |workflow| format!("workflow {workflow}")),
                ]);
            }
            context.print_text(&table.text())?;
            if let Some(next) = list.next {
                context.note(&format!("there are more: --after {next}"))?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}
