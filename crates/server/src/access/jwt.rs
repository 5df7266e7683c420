//! Tokens that somebody else signed (JWT, RFC 7519), judged by keys that were configured, or that their issuer publishes.
//!
//! Required are an algorithm that was configured and fits the key, `iss`, `aud`, `exp` and `sub`; `nbf` is checked, and a token that marks
//! something as critical is refused, since nothing is understood that could be (RFC 7515, 4.1.11). `scope` says what it may do, in the
//! words of API keys, separated by blanks.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Header, Validation, decode, decode_header};
use recache_model::time::Clock;
use serde::Deserialize;
use serde_json::Value;

use super::fetched_keys::{FetchedKeys, KeySource};
use super::gate::Identity;
use super::key_set::{self, Key, NoKey, choose};
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
    keys: Keys,
}

#[derive(Clone)]
enum Keys {
    Fixed(Arc<[Key]>),
    Fetched(Arc<FetchedKeys>),
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
    /// A JSON Web Key Set that is fetched, and fetched anew when its keys may have changed. Not for secrets.
    Fetched(Arc<dyn KeySource>),
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
        let keys = match keys {
            JwtKeys::Secret(secret) if secret.len() < 32 => {
                return Err("the secret must have at least 32 bytes".to_owned());
            }
            JwtKeys::Secret(secret) => one(DecodingKey::from_secret(secret.as_bytes()), first)?,
            JwtKeys::Pem(pem) => {
                let read = match first {
                    Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem),
                    Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
                    _ => DecodingKey::from_rsa_pem(pem),
                };
                one(read.map_err(|error| format!("the key cannot be used: {error}"))?, first)?
            }
            JwtKeys::Jwks(text) => Keys::Fixed(key_set::read(text, first)?.into()),
            JwtKeys::Fetched(_) if first.family() == AlgorithmFamily::Hmac => {
                return Err("a secret is not fetched: HS algorithms need one that is configured".to_owned());
            }
            JwtKeys::Fetched(source) => Keys::Fetched(Arc::new(FetchedKeys::new(Arc::clone(source), first))),
        };
        Ok(Self { issuer: issuer.to_owned(), audience: audience.to_owned(), algorithms, keys })
    }
}

