//! `recache view define|touch|delete` with a pattern in place of a key, and `recache view patterns`.

use recache_api::client::{Client, ViewsQuery};
use recache_api::{TouchMatching, ViewPatternList, ViewsMatching};
use recache_store::{Store, Word};

use super::super::name::ViewName;
use super::super::{Context, Outcome, page};
use crate::cli_error::ExitStatus;
use crate::output::{self, Format};

/// Views that one transaction touches.
const TOUCHED_A_STEP: u32 = recache_engine::TOUCHED_A_STEP;

/// List patterns of views
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  recache view patterns --namespace shop

`recache view define` with a `*` in the key makes one.")]
pub(super) struct Patterns {
    /// Only of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// At most so many, 1 to 1000
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only those after this one: the last one of the page before
    #[arg(long, value_name = "NAMESPACE/PATTERN")]
    after: Option<ViewName>,
}

impl Patterns {
    pub(super) async fn run(self, store: &dyn Store, context: &mut Context<'_>) -> Outcome {
        let after = self.after.map(|name| (name.namespace, name.key));
        let found = store
            .view_patterns()
            .patterns_list(self.namespace.as_deref(), after, page::rows_max(self.limit))
            .await?;
        let mut patterns: Vec<_> = found.into_iter().map(output::view_pattern).collect();
        let has_more = page::cut(&mut patterns, self.limit);
        let last = patterns.last().filter(|_| has_more);
        let next = last.map(|pattern| format!("{}/{}", pattern.namespace, pattern.pattern));
        print_list(ViewPatternList::new(patterns, next), context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        let query = ViewsQuery {
            namespace: self.namespace,
            limit: Some(self.limit),
            after: self.after.map(|name| name.to_string()),
            cursor: None,
        };
        let mut list = client.view_patterns(&query).await?;
        let last = list.patterns.last().filter(|_| list.next.is_some());
        list.next = last.map(|pattern| format!("{}/{}", pattern.namespace, pattern.pattern));
        print_list(list, context)
    }
}

fn print_list(list: ViewPatternList, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json => context.print(&list)?,
        Format::Jsonl => context.print_lines(&list.patterns)?,
        Format::Table => {
            if list.patterns.is_empty() {
                context.note("no patterns")?;
                return Ok(ExitStatus::Ok);
            }
            let mut table = context.table(["PATTERN", "HANDLER", "QUEUE", "DEFINED"]);
            for pattern in list.patterns {
                table.row([
                    format!("{}/{}", pattern.namespace, pattern.pattern),
                    pattern.workflow.map_or(pattern.handler, |workflow| format!("workflow {workflow}")),
                    pattern.queue,
                    output::instant(pattern.created_at),
                ]);
            }
            context.print_text(&table.text())?;
            if let Some(next) = list.next {
                context.note(&format!("there are more: --after {next}"))?;
            }
        }
    }
    Ok(ExitStatus::Ok)
}

/// Touches every view that is there and that the pattern covers, step by step.
pub(super) async fn touch(
    name: &ViewName,
    items: Vec<String>,
    word: Option<Word>,
    store: &dyn Store,
    context: &mut Context<'_>,
) -> Outcome {
    let (mut after, mut touched) = (None, 0);
    loop {
        let step = store
            .view_patterns()
            .views_touch_matching(
                &name.namespace,
                &name.key,
                items.clone(),
                word.clone(),
                after,
                TOUCHED_A_STEP,
            )
            .await?;
        touched += step.touched;
        after = step.next;
        if after.is_none() {
            break;
        }
    }
    print_touched(&ViewsMatching::new(name.namespace.clone(), name.key.clone(), touched), context)
}

/// The same, at a server.
pub(super) async fn ask_touch(
    name: &ViewName,
    touch: &TouchMatching,
    client: &Client,
    context: &mut Context<'_>,
) -> Outcome {
    print_touched(&client.touch_matching(&name.namespace, &name.key, touch).await?, context)
}

fn print_touched(matching: &ViewsMatching, context: &mut Context<'_>) -> Outcome {
    print(matching, "views touched", context)
}

pub(super) fn print_defined(matching: &ViewsMatching, context: &mut Context<'_>) -> Outcome {
    print(matching, "views changed with it", context)
}

fn print(matching: &ViewsMatching, what: &str, context: &mut Context<'_>) -> Outcome {
    match context.format() {
        Format::Json | Format::Jsonl => context.print(matching)?,
        Format::Table => {
            let ViewsMatching { namespace, pattern, views, .. } = matching;
            context.print_text(&format!("{namespace}/{pattern}: {views} {what}\n"))?;
        }
    }
    Ok(ExitStatus::Ok)
}
