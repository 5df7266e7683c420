//! Templates: store, look, check, compare, draw.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use recache_api::{
    FieldProblem, GraphAnalysis, TemplateApplied, TemplateCheck, TemplateChecks, TemplateDetails,
    TemplateDiff, TemplateGraph, TemplateList, TemplatesApplied,
};
use recache_model::template::{Diff, Problems, Template};
use recache_store::{Error, TemplateFilter, TemplatePlace, TemplateRecord};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::routes;

use super::drawn::StepsForm;
use super::page::{Page, PageParams};
use super::{Routes, drawn};
use crate::access::{Action, Caller, Permission};
use crate::documents;
use crate::documents::templates as made;
use crate::input::{Accepted, Params, Segments, Source};
use crate::refusal::{Code, Refusal};
use crate::state::App;

const READ: Permission = Permission::new("templates", Action::Read);
const WRITE: Permission = Permission::new("templates", Action::Write);

/// What a body is called where files are named.
const BODY: &str = "body";

pub(super) fn routes() -> Routes {
    Routes::new()
        .write_once(WRITE, routes!(put))
        .read(READ, routes!(list))
        .read(READ, routes!(check))
        .read(READ, routes!(analyze))
        .read(READ, routes!(show))
        .read(READ, routes!(versions))
        .read(READ, routes!(graph))
        .read(READ, routes!(analysis))
        .read(READ, routes!(diff))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct PutParams {
    /// Only say what would be done
    dry_run: Option<bool>,
    /// Store it without the fields that are not known, which are otherwise refused
    lenient: Option<bool>,
}

/// Store a template
///
/// Versions are immutable: the same content again changes nothing, other content under the same version is a conflict.
#[utoipa::path(put, path = "/v1/templates", tag = "templates", operation_id = "put_template", params(PutParams),
    request_body(content = String, content_type = "application/yaml", description = "The template, in YAML or JSON"),
    responses(
        (status = 201, description = "It is stored", body = TemplatesApplied),
        (status = 200, description = "It was there, or would be stored", body = TemplatesApplied)))]
