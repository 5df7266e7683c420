//! The shape of a template: every field there is. The reader reads by these lists, and [`fields`] shows them, so that
//! what is documented, tested and accepted cannot differ.

use super::fields::{Field, Inside, Schema};

/// One field of the shape.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShapeField {
    /// Its way from the document's root: `steps[].retry.max_attempts`; `environments.*` stands for any name.
    pub path: String,
    /// Other names that it goes by.
    pub aliases: &'static [&'static str],
    /// Whether it only tells people and tools something: it changes nothing about how a workflow runs.
    pub is_note: bool,
}

/// Every field of the shape, each before what it holds.
pub fn fields() -> Vec<ShapeField> {
    let mut found = Vec::new();
    walk(&TEMPLATE, "", false, &mut found);
    found
}

fn walk(schema: &Schema, prefix: &str, is_note: bool, found: &mut Vec<ShapeField>) {
    for field in schema.fields {
        let path = format!("{prefix}{}", field.name);
        let is_note = is_note || field.is_note;
        found.push(ShapeField { path: path.clone(), aliases: field.aliases, is_note });
        match field.inside {
            Inside::Value => {}
            Inside::Object(schema) => walk(schema, &format!("{path}."), is_note, found),
            Inside::List(schema) => walk(schema, &format!("{path}[]."), is_note, found),
            Inside::Named(schema) => walk(schema, &format!("{path}.*."), is_note, found),
        }
    }
}

const fn closed(what: &'static str, fields: &'static [Field]) -> Schema {
    Schema { what, fields, is_open: false }
}

pub(super) const TEMPLATE: Schema = closed(
    "the template",
    &[
        Field::new("name"),
        Field::new("namespace_name").alias(&["namespace"]),
        Field::new("version"),
        Field::new("description").note(),
        Field::new("metadata").holds(Inside::Object(&METADATA)).note(),
        Field::new("system_dependencies").holds(Inside::Object(&SYSTEM_DEPENDENCIES)).note(),
        Field::new("domain_events").holds(Inside::List(&DOMAIN_EVENT)).placed(),
        Field::new("input_schema").placed(),
        Field::new("steps").holds(Inside::List(&STEP)),
        Field::new("environments").holds(Inside::Named(&ENVIRONMENT)),
        Field::new("lifecycle").holds(Inside::Object(&LIFECYCLE)).placed(),
    ],
);

pub(super) const METADATA: Schema = Schema {
    what: "the metadata",
    fields: &[
        Field::new("author"),
        Field::new("tags"),
        Field::new("documentation_url"),
        Field::new("created_at"),
        Field::new("updated_at"),
        Field::new("notes"),
    ],
    is_open: true,
};

pub(super) const SYSTEM_DEPENDENCIES: Schema =
    closed("`system_dependencies`", &[Field::new("primary"), Field::new("secondary")]);

pub(super) const DOMAIN_EVENT: Schema = closed(
    "the domain event",
    &[Field::new("name").placed(), Field::new("description").note(), Field::new("schema")],
);

pub(super) const LIFECYCLE: Schema = closed(
    "the lifecycle",
    &[
        Field::new("max_duration_minutes").placed(),
        Field::new("max_waiting_for_dependencies_minutes"),
        Field::new("max_waiting_for_retry_minutes").placed(),
        Field::new("max_steps_in_process_minutes").placed(),
        Field::new("staleness_action"),
        Field::new("auto_fail_on_timeout"),
        Field::new("auto_dlq_on_timeout"),
    ],
);

pub(super) const STEP: Schema = closed(
    "the step",
    &[
        Field::new("name"),
        Field::new("description").note(),
        Field::new("handler").holds(Inside::Object(&HANDLER)).placed(),
        Field::new("type").alias(&["step_type"]).placed(),
        Field::new("system_dependency").note(),
        Field::new("dependencies").alias(&["depends_on", "depends_on_step", "depends_on_steps"]).placed(),
        Field::new("retry").holds(Inside::Object(&RETRY)).placed(),
        Field::new("timeout_seconds").placed(),
        Field::new("queue"),
        Field::new("priority"),
        Field::new("publishes_events").holds(Inside::List(&PUBLISHED_EVENT)).placed(),
        Field::new("batch_config").holds(Inside::Object(&BATCH)).placed(),
        Field::new("result_schema").placed(),
        Field::new("lifecycle").holds(Inside::Object(&LIFECYCLE)).placed(),
        Field::new("when").placed(),
        Field::new("for_each").holds(Inside::Object(&FOR_EACH)).placed(),
        Field::new("concurrency_key").holds(Inside::Object(&CONCURRENCY)).placed(),
        Field::new("rate_limit").holds(Inside::Object(&RATE_LIMIT)).placed(),
        Field::new("wait_for").holds(Inside::Object(&WAIT_FOR)).placed(),
        Field::new("workflow").holds(Inside::Object(&WORKFLOW)).placed(),
        Field::new("cache").holds(Inside::Object(&CACHE)).placed(),
    ],
);

