//! From what the engine found to what workers are answered.

use std::collections::BTreeMap;

use recache_api::{
    Json, ViewItem, WorkerAnswer, WorkerBuild, WorkerJob, WorkerKnownItem, WorkerLoss, WorkerPart,
    WorkerResult, WorkerStop, WorkerStopReason, WorkerVerdict,
};
use recache_engine::remote::{Answer, Offer, Settled, Stop, lease_token_text};
use recache_model::ids::JobId;
use recache_store::{BuildStart, ItemMark, PartStart, Revoked, TouchedItems};
use serde_json::Value;

use super::calls::Tokens;
use crate::documents;

/// A word for programs, and the document's value.
pub(super) fn loss(why: Revoked) -> (&'static str, WorkerLoss) {
    match why {
        Revoked::TakenOver => ("taken_over", WorkerLoss::TakenOver),
        Revoked::Cancelled => ("cancelled", WorkerLoss::Cancelled),
        Revoked::Superseded => ("superseded", WorkerLoss::Superseded),
        Revoked::Finished => ("finished", WorkerLoss::Finished),
        Revoked::Gone => ("gone", WorkerLoss::Gone),
    }
}

fn verdict(token: &str, refused: Option<Revoked>) -> WorkerVerdict {
    let result = if refused.is_some() { WorkerResult::LeaseLost } else { WorkerResult::Accepted };
    WorkerVerdict { token: token.to_owned(), result, reason: refused.map(|why| loss(why).1) }
}

pub(super) fn answer(answer: Answer, tokens: &Tokens) -> WorkerAnswer {
    let settled = answer.settled.into_iter().map(|settled| match settled {
        Settled::Accepted => None,
        Settled::Refused(why) => Some(why),
    });
    WorkerAnswer {
        schema: WorkerAnswer::SCHEMA.to_owned(),
        alive: answer.is_alive,
        draining: answer.is_draining,
        settled: tokens.settled.iter().zip(settled).map(|(token, why)| verdict(token, why)).collect(),
        reported: tokens
            .reported
            .iter()
            .zip(answer.reports)
            .map(|(token, why)| verdict(token, why))
            .collect(),
        stop: answer
            .stops
            .into_iter()
            .map(|(token, why)| WorkerStop { token: lease_token_text(token), reason: reason(why) })
            .collect(),
        jobs: answer.jobs.into_iter().map(job).collect(),
    }
}

fn reason(why: Stop) -> WorkerStopReason {
    match why {
        Stop::Cancelled => WorkerStopReason::Cancelled,
        Stop::Superseded => WorkerStopReason::Superseded,
        Stop::Timeout => WorkerStopReason::Timeout,
        Stop::LeaseLost | Stop::Shutdown => WorkerStopReason::LeaseLost,
    }
}

fn job(offer: Offer) -> WorkerJob {
    let facts = offer.facts;
    let results = facts.results.iter().map(|(step, result)| (step.clone(), of_value(result)));
    WorkerJob {
        token: facts.attempt_token,
        id: JobId::from_uuid(facts.id).to_string(),
        handler: facts.handler,
        claimed_as: offer.claimed_as,
        method: facts.method,
        namespace: facts.namespace,
        queue: offer.queue,
        attempt: facts.attempt,
        attempts_max: facts.attempts_max,
        correlation_id: facts.correlation_id,
        trace_context: facts.trace_context,
        timeout_ms: offer.timeout.map(documents::ms),
        input: documents::json_text(&offer.input),
        checkpoint: facts.checkpoint.as_deref().map(documents::json_text),
        build: offer.is_build,
        again: offer.is_again,
        settings: facts.step.is_some().then(|| of_value(&facts.settings)),
        step: facts.step,
        results: results.collect::<BTreeMap<_, _>>(),
        item: facts.item.as_ref().map(of_value),
        index: facts.index,
        signal: facts.signal.as_ref().map(of_value),
    }
}

fn of_value(value: &Value) -> Json {
    documents::json_text(&value.to_string())
}

pub(super) fn build(start: BuildStart) -> WorkerBuild {
    let known = |marks: Vec<ItemMark>| {
        marks
            .into_iter()
            .map(|mark| WorkerKnownItem {
                item: mark.item,
                fingerprint: mark.fingerprint,
                gone: mark.is_gone,
            })
            .collect()
    };
    WorkerBuild {
        schema: WorkerBuild::SCHEMA.to_owned(),
        namespace: start.namespace,
        key: start.key,
        version: start.version,
        live_version: start.live_version,
        touched: match start.touched {
            TouchedItems::All => None,
            TouchedItems::Only(items) => Some(items),
        },
        live: known(start.live),
        staged: known(start.staged),
    }
}

pub(super) fn item((item, value): (String, String)) -> ViewItem {
    ViewItem { item, value: documents::json_text(&value) }
}

pub(super) fn part(start: PartStart) -> WorkerPart {
    WorkerPart {
        schema: WorkerPart::SCHEMA.to_owned(),
        namespace: start.namespace,
        key: start.key,
        version: start.version,
        live_version: start.live_version,
        touched: match start.touched {
            TouchedItems::All => None,
            TouchedItems::Only(items) => Some(items),
        },
    }
}
