//! `recache view define`: create a view, or change how it is built.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use recache_api::client::Client;
use recache_api::{DefineView, OnTouch as ApiOnTouch, SubmitRetry, View, ViewsMatching};
use recache_model::item_rules::{ITEM_SCHEMA_BYTES_MAX, ItemRules};
use recache_model::retry::RetryPolicy;
use recache_model::view::{OnTouch, ViewPolicy};
use recache_model::view_options::{BuildWorkflow, ItemsKept, Prefetch, ViewOptions};
use recache_model::view_pattern::is_pattern;
use recache_store::{FLOW, NewView, Store};

use super::super::against::ms;
use super::super::name::{ViewName, far, wait};
use super::super::{Context, Failure, Outcome};
use super::{facts, held, pattern};
use crate::cli_error::{CliError, ExitStatus};
use crate::output::{self, Format};

/// Create a view, or change how it is built; its versions and items stay
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache view define shop/prices --handler build_prices
  recache view define shop/prices --handler build_prices --quiet-for 5s --on-touch auto
  recache view define shop/prices --workflow shop/build_prices@^1
  recache view define 'shop/alliance/*' --handler build_alliance --concurrency 4
  recache view define shop/prices --handler build_prices --keep-generations 24h
  recache view define shop/pages --handler build_pages --cache-only

Options that are left out get their defaults, also when the view is there. With a
`*`, which stands for any text, it covers every view whose key matches: the first
touch of such a view makes it, and a change changes those that are there.")]
pub(super) struct Define {
    /// The view, or a pattern of views
    #[arg(value_name = "NAMESPACE/KEY")]
    view: ViewName,
    /// The handler that builds it
    #[arg(long, required_unless_present = "workflow")]
    handler: Option<String>,
    /// Where its builds wait [default: default]
    #[arg(long, conflicts_with = "workflow")]
    queue: Option<String>,
    /// The template of the workflow that builds it, in place of a handler
    #[arg(long, value_name = "[NAMESPACE/]NAME[@RANGE]", conflicts_with_all = ["handler", "timeout"])]
    workflow: Option<BuildWorkflow>,
    /// A build waits until no touch came for this long
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = wait)]
    quiet_for: Duration,
    /// It waits no longer than this after the first touch
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = wait)]
    wait_max: Duration,
    /// What a touch does to a running build
    #[arg(long, value_enum, default_value_t = OnTouchArg::Abort)]
    on_touch: OnTouchArg,
    /// Readers may be this far behind before a build is let through although touches keep coming
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = far, conflicts_with = "any_staleness")]
    max_staleness: Duration,
    /// No build is let through for the staleness of what readers see
    #[arg(long)]
    any_staleness: bool,
    /// Attempts of a build, 1 to 100
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
    /// How long a build may run [default: as long as it likes]
    #[arg(long, value_name = "TIME", value_parser = far)]
    timeout: Option<Duration>,
    /// How long a generation can be read after it was replaced, 1s to 720h [default: as the processes are configured]
    #[arg(long, value_name = "TIME", value_parser = far)]
    keep_generations: Option<Duration>,
    /// How long the worker of a build may be silent before another one gets the build, 1s to 24h [default: the worker's own lease]
    #[arg(long, value_name = "TIME", value_parser = far, conflicts_with = "workflow")]
    lease: Option<Duration>,
    /// Of a pattern: so many of its views are built at once, 1 to 1000 [default: as many as there are]
    #[arg(long, value_name = "COUNT", conflicts_with = "workflow", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    concurrency: Option<u32>,
    /// Keep the values of its items in the cache only, which must be one on a server: what it loses is made anew
    #[arg(long)]
    cache_only: bool,
    /// Items of each new generation, the first by key, that go into the cache before anybody asks for them
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    prefetch_first: Option<u32>,
    /// An item of each new generation that does; may be repeated
    #[arg(long, value_name = "ITEM", conflicts_with = "prefetch_first")]
    prefetch_item: Vec<String>,
    /// A file with a JSON Schema that the key of every item must fit
    #[arg(long, value_name = "FILE")]
    item_key_schema: Option<PathBuf>,
    /// A file with a JSON Schema that the value of every item must fit
    #[arg(long, value_name = "FILE")]
    item_value_schema: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnTouchArg {
    /// Stop it; build the newer version
    Abort,
    /// Let it publish, then build again
    Finish,
    /// Abort, unless half of the last build's time has gone into it, or another one would end after --max-staleness
    Auto,
}

