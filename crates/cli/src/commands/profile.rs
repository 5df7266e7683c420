//! `recache profile`: names for servers.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;

use super::failure::Result;
use super::{Context, Outcome};
use crate::cli_error::{CliError, ExitStatus};
use crate::output::Format;
use crate::profiles::{self, Error, Profile, Profiles};

/// Give servers names: address, token file, namespace
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache profile set prod --server https://recache.example \\
      --token-file ~/.secrets/recache-prod --namespace shop
  recache job list --profile prod

Kept in recache/profiles.toml in the folder of your configuration
(XDG_CONFIG_HOME, else ~/.config). A token stays in a file of its own, which
only you may read. RECACHE_PROFILE names one for all commands."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(List),
    Show(Show),
    Set(Set),
    Remove(Remove),
}

/// List profiles
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache profile list")]
struct List {}

/// Show a profile
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache profile show prod")]
struct Show {
    /// Its name
    name: String,
}

/// Make a profile, or change what is named of it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache profile set local --server http://127.0.0.1:7878
  recache profile set prod --namespace shop
  recache profile set prod --no-namespace --no-token-file")]
struct Set {
    /// Its name
    name: String,
    /// The server's URL; needed for a new one
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Where the token for it is: a file that only you may read
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// It needs no token
    #[arg(long, conflicts_with = "token_file")]
    no_token_file: bool,
    /// What --namespace is where nothing else is said
    // Another name than the flag has elsewhere: a profile must not be its own default.
    #[arg(long = "namespace", id = "profile_namespace", value_name = "NAME")]
    namespace: Option<String>,
    /// It has none
    #[arg(long, conflicts_with = "profile_namespace")]
    no_namespace: bool,
}

/// Remove a profile
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache profile remove prod")]
struct Remove {
    /// Its name
    name: String,
}

/// A profile as a document.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    name: &'a str,
    #[serde(flatten)]
    profile: &'a Profile,
}

#[derive(Debug, Serialize)]
struct Listed<'a> {
    schema: &'static str,
    profiles: Vec<Shown<'a>>,
}

impl Args {
    #[expect(clippy::unused_async, reason = "every verb is called in the same way")]
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let path = profiles::path(&context.environment).map_err(said)?;
        let mut profiles = Profiles::read(&path).map_err(said)?;
        match self.verb {
            Verb::List(_) => print(profiles.profiles.iter(), context)?,
            Verb::Show(Show { name }) => {
                let profile = profiles.get(&name).map_err(said)?;
                print([(&name, profile)].into_iter(), context)?;
            }
            Verb::Set(asked) => {
                let name = asked.name.clone();
                let changed = asked.over(profiles.profiles.get(&name).cloned(), context)?;
                let is_new = profiles.set(&name, changed).map_err(said)?;
                profiles.write(&path).map_err(said)?;
                context.note(&format!("profile `{name}` is {}", if is_new { "new" } else { "changed" }))?;
            }
            Verb::Remove(Remove { name }) => {
                profiles.get(&name).map_err(said)?;
                profiles.profiles.remove(&name);
                profiles.write(&path).map_err(said)?;
                context.note(&format!("profile `{name}` is removed; its token file stays"))?;
            }
        }
        Ok(ExitStatus::Ok)
    }
}

impl Set {
    fn over(self, before: Option<Profile>, context: &Context<'_>) -> Result<Profile> {
        let is_new = before.is_none();
        let mut profile = before.unwrap_or_default();
        match self.server {
            Some(server) => profile.server = server,
            None if is_new => {
                let what = format!("profile `{}` is new, and no server is named", self.name);
                return Err(CliError::new("E-USAGE", ExitStatus::Usage, what)
                    .help("name it with --server URL")
                    .into());
            }
            None => {}
        }
        match self.token_file {
            Some(path) => profile.token_file = Some(context.environment.directory.join(path)),
            None if self.no_token_file => profile.token_file = None,
            None => {}
        }
        match self.namespace {
            Some(namespace) => profile.namespace = Some(namespace),
            None if self.no_namespace => profile.namespace = None,
            None => {}
        }
        Ok(profile)
    }
}

fn print<'a>(
    profiles: impl Iterator<Item = (&'a String, &'a Profile)>,
    context: &mut Context<'_>,
) -> Result<()> {
    let profiles: Vec<Shown<'_>> = profiles.map(|(name, profile)| Shown { name, profile }).collect();
    match context.format() {
        Format::Json => context.print(&Listed { schema: "recache.profiles.v1", profiles }),
        Format::Jsonl => context.print_lines(&profiles),
        Format::Table if profiles.is_empty() => {
            context.note("there is no profile; `recache profile set` makes one")
        }
        Format::Table => {
            let mut table = context.table(["PROFILE", "SERVER", "NAMESPACE", "TOKEN FILE"]);
            for Shown { name, profile } in profiles {
                let file = profile.token_file.as_ref().map(|path| path.display().to_string());
                table.row([
                    name.to_owned(),
                    profile.server.clone(),
                    profile.namespace.clone().unwrap_or_default(),
                    file.unwrap_or_default(),
                ]);
            }
            context.print_text(&table.text())
        }
    }
}

/// A profile that cannot be used, as the command's error.
#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
pub(super) fn said(error: Error) -> CliError {
    let what = error.to_string();
    match error {
        Error::Unknown { .. } => {
            CliError::new("E-PROFILE", ExitStatus::NotFound, what).help("`recache profile set` makes one")
        }
        Error::NoHome | Error::File { .. } => CliError::new("E-PROFILE", ExitStatus::Failed, what),
        Error::Wrong { .. } => {
            CliError::new("E-PROFILE", ExitStatus::Usage, what).help("mend the file, or remove it")
        }
        Error::Invalid(_) => CliError::new("E-PROFILE", ExitStatus::Usage, what),
    }
}
