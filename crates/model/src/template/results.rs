//! What the results of decisions and batches say, and what is wrong with them.

use serde_json::{Value, json};

use super::batch::BatchConfig;
use super::limits::{BATCHES_MAX, DECISION_DEPTH_MAX, DECISION_STEPS_MAX};
use super::step::{Step, StepType};
use super::{Template, graph::StepIndex};

/// A result that cannot be acted on: the step fails for good with this code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ResultError {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

fn error(code: &'static str, message: impl Into<String>) -> ResultError {
    ResultError { code, message: message.into() }
}

/// The steps that a decision's result names: a list of names, or a mapping with that list as `steps`.
///
/// Each must be a step that depends on the decision and can be named; at most [`DECISION_STEPS_MAX`] of them, and no decision
/// may stand behind more than [`DECISION_DEPTH_MAX`] others.
pub fn decision_names(
    template: &Template,
    decision: StepIndex,
    result: &Value,
) -> Result<Vec<String>, ResultError> {
    let name = template.steps().get(decision).map(|step| step.name.as_str()).unwrap_or_default();
    let list = match result {
        Value::Array(list) => Some(list),
        Value::Object(fields) => fields.get("steps").and_then(Value::as_array),
        _ => None,
    };
    let Some(list) = list else {
        return Err(error(
            "invalid_decision",
            format!(
                "the result of the decision `{name}` must be a list of step names, or a mapping with one as `steps`"
            ),
        ));
    };
    if list.len() > DECISION_STEPS_MAX {
        return Err(error(
            "too_many_steps",
            format!("the decision `{name}` names {} steps, the limit is {DECISION_STEPS_MAX}", list.len()),
        ));
    }
    let depth = decision_depth(template, decision);
    if depth > DECISION_DEPTH_MAX && !list.is_empty() {
        return Err(error(
            "decision_too_deep",
            format!("{depth} decisions stand in a row up to `{name}`, the limit is {DECISION_DEPTH_MAX}"),
        ));
    }
    let can_be_named = |index: &StepIndex| {
        template
            .steps()
            .get(*index)
            .filter(|step| !matches!(step.step_type, StepType::DeferredConvergence | StepType::BatchWorker))
    };
    let targets: Vec<&str> = template
        .graph()
        .dependents(decision)
        .iter()
        .filter_map(can_be_named)
        .map(|step| step.name.as_str())
        .collect();
    let mut names = Vec::with_capacity(list.len());
    let mut unknown = Vec::new();
    for item in list {
        match item.as_str() {
            Some(item) if targets.contains(&item) => names.push(item.to_owned()),
            Some(item) => unknown.push(format!("`{}`", item.escape_debug())),
            None => unknown.push("something that is no text".to_owned()),
        }
    }
    if unknown.is_empty() {
        return Ok(names);
    }
    unknown.truncate(10);
    let message =
        format!("the decision `{name}` names {}; it can name {}", unknown.join(", "), targets.join(", "));
    Err(error("unknown_step", message))
}

/// How many decisions stand in a row up to this one, itself included.
fn decision_depth(template: &Template, decision: StepIndex) -> usize {
    let steps = template.steps();
    let mut depth = vec![0_usize; steps.len()];
    for &index in template.graph().topological_order() {
        let before = template.graph().dependencies(index).iter().map(|parent| depth[*parent]).max();
        let own = usize::from(steps[index].step_type == StepType::Decision);
        depth[index] = before.unwrap_or(0) + own;
        if index == decision {
            return depth[index];
        }
    }
    0
}

/// How a batchable step's result splits its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Batches {
    /// What each worker is given: its cursor, and the numbers of its batch.
    pub items: Vec<Value>,
    /// Batches that run at once.
    pub parallelism: usize,
}

/// Reads a batchable step's result: `cursors`, a list with whatever each worker needs, or `rows`, a number from which cursors
/// are made by `batch_size`; and `parallelism`, if it asks for another number than configured.
pub fn batches(batchable: &Step, worker: &Step, result: &Value) -> Result<Batches, ResultError> {
    let config = batchable.batch_config.clone().or_else(|| worker.batch_config.clone()).unwrap_or_default();
    let invalid = |message: &str| {
        error("invalid_batches", format!("the result of the batchable step `{}` {message}", batchable.name))
    };
    let Value::Object(fields) = result else {
        return Err(invalid("must be a mapping with `cursors` or `rows`"));
    };
    let cursors: Vec<Value> = match (fields.get("cursors"), fields.get("rows")) {
        (Some(Value::Array(cursors)), None) => cursors.clone(),
        (None, Some(rows)) => match rows.as_u64() {
            Some(rows) => cursors_of(rows, &config)?,
            None => return Err(invalid("gives `rows` that are no number of rows")),
        },
        (Some(_), None) => return Err(invalid("gives `cursors` that are no list")),
        (Some(_), Some(_)) => return Err(invalid("gives both `cursors` and `rows`; give one of them")),
        (None, None) => return Err(invalid("gives neither `cursors` nor `rows`")),
    };
    if cursors.len() > BATCHES_MAX {
        return Err(too_many(cursors.len()));
    }
    let parallelism = match fields.get("parallelism") {
        None => config.parallelism,
        Some(asked) => match asked.as_u64().and_then(|asked| u32::try_from(asked).ok()) {
            Some(0) | None => return Err(invalid("gives a `parallelism` that is no positive number")),
            Some(asked) => {
                let most = config.max_parallel_batches.unwrap_or(config.parallelism);
                if asked > most {
                    return Err(error(
                        "too_parallel",
                        format!(
                            "the batchable step `{}` asks for {asked} batches at once, its configuration allows {most}",
                            batchable.name
                        ),
                    ));
                }
                asked
            }
        },
    };
    let count = cursors.len();
    let items = cursors
        .into_iter()
        .enumerate()
        .map(|(index, cursor)| {
            let mut item = json!({
                "cursor": cursor, "batch": index, "batches": count, "batch_size": config.batch_size,
                "cursor_field": config.cursor_field, "id_field": config.id_field,
            });
            if let (Some(interval), Some(fields)) = (config.checkpoint_interval, item.as_object_mut()) {
                fields.insert("checkpoint_interval".to_owned(), interval.into());
            }
            item
        })
        .collect();
    Ok(Batches { items, parallelism: usize::try_from(parallelism).unwrap_or(usize::MAX) })
}

