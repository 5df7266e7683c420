//! `recache cache del` and `invalidate`.

use std::time::Duration;

use recache_api::Changed;
use recache_cache::{Key, KeyPrefix, Token};

use super::super::failure::Result;
use super::super::{Context, Outcome};
use super::key::{KeyArgs, key};
use super::opened::Opened;
use crate::cli_error::{CliError, ExitStatus};
use crate::output::{self, Format};

/// Remove the value under a key; print the token of the change
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache cache del shop article 42
  recache cache del --raw recache:shop:article:42

Removing what is not there is no error. A load that runs now will not bring the
value back.")]
pub(super) struct Del {
    #[command(flatten)]
    key: KeyArgs,
}

/// Outdate a key, a space, a tag or everything; print the token of the change
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "recache cache invalidate SPACE PART...
       recache cache invalidate --raw KEY | --space SPACE | --tag TAG
       recache cache invalidate --all --yes",
    after_help = "Examples:
  recache cache invalidate shop article 42
  recache cache invalidate --space shop
  recache cache invalidate --tag supplier-7
  recache cache invalidate --all --yes

Exit code 6 when the backend did not confirm it: other processes may then go on
serving what was there.",
    group = clap::ArgGroup::new("what").required(true).multiple(false)
        .args(["names", "raw", "space", "tag", "all"])
)]
pub(super) struct Invalidate {
    /// The space and the parts of the key
    #[arg(value_name = "SPACE PART", num_args = 1..)]
    names: Vec<String>,
    /// The key as it is stored, prefix included
    #[arg(long, value_name = "KEY")]
    raw: Option<String>,
    /// Every key of this space
    #[arg(long, value_name = "SPACE")]
    pub(super) space: Option<String>,
    /// Every entry that was stored with this tag
    #[arg(long, value_name = "TAG")]
    pub(super) tag: Option<String>,
    /// Everything under the configured key prefix; needs --yes
    #[arg(long)]
    pub(super) all: bool,
    /// Mean it: everything will have to be made anew
    #[arg(long)]
    yes: bool,
}

impl Del {
    pub(super) async fn run(self, patience: Duration, context: &mut Context<'_>) -> Outcome {
        let Opened { cache, .. } = &Opened::usable(patience, context).await?;
        let key = self.key.key(cache.keys())?;
        let token = cache.delete(&key).await;
        let name = key.as_str().to_owned();
        Change { action: "deleted", changed: Changed::Key, name, token }.end(context)
    }
}

impl Invalidate {
    pub(super) async fn run(self, patience: Duration, context: &mut Context<'_>) -> Outcome {
        self.check_consent()?;
        let opened = Opened::usable(patience, context).await?;
        let cache = &opened.cache;
        let (changed, name, token) = match (&self.space, &self.tag) {
            (Some(space), _) => {
                let space = cache.keys().space(space);
                (Changed::Space, space.to_string(), cache.invalidate_space(&space).await)
            }
            (_, Some(tag)) => (Changed::Tag, tag.clone(), cache.invalidate_tag(tag).await),
            _ if self.all => (Changed::All, cache.keys().as_str().to_owned(), cache.clear().await),
            _ => {
                let key = key(&self.names, self.raw.as_deref(), cache.keys())?;
                (Changed::Key, key.as_str().to_owned(), cache.invalidate(&key).await)
            }
        };
        opened.note_in_process(context)?;
        Change { action: "invalidated", changed, name, token }.end(context)
    }
}

impl Invalidate {
    /// The key, where one is named.
    pub(super) fn key(&self, prefix: &KeyPrefix) -> std::result::Result<Option<Key>, CliError> {
        if self.space.is_some() || self.tag.is_some() || self.all {
            return Ok(None);
        }
        key(&self.names, self.raw.as_deref(), prefix).map(Some)
    }

    /// Everything is outdated only by who says so twice.
    pub(super) fn check_consent(&self) -> std::result::Result<(), CliError> {
        let (what, remedy) = match (self.all, self.yes) {
            (true, true) | (false, false) => return Ok(()),
            (true, false) => {
                ("--all outdates everything under the configured key prefix", "add --yes if that is meant")
            }
            (false, true) => ("--yes stands without --all", "leave it out, or add --all"),
        };
        Err(CliError::new("E-CACHE-ALL", ExitStatus::Usage, what).help(remedy))
    }
}

/// What was changed, and by which word it can be asked for.
pub(super) struct Change {
    pub(super) action: &'static str,
    pub(super) changed: Changed,
    pub(super) name: String,
    pub(super) token: Token,
}

impl Change {
    pub(super) fn print(&self, context: &mut Context<'_>) -> Result<()> {
        let Self { action, changed, name, token } = self;
        match context.format() {
            Format::Json | Format::Jsonl => {
                context.print(&output::cache_change(action, *changed, name, *token))
            }
            Format::Table => {
                context.print_text(&format!("{token}\n"))?;
                let confirmed = if token.is_confirmed() { "confirmed" } else { "not confirmed" };
                context.note(&format!("{action} {}: {confirmed}", self.what()))
            }
        }
    }

    fn end(&self, context: &mut Context<'_>) -> Outcome {
        self.print(context)?;
        if self.token.is_confirmed() { Ok(ExitStatus::Ok) } else { Err(unconfirmed(self).into()) }
    }

    fn what(&self) -> String {
        let name = &self.name;
        match self.changed {
            Changed::Key => name.clone(),
            Changed::Space => format!("space {name}"),
            Changed::Tag => format!("tag {name}"),
            Changed::All => format!("everything under {name}"),
        }
    }
}

/// A library would send it later; this process is over before that.
pub(super) fn unconfirmed(change: &Change) -> CliError {
    let what = format!(
        "the backend did not confirm it: other processes may serve what was there ({})",
        change.what()
    );
    CliError::new("E-CACHE-UNCONFIRMED", ExitStatus::Unavailable, what)
        .help("run the command again: this process ends now and cannot send it later")
}
