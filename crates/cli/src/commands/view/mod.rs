//! `recache view`: define views, touch them, look at them, read their items, keep them in hand.

mod control;
mod define;
mod derive;
mod explain;
mod get;
mod held;
mod history;
mod items;
mod least;
mod list;
mod pattern;

use clap::Subcommand;
use recache_api::client::Client;
use recache_api::{Generation, TouchMatching, TouchView, Touched, View, ViewDetails, ViewItems, ViewStatus};
use recache_model::view_pattern::is_pattern;
use recache_store::{Store, Touch, Word};

use super::against::{Against, no_actor};
use super::name::ViewName;
use control::{Delete, Pause, Rebuild, Resume, Rollback};
use define::Define;
use derive::Derive;
use explain::Explain;
use get::Get;
use history::{Diff, History};
use items::Items;
use list::List;
use pattern::Patterns;

use super::{Context, Outcome};
use crate::cli_error::{CliError, ExitStatus};
use crate::output::{self, Format, Table};

/// Define views, touch them, look at them, read their items, pause them, take them back
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache view touch shop/prices --item sku-1
  recache view get shop/prices sku-1 --min-version 7"
)]
pub(crate) struct Args {
    #[command(flatten)]
    against: Against,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Define(Box<Define>),
    List(List),
    Patterns(Patterns),
    Touch(TouchArgs),
    Rebuild(Rebuild),
    Show(Show),
    Explain(Explain),
    History(History),
    Derive(Derive),
    Items(Items),
    Get(Get),
    Pause(Pause),
    Resume(Resume),
    Diff(Diff),
    Rollback(Rollback),
    Delete(Delete),
}

/// Say that a view's inputs changed
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache view touch shop/prices
  recache view touch shop/prices --item sku-1 --item sku-2 --now
  recache view touch 'shop/alliance/*'

With a `*`, which stands for any text, every view is touched that is there and
whose key matches, in steps of 500.")]
struct TouchArgs {
    /// The view, or a pattern of views
    #[arg(value_name = "NAMESPACE/KEY")]
    view: ViewName,
    /// An item that is affected; repeat it for more. Without it, any may be
    #[arg(long = "item", value_name = "ITEM")]
    items: Vec<String>,
    /// Build at once, without debounce
    #[arg(long)]
    now: bool,
    /// Why; shown with the view until its next touch
    #[arg(long)]
    reason: Option<String>,
    /// Who says so [default: the user who runs the command]
    #[arg(long, requires = "reason")]
    actor: Option<String>,
}

/// Show a view: versions, status, policy, build, generations
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache view show shop/prices")]
struct Show {
    /// The view
    #[arg(value_name = "NAMESPACE/KEY")]
    view: ViewName,
    /// How many of the last generations to show, 0 to 1000
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
    generations: u32,
}

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        if let Some(client) = self.against.client(context)? {
            return match self.verb {
                Verb::List(arguments) => arguments.ask(&client, context).await,
                Verb::Patterns(arguments) => arguments.ask(&client, context).await,
                Verb::Touch(arguments) => arguments.ask(&client, context).await,
                Verb::Show(arguments) => arguments.ask(&client, context).await,
                Verb::History(arguments) => arguments.ask(&client, context).await,
                Verb::Get(arguments) => arguments.ask(&client, context).await,
                Verb::Define(arguments) => arguments.ask(&client, context).await,
                Verb::Rebuild(arguments) => arguments.ask(&client, context).await,
                Verb::Explain(arguments) => arguments.ask(&client, context).await,
                Verb::Derive(arguments) => arguments.ask(&client, context).await,
                Verb::Items(arguments) => arguments.ask(&client, context).await,
                Verb::Pause(arguments) => arguments.ask(&client, context).await,
                Verb::Resume(arguments) => arguments.ask(&client, context).await,
                Verb::Diff(arguments) => arguments.ask(&client, context).await,
                Verb::Rollback(arguments) => arguments.ask(&client, context).await,
                Verb::Delete(arguments) => arguments.ask(&client, context).await,
            };
        }
        let store = context.open().await?;
        let outcome = match self.verb {
            Verb::Define(arguments) => arguments.run(&*store, context).await,
            Verb::List(arguments) => arguments.run(&*store, context).await,
            Verb::Patterns(arguments) => arguments.run(&*store, context).await,
            Verb::Touch(arguments) => arguments.run(&*store, context).await,
            Verb::Rebuild(arguments) => arguments.run(&*store, context).await,
            Verb::Show(arguments) => arguments.run(&*store, context).await,
            Verb::Explain(arguments) => arguments.run(&*store, context).await,
            Verb::History(arguments) => arguments.run(&*store, context).await,
            Verb::Derive(arguments) => arguments.run(&*store, context).await,
            Verb::Items(arguments) => arguments.run(&*store, context).await,
            Verb::Get(arguments) => arguments.run(&*store, context).await,
            Verb::Pause(arguments) => arguments.run(&*store, context).await,
            Verb::Resume(arguments) => arguments.run(&*store, context).await,
            Verb::Diff(arguments) => arguments.run(&*store, context).await,
            Verb::Rollback(arguments) => arguments.run(&*store, context).await,
            Verb::Delete(arguments) => arguments.run(&*store, context).await,
        };
        store.close().await;
        outcome
    }
}

