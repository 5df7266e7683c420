//! `recache template graph`.

use clap::ValueEnum;
use recache_model::template::draw;
use recache_server::documents::templates as documents;

use super::source::{Loaded, Source, Sources};
use crate::cli_error::ExitStatus;
use crate::commands::{Context, Outcome};
use crate::output::Format;

/// Draw a template's steps
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache template graph order.yaml
  recache template graph shop/order --as svg > order.svg

With -o json: the levels and lines as data, whatever --as says.")]
pub(super) struct Args {
    /// A file, or NAMESPACE/NAME@VERSION
    #[arg(value_name = "TEMPLATE")]
    template: Source,
    /// How it is drawn
    #[arg(long = "as", value_name = "FORM", default_value = "text")]
    form: Form,
}

/// How a graph is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Level by level
    Text,
    /// For Mermaid
    Mermaid,
    /// For Graphviz
    Dot,
    /// A picture
    Svg,
}

impl Args {
    pub(super) async fn run(self, mut sources: Sources, context: &mut Context<'_>) -> Outcome {
        let loaded = sources.load(&self.template, context).await;
        sources.close().await;
        let Loaded { template, summary } = loaded?;
        match context.format() {
            Format::Json | Format::Jsonl => {
                context.print(&documents::graph(summary, &template))?;
            }
            Format::Table => {
                let drawn = match self.form {
                    Form::Text => draw::text(&template),
                    Form::Mermaid => draw::mermaid(&template),
                    Form::Dot => draw::dot(&template),
                    Form::Svg => draw::svg(&template),
                };
                context.print_text(&drawn)?;
            }
        }
        Ok(ExitStatus::Ok)
    }
}
