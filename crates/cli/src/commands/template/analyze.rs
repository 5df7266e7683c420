//! `recache template analyze`.

use recache_api::client::Client;
use recache_engine::analysis::analyze_template;
use recache_model::template::Template;

use super::source::{self, Source, Sources};
use crate::commands::analyzed::{self, Form};
use crate::commands::failure::{Failure, of_engine};
use crate::commands::{Context, Outcome};
use crate::{output, run};

/// Tell a template's critical path, slack and parallelism
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache template analyze order.yaml
  recache template analyze order.yaml --history
  recache template analyze shop/order --as mermaid

Of a stored template, or with --history, the newest ended workflows of the
template in the configured database tell how long its steps run; otherwise each
step counts as one. With -o json: all of it as data, whatever --as says.")]
pub(super) struct Args {
    /// A file, or NAMESPACE/NAME@VERSION
    #[arg(value_name = "TEMPLATE")]
    template: Source,
    /// Ask the database how long the steps of a file's template run
    #[arg(long)]
    history: bool,
    /// How it is drawn
    #[arg(long = "as", value_name = "FORM", default_value = "text")]
    form: Form,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let mut sources = Sources::default();
        let found = self.analyzed(&mut sources, context).await;
        sources.close().await;
        analyzed::print(&output::analysis(&found?), self.form, context)
    }

    /// A file is sent along where earlier workflows are to tell; otherwise nobody has to be asked.
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let found = match &self.template {
            Source::Stored { namespace, name, version } => {
                client.analyze_template(namespace, name, version.as_deref()).await?
            }
            Source::File(_) if !self.history => return self.run(context).await,
            Source::File(path) => {
                let (name, text) = run::read_source(path)?;
                // What is wrong with it is told with its places, before it is sent.
                Template::parse(&text, &name).map_err(|problems| source::wrong(&problems, context))?;
                client.analyze_template_text(&text).await?
            }
        };
        analyzed::print(&found, self.form, context)
    }

    async fn analyzed(
        &self,
        sources: &mut Sources,
        context: &mut Context<'_>,
    ) -> Result<recache_engine::analysis::GraphAnalysis, Failure> {
        let loaded = sources.load(&self.template, context).await?;
        let is_stored = matches!(self.template, Source::Stored { .. });
        let store = if is_stored || self.history { Some(sources.store(context).await?) } else { None };
        analyze_template(store.as_deref(), &loaded.template).await.map_err(|error| of_engine(&error).into())
    }
}
