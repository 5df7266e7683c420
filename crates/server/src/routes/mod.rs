//! The routes, by noun, and how one is added.
//!
//! A route is an ordinary async function with `#[utoipa::path]` above it, which says method, path, parameters, body and answers; the
//! API's description is made from that. It is mounted in its noun's `routes()` with the permission that it needs, and there is
//! no way to mount one without:
//!
//! ```ignore
//! pub(crate) fn routes() -> Routes {
//!     Routes::new()
//!         .read(READ, routes!(list))
//!         .write_keyed(WRITE, routes!(submit))
//!         .write_once(OPERATE, routes!(cancel))
//! }
//! ```
//!
//! * [`Routes::read`] is for what changes nothing.
//! * [`Routes::write_once`] is for a write; the frame honours its `Idempotency-Key`, and carries it out to its end whether or not the
//!   caller waits. Whatever the handler makes gets its id from [`Seed`](crate::frame::Seed).
//! * [`Routes::write_often`] is the same for what is asked often and is not [`audited`](crate::audited::audited): without a key the
//!   frame adds nothing to it.
//! * [`Routes::write_keyed`] is for a write whose handler honours the key by itself, in the same transaction as the change
//!   ([`Key`](crate::frame::Key)).
//! * [`Routes::repeatable`] is for calls of workers, which say by job, token and sequence what they repeat; they take no key.
//! * [`Routes::open`] is for what anybody may see, [`Routes::open_pages`] for pages beside the description. A test holds the list of those.
//!
//! A handler takes [`Input`](crate::input::Input) for its body and [`Params`](crate::input::Params) for its query: types that derive
//! `Deserialize`, `ToSchema` or `IntoParams`, with `#[serde(deny_unknown_fields)]`, and limits as `#[schema(…)]` or `#[param(…)]`; those
//! are held, not only published. It asks its [`Caller`](crate::access::Caller) about the namespace: `check_namespace` for one that the
//! caller names, `check_found` for one of a thing that was found, `list_namespace` for a list. What an operator does goes through
//! [`audited`](crate::audited::audited). It answers a document of [`recache_api`], made by [`crate::documents`], or a
//! [`Refusal`](crate::refusal::Refusal); `?` turns the errors of store and engine into one. A list goes on where its
//! [cursor](crate::input::cursor) says. What an operation may be refused with follows from all that ([`refusals`]); what does not follow, such as
//! that a drawing may be too large, stands among its `responses` as a status with a description.

mod analytics;
mod audit;
mod batches;
mod bulk_jobs;
mod cache;
mod description;
mod drawn;
mod events;
mod handlers;
mod health;
mod jobs;
mod letters;
mod metrics;
mod page;
mod queues;
mod refusals;
mod schedules;
mod steps;
mod subscribers;
mod templates;
mod tracked;
mod view_patterns;
mod views;
mod webhooks;
mod workflows;

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use recache_api::FieldProblem;
use serde_json::{Value, json};
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{RefOr, Required};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt as _};

use self::refusals::Kind;
use crate::access::Permission;
use crate::frame::{frame, once, once_with_key, permit};
use crate::input::schema::allow_null;
use crate::refusal::{Code, Refusal};
use crate::state::App;
use crate::worker_protocol;

/// Where the permission of a route stands in the API's description.
const PERMISSION: &str = "x-permission";

/// Rows that a change by filter goes through in one request; the answer says where to go on.
const BULK_ROWS_MAX: u32 = 5_000;
/// After so long a change of many rows answers with what it has done so far.
const BULK_TIME_MAX: Duration = Duration::from_secs(5);

/// Everything that is served.
fn all() -> Routes {
    Routes::new()
        .merge(jobs::routes())
        .merge(bulk_jobs::routes())
        .merge(tracked::routes())
        .merge(batches::routes())
        .merge(queues::routes())
        .merge(letters::routes())
        .merge(schedules::routes())
        .merge(view_patterns::routes())
        .merge(views::routes())
        .merge(worker_protocol::routes())
        .merge(workflows::routes())
        .merge(templates::routes())
        .merge(analytics::routes())
        .merge(handlers::routes())
        .merge(cache::routes())
        .merge(events::routes())
        .merge(subscribers::routes())
        .merge(webhooks::routes())
        .merge(audit::routes())
        .merge(health::routes())
        .merge(metrics::routes())
        .merge(description::routes())
}

/// The description of the API, as it is served.
pub fn api() -> Value {
    let mut api = json!(description::complete(all().router.into_openapi()));
    allow_null(&mut api);
    api
}

/// Every permission that some route needs.
pub fn permissions() -> BTreeSet<Permission> {
    all().permissions
}

/// Where pages for people stand that anybody may look at; the description has no operation for them.
pub fn open_pages() -> Vec<&'static str> {
    all().beside.into_iter().map(|(path, _)| path).collect()
}

/// All figures, as they are now.
pub(crate) async fn figures(app: &App) -> Result<String, Refusal> {
    metrics::text(app).await
}

