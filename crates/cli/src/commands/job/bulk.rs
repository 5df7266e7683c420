//! Jobs by filter: what `cancel`, `retry` and `delete` have in common.

use recache_api::client::Client;
use recache_api::{BulkChange, ChangeJobs};
use recache_store::{BatchDone, BulkJobChange, JobFilter, Store, Word};
use serde_json::json;

use super::super::audited::{Deed, audited};
use super::{Context, Outcome, bulk_changed};

/// Jobs that one transaction changes.
const BATCH_ROWS: u32 = 200;
/// No preview counts further.
const PREVIEW_MAX: u32 = 100_000;

/// Many jobs, in place of one id.
#[derive(Debug, clap::Args)]
pub(super) struct Many {
    /// All of this namespace
    #[arg(long)]
    namespace: Option<String>,
    /// All of this queue
    #[arg(long)]
    queue: Option<String>,
    /// All of this handler
    #[arg(long)]
    handler: Option<String>,
    /// All there are
    #[arg(long)]
    all: bool,
    /// Count, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Many {
    /// In transactions of bounded size; interrupted, it can be run again.
    pub(super) async fn change(
        self,
        change: BulkJobChange,
        word: Word,
        store: &dyn Store,
        context: &mut Context<'_>,
    ) -> Outcome {
        let mut filter = JobFilter {
            namespace: self.namespace,
            queue: self.queue,
            handler: self.handler,
            rows_max: if self.dry_run { PREVIEW_MAX } else { BATCH_ROWS },
            ..JobFilter::default()
        };
        if self.dry_run {
            let matching = store.bulk_jobs().jobs_count(filter, change).await?;
            return bulk_changed(&BulkChange::preview(matching), context);
        }
        let action = match change {
            BulkJobChange::Cancel => "jobs.cancel_many",
            BulkJobChange::Retry => "jobs.retry_many",
            BulkJobChange::Delete => "jobs.delete_many",
        };
        let shown =
            json!({ "queue": filter.queue, "handler": filter.handler, "namespace": filter.namespace });
        let deed =
            Deed { namespace: filter.namespace.clone(), ..Deed::new(action, "by filter", word.clone()) };
        let sum = audited(store, deed, &shown, async {
            let mut sum = BatchDone::default();
            loop {
                let done = store.bulk_jobs().jobs_change(filter.clone(), change, word.clone()).await?;
                sum.changed += done.changed;
                sum.skipped += done.skipped;
                if done.last.is_none() {
                    break;
                }
                filter.before = done.last;
            }
            let after = json!({ "changed": sum.changed, "skipped": sum.skipped });
            Ok((sum, after))
        })
        .await?;
        bulk_changed(&BulkChange::done(sum.changed, sum.skipped), context)
    }

    /// The same in requests of bounded size.
    pub(super) async fn ask(
        self,
        change: BulkJobChange,
        reason: String,
        client: &Client,
        context: &mut Context<'_>,
    ) -> Outcome {
        let mut asked = ChangeJobs {
            namespace: self.namespace,
            queue: self.queue,
            handler: self.handler,
            all: self.all,
            dry_run: self.dry_run,
            cursor: None,
            reason: Some(reason),
        };
        let mut sum = BulkChange::done(0, 0);
        loop {
            let done = match change {
                BulkJobChange::Cancel => client.cancel_jobs(&asked).await?,
                BulkJobChange::Retry => client.retry_jobs(&asked).await?,
                BulkJobChange::Delete => client.delete_jobs(&asked).await?,
            };
            if done.matching.is_some() {
                return bulk_changed(&done, context);
            }
            sum.changed += done.changed;
            sum.skipped += done.skipped;
            if done.next.is_none() {
                return bulk_changed(&sum, context);
            }
            asked.cursor = done.next;
        }
    }
}
