//! `recache cache get` and `set`.

use std::io::{self, Read as _};
use std::time::Duration;

use recache_api::client::Client;
use recache_api::{CacheValue, Changed, Json};
use recache_cache::{Answer, Cache, Codec, Explanation, Key, Policy, TAGS_MAX, TagSlots, Token};

use super::super::failure::Result;
use super::super::name::life;
use super::super::{Context, Outcome};
use super::changes::{Change, unconfirmed};
use super::key::KeyArgs;
use super::opened::Opened;
use super::remote::key_there;
use crate::cli_error::{CliError, ExitStatus};
use crate::output::{self, Format};

/// The longest value that is read from standard input.
const VALUE_BYTES_MAX: u64 = 64 << 20;

/// Print the value under a key, as JSON
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache cache get shop article 42
  recache cache get shop article 42 --meta
  recache cache get --raw recache:shop:article:42 -o json
  recache cache get shop article 42 --after 1f.3.9.2a.1

Exit code 3 when nothing is cached under it. What an application wrote in
postcard can be read by its own types only, and is refused.")]
pub(super) struct Get {
    #[command(flatten)]
    key: KeyArgs,
    /// Nothing from before the change that printed this token
    #[arg(long, value_name = "TOKEN")]
    after: Option<Token>,
    /// Show age, freshness and tier with it
    #[arg(long)]
    meta: bool,
}

/// Store a JSON value under a key; print the token of the change
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "recache cache set SPACE PART... --value JSON --ttl DURATION [OPTIONS]",
    after_help = "Examples:
  recache cache set shop article 42 --value '{\"cents\":1299}' --ttl 60s
  recache cache set shop article 42 --value - --ttl 2h --tag supplier-7"
)]
pub(super) struct Set {
    #[command(flatten)]
    key: KeyArgs,
    /// The value; `-` reads it from standard input
    #[arg(long, value_name = "JSON")]
    value: String,
    /// How long it lives
    #[arg(long, value_name = "DURATION", value_parser = life)]
    ttl: Duration,
    /// Invalidating this tag ends it; repeat it for more, up to 16
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
}

impl Get {
    pub(super) async fn run(self, patience: Duration, context: &mut Context<'_>) -> Outcome {
        let opened = Opened::usable(patience, context).await?;
        let key = self.key.key(opened.cache.keys())?;
        let cache = match &self.after {
            Some(token) => opened.cache.after(token),
            None => opened.cache.clone(),
        };
        let mut answer = cache.lookup::<Json>(&key).await;
        let found = cache.explain(&key).await;
        if let (None, Some(entry)) = (&answer, &found.entry) {
            // Its writer lays it out in some way of his own; as JSON it can be shown all the same.
            answer = cache.with_schema(entry.schema).lookup::<Json>(&key).await;
        }
        let Some(answer) = answer else { return Err(missed(&opened, &found).into()) };
        self.print(&document(&cache, &found, &answer), context)
    }

    pub(super) async fn ask(self, client: &Client, context: &mut Context<'_>) -> Outcome {
        if self.after.is_some() {
            let what = "--after has no form against a server: it answers what it serves";
            let error = CliError::new("E-UNSUPPORTED", ExitStatus::Usage, what);
            return Err(error.help("leave --after out").into());
        }
        let (names, raw) = self.key.named();
        let key = key_there(names, raw, client).await?;
        self.print(&client.cached_value(key.as_str()).await?, context)
    }

    fn print(&self, value: &CacheValue, context: &mut Context<'_>) -> Outcome {
        match context.format() {
            Format::Json | Format::Jsonl => context.print(value)?,
            Format::Table if self.meta => {
                let text = facts(value, context);
                context.print_text(&text)?;
            }
            Format::Table => context.print_text(&format!("{}\n", shown(value)))?,
        }
        if value.is_absent {
            context.note("the cached answer is that there is none")?;
        }
        if !value.is_fresh {
            context.note("stale: past its freshness, still kept")?;
        }
        Ok(ExitStatus::Ok)
    }
}

