//! `recache template check`.

use std::path::{Path, PathBuf};

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
        let mut all = Checked::default();
        for file in &self.files {
            let Some((name, text)) = all.read(file, context)? else { continue };
            let read = if self.lenient {
                Template::parse_lenient(&text, &name).map(|(template, forgiven)| (template, Some(forgiven)))
            } else {
                Template::parse(&text, &name).map(|template| (template, None))
            };
            all.add(match read {
                Ok((template, forgiven)) => {
                    let unsupported = template.unsupported();
                    for warnings in forgiven.iter().chain([&unsupported]) {
                        source::warn(warnings, context)?;
                    }
                    right(name, &template, forgiven.as_ref(), &unsupported)
                }
                Err(problems) => {
                    let _ = source::wrong(&problems, context);
                    wrong(name, documents::problems(&problems))
                }
            });
        }
        all.print(context)
    }

    /// By the rules of the server's version, which may be another one.
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let mut all = Checked::default();
        for file in &self.files {
            let Some((name, text)) = all.read(file, context)? else { continue };
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
                all.add(check);
            }
        }
        all.print(context)
    }
}

/// What was found so far.
#[derive(Debug, Default)]
struct Checked {
    checks: Vec<TemplateCheck>,
    /// The first thing that went wrong.
    failed: Option<ExitStatus>,
}

impl Checked {
    /// A file's name and text; one that cannot be read is shown, and checked with that.
    fn read(&mut self, file: &Path, context: &mut Context<'_>) -> Result<Option<(String, String)>> {
        match run::read_source(file) {
            Ok(read) => Ok(Some(read)),
            Err(error) => {
                error.write(context.err)?;
                self.failed.get_or_insert(error.exit);
                self.checks.push(unreadable(file.display().to_string(), &error));
                Ok(None)
            }
        }
    }

    fn add(&mut self, check: TemplateCheck) {
        if check.template.is_none() {
            self.failed.get_or_insert(ExitStatus::Failed);
        }
        self.checks.push(check);
    }

    fn print(self, context: &mut Context<'_>) -> Outcome {
        print(self.checks, context)?;
        Ok(self.failed.unwrap_or(ExitStatus::Ok))
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
    wrong(file, vec![problem])
}

fn wrong(file: String, problems: Vec<TemplateProblem>) -> TemplateCheck {
    TemplateCheck { file, template: None, problems, warnings: Vec::new(), unsupported: Vec::new() }
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
