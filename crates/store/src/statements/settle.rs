//! Settling attempts one by one: of jobs whose end changes a workflow or a view, and of any job whose token the
//! bulk statement did not find.

use recache_model::ids::WorkflowId;
use recache_model::job::{JobEvent, JobState};
use recache_model::time::Timestamp;

use super::super::Connection;
use super::effects::Effects;
use super::jobs::{self, Change, Locked};
use super::{finished, flow, steps, views};
use crate::error::{Error, Result};
use crate::fail::fail_point;
use crate::records::{Outcome, Revoked, Settled, Settlement};

/// What a settlement writes, for the bulk statements.
pub(in super::super) struct SettledColumns<'a> {
    pub(in super::super) state: &'static str,
    pub(in super::super) output: Option<&'a str>,
    pub(in super::super) error: Option<String>,
    /// Due again after so many microseconds.
    pub(in super::super) delay_us: Option<i64>,
    /// 1 when the attempt does not count.
    pub(in super::super) uncount: i64,
}

pub(in super::super) fn columns(outcome: &Outcome) -> Result<SettledColumns<'_>> {
    let plain = SettledColumns { state: "", output: None, error: None, delay_us: None, uncount: 0 };
    Ok(match outcome {
        Outcome::Completed { output } => {
            SettledColumns { state: JobState::Completed.as_str(), output: Some(output), ..plain }
        }
        Outcome::Retry { error, after } => SettledColumns {
            state: JobState::Queued.as_str(),
            error: Some(jobs::to_json(error)?),
            delay_us: Some(jobs::delay_micros(*after)),
            ..plain
        },
        Outcome::Failed { error } => {
            SettledColumns { state: JobState::Failed.as_str(), error: Some(jobs::to_json(error)?), ..plain }
        }
        Outcome::Snoozed { after } => SettledColumns {
            state: JobState::Queued.as_str(),
            delay_us: Some(jobs::delay_micros(*after)),
            uncount: 1,
            ..plain
        },
        Outcome::Released => {
            SettledColumns { state: JobState::Queued.as_str(), delay_us: Some(0), uncount: 1, ..plain }
        }
        Outcome::Decided { .. }
        | Outcome::Skipped { .. }
        | Outcome::HandedOver(_)
        | Outcome::Split(_)
        | Outcome::Waits(_) => {
            return Err(Error::Invalid(
                "this outcome is a step's, and a step's settlement is linked".to_owned(),
            ));
        }
    })
}

/// Settles: what completed with all others at once, the rest in order. What they belong to is locked first.
pub(in super::super) async fn settle(
    db: &mut Connection,
    now: Timestamp,
    settlements: &[Settlement],
    effects: &mut Effects,
) -> Result<Vec<Settled>> {
    let ids: Vec<_> = settlements.iter().map(|settlement| settlement.token.job).collect();
    jobs::lock_links(db, &ids).await?;
    let mut answers = vec![None; settlements.len()];
    for place in finished::complete(db, now, settlements, effects).await? {
        answers[place] = Some(Settled::Accepted);
    }
    for (answer, settlement) in answers.iter_mut().zip(settlements) {
        if answer.is_none() {
            *answer = Some(settle_one(db, now, settlement, effects).await?);
        }
    }
    fail_point!("settle.before_commit");
    Ok(answers.into_iter().flatten().collect())
}

fn workflow_of(job: &Locked) -> Result<WorkflowId> {
    job.workflow.ok_or_else(|| Error::Invalid("this outcome is a step's".to_owned()))
}

async fn settle_one(
    db: &mut Connection,
    now: Timestamp,
    settlement: &Settlement,
    effects: &mut Effects,
) -> Result<Settled> {
    let token = settlement.token;
    let Some(job) = jobs::lock(db, token.job).await? else { return Ok(Settled::Refused(Revoked::Gone)) };
    if let Err(revoked) = job.held_by(token) {
        // The newest token, and the job not running: this very attempt was settled before. Taking a job
        // away raises its epoch, so a token that was taken away does not look like this.
        return Ok(if job.issued(token) { Settled::Accepted } else { Settled::Refused(revoked) });
    }
    let (event, change) = match &settlement.outcome {
        Outcome::Completed { output } => {
            (JobEvent::Complete, Change { output: Some(output.clone()), ..Change::default() })
        }
        Outcome::Retry { error, after } => (
            JobEvent::RetryLater,
            Change { error: Some(error.clone()), due_at: Some(now.plus(*after)), ..Change::default() },
        ),
        Outcome::Failed { error } => {
            (JobEvent::Fail, Change { error: Some(error.clone()), ..Change::default() })
        }
        Outcome::Snoozed { after } => (
            JobEvent::Release,
            Change { due_at: Some(now.plus(*after)), uncount_attempt: true, ..Change::default() },
        ),
        Outcome::Released => (JobEvent::Release, Change { uncount_attempt: true, ..Change::default() }),
        Outcome::Decided { output, region } => {
            flow::open(db, now, workflow_of(&job)?, region, effects).await?;
            (JobEvent::Complete, Change { output: Some(output.clone()), ..Change::default() })
        }
        Outcome::Skipped { reason, region } => {
            if let Some(region) = region {
                flow::open(db, now, workflow_of(&job)?, region, effects).await?;
            }
            (JobEvent::Skip, Change { note: Some(reason.clone()), ..Change::default() })
        }
        Outcome::Split(children) if children.jobs.is_empty() => {
            return Err(Error::Invalid("a step cannot be split into nothing".to_owned()));
        }
        Outcome::Split(children) => {
            let waiting_on = steps::split(db, now, workflow_of(&job)?, &job, children, effects).await?;
            (JobEvent::Await, Change { waiting_on, uncount_attempt: true, ..Change::default() })
        }
        Outcome::HandedOver(to) => {
            if job.view.is_none() {
                workflow_of(&job)?;
            }
            flow::hand_over(db, now, &job, to, effects).await?;
            effects.made_room(settlement);
            return Ok(Settled::Accepted);
        }
        Outcome::Waits(waiting) => {
            flow::wait(db, now, &job, waiting, effects).await?;
            effects.made_room(settlement);
            return Ok(Settled::Accepted);
        }
    };
    if matches!(event, JobEvent::RetryLater | JobEvent::Fail) {
        flow::forget_sub_workflow(db, &job).await?;
    }
    let ended = matches!(event, JobEvent::Complete | JobEvent::Fail);
    let message = change.error.as_ref().map(|error| error.message.clone());
    jobs::advance(db, now, &job, event, change, effects).await?;
    effects.made_room(settlement);
    if let (Some(view), true) = (job.view, ended) {
        // A build is completed by publishing; one that ends any other way made no version.
        let why = message.unwrap_or_else(|| "its build ended without publishing".to_owned());
        views::build_ended(db, now, view, &why, effects).await?;
    }
    Ok(Settled::Accepted)
}
