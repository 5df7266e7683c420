//! `recache template check`.

use std::path::PathBuf;

use recache_api::{TemplateCheck, TemplateChecks};
use recache_model::template::{Problems, Template};

use recache_server::documents::templates as documents;

use super::source;
use crate::cli_error::{CliError, ExitStatus};
use crate::commands::{Context, Outcome};
use crate::output::{Format, Tone};
use crate::run;

/// Check templates: everything that is wrong at once, each with its place
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache template check order.yaml
  recache template check --lenient templates/*.yaml -o json

Exit code 1 when a template is wrong. What this version accepts and does not
run yet is told as a warning.")]
pub(super) struct Args {
    /// The files, in YAML or JSON; - for standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Take unknown fields for warnings: read the template as if they were not
    /// there
    #[arg(long)]
    lenient: bool,
}

impl Args {
    pub(super) fn run(self, context: &mut Context<'_>) -> Outcome {
        let mut checks = Vec::new();
        let mut failed = None;
        for file in &self.files {
            let (name, text) = match run::read_source(file) {
                Ok(read) => read,
                Err(error) => {
                    error.write(context.err)?;
                    failed.get_or_insert(error.exit);
                    checks.push(unreadable(file.display().to_string(), &error));
                    continue;
                }
            };
            let read = if self.lenient {
                Template::parse_lenient(&text, &name).map(|(template, forgiven)| (template, Some(forgiven)))
            } else {
                Template::parse(&text, &name).map(|template| (template, None))
            };
            match read {
                Ok((template, forgiven)) => {
                    let unsupported = template.unsupported();
                    for warnings in forgiven.iter().chain([&unsupported]) {
                        source::warn(warnings, context)?;
                    }
                    checks.push(right(name, &template, forgiven.as_ref(), &unsupported));
                }
                Err(problems) => {
                    let _ = source::wrong(&problems, context);
                    failed.get_or_insert(ExitStatus::Failed);
                    checks.push(TemplateCheck {
                        file: name,
                        template: None,
                        problems: documents::problems(&problems),
                        warnings: Vec::new(),
                        unsupported: Vec::new(),
                    });
                }
            }
        }
        match context.format() {
            Format::Json => context.print(&TemplateChecks::new(checks))?,
            Format::Jsonl => context.print_lines(&checks)?,
            Format::Table => {
                let mut table = context.table(["FILE", "VERDICT", "TEMPLATE", "VERSION"]);
                for check in checks {
                    let plain = |text| (text, Tone::Plain);
                    let (verdict, tone) = verdict(&check);
                    let (template, version) = check
                        .template
                        .map(|one| (format!("{}/{}", one.namespace, one.name), one.version))
                        .unwrap_or_default();
                    table.toned([plain(check.file), (verdict, tone), plain(template), plain(version)]);
                }
                context.print_text(&table.text())?;
            }
        }
        Ok(failed.unwrap_or(ExitStatus::Ok))
    }
}

fn right(
    file: String,
    template: &Template,
    forgiven: Option<&Problems>,
    unsupported: &Problems,
) -> TemplateCheck {
    TemplateCheck {
        file,
        template: Some(documents::summary(template)),
        problems: Vec::new(),
        warnings: forgiven.map(documents::problems).unwrap_or_default(),
        unsupported: documents::problems(unsupported),
    }
}

fn unreadable(file: String, error: &CliError) -> TemplateCheck {
    let problem = recache_api::TemplateProblem {
        code: "unreadable".to_owned(),
        message: error.what.clone(),
        line: None,
        column: None,
        path: String::new(),
        suggestion: error.remedy.clone(),
    };
    TemplateCheck {
        file,
        template: None,
        problems: vec![problem],
        warnings: Vec::new(),
        unsupported: Vec::new(),
    }
}

fn verdict(check: &TemplateCheck) -> (String, Tone) {
    let count = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    if check.template.is_none() {
        return (count(check.problems.len(), "problem"), Tone::Bad);
    }
    match check.warnings.len() + check.unsupported.len() {
        0 => ("ok".to_owned(), Tone::Good),
        warnings => (format!("ok, {}", count(warnings, "warning")), Tone::Doubtful),
    }
}
