//! `recache view pause`, `resume`, `rebuild`, `rollback`, `delete`: a view in an operator's hands.

use recache_api::client::Client;
use recache_api::{Because, RollBackView, ViewChange, ViewRestored};
use recache_model::view_pattern::is_pattern;
use recache_store::{Store, Word};
use serde_json::{Value, json};

use super::super::against::{because, no_actor};
use super::super::audited::{Deed, audited};
use super::super::name::ViewName;
use super::super::{Context, Failure, Outcome};
use super::{held, print_touched, touched};
use crate::cli_error::ExitStatus;
use crate::output::{self, Format};

/// Who does it, and why
#[derive(Debug, clap::Args)]
struct Why {
    /// Why; kept and shown to whoever looks
    #[arg(long)]
    reason: String,
    /// Who says so [default: the user who runs the command]
    #[arg(long)]
    actor: Option<String>,
}

impl Why {
    /// As it is asked of a server.
    fn asked(self) -> Result<Because, Failure> {
        no_actor(self.actor.as_deref())?;
        Ok(because(self.reason))
    }

    fn word(&self, context: &Context<'_>) -> Word {
        Word::new(context.actor(self.actor.as_deref()), self.reason.clone())
    }
}

/// Let no build of a view begin; one that has begun goes on to its end
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache view pause shop/prices --reason \"the supplier sends nonsense\"

Touches are counted meanwhile, and readers keep the live version.")]
pub(super) struct Pause {
    /// The view
    #[arg(value_name = "NAMESPACE/KEY")]
    view: ViewName,
    #[command(flatten)]
    why: Why,
}

/// Let the builds of a view begin again
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache view resume shop/prices

What was touched meanwhile is built at once.")]
pub(super) struct Resume {
    /// The view
    #[arg(value_name = "NAMESPACE/KEY")]
    view: ViewName,
}

/// Build a view anew at once, whether or not an input changed
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache view rebuild shop/prices --reason \"the tax rates were wrong\"

The same as a touch without items and without debounce: items whose fingerprint
is the same are still taken over.")]
pub(super) struct Rebuild {
    /// The view
    #[arg(value_name = "NAMESPACE/KEY")]
    view: ViewName,
    #[command(flatten)]
    why: Why,
}

/// Make the content of an older generation live again, and pause the view
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "recache view rollback [OPTIONS] --to VERSION --reason TEXT NAMESPACE/KEY",
    after_help = "Examples:
  recache view diff shop/prices 41 42
  recache view rollback shop/prices --to 41 --reason \"42 lacks half of the items\"
  recache view resume shop/prices

It becomes a version of its own, newer than every other: no reader goes back.
The view is paused, because its next build would undo it."
)]
pub(super) struct Rollback {
    /// The view
    #[arg(value_name = "NAMESPACE/KEY")]
    view: ViewName,
    /// The generation; `view show` lists those that are kept
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(1..))]
    to: i64,
    #[command(flatten)]
    why: Why,
}

/// Remove a view with all its generations
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache view delete shop/prices --reason \"nobody reads it\"

Its build is cancelled and readers do not find it any more. Refused while other
views are made from it.")]
pub(super) struct Delete {
    /// The view
    #[arg(value_name = "NAMESPACE/KEY")]
    view: ViewName,
    #[command(flatten)]
    why: Why,
}

const PAUSED: (&str, &str) = ("paused", "was paused before");
const RESUMED: (&str, &str) = ("its builds begin again", "was not paused");

/// Prints what changed: `done` when something did, `before` otherwise.
fn changed(
    view: ViewName,
    changed: bool,
    (done, before): (&str, &str),
    context: &mut Context<'_>,
) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(&ViewChange::new(view.namespace, view.key, changed))?,
        Format::Table => {
            let said = if changed { done } else { before };
            context.print_text(&format!("{view}: {said}\n"))?;
        }
    }
    Ok(ExitStatus::Ok)
}

fn deed(action: &'static str, view: &ViewName, word: Word) -> Deed {
    Deed::new(action, view.to_string(), word).of(&view.namespace)
}

/// How a view stands, as the audit keeps it.
async fn stands(view: &ViewName, store: &dyn Store) -> Result<Value, Failure> {
    let record = store.view_get(&view.namespace, &view.key).await?;
    Ok(json!({ "paused": record.pause.is_some(), "live_version": record.versions.live }))
}

