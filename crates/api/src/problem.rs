//! Errors on the wire: `application/problem+json` (RFC 9457).

use serde::{Deserialize, Serialize};

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A URI that names the kind of problem; `about:blank` when `code` says all.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in a few words; the same for every problem with this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// A stable word for programs: `not_found`, `conflict`, `invalid`, `unavailable`, …
    pub code: String,
    /// What happened this time, naming the values.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Ties the answer to the server's logs.
    pub request_id: Option<String>,
    /// Every field that is wrong, when the request's body is.
    pub errors: Vec<FieldProblem>,
}

/// One wrong field of a request's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldProblem {
    /// JSON pointer (RFC 6901) to the field.
    pub pointer: String,
    /// What is wrong with it.
    pub message: String,
}

impl Problem {
    /// The media type of the document.
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    /// A problem whose code says what kind it is.
    pub fn new(
        status: u16,
        code: impl Into<String>,
        title: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: title.into(),
            status,
            code: code.into(),
            detail: detail.into(),
            remedy: None,
            request_id: None,
            errors: Vec::new(),
        }
    }
}
