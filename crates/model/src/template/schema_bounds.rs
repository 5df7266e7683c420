//! How a JSON Schema is kept from taking more than its share, before it is compiled.
//!
//! * References lead to other places of the same schema, by pointer: `#/$defs/name`. Nothing is fetched.
//! * No schema contains itself. With recursion, two references side by side make checking exponential in the depth of
//!   the value, and a reference to itself never ends at all; both take a line to write.
//! * Written out, references replaced by what they name, it has at most [`SCHEMA_COST_MAX`] keywords and is at most
//!   [`SCHEMA_NESTING_MAX`] deep: `allOf` of two references to an `allOf` of two references doubles with every line.
//! * `unevaluatedProperties` and `unevaluatedItems` count what is beside them twice, since it is looked at twice; nested,
//!   they double with every level too.
//! * The number, length and compiled size of its patterns are limited.

use std::collections::HashMap;

use jsonschema::Draft;
use serde_json::{Map, Value};

use super::limits::{
    SCHEMA_COST_MAX, SCHEMA_NESTING_MAX, SCHEMA_PATTERN_BYTES_MAX, SCHEMAS_PARTS_MAX, SCHEMAS_PATTERNS_MAX,
};

/// One thing that is wrong with a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// JSON pointer into the schema.
    pub(super) path: String,
    pub(super) message: String,
}

/// What all schemas of one template may still use.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    parts: usize,
    patterns: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { parts: SCHEMAS_PARTS_MAX, patterns: SCHEMAS_PATTERNS_MAX }
    }
}

/// What was found in a schema whose bounds hold.
#[derive(Debug)]
pub(super) struct Parts<'s> {
    pub(super) draft: Draft,
    /// Keywords that can be looked at for one value.
    pub(super) cost: u64,
    /// Regular expressions, each with its pointer.
    pub(super) patterns: Vec<(String, &'s str)>,
    /// Names of formats, each with its pointer.
    pub(super) formats: Vec<(String, &'s str)>,
}

/// Keywords that hold one schema, or a list of them.
const HOLDING: [&str; 16] = [
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "additionalProperties",
    "additionalItems",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
    "items",
    "prefixItems",
    "allOf",
    "anyOf",
    "oneOf",
];

/// Keywords that depend on what the others beside them have looked at.
const REPEATING: [&str; 2] = ["unevaluatedItems", "unevaluatedProperties"];

/// Keywords that hold schemas by name.
const NAMING: [&str; 4] = ["properties", "patternProperties", "dependentSchemas", "dependencies"];

/// Keywords that keep schemas for others to refer to.
const KEEPING: [&str; 2] = ["$defs", "definitions"];

/// Keywords that could lead elsewhere, or change where a reference leads.
const REFUSED: [&str; 7] =
    ["$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$anchor", "$id", "$vocabulary"];

/// Looks the whole schema over; everything that is wrong is told.
pub(super) fn inspect<'s>(source: &'s Value, budget: &mut Budget) -> Result<Parts<'s>, Vec<Fault>> {
    let parts = parts(source);
    budget.parts = budget.parts.saturating_sub(parts);
    if budget.parts == 0 {
        let message = format!("the template's schemas have more than {SCHEMAS_PARTS_MAX} parts together");
        return Err(vec![Fault { path: String::new(), message }]);
    }
    let draft = draft(source).map_err(|fault| vec![fault])?;
    let mut inspection = Inspection {
        source,
        measured: HashMap::new(),
        patterns: Vec::new(),
        formats: Vec::new(),
        faults: Vec::new(),
    };
    let measure = inspection.measure("", source, 0);
    let Inspection { patterns, formats, mut faults, .. } = inspection;
    let cost = measure.map_or(0, |measure| measure.cost);
    if faults.is_empty() && cost > SCHEMA_COST_MAX {
        let message = format!("written out, the schema has {cost} keywords, the limit is {SCHEMA_COST_MAX}");
        faults.push(Fault { path: String::new(), message });
    }
    budget.patterns = budget.patterns.saturating_sub(patterns.len());
    if budget.patterns == 0 {
        let message = format!("the template's schemas have {SCHEMAS_PATTERNS_MAX} patterns or more together");
        faults.push(Fault { path: String::new(), message });
    }
    if faults.is_empty() { Ok(Parts { draft, cost, patterns, formats }) } else { Err(faults) }
}

