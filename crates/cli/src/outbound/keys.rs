//! Key sets of issuers of tokens, fetched.

use std::sync::OnceLock;

use async_trait::async_trait;
use recache_server::KeySource;
use reqwest::header::ACCEPT;
use reqwest::{Client, StatusCode, Url};

use super::address::check_literal;

/// A key set behind a URL. Whoever can change what is read there makes tokens: only https, no redirect, no more than is needed.
#[derive(Debug)]
pub(crate) struct IssuerKeys {
    url: Url,
    allow_private_addresses: bool,
    /// Made at the first fetch: loading the machine's certificates is not free.
    client: OnceLock<Result<Client, String>>,
}

impl IssuerKeys {
    /// Refuses a URL that could not be safe.
    pub(crate) fn new(url: &str, allow_private_addresses: bool) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| format!("is no URL: {error}"))?;
        let is_own =
            allow_private_addresses && matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        if url.scheme() != "https" && !(url.scheme() == "http" && is_own) {
            return Err("must begin with https://: whoever can change the keys on their way can make tokens"
                .to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("holds a user name or password; key sets are public".to_owned());
        }
        Ok(Self { url, allow_private_addresses, client: OnceLock::new() })
    }
}

#[async_trait]
impl KeySource for IssuerKeys {
    async fn fetch(&self, bytes_max: usize) -> Result<String, String> {
        let client = self.client.get_or_init(|| super::client(self.allow_private_addresses));
        let client = client.as_ref().map_err(Clone::clone)?;
        if !self.allow_private_addresses {
            check_literal(&self.url).map_err(|refused| refused.to_string())?;
        }
        let failed =
            |error: reqwest::Error| super::cause(&error).unwrap_or_else(|refused| refused.to_string());
        let mut response =
            client.get(self.url.clone()).header(ACCEPT, "application/json").send().await.map_err(failed)?;
        if response.status().is_redirection() {
            return Err(format!("it answered {}, and redirects are not followed", response.status()));
        }
        if response.status() != StatusCode::OK {
            return Err(format!("it answered {}", response.status()));
        }
        let too_large = || format!("the answer is larger than {bytes_max} bytes");
        if response
            .content_length()
            .is_some_and(|bytes| usize::try_from(bytes).map_or(true, |bytes| bytes > bytes_max))
        {
            return Err(too_large());
        }
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if text.len() + chunk.len() > bytes_max {
                return Err(too_large());
            }
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).map_err(|_| "the answer is not UTF-8".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// A server that gives one answer; and the URL.
    fn serve(answer: impl Into<Vec<u8>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let answer = answer.into();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            // The client may have heard enough before all is written.
            let _ = stream.write_all(&answer);
        });
        url
    }

    async fn fetch(answer: impl Into<Vec<u8>>) -> Result<String, String> {
        IssuerKeys::new(&serve(answer), true).unwrap().fetch(1_000).await
    }

    #[test]
    fn url_of_a_key_set_is_encrypted_and_holds_no_password() {
        for good in ["https://issuer.example/jwks.json", "https://10.0.0.1/keys"] {
            assert!(
                IssuerKeys::new(good, false).is_ok(),
                "{good}: whether it may be reached is found out when it is fetched"
            );
        }
        assert!(IssuerKeys::new("http://127.0.0.1:9/keys", true).is_ok());
        for bad in [
            "http://issuer.example/jwks.json",
            "http://127.0.0.1:9/keys",
            "https://u:hunter2@issuer.example/",
            "file:///etc/passwd",
            "issuer.example",
            "",
        ] {
            let said = IssuerKeys::new(bad, false).unwrap_err();
            assert!(!said.contains("hunter2"), "{said}");
        }
        assert!(IssuerKeys::new("http://10.0.0.1/keys", true).is_err());
    }

    #[tokio::test]
    async fn addresses_that_are_not_public_are_refused() {
        for url in [
            "https://127.0.0.1:1/",
            "https://[::1]/",
            "https://169.254.169.254/",
            "https://localhost/",
            "https://[::ffff:10.0.0.1]/",
        ] {
            let said = IssuerKeys::new(url, false).unwrap().fetch(1_000).await.unwrap_err();
            assert!(said.contains("not a public address"), "{url}: {said}");
        }
    }

    #[tokio::test]
    async fn answer_that_is_no_small_whole_text_is_refused() {
        assert_eq!(fetch("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap(), "{}");
        let redirect =
            "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/keys\r\ncontent-length: 0\r\n\r\n";
        assert!(fetch(redirect).await.unwrap_err().contains("redirects are not followed"));
        assert!(
            fetch("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap_err().contains("404")
        );
        assert!(
            fetch("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n").await.unwrap_err().contains("larger")
        );
        let mut endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
        endless.extend(vec![b' '; 100_000]);
        assert!(fetch(endless).await.unwrap_err().contains("larger"));
        let chunked = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
            " ".repeat(1_001)
        );
        assert!(fetch(chunked).await.unwrap_err().contains("larger"));
        assert!(fetch("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}").await.is_err(), "cut off");
        assert!(fetch(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n\xff".to_vec()).await.is_err());
    }
}
