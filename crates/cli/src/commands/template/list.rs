//! `recache template list`.

use recache_api::client::{Client, TemplatesQuery};
use recache_api::{TemplateList, TemplateSummary};
use recache_server::documents::templates;
use recache_store::{TemplateFilter, TemplatePlace};

use crate::cli_error::ExitStatus;
use crate::commands::{Context, Outcome, page};
use crate::output::{self, Format};

/// List stored templates, the newest version of each first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache template list --namespace shop
  recache template list --name order -o jsonl
  recache template list --limit 100 --after shop/order@1.2.0")]
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
    /// Only those behind this one: the last one of the page before
    #[arg(long, value_name = "NAMESPACE/NAME@VERSION", value_parser = place)]
    after: Option<TemplatePlace>,
}

fn place(text: &str) -> Result<TemplatePlace, String> {
    let named = text.rsplit_once('@').and_then(|(name, version)| Some((name.split_once('/')?, version)));
    let ((namespace, name), version) = named.ok_or("expected NAMESPACE/NAME@VERSION")?;
    let [namespace, name, version] = [namespace, name, version].map(str::to_owned);
    Ok(TemplatePlace { namespace, name, version })
}

fn text(namespace: &str, name: &str, version: &str) -> String {
    format!("{namespace}/{name}@{version}")
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let store = context.open().await?;
        let filter = TemplateFilter {
            namespace: self.namespace,
            name: self.name,
            after: self.after,
            rows_max: page::rows_max(self.limit),
        };
        let found = store.templates_list(filter).await;
        store.close().await;
        let mut templates: Vec<TemplateSummary> = found?.into_iter().map(templates::stored).collect();
        let has_more = page::cut(&mut templates, self.limit);
        let next = last(&templates).filter(|_| has_more);
        print(&TemplateList::new(templates, next), context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let query = TemplatesQuery {
            namespace: self.namespace,
            name: self.name,
            limit: Some(self.limit),
            after: self.after.map(|after| text(&after.namespace, &after.name, &after.version)),
            cursor: None,
        };
        let mut list = client.templates(&query).await?;
        list.next = list.next.and(last(&list.templates));
        print(&list, context)
    }
}

/// What the next page is behind.
fn last(templates: &[TemplateSummary]) -> Option<String> {
    templates.last().map(|last| text(&last.namespace, &last.name, &last.version))
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
            if let Some(next) = &list.next {
                context.note(&format!("there are more: --after {next}"))?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}
