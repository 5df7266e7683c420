//! `recache template check`.

use std::path::PathBuf;

use recache_api::client::Client;
use recache_api::{TemplateCheck, TemplateChecks, TemplateProblem};
use recache_model::template::{Problems, Template};

use recache_server::documents::templates as documents;

use super::source;
use crate::cli_error::{CliError, ExitStatus};
use crate::commands::failure::Result;
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
        print(checks, context)?;
        Ok(failed.unwrap_or(ExitStatus::Ok))
    }

    /// By the rules of the server's version, which may be another one.
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
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
            for mut check in client.check_template(&text, self.lenient).await?.files {
                check.file.clone_from(&name);
                for problem in &check.problems {
                    told(problem, &name).write(context.err)?;
                }
                if !context.globals.quiet {
                    for warning in check.warnings.iter().chain(&check.unsupported) {
                        told(warning, &name).write_warning(context.err)?;
                    }
                }
                if check.template.is_none() {
                    failed.get_or_insert(ExitStatus::Failed);
                }
                checks.push(check);
            }
        }
        print(checks, context)?;
        Ok(failed.unwrap_or(ExitStatus::Ok))
    }
}

fn told(problem: &TemplateProblem, file: &str) -> CliError {
    let place = match (problem.line, problem.column) {
        (Some(line), Some(column)) => format!("{file}:{line}:{column}"),
        _ => format!("{file}{}", problem.path),
    };
    let error = CliError::new("E-TEMPLATE", ExitStatus::Failed, problem.message.clone()).at(place);
    match &problem.suggestion {
        Some(suggestion) => error.help(suggestion.clone()),
        None => error,
    }
}

fn print(checks: Vec<TemplateCheck>, context: &mut Context<'_>) -> Result<()> {
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
    Ok(())
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
    let problem = TemplateProblem {
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
