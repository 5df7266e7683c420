//! What the keys and values of a view's items must be.

use serde_json::Value;

use crate::template::JsonSchema;

/// Largest schema of a view, in bytes of JSON.
pub const ITEM_SCHEMA_BYTES_MAX: usize = 64 * 1024;

/// JSON Schemas that every item must fit which a build of the view puts. What was live before they were given may be taken over.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ItemRules {
    /// For its key, as a JSON text.
    pub key_schema: Option<Value>,
    /// For its value.
    pub value_schema: Option<Value>,
}

impl ItemRules {
    /// Everything may be put.
    pub fn is_empty(&self) -> bool {
        self.key_schema.is_none() && self.value_schema.is_none()
    }

    /// What is wrong with the schemas themselves.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (what, schema) in
            [("item_key_schema", &self.key_schema), ("item_value_schema", &self.value_schema)]
        {
            let Some(schema) = schema else { continue };
            let bytes = schema.to_string().len();
            if bytes > ITEM_SCHEMA_BYTES_MAX {
                problems.push(format!("{what} has {bytes} bytes; the limit is {ITEM_SCHEMA_BYTES_MAX}"));
            } else if let Err(why) = JsonSchema::new(schema.clone()) {
                problems.push(format!("{what} is no JSON Schema that can be used: {why}"));
            }
        }
        problems
    }
}

/// What is wrong with an item, with the paths into its value. It repeats no value, which may be a secret.
pub fn item_problems(
    item: &str,
    value: &str,
    key_schema: Option<&JsonSchema>,
    value_schema: Option<&JsonSchema>,
) -> Vec<String> {
    let shown = item.escape_debug();
    let mut problems = Vec::new();
    if let Some(schema) = key_schema
        && let Err(mismatches) = schema.check(&Value::String(item.to_owned()))
    {
        problems.push(format!("item `{shown}`: its key: {mismatches}"));
    }
    if let Some(schema) = value_schema {
        match serde_json::from_str::<Value>(value) {
            Err(error) => problems.push(format!("item `{shown}`: its value is no JSON: {error}")),
            Ok(value) => {
                if let Err(mismatches) = schema.check(&value) {
                    problems.push(format!("item `{shown}`: its value: {mismatches}"));
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_is_wrong_with_an_item_is_told_with_its_path() {
        let key = JsonSchema::new(json!({ "type": "string", "pattern": "^sku-[0-9]+$" })).unwrap();
        let value = json!({ "type": "object", "required": ["price"],
            "properties": { "price": { "type": "integer" }, "tags": { "items": { "type": "string" } } } });
        let value = JsonSchema::new(value).unwrap();
        assert!(item_problems("sku-1", r#"{"price":1}"#, Some(&key), Some(&value)).is_empty());
        let told =
            item_problems("tea", r#"{"price":"dear","tags":["a",7]}"#, Some(&key), Some(&value)).join("; ");
        for part in ["`tea`: its key", "/price", "/tags/1"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(!told.contains("dear"), "{told}");
    }

    #[test]
    fn schema_that_is_none_is_refused() {
        let rules = ItemRules { key_schema: Some(json!({ "type": 5 })), value_schema: Some(json!([])) };
        assert_eq!(rules.problems().len(), 2, "{:?}", rules.problems());
    }
}
