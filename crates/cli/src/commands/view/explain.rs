//! `recache view explain`: why a view is behind, and what it waits for.

use recache_api::client::Client;
use recache_api::{LastTouch, ViewExplanation};
use recache_store::Store;

use super::super::name::ViewName;
use super::super::{Context, Outcome};
use crate::cli_error::ExitStatus;
use crate::output::{self, Format};

/// Say why a view is behind, what will build it and what that waits for
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache view explain shop/prices

`to act` is the one command that would help, where one would.")]
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

/// When, by which way, by whom and why, as far as that was said.
fn said(touch: &LastTouch) -> String {
    let way = match (touch.by.as_str(), &touch.view) {
        ("view", Some(view)) => format!("because {view} was published"),
        ("sources", _) => "because it was said what it is made from".to_owned(),
        ("sql", _) => "in SQL, by an application".to_owned(),
        _ => "by a call".to_owned(),
    };
    let word = match (&touch.actor, &touch.reason) {
        (Some(actor), Some(reason)) => format!(", {actor}: {reason}"),
        _ => String::new(),
    };
    format!("{} {way}{word}", output::instant(touch.at))
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
    if let Some(touch) = &explanation.touched {
        fact("touched", said(touch));
    }
    if explanation.touches_waiting > 0 {
        fact("touches waiting", explanation.touches_waiting.to_string());
    }
    fact("why", explanation.reason);
    for (name, at) in [("until", explanation.until), ("live about", explanation.expected_at)] {
        if let Some(at) = at {
            fact(name, output::instant(at));
        }
    }
    if let Some(job) = explanation.build_job_id {
        fact("build", job);
    }
    if let Some(workflow) = explanation.workflow {
        fact("built by", format!("workflow {workflow}"));
    }
    if let (Some(handler), Some(queue), Some(workers)) =
        (explanation.handler, explanation.queue, explanation.workers)
    {
        fact("built by", format!("handler {handler} in queue {queue}, live workers: {workers}"));
    }
    for above in &explanation.behind_above {
        fact("behind above", format!("{} {}", above.view, above.reason));
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