fn cursors_of(rows: u64, config: &BatchConfig) -> Result<Vec<Value>, ResultError> {
    let size = u64::from(config.batch_size.max(1));
    let count = rows.div_ceil(size);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > BATCHES_MAX {
        return Err(too_many(count));
    }
    let mut cursors = Vec::with_capacity(count);
    let mut start = 0_u64;
    while start < rows {
        let end = start.saturating_add(size).min(rows);
        cursors.push(json!({ "start": start, "end": end }));
        start = end;
    }
    Ok(cursors)
}

fn too_many(count: usize) -> ResultError {
    error("too_many_batches", format!("{count} batches are asked for, the limit is {BATCHES_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Template {
        let source = "
name: t
version: 1.0.0
steps:
  - { name: d, type: decision, handler: h }
  - { name: a, handler: h, depends_on: [d] }
  - { name: e, type: decision, handler: h, depends_on: [d] }
  - { name: b, handler: h, depends_on: [e] }
  - { name: c, type: deferred_convergence, handler: h, depends_on: [a, b] }
  - name: split
    type: batchable
    handler: h
    batch_config: { batch_size: 10, parallelism: 2, max_parallel_batches: 4, checkpoint_interval: 5 }
  - { name: work, type: batch_worker, handler: h, depends_on: [split] }
";
        Template::parse(&source.replace("handler: h", "handler: { callable: h }"), "t.yaml")
            .expect("a template")
    }

    #[test]
    fn decision_names_only_what_depends_on_it() {
        let template = template();
        assert_eq!(decision_names(&template, 0, &json!(["a", "e"])).unwrap(), ["a", "e"]);
        assert_eq!(decision_names(&template, 0, &json!({ "steps": [] })).unwrap(), Vec::<String>::new());
        for (result, code) in [
            (json!("a"), "invalid_decision"),
            (json!({ "step": ["a"] }), "invalid_decision"),
            (json!(["b"]), "unknown_step"),
            (json!(["c"]), "unknown_step"),
            (json!(["a", 7]), "unknown_step"),
            (json!(vec!["a"; DECISION_STEPS_MAX + 1]), "too_many_steps"),
        ] {
            assert_eq!(decision_names(&template, 0, &result).unwrap_err().code, code, "{result}");
        }
        let all = decision_names(&template, 0, &json!(["x", "y"])).unwrap_err().message;
        assert!(all.contains("`x`, `y`") && all.contains("a, e"), "{all}");
    }

    #[test]
    fn decisions_in_a_row_are_bounded() {
        let mut steps = vec!["name: t\nversion: 1.0.0\nsteps:\n".to_owned()];
        for index in 0..=DECISION_DEPTH_MAX {
            let before =
                index.checked_sub(1).map(|before| format!(", depends_on: [d{before}]")).unwrap_or_default();
            steps.push(format!(
                "  - {{ name: d{index}, type: decision, handler: {{ callable: h }}{before} }}\n"
            ));
        }
        steps.push(format!(
            "  - {{ name: end, handler: {{ callable: h }}, depends_on: [d{DECISION_DEPTH_MAX}] }}\n"
        ));
        let template = Template::parse(&steps.concat(), "t.yaml").expect("a template");
        let last = template.steps().len() - 2;
        assert!(decision_names(&template, last - 1, &json!([format!("d{DECISION_DEPTH_MAX}")])).is_ok());
        assert_eq!(decision_names(&template, last, &json!(["end"])).unwrap_err().code, "decision_too_deep");
        assert!(decision_names(&template, last, &json!([])).is_ok(), "an end is never too deep");
    }

    #[test]
    fn rows_are_cut_into_batches() {
        let template = template();
        let (split, work) = (&template.steps()[5], &template.steps()[6]);
        let found = batches(split, work, &json!({ "rows": 25, "parallelism": 3 })).unwrap();
        assert_eq!(found.parallelism, 3);
        assert_eq!(found.items.len(), 3);
        assert_eq!(found.items[2]["cursor"], json!({ "start": 20, "end": 25 }));
        assert_eq!(found.items[2]["checkpoint_interval"], json!(5));
        let own = batches(split, work, &json!({ "cursors": ["m", null] })).unwrap();
        assert_eq!((own.parallelism, own.items[0]["cursor"].clone()), (2, json!("m")));
        assert_eq!(batches(split, work, &json!({ "rows": 0 })).unwrap().items, Vec::<Value>::new());
        for (result, code) in [
            (json!([]), "invalid_batches"),
            (json!({}), "invalid_batches"),
            (json!({ "rows": -1 }), "invalid_batches"),
            (json!({ "rows": 1, "cursors": [] }), "invalid_batches"),
            (json!({ "cursors": 1 }), "invalid_batches"),
            (json!({ "rows": 1, "parallelism": 0 }), "invalid_batches"),
            (json!({ "rows": 1, "parallelism": 5 }), "too_parallel"),
            (json!({ "rows": u64::MAX }), "too_many_batches"),
        ] {
            assert_eq!(batches(split, work, &result).unwrap_err().code, code, "{result}");
        }
    }
}
