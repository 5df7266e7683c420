//! Changing workflows.

use std::sync::Arc;

use recache_api::client::Client;
use recache_api::{
    CompleteStep, Json, ResolveStep, RetryMode, RetryWorkflow, SendSignal, SubmitWorkflow, WorkflowChange,
};
use recache_engine::Engine;
use recache_model::ids::{BatchId, WorkflowId};
use recache_model::template::Template;
use recache_model::time::Timestamp;
use recache_store::{SignalKind, SignalRecord, Store, Word};
use serde_json::{Value, json as value};

use super::super::against::{because, no_actor};
use super::super::audited::{Deed, audited};
use super::super::{Context, Failure, Outcome};
use crate::cli_error::{CliError, ExitStatus};
use crate::output::Format;
use crate::run::read_input;

#[derive(Debug, clap::Args)]
struct By {
    /// Why; kept in the step's history
    #[arg(long)]
    reason: String,
    /// Who says so [default: the user who runs the command]
    #[arg(long)]
    actor: Option<String>,
}

/// JSON as it is sent.
fn json(text: Option<&str>) -> Result<Json, Failure> {
    let text = read_input(text)?.to_string();
    Ok(Json::from_text(&text).unwrap_or_else(|_| Json::null()))
}

impl By {
    /// The reason as it is sent.
    fn asked(self) -> Result<Option<String>, Failure> {
        no_actor(self.actor.as_deref())?;
        Ok(Some(self.reason))
    }

    fn word(&self, context: &Context<'_>) -> Word {
        Word::new(context.actor(self.actor.as_deref()), self.reason.clone())
    }
}

/// Submit a workflow of a stored template, for workers to run
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache workflow submit shop/order --input '{\"id\":7}'
  recache workflow submit order --version 1.2.0 --environment production --input @order.json

Store templates with `recache template apply`. To run one here and now:
recache run FILE")]
pub(super) struct Submit {
    /// The template: NAME, or NAMESPACE/NAME
    template: String,
    /// This version [default: the newest]
    #[arg(long)]
    version: Option<String>,
    /// Apply the overlays of this environment
    #[arg(long)]
    environment: Option<String>,
    /// The input as JSON, @FILE or - for stdin [default: {}]
    #[arg(long, value_name = "JSON")]
    input: Option<String>,
    /// Make it a member of this batch
    #[arg(long, value_name = "ID")]
    batch: Option<BatchId>,
}

/// Cancel a workflow, with the workflows that do its steps
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache workflow cancel wf_0190c7a2-7b5e-7000-8000-000000000001 --reason \"wrong order\"

All steps end in one transaction; running handlers are told to stop.")]
pub(super) struct Cancel {
    /// The workflow
    id: WorkflowId,
    /// Why; kept in the steps' history
    #[arg(long, default_value = "cancelled from the command line")]
    reason: String,
}

/// Run the failed steps of a workflow again, or all of it anew
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache workflow retry wf_0190c7a2-7b5e-7000-8000-000000000001 --reason mended
  recache workflow retry wf_0190c7a2-7b5e-7000-8000-000000000001 --downstream --reason mended
  recache workflow retry wf_0190c7a2-7b5e-7000-8000-000000000001 --all --reason again

Steps that a failed one held up follow by themselves. --all submits a new workflow
of the same template, environment and input; the old one stays as it is.
--downstream likewise, but only what failed and all that stands behind it runs:
the other steps keep the results that they have.")]
pub(super) struct Retry {
    /// The workflow
    id: WorkflowId,
    /// All of it, as a new workflow
    #[arg(long)]
    all: bool,
    /// The failed steps and all that stands behind them, as a new workflow
    #[arg(long, conflicts_with = "all")]
    downstream: bool,
    #[command(flatten)]
    by: By,
}

/// Tell a workflow something that a step of it waits for
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache workflow signal wf_0190c7a2-7b5e-7000-8000-000000000001 paid \\
      --payload '{\"sum\":7}'

It is kept if no step waits for it yet. Telling it again changes nothing.")]
pub(super) struct Signal {
    /// The workflow
    id: WorkflowId,
    /// The signal's name
    name: String,
    /// What comes with it, as JSON, @FILE or - for stdin [default: {}]
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// Who says so [default: the user who runs the command]
    #[arg(long)]
    actor: Option<String>,
}

/// Give an approval that a step of a workflow waits for
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache workflow approve wf_0190c7a2-7b5e-7000-8000-000000000001 boss

It is kept if no step waits for it yet. Giving it again changes nothing.")]
pub(super) struct Approve {
    #[command(flatten)]
    signal: Signal,
}

/// Complete a step that has not ended, in place of its handler
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache workflow complete wf_0190c7a2-7b5e-7000-8000-000000000001 fetch \\
      --result '{\"rows\":3}' --reason \"done by hand\"

