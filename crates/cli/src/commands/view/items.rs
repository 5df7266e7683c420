//! `recache view items`.

use recache_api::ViewItems;
use recache_api::client::{Client, ViewItemsQuery};
use recache_store::{Error, Store, ViewRead};

use super::super::name::ViewName;
use super::super::{Context, Outcome, page};
use super::{held, standing};
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
        let (mut read, has_more) = self.read(store).await?;
        let last = read.items.last().filter(|_| has_more).map(|(last, _)| last.clone());
        let items = std::mem::take(&mut read.items);
        let (there, gone) = held::resolve(&self.view, items, store, context).await?;
        read.items = there;
        let read = output::items(&self.view.namespace, &self.view.key, read);
        self.print(read, last.as_deref(), gone, context)
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
        let (read, gone, has_more) = self.collect(client).await?;
        let last = read.items.last().map(|last| &last.item).max(gone.last()).filter(|_| has_more).cloned();
        self.print(read, last.as_deref(), gone.len(), context)
    }

    /// Page by page, all of one generation. With those that are gone, and whether there are more.
    async fn collect(&self, client: &Client) -> Result<(ViewItems, Vec<String>, bool)> {
        let (namespace, key) = (&self.view.namespace, &self.view.key);
        let wanted = self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let mut left = wanted;
        let mut query = ViewItemsQuery {
            limit: Some(rows(left)),
            after: self.after.clone(),
            version: self.version,
            cursor: None,
        };
        let (mut items, mut gone) = (Vec::new(), Vec::new());
        let page = loop {
            let mut page = client.view_items(namespace, key, &query).await?;
            left = left.saturating_sub(page.items.len() + page.gone.len());
            items.append(&mut page.items);
            gone.append(&mut page.gone);
            let Some(next) = page.next.take_if(|_| left > 0) else { break page };
            query =
                ViewItemsQuery { limit: Some(rows(left)), cursor: Some(next), ..ViewItemsQuery::default() };
        };
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
        Ok((read, gone, page.next.is_some()))
    }

    /// `last`: after this one there are more. `gone`: so many were left out.
    fn print(&self, read: ViewItems, last: Option<&str>, gone: usize, context: &mut Context<'_>) -> Outcome {
        if let Some(last) = last {
            context.note(&format!("there are more: --version {} --after {last}", read.version))?;
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
        if gone == 0 { Ok(ExitStatus::Ok) } else { Err(held::gone(&self.view, gone).into()) }
    }
}

/// Of so many that are left, how many the next page holds.
fn rows(left: usize) -> u32 {
    u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_OF_SERVER)
}
