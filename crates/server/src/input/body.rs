//! Bodies.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use recache_api::FieldProblem;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use super::schema;
use super::strict::{self, Fault, token};
use crate::refusal::{Code, Refusal};
use crate::settings::Settings;
use crate::state::App;

/// A JSON body. No body at all is read as `{}`, which is enough where nothing must be said.
#[derive(Debug)]
pub(crate) struct Input<T>(pub(crate) T);

impl<T: DeserializeOwned + ToSchema + 'static> FromRequest<App> for Input<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(body, app.settings()).await?;
        let given = media_type(&parts.headers)?;
        match given.as_deref() {
            None | Some("application/json") if bytes.is_empty() => {
                return parse(b"{}", app.settings()).map(Self);
            }
            Some("application/json") => {}
            given => return Err(other_form(given, "application/json")),
        }
        parse(&bytes, app.settings()).map(Self)
    }
}

/// A document in YAML or JSON as text, for those who tell what is wrong with it by line and column.
#[derive(Debug)]
pub(crate) struct Source(pub(crate) String);

impl FromRequest<App> for Source {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(body, app.settings()).await?;
        match media_type(&parts.headers)?.as_deref() {
            Some("application/yaml" | "application/x-yaml" | "text/yaml" | "application/json") => {}
            given => return Err(other_form(given, "application/yaml")),
        }
        let text = String::from_utf8(bytes.into());
        text.map(Self).map_err(|_| Refusal::new(Code::Malformed, "the body is not UTF-8"))
    }
}

/// The whole body, within its limits.
pub(crate) async fn read_body(body: Body, settings: &Settings) -> Result<Bytes, Refusal> {
    let (bytes_max, wait_max) = (settings.body_bytes_max, settings.body_wait_max);
    let collecting = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(wait_max, collecting).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Refusal::new(Code::TooLarge, format!("the body has more than {bytes_max} bytes")))
        }
        Ok(Err(_)) => Err(Refusal::new(Code::Malformed, "the body ended before it was complete")),
        Err(_) => Err(too_slow(wait_max)),
    }
}

fn too_slow(wait_max: Duration) -> Refusal {
    Refusal::new(Code::TooSlow, format!("the body did not come within {} s", wait_max.as_secs()))
}

/// The body's media type in lower case without parameters; `None` when none is given. Refuses what is not plain UTF-8.
fn media_type(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(Refusal::new(Code::UnsupportedMediaType, "compressed bodies are not read")
            .remedy("send the body without `Content-Encoding`"));
    }
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(None) };
    let text = given.to_str().unwrap_or_default().to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_owned();
    let is_utf8 = |parameter: &str| match parameter.split_once('=') {
        Some(("charset", charset)) => matches!(charset.trim_matches('"'), "utf-8" | "utf8"),
        _ => true,
    };
    if !parts.all(is_utf8) {
        return Err(Refusal::new(Code::UnsupportedMediaType, "only UTF-8 is read"));
    }
    Ok(Some(kind))
}

/// That another form was given than the one that is read.
fn other_form(given: Option<&str>, wanted: &str) -> Refusal {
    let detail = match given {
        Some(given) => format!("the body is `{}`", given.chars().take(100).collect::<String>()),
        None => "the body has no `Content-Type`".to_owned(),
    };
    Refusal::new(Code::UnsupportedMediaType, detail).remedy(format!("send `Content-Type: {wanted}`"))
}

fn parse<T: DeserializeOwned + ToSchema + 'static>(bytes: &[u8], settings: &Settings) -> Result<T, Refusal> {
    let value = strict::read(bytes, settings.json_depth_max).map_err(|fault| match fault {
        Fault::NotJson(message) => Refusal::new(Code::Malformed, format!("the body is not JSON: {message}")),
        Fault::Fields(fields) => wrong(fields),
    })?;
    let schema = schema::of_body::<T>().map_err(|error| {
        tracing::error!(%error, body = std::any::type_name::<T>(), "the schema of a body does not compile");
        Refusal::internal()
    })?;
    let problems = schema.check(&value);
    if !problems.is_empty() {
        return Err(wrong(problems));
    }
    // From the text and not from the value: what is passed on keeps its digits.
    serde_json::from_slice(bytes).map_err(|_| wrong(vec![found_by_serde::<T>(bytes)]))
}

/// What fits the schema and still cannot be read, such as a number that is too large for its field.
fn found_by_serde<T: DeserializeOwned>(bytes: &[u8]) -> FieldProblem {
    use serde_path_to_error::Segment;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(_) => FieldProblem { pointer: String::new(), message: "cannot be read".to_owned() },
        Err(error) => {
            let pointer = error.path().iter().fold(String::new(), |pointer, segment| match segment {
                Segment::Seq { index } => format!("{pointer}/{index}"),
                Segment::Map { key } => format!("{pointer}/{}", token(key)),
                Segment::Enum { .. } | Segment::Unknown => pointer,
            });
            let is_number = error.inner().to_string().contains("integer");
            let message = if is_number { "is a number outside its range" } else { "has a wrong value" };
            FieldProblem { pointer, message: message.to_owned() }
        }
    }
}

fn wrong(errors: Vec<FieldProblem>) -> Refusal {
    let detail = match errors.as_slice() {
        [] => "the body is wrong".to_owned(),
        [one] if one.pointer.is_empty() => format!("the body: {}", one.message),
        [one] => format!("`{}` {}", one.pointer, one.message),
        [first, ..] => {
            format!("{} things are wrong; the first: `{}` {}", errors.len(), first.pointer, first.message)
        }
    };
    Refusal::new(Code::Invalid, detail).errors(errors)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, ToSchema)]
    #[serde(deny_unknown_fields)]
    struct Order {
        count: i64,
        #[serde(default)]
        raw: Option<recache_api::Json>,
    }

    #[test]
    fn value_that_fits_its_schema_and_not_its_field_is_told_with_its_place() {
        let refusal = parse::<Order>(br#"{"count":99999999999999999999}"#, &Settings::default()).unwrap_err();
        let problem = refusal.into_problem("r", None);
        assert_eq!((problem.status, problem.errors[0].pointer.as_str()), (422, "/count"));
    }

    #[test]
    fn raw_value_keeps_its_digits() {
        let text = br#"{"count":1,"raw":{"n":12345678901234567890.10}}"#;
        let order: Order = parse(text, &Settings::default()).unwrap();
        assert_eq!((order.count, order.raw.unwrap().text()), (1, r#"{"n":12345678901234567890.10}"#));
    }

    #[test]
    fn media_types_are_read_without_their_parameters() {
        let of = |text: &'static str| {
            let headers = [(header::CONTENT_TYPE, text.parse().unwrap())].into_iter().collect();
            media_type(&headers).map_err(|refusal| refusal.code())
        };
        assert_eq!(of("Application/JSON; charset=UTF-8").unwrap().as_deref(), Some("application/json"));
        assert_eq!(of("application/json; charset=latin1"), Err(Code::UnsupportedMediaType));
    }
}
