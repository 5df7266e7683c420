//! Checks input against the schema that the API's description publishes: what is promised there is what is held here, and
//! everything that is wrong is told at once.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use recache_api::FieldProblem;
use serde_json::{Map, Value, json};
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

use super::strict::{FAULTS_MAX, token};

type Compiled = HashMap<TypeId, Arc<Schema>>;

/// By type: as many as there are kinds of requests.
static COMPILED: LazyLock<RwLock<Compiled>> = LazyLock::new(RwLock::default);

/// A compiled schema of one kind of input.
pub(crate) struct Schema {
    validator: Validator,
    /// Of a query: its parameters and the type of each.
    pub(crate) parameters: Vec<(String, Option<String>)>,
}

/// The schema of a body.
pub(crate) fn of_body<T: ToSchema + 'static>() -> Result<Arc<Schema>, String> {
    cached::<T>(|| {
        let mut parts = Vec::new();
        T::schemas(&mut parts);
        let parts: Map<String, Value> =
            parts.into_iter().map(|(name, schema)| (name, json!(schema))).collect();
        let mut schema = json!({ "allOf": [T::schema()], "components": { "schemas": parts } });
        allow_null(&mut schema);
        Ok((schema, Vec::new()))
    })
}

/// "One of: this, or null" becomes "any of": where this allows anything, null is both, and one of them it would not be.
pub(crate) fn allow_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let is_null = |one: &Value| one.get("type").and_then(Value::as_str) == Some("null");
            if object.get("oneOf").and_then(Value::as_array).is_some_and(|all| all.iter().any(is_null))
                && let Some(all) = object.remove("oneOf")
            {
                object.insert("anyOf".to_owned(), all);
            }
            object.values_mut().for_each(allow_null);
        }
        Value::Array(array) => array.iter_mut().for_each(allow_null),
        _ => {}
    }
}

/// The schema of a query: an object of its parameters.
pub(crate) fn of_query<T: IntoParams + 'static>() -> Result<Arc<Schema>, String> {
    cached::<T>(|| {
        let parameters: Vec<Parameter> = T::into_params(|| Some(ParameterIn::Query));
        let schemas: Map<String, Value> =
            parameters.iter().map(|one| (one.name.clone(), json!(one.schema))).collect();
        let types = schemas.iter().map(|(name, schema)| (name.clone(), type_of(schema))).collect();
        let required = parameters.iter().filter(|one| one.required == Required::True).map(|one| &one.name);
        let required: Vec<&String> = required.collect();
        let schema = json!({
            "type": "object", "properties": schemas, "required": required, "additionalProperties": false,
        });
        Ok((schema, types))
    })
}

fn cached<T: 'static>(
    source: impl FnOnce() -> Result<(Value, Vec<(String, Option<String>)>), String>,
) -> Result<Arc<Schema>, String> {
    let id = TypeId::of::<T>();
    // A panic elsewhere cannot leave a map of finished values half changed.
    if let Some(found) = COMPILED.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
        return Ok(Arc::clone(found));
    }
    let (source, parameters) = source()?;
    let validator = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .build(&source)
        .map_err(|error| error.to_string())?;
    let schema = Arc::new(Schema { validator, parameters });
    COMPILED.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&schema));
    Ok(schema)
}

/// `integer` of `{"type": "integer"}` and of `{"type": ["integer", "null"]}`.
fn type_of(schema: &Value) -> Option<String> {
    match schema.get("type")? {
        Value::String(name) => Some(name.clone()),
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).find(|name| *name != "null").map(str::to_owned)
        }
        _ => None,
    }
}

impl Schema {
    /// Everything that is wrong, in the order in which it is found.
    pub(crate) fn check(&self, value: &Value) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        for error in self.validator.iter_errors(value) {
            tell(&error, &mut problems);
            if problems.len() >= FAULTS_MAX {
                break;
            }
        }
        problems
    }
}

fn tell(error: &jsonschema::ValidationError<'_>, problems: &mut Vec<FieldProblem>) {
    let pointer = error.instance_path().to_string();
    let mut problem = |pointer: String, message: String| problems.push(FieldProblem { pointer, message });
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            for name in unexpected {
                problem(format!("{pointer}/{}", token(name)), "is not known here".to_owned());
            }
        }
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            problem(format!("{pointer}/{}", token(name)), "is missing".to_owned());
        }
        ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context } => {
            // Of "nothing, or one of these": what is wrong with the latter.
            let is_other_type = |error: &jsonschema::ValidationError<'_>| {
                matches!(error.kind(), ValidationErrorKind::Type { .. })
                    && error.instance_path().to_string() == pointer
            };
            let branch = context.iter().rev().find(|branch| !branch.iter().all(is_other_type));
            match branch.or_else(|| context.last()) {
                Some(branch) => branch.iter().for_each(|error| tell(error, problems)),
                None => problem(pointer, error.masked_with("it").to_string()),
            }
        }
        // It never repeats the value, which may be a secret.
        _ => problem(pointer, error.masked_with("it").to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, ToSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Order {
        #[schema(min_length = 1, max_length = 5)]
        name: String,
        #[schema(minimum = 1, maximum = 3)]
        count: Option<u32>,
        address: Option<Address>,
        raw: Option<recache_api::Json>,
    }

    #[derive(Deserialize, ToSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Address {
        city: String,
    }

    fn pointers(value: &Value) -> Vec<String> {
        let mut found: Vec<_> =
            of_body::<Order>().unwrap().check(value).into_iter().map(|problem| problem.pointer).collect();
        found.sort();
        found
    }

    #[test]
    fn everything_wrong_is_told_at_once_each_with_its_place() {
        assert!(pointers(&json!({ "name": "a", "count": null, "address": null, "raw": null })).is_empty());
        assert!(pointers(&json!({ "name": "a", "raw": { "any": ["thing"] } })).is_empty());
        assert_eq!(
            pointers(&json!({ "count": 4, "colour": 1, "x/y": 2 })),
            ["/colour", "/count", "/name", "/x~1y"]
        );
        assert_eq!(
            pointers(&json!({ "name": "a", "address": { "town": 1 } })),
            ["/address/city", "/address/town"]
        );
        assert_eq!(pointers(&json!([])), [""]);
    }

    #[test]
    fn message_never_repeats_the_value() {
        let problems = of_body::<Order>().unwrap().check(&json!({ "name": "hunter2" }));
        assert!(!problems[0].message.contains("hunter2"), "{problems:?}");
    }
}
