//! A claimed job as its worker elsewhere gets it.

use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::JobId;
use recache_store::{ClaimedJob, LeaseToken};
use recache_worker::{Failure, JobFacts};
use uuid::Uuid;

use crate::engine::Shared;
use crate::execute;
use crate::rules::Rules;

/// A job for a worker.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The right to it.
    pub token: LeaseToken,
    /// What is known of it.
    pub facts: JobFacts,
    /// JSON for the handler.
    pub input: String,
    /// The name under which it was claimed.
    pub claimed_as: String,
    /// Where it waited.
    pub queue: String,
    /// How long the attempt may run; the engine ends it then.
    pub timeout: Option<Duration>,
    /// It builds a view: begin the build first.
    pub is_build: bool,
    /// It was offered before, in an answer that seems to have been lost.
    pub is_again: bool,
}

/// A token as text: the attempt's own token, which handlers hand to others as an idempotency key.
pub fn lease_token_text(token: LeaseToken) -> String {
    format!("{}-{}-{}", token.job.uuid(), token.epoch, token.claim.simple())
}

/// Reads what [`lease_token_text`] wrote.
pub fn parse_lease_token(text: &str) -> Option<LeaseToken> {
    let mut parts = text.rsplitn(3, '-');
    let claim = Uuid::parse_str(parts.next()?).ok()?;
    let epoch = parts.next()?.parse().ok()?;
    let job = Uuid::parse_str(parts.next()?).ok()?;
    Some(LeaseToken { job: JobId::from_uuid(job), epoch, claim })
}

/// What a worker is offered, and what its template says about its result. A retryable failure is the store's: nothing is known yet;
/// any other is the job's.
pub(super) async fn offer(
    shared: &Shared,
    job: &ClaimedJob,
    is_again: bool,
) -> Result<(Offer, Option<Arc<Rules>>), Failure> {
    if !is_again {
        execute::note_wait(job);
    }
    // The input of a job that stands alone is passed on as it was written.
    let (facts, input, rules) = if job.workflow.is_none() {
        (execute::facts_alone(job), job.input.clone(), None)
    } else {
        let (facts, input, _, rules) = execute::facts(shared, job).await?;
        (facts, input.to_string(), rules.map(Arc::new))
    };
    let offer = Offer {
        token: job.token,
        facts,
        input,
        claimed_as: job.handler.clone(),
        queue: job.queue.clone(),
        timeout: job.timeout,
        is_build: job.view.is_some(),
        is_again,
    };
    Ok((offer, rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_reads_what_it_shows() {
        let token = LeaseToken { job: JobId::make(), epoch: 7, claim: Uuid::new_v4() };
        assert_eq!(parse_lease_token(&lease_token_text(token)), Some(token));
        for bad in ["", "-", "1-2-3", "a-b"] {
            assert_eq!(parse_lease_token(bad), None, "{bad}");
        }
    }
}
