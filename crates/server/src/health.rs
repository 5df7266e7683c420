//! Whether the process lives, and whether it can do its work.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use recache_engine::Engine;
use serde_json::{Value, json};

/// A store that takes longer than this to commit one small transaction is not ready.
const READY_WITHIN: Duration = Duration::from_secs(2);

pub(crate) async fn live() -> &'static str {
    "live"
}

pub(crate) async fn ready(State(engine): State<Engine>) -> (StatusCode, Json<Value>) {
    match verdict(&engine).await {
        Ok(()) => (StatusCode::OK, Json(json!({ "status": "ready" }))),
        Err(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "not_ready", "reason": reason })))
        }
    }
}

pub(crate) async fn summary(State(engine): State<Engine>) -> (StatusCode, Json<Value>) {
    let verdict = verdict(&engine).await;
    let status = if verdict.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let stats = engine.stats();
    let cache = engine.cache().stats();
    let body = json!({
        "status": if verdict.is_ok() { "ready" } else { "not_ready" },
        "reason": verdict.err(),
        "store": engine.store().kind(),
        "jobs": {
            "held": engine.held_count(), "started": stats.started, "completed": stats.completed,
            "retried": stats.retried, "failed": stats.failed, "lease_lost": stats.lease_lost,
        },
        "views": {
            "touches": stats.touches, "builds_created": stats.builds_created,
            "superseded": stats.superseded, "published": stats.published,
        },
        "cache": { "hits": cache.hits, "misses": cache.misses },
        "store_errors": stats.store_errors,
    });
    (status, Json(body))
}

async fn verdict(engine: &Engine) -> Result<(), String> {
    match tokio::time::timeout(READY_WITHIN, engine.store().check_writable()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the store took longer than {} ms to commit", READY_WITHIN.as_millis())),
    }
}
