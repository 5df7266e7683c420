//! Holds every answer that a test gets against the description of the API: its status, its form, its fields, and a problem's code.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use crate::world::Answer;

static API: LazyLock<Value> = LazyLock::new(recache_server::api);
/// By operation, status and form: a schema is compiled once in a process.
static COMPILED: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// Panics where an operation answers what its description does not say.
#[track_caller]
pub(crate) fn hold(method: &str, path: &str, answer: &Answer) {
    // What cannot be read as HTTP has no request, and belongs to no operation.
    if answer.header("x-request-id").is_none() {
        return;
    }
    let Some((template, operation)) = operation(method, path) else { return };
    if let Err(why) = check(&format!("{method} {template}"), operation, answer) {
        panic!("{method} {template}: {why}: {answer:?}");
    }
}

/// The operation that this path and method belong to, and its template.
pub(crate) fn operation(method: &str, path: &str) -> Option<(&'static str, &'static Value)> {
    let given: Vec<&str> = path.split('?').next()?.split('/').collect();
    let fits = |template: &str| {
        let parts: Vec<&str> = template.split('/').collect();
        parts.len() == given.len()
            && parts
                .iter()
                .zip(&given)
                .all(|(part, given)| part.starts_with('{') && !given.is_empty() || part == given)
    };
    let paths: &'static Map<String, Value> = API["paths"].as_object()?;
    // As the router does: words go before parameters.
    let (template, item) = paths
        .iter()
        .filter(|(template, _)| fits(template))
        .min_by_key(|(template, _)| template.matches('{').count())?;
    Some((template.as_str(), item.get(method.to_ascii_lowercase())?))
}

/// Why this is no answer of the operation.
pub(crate) fn check(name: &str, operation: &Value, answer: &Answer) -> Result<(), String> {
    let responses = operation["responses"].as_object().ok_or("it describes no answers")?;
    let status = answer.status.to_string();
    let response = responses.get(&status).ok_or_else(|| {
        format!("{status} is not described, only {:?}", responses.keys().collect::<Vec<_>>())
    })?;
    if answer.body.is_empty() {
        return Ok(());
    }
    let form = answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
    let content =
        response["content"].get(form).ok_or_else(|| format!("{status} is not described as `{form}`"))?;
    if !form.ends_with("json") {
        return Ok(());
    }
    let document = answer.json();
    let validator = compiled(&format!("{name} {status} {form}"), &content["schema"]);
    if let Some(error) = validator.iter_errors(&document).next() {
        return Err(format!("`{}` of {status}: {error}", error.instance_path()));
    }
    let code = document["code"].as_str().filter(|_| form == "application/problem+json");
    let said = response["description"].as_str().unwrap_or_default();
    match code {
        Some(code) if !said.contains(&format!("`{code}`")) => {
            Err(format!("{status} does not name code `{code}`: {said}"))
        }
        _ => Ok(()),
    }
}

fn compiled(name: &str, schema: &Value) -> Arc<Validator> {
    let mut compiled = COMPILED.lock().unwrap();
    let compile = || {
        let schema = json!({ "allOf": [schema], "components": API["components"] });
        Arc::new(jsonschema::draft202012::new(&schema).unwrap())
    };
    Arc::clone(compiled.entry(name.to_owned()).or_insert_with(compile))
}

#[test]
fn answers_that_are_not_described_are_found() {
    let answer = |status: u16, kind: &str, body: &Value| Answer {
        status,
        headers: vec![
            ("content-type".to_owned(), kind.to_owned()),
            ("x-request-id".to_owned(), "r".to_owned()),
        ],
        body: body.to_string(),
    };
    let problem = |status: u16, code: &str| {
        let body = json!({ "type": "about:blank", "title": "t", "status": status, "code": code, "detail": "d", "errors": [] });
        answer(status, "application/problem+json", &body)
    };
    let (template, operation) = operation("GET", "/v1/jobs/job_1?x=1").unwrap();
    assert_eq!(template, "/v1/jobs/{id}");
    let check = |answer: &Answer| check("a test", operation, answer);
    assert_eq!(check(&problem(404, "not_found")), Ok(()));
    assert!(check(&problem(404, "nothing")).unwrap_err().contains("does not name code `nothing`"));
    assert!(check(&problem(418, "teapot")).unwrap_err().contains("418 is not described"));
    assert!(check(&answer(200, "text/plain", &json!({}))).unwrap_err().contains("as `text/plain`"));
    assert!(check(&answer(200, "application/json", &json!({}))).unwrap_err().contains("required"));
    assert!(
        self::operation("GET", "/v1/nothing").is_none() && self::operation("PATCH", "/v1/jobs").is_none()
    );
}
