//! `recache template show`.

use std::collections::BTreeSet;

use recache_model::template::{Step, Template};
use recache_server::documents::templates as documents;

use super::source::{Loaded, Source, Sources};
use crate::cli_error::ExitStatus;
use crate::commands::{Context, Outcome};
use crate::output::{self, Format};
use crate::run;

/// Show a template: what it is, its steps, its environments
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache template show shop/order
  recache template show order.yaml --environment production -o json")]
pub(super) struct Args {
    /// A file, or NAMESPACE/NAME@VERSION
    #[arg(value_name = "TEMPLATE")]
    template: Source,
    /// As it is in this environment
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
}

impl Args {
    pub(super) async fn run(self, mut sources: Sources, context: &mut Context<'_>) -> Outcome {
        let loaded = sources.load(&self.template, context).await;
        sources.close().await;
        let Loaded { template, summary } = loaded?;
        let template = match &self.environment {
            None => template,
            Some(environment) => template.for_environment(environment).map_err(|problems| {
                let error = run::told(&problems).into_iter().next();
                error.unwrap_or_else(|| {
                    crate::cli_error::CliError::new("E-TEMPLATE", ExitStatus::Failed, "unknown environment")
                })
            })?,
        };
        match context.format() {
            Format::Json | Format::Jsonl => {
                context.print(&documents::details(summary, &template))?;
            }
            Format::Table => {
                let mut table = context.table(["", ""]);
                for (name, value) in facts(&template) {
                    table.row([name.to_owned(), value]);
                }
                let facts = table.text();
                let mut table = context
                    .table(["STEP", "TYPE", "DOES", "AFTER", "ATTEMPTS", "TIMEOUT", "ALSO"])
                    .leaving_out(&["TIMEOUT", "ATTEMPTS", "ALSO"]);
                for step in template.steps() {
                    table.row(row(step));
                }
                context.print_text(&format!("{facts}\n{}", table.text()))?;
            }
        }
        Ok(ExitStatus::Ok)
    }
}

fn facts(template: &Template) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("template", format!("{}/{}", template.namespace(), template.name())),
        ("version", template.version().to_string()),
        ("digest", template.digest().to_string()),
    ];
    let mut fact = |name, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            facts.push((name, value));
        }
    };
    fact("description", template.description().map(str::to_owned));
    let known = template.known_metadata();
    fact("author", known.author.map(str::to_owned));
    fact("tags", Some(known.tags.join(", ")));
    fact("documentation", known.documentation_url.map(str::to_owned));
    fact("notes", known.notes.map(str::to_owned));
    let systems = template.system_dependencies();
    fact(
        "systems",
        Some(systems.primary.iter().chain(&systems.secondary).cloned().collect::<Vec<_>>().join(", ")),
    );
    let events: Vec<&str> = template.domain_events().iter().map(|event| event.name.as_str()).collect();
    fact("events", Some(events.join(", ")));
    fact("input", template.input_schema().map(|_| "checked by a schema".to_owned()));
    fact("environments", Some(template.environments().keys().cloned().collect::<Vec<_>>().join(", ")));
    let unsupported = template.unsupported();
    // By the field's name, whichever steps give it.
    let names: BTreeSet<String> = unsupported
        .items()
        .iter()
        .map(|problem| {
            let field = problem
                .path
                .trim_start_matches("/steps/")
                .trim_start_matches(|one: char| one.is_ascii_digit());
            field.trim_start_matches('/').replace('/', ".")
        })
        .collect();
    fact("not run yet", Some(names.into_iter().collect::<Vec<_>>().join(", ")));
    facts
}

fn row(step: &Step) -> [String; 7] {
    let does = match (&step.handler, &step.workflow) {
        (Some(handler), _) => handler.callable.clone(),
        (None, Some(workflow)) => format!("workflow {}", workflow.name),
        (None, None) => "waits".to_owned(),
    };
    let also = [
        ("when", step.when.is_some()),
        ("for each", step.for_each.is_some()),
        ("waits", step.wait_for.is_some() && step.handler.is_some()),
        ("concurrency", step.concurrency_key.is_some()),
        ("rate limit", step.rate_limit.is_some()),
        ("cache", step.cache.is_some()),
        ("events", !step.publishes_events.is_empty()),
        ("result schema", step.result_schema.is_some()),
        ("lifecycle", step.lifecycle.is_some()),
    ];
    let also: Vec<&str> = also.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect();
    let timeout =
        step.timeout.map(|timeout| output::duration(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)));
    [
        step.name.clone(),
        step.step_type.word().to_owned(),
        does,
        step.dependencies.join(", "),
        step.retry.policy().attempts_max.to_string(),
        timeout.unwrap_or_default(),
        also.join(", "),
    ]
}
