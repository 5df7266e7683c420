//! `recache view derive`: from which others a view is made.

use recache_api::DeriveView;
use recache_api::client::Client;
use recache_store::Store;

use super::super::name::ViewName;
use super::super::{Context, Outcome};
use crate::cli_error::ExitStatus;

/// Say from which other views a view is made
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache view derive shop/sums --from shop/prices --from shop/stock
  recache view derive shop/sums --none

A publication of one of them that changed anything touches the view; one that
changed nothing does not. `view explain` shows what was said.")]
pub(super) struct Derive {
    /// The view
    #[arg(value_name = "NAMESPACE/KEY")]
    view: ViewName,
    /// It is made from this one, besides the other ones named
    #[arg(long, value_name = "NAMESPACE/KEY", required_unless_present = "none", conflicts_with = "none")]
    from: Vec<ViewName>,
    /// It is made from no other view
    #[arg(long)]
    none: bool,
}

impl Derive {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let from = self.from.iter().map(ViewName::in_store).collect();
        let is_news = store.chains().view_derive(self.view.in_store(), from).await?;
        said(is_news, context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let from = DeriveView { from: self.from.iter().map(ToString::to_string).collect() };
        let sources = client.derive_view(&self.view.namespace, &self.view.key, &from).await?;
        said(sources.changed, context)
    }
}

fn said(is_news: bool, context: &mut Context<'_>) -> Outcome {
    context.note(if is_news { "it is touched now, and built from them" } else { "that was said before" })?;
    Ok(ExitStatus::Ok)
}