fn parts(source: &Value) -> usize {
    let mut count = 0_usize;
    let mut open = vec![source];
    while let Some(value) = open.pop() {
        count = count.saturating_add(1);
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(fields) => open.extend(fields.values()),
            _ => {}
        }
    }
    count
}

fn draft(source: &Value) -> Result<Draft, Fault> {
    let Some(named) = source.get("$schema") else { return Ok(Draft::Draft202012) };
    let name = named.as_str().unwrap_or_default().trim_end_matches('#');
    let name = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
    match name {
        "json-schema.org/draft/2020-12/schema" => Ok(Draft::Draft202012),
        "json-schema.org/draft/2019-09/schema" => Ok(Draft::Draft201909),
        "json-schema.org/draft-07/schema" => Ok(Draft::Draft7),
        _ => {
            let message = format!(
                "`$schema` {named} is not known: leave it out, or name https://json-schema.org/draft/2020-12/schema"
            );
            Err(Fault { path: "/$schema".to_owned(), message })
        }
    }
}

/// What a schema comes to when its references are written out.
#[derive(Debug, Clone, Copy, Default)]
struct Measure {
    cost: u64,
    height: usize,
}

struct Inspection<'s> {
    source: &'s Value,
    /// By pointer; none while the schema is being measured.
    measured: HashMap<String, Option<Measure>>,
    patterns: Vec<(String, &'s str)>,
    formats: Vec<(String, &'s str)>,
    faults: Vec<Fault>,
}

impl<'s> Inspection<'s> {
    fn fault(&mut self, path: String, message: String) {
        self.faults.push(Fault { path, message });
    }

    /// Measures the schema at `path`. `depth` bounds the recursion: it counts schemas within schemas and references
    /// followed.
    fn measure(&mut self, path: &str, schema: &'s Value, depth: usize) -> Option<Measure> {
        if let Some(known) = self.measured.get(path) {
            let known = *known;
            if known.is_none() {
                self.fault(path.to_owned(), "this schema contains itself; write its levels out".to_owned());
                return None;
            }
            // Measured higher up: from here it may reach too deep all the same.
            let reach = known.map_or(0, |known| depth.saturating_add(known.height));
            return if self.is_too_deep(path, reach) { None } else { known };
        }
        if self.is_too_deep(path, depth) {
            return None;
        }
        let Value::Object(keywords) = schema else {
            // `true`, `false`, or something that the draft's own schema will complain about.
            return Some(Measure { cost: 1, height: 1 });
        };
        self.measured.insert(path.to_owned(), None);
        let before = self.faults.len();
        let mut total = Measure { cost: 1, height: 0 };
        for (keyword, value) in keywords {
            self.keyword(path, keyword, value, depth, &mut total);
        }
        total.height += 1;
        // What the neighbours have looked at is looked at again, and again within them.
        let repeats = REPEATING.iter().filter(|keyword| keywords.contains_key(**keyword)).count();
        for _ in 0..repeats {
            total.cost = total.cost.saturating_mul(2);
        }
        if self.faults.len() > before {
            // Told; whoever refers to it has no fault of his own.
            self.measured.insert(path.to_owned(), Some(Measure::default()));
            return None;
        }
        self.measured.insert(path.to_owned(), Some(total));
        Some(total)
    }

    fn is_too_deep(&mut self, path: &str, reach: usize) -> bool {
        let is_too_deep = reach > SCHEMA_NESTING_MAX;
        if is_too_deep {
            let message =
                format!("with its references written out, the schema is more than {SCHEMA_NESTING_MAX} deep");
            self.fault(path.to_owned(), message);
        }
        is_too_deep
    }

    fn keyword(&mut self, path: &str, keyword: &str, value: &'s Value, depth: usize, total: &mut Measure) {
        let here = below(path, keyword);
        if REFUSED.contains(&keyword) && !(keyword == "$id" && path.is_empty()) {
            let message =
                format!("`{keyword}` is not supported: refer to places by pointer, such as #/$defs/name");
            self.fault(here, message);
            return;
        }
        if keyword == "$ref" {
            self.reference(here, value, depth, total);
        } else if HOLDING.contains(&keyword) {
            match value {
                Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        let measure = self.measure(&below(&here, &index.to_string()), item, depth + 1);
                        add(total, measure);
                    }
                }
                schema => {
                    let measure = self.measure(&here, schema, depth + 1);
                    add(total, measure);
                }
            }
        } else if NAMING.contains(&keyword)
            && let Value::Object(named) = value
        {
            self.named(keyword, &here, named, depth, total);
        } else if KEEPING.contains(&keyword)
            && let Value::Object(kept) = value
        {
            // Costs nothing before somebody refers to it.
            for (name, schema) in kept {
                self.measure(&below(&here, name), schema, depth + 1);
            }
        } else {
            let text = value.as_str();
            match (keyword, text) {
                ("pattern", Some(pattern)) => self.pattern(here, pattern),
                ("format", Some(format)) => self.formats.push((here, format)),
                _ => {}
            }
            total.cost = total.cost.saturating_add(u64::try_from(parts(value)).unwrap_or(u64::MAX));
        }
    }

    fn named(
        &mut self,
        keyword: &str,
        here: &str,
        named: &'s Map<String, Value>,
        depth: usize,
        total: &mut Measure,
    ) {
        for (name, schema) in named {
            let path = below(here, name);
            if keyword == "patternProperties" {
                self.pattern(path.clone(), name);
            }
            // In draft 7 a dependency may also be a list of names.
            let measure = match schema {
                Value::Array(names) => {
                    let cost = u64::try_from(names.len()).unwrap_or(u64::MAX);
                    Some(Measure { cost, height: 1 })
                }
                schema => self.measure(&path, schema, depth + 1),
            };
            add(total, measure);
        }
    }

    fn pattern(&mut self, path: String, pattern: &'s str) {
        if pattern.len() > SCHEMA_PATTERN_BYTES_MAX {
            let message =
                format!("the pattern has {} bytes, the limit is {SCHEMA_PATTERN_BYTES_MAX}", pattern.len());
            self.fault(path, message);
        } else if self.patterns.len() < SCHEMAS_PATTERNS_MAX {
            self.patterns.push((path, pattern));
        }
    }

    fn reference(&mut self, here: String, value: &'s Value, depth: usize, total: &mut Measure) {
        let Some(target) = value.as_str() else { return };
        let Some(pointer) = target.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/'))
        else {
            let message =
                format!("the reference {target:?} leads elsewhere; only #/… within the schema is followed");
            self.fault(here, message);
            return;
        };
        if pointer.contains('%') {
            let message = format!("the reference {target:?} holds a percent sign, which is not supported");
            self.fault(here, message);
            return;
        }
        let source = self.source;
        let Some(schema) = source.pointer(pointer) else {
            self.fault(here, format!("the reference {target:?} leads to nothing"));
            return;
        };
        let measure = self.measure(pointer, schema, depth + 1);
        add(total, measure);
    }
}

fn add(total: &mut Measure, part: Option<Measure>) {
    let part = part.unwrap_or_default();
    total.cost = total.cost.saturating_add(part.cost).saturating_add(1);
    total.height = total.height.max(part.height);
}

fn below(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}
