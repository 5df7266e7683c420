//! `recache view explain`: why a view is behind, and what it waits for.

use recache_api::ViewExplanation;
use recache_api::client::Client;
use recache_store::Store;

use super::super::name::ViewName;
use super::super::{Context, Outcome};
use crate::cli_error::ExitStatus;
use crate::output::{self, Format};

/// Say why a view is behind, what will build it and what that waits for
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache view explain shop/prices")]
pub(super) struct Explain {
    /// The view
    #[arg(value_name = "NAMESPACE/KEY")]
    view: ViewName,
}

impl Explain {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        print(&self.view, output::view_explanation(store, &self.view.in_store()).await?, context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let explanation = client.explain_view(&self.view.namespace, &self.view.key).await?;
        print(&self.view, explanation, context)
    }
}

fn print(view: &ViewName, explanation: ViewExplanation, context: &mut Context<'_>) -> Outcome {
    if context.format() != Format::Table {
        context.print(&explanation)?;
        return Ok(ExitStatus::Ok);
    }
    let mut table = context.table(["", ""]);
    let mut fact = |name: &str, value: String| table.row([name.to_owned(), value]);
    fact("view", view.to_string());
    let (live, wanted) = (explanation.live_version, explanation.recache_version);
    fact("live", if live == 0 { "no version yet".to_owned() } else { format!("version {live}") });
    fact("wanted", format!("version {wanted}"));
    if explanation.staleness_ms > 0 {
        fact("behind for", output::duration(explanation.staleness_ms));
    }
    fact("why", explanation.reason);
    if let Some(until) = explanation.until {
        fact("until", output::instant(until));
    }
    if let Some(job) = explanation.build_job_id {
        fact("build", job);
    }
    for (name, views) in [("made from", &explanation.derived_from), ("feeds", &explanation.feeds)] {
        if !views.is_empty() {
            fact(name, views.join(", "));
        }
    }
    if let Some(remedy) = explanation.remedy {
        fact("to act", remedy);
    }
    let text = table.text();
    context.print_text(&text)?;
    Ok(ExitStatus::Ok)
}
