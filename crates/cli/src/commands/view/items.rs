//! `recache view items`.

use std::time::Duration;

use recache_api::client::{Client, ViewItemsQuery};
use recache_api::{ViewItem, ViewItems};
use recache_store::{Error, Store, ViewRead};

use super::super::name::ViewName;
use super::super::{Context, Outcome, page};
use super::least::Least;
use super::{get, held, standing};
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
  recache view items shop/prices --min-version 7 --timeout 5s

The pages of one version belong together, whatever is published meanwhile. Exit
code 5 when that version is no longer kept, 124 when one that is waited for is
not live in time.")]
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
    #[arg(long, requires = "limit", conflicts_with = "min_version", value_parser = clap::value_parser!(i64).range(1..))]
    version: Option<i64>,
    #[command(flatten)]
    least: Least,
}

impl Items {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        if self.least.version().is_some() {
            self.least.read(&self.view, Some(&[]), store).await?;
        }
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
            let now = store.now().await?;
            let told = store.generation_get(read.view, version).await?;
            read.published_at = told.as_ref().map(|generation| generation.published_at);
            // What replaced it showed a change that it does not.
            let since = told.and_then(|generation| generation.replaced_at).map(|at| now.since(at));
            read.staleness = since.unwrap_or_default().max(read.staleness);
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
            min_version: self.least.version(),
            cursor: None,
        };
        let (mut items, mut gone) = (Vec::new(), Vec::new());
        let first = async |wait: Option<Duration>| match wait {
            Some(wait) => client.view_items_since(namespace, key, &query, wait).await,
            None => client.view_items(namespace, key, &query).await,
        };
        let mut read = Some(self.least.ask(&self.view, first).await?);
        let page = loop {
            let mut page = match read.take() {
                Some(page) => page,
                None => client.view_items(namespace, key, &query).await?,
            };
            left = left.saturating_sub(page.items.len() + page.gone.len());
            items.append(&mut page.items);
            gone.append(&mut page.gone);
            let Some(next) = page.next.take_if(|_| left > 0) else { break page };
            query =
                ViewItemsQuery { limit: Some(rows(left)), cursor: Some(next), ..ViewItemsQuery::default() };
        };
        let has_more = page.next.is_some();
        Ok((ViewItems { items, ..get::read_of(page) }, gone, has_more))
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
                print_table(read.items, context)?;
                context.note(&said)?;
            }
        }
        if gone == 0 { Ok(ExitStatus::Ok) } else { Err(held::gone(&self.view, gone).into()) }
    }
}

pub(super) fn print_table(items: Vec<ViewItem>, context: &mut Context<'_>) -> Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    let mut table = context.table(["ITEM", "VALUE"]);
    for item in items {
        table.row([item.item, output::visible_json(item.value.text())]);
    }
    context.print_text(&table.text())
}

/// Of so many that are left, how many the next page holds.
fn rows(left: usize) -> u32 {
    u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_OF_SERVER)
}