/// Why there is nothing to print.
fn missed(opened: &Opened, found: &Explanation) -> CliError {
    let key = &found.key;
    let miss = |what| CliError::new("E-NOT-FOUND", ExitStatus::NotFound, what);
    match &found.entry {
        Some(entry) if entry.codec == Some(Codec::Postcard) && matches!(entry.state.as_str(), "fresh" | "stale") => {
            let what = format!("the value under `{key}` is written in postcard, which only its program's own types can read");
            CliError::new("E-CACHE-CODEC", ExitStatus::Failed, what)
                .help("`recache cache explain` shows all but the value")
        }
        None if opened.is_in_process() => {
            miss(format!("nothing is cached under `{key}`: backend `{}` lives in each process, and this one has just begun", found.provider))
                .help("choose a backend that processes share: redis or memcached")
        }
        _ => miss(format!("nothing is served under `{key}`: {}", found.verdict))
            .help("`recache cache explain` shows what each level holds"),
    }
}

fn document(cache: &Cache, found: &Explanation, answer: &Answer<Json>) -> CacheValue {
    let far = cache.stats().usages.iter().any(|usage| usage.far.hits + usage.far.stale_hits > 0);
    output::cache_value(found, answer, far)
}

fn shown(value: &CacheValue) -> String {
    value.value.as_ref().map_or_else(|| "null".to_owned(), |value| output::visible_json(value.text()))
}

fn facts(value: &CacheValue, context: &Context<'_>) -> String {
    let mut table = context.table(["", ""]);
    let mut fact = |name: &str, value: String| table.row([name.to_owned(), value]);
    fact("key", value.key.clone());
    fact("value", shown(value));
    fact("age", output::duration(value.age_ms));
    fact("fresh for", output::duration(value.fresh_for_ms));
    fact("kept for", output::duration(value.keep_for_ms));
    fact("cost to make", output::duration(value.build_cost_ms));
    fact("tier", value.tier.clone());
    table.text()
}

impl Set {
    pub(super) async fn run(self, patience: Duration, context: &mut Context<'_>) -> Outcome {
        let value = self.read_value()?;
        let tags = TagSlots::of(&self.tags).filter(|_| self.tags.len() <= TAGS_MAX).ok_or_else(|| {
            CliError::new("E-CACHE-TAGS", ExitStatus::Usage, format!("{} tags are too many", self.tags.len()))
                .help(format!("an entry has {TAGS_MAX} at most"))
        })?;
        let opened = Opened::usable(patience, context).await?;
        let key = self.key.key(opened.cache.keys())?;
        let policy = Policy::new(self.ttl).tags(tags);
        let token = opened.cache.set(&key, value, &policy).await;
        check_stored(&opened, &key)?;
        opened.note_in_process(context)?;
        let change = Change { action: "set", changed: Changed::Key, name: key.as_str().to_owned(), token };
        change.print(context)?;
        if token.is_confirmed() { Ok(ExitStatus::Ok) } else { Err(unconfirmed(&change).into()) }
    }

    /// Whatever is wrong with it is said before anything is changed.
    fn read_value(&self) -> Result<Json> {
        let text = if self.value == "-" { read_all()? } else { self.value.clone() };
        Ok(Json::from_text(text.trim()).map_err(|error| {
            CliError::new("E-CACHE-VALUE", ExitStatus::Usage, format!("the value is not JSON: {error}"))
                .at(if self.value == "-" { "standard input" } else { "--value" })
                .help("quote texts twice: --value '\"text\"'")
        })?)
    }
}

fn read_all() -> std::result::Result<String, CliError> {
    let wrong = |what| CliError::new("E-CACHE-VALUE", ExitStatus::Usage, what).at("standard input");
    let mut bytes = Vec::new();
    let read = io::stdin().lock().take(VALUE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > VALUE_BYTES_MAX {
        return Err(wrong(format!("the value is longer than {VALUE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| wrong("the value is not UTF-8".to_owned()))
}

/// The cache takes no error to its caller; here it is said.
fn check_stored(opened: &Opened, key: &Key) -> std::result::Result<(), CliError> {
    let stats = opened.cache.stats();
    if stats.too_large + stats.encode_errors > 0 {
        let what = format!(
            "the value is larger than backend `{}` takes: it was not stored, and what was under `{key}` is removed",
            opened.health.provider
        );
        return Err(CliError::new("E-CACHE-VALUE", ExitStatus::Failed, what)
            .help("`recache cache explain` shows the limit, max_value_bytes"));
    }
    Ok(())
}
