//! Changes of many rows, one transaction after another, for as long as one request may take.

use recache_model::ids::JobId;
use recache_store::{BatchDone, Error};
use tokio::time::Instant;

use super::{BULK_ROWS_MAX, BULK_TIME_MAX};
use crate::refusal::Refusal;

/// Takes steps of at most `rows` rows, each going on where the one before ended, until all is done or a limit is reached. Answers the sum, and the
/// place to go on from if there is more. When a later step fails, what was done before it stands: the answer says so.
pub(super) async fn take<S>(
    what: &'static str,
    rows: u32,
    from: Option<JobId>,
    step: impl Fn(Option<JobId>) -> S,
) -> Result<(BatchDone, Option<JobId>), Refusal>
where
    S: Future<Output = Result<BatchDone, Error>>,
{
    let (began, mut sum, mut looked_at, mut place) = (Instant::now(), BatchDone::default(), 0, from);
    loop {
        let done = match step(place).await {
            Ok(done) => done,
            Err(error) if looked_at > 0 => {
                tracing::warn!(%error, what, "a change of many rows stopped half way");
                return Ok((sum, place));
            }
            Err(error) => return Err(error.into()),
        };
        sum.changed += done.changed;
        sum.skipped += done.skipped;
        looked_at += rows;
        place = done.last;
        if place.is_none() || looked_at >= BULK_ROWS_MAX || began.elapsed() >= BULK_TIME_MAX {
            return Ok((sum, place));
        }
    }
}
