//! Templates: what is stored, whether a file is right, what changed, how the steps hang together.

use serde::{Deserialize, Serialize};

use crate::{Instant, Json};

/// A template without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateSummary {
    /// Who it belongs to.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Of its canonical form, in hexadecimal.
    pub digest: String,
    /// When it was stored; `null` outside of a list.
    pub created_at: Option<Instant>,
}

/// Stored templates: by namespace and name, the newest version first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateList {
    /// [`TemplateList::SCHEMA`]
    pub schema: String,
    /// At most as many as were asked for.
    pub templates: Vec<TemplateSummary>,
    /// Whether there are more.
    pub has_more: bool,
    /// Where the next page begins. `null` on the last page.
    pub next: Option<String>,
}

impl TemplateList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.templates.v1";

    /// A list.
    pub fn new(templates: Vec<TemplateSummary>, next: Option<String>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), templates, has_more: next.is_some(), next }
    }
}

/// A template with its content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateDetails {
    /// [`TemplateDetails::SCHEMA`]
    pub schema: String,
    /// Which one.
    pub template: TemplateSummary,
    /// Its canonical form.
    pub content: Json,
    /// Names of its environments.
    pub environments: Vec<String>,
    /// What it asks for and this version does not run.
    pub unsupported: Vec<TemplateProblem>,
}

impl TemplateDetails {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.template.v1";

    /// A template with its content.
    pub fn new(
        template: TemplateSummary,
        content: Json,
        environments: Vec<String>,
        unsupported: Vec<TemplateProblem>,
    ) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), template, content, environments, unsupported }
    }
}

/// Something about a template that is wrong, or deserves a look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateProblem {
    /// A stable word for the kind of problem, such as `unknown_field`.
    pub code: String,
    /// What it is.
    pub message: String,
    /// Line, from 1; `null` where there is no source.
    pub line: Option<u32>,
    /// Column in characters, from 1.
    pub column: Option<u32>,
    /// JSON pointer to the value.
    pub path: String,
    /// What to do about it.
    pub suggestion: Option<String>,
}

/// Whether files hold right templates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateChecks {
    /// [`TemplateChecks::SCHEMA`]
    pub schema: String,
    /// One for each file, in the order in which they were named.
    pub files: Vec<TemplateCheck>,
}

impl TemplateChecks {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.template-checks.v1";

    /// What came of checking these files.
    pub fn new(files: Vec<TemplateCheck>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), files }
    }
}

/// Whether one file holds a right template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateCheck {
    /// The file, as it was named.
    pub file: String,
    /// The template; `null` when it is wrong.
    pub template: Option<TemplateSummary>,
    /// What is wrong with it.
    pub problems: Vec<TemplateProblem>,
    /// What was forgiven.
    pub warnings: Vec<TemplateProblem>,
    /// What it asks for and this version does not run.
    pub unsupported: Vec<TemplateProblem>,
}

/// What storing templates did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplatesApplied {
    /// [`TemplatesApplied::SCHEMA`]
    pub schema: String,
    /// One for each, in the order in which they were named.
    pub templates: Vec<TemplateApplied>,
}

impl TemplatesApplied {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.templates-applied.v1";

    /// What a call did.
    pub fn new(templates: Vec<TemplateApplied>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), templates }
    }
}

/// What storing one template did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateApplied {
    /// Which one.
    pub template: TemplateSummary,
    /// Whether this call stored it; `false` when the same was there, or nothing was to be changed.
    pub changed: bool,
}

/// What changed from one template to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateDiff {
    /// [`TemplateDiff::SCHEMA`]
    pub schema: String,
    /// The one before.
    pub old: TemplateSummary,
    /// The other one.
    pub new: TemplateSummary,
    /// Fields of the template itself.
    pub fields: Vec<TemplateFieldChange>,
    /// Steps.
    pub steps: Vec<TemplateStepChange>,
    /// Whether steps that are in both stand in another order.
    pub is_reordered: bool,
}

impl TemplateDiff {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.template-diff.v1";
}

/// A field whose value changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateFieldChange {
    /// The way to it: `retry.max_attempts`.
    pub path: String,
    /// Its value before; `null` when it was not given.
    pub old: Option<Json>,
    /// Its value now; `null` when it is not given.
    pub new: Option<Json>,
}

/// A step that changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateStepChange {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub change: TemplateChange,
    /// Which fields, when it was changed.
    pub fields: Vec<TemplateFieldChange>,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TemplateChange {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Some of its fields changed.
    Changed,
}

/// How a template's steps hang together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TemplateGraph {
    /// [`TemplateGraph::SCHEMA`]
    pub schema: String,
    /// Which one.
    pub template: TemplateSummary,
    /// Names of steps by levels: those of one level do not wait for each other.
    pub levels: Vec<Vec<String>>,
    /// Who waits for whom: the step that is waited for, then the one that waits.
    pub lines: Vec<[String; 2]>,
}

impl TemplateGraph {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.template-graph.v1";

    /// A template's steps.
    pub fn new(template: TemplateSummary, levels: Vec<Vec<String>>, lines: Vec<[String; 2]>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), template, levels, lines }
    }
}
