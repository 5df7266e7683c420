//! Requests to other people's servers: which may be reached, how they are made, what is read of the answers.

pub(crate) mod address;
mod keys;
#[cfg(test)]
pub(crate) mod rebinding;
pub(crate) mod retry_after;
mod webhook;

use std::error::Error as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use recache_model::time::{Clock as _, SystemClock};
use reqwest::header::{DATE, RETRY_AFTER};
use reqwest::{Client, Response};

use address::{AddressRefused, PublicOnly};

pub(crate) use keys::IssuerKeys;
pub(crate) use webhook::{WebhookCourier, check_url};

/// For the connection alone; the whole exchange has its own limit.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that follows no redirect by itself, uses no proxy, and reaches public addresses only, unless it may reach all.
pub(crate) fn client(allow_private_addresses: bool) -> Result<Client, String> {
    client_of((!allow_private_addresses).then(PublicOnly::of_machine))
}

/// The same with names that are resolved so; without, as the machine does, and all addresses may be reached.
fn client_of(names: Option<PublicOnly>) -> Result<Client, String> {
    let builder = Client::builder()
        // A proxy from the environment would connect to what is refused here.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("recache/", env!("CARGO_PKG_VERSION")));
    let builder = match names {
        Some(names) => builder.dns_resolver(names),
        None => builder,
    };
    builder.build().map_err(|error| error.to_string())
}

/// What `Retry-After` of an answer asks for.
pub(crate) fn asked_to_wait(response: &Response) -> Option<Duration> {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    text(RETRY_AFTER).and_then(|value| retry_after::read(value, text(DATE), now()))
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(SystemClock.now().micros()).unwrap_or(0))
}

/// Why a call failed: that its address was refused, or the innermost cause. The outermost message repeats the URL with its query,
/// which may hold a secret.
pub(crate) fn cause(error: &reqwest::Error) -> Result<String, AddressRefused> {
    let (mut cause, mut source) = (None, error.source());
    while let Some(inner) = source {
        if let Some(refused) = inner.downcast_ref::<AddressRefused>() {
            return Err(refused.clone());
        }
        cause = Some(inner.to_string());
        source = inner.source();
    }
    Ok(cause.unwrap_or_else(|| "the request failed".to_owned()))
}
