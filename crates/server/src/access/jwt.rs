//! Tokens that somebody else signed (JWT, RFC 7519), judged by keys that were configured.
//!
//! Required are an algorithm that was configured and fits the key, `iss`, `aud`, `exp` and `sub`; `nbf` is checked, and a token that marks
//! something as critical is refused, since nothing is understood that could be (RFC 7515, 4.1.11). `scope` says what it may do, in the
//! words of API keys, separated by blanks.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use recache_model::time::Clock;
use serde::Deserialize;
use serde_json::Value;

use super::gate::Identity;
use super::permission::{Grant, Grants};
use crate::refusal::{Code, Refusal};

/// How far the clock of whoever signed may be from ours.
const LEEWAY: Duration = Duration::from_secs(10);

/// How tokens are judged.
#[derive(Clone)]
pub struct JwtSettings {
    issuer: String,
    audience: String,
    algorithms: Vec<Algorithm>,
    keys: Vec<(Option<String>, DecodingKey)>,
}

impl std::fmt::Debug for JwtSettings {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A key may be a secret.
        out.debug_struct("JwtSettings")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// Where the keys come from.
pub enum JwtKeys<'a> {
    /// One secret, of at least 32 bytes, for HS256, HS384 and HS512.
    Secret(&'a str),
    /// One public key, PEM, for RS, PS, ES and EdDSA.
    Pem(&'a [u8]),
    /// A JSON Web Key Set (RFC 7517).
    Jwks(&'a str),
}

impl std::fmt::Debug for JwtKeys<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("JwtKeys")
    }
}

impl JwtSettings {
    /// Refuses what could not be safe, with the reason.
    pub fn new(
        issuer: &str,
        audience: &str,
        algorithms: &[&str],
        keys: &JwtKeys<'_>,
    ) -> Result<Self, String> {
        if issuer.is_empty() || audience.is_empty() {
            return Err("issuer and audience must both be given".to_owned());
        }
        let algorithms = algorithms
            .iter()
            .map(|name| name.parse().map_err(|_| format!("`{name}` is no algorithm that is known here")))
            .collect::<Result<Vec<Algorithm>, _>>()?;
        let first = *algorithms.first().ok_or("at least one algorithm must be given")?;
        if algorithms.iter().any(|one| one.family() != first.family()) {
            return Err("all algorithms must be of one family: HS, RS and PS, ES, or EdDSA".to_owned());
        }
        let no_key = |error: jsonwebtoken::errors::Error| format!("the key cannot be used: {error}");
        let keys = match keys {
            JwtKeys::Secret(secret) if secret.len() < 32 => {
                return Err("the secret must have at least 32 bytes".to_owned());
            }
            JwtKeys::Secret(secret) => vec![(None, DecodingKey::from_secret(secret.as_bytes()))],
            JwtKeys::Pem(pem) => {
                let read = match first {
                    Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem),
                    Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
                    _ => DecodingKey::from_rsa_pem(pem),
                };
                vec![(None, read.map_err(no_key)?)]
            }
            JwtKeys::Jwks(text) => {
                let set: JwkSet =
                    serde_json::from_str(text).map_err(|error| format!("no key set: {error}"))?;
                let read =
                    set.keys.iter().filter(|key| key.is_supported()).map(|key| {
                        Ok((key.common.key_id.clone(), DecodingKey::from_jwk(key).map_err(no_key)?))
                    });
                read.collect::<Result<Vec<_>, String>>()?
            }
        };
        let keys: Vec<_> = keys.into_iter().filter(|(_, key)| key.family() == first.family()).collect();
        if keys.is_empty() {
            return Err("none of the keys is of the algorithms' family".to_owned());
        }
        Ok(Self { issuer: issuer.to_owned(), audience: audience.to_owned(), algorithms, keys })
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default)]
    scope: String,
}

/// Judges tokens.
#[derive(Debug)]
pub(crate) struct Jwt {
    settings: JwtSettings,
    clock: Arc<dyn Clock>,
}

impl Jwt {
    pub(super) fn new(settings: JwtSettings, clock: Arc<dyn Clock>) -> Self {
        Self { settings, clock }
    }

