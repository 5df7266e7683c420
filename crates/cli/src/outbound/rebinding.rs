//! A name that changes its answer between one look and the next, as an attacker's does: public when it is judged, this machine when it is used.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use recache_engine::{Courier as _, Posting};
use reqwest::Client;
use tokio::net::TcpListener;

use super::address::PublicOnly;
use super::webhook::WebhookCourier;

/// Public by its number, and given to nobody since 2006: nothing answers there.
const PUBLIC: &str = "3ffe::1";

/// A server on this machine that nobody may reach, and a name that leads to it from its second look on.
pub(crate) struct Rebound {
    inside: TcpListener,
    looks: Arc<AtomicUsize>,
}

impl Rebound {
    pub(crate) async fn start() -> Self {
        let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { inside, looks: Arc::default() }
    }

    pub(crate) fn client(&self) -> Client {
        let looks = Arc::clone(&self.looks);
        let names = PublicOnly::over(move |_| {
            let is_first = looks.fetch_add(1, Ordering::SeqCst) == 0;
            let address: IpAddr = if is_first { PUBLIC } else { "127.0.0.1" }.parse().unwrap();
            Box::pin(async move { Ok(vec![SocketAddr::new(address, 0)]) })
        });
        super::client_of(Some(names)).unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://rebound.example:{}/", self.inside.local_addr().unwrap().port())
    }

    /// Nobody came, and each try looked once: what was judged is what was used.
    pub(crate) async fn assert_untouched(self, tries: usize) {
        assert_eq!(self.looks.load(Ordering::SeqCst), tries);
        let came = tokio::time::timeout(Duration::from_millis(50), self.inside.accept()).await;
        assert!(came.is_err(), "somebody came inside: {came:?}");
    }
}

fn posting(url: String) -> Posting {
    Posting {
        url,
        id: "evt_1".to_owned(),
        timestamp_seconds: 1,
        signature: "v1,x".to_owned(),
        body: "{}".to_owned(),
        timeout: Duration::from_secs(1),
    }
}

#[tokio::test]
async fn webhook_to_a_name_that_is_rebound_never_comes_inside() {
    let rebound = Rebound::start().await;
    let courier = WebhookCourier::over(rebound.client());
    // Nothing is there, or no way leads there.
    let first = courier.post(posting(rebound.url())).await.unwrap_err();
    assert!(!first.contains("not a public address"), "{first}");
    for _ in 0..2 {
        let refused = courier.post(posting(rebound.url())).await.unwrap_err();
        assert!(
            refused.contains("`rebound.example` is at 127.0.0.1, which is not a public address"),
            "{refused}"
        );
    }
    rebound.assert_untouched(3).await;
}

#[tokio::test]
async fn of_a_name_with_addresses_of_both_kinds_only_the_public_one_is_used() {
    use reqwest::dns::Resolve as _;
    let both = PublicOnly::over(|_| {
        let addresses = ["127.0.0.1", PUBLIC, "::1", "10.0.0.1"];
        let found = addresses.map(|one| SocketAddr::new(one.parse().unwrap(), 0)).to_vec();
        Box::pin(async move { Ok(found) })
    });
    let found: Vec<_> = both.resolve("mixed.example".parse().unwrap()).await.unwrap().collect();
    assert_eq!(found, [SocketAddr::new(PUBLIC.parse().unwrap(), 0)]);
}
