//! Which addresses an `http` step or a webhook may reach: the public ones, unless the operator says otherwise.
//!
//! A name is judged by what it resolves to, at the moment of connecting, so that a name that changes its answer
//! between check and use gains nothing. A literal address never comes to the resolver and is judged from the URL.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::{fmt, io};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The address is one that a template may not make this process reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{host}` is at {address}, which is not a public address; the operator may allow it with --allow-private-addresses, or in the configuration with outbound.allow_private_addresses"
)]
pub(crate) struct AddressRefused {
    pub(crate) host: String,
    pub(crate) address: IpAddr,
}

/// Judges a URL whose host is a literal address, in whatever spelling; a name passes here.
pub(crate) fn check_literal(url: &Url) -> Result<(), AddressRefused> {
    let host = url.host_str().unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) if !is_public(address) => Err(AddressRefused { host: host.to_owned(), address }),
        _ => Ok(()),
    }
}

/// What a name was found to be.
type Found = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Resolves names and drops what is not public. What it answers is what is connected to: nobody asks once more between the two.
#[derive(Clone)]
pub(crate) struct PublicOnly(Arc<dyn Fn(String) -> Found + Send + Sync>);

impl PublicOnly {
    /// As the machine resolves them.
    pub(crate) fn of_machine() -> Self {
        Self::over(|host| {
            Box::pin(async move { Ok(tokio::net::lookup_host((host.as_str(), 0)).await?.collect()) })
        })
    }

    /// As somebody else does.
    pub(crate) fn over(look: impl Fn(String) -> Found + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }
}

impl fmt::Debug for PublicOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicOnly")
    }
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let looking = (self.0)(host.clone());
        Box::pin(async move {
            let found: Vec<SocketAddr> = looking.await?;
            let refused = found.iter().map(SocketAddr::ip).find(|address| !is_public(*address));
            let public: Vec<SocketAddr> =
                found.into_iter().filter(|address| is_public(address.ip())).collect();
            match refused {
                Some(address) if public.is_empty() => Err(AddressRefused { host, address }.into()),
                _ => {
                    let addresses: Addrs = Box::new(public.into_iter());
                    Ok(addresses)
                }
            }
        })
    }
}

/// Whether an address belongs to the public Internet. What is not known to is refused.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// By the IANA registry of special-purpose addresses.
fn is_public_v4(address: Ipv4Addr) -> bool {
    /// Public by number, and yet the host's own service inside a large cloud.
    const CLOUD_HOST: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
    let [a, b, c, _] = address.octets();
    let is_special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !is_special && address != CLOUD_HOST
}

/// Only what is handed out for global use, and where an IPv4 address is wrapped, only if that is public.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..]
        | [0, 0, 0, 0, 0, 0xffff, high, low] => embedded(high, low),
        // Protocol assignments (Teredo and others) and documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for public in
            ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn literal_addresses_are_known_in_every_spelling() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://[::1]:80/",
            "http://[::ffff:127.0.0.1]/",
            "http://169.254.169.254/latest/meta-data/",
        ] {
            assert!(check_literal(&url.parse().unwrap()).is_err(), "{url}");
        }
        for url in ["http://1.1.1.1/", "http://example.com/", "https://[2606:4700::1111]/"] {
            assert_eq!(check_literal(&url.parse().unwrap()), Ok(()), "{url}");
        }
    }

    #[tokio::test]
    async fn names_are_judged_by_what_they_resolve_to() {
        let error = PublicOnly::of_machine().resolve("localhost".parse().unwrap()).await.err().unwrap();
        assert!(error.downcast_ref::<AddressRefused>().is_some(), "{error}");
    }
}