impl TouchArgs {
    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        no_actor(self.actor.as_deref())?;
        if is_pattern(&self.view.key) {
            self.check_pattern()?;
            let touch = TouchMatching { items: self.items, reason: self.reason };
            return pattern::ask_touch(&self.view, &touch, client, context).await;
        }
        let ViewName { namespace, key } = &self.view;
        let touch = TouchView { items: self.items, at_once: self.now, reason: self.reason };
        let touched = client.touch_view(namespace, key, &touch).await?;
        print_touched(&self.view, &touched, context)
    }

    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        if is_pattern(&self.view.key) {
            self.check_pattern()?;
        }
        let word = self.reason.map(|reason| Word::new(context.actor(self.actor.as_deref()), reason));
        if is_pattern(&self.view.key) {
            return pattern::touch(&self.view, self.items, word, store, context).await;
        }
        touch(&self.view, self.items, self.now, word, store, context).await
    }

    fn check_pattern(&self) -> Result<(), CliError> {
        if !self.now {
            return Ok(());
        }
        let what = "many views are not built at once: their debounce spreads the load";
        Err(CliError::new("E-USAGE", ExitStatus::Usage, what).at("--now").help("leave --now out"))
    }
}

/// Touches a view and says what that did.
async fn touch(
    view: &ViewName,
    items: Vec<String>,
    at_once: bool,
    word: Option<Word>,
    store: &dyn Store,
    context: &mut Context<'_>,
) -> Outcome {
    let touched = touched(view, items, at_once, word, store).await?;
    print_touched(view, &touched, context)
}

async fn touched(
    view: &ViewName,
    items: Vec<String>,
    at_once: bool,
    word: Option<Word>,
    store: &dyn Store,
) -> super::failure::Result<Touched> {
    let ViewName { namespace, key } = view.clone();
    let touch =
        Touch { namespace: namespace.clone(), key: key.clone(), items, at_once, word, ..Touch::default() };
    let outcomes = store.views_touch(vec![touch]).await?;
    let outcome = outcomes
        .first()
        .ok_or_else(|| CliError::new("E-BROKEN", ExitStatus::Failed, "the store did not answer the touch"))?;
    Ok(output::touched(namespace, key, outcome))
}

fn print_touched(view: &ViewName, touched: &Touched, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(touched)?,
        Format::Table => {
            context.print_text(&format!("{view}: version {} wanted\n", touched.recache_version))?;
            if let Some(job) = &touched.superseded_job_id {
                context.note(&format!("the running build {job} is superseded"))?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}

impl Show {
    async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let record = store.view_get(&self.view.namespace, &self.view.key).await?;
        let generations = store.generations_list(record.id, self.generations).await?;
        let build = match record.build {
            Some(job) => Some(output::job(store.job_get(job).await?)),
            None => None,
        };
        let view = output::view(record, store.now().await?);
        let generations: Vec<Generation> = generations.iter().map(output::generation).collect();
        print_details(ViewDetails::new(view, build, generations), context)
    }

    /// The server shows no more than so many generations.
    async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let mut details = client.view(&self.view.namespace, &self.view.key).await?;
        let wanted = usize::try_from(self.generations).unwrap_or(usize::MAX);
        if wanted > GENERATIONS_OF_SERVER && details.generations.len() >= GENERATIONS_OF_SERVER {
            context.note(&format!("a server shows the last {GENERATIONS_OF_SERVER} generations"))?;
        }
        details.generations.truncate(wanted);
        print_details(details, context)
    }
}

/// Generations that a server shows with a view.
const GENERATIONS_OF_SERVER: usize = 10;

fn print_details(details: ViewDetails, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(&details)?,
        Format::Table => {
            let ViewDetails { view, build, generations, .. } = details;
            let mut text = facts(&view, context.table(["", ""]));
            if let Some(build) = &build {
                let mut table = context.table(["BUILD", "STATE", "VERSION", "ATTEMPT", "PROGRESS"]);
                table = table.leaving_out(&["ATTEMPT"]);
                table.row([
                    build.id.clone(),
                    serde_json::to_value(build.state).map_or_else(|_| String::new(), word),
                    build.view_version.map(|version| version.to_string()).unwrap_or_default(),
                    format!("{}/{}", build.attempt, build.attempts_max),
                    build.progress.map(|done| format!("{:.0} %", done * 100.0)).unwrap_or_default(),
                ]);
                text.push('\n');
                text.push_str(&table.text());
            }
            if !generations.is_empty() {
                text.push('\n');
                text.push_str(&generation_rows(generations, context.table(GENERATIONS)));
            }
            context.print_text(&text)?;
        }
    }
    Ok(ExitStatus::Ok)
}

