//! How an attempt is held to its end, whoever runs it: a panic is a failure, and whoever shall stop has some time to do so.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;

use crate::failure::Failure;
use crate::stop::{Stop, StopSignal};

/// The code of a failure that was a panic.
pub(crate) const PANIC: &str = "panic";

/// Runs an attempt. When it shall stop, the handler has some time to do so by itself; then it is dropped at its next await, and `dropped` is told.
pub(crate) async fn within_limits<T>(
    work: impl Future<Output = Result<T, Failure>>,
    stop: &StopSignal,
    grace: Duration,
    dropped: impl FnOnce(Stop),
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(AssertUnwindSafe(work).catch_unwind());
    let why = tokio::select! {
        biased;
        why = stop.stopped() => why,
        result = &mut work => return caught(result),
    };
    match tokio::time::timeout(grace, &mut work).await {
        // It may have finished in the same moment; but a job that was taken away has no result.
        Ok(Ok(Ok(done))) if why == Stop::Shutdown => Ok(done),
        Ok(_) => Err(Failure::Stopped(why)),
        Err(_) => {
            dropped(why);
            Err(Failure::Stopped(why))
        }
    }
}

fn caught<T>(result: Result<Result<T, Failure>, Box<dyn std::any::Any + Send>>) -> Result<T, Failure> {
    result.unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "the handler panicked".to_owned());
        Err(Failure::Retryable { code: Some(PANIC.to_owned()), message, after: None })
    })
}
