//! Templates.

use super::call::Call;
use super::{Client, PutTemplate, Result, TemplatesQuery};
use crate::analysis::GraphAnalysis;
use crate::template::{
    TemplateChecks, TemplateDetails, TemplateDiff, TemplateGraph, TemplateList, TemplatesApplied,
};

impl Client {
    /// Templates by namespace and name, the newest version of each first.
    pub async fn templates(&self, query: &TemplatesQuery) -> Result<TemplateList> {
        self.call(Call::get(&["v1", "templates"]).query(query)?).await
    }

    /// A template with its content; without a version the newest.
    pub async fn template(
        &self,
        namespace: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<TemplateDetails> {
        let query = serde_json::json!({ "version": version });
        self.call(Call::get(&["v1", "templates", namespace, name]).query(&query)?).await
    }

    /// The versions of a template, the newest first; at most `limit` of them, 1 to 1,000.
    pub async fn template_versions(
        &self,
        namespace: &str,
        name: &str,
        limit: Option<u32>,
    ) -> Result<TemplateList> {
        let query = serde_json::json!({ "limit": limit });
        self.call(Call::get(&["v1", "templates", namespace, name, "versions"]).query(&query)?).await
    }

    /// How the steps of a template hang together; without a version of the newest.
    pub async fn template_graph(
        &self,
        namespace: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<TemplateGraph> {
        let query = serde_json::json!({ "version": version });
        self.call(Call::get(&["v1", "templates", namespace, name, "graph"]).query(&query)?).await
    }

    /// What changed from one version to another, or to the newest.
    pub async fn template_diff(
        &self,
        namespace: &str,
        name: &str,
        from: &str,
        to: Option<&str>,
    ) -> Result<TemplateDiff> {
        let query = serde_json::json!({ "from": from, "to": to });
        self.call(Call::get(&["v1", "templates", namespace, name, "diff"]).query(&query)?).await
    }

    /// Stores a template, in YAML or JSON as it was written.
    pub async fn put_template(&self, text: &str, how: PutTemplate) -> Result<TemplatesApplied> {
        self.call(Call::put_text(&["v1", "templates"], "application/yaml", text).query(&how)?).await
    }

    /// What the server says of a template: everything that is wrong at once, each with its place.
    pub async fn check_template(&self, text: &str, lenient: bool) -> Result<TemplateChecks> {
        let call = Call::post_text(&["v1", "templates", "check"], "application/yaml", text);
        self.call(call.query(&serde_json::json!({ "lenient": lenient }))?).await
    }

    /// Critical path and parallelism of a stored template, by what its earlier workflows took; without a version of the newest.
    pub async fn analyze_template(
        &self,
        namespace: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<GraphAnalysis> {
        let query = serde_json::json!({ "version": version });
        self.call(Call::get(&["v1", "templates", namespace, name, "analysis"]).query(&query)?).await
    }

    /// The same of one that is sent along and not stored.
    pub async fn analyze_template_text(&self, text: &str) -> Result<GraphAnalysis> {
        self.call(Call::post_text(&["v1", "templates", "analysis"], "application/yaml", text)).await
    }
}
