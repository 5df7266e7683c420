//! What the end of an attempt elsewhere means: judged here like one of a local handler.

use std::sync::Arc;

use recache_model::job::{ErrorKind, JobError};
use recache_store::{ClaimedJob, Outcome, Publication, Published};
use recache_worker::Failure;
use serde_json::json;

use super::call::{End, Settled};
use super::memory::Held;
use crate::engine::Shared;
use crate::error::{Error, Result};
use crate::execute;
use crate::rules::{self, Rules};
use crate::stats::{add, one};

/// How an attempt is settled.
#[derive(Debug)]
pub(super) enum Judged {
    /// Together with others.
    Outcome(Outcome),
    /// Alone: a build is completed by publishing it.
    Publication(Publication),
}

/// Judges an end. An error is the store's: nothing is known yet, and the call is to be repeated.
pub(super) async fn judge(shared: &Arc<Shared>, held: &Held, end: &End) -> Result<Judged> {
    let job = &*held.job;
    Ok(Judged::Outcome(match end {
        End::Released => {
            one(&shared.counters.released);
            Outcome::Released
        }
        End::Snoozed(after) => {
            one(&shared.counters.snoozed);
            Outcome::Snoozed { after: *after }
        }
        End::Failed(error) => execute::failed(shared, job, error.clone()),
        End::Built { .. } if job.view.is_none() => {
            let why = "the job builds no view: it ends with a result";
            failed(shared, job, "not_a_view", why)
        }
        End::Built { version, kept, taken_over } => {
            return built(shared, job, *version, kept, *taken_over).await;
        }
        End::Completed(_) if job.view.is_some() => {
            let why = "the job builds a view: it ends with the version that its build began with";
            failed(shared, job, "build_without_version", why)
        }
        End::Completed(output) => {
            let concluded = match rules_of(shared, held).await? {
                Ok(Some(rules)) => {
                    let result = serde_json::from_str(output)
                        .map_err(|error| Failure::permanent("invalid_output", error));
                    let concluded = result.and_then(|result| rules.concluded(shared, &result));
                    if let Ok(Outcome::Completed { output } | Outcome::Decided { output, .. }) = &concluded {
                        rules::keep(shared, &rules, output).await;
                    }
                    concluded
                }
                // Kept as it was written: digits and all.
                Ok(None) => {
                    rules::check_size(shared, output).map(|()| Outcome::Completed { output: output.clone() })
                }
                Err(failure) => Err(failure),
            };
            match concluded {
                Ok(outcome) => {
                    one(&shared.counters.completed);
                    outcome
                }
                Err(failure) => execute::failed(shared, job, error_of(failure)),
            }
        }
    }))
}

fn failed(shared: &Shared, job: &ClaimedJob, code: &str, message: &str) -> Outcome {
    execute::failed(shared, job, error_of(Failure::permanent(code, message)))
}

/// The error of a failure that the engine itself found.
pub(super) fn error_of(failure: Failure) -> JobError {
    match failure {
        Failure::Permanent { code, message } => {
            JobError { code: Some(code), ..JobError::new(ErrorKind::Permanent, message) }
        }
        other => JobError::new(ErrorKind::Retryable, other.to_string()),
    }
}

/// What the job's template says about its result. The outer error is the store's.
async fn rules_of(
    shared: &Arc<Shared>,
    held: &Held,
) -> Result<std::result::Result<Option<Arc<Rules>>, Failure>> {
    if let Ok(rules) = &held.rules {
        return Ok(Ok(rules.clone()));
    }
    if held.job.workflow.is_none() {
        return Ok(Ok(None));
    }
    match execute::facts(shared, &held.job).await {
        Ok((.., rules)) => Ok(Ok(rules.map(Arc::new))),
        // Facts and templates come from the store: only there can something pass.
        Err(Failure::Retryable { message, .. }) => {
            Err(Error::Store(recache_store::Error::Unavailable { message, source: None }))
        }
        Err(failure) => Ok(Err(failure)),
    }
}

async fn built(
    shared: &Arc<Shared>,
    job: &ClaimedJob,
    version: i64,
    kept: &[String],
    taken_over: u64,
) -> Result<Judged> {
    let sum = match shared.store.remote_workers().remote_build_sum(job.token, kept.to_vec()).await {
        Ok(Ok(sum)) => sum,
        // Publishing finds out whether it was published before.
        Ok(Err(_)) => return Ok(Judged::Publication(Publication { version, ..Publication::default() })),
        Err(recache_store::Error::Invalid(why)) => {
            return Ok(Judged::Outcome(failed(shared, job, "bad_build", &why)));
        }
        Err(error) => return Err(error.into()),
    };
    let reused = sum.kept + taken_over.min(sum.put);
    let computed = sum.put - taken_over.min(sum.put);
    let output = json!({
        "version": version, "items": sum.total, "computed": computed, "reused": reused,
        "removed": sum.removed.len(),
    });
    Ok(Judged::Publication(Publication {
        version,
        output: output.to_string(),
        removed: sum.removed,
        items_total: sum.total,
        items_computed: computed,
        items_reused: reused,
    }))
}

/// Publishes a build. Doing it again with the same token is answered the same way.
pub(super) async fn publish(
    shared: &Arc<Shared>,
    token: recache_store::LeaseToken,
    publication: Publication,
) -> Result<Settled> {
    let (computed, reused) = (publication.items_computed, publication.items_reused);
    Ok(match shared.store.build_publish(token, publication).await? {
        Published::Live { .. } => {
            one(&shared.counters.completed);
            one(&shared.counters.published);
            add(&shared.counters.items_computed, usize::try_from(computed).unwrap_or(usize::MAX));
            add(&shared.counters.items_reused, usize::try_from(reused).unwrap_or(usize::MAX));
            Settled::Accepted
        }
        Published::Refused(why) => Settled::Refused(why),
    })
}
