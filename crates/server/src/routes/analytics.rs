//! How work went, what is slow, what fails, and where each figure comes from.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use recache_api::{BottleneckReport, FigureExplanation, PerformanceReport};
use recache_engine::figures::{bottlenecks_of, performance_of};
use recache_model::figures::{BottlenecksRequest, Filter, PerformanceRequest};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::routes;

use super::Routes;
use crate::access::{Action, Caller, Permission};
use crate::documents::{self, Figure, Report};
use crate::input::{Id, Params};
use crate::refusal::Refusal;
use crate::state::App;

const READ: Permission = Permission::new("analytics", Action::Read);

pub(super) fn routes() -> Routes {
    Routes::new()
        .read(READ, routes!(performance))
        .read(READ, routes!(bottlenecks))
        .read(READ, routes!(explain))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct WindowParams {
    /// How far back; 24 unless something else is said
    #[param(minimum = 1, maximum = 744)]
    hours: Option<u32>,
    /// Only of this namespace
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
    /// Only of workflows of the template of this name
    #[param(min_length = 1, max_length = 256)]
    template: Option<String>,
    /// Only of this handler; workflows have none
    #[param(min_length = 1, max_length = 256)]
    handler: Option<String>,
    /// Only of this queue; workflows have none
    #[param(min_length = 1, max_length = 256)]
    queue: Option<String>,
    /// Count all from the rows of jobs and workflows, believe no roll-up and no cache: it takes as long as the window is full
    exact: Option<bool>,
}

impl WindowParams {
    fn request(self, caller: &Caller) -> Result<PerformanceRequest, Refusal> {
        let filter = Filter {
            namespace: caller.list_namespace(self.namespace)?,
            template: self.template,
            handler: self.handler,
            queue: self.queue,
        };
        let default = PerformanceRequest::default();
        Ok(PerformanceRequest { hours: self.hours.unwrap_or(default.hours), filter })
    }
}

/// How work went in a window
///
/// A task is a workflow or a job that is no step; a step is anything that a handler ran. Rates are fractions, 0 to 1, of what ended in
/// the window. Means are exact, quantiles are off by at most 1 %. The answer may be as old as `analytics_ttl_seconds`.
#[utoipa::path(get, path = "/v1/analytics/performance", tag = "analytics", operation_id = "performance", params(WindowParams),
    responses((status = 200, description = "The report", body = PerformanceReport)))]
async fn performance(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<WindowParams>,
) -> Result<Json<PerformanceReport>, Refusal> {
    let is_exact = asked.exact == Some(true);
    let request = asked.request(&caller)?;
    let found = if is_exact {
        Arc::new(performance_of(app.store(), &request, true).await?)
    } else {
        app.engine().performance(&request).await?
    };
    Ok(Json(documents::performance(&request, &found)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct BottleneckParams {
    /// How far back; 24 unless something else is said
    #[param(minimum = 1, maximum = 744)]
    hours: Option<u32>,
    /// Entries of each list; 10 unless something else is said
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// What ended less often is left out; 5 unless something else is said
    #[param(minimum = 1, maximum = 1_000_000)]
    min_executions: Option<u64>,
    /// Only of this namespace
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
    /// Only of workflows of the template of this name
    #[param(min_length = 1, max_length = 256)]
    template: Option<String>,
    /// Only of this handler; workflows have none
    #[param(min_length = 1, max_length = 256)]
    handler: Option<String>,
    /// Only of this queue; workflows have none
    #[param(min_length = 1, max_length = 256)]
    queue: Option<String>,
    /// Count all from the rows of jobs and workflows, believe no roll-up and no cache: it takes as long as the window is full
    exact: Option<bool>,
}

/// What is slow, what fails, and what follows from that
#[utoipa::path(get, path = "/v1/analytics/bottlenecks", tag = "analytics", operation_id = "bottlenecks", params(BottleneckParams),
    responses((status = 200, description = "The report; without executions it says so", body = BottleneckReport)))]
async fn bottlenecks(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<BottleneckParams>,
) -> Result<Json<BottleneckReport>, Refusal> {
    let default = BottlenecksRequest::default();
    let request = BottlenecksRequest {
        hours: asked.hours.unwrap_or(default.hours),
        limit: asked.limit.unwrap_or(default.limit),
        min_executions: asked.min_executions.unwrap_or(default.min_executions),
        filter: Filter {
            namespace: caller.list_namespace(asked.namespace)?,
            template: asked.template,
            handler: asked.handler,
            queue: asked.queue,
        },
    };
    let found = if asked.exact == Some(true) {
        Arc::new(bottlenecks_of(app.store(), &request, true).await?)
    } else {
        app.engine().bottlenecks(&request).await?
    };
    Ok(Json(documents::bottlenecks(&request, &found)))
}

/// Where a figure of one of the reports comes from
///
/// Calculated twice, past the cache: from roll-ups, and from all rows of the window. They differ where jobs were removed, or run again, after
/// their minute was folded.
#[utoipa::path(get, path = "/v1/analytics/explain/{figure}", tag = "analytics", operation_id = "explain_figure",
    params(("figure" = String, Path, description = "As the report calls it: `completion_rate`"), WindowParams),
    responses((status = 200, description = "Formula, inputs, both values", body = FigureExplanation)))]
async fn explain(
    State(app): State<App>,
    caller: Caller,
    Id(figure): Id<Figure>,
    Params(asked): Params<WindowParams>,
) -> Result<Json<FigureExplanation>, Refusal> {
    let is_exact = asked.exact == Some(true);
    let request = asked.request(&caller)?;
    let (report, exact) = if figure.is_of_bottlenecks() {
        let PerformanceRequest { hours, filter } = request;
        let request = BottlenecksRequest { hours, filter, ..BottlenecksRequest::default() };
        let report = |found| Report::Bottlenecks(Box::new(documents::bottlenecks(&request, found)));
        let rolled_up = bottlenecks_of(app.store(), &request, is_exact).await?;
        (report(&rolled_up), report(&bottlenecks_of(app.store(), &request, true).await?))
    } else {
        let report = |found| Report::Performance(Box::new(documents::performance(&request, found)));
        let rolled_up = performance_of(app.store(), &request, is_exact).await?;
        (report(&rolled_up), report(&performance_of(app.store(), &request, true).await?))
    };
    Ok(Json(documents::figure_explanation(figure, &report, &exact)))
}