    /// Who is meant by this token.
    pub(super) fn identify(&self, token: &str) -> Result<Identity, Refusal> {
        self.judge(token).map_err(|why| {
            tracing::debug!(why, "a token was refused");
            Refusal::new(Code::Unauthenticated, format!("the token is refused: {why}"))
        })
    }

    fn judge(&self, token: &str) -> Result<Identity, &'static str> {
        let first = token.split('.').next().unwrap_or_default();
        let raw = URL_SAFE_NO_PAD.decode(first).map_err(|_| "it is no JWT")?;
        let raw: Value = serde_json::from_slice(&raw).map_err(|_| "it is no JWT")?;
        if raw.get("crit").is_some() {
            return Err("it marks something as critical");
        }
        let header = decode_header(token).map_err(|_| "its algorithm is not known")?;
        if !self.settings.algorithms.contains(&header.alg) {
            return Err("its algorithm is not one of those configured");
        }
        let key = match (&header.kid, self.settings.keys.as_slice()) {
            (_, [(None, key)]) | (None, [(_, key)]) => key,
            (Some(kid), keys) => {
                let found = keys.iter().find(|(known, _)| known.as_ref() == Some(kid));
                &found.ok_or("its key is not known")?.1
            }
            (None, _) => return Err("it does not say which of the keys signed it"),
        };
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Judged below, by the clock that was passed in.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let claims = decode::<Claims>(token, key, &validation).map_err(|error| {
            use jsonwebtoken::errors::ErrorKind;
            match error.kind() {
                ErrorKind::InvalidSignature => "its signature is wrong",
                ErrorKind::InvalidIssuer => "its issuer is another one",
                ErrorKind::InvalidAudience => "it is meant for somebody else",
                ErrorKind::MissingRequiredClaim(_) => "one of exp, iss, aud and sub is missing",
                _ => "it cannot be read",
            }
        })?;
        let claims = claims.claims;
        let now = self.clock.now().micros().div_euclid(1_000_000);
        let leeway = i64::try_from(LEEWAY.as_secs()).unwrap_or(0);
        if claims.exp.saturating_add(leeway) <= now {
            return Err("it has expired");
        }
        if claims.nbf.is_some_and(|nbf| nbf.saturating_sub(leeway) > now) {
            return Err("it is not good yet");
        }
        if claims.sub.is_empty() || claims.sub.len() > 200 || claims.sub.contains(char::is_control) {
            return Err("its subject cannot be a name");
        }
        // What is not in our words is not granted.
        let grants = claims.scope.split(' ').filter_map(|scope| scope.parse::<Grant>().ok()).collect();
        Ok(Identity { name: format!("jwt:{}", claims.sub).into(), grants: Arc::new(Grants::new(grants)) })
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use recache_model::time::{ManualClock, Timestamp};
    use serde_json::json;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NOW: i64 = 1_700_000_000;

    fn jwt(settings: JwtSettings) -> Jwt {
        Jwt::new(settings, Arc::new(ManualClock::at(Timestamp::from_micros(NOW * 1_000_000))))
    }

    fn hs256() -> Jwt {
        jwt(JwtSettings::new("https://issuer", "recache", &["HS256"], &JwtKeys::Secret(SECRET)).unwrap())
    }

    fn claims() -> Value {
        json!({ "iss": "https://issuer", "aud": "recache", "sub": "alice", "exp": NOW + 60, "scope": "jobs:read jobs:write@shop other" })
    }

    fn signed(header: &Header, claims: &Value) -> String {
        encode(header, claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    }

    /// Signed over a header that the crate would not write.
    fn with_header(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    }

    #[test]
    fn good_token_is_its_subject_with_its_scopes() {
        let identity = hs256().judge(&signed(&Header::default(), &claims())).unwrap();
        assert_eq!(&*identity.name, "jwt:alice");
        let scopes: Vec<_> = identity.grants.iter().map(ToString::to_string).collect();
        assert_eq!(scopes, ["jobs:read", "jobs:write@shop"]);
    }

    #[test]
    fn each_required_claim_is_required_and_judged() {
        let changed = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            hs256().judge(&signed(&Header::default(), &claims)).err()
        };
        for name in ["iss", "aud", "exp", "sub"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(name);
            assert!(hs256().judge(&signed(&Header::default(), &claims)).is_err(), "{name}");
        }
        assert_eq!(changed("iss", json!("https://evil")), Some("its issuer is another one"));
        assert_eq!(changed("aud", json!("other")), Some("it is meant for somebody else"));
        assert_eq!(changed("exp", json!(NOW - 11)), Some("it has expired"));
        assert_eq!(changed("exp", json!(NOW - 9)), None);
        assert_eq!(changed("nbf", json!(NOW + 11)), Some("it is not good yet"));
        assert_eq!(changed("sub", json!("a\nb")), Some("its subject cannot be a name"));
        assert!(changed("exp", json!("soon")).is_some());
    }

