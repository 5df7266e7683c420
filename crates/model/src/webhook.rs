//! Signing webhooks, in the form of the Standard Webhooks specification, version 1.0.0
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>): HMAC-SHA256 over
//! `id.timestamp.body`, one signature for each secret that is good now.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Names what is sent and stays the same however often it is sent.
pub const ID_HEADER: &str = "webhook-id";
/// Seconds since 1970 UTC, at each try anew.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// One or more of `v1,<base64>`, apart by spaces.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

const PREFIX: &str = "whsec_";
const BYTES_MIN: usize = 24;
const BYTES_MAX: usize = 64;

/// What both sides of a webhook know. Never shown but by [`Secret::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// The text is no secret of a webhook. It is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a signing secret is `whsec_` and the base64 of {BYTES_MIN} to {BYTES_MAX} bytes")]
pub struct InvalidSecret;

impl Secret {
    /// From random bytes.
    pub fn new(random: [u8; 32]) -> Self {
        Self(random.to_vec())
    }

    /// As it is given to whoever receives: `whsec_…`. To be shown once, and kept where secrets are kept.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// One signature: `v1,<base64>`.
    fn sign(&self, id: &str, timestamp_seconds: i64, body: &[u8]) -> String {
        // A key of any length is good.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(format!("{id}.{timestamp_seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidSecret)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| InvalidSecret)?;
        if (BYTES_MIN..=BYTES_MAX).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(InvalidSecret) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(***)")
    }
}

/// The value of [`SIGNATURE_HEADER`]: a signature by each secret.
pub fn signatures<'a>(
    secrets: impl IntoIterator<Item = &'a Secret>,
    id: &str,
    timestamp_seconds: i64,
    body: &[u8],
) -> String {
    let signed: Vec<String> =
        secrets.into_iter().map(|secret| secret.sign(id, timestamp_seconds, body)).collect();
    signed.join(" ")
}

/// Whether one of the signatures of `header` is by `secret`, compared in constant time. The caller judges the timestamp's age.
pub fn is_signed_by(secret: &Secret, header: &str, id: &str, timestamp_seconds: i64, body: &[u8]) -> bool {
    header.split(' ').any(|signature| {
        let Some(encoded) = signature.strip_prefix("v1,") else { return false };
        let Ok(given) = STANDARD.decode(encoded) else { return false };
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&secret.0) else { return false };
        mac.update(format!("{id}.{timestamp_seconds}.").as_bytes());
        mac.update(body);
        mac.verify_slice(&given).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the libraries of the specification test themselves with.
    const KNOWN: (&str, &str, i64, &[u8], &str) = (
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        b"{\"test\": 2432232314}",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    );

    #[test]
    fn signature_is_that_of_the_specification_s_libraries() {
        let (secret, id, timestamp, body, expected) = KNOWN;
        let secret: Secret = secret.parse().unwrap();
        assert_eq!(signatures([&secret], id, timestamp, body), expected);
        assert!(is_signed_by(&secret, expected, id, timestamp, body));
    }

    #[test]
    fn while_two_secrets_are_good_either_verifies() {
        let (_, id, timestamp, body, _) = KNOWN;
        let (old, new, other) = (Secret::new([1; 32]), Secret::new([2; 32]), Secret::new([3; 32]));
        let header = signatures([&new, &old], id, timestamp, body);
        assert!(is_signed_by(&old, &header, id, timestamp, body));
        assert!(is_signed_by(&new, &header, id, timestamp, body));
        assert!(!is_signed_by(&other, &header, id, timestamp, body));
        for (id, timestamp, body) in
            [("msg_other", timestamp, body), (id, timestamp + 1, body), (id, timestamp, b"{}".as_slice())]
        {
            assert!(!is_signed_by(&new, &header, id, timestamp, body), "{id} {timestamp}");
        }
    }

    #[test]
    fn secret_reads_what_it_reveals_and_shows_nothing_else() {
        let secret = Secret::new([7; 32]);
        assert_eq!(secret.reveal().parse(), Ok(secret.clone()));
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        for wrong in ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!!!"] {
            assert_eq!(wrong.parse::<Secret>(), Err(InvalidSecret), "{wrong}");
        }
    }
}
