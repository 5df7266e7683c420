//! How the server does, who works for it, and what operators did.

use super::call::Call;
use super::{AuditQuery, Client, Result};
use crate::audit::AuditList;
use crate::health::{Health, HealthDetails};
use crate::worker::{WorkerList, WorkerShown};

impl Client {
    /// Whether the process answers; nothing else is asked.
    pub async fn live(&self) -> Result<()> {
        self.text(Call::get(&["health", "live"])).await.map(|_| ())
    }

    /// Whether a write would be accepted and committed. A server that says no has answered: look at `status` and `reasons`.
    pub async fn ready(&self) -> Result<Health> {
        self.call(Call::get(&["health", "ready"]).verdict()).await
    }

    /// All figures, as OpenMetrics text.
    pub async fn metrics(&self) -> Result<String> {
        self.text(Call::get(&["metrics"])).await
    }

    /// The server, looked at closely: its database, its cache, its work, how much may run. Answered too when it is not ready.
    pub async fn health_details(&self) -> Result<HealthDetails> {
        self.call(Call::get(&["health", "detailed"])).await
    }

    /// Workers whose sessions have not ended, the newest first.
    pub async fn workers(&self) -> Result<WorkerList> {
        self.call(Call::get(&["v1", "workers"])).await
    }

    /// A worker by its session.
    pub async fn worker(&self, session: &str) -> Result<WorkerShown> {
        self.call(Call::get(&["v1", "workers", session])).await
    }

    /// A page of what operators did, newest first.
    pub async fn audit(&self, query: &AuditQuery) -> Result<AuditList> {
        self.call(Call::get(&["v1", "audit"]).query(query)?).await
    }
}
