//! The trace that a request belongs to.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use recache_model::trace::{TraceContext, is_kept};

use crate::state::App;

/// The header of W3C Trace Context.
const TRACEPARENT: &str = "traceparent";

/// The request's own span, and the caller's above it. `None`: nobody traces it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trace {
    pub(crate) own: Option<TraceContext>,
    pub(crate) parent: Option<TraceContext>,
}

impl Trace {
    /// Of a request with these headers. A caller's trace is carried on whether we trace or not, then with the caller's own span.
    pub(super) fn of(headers: &HeaderMap, per_mille: u32) -> Self {
        let given = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let parent = given.and_then(|text| text.parse::<TraceContext>().ok());
        let own = match parent {
            _ if per_mille == 0 => parent,
            Some(parent) => Some(parent.child(rand::random())),
            None => {
                let trace = rand::random();
                Some(TraceContext::begin(trace, rand::random(), is_kept(trace, per_mille)))
            }
        };
        Self { own, parent: parent.filter(|_| per_mille > 0) }
    }

    /// What is made later because of this request is tied to it, if it is kept.
    pub(crate) fn kept(self) -> Vec<String> {
        self.own.filter(|own| own.is_sampled()).map(|own| own.to_string()).into_iter().collect()
    }

    /// What jobs of this request are given.
    pub(crate) fn text(self) -> Option<String> {
        self.own.map(|own| own.to_string())
    }
}

impl FromRequestParts<App> for Trace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_trace_is_carried_on_and_a_new_one_is_begun_where_we_trace() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = [(TRACEPARENT.parse().unwrap(), text.parse().unwrap())].into_iter().collect();
        assert_eq!(Trace::of(&headers, 0).text().as_deref(), Some(text));
        let traced = Trace::of(&headers, 1_000);
        assert_eq!(traced.own.unwrap().trace_id(), text[3..35]);
        assert_ne!(traced.own, traced.parent);
        assert_eq!(Trace::of(&HeaderMap::new(), 0).text(), None);
        assert!(Trace::of(&HeaderMap::new(), 1_000).own.unwrap().is_sampled());
        let bad = [(TRACEPARENT.parse().unwrap(), "00-1".parse().unwrap())].into_iter().collect();
        assert_eq!(Trace::of(&bad, 0).text(), None);
    }
}