impl Define {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        if self.cache_only {
            held::check_cache(&self.view, context)?;
        }
        let rules = ItemRules {
            key_schema: schema(self.item_key_schema.as_deref(), "--item-key-schema")?,
            value_schema: schema(self.item_value_schema.as_deref(), "--item-value-schema")?,
        };
        let by_handler =
            self.handler.map(|handler| (handler, self.queue.unwrap_or_else(|| "default".to_owned())));
        let (handler, queue) = by_handler.unwrap_or_else(|| (FLOW.to_owned(), FLOW.to_owned()));
        let definition = NewView {
            namespace: self.view.namespace,
            key: self.view.key,
            handler,
            queue,
            policy: ViewPolicy {
                debounce_quiet_ms: ms(self.quiet_for),
                debounce_max_ms: ms(self.wait_max),
                on_touch: match self.on_touch {
                    OnTouchArg::Abort => OnTouch::Abort,
                    OnTouchArg::Finish => OnTouch::Finish,
                    OnTouchArg::Auto => OnTouch::Auto,
                },
                max_staleness_ms: (!self.any_staleness).then(|| ms(self.max_staleness)),
            },
            retry: RetryPolicy { attempts_max: self.attempts, ..RetryPolicy::default() },
            timeout: self.timeout,
            rules,
            options: ViewOptions {
                workflow: self.workflow,
                items: if self.cache_only { ItemsKept::CacheOnly } else { ItemsKept::Durable },
                prefetch: prefetch(self.prefetch_first, self.prefetch_item),
                generation_keep_ms: self.keep_generations.map(ms),
                lease_ms: self.lease.map(ms),
                concurrency: self.concurrency,
            },
        };
        if is_pattern(&definition.key) {
            let (namespace, pattern) = (definition.namespace.clone(), definition.key.clone());
            let changed = store.view_patterns().pattern_define(definition).await?;
            return pattern::print_defined(&ViewsMatching::new(namespace, pattern, changed), context);
        }
        let record = store.view_define(definition).await?;
        print(&output::view(record, store.now().await?), context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let retry = SubmitRetry {
            attempts_max: Some(self.attempts),
            backoff: None,
            base_ms: None,
            cap_ms: None,
            jitter: None,
        };
        let view = DefineView {
            handler: self.handler,
            workflow: self.workflow.map(|workflow| workflow.to_string()),
            queue: self.queue,
            debounce_quiet_ms: Some(ms(self.quiet_for)),
            debounce_max_ms: Some(ms(self.wait_max)),
            on_touch: Some(match self.on_touch {
                OnTouchArg::Abort => ApiOnTouch::Abort,
                OnTouchArg::Finish => ApiOnTouch::Finish,
                OnTouchArg::Auto => ApiOnTouch::Auto,
            }),
            max_staleness_ms: (!self.any_staleness).then(|| ms(self.max_staleness)),
            any_staleness: self.any_staleness,
            retry: Some(retry),
            timeout_ms: self.timeout.map(ms),
            cache_only: self.cache_only,
            generation_keep_ms: self.keep_generations.map(ms),
            lease_ms: self.lease.map(ms),
            concurrency: self.concurrency,
            prefetch_first: self.prefetch_first,
            prefetch_items: Some(self.prefetch_item).filter(|items| !items.is_empty()),
            item_key_schema: text(schema(self.item_key_schema.as_deref(), "--item-key-schema")?.as_ref()),
            item_value_schema: text(
                schema(self.item_value_schema.as_deref(), "--item-value-schema")?.as_ref(),
            ),
        };
        if is_pattern(&self.view.key) {
            let defined = client.define_view_pattern(&self.view.namespace, &self.view.key, &view).await?;
            return pattern::print_defined(&defined, context);
        }
        let details = client.define_view(&self.view.namespace, &self.view.key, &view).await?;
        print(&details.view, context)
    }
}

fn prefetch(first: Option<u32>, items: Vec<String>) -> Option<Prefetch> {
    first.map(Prefetch::First).or_else(|| (!items.is_empty()).then_some(Prefetch::Items(items)))
}

/// Reads a schema, which the store judges.
fn schema(path: Option<&Path>, option: &str) -> Result<Option<serde_json::Value>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let wrong = |what: String| CliError::new("E-USAGE", ExitStatus::Usage, what).at(option);
    let shown = path.display();
    let bytes = std::fs::metadata(path).map_err(|error| wrong(format!("{shown}: {error}")))?.len();
    let bytes_max = u64::try_from(ITEM_SCHEMA_BYTES_MAX).unwrap_or(u64::MAX) * 4;
    if bytes > bytes_max {
        return Err(wrong(format!("{shown}: it has {bytes} bytes; the limit is {bytes_max}")).into());
    }
    let source = std::fs::read_to_string(path).map_err(|error| wrong(format!("{shown}: {error}")))?;
    let schema =
        serde_json::from_str(&source).map_err(|error| wrong(format!("{shown} is no JSON: {error}")))?;
    Ok(Some(schema))
}

fn text(schema: Option<&serde_json::Value>) -> Option<recache_api::Json> {
    schema.map(|schema| output::json_text(&schema.to_string()))
}

fn print(view: &View, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(view)?,
        Format::Table => {
            let text = facts(view, context.table(["", ""]));
            context.print_text(&text)?;
        }
    }
    Ok(ExitStatus::Ok)
}
