//! `recache template list`.

use recache_api::client::{Client, TemplatesQuery};
use recache_api::{TemplateList, TemplateSummary};
use recache_server::documents::templates;

use crate::cli_error::ExitStatus;
use crate::commands::{Context, Outcome, page};
use crate::output::{self, Format};

/// List stored templates, the newest version of each first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache template list --namespace shop
  recache template list --name order -o jsonl")]
pub(super) struct Args {
    /// Only of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Only of this name: its versions
    #[arg(long)]
    name: Option<String>,
    /// At most so many, 1 to 1000
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let store = context.open().await?;
        let found = store
            .templates_list(self.namespace.as_deref(), self.name.as_deref(), page::rows_max(self.limit))
            .await;
        store.close().await;
        let mut templates: Vec<TemplateSummary> = found?.into_iter().map(templates::stored).collect();
        let has_more = page::cut(&mut templates, self.limit);
        print(&TemplateList::new(templates, has_more), context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let query = TemplatesQuery { namespace: self.namespace, name: self.name, limit: Some(self.limit) };
        print(&client.templates(&query).await?, context)
    }
}

fn print(list: &TemplateList, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(list)?,
        Format::Jsonl => context.print_lines(&list.templates)?,
        Format::Table => {
            if list.templates.is_empty() {
                context.note("no templates")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table =
                context.table(["TEMPLATE", "VERSION", "STORED", "DIGEST"]).leaving_out(&["DIGEST", "STORED"]);
            for template in &list.templates {
                table.row([
                    format!("{}/{}", template.namespace, template.name),
                    template.version.clone(),
                    template.created_at.map(output::instant).unwrap_or_default(),
                    template.digest.clone(),
                ]);
            }
            context.print_text(&table.text())?;
            if list.has_more {
                context.note("there are more: raise --limit, or give --namespace or --name")?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}