The result must fit the step's `result_schema`. A running handler is told to stop.")]
pub(super) struct Complete {
    /// The workflow
    id: WorkflowId,
    /// The step
    step: String,
    /// Its result, as JSON, @FILE or - for stdin [default: {}]
    #[arg(long, value_name = "JSON")]
    result: Option<String>,
    #[command(flatten)]
    by: By,
}

/// Declare a failed step settled, so that what waits for it goes on
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache workflow resolve wf_0190c7a2-7b5e-7000-8000-000000000001 fetch \\
      --reason \"not needed\"

Without --result what waits for it sees none; a decision has then chosen nothing.")]
pub(super) struct Resolve {
    /// The workflow
    id: WorkflowId,
    /// The step
    step: String,
    /// A result for it, as JSON, @FILE or - for stdin
    #[arg(long, value_name = "JSON")]
    result: Option<String>,
    #[command(flatten)]
    by: By,
}

impl Submit {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let (namespace, name) = self.template.split_once('/').unwrap_or(("default", &self.template));
        let workflow = SubmitWorkflow {
            template: name.to_owned(),
            namespace: namespace.to_owned(),
            version: self.version,
            environment: self.environment,
            input: json(self.input.as_deref())?,
            batch_id: self.batch.map(|id| id.to_string()),
        };
        said(&client.submit_workflow(&workflow, None).await?, context)
    }

    pub(super) async fn run(self, store: &Arc<dyn Store>, context: &mut Context<'_>) -> Outcome {
        let input = read_input(self.input.as_deref())?;
        let (namespace, name) = self.template.split_once('/').unwrap_or(("default", &self.template));
        let record = store.template_find(namespace, name, self.version.as_deref()).await?;
        let template = Template::from_canonical_json(&record.content).map_err(|problems| {
            CliError::new("E-TEMPLATE", ExitStatus::Failed, format!("the stored template: {problems}"))
        })?;
        let environment = self.environment;
        let id = with_engine(store, async |engine| {
            let (id, environment) = (WorkflowId::make(), environment.as_deref());
            match self.batch {
                None => engine.submit_workflow_in(id, &template, environment, &input).await,
                Some(batch) => engine
                    .submit_workflow_to(batch, id, &template, environment, &input, None)
                    .await
                    .map(|_| id),
            }
        })
        .await?;
        said(&WorkflowChange::new(id.to_string(), "submitted", None, 1), context)
    }
}

impl Cancel {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        said(&client.cancel_workflow(&self.id.to_string(), &because(self.reason)).await?, context)
    }

    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let before = store.workflow_get(self.id).await?;
        let word = Word::new(context.actor(None), self.reason.clone());
        let deed = Deed::new("workflows.cancel", self.id.to_string(), word).of(&before.namespace);
        let count = audited(store, deed, &value!({ "state": before.state.as_str() }), async {
            store.workflow_cancel(self.id, &self.reason).await?;
            let after = store.workflow_get(self.id).await?;
            let count = u64::try_from(after.counts.cancelled - before.counts.cancelled).unwrap_or(0);
            Ok((count, value!({ "state": after.state.as_str() })))
        })
        .await?;
        said(&WorkflowChange::new(self.id.to_string(), "cancelled", None, count), context)
    }
}

impl Retry {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let mode = match (self.all, self.downstream) {
            (true, _) => RetryMode::All,
            (false, true) => RetryMode::Downstream,
            (false, false) => RetryMode::Failed,
        };
        let retry = RetryWorkflow { mode, reason: self.by.asked()? };
        said(&client.retry_workflow(&self.id.to_string(), &retry).await?, context)
    }

    pub(super) async fn run(self, store: &Arc<dyn Store>, context: &mut Context<'_>) -> Outcome {
        let word = self.by.word(context);
        let (before, deed) = stands("workflows.retry", self.id, &**store, word.clone()).await?;
        let change = audited(&**store, deed, &before, async {
            let change = if self.all {
                let id = with_engine(store, async |engine| engine.run_again(self.id).await).await?;
                WorkflowChange::new(id.to_string(), "run_again", None, 1)
            } else if self.downstream {
                let id = with_engine(store, async |engine| engine.run_failed_again(self.id).await).await?;
                WorkflowChange::new(id.to_string(), "run_failed_again", None, 1)
            } else {
                let count = store.flows().workflow_retry_failed(self.id, word).await?;
                WorkflowChange::new(self.id.to_string(), "retried", None, count)
            };
            let after = value!({ "change": change.change, "count": change.count });
            Ok((change, after))
        })
        .await?;
        said(&change, context)
    }
}