    #[test]
    fn other_algorithms_critical_headers_and_forged_signatures_are_refused() {
        let jwt = hs256();
        let other = Header::new(Algorithm::HS512);
        assert_eq!(
            jwt.judge(&signed(&other, &claims())).err(),
            Some("its algorithm is not one of those configured")
        );
        let none = format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
            URL_SAFE_NO_PAD.encode(claims().to_string())
        );
        assert_eq!(jwt.judge(&none).err(), Some("its algorithm is not known"));
        let critical = with_header(&json!({ "alg": "HS256", "crit": ["exp"], "exp": 1 }), &claims());
        assert_eq!(jwt.judge(&critical).err(), Some("it marks something as critical"));
        assert!(jwt.judge(&with_header(&json!({ "alg": "HS256" }), &claims())).is_ok());
        let mut forged = signed(&Header::default(), &claims());
        forged.pop();
        forged.push('A');
        assert!(jwt.judge(&forged).is_err());
        for text in ["", ".", "a.b.c", "e30.e30.e30"] {
            assert!(jwt.judge(text).is_err(), "{text}");
        }
    }

    #[test]
    fn settings_that_could_not_be_safe_are_refused() {
        let refused = |issuer: &str, audience: &str, algorithms: &[&str], keys: &JwtKeys<'_>| {
            JwtSettings::new(issuer, audience, algorithms, keys).unwrap_err()
        };
        let secret = JwtKeys::Secret(SECRET);
        assert!(refused("", "a", &["HS256"], &secret).contains("issuer"));
        assert!(refused("i", "", &["HS256"], &secret).contains("audience"));
        assert!(refused("i", "a", &[], &secret).contains("at least one"));
        assert!(refused("i", "a", &["none"], &secret).contains("`none`"));
        assert!(refused("i", "a", &["HS256", "RS256"], &secret).contains("one family"));
        assert!(refused("i", "a", &["RS256"], &secret).contains("family"));
        assert!(refused("i", "a", &["HS256"], &JwtKeys::Secret("short")).contains("32 bytes"));
        assert!(refused("i", "a", &["ES256"], &JwtKeys::Pem(b"no key")).contains("cannot be used"));
        assert!(refused("i", "a", &["HS256"], &JwtKeys::Jwks(r#"{"keys":[]}"#)).contains("none of the keys"));
    }

    #[test]
    fn key_of_a_set_is_chosen_by_its_id() {
        let k = URL_SAFE_NO_PAD.encode(SECRET);
        let other = URL_SAFE_NO_PAD.encode("another secret of thirty-two byte");
        let set = json!({ "keys": [
            { "kty": "oct", "kid": "old", "alg": "HS256", "k": other },
            { "kty": "oct", "kid": "new", "alg": "HS256", "k": k },
        ] });
        let settings =
            JwtSettings::new("https://issuer", "recache", &["HS256"], &JwtKeys::Jwks(&set.to_string()));
        let jwt = jwt(settings.unwrap());
        let with = |kid: Option<&str>| {
            let header = Header { kid: kid.map(str::to_owned), ..Header::default() };
            jwt.judge(&signed(&header, &claims())).err()
        };
        assert_eq!(with(Some("new")), None);
        assert_eq!(with(Some("old")), Some("its signature is wrong"));
        assert_eq!(with(Some("gone")), Some("its key is not known"));
        assert_eq!(with(None), Some("it does not say which of the keys signed it"));
    }
}
