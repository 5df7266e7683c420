//! `recache workflow analyze`.

use recache_api::client::Client;
use recache_engine::analysis::analyze_workflow;
use recache_model::ids::WorkflowId;
use recache_store::Store;

use crate::commands::analyzed::{self, Form};
use crate::commands::failure::of_engine;
use crate::commands::{Context, Outcome};
use crate::output;

/// Tell a workflow's critical path, what holds it up, and when it ends
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache workflow analyze wf_01987a4e-4d1c-7b34-9f0e-2b8a5c1d7e6f
  recache workflow analyze wf_01987a4e-4d1c-7b34-9f0e-2b8a5c1d7e6f --as svg

Durations are measured where a step has run, and else those of the newest
ended workflows of the same template. With -o json: all of it as data,
whatever --as says.")]
pub(super) struct Args {
    /// The workflow
    #[arg(value_name = "ID")]
    workflow: WorkflowId,
    /// How it is drawn
    #[arg(long = "as", value_name = "FORM", default_value = "text")]
    form: Form,
}

impl Args {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let found = analyze_workflow(store, self.workflow).await;
        let found = output::analysis(&found.map_err(|error| of_engine(&error))?);
        analyzed::print(&found, self.form, context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let found = client.analyze_workflow(&self.workflow.to_string()).await?;
        analyzed::print(&found, self.form, context)
    }
}