impl Pause {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let because = self.why.asked()?;
        let change = client.pause_view(&self.view.namespace, &self.view.key, &because).await?;
        changed(self.view, change.changed, PAUSED, context)
    }

    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let word = self.why.word(context);
        let deed = deed("views.pause", &self.view, word.clone());
        let is_new = audited(store, deed, &stands(&self.view, store).await?, async {
            let is_new = store.view_control().view_pause(self.view.in_store(), word).await?;
            Ok((is_new, json!({ "paused": true })))
        })
        .await?;
        changed(self.view, is_new, PAUSED, context)
    }
}

impl Resume {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let because = because("resumed from the command line".to_owned());
        let change = client.resume_view(&self.view.namespace, &self.view.key, &because).await?;
        changed(self.view, change.changed, RESUMED, context)
    }

    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let word = Word::new(context.actor(None), "resumed from the command line");
        let deed = deed("views.resume", &self.view, word);
        let is_new = audited(store, deed, &stands(&self.view, store).await?, async {
            let is_new = store.view_control().view_resume(self.view.in_store()).await?;
            Ok((is_new, json!({ "paused": false })))
        })
        .await?;
        changed(self.view, is_new, RESUMED, context)
    }
}

impl Rebuild {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let because = self.why.asked()?;
        let touched = client.rebuild_view(&self.view.namespace, &self.view.key, &because).await?;
        print_touched(&self.view, &touched, context)
    }

    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let word = self.why.word(context);
        // One that a pattern covers is made by its first touch.
        let before = match stands(&self.view, store).await {
            Ok(before) => before,
            Err(Failure::Said(error)) if error.exit == ExitStatus::NotFound => json!(null),
            Err(error) => return Err(error),
        };
        let deed = deed("views.rebuild", &self.view, word.clone());
        let touched = audited(store, deed, &before, async {
            let touched = touched(&self.view, Vec::new(), true, Some(word), store).await?;
            let after = json!({ "wanted_version": touched.recache_version });
            Ok((touched, after))
        })
        .await?;
        print_touched(&self.view, &touched, context)
    }
}

impl Rollback {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        held::check_version(&self.view, self.to, store, context).await?;
        let (view, word) = (self.view.in_store(), self.why.word(context));
        let deed = deed("views.rollback", &self.view, word.clone());
        let restored = audited(store, deed, &stands(&self.view, store).await?, async {
            let restored = store.view_control().view_restore(view.clone(), self.to, word).await?;
            let after = json!({ "paused": true, "live_version": restored.version });
            Ok((restored, after))
        })
        .await?;
        print_restored(&self.view, self.to, &output::view_restored(&view, self.to, &restored), context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let to = RollBackView { to_version: self.to, reason: self.why.asked()?.reason };
        let restored = client.roll_view_back(&self.view.namespace, &self.view.key, &to).await?;
        print_restored(&self.view, self.to, &restored, context)
    }
}

fn print_restored(view: &ViewName, to: i64, restored: &ViewRestored, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(restored)?,
        Format::Table => {
            context.print_text(&format!(
                "{}: version {} is live with the content of {}: {} items changed, {} removed\n",
                view, restored.version, to, restored.items_changed, restored.items_removed
            ))?;
            if let Some(job) = &restored.superseded_job_id {
                context.note(&format!("the running build {job} is superseded"))?;
            }
            context.note(&format!("it is paused now; `recache view resume {view}` lets it build again"))?;
        }
    }
    Ok(ExitStatus::Ok)
}

impl Delete {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let because = self.why.asked()?;
        if is_pattern(&self.view.key) {
            client.delete_view_pattern(&self.view.namespace, &self.view.key, &because).await?;
        } else {
            client.delete_view(&self.view.namespace, &self.view.key, &because).await?;
        }
        changed(self.view, true, ("deleted", ""), context)
    }

    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let word = self.why.word(context);
        if is_pattern(&self.view.key) {
            let deed = deed("view_patterns.delete", &self.view, word);
            audited(store, deed, &json!({ "deleted": false }), async {
                store.view_patterns().pattern_delete(&self.view.namespace, &self.view.key).await?;
                Ok(((), json!({ "deleted": true })))
            })
            .await?;
        } else {
            let deed = deed("views.delete", &self.view, word.clone());
            audited(store, deed, &stands(&self.view, store).await?, async {
                store.view_control().view_delete(self.view.in_store(), word).await?;
                Ok(((), json!({ "deleted": true })))
            })
            .await?;
        }
        changed(self.view, true, ("deleted", ""), context)
    }
}
