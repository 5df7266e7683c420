//! Schemas of events, compiled once in a process rather than once for each event.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use recache_model::template::JsonSchema;
use serde_json::Value;

/// Schemas that are kept; then all are forgotten, which costs compiling them again.
const KEPT_MAX: usize = 256;

type Compiled = Arc<Result<JsonSchema, String>>;

static COMPILED: LazyLock<Mutex<HashMap<String, Compiled>>> = LazyLock::new(Mutex::default);

/// The schema, or why it cannot be used.
pub(crate) fn compiled(source: &Value) -> Compiled {
    let text = source.to_string();
    // A panic elsewhere cannot leave a map of finished values half changed.
    let known = || COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known().get(&text) {
        return Arc::clone(found);
    }
    // Not under the lock: compiling takes its time.
    let made = Arc::new(JsonSchema::new(source.clone()));
    let mut known = known();
    if known.len() >= KEPT_MAX {
        known.clear();
    }
    known.insert(text, Arc::clone(&made));
    made
}