impl Signal {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let (id, signal) = self.asked()?;
        said(&client.signal_workflow(&id, &signal).await?, context)
    }

    fn asked(self) -> Result<(String, SendSignal), Failure> {
        no_actor(self.actor.as_deref())?;
        let payload = json(self.payload.as_deref())?;
        Ok((self.id.to_string(), SendSignal { name: self.name, payload }))
    }

    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        self.send(SignalKind::Signal, store, context).await
    }

    async fn send(self, kind: SignalKind, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let payload = read_input(self.payload.as_deref())?;
        let actor = context.actor(self.actor.as_deref());
        let word = Word::new(actor.clone(), format!("approval `{}`", self.name));
        let signal = SignalRecord {
            kind,
            name: self.name,
            payload: payload.to_string(),
            actor,
            received_at: Timestamp::from_micros(0),
        };
        let sending = store.flows().signal_send(self.id, signal);
        // To approve is an operator's word; a signal is what programs say.
        let is_new = if kind == SignalKind::Approval {
            let (before, deed) = stands("workflows.approve", self.id, store, word).await?;
            audited(store, deed, &before, async {
                let is_new = sending.await?;
                Ok((is_new, value!({ "count": u64::from(is_new) })))
            })
            .await?
        } else {
            sending.await?
        };
        said(&WorkflowChange::new(self.id.to_string(), "told", None, u64::from(is_new)), context)
    }
}

impl Approve {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let (id, approval) = self.signal.asked()?;
        said(&client.approve_workflow(&id, &approval).await?, context)
    }

    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        self.signal.send(SignalKind::Approval, store, context).await
    }
}

impl Complete {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let result = CompleteStep { result: json(self.result.as_deref())?, reason: self.by.asked()? };
        said(&client.complete_step(&self.id.to_string(), &self.step, &result).await?, context)
    }

    pub(super) async fn run(self, store: &Arc<dyn Store>, context: &mut Context<'_>) -> Outcome {
        let result = read_input(self.result.as_deref())?;
        let word = self.by.word(context);
        let (before, deed) = stands("workflows.complete_step", self.id, &**store, word.clone()).await?;
        audited(&**store, deed, &before, async {
            with_engine(store, async |engine| {
                engine.complete_step(self.id, &self.step, &result, word.clone()).await
            })
            .await?;
            Ok(((), value!({ "step": self.step, "completed": true })))
        })
        .await?;
        said(&WorkflowChange::new(self.id.to_string(), "completed", Some(self.step), 1), context)
    }
}

impl Resolve {
    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let result = self.result.as_deref().map(|given| json(Some(given))).transpose()?;
        let word = ResolveStep { result, reason: self.by.asked()? };
        said(&client.resolve_step(&self.id.to_string(), &self.step, &word).await?, context)
    }

    pub(super) async fn run(self, store: &Arc<dyn Store>, context: &mut Context<'_>) -> Outcome {
        let result: Option<Value> =
            self.result.as_deref().map(|given| read_input(Some(given))).transpose()?;
        let word = self.by.word(context);
        let (before, deed) = stands("workflows.resolve_step", self.id, &**store, word.clone()).await?;
        audited(&**store, deed, &before, async {
            with_engine(store, async |engine| {
                engine.resolve_step(self.id, &self.step, result.as_ref(), word.clone()).await
            })
            .await?;
            Ok(((), value!({ "step": self.step, "resolved": true })))
        })
        .await?;
        said(&WorkflowChange::new(self.id.to_string(), "resolved", Some(self.step), 1), context)
    }
}

/// How a workflow stands, as the audit keeps it, and what is about to be done to it.
async fn stands(
    action: &'static str,
    id: WorkflowId,
    store: &dyn Store,
    word: Word,
) -> Result<(Value, Deed), Failure> {
    let record = store.workflow_get(id).await?;
    let deed = Deed::new(action, id.to_string(), word).of(&record.namespace);
    Ok((value!({ "state": record.state.as_str() }), deed))
}

/// Does something that only an engine can judge, with one that runs no handlers.
async fn with_engine<T>(
    store: &Arc<dyn Store>,
    act: impl AsyncFnOnce(&Engine) -> recache_engine::Result<T>,
) -> Result<T, Failure> {
    let engine = Engine::builder(Arc::clone(store)).start().await.map_err(|error| told(&error))?;
    let done = act(&engine).await;
    engine.shut_down().await;
    done.map_err(|error| match error {
        recache_engine::Error::Store(error) => error.into(),
        other => told(&other).into(),
    })
}

fn told(error: &recache_engine::Error) -> CliError {
    CliError::new("E-WORKFLOW", ExitStatus::Failed, error.to_string())
}

fn said(change: &WorkflowChange, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(change)?,
        Format::Table => {
            let id = &change.id;
            let text = match (change.change.as_str(), change.count, &change.step) {
                ("submitted", ..) => format!("{id} submitted\n"),
                ("run_again", ..) => format!("{id} submitted anew\n"),
                ("run_failed_again", ..) => format!("{id} submitted anew, with the results that stand\n"),
                ("told", 0, _) => format!("{id} was told that before\n"),
                ("told", ..) => format!("{id} was told\n"),
                (what, _, Some(step)) => format!("{id}: step `{step}` {what}\n"),
                (what, count, None) => format!("{id}: {count} steps {what}\n"),
            };
            context.print_text(&text)?;
        }
    }
    Ok(ExitStatus::Ok)
}
