//! The last touch to every answer.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use recache_api::Problem;

use super::request_id::{RequestId, X_REQUEST_ID};
use crate::refusal::{Code, Refusal};

/// Set unless the handler did.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Writes the refusal's document, if it is one, and the headers that every answer has.
pub(super) fn finish(
    mut response: Response,
    id: &RequestId,
    key: Option<&str>,
    ends_connection: bool,
) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_document = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes().starts_with(Problem::MEDIA_TYPE.as_bytes())
            || kind.as_bytes().starts_with(b"application/json")
    });
    match response.extensions_mut().remove::<Refusal>() {
        Some(refusal) => write(&mut response, &refusal.into_problem(id.as_str(), key)),
        // Nobody but us wrote it: the router, for a method that a path does not have, or a part that is not ours.
        None if is_error && !is_document => {
            let code = Code::of_status(status);
            let mut problem = Refusal::new(code, said(code)).into_problem(id.as_str(), key);
            problem.status = status.as_u16();
            write(&mut response, &problem);
        }
        None => {}
    }
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(value);
    }
    if let Some(id) = id.header() {
        headers.insert(X_REQUEST_ID, id);
    }
    if ends_connection {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn said(code: Code) -> &'static str {
    match code {
        Code::MethodNotAllowed => {
            "the path exists, but not with this method; `Allow` names those that it has"
        }
        Code::NotFound => "nothing is there",
        _ => "the request cannot be carried out",
    }
}

fn write(response: &mut Response, problem: &Problem) {
    let text = serde_json::to_vec(problem).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Problem::MEDIA_TYPE));
    headers.remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(text);
}
