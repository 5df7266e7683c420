//! Views.

use std::time::Duration;

use serde::Serialize;

use super::call::Call;
use super::{Client, Result, ViewBuildsQuery, ViewsQuery};
use crate::view::{ItemRead, Touched, ViewDetails, ViewHistory, ViewList};
use crate::view_request::TouchView;

#[derive(Serialize)]
struct ItemQuery {
    min_version: Option<i64>,
}

impl Client {
    /// A page of views, by namespace and key.
    pub async fn views(&self, query: &ViewsQuery) -> Result<ViewList> {
        self.call(Call::get(&["v1", "views"]).query(query)?).await
    }

    /// A view with its build and its last generations.
    pub async fn view(&self, namespace: &str, key: &str) -> Result<ViewDetails> {
        self.call(Call::get(&["v1", "views", namespace, key])).await
    }

    /// Says that a view's inputs changed.
    pub async fn touch_view(&self, namespace: &str, key: &str, touch: &TouchView) -> Result<Touched> {
        self.call(Call::post(&["v1", "views", namespace, key, "touch"], touch)?).await
    }

    /// A page of the builds of a view, newest first.
    pub async fn view_history(
        &self,
        namespace: &str,
        key: &str,
        query: &ViewBuildsQuery,
    ) -> Result<ViewHistory> {
        self.call(Call::get(&["v1", "views", namespace, key, "history"]).query(query)?).await
    }

    /// One item of the live generation: of `min_version` or a newer one, which is waited for as long as `wait` says.
    pub async fn view_item(
        &self,
        namespace: &str,
        key: &str,
        item: &str,
        min_version: Option<i64>,
        wait: Option<Duration>,
    ) -> Result<ItemRead> {
        let call = Call::get(&["v1", "views", namespace, key, "items", item]);
        self.call(call.query(&ItemQuery { min_version })?.wait(wait)).await
    }
}
