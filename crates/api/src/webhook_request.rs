//! What is asked for about webhooks, and what came of it.

use serde::{Deserialize, Serialize};

/// A webhook to be made. Its secret is answered once, and kept nowhere where it could be read again over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateWebhook {
    /// What it is called.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256, example = "shop"))]
    pub name: String,
    /// Where to send; `https`, and public unless the operator allows others.
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 1, max_length = 2048, example = "https://shop.example/hooks")
    )]
    pub url: String,
    /// Types of events: a whole name, `order.*`, `*` for all events of templates, `job.*`, `workflow.*`, `view.*`.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 50))]
    pub types: Vec<String>,
    /// Only events of this namespace; without it of all, which only whoever may see all can ask for.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub namespace: Option<String>,
    /// How long one try may take. Default 15,000.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 300_000))]
    pub timeout_ms: Option<u64>,
    /// Tries of each delivery. Default 20.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub attempts_max: Option<u32>,
    /// Send without TLS to an `http` address: everybody on the way can read it.
    #[serde(default)]
    pub plain: bool,
    /// Why; kept in the audit.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1000))]
    pub reason: Option<String>,
}

/// A new secret for a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RotateWebhook {
    /// For how long the former secret signs too. Default 86,400.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 604_800))]
    pub overlap_seconds: Option<u64>,
    /// Also while a former secret still signs; that one is then no longer good.
    #[serde(default)]
    pub again: bool,
    /// Why; kept in the audit.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1000))]
    pub reason: Option<String>,
}

/// Deliveries to be made once more: one event's, or all that were given up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Redeliver {
    /// `evt_…`: the delivery of this event, whether it was delivered or given up.
    #[serde(default)]
    pub event: Option<String>,
    /// All that were given up.
    #[serde(default)]
    pub dead: bool,
    /// Why; kept in the audit.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1000))]
    pub reason: Option<String>,
}

/// How many deliveries are made once more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Redelivered {
    /// [`Redelivered::SCHEMA`]
    pub schema: String,
    /// The webhook.
    pub name: String,
    /// How many.
    pub count: u64,
}

impl Redelivered {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.redelivered.v1";

    /// So many.
    pub fn new(name: String, count: u64) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), name, count }
    }
}

/// That a webhook was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubscriberChange {
    /// [`SubscriberChange::SCHEMA`]
    pub schema: String,
    /// The webhook.
    pub name: String,
    /// `active`, `paused` or `gone`.
    pub state: String,
    /// By this call; else it was so before.
    pub changed: bool,
}

impl SubscriberChange {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.subscriber-change.v1";

    /// How it stands now.
    pub fn new(name: String, state: String, changed: bool) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), name, state, changed }
    }
}
