//! `recache view get`.

use std::collections::HashMap;

use recache_api::client::Client;
use recache_api::{ItemList, ReadItems, ViewItem, ViewItems, ViewValue};
use recache_store::Store;

use super::super::name::ViewName;
use super::super::{Context, Outcome};
use super::least::Least;
use super::{held, items, standing};
use crate::cli_error::{CliError, ExitStatus};
use crate::output::{self, Format};

/// Print the value of an item of the live generation as JSON, or of several
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache view get shop/prices sku-1
  recache view get shop/prices sku-1 sku-2 -o jsonl
  recache view get shop/prices sku-1 --min-version 7 --timeout 5s

Several are of one generation, whatever is published meanwhile. Exit code 3 when
it lacks one of them; the others are printed.

`view touch` says which version it asks for: whoever reads that one or a newer
one sees the change. Exit code 124 when it is not live in time.")]
pub(super) struct Get {
    /// The view
    #[arg(value_name = "NAMESPACE/KEY")]
    view: ViewName,
    /// The items' keys
    #[arg(value_name = "ITEM", required = true)]
    items: Vec<String>,
    #[command(flatten)]
    least: Least,
}

impl Get {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let mut read = self.least.read(&self.view, Some(&self.items), store).await?;
        let found = std::mem::take(&mut read.items);
        let (there, gone) = held::resolve(&self.view, found, store, context).await?;
        read.items = there;
        let mut read = output::items(&self.view.namespace, &self.view.key, read);
        // In the order in which they are asked for, and as often.
        let values: HashMap<String, ViewItem> =
            read.items.drain(..).map(|found| (found.item.clone(), found)).collect();
        read.items = self.items.iter().filter_map(|item| values.get(item).cloned()).collect();
        self.print(read, gone, context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let (namespace, key) = (&self.view.namespace, &self.view.key);
        let asked = ReadItems { items: self.items.clone(), min_version: self.least.version() };
        let call = async |wait| client.read_view_items(namespace, key, &asked, wait).await;
        let list = self.least.ask(&self.view, call).await?;
        let gone = list.gone.len();
        self.print(read_of(list), gone, context)
    }

    /// `gone`: only the cache kept the values of so many, and has them no more.
    fn print(&self, read: ViewItems, gone: usize, context: &mut Context<'_>) -> Outcome {
        let lacks = if gone > 0 { Some(held::gone(&self.view, gone)) } else { self.lacks(&read) };
        if let [_] = &self.items[..] {
            return match lacks {
                Some(error) => Err(error.into()),
                None => print_value(read, context),
            };
        }
        let behind = standing(&read);
        let is_stale = read.stale;
        match context.format() {
            Format::Json => context.print(&read)?,
            Format::Jsonl => context.print_lines(&read.items)?,
            Format::Table => {
                items::print_table(read.items, context)?;
                if is_stale {
                    context.note(&behind)?;
                }
            }
        }
        lacks.map_or(Ok(ExitStatus::Ok), |error| Err(error.into()))
    }

    /// What the generation has not, of what was asked for.
    fn lacks(&self, read: &ViewItems) -> Option<CliError> {
        let is_there = |item: &String| read.items.iter().any(|found| found.item == *item);
        let missing: Vec<String> =
            self.items.iter().filter(|item| !is_there(item)).map(|item| format!("`{item}`")).collect();
        if missing.is_empty() {
            return None;
        }
        let (what, help) = if read.version == 0 {
            let help = "wait for the first one with --min-version 1".to_owned();
            (format!("view `{}` has no generation yet", self.view), help)
        } else {
            let missing = missing.join(", ");
            let help = format!("run `recache view items {}` for what is there", self.view);
            (format!("version {} of view `{}` has no item {missing}", read.version, self.view), help)
        };
        Some(CliError::new("E-NOT-FOUND", ExitStatus::NotFound, what).help(help))
    }
}

/// What a server answered, as it is printed.
pub(super) fn read_of(list: ItemList) -> ViewItems {
    ViewItems {
        schema: ViewItems::SCHEMA.to_owned(),
        view_id: list.view_id,
        namespace: list.namespace,
        key: list.key,
        version: list.version,
        recache_version: list.recache_version,
        published_at: list.published_at,
        staleness_ms: list.staleness_ms,
        stale: list.stale,
        items: list.items,
    }
}

/// The only item.
fn print_value(read: ViewItems, context: &mut Context<'_>) -> Outcome {
    let behind = standing(&read);
    let Some(found) = read.items.into_iter().next() else { return Ok(ExitStatus::NotFound) };
    let value = ViewValue {
        schema: ViewValue::SCHEMA.to_owned(),
        view_id: read.view_id,
        namespace: read.namespace,
        key: read.key,
        item: found.item,
        value: found.value,
        version: read.version,
        recache_version: read.recache_version,
        published_at: read.published_at,
        staleness_ms: read.staleness_ms,
        stale: read.stale,
    };
    match context.format() {
        Format::Json | Format::Jsonl => context.print(&value)?,
        Format::Table => {
            context.print_text(&format!("{}\n", output::visible_json(value.value.text())))?;
            if value.stale {
                context.note(&behind)?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}
