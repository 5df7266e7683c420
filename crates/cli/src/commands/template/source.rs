//! Which template is meant, and reading it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use recache_api::TemplateSummary;
use recache_api::client::Client;
use recache_model::template::{Problems, Template};
use recache_server::documents::templates as documents;
use recache_store::Store;

use crate::cli_error::{CliError, ExitStatus};
use crate::commands::Context;
use crate::commands::failure::{Failure, Result};
use crate::run;

const DEFAULT_NAMESPACE: &str = "default";

/// A file, or a stored template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A file; `-` is standard input.
    File(PathBuf),
    /// `NAMESPACE/NAME@VERSION`.
    Stored {
        /// Who it belongs to.
        namespace: String,
        /// Its name.
        name: String,
        /// None means the newest.
        version: Option<String>,
    },
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let is_ending = |ending: &str| {
            Path::new(text).extension().is_some_and(|extension| extension.eq_ignore_ascii_case(ending))
        };
        let is_path = ["./", "../", "/"].iter().any(|start| text.starts_with(start));
        if text == "-" || is_path || ["yaml", "yml", "json"].into_iter().any(is_ending) {
            return Ok(Self::File(PathBuf::from(text)));
        }
        let (path, version) = match text.split_once('@') {
            Some((path, version)) => (path, Some(version)),
            None => (text, None),
        };
        let (namespace, name) = path.split_once('/').unwrap_or((DEFAULT_NAMESPACE, path));
        if namespace.is_empty() || name.is_empty() || name.contains('/') || version.is_some_and(str::is_empty)
        {
            return Err("expected a file such as order.yaml, or NAMESPACE/NAME@VERSION".to_owned());
        }
        Ok(Self::Stored {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            version: version.map(str::to_owned),
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(out, "{}", path.display()),
            Self::Stored { namespace, name, version: Some(version) } => {
                write!(out, "{namespace}/{name}@{version}")
            }
            Self::Stored { namespace, name, version: None } => write!(out, "{namespace}/{name}"),
        }
    }
}

/// A template that was read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) template: Template,
    pub(super) summary: TemplateSummary,
}

/// The sources of one command: a database is opened only when one of them is stored.
#[derive(Debug, Default)]
pub(super) struct Sources {
    store: Option<Arc<dyn Store>>,
    /// Who is asked in place of a database.
    client: Option<Client>,
}

impl Sources {
    /// Of a server, where there is one.
    pub(super) fn of(client: Option<Client>) -> Self {
        Self { store: None, client }
    }

    /// Reads a template; what is wrong with a file is shown.
    pub(super) async fn load(&mut self, source: &Source, context: &mut Context<'_>) -> Result<Loaded> {
        match source {
            Source::File(path) => {
                let (name, text) = run::read_source(path)?;
                let template = Template::parse(&text, &name).map_err(|problems| wrong(&problems, context))?;
                let summary = documents::summary(&template);
                Ok(Loaded { template, summary })
            }
            Source::Stored { namespace, name, version } => {
                if let Some(client) = &self.client {
                    let found = client.template(namespace, name, version.as_deref()).await?;
                    let template = read(found.content.text(), namespace, name, &found.template.version)?;
                    return Ok(Loaded { template, summary: found.template });
                }
                let store = self.store(context).await?;
                let record =
                    store.template_find(namespace, name, version.as_deref()).await.map_err(|error| {
                        let said = crate::commands::failure::of_store(&error);
                        match error {
                            recache_store::Error::NotFound { .. } => {
                                said.help("run `recache template list`, and check --database")
                            }
                            _ => said,
                        }
                    })?;
                let template = read(&record.content, namespace, name, &record.version)?;
                let summary = documents::summary(&template);
                Ok(Loaded { template, summary })
            }
        }
    }

    /// The database, opened once.
    pub(super) async fn store(&mut self, context: &mut Context<'_>) -> Result<Arc<dyn Store>> {
        if let Some(store) = &self.store {
            return Ok(Arc::clone(store));
        }
        let store = context.open().await?;
        self.store = Some(Arc::clone(&store));
        Ok(store)
    }

    /// Closes what was opened.
    pub(super) async fn close(self) {
        if let Some(store) = self.store {
            store.close().await;
        }
    }
}

fn read(
    content: &str,
    namespace: &str,
    name: &str,
    version: &str,
) -> std::result::Result<Template, CliError> {
    Template::from_canonical_json(content).map_err(|problems| {
        let what =
            format!("{namespace}/{name} {version} is stored in a form that cannot be read: {problems}");
        CliError::new("E-BROKEN", ExitStatus::Failed, what).help("a newer recache may have stored it")
    })
}

/// Shows what is wrong with a template.
pub(super) fn wrong(problems: &Problems, context: &mut Context<'_>) -> Failure {
    for error in run::told(problems) {
        if let Err(error) = error.write(context.err) {
            return Failure::Output(error);
        }
    }
    Failure::Reported(ExitStatus::Failed)
}

/// Shows what deserves a look, unless asked to be quiet.
pub(super) fn warn(problems: &Problems, context: &mut Context<'_>) -> Result<()> {
    if !context.globals.quiet {
        for error in run::told(problems) {
            error.write_warning(context.err)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_a_stored_template_by_its_name() {
        for text in ["order.yaml", "a/b.yml", "x.JSON", "./order", "../x", "/tmp/x", "-"] {
            assert_eq!(text.parse(), Ok(Source::File(PathBuf::from(text))), "{text}");
        }
        let stored = |namespace: &str, name: &str, version: Option<&str>| Source::Stored {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            version: version.map(str::to_owned),
        };
        assert_eq!("order".parse(), Ok(stored("default", "order", None)));
        assert_eq!("shop/order".parse(), Ok(stored("shop", "order", None)));
        assert_eq!("shop/order@1.0.0-rc.1".parse(), Ok(stored("shop", "order", Some("1.0.0-rc.1"))));
        for text in ["", "/", "shop/", "a/b/c", "order@", "@1.0.0"] {
            let source = text.parse::<Source>();
            assert!(source.is_err() || matches!(source, Ok(Source::File(_))), "{text}");
        }
        assert_eq!(
            "shop/order@1.0.0".parse::<Source>().map(|source| source.to_string()),
            Ok("shop/order@1.0.0".into())
        );
    }
}
