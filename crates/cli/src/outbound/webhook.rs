//! Webhooks on their way out.

use std::sync::OnceLock;

use async_trait::async_trait;
use recache_engine::{Courier, Posting, Reply};
use recache_model::webhook::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};

use super::address::check_literal;

/// Sends webhooks. The status is all that it looks at: no redirect is followed, and no body is read.
#[derive(Debug)]
pub(crate) struct WebhookCourier {
    allow_private_addresses: bool,
    /// Made at the first webhook: loading the machine's certificates is not free.
    client: OnceLock<Result<Client, String>>,
}

impl WebhookCourier {
    pub(crate) fn new(allow_private_addresses: bool) -> Self {
        Self { allow_private_addresses, client: OnceLock::new() }
    }
}

#[cfg(test)]
impl WebhookCourier {
    /// With this client, to public addresses.
    pub(super) fn over(client: Client) -> Self {
        Self { allow_private_addresses: false, client: OnceLock::from(Ok(client)) }
    }
}

#[async_trait]
impl Courier for WebhookCourier {
    fn refuses(&self, url: &str, allow_plain: bool) -> Option<String> {
        check_url(url, self.allow_private_addresses, allow_plain).err()
    }

    async fn post(&self, posting: Posting) -> Result<Reply, String> {
        let client = self.client.get_or_init(|| super::client(self.allow_private_addresses));
        let client = client.as_ref().map_err(Clone::clone)?;
        // Judged at each try: what was allowed when the webhook was added may not be any more.
        let url = parse(&posting.url, self.allow_private_addresses)?;
        let exchange = client
            .post(url)
            .timeout(posting.timeout)
            .header(CONTENT_TYPE, "application/json")
            .header(ID_HEADER, posting.id)
            .header(TIMESTAMP_HEADER, posting.timestamp_seconds)
            .header(SIGNATURE_HEADER, posting.signature)
            .body(posting.body)
            .send();
        match exchange.await {
            Ok(response) => {
                Ok(Reply { status: response.status().as_u16(), retry_after: super::asked_to_wait(&response) })
            }
            Err(error) if error.is_timeout() => {
                Err(format!("no answer within {} ms", posting.timeout.as_millis()))
            }
            Err(error) => Err(super::cause(&error).unwrap_or_else(|refused| refused.to_string())),
        }
    }
}

fn parse(text: &str, allow_private_addresses: bool) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("its address is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("its scheme is `{}`; use https", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("its address holds a user name or password; the signature says who sends".to_owned());
    }
    if !allow_private_addresses {
        check_literal(&url).map_err(|refused| refused.to_string())?;
    }
    Ok(url)
}

/// Refuses an address that no webhook may have. Without TLS everybody on the way reads what is sent: that needs a word of its
/// own.
pub(crate) fn check_url(text: &str, allow_private_addresses: bool, allow_plain: bool) -> Result<(), String> {
    let url = parse(text, allow_private_addresses)?;
    if url.scheme() == "http" && !allow_plain {
        return Err(
            "its scheme is `http`, which everybody on the way can read; use https, or say --plain".to_owned()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_of_a_webhook_is_public_encrypted_and_without_a_password() {
        assert_eq!(check_url("https://example.com/hook?k=1", false, false), Ok(()));
        assert_eq!(check_url("http://127.0.0.1:1/", true, true), Ok(()));
        for (url, why) in [
            ("http://example.com/", "--plain"),
            ("https://127.0.0.1/", "not a public address"),
            ("https://[::ffff:10.0.0.1]/", "not a public address"),
            ("https://u:hunter2@example.com/", "user name or password"),
            ("ftp://example.com/", "use https"),
            ("example.com", "no URL"),
        ] {
            let said = check_url(url, false, false).unwrap_err();
            assert!(said.contains(why) && !said.contains("hunter2"), "{url}: {said}");
        }
    }
}
