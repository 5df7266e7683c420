//! From what workers send to what the engine is asked for.

use std::time::Duration;

use recache_api::{
    FieldProblem, Json, KeepItems, PutItem, RegisterWorker, WorkerCall, WorkerEnd, WorkerOutcome,
    WorkerReport,
};
use recache_engine::remote::{Call, Claim, End, LEASE_DEFAULT, NewWorker, Report, Settle, parse_lease_token};
use recache_model::job::{ErrorKind, JobError};
use recache_store::{Keep, LeaseToken, RemoteHandler, StagedItem};

use crate::refusal::{Code, Refusal};

/// The tokens of a call, as they were written: so they are answered.
pub(super) struct Tokens {
    pub(super) settled: Vec<String>,
    pub(super) reported: Vec<String>,
}

impl Tokens {
    pub(super) fn of(call: &WorkerCall) -> Self {
        Self {
            settled: call.settle.iter().map(|end| end.token.clone()).collect(),
            reported: call.reports.iter().map(|report| report.token.clone()).collect(),
        }
    }
}

/// `of_key`: the namespaces that the caller's key may serve, if not all.
pub(super) fn new_worker(asked: RegisterWorker, of_key: Option<Vec<String>>) -> NewWorker {
    NewWorker {
        name: asked.name,
        handlers: asked
            .handlers
            .into_iter()
            .map(|handler| RemoteHandler {
                name: handler.name,
                version: handler.version,
                // What came in was JSON.
                input_schema: handler
                    .input_schema
                    .and_then(|schema| serde_json::from_str(schema.text()).ok()),
            })
            .collect(),
        queues: asked.queues,
        namespaces: asked.namespaces.or(of_key),
        slots: asked.slots,
        lease: asked.lease_ms.map_or(LEASE_DEFAULT, Duration::from_millis),
    }
}

pub(super) fn token(pointer: &str, text: &str) -> Result<LeaseToken, Refusal> {
    parse_lease_token(text).ok_or_else(|| Refusal::field(Code::Invalid, pointer, NO_TOKEN))
}

const NO_TOKEN: &str = "is no token of a job";

pub(super) fn call(asked: WorkerCall) -> Result<Call, Refusal> {
    let mut problems = Vec::new();
    let mut problem = |pointer: String, message: &str| {
        problems.push(FieldProblem { pointer, message: message.to_owned() });
    };
    let mut settle = Vec::with_capacity(asked.settle.len());
    for (place, end) in asked.settle.into_iter().enumerate() {
        let Some(token) = parse_lease_token(&end.token) else {
            problem(format!("/settle/{place}/token"), NO_TOKEN);
            continue;
        };
        match end_of(end) {
            Ok(end) => settle.push(Settle { token, end }),
            Err((field, message)) => problem(format!("/settle/{place}/{field}"), message),
        }
    }
    let mut reports = Vec::with_capacity(asked.reports.len());
    for (place, report) in asked.reports.into_iter().enumerate() {
        let Some(token) = parse_lease_token(&report.token) else {
            problem(format!("/reports/{place}/token"), NO_TOKEN);
            continue;
        };
        match report_of(token, report) {
            Ok(report) => reports.push(report),
            Err((field, message)) => problem(format!("/reports/{place}/{field}"), message),
        }
    }
    let held = asked.held.map(|held| {
        let mut tokens = Vec::with_capacity(held.len());
        for (place, text) in held.iter().enumerate() {
            match parse_lease_token(text) {
                Some(token) => tokens.push(token),
                None => problem(format!("/held/{place}"), NO_TOKEN),
            }
        }
        tokens
    });
    if asked.claim.is_some() && held.is_none() {
        problem("/held".to_owned(), "is missing: a claim names the jobs that the worker holds, or `[]`");
    }
    if !problems.is_empty() {
        return Err(crate::routes::wrong(&problems));
    }
    let claim = asked
        .claim
        .map(|claim| Claim { max: usize::try_from(claim.max).unwrap_or(usize::MAX), number: claim.number });
    Ok(Call { settle, reports, held, claim, wait: Duration::from_millis(asked.wait_ms) })
}

type Wrong = (&'static str, &'static str);

