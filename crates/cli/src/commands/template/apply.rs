//! `recache template apply`.

use std::path::PathBuf;

use recache_api::client::{Client, Error, PutTemplate};
use recache_api::{TemplateApplied, TemplatesApplied};
use recache_cache::KeyPrefix;
use recache_engine::template_raise;
use recache_model::template::Template;
use recache_store::{Store, TemplateRecord};

use recache_server::documents::templates as documents;

use super::source;
use crate::cli_error::{CliError, ExitStatus};
use crate::commands::failure::{Result, of_store};
use crate::commands::{Context, Database, Outcome, compose};
use crate::output::Format;
use crate::run;

/// Store templates, so that they can be named instead of sent along
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache template apply order.yaml
  recache template apply --dry-run templates/*.yaml

Versions are immutable: the same version with another content is refused with
exit code 5. All files are checked before the first one is stored.")]
pub(super) struct Args {
    /// The files, in YAML or JSON; - for standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Take unknown fields for warnings, and store the template without them
    #[arg(long)]
    lenient: bool,
    /// Only say what would be stored
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let templates = self.read(context)?;
        let loaded = context.load()?;
        context.log();
        let keys = compose::key_prefix(&loaded.config.cache);
        let store = Database::configured(&loaded.config.database).open_existing().await?;
        let mut applied = Vec::new();
        let mut outcome = Ok(());
        for (template, _) in &templates {
            match put(store.as_ref(), &keys, template, self.dry_run).await {
                Ok(changed) => applied.push((template, changed)),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        store.close().await;
        self.print(&applied, context)?;
        outcome?;
        Ok(ExitStatus::Ok)
    }

    /// All files are checked here before the first one is sent, as for a database.
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let how = PutTemplate { dry_run: self.dry_run, lenient: self.lenient };
        let templates = self.read(context)?;
        let mut applied = Vec::new();
        let mut outcome = Ok(());
        for (template, text) in &templates {
            let changed = async {
                let answer = client.put_template(text, how).await?;
                if self.dry_run {
                    return is_new(client, template).await;
                }
                Ok(answer.templates.first().is_some_and(|first| first.changed))
            };
            match changed.await {
                Ok(changed) => applied.push((template, changed)),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        self.print(&applied, context)?;
        outcome?;
        Ok(ExitStatus::Ok)
    }

    fn print(&self, applied: &[(&Template, bool)], context: &mut Context<'_>) -> Result<()> {
        let documents: Vec<TemplateApplied> = applied
            .iter()
            .map(|(template, changed)| TemplateApplied {
                template: documents::summary(template),
                changed: *changed && !self.dry_run,
            })
            .collect();
        match context.format() {
            Format::Json => context.print(&TemplatesApplied::new(documents))?,
            Format::Jsonl => context.print_lines(&documents)?,
            Format::Table => {
                for (template, changed) in applied {
                    let word = match (changed, self.dry_run) {
                        (true, false) => "stored",
                        (true, true) => "would be stored",
                        (false, _) => "is stored already",
                    };
                    let line = format!(
                        "{}/{} {} {word}\n",
                        template.namespace(),
                        template.name(),
                        template.version()
                    );
                    context.print_text(&line)?;
                }
            }
        }
        Ok(())
    }

    /// Reads and checks all files, and answers them with their texts; every problem of every one is shown.
    fn read(&self, context: &mut Context<'_>) -> Result<Vec<(Template, String)>> {
        let mut templates = Vec::new();
        let mut failure = None;
        for file in &self.files {
            let (name, text) = match run::read_source(file) {
                Ok(read) => read,
                Err(error) => {
                    error.write(context.err)?;
                    failure.get_or_insert(crate::commands::Failure::Reported(error.exit));
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
                    if let Some(forgiven) = &forgiven {
                        source::warn(forgiven, context)?;
                    }
                    source::warn(&template.unsupported(), context)?;
                    templates.push((template, text));
                }
                Err(problems) => {
                    let shown = source::wrong(&problems, context);
                    failure.get_or_insert(shown);
                }
            }
        }
        failure.map_or(Ok(templates), Err)
    }
}

/// Whether a server does not have it. One that has it with other content has refused it before.
async fn is_new(client: &Client, template: &Template) -> std::result::Result<bool, Error> {
    let version = template.version().to_string();
    match client.template(template.namespace(), template.name(), Some(&version)).await {
        Ok(_) => Ok(false),
        Err(Error::Refused(problem)) if problem.code == "not_found" => Ok(true),
        Err(error) => Err(error),
    }
}

/// Stores a template; whether it was not there before.
async fn put(store: &dyn Store, keys: &KeyPrefix, template: &Template, dry_run: bool) -> Result<bool> {
    let version = template.version().to_string();
    let conflict = |message: String| {
        CliError::new("E-CONFLICT", ExitStatus::Conflict, message)
            .help("raise `version`; `recache template diff` says what differs")
    };
    match store.template_find(template.namespace(), template.name(), Some(&version)).await {
        Ok(stored) if stored.digest == template.digest().to_string() => return Ok(false),
        Ok(_) => {
            let message = format!(
                "template {}/{} {version} is stored with other content; versions are immutable",
                template.namespace(),
                template.name()
            );
            return Err(conflict(message).into());
        }
        Err(recache_store::Error::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    if !dry_run {
        let record = TemplateRecord {
            digest: template.digest().to_string(),
            namespace: template.namespace().to_owned(),
            name: template.name().to_owned(),
            version,
            content: template.canonical_json().to_owned(),
        };
        let raise = template_raise(keys, &record);
        // Somebody else may have stored the version since.
        store.template_put(record, Some(raise)).await.map_err(|error| match error {
            recache_store::Error::Conflict(message) => conflict(message),
            error => of_store(&error),
        })?;
    }
    Ok(true)
}
