//! Parts of the path.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::refusal::{Code, Refusal};
use crate::state::App;

/// The one parameter of a path, an id. What is none belongs to nothing that exists.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Id<T>(pub(crate) T);

impl<T> FromRequestParts<App> for Id<T>
where
    T: FromStr + Send,
    T::Err: Display,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let Segments(text) = Segments::<String>::from_request_parts(parts, app).await?;
        read_id(&text).map(Self)
    }
}

/// An id of a path, or that there is nothing with it.
pub(crate) fn read_id<T>(text: &str) -> Result<T, Refusal>
where
    T: FromStr,
    T::Err: Display,
{
    const SHOWN_MAX: usize = 100;
    text.parse().map_err(|error: T::Err| {
        let said: String = error.to_string().chars().take(2 * SHOWN_MAX).collect();
        Refusal::new(Code::NotFound, said)
    })
}

/// The parameters of a path.
#[derive(Debug)]
pub(crate) struct Segments<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Segments<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        // A NUL is text for HTTP and none for a database.
        if parts.uri.path().contains("%00") {
            return Err(Refusal::new(Code::InvalidParameter, "the path holds a NUL character"));
        }
        match Path::<T>::from_request_parts(parts, app).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(rejection) => Err(Refusal::new(Code::InvalidParameter, rejection.body_text())),
        }
    }
}