/// Which generation was read, and how far behind it is.
fn standing(read: &ViewItems) -> String {
    let name = format!("{}/{}", read.namespace, read.key);
    if read.version == 0 {
        format!("{name}: nothing is published yet")
    } else if !read.stale {
        format!("{name}: version {}, up to date", read.version)
    } else {
        format!(
            "{name}: version {}, {} behind version {}",
            read.version,
            output::duration(read.staleness_ms),
            read.recache_version
        )
    }
}

/// The wire's word for an enum.
fn word(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(word) => word,
        other => other.to_string(),
    }
}

fn facts(view: &View, mut table: Table) -> String {
    let mut fact = |name: &str, value: String| table.row([name.to_owned(), value]);
    fact("view", format!("{}/{}", view.namespace, view.key));
    fact("id", view.id.clone());
    fact("status", serde_json::to_value(view.recache_status).map_or_else(|_| String::new(), word));
    fact("wanted version", view.recache_version.to_string());
    if let Some(version) = view.processing_version {
        fact("being built", version.to_string());
    }
    fact("live version", view.live_version.to_string());
    let behind = match (view.staleness_ms, view.recache_status) {
        (0, ViewStatus::Idle) => "never touched".to_owned(),
        (0, _) => "none".to_owned(),
        (ms, _) => output::duration(ms),
    };
    fact("staleness", behind);
    for (name, at) in
        [("touched", view.touched_at), ("next build due", view.due_at), ("published", view.last_recached_at)]
    {
        if let Some(at) = at {
            fact(name, output::instant(at));
        }
    }
    if let Some(reason) = &view.touch_reason {
        fact("touched by", format!("{}: {reason}", view.touched_by.as_deref().unwrap_or_default()));
    }
    if let Some(pause) = &view.pause {
        fact("paused", format!("{} by {}: {}", output::instant(pause.at), pause.actor, pause.reason));
    }
    if let Some(ms) = view.last_build_ms {
        fact("last build took", output::duration(ms));
    }
    if let Some(error) = &view.last_error {
        fact("last error", error.clone());
    }
    match &view.workflow {
        Some(workflow) => fact("workflow", workflow.clone()),
        None => fact("handler", format!("{} in queue {}", view.handler, view.queue)),
    }
    if view.cache_only {
        fact("items", "kept in the cache only".to_owned());
    }
    if let Some(count) = view.prefetch_first {
        fact("fetched ahead", format!("the first {count} items"));
    } else if let Some(items) = &view.prefetch_items {
        fact("fetched ahead", format!("{} items", items.len()));
    }
    if let Some(ms) = view.generation_keep_ms {
        fact("generations kept", format!("{} after they were replaced", output::duration(ms)));
    }
    if let Some(ms) = view.lease_ms {
        fact("lease", output::duration(ms));
    }
    if let Some(count) = view.concurrency {
        fact("built at once", format!("{count} views of its pattern"));
    }
    let policy = view.policy;
    let on_touch = serde_json::to_value(policy.on_touch).map_or_else(|_| String::new(), word);
    fact(
        "debounce",
        format!(
            "{} quiet, {} at most",
            output::duration(policy.debounce_quiet_ms),
            output::duration(policy.debounce_max_ms)
        ),
    );
    fact("on touch", on_touch);
    fact("staleness limit", policy.max_staleness_ms.map_or_else(|| "none".to_owned(), output::duration));
    fact("attempts", view.retry.attempts_max.to_string());
    for (name, schema) in
        [("item keys fit", &view.item_key_schema), ("item values fit", &view.item_value_schema)]
    {
        if let Some(schema) = schema {
            fact(name, output::visible_json(schema.text()));
        }
    }
    if let Some(pattern) = &view.pattern {
        fact("made from", format!("{}/{pattern}", view.namespace));
    }
    table.text()
}

const GENERATIONS: [&str; 9] =
    ["VERSION", "PUBLISHED", "REPLACED", "ITEMS", "CHANGED", "REMOVED", "COMPUTED", "REUSED", "BUILD TOOK"];

fn generation_rows(generations: Vec<Generation>, table: Table) -> String {
    let mut table = table.leaving_out(&["REMOVED", "REUSED", "COMPUTED", "REPLACED"]);
    for generation in generations {
        table.row([
            generation.version.to_string(),
            output::instant(generation.published_at),
            generation.replaced_at.map_or_else(|| "live".to_owned(), output::instant),
            generation.items_total.to_string(),
            generation.items_changed.to_string(),
            generation.items_removed.to_string(),
            generation.items_computed.to_string(),
            generation.items_reused.to_string(),
            match &generation.restored {
                Some(restored) => format!("restored from {}", restored.from_version),
                None => output::duration(generation.build_ms),
            },
        ]);
    }
    table.text()
}