/// All routes with what stands around them.
pub fn router(app: App) -> Router {
    let Routes { router, beside, .. } = all();
    let (router, _) = router.split_for_parts();
    beside
        .into_iter()
        .fold(router, |router, (_, pages)| router.merge(pages))
        .fallback(|| async { Refusal::new(Code::NotFound, "no route has this path") })
        .layer(from_fn_with_state(app.clone(), frame))
        .with_state(app)
}

/// Routes with their permissions.
pub(crate) struct Routes {
    router: OpenApiRouter<App>,
    permissions: BTreeSet<Permission>,
    /// What the description has no operation for, and below which path it stands.
    beside: Vec<(&'static str, Router<App>)>,
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self { router: OpenApiRouter::default(), permissions: BTreeSet::new(), beside: Vec::new() }
    }

    /// A route that changes nothing.
    pub(crate) fn read(self, permission: Permission, route: UtoipaMethodRouter<App>) -> Self {
        self.add(permission, Kind::Guarded, route)
    }

    /// A call that changes something and is safe to repeat by what it says: it takes no idempotency key.
    pub(crate) fn repeatable(self, permission: Permission, route: UtoipaMethodRouter<App>) -> Self {
        self.add(permission, Kind::OfWorkers, route)
    }

    /// A write whose handler honours the idempotency key.
    pub(crate) fn write_keyed(self, permission: Permission, mut route: UtoipaMethodRouter<App>) -> Self {
        each_operation(&mut route, |operation, _| add_key(operation));
        self.add(permission, Kind::Keyed, route)
    }

    /// A write that the frame carries out once for its idempotency key.
    pub(crate) fn write_once(self, permission: Permission, mut route: UtoipaMethodRouter<App>) -> Self {
        each_operation(&mut route, |operation, _| add_key(operation));
        self.add(permission, Kind::Keyed, route.map(|method| method.route_layer(from_fn(once))))
    }

    /// The same for what is asked often: without a key it goes straight to its handler.
    pub(crate) fn write_often(self, permission: Permission, mut route: UtoipaMethodRouter<App>) -> Self {
        each_operation(&mut route, |operation, _| add_key(operation));
        self.add(permission, Kind::Keyed, route.map(|method| method.route_layer(from_fn(once_with_key))))
    }

    /// A route that anybody may use.
    pub(crate) fn open(mut self, mut route: UtoipaMethodRouter<App>) -> Self {
        each_operation(&mut route, |operation, is_read| {
            operation.security = Some(Vec::new());
            refusals::document(operation, is_read, Kind::Open);
        });
        self.router = self.router.routes(route);
        self
    }

    /// Pages below this path that anybody may look at. They know nothing of what is in the store.
    pub(crate) fn open_pages(mut self, path: &'static str, pages: Router<App>) -> Self {
        self.beside.push((path, pages));
        self
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.permissions.extend(other.permissions);
        self.beside.extend(other.beside);
        self
    }

    fn add(mut self, permission: Permission, kind: Kind, mut route: UtoipaMethodRouter<App>) -> Self {
        each_operation(&mut route, |operation, is_read| {
            operation.security = Some(vec![SecurityRequirement::new("bearer", [permission.to_string()])]);
            let extension = ExtensionsBuilder::new().add(PERMISSION, json!(permission.to_string())).build();
            operation.extensions.get_or_insert_default().merge(extension);
            refusals::document(operation, is_read, kind);
        });
        self.permissions.insert(permission);
        let enter = from_fn(move |request, next| permit(permission, request, next));
        self.router = self.router.routes(route.map(|method| method.route_layer(enter)));
        self
    }
}

/// Why an operator does something, as it is kept.
fn reason_or(given: Option<String>, default: &str) -> String {
    given.unwrap_or_else(|| default.to_owned())
}

/// Fields of a body are wrong.
pub(crate) fn wrong(problems: &[FieldProblem]) -> Refusal {
    let said: Vec<_> = problems.iter().map(|one| format!("`{}` {}", one.pointer, one.message)).collect();
    Refusal::new(Code::Invalid, said.join("; ")).errors(problems.to_vec())
}

/// Each with whether it only reads.
fn each_operation(route: &mut UtoipaMethodRouter<App>, mut change: impl FnMut(&mut Operation, bool)) {
    for path in route.1.paths.values_mut() {
        for operation in
            [&mut path.get, &mut path.head, &mut path.options, &mut path.trace].into_iter().flatten()
        {
            change(operation, true);
        }
        for operation in
            [&mut path.put, &mut path.post, &mut path.delete, &mut path.patch].into_iter().flatten()
        {
            change(operation, false);
        }
    }
}

fn add_key(operation: &mut Operation) {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(recache_model::unique::KEY_BYTES_MAX));
    let parameter = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("Makes the request safe to repeat for 7 days: it is carried out once."))
        .schema(Some(schema))
        .build();
    operation.parameters.get_or_insert_default().push(RefOr::T(parameter));
}
