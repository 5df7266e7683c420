//! The API's description, and the explorer that reads it without a look elsewhere.

use std::sync::LazyLock;

use axum::Router;
use axum::http::header;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema as _;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, Info, License, OpenApi};
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::Routes;
use crate::state::App;

/// Where the description is.
const PATH: &str = "/v1/openapi.json";

/// Where the explorer stands.
const PAGES: &str = "/docs";

pub(super) fn routes() -> Routes {
    Routes::new().open(routes!(openapi)).open_pages(PAGES, explorer())
}

/// The description of this API: OpenAPI 3.1
#[utoipa::path(get, path = "/v1/openapi.json", tag = "description",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
async fn openapi() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| super::api().to_string());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

/// The explorer.
fn explorer() -> Router<App> {
    let config = Config::from(PATH).try_it_out_enabled(true).persist_authorization(false);
    let explorer: Router<App> = SwaggerUi::new(PAGES).config(config).into();
    explorer.layer(from_fn(relax))
}

/// Its styles are written into its pages; its scripts are not.
async fn relax(request: axum::extract::Request, next: Next) -> Response {
    let policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                  connect-src 'self'; font-src 'self'; frame-ancestors 'none'; base-uri 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], next.run(request).await).into_response()
}

/// Adds what does not come from routes.
pub(super) fn complete(mut api: OpenApi) -> OpenApi {
    let mut info = Info::new("Recache", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "Background work that keeps caches right: jobs, workflows, views. Errors are problem+json with a stable `code`. \
         Fields may be added to answers; none changes its meaning or goes away."
            .to_owned(),
    );
    info.license = Some(License::new("MIT OR Apache-2.0"));
    api.info = info;
    let components = api.components.get_or_insert_with(Components::new);
    let mut parts = vec![("Problem".to_owned(), <recache_api::Problem as utoipa::PartialSchema>::schema())];
    recache_api::Problem::schemas(&mut parts);
    // What stands in a stream of events beside the events.
    parts.push(("StreamGap".to_owned(), <recache_api::StreamGap as utoipa::PartialSchema>::schema()));
    parts.push(("StreamEnd".to_owned(), <recache_api::StreamEnd as utoipa::PartialSchema>::schema()));
    components.schemas.extend(parts);
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key (`recache token create`) or a JWT."))
        .build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    api
}
