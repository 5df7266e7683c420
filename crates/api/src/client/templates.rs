//! Templates.

use super::call::Call;
use super::{Client, Result, TemplatesQuery};
use crate::template::{TemplateDetails, TemplateList, TemplatesApplied};

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

    /// Stores a template, in YAML or JSON as it was written.
    pub async fn put_template(&self, text: &str) -> Result<TemplatesApplied> {
        self.call(Call::put_text(&["v1", "templates"], "application/yaml", text)).await
    }
}
