//! The permission of a route, checked before its handler.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::Identified;
use crate::access::{Caller, Permission, check_origin};
use crate::refusal::{Code, Refusal};
use crate::state::App;

/// Lets in whoever has the permission somewhere. Where exactly is for the handler to ask, which knows what is touched.
pub(crate) async fn permit(permission: Permission, mut request: Request, next: Next) -> Response {
    // Without the frame around it nobody is known, and the answer is no.
    let identified = request.extensions_mut().remove::<Identified>();
    let (Some(app), Some(Identified(identified))) = (request.extensions().get::<App>(), identified) else {
        return Refusal::internal().into_response();
    };
    let checked = check_origin(request.headers(), app.gate().is_open());
    let identity = match checked.and(identified) {
        Ok(identity) => identity,
        Err(refusal) => return refusal.into_response(),
    };
    if !identity.grants.allow(permission) {
        let detail = format!("`{permission}` is not permitted to `{}`", identity.name);
        return Refusal::new(Code::Forbidden, detail).into_response();
    }
    request.extensions_mut().insert(Caller { identity, permission });
    next.run(request).await
}
