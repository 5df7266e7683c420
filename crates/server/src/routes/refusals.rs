//! What an operation may be refused with, as its description says: each status with the codes of its problems.
//!
//! It follows from the operation itself, so that nobody has to remember it: from who may use it, what of a request is read, and whether it
//! changes something. What only the handler knows (that a graph may be too large to be drawn) stands at the handler among its `responses`, as
//! a status with a description; what the answer looks like is added here too. The tests hold every answer that they get against it.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use recache_api::Problem;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};

use crate::refusal::Code;

/// In the path of calls of a worker that has registered.
const SESSION: &str = "session";

/// What stands around a handler, and is not seen in its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// For anybody.
    Open,
    /// Whoever asks must be permitted to.
    Guarded,
    /// The same for calls of workers, which say by session, token and sequence what they repeat.
    OfWorkers,
    /// The same for a write that takes an idempotency key.
    Keyed,
}

/// Says of each operation what it may be refused with.
pub(super) fn document(operation: &mut Operation, is_read: bool, kind: Kind) {
    let words = codes(operation, is_read, kind);
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in Code::ALL.into_iter().filter(|code| words.contains(code.word())) {
        by_status.entry(code.status().as_u16()).or_default().push(code);
    }
    let responses = &mut operation.responses.responses;
    // What its handler tells of itself has the code of its status.
    for told in responses.keys().filter_map(|status| status.parse::<u16>().ok()).filter(|told| *told >= 400) {
        let code = StatusCode::from_u16(told).map(Code::of_status);
        if let Ok(code) = code {
            by_status.entry(told).or_insert_with(|| vec![code]);
        }
    }
    for (status, codes) in by_status {
        let said: Vec<String> =
            codes.iter().map(|code| format!("`{}`: {}", code.word(), code.title())).collect();
        let response =
            responses.entry(status.to_string()).or_insert_with(|| RefOr::T(ResponseBuilder::new().build()));
        if let RefOr::T(response) = response {
            add(response, &said.join("; "));
        }
    }
}

fn add(response: &mut Response, said: &str) {
    let told = std::mem::take(&mut response.description);
    response.description = if told.is_empty() { said.to_owned() } else { format!("{told} ({said})") };
    let problem = || RefOr::T(Content::new(Some(Ref::from_schema_name("Problem"))));
    response.content.entry(Problem::MEDIA_TYPE.to_owned()).or_insert_with(problem);
}

/// The words of the codes that it may be refused with.
fn codes(operation: &Operation, is_read: bool, kind: Kind) -> BTreeSet<&'static str> {
    let parameters = || operation.parameters.iter().flatten();
    let has = |place: &ParameterIn| {
        parameters().any(|one| matches!(one, RefOr::T(one) if one.parameter_in == *place))
    };
    let is_named = |name: &str| parameters().any(|one| matches!(one, RefOr::T(one) if one.name == name));
    let has_body = operation.request_body.is_some();
    let reads_body = has_body || kind == Kind::Keyed;
    let given: [(bool, &[Code]); 11] = [
        // The frame, around everything.
        (true, &[Code::TooManyRequests, Code::Internal, Code::Unavailable, Code::Overloaded]),
        (is_read || is_named("Prefer"), &[Code::TimedOut]),
        (!is_read, &[Code::OutcomeUnknown]),
        (kind != Kind::Open, &[Code::Unauthenticated, Code::Forbidden, Code::Misdirected]),
        // What is read of a request.
        // (A name that fits its limit in characters may have too many bytes to be one.)
        (parameters().next().is_some(), &[Code::InvalidParameter, Code::Invalid]),
        (has(&ParameterIn::Path), &[Code::NotFound]),
        (reads_body, &[Code::Malformed, Code::TooLarge, Code::TooSlow]),
        // What it names need not exist, nor be as it must be.
        (has_body, &[Code::UnsupportedMediaType, Code::Invalid, Code::NotFound]),
        (matches!(kind, Kind::Keyed | Kind::OfWorkers), &[Code::Conflict]),
        (kind == Kind::Keyed, &[Code::InProgress, Code::KeyReused]),
        (kind == Kind::OfWorkers && is_named(SESSION), &[Code::LeaseLost, Code::SessionEnded]),
    ];
    let given = given.into_iter().filter(|(is_possible, _)| *is_possible);
    given.flat_map(|(_, codes)| codes.iter().map(|code| code.word())).collect()
}
