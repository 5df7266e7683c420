//! `recache view items`.

use recache_api::ViewItems;
use recache_api::client::{Client, ViewItemsQuery};
use recache_store::{Error, Store, ViewRead};

use super::super::name::ViewName;
use super::super::{Context, Outcome, page};
use super::standing;
use crate::cli_error::ExitStatus;
use crate::commands::failure::Result;
use crate::output::{self, Format};

/// Rows that a server answers at once.
const PAGE_OF_SERVER: u32 = 1_000;

/// Print the items of the live generation, all or page by page
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache view items shop/prices
  recache view items shop/prices -o jsonl
  recache view items shop/prices --limit 100 --after sku-7 --version 12

The pages of one version belong together, whatever is published meanwhile. Exit
code 5 when that version is no longer kept.")]
pub(super) struct Items {
    /// The view
    #[arg(value_name = "NAMESPACE/KEY")]
    view: ViewName,
    /// At most so many, 1 to 10000; without it, all
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: Option<u32>,
    /// Only those after this one: the last one of the page before
    #[arg(long, value_name = "ITEM", requires = "version", requires = "limit")]
    after: Option<String>,
    /// Of this version rather than the live one: that of the page before
    #[arg(long, requires = "limit", value_parser = clap::value_parser!(i64).range(1..))]
    version: Option<i64>,
}

impl Items {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let (read, has_more) = self.read(store).await?;
        print(output::items(&self.view.namespace, &self.view.key, read), has_more, context)
    }

    /// And whether there are more.
    async fn read(&self, store: &dyn Store) -> recache_store::Result<(ViewRead, bool)> {
        let (namespace, key) = (&self.view.namespace, &self.view.key);
        let Some(limit) = self.limit else {
            return Ok((store.view_read(namespace, key, None).await?, false));
        };
        let mut read = store.view_read(namespace, key, Some(Vec::new())).await?;
        let version = self.version.unwrap_or(read.version);
        if version == 0 {
            return Ok((read, false));
        }
        let found =
            store.generation_page(read.view, version, self.after.clone(), page::rows_max(limit)).await?;
        let Some(mut items) = found else {
            let what = format!(
                "version {version} of view `{}` is not kept: begin again without --version",
                self.view
            );
            return Err(Error::Conflict(what));
        };
        let has_more = page::cut(&mut items, limit);
        if version != read.version {
            // How old another one is was not asked.
            read.published_at = None;
        }
        read.version = version;
        read.items = items;
        Ok((read, has_more))
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let (read, has_more) = self.collect(client).await?;
        print(read, has_more, context)
    }

    /// Page by page, all of one generation. And whether there are more.
    async fn collect(&self, client: &Client) -> Result<(ViewItems, bool)> {
        let (namespace, key) = (&self.view.namespace, &self.view.key);
        let wanted = self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let page_max = self.limit.unwrap_or(PAGE_OF_SERVER).min(PAGE_OF_SERVER);
        let mut query = ViewItemsQuery {
            limit: Some(page_max),
            after: self.after.clone(),
            version: self.version,
            cursor: None,
        };
        let mut page = client.view_items(namespace, key, &query).await?;
        let mut items = std::mem::take(&mut page.items);
        while let Some(next) = page.next.take_if(|_| items.len() < wanted) {
            query = ViewItemsQuery { limit: Some(page_max), cursor: Some(next), ..ViewItemsQuery::default() };
            page = client.view_items(namespace, key, &query).await?;
            items.append(&mut page.items);
        }
        let has_more = page.next.is_some() || items.len() > wanted;
        items.truncate(wanted);
        let details = client.view(namespace, key).await?;
        let view = details.view;
        // Of another generation than the live one nobody has said how old it is.
        let is_live = view.live_version == page.version;
        let of_it = details.generations.iter().find(|one| is_live && one.version == page.version);
        let read = ViewItems {
            schema: ViewItems::SCHEMA.to_owned(),
            view_id: view.id,
            namespace: view.namespace,
            key: view.key,
            version: page.version,
            recache_version: view.recache_version,
            published_at: of_it.map(|generation| generation.published_at),
            staleness_ms: view.staleness_ms,
            items,
        };
        Ok((read, has_more))
    }
}

fn print(read: ViewItems, has_more: bool, context: &mut Context<'_>) -> Outcome {
    if let (true, Some(last)) = (has_more, read.items.last()) {
        let next = format!("there are more: --version {} --after {}", read.version, last.item);
        context.note(&next)?;
    }
    match context.format() {
        Format::Json => context.print(&read)?,
        Format::Jsonl => context.print_lines(&read.items)?,
        Format::Table => {
            let said = standing(&read);
            if !read.items.is_empty() {
                let mut table = context.table(["ITEM", "VALUE"]);
                for item in read.items {
                    table.row([item.item, output::visible_json(item.value.text())]);
                }
                context.print_text(&table.text())?;
            }
            context.note(&said)?;
        }
    }
    Ok(ExitStatus::Ok)
}
