//! `[outbound]`: what requests to other people's servers may do.

use serde_json::Value;

use super::schema::{ConfigOption, Kind};

/// Bounds of what goes out: webhooks, and `http` steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct OutboundConfig {
    /// Private, loopback, link-local and metadata addresses may be reached. Default false.
    pub(crate) allow_private_addresses: bool,
}

pub(super) const OPTIONS: &[ConfigOption] = &[ConfigOption {
    path: "outbound.allow_private_addresses",
    meaning: "webhooks may be sent to private, loopback, link-local and metadata addresses",
    kind: Kind::Boolean { write: |config, _, allow| config.outbound.allow_private_addresses = allow },
    read: |config, _| Value::from(config.outbound.allow_private_addresses),
}];
