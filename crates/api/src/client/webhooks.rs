//! Webhooks.

use super::call::Call;
use super::{Client, DeliveriesQuery, Result};
use crate::event::{DeliveryList, Subscriber, SubscriberList, WebhookSecret};
use crate::job_request::Because;
use crate::webhook_request::{CreateWebhook, Redeliver, Redelivered, RotateWebhook, SubscriberChange};

impl Client {
    /// Webhooks by name, without their secrets.
    pub async fn webhooks(&self, namespace: Option<&str>) -> Result<SubscriberList> {
        let query = serde_json::json!({ "namespace": namespace });
        self.call(Call::get(&["v1", "webhooks"]).query(&query)?).await
    }

    /// One webhook.
    pub async fn webhook(&self, name: &str) -> Result<Subscriber> {
        self.call(Call::get(&["v1", "webhooks", name])).await
    }

    /// Makes a webhook; its secret is answered now and never again. The answer is not kept for a repetition: one whose answer was lost is
    /// refused, because the webhook is there.
    pub async fn create_webhook(&self, webhook: &CreateWebhook) -> Result<WebhookSecret> {
        self.call(Call::post(&["v1", "webhooks"], webhook)?).await
    }

    /// Removes a webhook with its deliveries.
    pub async fn delete_webhook(&self, name: &str) -> Result<SubscriberChange> {
        self.call(Call::delete(&["v1", "webhooks", name])).await
    }

    /// Lets what is for a webhook wait.
    pub async fn pause_webhook(&self, name: &str, because: &Because) -> Result<SubscriberChange> {
        self.call(Call::post(&["v1", "webhooks", name, "pause"], because)?).await
    }

    /// Ends a pause, and a rest after failures.
    pub async fn resume_webhook(&self, name: &str, because: &Because) -> Result<SubscriberChange> {
        self.call(Call::post(&["v1", "webhooks", name, "resume"], because)?).await
    }

    /// Gives a webhook a new secret, answered now and never again.
    pub async fn rotate_webhook(&self, name: &str, how: &RotateWebhook) -> Result<WebhookSecret> {
        self.call(Call::post(&["v1", "webhooks", name, "rotate"], how)?).await
    }

    /// What became of telling a webhook, newest first.
    pub async fn deliveries(&self, name: &str, query: &DeliveriesQuery) -> Result<DeliveryList> {
        self.call(Call::get(&["v1", "webhooks", name, "deliveries"]).query(query)?).await
    }

    /// What became of telling anybody, newest first.
    pub async fn all_deliveries(&self, query: &DeliveriesQuery) -> Result<DeliveryList> {
        self.call(Call::get(&["v1", "deliveries"]).query(query)?).await
    }

    /// Has deliveries made once more, with the same ids.
    pub async fn redeliver(&self, name: &str, which: &Redeliver) -> Result<Redelivered> {
        self.call(Call::post(&["v1", "webhooks", name, "redeliver"], which)?).await
    }
}