fn one(key: DecodingKey, algorithm: Algorithm) -> Result<Keys, String> {
    if key.family() == algorithm.family() {
        Ok(Keys::Fixed([Key::nameless(key)].into()))
    } else {
        Err("none of the keys is of the algorithms' family".to_owned())
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

    /// Looks for keys that are fetched before anybody needs them.
    pub(super) async fn prepare(&self) {
        if let Keys::Fetched(keys) = &self.settings.keys {
            keys.fetch().await;
        }
    }

    /// What health says of the keys; nothing while all is well.
    pub(super) fn trouble(&self) -> Option<String> {
        match &self.settings.keys {
            Keys::Fixed(_) => None,
            Keys::Fetched(keys) => keys.trouble(),
        }
    }

    /// Who is meant by this token.
    pub(super) async fn identify(&self, token: &str) -> Result<Identity, Refusal> {
        let refused = |why| {
            tracing::debug!(why, "a token was refused");
            Refusal::new(Code::Unauthenticated, format!("the token is refused: {why}"))
        };
        // What cannot be good whatever keys there are makes nobody fetch any.
        let header = self.header(token).map_err(refused)?;
        let keys = match &self.settings.keys {
            Keys::Fixed(keys) => Arc::clone(keys),
            Keys::Fetched(fetched) => {
                fetched.keys(|keys| choose(keys, &header).err() != Some(NoKey::Unknown)).await?
            }
        };
        self.judge(token, &header, &keys).map_err(refused)
    }

    fn header(&self, token: &str) -> Result<Header, &'static str> {
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
        Ok(header)
    }

    fn judge(&self, token: &str, header: &Header, keys: &[Key]) -> Result<Identity, &'static str> {
        let key = &choose(keys, header)
            .map_err(|why| match why {
                NoKey::Unknown => "its key is not known",
                NoKey::Never(why) => why,
            })?
            .decoding;
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

    #[derive(Debug)]
    struct Nowhere;

    #[async_trait::async_trait]
    impl KeySource for Nowhere {
        async fn fetch(&self, _: usize) -> Result<String, String> {
            Err("nowhere".to_owned())
        }
    }

    /// Else anybody could make the server ask its issuer.
    #[tokio::test]
    async fn token_that_cannot_be_good_makes_nobody_fetch() {
        let settings = JwtSettings::new("i", "a", &["RS256"], &JwtKeys::Fetched(Arc::new(Nowhere))).unwrap();
        let jwt = jwt(settings);
        let none = format!("{}.e30.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
        for token in ["", "a.b.c", "e30.e30.e30", &none, &signed(&Header::default(), &claims())] {
            assert_eq!(jwt.identify(token).await.unwrap_err().code(), Code::Unauthenticated, "{token}");
            assert_eq!(jwt.trouble(), None, "nothing was fetched for {token}");
        }
        let could_be = format!("{}.e30.c2ln", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"x"}"#));
        assert_eq!(jwt.identify(&could_be).await.unwrap_err().code(), Code::Unavailable);
        assert!(jwt.trouble().is_some());
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NOW: i64 = 1_700_000_000;

    fn jwt(settings: JwtSettings) -> Jwt {
        Jwt::new(settings, Arc::new(ManualClock::at(Timestamp::from_micros(NOW * 1_000_000))))
    }

    impl Jwt {
        /// By keys that are there.
        fn look(&self, token: &str) -> Result<Identity, &'static str> {
            let Keys::Fixed(keys) = &self.settings.keys else { panic!("they are fetched") };
            self.judge(token, &self.header(token)?, keys)
        }
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
        let identity = hs256().look(&signed(&Header::default(), &claims())).unwrap();
        assert_eq!(&*identity.name, "jwt:alice");
        let scopes: Vec<_> = identity.grants.iter().map(ToString::to_string).collect();
        assert_eq!(scopes, ["jobs:read", "jobs:write@shop"]);
    }

    #[test]
    fn each_required_claim_is_required_and_judged() {
        let changed = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            hs256().look(&signed(&Header::default(), &claims)).err()
        };
        for name in ["iss", "aud", "exp", "sub"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(name);
            assert!(hs256().look(&signed(&Header::default(), &claims)).is_err(), "{name}");
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
            jwt.look(&signed(&other, &claims())).err(),
            Some("its algorithm is not one of those configured")
        );
        let none = format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
            URL_SAFE_NO_PAD.encode(claims().to_string())
        );
        assert_eq!(jwt.look(&none).err(), Some("its algorithm is not known"));
        let critical = with_header(&json!({ "alg": "HS256", "crit": ["exp"], "exp": 1 }), &claims());
        assert_eq!(jwt.look(&critical).err(), Some("it marks something as critical"));
        assert!(jwt.look(&with_header(&json!({ "alg": "HS256" }), &claims())).is_ok());
        let mut forged = signed(&Header::default(), &claims());
        forged.pop();
        forged.push('A');
        assert!(jwt.look(&forged).is_err());
        for text in ["", ".", "a.b.c", "e30.e30.e30"] {
            assert!(jwt.look(text).is_err(), "{text}");
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
        let nowhere = JwtKeys::Fetched(Arc::new(Nowhere));
        assert!(refused("i", "a", &["HS256"], &nowhere).contains("a secret is not fetched"));
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
            jwt.look(&signed(&header, &claims())).err()
        };
        assert_eq!(with(Some("new")), None);
        assert_eq!(with(Some("old")), Some("its signature is wrong"));
        assert_eq!(with(Some("gone")), Some("its key is not known"));
        assert_eq!(with(None), Some("it does not say which of the keys signed it"));
    }
}
