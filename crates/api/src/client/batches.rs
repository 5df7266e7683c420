//! Batches.

use std::time::Duration;

use super::call::Call;
use super::{BatchMembersQuery, BatchesQuery, Client, Result};
use crate::batch::{BatchAnswer, BatchList, BatchMemberList};
use crate::batch_request::{CreateBatch, RetryBatch};
use crate::job_request::Because;

impl Client {
    /// Creates a batch.
    pub async fn create_batch(&self, batch: &CreateBatch) -> Result<BatchAnswer> {
        self.call(Call::post(&["v1", "batches"], batch)?).await
    }

    /// A page of batches, newest first.
    pub async fn batches(&self, query: &BatchesQuery) -> Result<BatchList> {
        self.call(Call::get(&["v1", "batches"]).query(query)?).await
    }

    /// A batch. With `wait` the answer comes when it has ended, or after that time.
    pub async fn batch(&self, id: &str, wait: Option<Duration>) -> Result<BatchAnswer> {
        self.call(Call::get(&["v1", "batches", id]).wait(wait)).await
    }

    /// A page of the members of a batch.
    pub async fn batch_members(&self, id: &str, query: &BatchMembersQuery) -> Result<BatchMemberList> {
        self.call(Call::get(&["v1", "batches", id, "members"]).query(query)?).await
    }

    /// Lets nothing more be added to a batch.
    pub async fn close_batch(&self, id: &str) -> Result<BatchAnswer> {
        self.call(Call::post_empty(&["v1", "batches", id, "close"])).await
    }

    /// Calls off a batch with all that is in it.
    pub async fn cancel_batch(&self, id: &str, because: &Because) -> Result<BatchAnswer> {
        self.call(Call::post(&["v1", "batches", id, "cancel"], because)?).await
    }

    /// Runs some thousands of the failed jobs of a batch again; `next` of the answer says that there may be more.
    pub async fn retry_batch(&self, id: &str, retry: &RetryBatch) -> Result<BatchAnswer> {
        self.call(Call::post(&["v1", "batches", id, "retry"], retry)?).await
    }
}