async fn put(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<PutParams>,
    Source(text): Source,
) -> Result<Response, Refusal> {
    let (template, _) = read(&text, asked.lenient).map_err(|problems| wrong(&problems))?;
    caller.check_namespace(template.namespace())?;
    let version = template.version().to_string();
    let found = app.store().template_find(template.namespace(), template.name(), Some(&version)).await;
    let is_new = match found {
        Ok(there) if there.digest == template.digest().to_string() => false,
        Ok(_) => {
            let (namespace, name) = (template.namespace(), template.name());
            let detail = format!("template {namespace}/{name} {version} is stored with other content");
            return Err(
                Refusal::new(Code::Conflict, detail).remedy("raise `version`: versions are immutable")
            );
        }
        Err(Error::NotFound { .. }) => true,
        Err(error) => return Err(error.into()),
    };
    let is_dry = asked.dry_run == Some(true);
    if is_new && !is_dry {
        // Somebody else may have stored the version since: the store judges again.
        app.engine().put_template(&template).await?;
    }
    let applied = TemplateApplied { template: made::summary(&template), changed: is_new && !is_dry };
    let status = if applied.changed { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(TemplatesApplied::new(vec![applied]))).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// Only of this namespace
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
    /// Only of this name: its versions
    #[param(min_length = 1, max_length = 256)]
    name: Option<String>,
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only those behind this one, `NAMESPACE/NAME@VERSION`; not together with `cursor`
    #[param(min_length = 5, max_length = 1024)]
    after: Option<String>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// List templates by namespace and name, the newest version of each first
#[utoipa::path(get, path = "/v1/templates", tag = "templates", operation_id = "list_templates", params(ListParams),
    responses((status = 200, description = "Without their content", body = TemplateList)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<ListParams>,
) -> Result<Json<TemplateList>, Refusal> {
    let namespace = caller.list_namespace(asked.namespace)?;
    let page = PageParams { limit: asked.limit, cursor: asked.cursor };
    listed(&app, namespace, asked.name, asked.after, page).await
}

async fn listed(
    app: &App,
    namespace: Option<String>,
    name: Option<String>,
    after: Option<String>,
    asked: PageParams,
) -> Result<Json<TemplateList>, Refusal> {
    let page = Page::new("templates", &(&namespace, &name), asked)?;
    let place = page.before_or::<String>("after", after)?;
    let not_one = || {
        let message = "is no version of a template: expected `NAMESPACE/NAME@VERSION`";
        Refusal::field(Code::InvalidParameter, "?after", message)
    };
    let after = place.map(|place| place_of(&place).ok_or_else(not_one)).transpose()?;
    let filter = TemplateFilter { namespace, name, after, rows_max: page.rows_max() };
    let found = app.store().templates_list(filter).await?.into_iter().map(|stored| {
        let place = format!("{}/{}@{}", stored.namespace, stored.name, stored.version);
        (place, made::stored(stored))
    });
    let (templates, next) = page.cut_placed(found);
    Ok(Json(TemplateList::new(templates, next)))
}

/// No namespace holds a slash, and no version a sign.
fn place_of(text: &str) -> Option<TemplatePlace> {
    let (name, version) = text.rsplit_once('@')?;
    let (namespace, name) = name.split_once('/')?;
    let [namespace, name, version] = [namespace, name, version].map(str::to_owned);
    Some(TemplatePlace { namespace, name, version })
}

/// A template, and what was forgiven it.
fn read(text: &str, lenient: Option<bool>) -> Result<(Template, Option<Problems>), Problems> {
    if lenient == Some(true) {
        return Template::parse_lenient(text, BODY).map(|(template, forgiven)| (template, Some(forgiven)));
    }
    Template::parse(text, BODY).map(|template| (template, None))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct CheckParams {
    /// Take unknown fields for warnings: read the template as if they were not there
    lenient: Option<bool>,
}

/// Check a template: everything that is wrong at once, each with its place
#[utoipa::path(post, path = "/v1/templates/check", tag = "templates", operation_id = "check_template", params(CheckParams),
    request_body(content = String, content_type = "application/yaml", description = "The template, in YAML or JSON"),
    responses((status = 200, description = "`template` is null when it is wrong", body = TemplateChecks)))]
async fn check(
    _caller: Caller,
    Params(asked): Params<CheckParams>,
    Source(text): Source,
) -> Json<TemplateChecks> {
    let file = BODY.to_owned();
    let check = match read(&text, asked.lenient) {
        Ok((template, forgiven)) => TemplateCheck {
            file,
            template: Some(made::summary(&template)),
            problems: Vec::new(),
            warnings: forgiven.as_ref().map(made::problems).unwrap_or_default(),
            unsupported: made::problems(&template.unsupported()),
        },
        Err(problems) => TemplateCheck {
            file,
            template: None,
            problems: made::problems(&problems),
            warnings: Vec::new(),
            unsupported: Vec::new(),
        },
    };
    Json(TemplateChecks::new(vec![check]))
}

/// Critical path and parallelism of a template that is sent along, by what workflows of the same content took
#[utoipa::path(post, path = "/v1/templates/analysis", tag = "templates", operation_id = "analyze_sent_template",
    request_body(content = String, content_type = "application/yaml", description = "The template, in YAML or JSON"),
    responses((status = 200, description = "What was found", body = GraphAnalysis)))]