pub(super) const HANDLER: Schema = closed(
    "the handler",
    &[
        Field::new("callable"),
        Field::new("method").placed(),
        Field::new("resolver").placed(),
        Field::new("initialization"),
    ],
);

pub(super) const RETRY: Schema = closed(
    "the retry policy",
    &[
        Field::new("retryable"),
        Field::new("max_attempts").alias(&["limit"]),
        Field::new("backoff"),
        Field::new("backoff_base_ms").alias(&["initial_delay"]),
        Field::new("max_backoff_ms").alias(&["max_delay"]),
        Field::new("jitter"),
    ],
);

pub(super) const PUBLISHED_EVENT: Schema = closed(
    "the event",
    &[
        Field::new("name").placed(),
        Field::new("description").note(),
        Field::new("condition"),
        Field::new("schema"),
        Field::new("delivery_mode"),
        Field::new("publisher").placed(),
    ],
);

pub(super) const BATCH: Schema = closed(
    "the batch configuration",
    &[
        Field::new("batch_size"),
        Field::new("parallelism"),
        Field::new("max_parallel_batches"),
        Field::new("cursor_field"),
        Field::new("id_field"),
        Field::new("worker_template").placed(),
        Field::new("checkpoint_interval"),
        Field::new("checkpoint_stall_minutes").placed(),
        Field::new("failure_strategy"),
    ],
);

pub(super) const FOR_EACH: Schema = closed("`for_each`", &[Field::new("items"), Field::new("limit")]);

pub(super) const CONCURRENCY: Schema =
    closed("the concurrency key", &[Field::new("key"), Field::new("limit")]);

pub(super) const RATE_LIMIT: Schema =
    closed("the rate limit", &[Field::new("limit"), Field::new("per_seconds"), Field::new("key")]);

pub(super) const WAIT_FOR: Schema = closed(
    "`wait_for`",
    &[
        Field::new("signal"),
        Field::new("approval"),
        Field::new("timeout_seconds").placed(),
        Field::new("on_timeout"),
    ],
);

pub(super) const WORKFLOW: Schema = closed(
    "the sub-workflow",
    &[
        Field::new("name"),
        Field::new("namespace_name").alias(&["namespace"]),
        Field::new("version"),
        Field::new("input"),
    ],
);

pub(super) const CACHE: Schema = closed("the cache", &[Field::new("inputs"), Field::new("ttl_seconds")]);

pub(super) const ENVIRONMENT: Schema =
    closed("the environment", &[Field::new("steps").holds(Inside::List(&OVERLAY))]);

pub(super) const OVERLAY: Schema = closed(
    "the step's overlay",
    &[
        Field::new("name"),
        Field::new("handler").holds(Inside::Object(&OVERLAY_HANDLER)),
        Field::new("timeout_seconds"),
        Field::new("retry").holds(Inside::Object(&RETRY)),
    ],
);

pub(super) const OVERLAY_HANDLER: Schema = closed("the handler's overlay", &[Field::new("initialization")]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_there_once_with_the_way_to_it() {
        let fields = fields();
        let paths: Vec<&str> = fields.iter().map(|field| field.path.as_str()).collect();
        for path in [
            "metadata.author",
            "steps[].retry.max_attempts",
            "steps[].wait_for.timeout_seconds",
            "environments.*.steps[].handler.initialization",
        ] {
            assert_eq!(paths.iter().filter(|known| **known == path).count(), 1, "{path}");
        }
        let note = |path: &str| fields.iter().find(|field| field.path == path).map(|field| field.is_note);
        assert_eq!(note("metadata.author"), Some(true), "what a note holds is a note");
        assert_eq!(note("steps[].when"), Some(false));
    }

    #[test]
    fn no_two_fields_of_an_object_share_a_spelling() {
        fn spellings(schema: &Schema) {
            let mut seen = std::collections::HashSet::new();
            for field in schema.fields {
                for spelling in std::iter::once(&field.name).chain(field.aliases) {
                    assert!(seen.insert(*spelling), "{} {spelling}", schema.what);
                }
                if let Inside::Object(inner) | Inside::List(inner) | Inside::Named(inner) = field.inside {
                    spellings(inner);
                }
            }
        }
        spellings(&TEMPLATE);
    }
}
