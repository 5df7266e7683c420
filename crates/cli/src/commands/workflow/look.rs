//! Looking at workflows.

use recache_api::client::{Client, WorkflowsQuery};
use recache_api::{JobError, WorkflowDetails, WorkflowList};
use recache_model::ids::WorkflowId;
use recache_model::workflow::WorkflowState;
use recache_store::{Store, WorkflowFilter};

use super::super::job::{error_text, state};
use super::super::{Context, Outcome, page};
use crate::cli_error::ExitStatus;
use crate::output::{self, Format, Tone};

/// List workflows, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache workflow list --state failed --limit 10
  recache workflow list --template order -o jsonl")]
pub(super) struct List {
    /// Only in this state: running, completed, failed or cancelled
    #[arg(long)]
    state: Option<WorkflowState>,
    /// Only of templates of this name
    #[arg(long)]
    template: Option<String>,
    /// Only of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// At most so many, 1 to 1000
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only older than this workflow: the last one of the page before
    #[arg(long, value_name = "ID")]
    before: Option<WorkflowId>,
}

/// Show a workflow, its steps, and what it was told
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache workflow show wf_0190c7a2-7b5e-7000-8000-000000000001")]
pub(super) struct Show {
    /// The workflow
    id: WorkflowId,
}

const LIST: [&str; 8] = ["ID", "STATE", "TEMPLATE", "NAMESPACE", "DONE", "FAILED", "CREATED", "FINISHED"];

fn toned(state: &str) -> (String, Tone) {
    let tone = match state {
        "running" => Tone::Active,
        "completed" => Tone::Good,
        "failed" => Tone::Bad,
        _ => Tone::Doubtful,
    };
    (state.to_owned(), tone)
}

/// Steps whose passed limits are shown.
const LIMITS_MAX: u32 = 1_000;

impl List {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let filter = WorkflowFilter {
            namespace: self.namespace,
            state: self.state,
            template: self.template,
            before: self.before,
            rows_max: page::rows_max(self.limit),
        };
        let found = store.flows().workflows_list(filter).await?;
        let mut workflows: Vec<_> = found.into_iter().map(output::workflow).collect();
        let next = page::cut_at(&mut workflows, self.limit, |workflow| &workflow.id);
        print_list(WorkflowList::new(workflows, next), context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let query = WorkflowsQuery {
            namespace: self.namespace,
            state: self.state.map(|state| state.as_str().to_owned()),
            template: self.template,
            limit: Some(self.limit),
            before: self.before.map(|id| id.to_string()),
            cursor: None,
        };
        let mut list = client.workflows(&query).await?;
        list.next = list.next.and(list.workflows.last().map(|last| last.id.clone()));
        print_list(list, context)
    }
}

fn print_list(list: WorkflowList, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(&list)?,
        Format::Jsonl => context.print_lines(&list.workflows)?,
        Format::Table => {
            if list.workflows.is_empty() {
                context.note("no workflows")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table = context.table(LIST).leaving_out(&["NAMESPACE", "FINISHED", "CREATED", "FAILED"]);
            for workflow in list.workflows {
                let plain = |text| (text, Tone::Plain);
                let steps = workflow.steps;
                let total = steps.blocked + steps.active + steps.done + steps.failed + steps.cancelled;
                table.toned([
                    plain(workflow.id),
                    toned(&workflow.state),
                    plain(format!("{} {}", workflow.template, workflow.version)),
                    plain(workflow.namespace),
                    plain(format!("{}/{total}", steps.done)),
                    plain(steps.failed.to_string()),
                    plain(output::instant(workflow.created_at)),
                    plain(workflow.finished_at.map(output::instant).unwrap_or_default()),
                ]);
            }
            context.print_text(&table.text())?;
            if let Some(next) = list.next {
                context.note(&format!("there are more: --before {next}"))?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}

impl Show {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let record = store.workflow_get(self.id).await?;
        let steps = store.workflow_steps(self.id).await?.into_iter().map(output::workflow_step).collect();
        let signals = store.flows().signals_list(self.id).await?;
        let signals = signals.into_iter().map(output::workflow_signal).collect();
        let limits = store.flows().limits_list(self.id, true, LIMITS_MAX).await?;
        let limits = limits.iter().flat_map(output::passed_limits).collect();
        let input = output::json_text(&record.input);
        let details =
            WorkflowDetails::new(output::workflow(record), input, steps, signals).with_limits(limits);
        print_details(&details, context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        print_details(&client.workflow(&self.id.to_string(), None).await?, context)
    }
}

fn print_details(details: &WorkflowDetails, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(details)?,
        Format::Table => {
            let text = text(details, context);
            context.print_text(&text)?;
        }
    }
    Ok(ExitStatus::Ok)
}

fn text(details: &WorkflowDetails, context: &Context<'_>) -> String {
    let workflow = &details.workflow;
    let mut facts = context.table(["", ""]);
    let mut fact = |name: &str, value: String| facts.row([name.to_owned(), value]);
    fact("workflow", workflow.id.clone());
    fact("state", workflow.state.clone());
    fact("template", format!("{}/{} {}", workflow.namespace, workflow.template, workflow.version));
    if let Some(environment) = &workflow.environment {
        fact("environment", environment.clone());
    }
    if let Some(step) = &workflow.parent_step {
        fact("does", step.clone());
    }
    fact("created", output::instant(workflow.created_at));
    if let Some(at) = workflow.finished_at {
        fact("finished", output::instant(at));
    }
    fact("input", details.input.text().to_owned());
    let mut steps = context.table(["STEP", "STATE", "HANDLER", "ATTEMPT", "WAITS FOR", "WHY"]);
    for step in &details.steps {
        let plain = |text: String| (text, Tone::Plain);
        let why = match (&step.error, &step.message) {
            (Some(error), _) => why(error),
            (None, Some(message)) => message.clone(),
            (None, None) => step.sub_workflow.clone().unwrap_or_default(),
        };
        steps.toned([
            plain(step.name.clone()),
            state(step.state),
            plain(step.handler.clone()),
            plain(step.attempt.to_string()),
            plain(step.waits_for.join(", ")),
            plain(why),
        ]);
    }
    let mut text = format!("{}\n{}", facts.text(), steps.text());
    if !details.signals.is_empty() {
        let mut told = context.table(["TOLD AT", "KIND", "NAME", "BY", "PAYLOAD"]);
        for signal in &details.signals {
            told.row([
                output::instant(signal.received_at),
                signal.kind.clone(),
                signal.name.clone(),
                signal.actor.clone(),
                signal.payload.text().to_owned(),
            ]);
        }
        text = format!("{text}\n{}", told.text());
    }
    if !details.limits.is_empty() {
        let mut passed = context.table(["LIMIT PASSED", "ALLOWS", "STEP"]);
        for limit in &details.limits {
            let step = limit.step.clone().unwrap_or_else(|| "the workflow".to_owned());
            passed.row([limit.limit.clone(), format!("{} min", limit.minutes), step]);
        }
        text = format!("{text}\n{}", passed.text());
    }
    text
}

fn why(error: &JobError) -> String {
    error_text(error)
}
