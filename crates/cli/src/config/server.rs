//! `[server]`: where the HTTP API and the dashboard listen.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;

use super::schema::{ConfigOption, Kind, Refusal};

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerConfig {
    /// Address and port; loopback only in this version, port 0 lets the system choose. Default `127.0.0.1:7878`.
    pub(crate) address: SocketAddr,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 7878)) }
    }
}

/// Reads an address and refuses what others could reach: there is no authentication yet, and a guard that cannot
/// tell who asks says no.
fn parse(text: &str) -> Result<SocketAddr, Refusal> {
    let address: SocketAddr = text.parse().map_err(|_| {
        Refusal::new(
            format!("is `{}`, not an IP address with a port", super::problem::short(text)),
            "write 127.0.0.1:7878 or [::1]:7878; names are not looked up",
        )
    })?;
    if !address.ip().is_loopback() {
        return Err(Refusal::new(
            format!("is `{address}`, which other machines can reach, and this version has no authentication"),
            format!("write 127.0.0.1:{}, and put a proxy that authenticates in front of it", address.port()),
        ));
    }
    Ok(address)
}

pub(super) const OPTIONS: &[ConfigOption] = &[ConfigOption {
    path: "server.address",
    meaning: "where the HTTP API and the dashboard listen; loopback only in this version",
    kind: Kind::Text {
        form: "an IP address with a port",
        write: |config, _, text| {
            config.server.address = parse(text)?;
            Ok(())
        },
    },
    read: |config, _| Value::from(config.server.address.to_string()),
}];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_accepted() {
        for text in ["127.0.0.1:7878", "127.9.9.9:1", "[::1]:0"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn addresses_that_others_can_reach_are_refused_with_the_reason() {
        for text in ["0.0.0.0:7878", "[::]:7878", "10.0.0.1:80", "[::ffff:127.0.0.1]:80", "[fe80::1]:80"] {
            let refusal = parse(text).unwrap_err();
            assert!(refusal.why.ends_with("this version has no authentication"), "{text}: {refusal:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "localhost:7878", "127.0.0.1", ":7878", "127.0.0.1:65536"] {
            assert!(parse(text).unwrap_err().why.ends_with("not an IP address with a port"), "{text}");
        }
    }
}