async fn analyze(
    State(app): State<App>,
    caller: Caller,
    Source(text): Source,
) -> Result<Json<GraphAnalysis>, Refusal> {
    let template = Template::parse(&text, BODY).map_err(|problems| wrong(&problems))?;
    // How long its steps took is its namespace's own.
    caller.check_namespace(template.namespace())?;
    let found = app.engine().template_analysis(&template, documents::analysis).await?;
    Ok(Json(std::sync::Arc::unwrap_or_clone(found)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ShowParams {
    /// This version; without it the newest
    #[param(min_length = 1, max_length = 256)]
    version: Option<String>,
    /// As it is in this environment
    #[param(min_length = 1, max_length = 256)]
    environment: Option<String>,
}

/// A template with its content
#[utoipa::path(get, path = "/v1/templates/{namespace}/{name}", tag = "templates", operation_id = "show_template",
    params(("namespace" = String, Path), ("name" = String, Path), ShowParams),
    responses((status = 200, description = "The template", body = TemplateDetails)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Segments((namespace, name)): Segments<(String, String)>,
    Params(asked): Params<ShowParams>,
) -> Result<Json<TemplateDetails>, Refusal> {
    let template = visible(&app, &caller, &namespace, &name, asked.version.as_deref()).await?;
    let summary = made::summary(&template);
    let template = match &asked.environment {
        None => template,
        Some(environment) => template.for_environment(environment).map_err(|problems| wrong(&problems))?,
    };
    Ok(Json(made::details(summary, &template)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct VersionsParams {
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// The versions of a template, the newest first
#[utoipa::path(get, path = "/v1/templates/{namespace}/{name}/versions", tag = "templates",
    operation_id = "list_template_versions",
    params(("namespace" = String, Path), ("name" = String, Path), VersionsParams),
    responses((status = 200, description = "Without their content", body = TemplateList)))]
async fn versions(
    State(app): State<App>,
    caller: Caller,
    Segments((namespace, name)): Segments<(String, String)>,
    Params(asked): Params<VersionsParams>,
) -> Result<Json<TemplateList>, Refusal> {
    caller.check_found(&namespace, "template", &format!("{namespace}/{name}"))?;
    let (is_first, page) = (asked.cursor.is_none(), PageParams { limit: asked.limit, cursor: asked.cursor });
    let found = listed(&app, Some(namespace.clone()), Some(name.clone()), None, page).await?;
    if found.templates.is_empty() && is_first {
        return Err(Refusal::not_found("template", &format!("{namespace}/{name}")));
    }
    Ok(found)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct DrawnParams {
    /// This version; without it the newest
    #[param(min_length = 1, max_length = 256)]
    version: Option<String>,
    /// As data or drawn; without it as `Accept` says
    #[param(inline)]
    format: Option<StepsForm>,
}

/// How the steps of a template hang together
///
/// As data, or drawn (of at most 5,000 steps and 20,000 lines): `format` or `Accept` says how.
#[utoipa::path(get, path = "/v1/templates/{namespace}/{name}/graph", tag = "templates", operation_id = "template_graph",
    params(("namespace" = String, Path), ("name" = String, Path), DrawnParams),
    responses((status = 200, description = "Its levels and lines", content((TemplateGraph = "application/json"),
        (String = "text/plain"), (String = "text/vnd.mermaid"), (String = "image/svg+xml"))),
        (status = 409, description = "It is too large to be drawn")))]
async fn graph(
    State(app): State<App>,
    caller: Caller,
    Segments((namespace, name)): Segments<(String, String)>,
    Params(asked): Params<DrawnParams>,
    accepted: Accepted,
) -> Result<Response, Refusal> {
    let template = visible(&app, &caller, &namespace, &name, asked.version.as_deref()).await?;
    drawn::template(&template, asked.format, &accepted)
}

/// A template's critical path and parallelism, by what its earlier workflows took
///
/// As data, or drawn (of at most 5,000 steps and 20,000 lines): `format` or `Accept` says how.
#[utoipa::path(get, path = "/v1/templates/{namespace}/{name}/analysis", tag = "templates",
    operation_id = "analyze_template",
    params(("namespace" = String, Path), ("name" = String, Path), DrawnParams),
    responses((status = 200, description = "What was found", content((GraphAnalysis = "application/json"),
        (String = "text/plain"), (String = "text/vnd.mermaid"), (String = "image/svg+xml"))),
        (status = 409, description = "It is too large to be drawn")))]
async fn analysis(
    State(app): State<App>,
    caller: Caller,
    Segments((namespace, name)): Segments<(String, String)>,
    Params(asked): Params<DrawnParams>,
    accepted: Accepted,
) -> Result<Response, Refusal> {
    let template = visible(&app, &caller, &namespace, &name, asked.version.as_deref()).await?;
    let found = app.engine().template_analysis(&template, documents::analysis).await?;
    drawn::analysis(std::sync::Arc::unwrap_or_clone(found), asked.format, &accepted)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct DiffParams {
    /// The version before
    #[param(min_length = 1, max_length = 256)]
    from: String,
    /// The other one; without it the newest
    #[param(min_length = 1, max_length = 256)]
    to: Option<String>,
}

/// What changed from one version of a template to another, in meaning, not in text
#[utoipa::path(get, path = "/v1/templates/{namespace}/{name}/diff", tag = "templates", operation_id = "diff_templates",
    params(("namespace" = String, Path), ("name" = String, Path), DiffParams),
    responses((status = 200, description = "Fields and steps that changed", body = TemplateDiff)))]
async fn diff(
    State(app): State<App>,
    caller: Caller,
    Segments((namespace, name)): Segments<(String, String)>,
    Params(asked): Params<DiffParams>,
) -> Result<Json<TemplateDiff>, Refusal> {
    let old = visible(&app, &caller, &namespace, &name, Some(&asked.from)).await?;
    let new = visible(&app, &caller, &namespace, &name, asked.to.as_deref()).await?;
    let found = Diff::between(&old, &new);
    Ok(Json(made::diff(made::summary(&old), made::summary(&new), &found)))
}

/// The template, if it exists for the caller.
async fn visible(
    app: &App,
    caller: &Caller,
    namespace: &str,
    name: &str,
    version: Option<&str>,
) -> Result<Template, Refusal> {
    caller.check_found(namespace, "template", &format!("{namespace}/{name}"))?;
    template_of(&stored(app, namespace, name, version).await?)
}

/// A stored template: a version of it through the cache, or the newest.
pub(super) async fn stored(
    app: &App,
    namespace: &str,
    name: &str,
    version: Option<&str>,
) -> Result<TemplateRecord, Refusal> {
    match version {
        Some(version) => {
            let found = app.engine().template(namespace, name, version).await?;
            Ok(std::sync::Arc::unwrap_or_clone(found))
        }
        None => Ok(app.store().template_find(namespace, name, None).await?),
    }
}

/// As the engine works with it.
pub(super) fn template_of(record: &TemplateRecord) -> Result<Template, Refusal> {
    Template::from_canonical_json(&record.content).map_err(|problems| {
        tracing::error!(%problems, digest = record.digest, "a stored template cannot be read");
        Refusal::internal()
    })
}

/// What is wrong with a template, each with its place in the text.
fn wrong(problems: &Problems) -> Refusal {
    let errors: Vec<FieldProblem> = made::problems(problems)
        .into_iter()
        .map(|problem| {
            let place = match (problem.line, problem.column) {
                (Some(line), Some(column)) => format!("line {line}, column {column}: "),
                _ => String::new(),
            };
            let help = problem.suggestion.map(|help| format!(" ({help})")).unwrap_or_default();
            FieldProblem { pointer: problem.path, message: format!("{place}{}{help}", problem.message) }
        })
        .collect();
    let count = errors.len();
    let first = errors.first().map(|error| error.message.clone()).unwrap_or_default();
    Refusal::new(Code::Invalid, format!("{count} problems with the template; the first: {first}"))
        .errors(errors)
}
