//! Graphs, as data or drawn: `?format=text|mermaid|svg`, or what `Accept` asks for.

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use recache_api::{GraphAnalysis, HandlerGraph, TemplateGraph};
use recache_model::analysis::{self, TooLarge, check_size};
use recache_model::template::{Template, draw};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::documents::{self, Drawn};
use crate::input::Accepted;
use crate::refusal::{Code, Refusal};

/// How a graph of steps is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum StepsForm {
    Json,
    Text,
    Mermaid,
    Svg,
}

/// How a graph of handlers is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum HandlersForm {
    Json,
    Text,
    Mermaid,
}

const TEXT: &str = "text/plain; charset=utf-8";
const MERMAID: &str = "text/vnd.mermaid; charset=utf-8";
const SVG: &str = "image/svg+xml";

impl StepsForm {
    /// As it was asked for; data where nothing else was.
    fn of(named: Option<Self>, accepted: &Accepted) -> Self {
        let known = |kind: &str| match kind {
            "application/json" | "application/*" | "*/*" => Some(Self::Json),
            "text/plain" => Some(Self::Text),
            "text/vnd.mermaid" => Some(Self::Mermaid),
            "image/svg+xml" | "image/*" => Some(Self::Svg),
            _ => None,
        };
        named.or_else(|| accepted.first(known)).unwrap_or(Self::Json)
    }
}

/// An analysis in the form that was asked for.
pub(super) fn analysis(
    found: GraphAnalysis,
    named: Option<StepsForm>,
    accepted: &Accepted,
) -> Result<Response, Refusal> {
    let form = StepsForm::of(named, accepted);
    if form == StepsForm::Json {
        return Ok(of_kind(Json(found).into_response()));
    }
    let drawn = Drawn::new(&found).ok_or_else(|| {
        tracing::error!(title = found.title, "an analysis names steps that it does not have");
        Refusal::internal()
    })?;
    let drawing = drawn.drawing();
    check_size(drawing.graph).map_err(too_large)?;
    Ok(match form {
        StepsForm::Json | StepsForm::Text => text(TEXT, analysis::text(&drawing)),
        StepsForm::Mermaid => text(MERMAID, analysis::mermaid(&drawing)),
        StepsForm::Svg => picture(analysis::svg(&drawing)),
    })
}

/// A template's steps in the form that was asked for.
pub(super) fn template(
    template: &Template,
    named: Option<StepsForm>,
    accepted: &Accepted,
) -> Result<Response, Refusal> {
    let form = StepsForm::of(named, accepted);
    if form == StepsForm::Json {
        let summary = documents::templates::summary(template);
        let graph: TemplateGraph = documents::templates::graph(summary, template);
        return Ok(of_kind(Json(graph).into_response()));
    }
    check_size(template.graph()).map_err(too_large)?;
    Ok(match form {
        StepsForm::Json | StepsForm::Text => text(TEXT, draw::text(template)),
        StepsForm::Mermaid => text(MERMAID, draw::mermaid(template)),
        StepsForm::Svg => picture(draw::svg(template)),
    })
}

/// The graph of handlers in the form that was asked for.
pub(super) fn handlers(graph: HandlerGraph, named: Option<HandlersForm>, accepted: &Accepted) -> Response {
    let known = |kind: &str| match kind {
        "application/json" | "application/*" | "*/*" => Some(HandlersForm::Json),
        "text/plain" => Some(HandlersForm::Text),
        "text/vnd.mermaid" => Some(HandlersForm::Mermaid),
        _ => None,
    };
    match named.or_else(|| accepted.first(known)).unwrap_or(HandlersForm::Json) {
        HandlersForm::Json => of_kind(Json(graph).into_response()),
        HandlersForm::Text => text(TEXT, documents::handler_text(&graph)),
        HandlersForm::Mermaid => text(MERMAID, documents::handler_mermaid(&graph)),
    }
}

fn text(kind: &'static str, text: String) -> Response {
    of_kind(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Its style stands in it; nothing else in it may do anything, wherever it is opened.
fn picture(svg: String) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
    let headers = [(header::CONTENT_TYPE, SVG), (header::CONTENT_SECURITY_POLICY, policy)];
    of_kind((headers, svg).into_response())
}

/// Whoever keeps answers keeps them by what was asked for.
fn of_kind(mut response: Response) -> Response {
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

fn too_large(why: TooLarge) -> Refusal {
    Refusal::new(Code::Conflict, why.to_string()).remedy("ask for it as data: `?format=json`")
}
