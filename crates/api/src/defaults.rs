//! What a request means where it does not say.

use crate::json::Json;

/// The namespace and the queue of whoever names none.
pub(crate) fn name() -> String {
    "default".to_owned()
}

pub(crate) fn empty_object() -> Json {
    Json::from_text("{}").unwrap_or_else(|_| Json::null())
}
