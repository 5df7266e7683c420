//! Views.

use std::time::Duration;

use serde::Serialize;

use super::call::Call;
use super::{Client, Result, ViewBuildsQuery, ViewDiffQuery, ViewItemsQuery, ViewsQuery};
use crate::job_request::Because;
use crate::view::{
    ItemList, ItemRead, Touched, TouchedViews, ViewChange, ViewDetails, ViewDiff, ViewExplanation,
    ViewHistory, ViewList, ViewPatternList, ViewRestored, ViewSources, ViewsMatching,
};
use crate::view_request::{
    DefineView, DeriveView, ReadItems, RollBackView, TouchMatching, TouchView, TouchViews,
};

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
        self.call(Call::post(&["v1", "views", namespace, key, "touch"], touch)?.without_key()).await
    }

    /// Touches up to 1,000 views, all or none.
    pub async fn touch_views(&self, which: &TouchViews) -> Result<TouchedViews> {
        self.call(Call::post(&["v1", "touches"], which)?.without_key()).await
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

    /// A page of the items of one generation, by key: the live one where nothing else is said.
    pub async fn view_items(&self, namespace: &str, key: &str, query: &ViewItemsQuery) -> Result<ItemList> {
        self.call(Call::get(&["v1", "views", namespace, key, "items"]).query(query)?).await
    }

    /// The first page of the items of `min_version` or a newer one, as `query` says, which is waited for as long as `wait` says.
    pub async fn view_items_since(
        &self,
        namespace: &str,
        key: &str,
        query: &ViewItemsQuery,
        wait: Duration,
    ) -> Result<ItemList> {
        let call = Call::get(&["v1", "views", namespace, key, "items"]);
        self.call(call.query(query)?.wait(Some(wait))).await
    }

    /// Items by their keys, at most 1,000 and all of one generation: those that it has, in the order in which they are asked for. Of `min_version` or
    /// a newer one, which is waited for as long as `wait` says.
    pub async fn read_view_items(
        &self,
        namespace: &str,
        key: &str,
        items: &ReadItems,
        wait: Option<Duration>,
    ) -> Result<ItemList> {
        let call = Call::post(&["v1", "views", namespace, key, "read"], items)?;
        self.call(call.without_key().wait(wait)).await
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

    /// Creates a view, or changes how it is built.
    pub async fn define_view(&self, namespace: &str, key: &str, view: &DefineView) -> Result<ViewDetails> {
        self.call(Call::put(&["v1", "views", namespace, key], view)?).await
    }

    /// Says from which others a view is made.
    pub async fn derive_view(&self, namespace: &str, key: &str, from: &DeriveView) -> Result<ViewSources> {
        self.call(Call::put(&["v1", "views", namespace, key, "sources"], from)?).await
    }

    /// Why a view is behind, and what it waits for.
    pub async fn explain_view(&self, namespace: &str, key: &str) -> Result<ViewExplanation> {
        self.call(Call::get(&["v1", "views", namespace, key, "explain"])).await
    }

    /// At which items two generations differ.
    pub async fn view_diff(&self, namespace: &str, key: &str, query: &ViewDiffQuery) -> Result<ViewDiff> {
        self.call(Call::get(&["v1", "views", namespace, key, "diff"]).query(query)?).await
    }

    /// Builds a view anew at once.
    pub async fn rebuild_view(&self, namespace: &str, key: &str, because: &Because) -> Result<Touched> {
        self.call(Call::post(&["v1", "views", namespace, key, "rebuild"], because)?).await
    }

    /// Lets no build of a view begin.
    pub async fn pause_view(&self, namespace: &str, key: &str, because: &Because) -> Result<ViewChange> {
        self.call(Call::post(&["v1", "views", namespace, key, "pause"], because)?).await
    }

    /// Lets its builds begin again.
    pub async fn resume_view(&self, namespace: &str, key: &str, because: &Because) -> Result<ViewChange> {
        self.call(Call::post(&["v1", "views", namespace, key, "resume"], because)?).await
    }

    /// Makes the content of an older generation live again, and pauses the view.
    pub async fn roll_view_back(
        &self,
        namespace: &str,
        key: &str,
        to: &RollBackView,
    ) -> Result<ViewRestored> {
        self.call(Call::post(&["v1", "views", namespace, key, "rollback"], to)?).await
    }

    /// Removes a view with all its generations.
    pub async fn delete_view(&self, namespace: &str, key: &str, because: &Because) -> Result<ViewChange> {
        self.call(Call::delete(&["v1", "views", namespace, key]).query(because)?).await
    }

    /// Creates or changes a pattern of views. Answers how many views changed with it.
    pub async fn define_view_pattern(
        &self,
        namespace: &str,
        pattern: &str,
        view: &DefineView,
    ) -> Result<ViewsMatching> {
        self.call(Call::put(&["v1", "view-patterns", namespace, pattern], view)?).await
    }

    /// A page of patterns of views.
    pub async fn view_patterns(&self, query: &ViewsQuery) -> Result<ViewPatternList> {
        self.call(Call::get(&["v1", "view-patterns"]).query(query)?).await
    }

    /// Touches every view that is there and that the pattern covers.
    pub async fn touch_matching(
        &self,
        namespace: &str,
        pattern: &str,
        touch: &TouchMatching,
    ) -> Result<ViewsMatching> {
        self.call(Call::post(&["v1", "view-patterns", namespace, pattern, "touch"], touch)?).await
    }

    /// Removes a pattern; the views that were made from it stay.
    pub async fn delete_view_pattern(
        &self,
        namespace: &str,
        pattern: &str,
        because: &Because,
    ) -> Result<ViewChange> {
        self.call(Call::delete(&["v1", "view-patterns", namespace, pattern]).query(because)?).await
    }
}
