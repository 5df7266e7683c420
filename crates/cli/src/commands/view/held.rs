//! Views whose values are kept in the cache only: the configured cache has them, and the database does not.

use std::time::Duration;

use recache_engine::HeldValues;
use recache_model::held_value::digest_of;
use recache_model::view_options::ItemsKept;
use recache_store::Store;

use super::super::cache::opened::Opened;
use super::super::failure::Result;
use super::super::name::ViewName;
use super::super::{Context, compose};
use crate::cli_error::{CliError, ExitStatus};

/// A cache that does not answer in this time cannot be used.
const PATIENCE: Duration = Duration::from_secs(2);

/// Refuses to define such a view where the configured cache is none that all processes share.
pub(super) fn check_cache(view: &ViewName, context: &mut Context<'_>) -> Result<()> {
    let loaded = context.load()?;
    let values = HeldValues::new(&compose::cache(&loaded.config.cache, None));
    values
        .refusal()
        .map_or(Ok(()), |why| Err(refused(view, why, ExitStatus::Usage).at("--cache-only").into()))
}

fn refused(view: &ViewName, why: &str, status: ExitStatus) -> CliError {
    CliError::new("E-CACHE-ONLY", status, format!("view `{view}`: {why}")).help(
        "configure `[common.cache]`, or ask a server of this database, which has its cache: --server URL",
    )
}

/// The values themselves.
async fn values(view: &ViewName, context: &mut Context<'_>) -> Result<HeldValues> {
    let values = HeldValues::new(&Opened::usable(PATIENCE, context).await?.cache);
    match values.refusal() {
        None => Ok(values),
        Some(why) => Err(refused(view, why, ExitStatus::Unavailable).into()),
    }
}

/// Items of the database, with values from the cache in place of what stands for them. Answers what is there, and how many are gone: the view
/// is touched for those.
pub(super) async fn resolve(
    view: &ViewName,
    items: Vec<(String, String)>,
    store: &dyn Store,
    context: &mut Context<'_>,
) -> Result<(Vec<(String, String)>, usize)> {
    if items.iter().all(|(_, value)| digest_of(value).is_none()) {
        return Ok((items, 0));
    }
    let values = values(view, context).await?;
    let name = view.in_store();
    let read = values.read(&name, items).await;
    let gone = read.gone.len();
    if gone > 0 {
        values.tell(store, &name, read.gone).await?;
    }
    Ok((read.there, gone))
}

/// So many items were left out.
pub(super) fn gone(view: &ViewName, count: usize) -> CliError {
    let what = format!(
        "only the cache kept the values of view `{view}`, and has {count} of those that were asked for no more"
    );
    CliError::new("E-GONE", ExitStatus::Unavailable, what)
        .help("ask again: the view is touched, and makes them anew")
}

/// Refuses a generation some of whose values are gone.
pub(super) async fn check_version(
    view: &ViewName,
    version: i64,
    store: &dyn Store,
    context: &mut Context<'_>,
) -> Result<()> {
    let record = store.view_get(&view.namespace, &view.key).await?;
    if record.definition.options.items != ItemsKept::CacheOnly {
        return Ok(());
    }
    let values = values(view, context).await?;
    let gone = values.gone_of(store, record.id, &view.in_store(), version).await?;
    if gone == 0 {
        return Ok(());
    }
    let what = format!(
        "only the cache kept the values of view `{view}`, and has {gone} of those of version {version} no more"
    );
    Err(CliError::new("E-GONE", ExitStatus::Conflict, what)
        .help(format!("make the newest version anew instead: recache view rebuild {view}"))
        .into())
}
