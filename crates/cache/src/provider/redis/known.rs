//! The servers that speak this protocol, and what is known of them without asking.

use super::node::field;
use crate::config::Backend;
use crate::provider::{Capabilities, Capability, Known, Source};

/// `proto-max-bulk-len` as it is shipped.
const BULK_BYTES_MAX: usize = 512 << 20;

/// Looks at what a server says of itself (`INFO`), and tells what it can do. Trusted least: it fills in what nobody else
/// knows.
pub type Detector = fn(info: &str) -> Vec<(Capability, Known)>;

/// A server whose capabilities stand in a table here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownServer {
    Redis,
    Valkey,
    Dragonfly,
}

impl KnownServer {
    pub(super) fn of_backend(backend: Backend) -> Option<Self> {
        match backend {
            Backend::Redis => Some(Self::Redis),
            Backend::Valkey => Some(Self::Valkey),
            Backend::Dragonfly => Some(Self::Dragonfly),
            Backend::Memcached | Backend::Moka | Backend::Tiered => None,
        }
    }

    /// Of what a server says of itself. All of them also call themselves Redis, for the sake of old clients.
    pub(super) fn of_info(info: &str) -> Option<Self> {
        if field(info, "dragonfly_version").is_some() {
            Some(Self::Dragonfly)
        } else if field(info, "valkey_version").is_some() || field(info, "server_name") == Some("valkey") {
            Some(Self::Valkey)
        } else if field(info, "redis_version").is_some() {
            Some(Self::Redis)
        } else {
            None
        }
    }

    pub(super) fn claim(self, capabilities: &mut Capabilities) {
        for capability in DEPENDS_ON_THE_SERVER {
            capabilities.claim(capability, Known::Has(true), Source::KnownTable);
        }
        if matches!(self, Self::Redis | Self::Valkey) {
            let limit = Known::Limit(Some(BULK_BYTES_MAX));
            capabilities.claim(Capability::MaxValueBytes, limit, Source::KnownTable);
        }
    }
}

/// What the code here cannot vouch for: access rules or another make of server may take it away.
pub(super) const DEPENDS_ON_THE_SERVER: [Capability; 6] = [
    Capability::AtomicIncrement,
    Capability::CompareAndSwap,
    Capability::SetIfAbsent,
    Capability::Leases,
    Capability::TtlInspection,
    Capability::PushInvalidation,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_what_it_says() {
        let of = |info: &str| KnownServer::of_info(info);
        assert_eq!(of("# Server\r\nredis_version:7.0.15\r\n"), Some(KnownServer::Redis));
        assert_eq!(
            of("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n"),
            Some(KnownServer::Valkey)
        );
        assert_eq!(
            of("redis_version:7.4.0\r\ndragonfly_version:df-v1.30.0\r\n"),
            Some(KnownServer::Dragonfly)
        );
        assert_eq!(of("version:1"), None);
    }
}
