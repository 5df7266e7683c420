//! The link of a handler that runs far from the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use recache_api::{
    BeginBuild, Json, KeepItems, PutItem, PutItems, ReadPrevious, UnchangedItem, WorkerAnswer, WorkerCall,
    WorkerDone, WorkerKept, WorkerLoss, WorkerPart, WorkerPrevious, WorkerReport, WorkerResult,
};
use reqwest::Method;
use tokio::sync::Mutex;

use super::RemoteError;
use super::client::{Client, Session};
use crate::build::Touched;
use crate::link::{Item, Keep, Link, LinkError, PartSource};
use crate::stop::{Stop, StopSignal};

#[derive(Debug)]
pub(super) struct RemoteLink {
    pub(super) client: Arc<Client>,
    pub(super) session: Session,
    pub(super) token: String,
    pub(super) stop: StopSignal,
    /// Lines said so far; held while some are sent, so that each has its number.
    pub(super) lines: Mutex<u64>,
    /// Items that were taken over from an earlier build.
    pub(super) taken_over: AtomicU64,
}

/// What a handler is told when its job is no longer its own.
pub(super) fn stop_of(loss: WorkerLoss) -> Stop {
    match loss {
        WorkerLoss::Cancelled => Stop::Cancelled,
        WorkerLoss::Superseded => Stop::Superseded,
        WorkerLoss::TakenOver | WorkerLoss::Finished | WorkerLoss::Gone => Stop::LeaseLost,
    }
}

impl RemoteLink {
    fn revoked(&self, why: Stop) -> LinkError {
        self.stop.stop(why);
        LinkError::Revoked(self.stop.reason().unwrap_or(why))
    }

    fn refused(&self, error: RemoteError) -> LinkError {
        match error {
            RemoteError::Refused { status: 404 | 410, .. } => self.revoked(Stop::LeaseLost),
            RemoteError::Refused { status: 409, detail, .. } => {
                let word = detail.split(':').next().unwrap_or_default();
                self.revoked(match word {
                    "cancelled" => Stop::Cancelled,
                    "superseded" => Stop::Superseded,
                    _ => Stop::LeaseLost,
                })
            }
            other => LinkError::Refused(other.to_string()),
        }
    }

    /// Until it is answered, or the handler is told to stop: what it says is no longer asked for then.
    pub(super) async fn while_wanted<T>(
        &self,
        sending: impl Future<Output = Result<T, RemoteError>> + Send,
    ) -> Result<T, LinkError> {
        tokio::select! {
            answer = sending => answer.map_err(|error| self.refused(error)),
            why = self.stop.stopped() => Err(LinkError::Revoked(why)),
        }
    }

    async fn report(&self, report: WorkerReport) -> Result<(), LinkError> {
        let call = WorkerCall { reports: vec![report], ..WorkerCall::default() };
        let path = format!("{}/call", self.session.path);
        let sending = self.client.send(Method::POST, &path, Some(&self.session), &call, Duration::ZERO);
        let answer: WorkerAnswer = self.while_wanted(sending).await?;
        match answer.reported.first() {
            Some(verdict) if verdict.result == WorkerResult::Accepted => Ok(()),
            Some(verdict) => Err(self.revoked(verdict.reason.map_or(Stop::LeaseLost, stop_of))),
            None => Err(self.revoked(Stop::LeaseLost)),
        }
    }
}

#[async_trait]
impl Link for RemoteLink {
    /// The worker's own call hears of every stop at once: there is nothing to ask for.
    async fn check(&self) -> Result<(), LinkError> {
        Ok(())
    }

    async fn progress(&self, fraction: f64, message: Option<String>) -> Result<(), LinkError> {
        let report = WorkerReport::new(self.token.clone());
        self.report(WorkerReport { progress: Some(fraction), message, ..report }).await
    }

    async fn save(&self, checkpoint: String) -> Result<(), LinkError> {
        let checkpoint =
            Json::from_text(&checkpoint).map_err(|error| LinkError::Refused(error.to_string()))?;
        let report = WorkerReport::new(self.token.clone());
        self.report(WorkerReport { checkpoint: Some(checkpoint), ..report }).await
    }

    async fn log(&self, lines: Vec<String>) -> Result<(), LinkError> {
        let mut said = self.lines.lock().await;
        let count = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        let report = WorkerReport::new(self.token.clone());
        self.report(WorkerReport { first_line: Some(*said + 1), lines: Some(lines), ..report }).await?;
        *said += count;
        Ok(())
    }

    async fn put(&self, items: Vec<Item>) -> Result<(), LinkError> {
        let taken_over = items.iter().filter(|item| item.value.is_none()).count();
        let items = items.into_iter().map(|item| {
            let value = item.value.as_deref().map(Json::from_text).transpose();
            Ok(PutItem {
                item: item.key,
                fingerprint: item.fingerprint,
                value: value.map_err(|error| LinkError::Refused(error.to_string()))?,
            })
        });
        let items = items.collect::<Result<Vec<_>, LinkError>>()?;
        let path = format!("{}/items", self.session.path);
        let body = PutItems { token: self.token.clone(), items };
        let sending = self.client.send(Method::POST, &path, Some(&self.session), &body, Duration::ZERO);
        let _: WorkerDone = self.while_wanted(sending).await?;
        self.taken_over.fetch_add(u64::try_from(taken_over).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(())
    }

    async fn part(&self) -> Result<PartSource, LinkError> {
        let path = format!("{}/part", self.session.path);
        let body = BeginBuild { token: self.token.clone() };
        let sending = self.client.send(Method::POST, &path, Some(&self.session), &body, Duration::ZERO);
        let part: WorkerPart = self.while_wanted(sending).await?;
        Ok(PartSource {
            namespace: part.namespace,
            key: part.key,
            version: part.version,
            live_version: part.live_version,
            touched: part.touched.map_or(Touched::All, Touched::Only),
        })
    }

    async fn keep(&self, keep: Keep) -> Result<Vec<bool>, LinkError> {
        let mut body =
            KeepItems { token: self.token.clone(), unchanged: None, live: None, rest: None, dropped: None };
        match keep {
            Keep::Unchanged(items) => {
                let items = items.into_iter().map(|(item, fingerprint)| UnchangedItem { item, fingerprint });
                body.unchanged = Some(items.collect());
            }
            Keep::Live(items) => body.live = Some(items),
            Keep::Rest => body.rest = Some(true),
            Keep::Dropped(items) => body.dropped = Some(items),
        }
        let path = format!("{}/keep", self.session.path);
        let sending = self.client.send(Method::POST, &path, Some(&self.session), &body, Duration::ZERO);
        let kept: WorkerKept = self.while_wanted(sending).await?;
        Ok(kept.kept)
    }

    async fn previous(&self, items: Vec<String>) -> Result<Vec<(String, String)>, LinkError> {
        let path = format!("{}/previous", self.session.path);
        let body = ReadPrevious { token: self.token.clone(), items };
        let sending = self.client.send(Method::POST, &path, Some(&self.session), &body, Duration::ZERO);
        let previous: WorkerPrevious = self.while_wanted(sending).await?;
        Ok(previous.items.into_iter().map(|item| (item.item, item.value.text().to_owned())).collect())
    }
}
