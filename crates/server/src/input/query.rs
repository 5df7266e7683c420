//! Queries.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use recache_api::FieldProblem;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::IntoParams;

use super::schema;
use crate::refusal::{Code, Refusal};
use crate::state::App;

/// The parameters of a query. A problem with one of them has the pointer `?name`.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned + IntoParams + 'static> FromRequestParts<App> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Refusal> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn parse<T: DeserializeOwned + IntoParams + 'static>(query: &str) -> Result<T, Refusal> {
    let schema = schema::of_query::<T>().map_err(|error| {
        tracing::error!(%error, query = std::any::type_name::<T>(), "the schema of a query does not compile");
        Refusal::internal()
    })?;
    let mut problems = Vec::new();
    let mut problem = |name: &str, message: &str| {
        problems.push(FieldProblem { pointer: pointer(name), message: message.to_owned() });
    };
    let mut given = Map::new();
    for (name, text) in form_urlencoded::parse(query.as_bytes()) {
        let known = schema.parameters.iter().find(|(known, _)| *known == name);
        match known {
            None => problem(&name, "is not known here"),
            Some(_) if given.contains_key(name.as_ref()) => problem(&name, "is given more than once"),
            Some(_) if text.contains(['\0', '\u{fffd}']) => {
                problem(&name, "holds a character that is no text");
            }
            Some((name, kind)) => {
                given.insert(name.clone(), read(&text, kind.as_deref()));
            }
        }
    }
    let given = Value::Object(given);
    for found in schema.check(&given) {
        problem(found.pointer.trim_start_matches('/'), &found.message);
    }
    if problems.is_empty() {
        serde_json::from_value(given).map_err(|error| {
            tracing::debug!(%error, "a query fits its schema and not its type");
            Refusal::new(Code::InvalidParameter, "the query has a value outside its range")
        })
    } else {
        let said: Vec<_> = problems.iter().map(|one| format!("`{}` {}", one.pointer, one.message)).collect();
        Err(Refusal::new(Code::InvalidParameter, said.join("; ")).errors(problems))
    }
}

/// As the parameter's type has it, where it can be; what is none of that type stays text, which the schema refuses.
fn read(text: &str, kind: Option<&str>) -> Value {
    let read = match kind {
        Some("integer") => {
            text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok()
        }
        Some("boolean") => text.parse::<bool>().map(Value::from).ok(),
        _ => None,
    };
    read.unwrap_or_else(|| Value::from(text))
}

fn pointer(name: &str) -> String {
    const SHOWN_MAX: usize = 100;
    format!("?{}", name.chars().take(SHOWN_MAX).collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, IntoParams)]
    #[serde(deny_unknown_fields)]
    struct List {
        #[param(minimum = 1, maximum = 1000)]
        limit: Option<u32>,
        #[param(inline)]
        state: Option<recache_api::JobState>,
        queue: Option<String>,
    }

    fn pointers(query: &str) -> Vec<String> {
        let refusal = parse::<List>(query).unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidParameter);
        refusal.into_problem("r", None).errors.into_iter().map(|one| one.pointer).collect()
    }

    #[test]
    fn right_parameters_are_read() {
        let list: List = parse("limit=7&state=failed&queue=a%20b+c").unwrap();
        assert_eq!((list.limit, list.state), (Some(7), Some(recache_api::JobState::Failed)));
        assert_eq!(list.queue.as_deref(), Some("a b c"));
        assert!(parse::<List>("").unwrap().limit.is_none());
    }

    #[test]
    fn abusive_parameters_are_refused() {
        for query in [
            "limit=-1",
            "limit=0",
            "limit=1001",
            "limit=1000000000000000000",
            "limit=99999999999999999999999999",
            "limit=ten",
            "limit=1.5",
            "limit=",
            "limit=1&limit=1",
        ] {
            assert_eq!(pointers(query), ["?limit"], "{query}");
        }
        assert_eq!(pointers("state=fail"), ["?state"]);
        assert_eq!(pointers("queue=a%00"), ["?queue"]);
        assert_eq!(pointers("queue=%ff"), ["?queue"]);
        assert_eq!(pointers("colour=red&limit=-1"), ["?colour", "?limit"]);
    }
}
