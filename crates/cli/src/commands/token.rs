//! `recache token`: keys of those who ask over HTTP.

use std::time::Duration;

use clap::Subcommand;
use rand::RngCore as _;
use recache_api::{ApiKeyCreated, ApiKeyList, ApiKeyRevoked};
use recache_server::{Grant, Grants, documents, make_key, permissions};
use recache_store::{Store, Word};
use serde_json::json;

use super::audited::{Deed, audited};
use super::name::far;
use super::{Context, Outcome};
use crate::cli_error::{CliError, ExitStatus};
use crate::output::{self, Format, Tone};

/// Make, list and revoke the keys of those who ask over HTTP
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache token create deploy --scope jobs:write --scope '*:read'
  recache token list
  recache token revoke deploy --reason leaked

A scope is RESOURCE:ACTION, `*` for any, and @NAMESPACE where it holds in one
namespace only. Actions are read, write and operate. Switch keys on in the
server with auth.api_keys = true."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make a key and show its token, once
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache token create deploy --scope jobs:write --scope '*:read'
  recache token create shop --scope '*:*@shop' --expires 90d -o json

The token is printed to stdout and kept nowhere: only a hash of it is.")]
struct Create {
    /// What it is called; one live key has the name
    name: String,
    /// What it may do; may be given several times
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    scopes: Vec<Grant>,
    /// It is good for so long, at most 10 years [default: until it is revoked]
    #[arg(long, value_name = "TIME", value_parser = far)]
    expires: Option<Duration>,
}

/// List keys, the newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache token list -o json")]
struct List {}

/// Make a key good for nothing, within 5 seconds on every server
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache token revoke deploy --reason leaked")]
struct Revoke {
    /// Its name or id
    key: String,
    /// Why; kept with it
    #[arg(long, default_value = "revoked from the command line")]
    reason: String,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let store = context.open().await?;
        let outcome = match self.verb {
            Verb::Create(arguments) => arguments.run(&*store, context).await,
            Verb::List(arguments) => arguments.run(&*store, context).await,
            Verb::Revoke(arguments) => arguments.run(&*store, context).await,
        };
        store.close().await;
        outcome
    }
}

impl Create {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        check(&self.scopes)?;
        let creator = context.actor(None);
        let grants = Grants::new(self.scopes);
        let random = |bytes: &mut [u8]| rand::rng().fill_bytes(bytes);
        let (token, key) = make_key(&self.name, &grants, self.expires, &creator, random);
        let word = Word::new(creator, "made from the command line");
        let key = audited(store, Deed::new("tokens.create", self.name, word), &json!(null), async {
            let key = documents::api_key(store.api_keys().api_key_put(key).await?);
            let after = json!({ "id": key.id, "scopes": key.scopes, "expires_at": key.expires_at });
            Ok((key, after))
        })
        .await?;
        match context.format() {
            Format::Json | Format::Jsonl => context.print(&ApiKeyCreated::new(key, token))?,
            Format::Table => {
                context.print_text(&format!("{token}\n"))?;
                let end = key.expires_at.map(|end| format!(", good until {}", output::instant(end)));
                let end = end.unwrap_or_default();
                context.note(&format!(
                    "this is `{}`, {}{end}; it is shown once and cannot be shown again",
                    key.name,
                    key.scopes.join(" ")
                ))?;
            }
        }
        Ok(ExitStatus::Ok)
    }
}

/// A scope that no route asks for is a mistake.
fn check(scopes: &[Grant]) -> Result<(), CliError> {
    let permissions = permissions();
    let known: std::collections::BTreeSet<_> = permissions.iter().map(|one| one.resource()).collect();
    let unknown = scopes.iter().filter_map(|scope| scope.resource().filter(|one| !known.contains(one)));
    let unknown: Vec<_> = unknown.map(|resource| format!("`{resource}`")).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let what = format!("no permission is about {}", unknown.join(", "));
    let known: Vec<_> = known.into_iter().collect();
    Err(CliError::new("E-SCOPE", ExitStatus::Usage, what).help(format!("known: {}, and *", known.join(", "))))
}

impl List {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let keys: Vec<_> =
            store.api_keys().api_keys_list().await?.into_iter().map(documents::api_key).collect();
        match context.format() {
            Format::Json => context.print(&ApiKeyList::new(keys))?,
            Format::Jsonl => context.print_lines(&keys)?,
            Format::Table => {
                if keys.is_empty() {
                    context.note("no keys")?;
                    return Ok(ExitStatus::Ok);
                }
                let now = output::timestamp(store.now().await?);
                let mut table = context
                    .table(["NAME", "STATE", "SCOPES", "USED", "CREATED", "ID"])
                    .leaving_out(&["ID", "CREATED", "USED"]);
                for key in keys {
                    let plain = |text| (text, Tone::Plain);
                    let state = match (key.revoked_at, key.expires_at) {
                        (Some(_), _) => ("revoked", Tone::Bad),
                        (None, Some(end)) if end <= now => ("expired", Tone::Doubtful),
                        (None, _) => ("good", Tone::Good),
                    };
                    table.toned([
                        plain(key.name),
                        (state.0.to_owned(), state.1),
                        plain(key.scopes.join(" ")),
                        plain(key.last_used_at.map_or_else(|| "never".to_owned(), output::instant)),
                        plain(output::instant(key.created_at)),
                        plain(key.id),
                    ]);
                }
                context.print_text(&table.text())?;
            }
        }
        Ok(ExitStatus::Ok)
    }
}

impl Revoke {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let word = Word::new(context.actor(None), self.reason);
        let deed = Deed::new("tokens.revoke", self.key.clone(), word.clone());
        let changed = audited(store, deed, &json!({ "revoked": false }), async {
            let changed = store.api_keys().api_key_revoke(&self.key, word).await?;
            Ok((changed, json!({ "revoked": true, "changed": changed })))
        })
        .await?;
        match context.format() {
            Format::Json | Format::Jsonl => context.print(&ApiKeyRevoked::new(self.key, changed))?,
            Format::Table => {
                let word = if changed { "is revoked" } else { "was revoked before" };
                context.print_text(&format!("{} {word}\n", self.key))?;
            }
        }
        Ok(ExitStatus::Ok)
    }
}