fn end_of(end: WorkerEnd) -> Result<End, Wrong> {
    let WorkerEnd { token: _, outcome, output, error, after_ms, version, kept, taken_over } = end;
    let given = [
        ("output", output.is_some()),
        ("error", error.is_some()),
        ("after_ms", after_ms.is_some()),
        ("version", version.is_some()),
        ("kept", kept.is_some()),
        ("taken_over", taken_over.is_some()),
    ];
    let own: &[&str] = match outcome {
        WorkerOutcome::Completed => &["output"],
        WorkerOutcome::Built => &["version", "kept", "taken_over"],
        WorkerOutcome::Failed => &["error"],
        WorkerOutcome::Snoozed => &["after_ms"],
        WorkerOutcome::Released => &[],
    };
    for (field, is_given) in given {
        if is_given && !own.contains(&field) {
            return Err((field, "does not belong to this outcome"));
        }
    }
    Ok(match outcome {
        WorkerOutcome::Completed => End::Completed(output.as_ref().map_or("null", Json::text).to_owned()),
        WorkerOutcome::Built => End::Built {
            version: version.ok_or(("version", "is missing: it is what the build began with"))?,
            kept: kept.unwrap_or_default(),
            taken_over: taken_over.unwrap_or(0),
        },
        WorkerOutcome::Failed => {
            let error = error.ok_or(("error", "is missing: it says why"))?;
            End::Failed(JobError {
                kind: kind_of(error.kind.into()),
                code: error.code,
                message: error.message,
                retry_after_ms: error.retry_after_ms,
            })
        }
        WorkerOutcome::Snoozed => {
            End::Snoozed(Duration::from_millis(after_ms.ok_or(("after_ms", "is missing: for how long"))?))
        }
        WorkerOutcome::Released => End::Released,
    })
}

fn kind_of(kind: recache_api::ErrorKind) -> ErrorKind {
    match kind {
        recache_api::ErrorKind::Permanent => ErrorKind::Permanent,
        recache_api::ErrorKind::Timeout => ErrorKind::Timeout,
        recache_api::ErrorKind::Panic => ErrorKind::Panic,
        // The others are no worker's to say, and its documents do not have them.
        _ => ErrorKind::Retryable,
    }
}

fn report_of(token: LeaseToken, report: WorkerReport) -> Result<Report, Wrong> {
    let WorkerReport { token: _, progress, message, lines, first_line, checkpoint } = report;
    let progress = match (progress, message) {
        (Some(progress), message) => Some((progress, message)),
        (None, Some(_)) => return Err(("progress", "is missing: a message goes with it")),
        (None, None) => None,
    };
    let log = match (lines, first_line) {
        (Some(lines), Some(first)) => Some((first, lines)),
        (None, None) => None,
        (Some(_), None) => {
            return Err(("first_line", "is missing: lines are counted from 1 in each attempt"));
        }
        (None, Some(_)) => return Err(("lines", "is missing")),
    };
    Ok(Report { token, progress, log, checkpoint: checkpoint.map(|json| json.text().to_owned()) })
}

/// What a step says about items that it does not put: one thing a call.
pub(super) fn keep(asked: KeepItems) -> Result<Keep, Refusal> {
    let unchanged = asked
        .unchanged
        .map(|items| Keep::Unchanged(items.into_iter().map(|one| (one.item, one.fingerprint)).collect()));
    let said = [
        unchanged,
        asked.live.map(Keep::Live),
        asked.rest.filter(|rest| *rest).map(|_| Keep::Rest),
        asked.dropped.map(Keep::Dropped),
    ];
    let mut said = said.into_iter().flatten();
    if let (Some(keep), None) = (said.next(), said.next()) {
        return Ok(keep);
    }
    let why = "must have one of `unchanged`, `live`, `rest` (true) and `dropped` besides `token`";
    Err(Refusal::field(Code::Invalid, "", why))
}

pub(super) fn items(items: Vec<PutItem>) -> Vec<StagedItem> {
    items
        .into_iter()
        .map(|item| StagedItem {
            item: item.item,
            fingerprint: item.fingerprint,
            value: item.value.map(|value| value.text().to_owned()),
        })
        .collect()
}
