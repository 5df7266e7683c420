//! `recache view explain`: why a view is behind, and what it waits for.

use recache_api::ViewExplanation;
use recache_model::view_wait::{ViewWait, wait_of};
use recache_store::{Error, Store, ViewRecord};

use super::name::ViewName;
use super::{Context, Outcome};
use crate::cli_error::ExitStatus;
use crate::output::{self, Format};

/// Say why a view is behind, what will build it and what that waits for
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache view explain shop/prices")]
pub(super) struct Explain {
    /// The view
    #[arg(value_name = "NAMESPACE/KEY")]
    view: ViewName,
}

impl Explain {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let record = store.view_get(&self.view.namespace, &self.view.key).await?;
        let build = match record.build {
            Some(job) => Some(store.job_get(job).await?),
            None => None,
        };
        let now = store.now().await?;
        let wait = wait_of(&record.versions, build.as_ref().map(|job| (job.state, job.due_at)), now);
        let paused = match store.queues().queue_get(&record.definition.queue).await {
            Ok(queue) => queue.pause.map(|pause| format!("{}: {}", pause.word.actor, pause.word.reason)),
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let name = recache_store::ViewName::new(&self.view.namespace, &self.view.key);
        let neighbours = store.chains().view_neighbours(name).await?;
        let (reason, remedy) = self.words(&record, wait, paused.as_deref());
        let until = match wait {
            ViewWait::Debounce { until } => Some(until),
            ViewWait::Retry { at } => Some(at),
            _ => None,
        };
        let versions = &record.versions;
        let explanation = ViewExplanation {
            schema: ViewExplanation::SCHEMA.to_owned(),
            namespace: self.view.namespace.clone(),
            key: self.view.key.clone(),
            live_version: versions.live,
            recache_version: versions.wanted,
            staleness_ms: output::ms(versions.staleness(now)),
            waits_for: wait.as_str().to_owned(),
            until: until.map(output::timestamp),
            build_job_id: record.build.map(|job| job.to_string()),
            reason,
            remedy,
            derived_from: neighbours.above.iter().map(ToString::to_string).collect(),
            feeds: neighbours.below.iter().map(ToString::to_string).collect(),
        };
        if context.format() != Format::Table {
            context.print(&explanation)?;
            return Ok(ExitStatus::Ok);
        }
        let mut table = context.table(["", ""]);
        let mut fact = |name: &str, value: String| table.row([name.to_owned(), value]);
        fact("view", self.view.to_string());
        let (live, wanted) = (explanation.live_version, explanation.recache_version);
        fact("live", if live == 0 { "no version yet".to_owned() } else { format!("version {live}") });
        fact("wanted", format!("version {wanted}"));
        if explanation.staleness_ms > 0 {
            fact("behind for", output::duration(explanation.staleness_ms));
        }
        fact("why", explanation.reason);
        if let Some(until) = explanation.until {
            fact("until", output::instant(until));
        }
        if let Some(job) = explanation.build_job_id {
            fact("build", job);
        }
        for (name, views) in [("made from", &explanation.derived_from), ("feeds", &explanation.feeds)] {
            if !views.is_empty() {
                fact(name, views.join(", "));
            }
        }
        if let Some(remedy) = explanation.remedy {
            fact("to act", remedy);
        }
        let text = table.text();
        context.print_text(&text)?;
        Ok(ExitStatus::Ok)
    }

    /// Why it is where it is, and the one command that would help, where one would.
    fn words(&self, record: &ViewRecord, wait: ViewWait, paused: Option<&str>) -> (String, Option<String>) {
        let (view, definition) = (&self.view, &record.definition);
        let now = || Some(format!("recache view touch {view} --now"));
        let worker = format!("a worker of queue `{}` that knows `{}`", definition.queue, definition.handler);
        match wait {
            ViewWait::Untouched => ("nothing was ever touched".to_owned(), now()),
            ViewWait::Nothing => ("the newest version is live".to_owned(), None),
            ViewWait::Debounce { .. } => {
                let quiet = output::duration(definition.policy.debounce_quiet_ms);
                (format!("further touches may come: it is built when none came for {quiet}"), now())
            }
            ViewWait::Reconciler => {
                let why = "it is due, and the next engine that looks at views creates its build job";
                (why.to_owned(), Some("run a worker or a server, if none runs: recache serve".to_owned()))
            }
            ViewWait::Worker => match paused {
                Some(why) => (
                    format!("its build is queued, and queue `{}` is paused by {why}", definition.queue),
                    Some(format!("recache queue resume {}", definition.queue)),
                ),
                None => (format!("its build is queued and waits for {worker}"), None),
            },
            ViewWait::Retry { .. } => {
                let error = record.last_error.as_deref().unwrap_or("see its job");
                (format!("its build failed and is tried again: {error}"), None)
            }
            ViewWait::Build { version, is_overtaken } => {
                let next = if is_overtaken { "; a newer one is wanted already and built next" } else { "" };
                (format!("version {version} is being built{next}"), None)
            }
            ViewWait::Touch => {
                let error = record.last_error.as_deref().unwrap_or("no reason was kept");
                (format!("the newest version could not be built: {error}"), now())
            }
        }
    }
}
