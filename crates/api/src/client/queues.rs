//! Queues and limits.

use std::time::Duration;

use super::call::Call;
use super::{Client, Result};
use crate::job_request::Because;
use crate::queue::{LimitList, QueueAnswer, QueueList};
use crate::queue_request::{PauseQueue, SetLimit};

impl Client {
    /// Queues that hold jobs, are paused or are limited.
    pub async fn queues(&self) -> Result<QueueList> {
        self.call(Call::get(&["v1", "queues"])).await
    }

    /// A queue.
    pub async fn queue(&self, name: &str) -> Result<QueueAnswer> {
        self.call(Call::get(&["v1", "queues", name])).await
    }

    /// Lets nothing of a queue begin.
    pub async fn pause_queue(&self, name: &str, pause: &PauseQueue) -> Result<QueueAnswer> {
        self.call(Call::post(&["v1", "queues", name, "pause"], pause)?).await
    }

    /// The same, and waits until nothing of it runs, for `wait` at most.
    pub async fn drain_queue(
        &self,
        name: &str,
        pause: &PauseQueue,
        wait: Option<Duration>,
    ) -> Result<QueueAnswer> {
        self.call(Call::post(&["v1", "queues", name, "drain"], pause)?.wait(wait)).await
    }

    /// Ends a pause.
    pub async fn resume_queue(&self, name: &str, because: &Because) -> Result<QueueAnswer> {
        self.call(Call::post(&["v1", "queues", name, "resume"], because)?).await
    }

    /// The limits of queues, handlers and concurrency keys.
    pub async fn limits(&self) -> Result<LimitList> {
        self.call(Call::get(&["v1", "limits"])).await
    }

    /// Sets a limit in place of the former one.
    pub async fn set_limit(&self, limit: &SetLimit) -> Result<LimitList> {
        self.call(Call::put(&["v1", "limits"], limit)?).await
    }
}
