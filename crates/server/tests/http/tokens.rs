//! Tokens whose keys the issuer publishes.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use recache_model::time::{Clock as _, SystemClock};
use recache_server::{Auth, JwtKeys, JwtSettings, KeySource, Settings};
use recache_store::conformance::sqlite_database;
use serde_json::{Value, json};

use crate::world::World;

/// Made for this test, and good for nothing else.
const SIGNING: [&str; 2] = [
    "MC4CAQAwBQYDK2VwBCIEIByRBPwcCDEEsXO99YGDrAAkRtinIToQZIrfV6H2Kaf/",
    "MC4CAQAwBQYDK2VwBCIEIIpztluFIvPgJAg7AOiXkGafP3mxzs2XhtsBtdkZ8Xtk",
];
const PUBLISHED: [&str; 2] =
    ["HQbp2cXsxiUxZ-5rB9hEF3w87pWZqnMZJ68wEdB0QoI", "Vl3fGEBqN-v7fkvKFByDT02ZFwotRCezR9IrzVRvOcc"];

/// An issuer that publishes one of them, or is away.
#[derive(Debug, Default)]
struct Issuer(Mutex<Option<usize>>);

#[async_trait]
impl KeySource for Issuer {
    async fn fetch(&self, _: usize) -> Result<String, String> {
        let place = self.0.lock().unwrap().ok_or("the issuer is away")?;
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "kid": format!("key-{place}"), "x": PUBLISHED[place], "use": "sig" });
        let unknown = json!({ "kty": "new", "kid": "of tomorrow" });
        Ok(json!({ "keys": [unknown, key] }).to_string())
    }
}

async fn world(issuer: &Arc<Issuer>) -> World {
    let source: Arc<dyn KeySource> = Arc::<Issuer>::clone(issuer);
    let jwt = JwtSettings::new("https://issuer", "recache", &["EdDSA"], &JwtKeys::Fetched(source)).unwrap();
    let auth = Auth { api_keys: false, jwt: Some(jwt) };
    World::guarded(sqlite_database(), Settings::default(), auth).await
}

fn claims() -> Value {
    let now = SystemClock.now().micros() / 1_000_000;
    json!({ "iss": "https://issuer", "aud": "recache", "sub": "alice", "exp": now + 600, "scope": "jobs:read health:read" })
}

fn signed(place: usize, kid: &str, claims: &Value) -> String {
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", SIGNING[place]);
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
    encode(&header, claims, &EncodingKey::from_ed_pem(pem.as_bytes()).unwrap()).unwrap()
}

async fn status(world: &World, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    world.send("GET", "/v1/jobs", &[("authorization", &bearer)], "").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_the_issuer_publishes_judge_its_tokens_and_no_others() {
    let issuer = Arc::new(Issuer(Mutex::new(Some(0))));
    let world = world(&issuer).await;
    assert_eq!(status(&world, &signed(0, "key-0", &claims())).await, 200);
    assert_eq!(status(&world, &signed(1, "key-0", &claims())).await, 401, "signed by another key");
    assert_eq!(status(&world, &signed(1, "key-1", &claims())).await, 401, "a key that is not published");
    for (claim, value) in [("iss", json!("https://evil")), ("aud", json!("other")), ("exp", json!(1))] {
        let mut wrong = claims();
        wrong[claim] = value;
        assert_eq!(status(&world, &signed(0, "key-0", &wrong)).await, 401, "{claim}");
    }
    // What everybody can read is no secret that signs.
    let header = Header { kid: Some("key-0".to_owned()), ..Header::new(Algorithm::HS256) };
    let confused = encode(&header, &claims(), &EncodingKey::from_secret(PUBLISHED[0].as_bytes())).unwrap();
    assert_eq!(status(&world, &confused).await, 401);
    let unsigned = format!("{}.", signed(0, "key-0", &claims()).rsplit_once('.').unwrap().0);
    assert_eq!(status(&world, &unsigned).await, 401);
    let health = world.get("/health").await.expect(200);
    assert!(!health.to_string().contains("keys of signed tokens"), "{health}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issuer_that_is_away_is_no_fault_of_the_token_and_is_told_in_health() {
    let issuer = Arc::new(Issuer::default());
    let world = world(&issuer).await;
    let bearer = format!("Bearer {}", signed(0, "key-0", &claims()));
    let answer = world.send("GET", "/v1/jobs", &[("authorization", &bearer)], "").await;
    assert_eq!(answer.code(503), "unavailable");
    assert!(answer.header("retry-after").is_some());
    let health = world.get("/health").await.expect(200);
    assert_eq!(health["status"], "ready", "work that is there goes on");
    assert!(health["degraded"].to_string().contains("keys of signed tokens cannot be fetched"), "{health}");
    world.end().await;
}

/// A set that is published.
#[derive(Debug)]
struct Published(String);

#[async_trait]
impl KeySource for Published {
    async fn fetch(&self, _: usize) -> Result<String, String> {
        Ok(self.0.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_each_family_are_taken_with_each_kind_of_key() {
    const FAMILIES: [(&str, &[Algorithm]); 4] = [
        (
            "rsa",
            &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
        ),
        ("p256", &[Algorithm::ES256]),
        ("p384", &[Algorithm::ES384]),
        ("ed25519", &[Algorithm::EdDSA]),
    ];
    let file = |family: &str, kind: &str| {
        std::fs::read_to_string(format!("{}/tests/http/keys/{family}.{kind}", env!("CARGO_MANIFEST_DIR")))
            .unwrap()
    };
    let sign = |family: &str, algorithm: Algorithm, kid: Option<&str>| {
        let pem = file(family, "pem");
        let key = match family {
            "rsa" => EncodingKey::from_rsa_pem(pem.as_bytes()),
            "ed25519" => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_ec_pem(pem.as_bytes()),
        };
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
        encode(&header, &claims(), &key.unwrap()).unwrap()
    };
    for (family, algorithms) in FAMILIES {
        let names: Vec<String> = algorithms.iter().map(|one| format!("{one:?}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut key: Value = serde_json::from_str(&file(family, "jwk.json")).unwrap();
        key["kid"] = json!("k");
        // A set holds keys of others too.
        let set = json!({ "keys": [{ "kty": "oct", "kid": "o", "k": "c2VjcmV0" }, key] }).to_string();
        let pem = file(family, "pub.pem");
        let kinds = [
            (None, JwtKeys::Pem(pem.as_bytes())),
            (Some("k"), JwtKeys::Jwks(&set)),
            (Some("k"), JwtKeys::Fetched(Arc::new(Published(set.clone())))),
        ];
        for (place, (kid, keys)) in kinds.into_iter().enumerate() {
            let settings = JwtSettings::new("https://issuer", "recache", &names, &keys).unwrap();
            let auth = Auth { api_keys: false, jwt: Some(settings) };
            let world = World::guarded(sqlite_database(), Settings::default(), auth).await;
            for algorithm in algorithms {
                let token = sign(family, *algorithm, kid);
                assert_eq!(status(&world, &token).await, 200, "{family} {algorithm:?} {place}");
                // Signed well, and then changed.
                let (head, signature) = token.rsplit_once('.').unwrap();
                let (head, body) = head.split_once('.').unwrap();
                let body = body.replacen(&body[..1], if body.starts_with('e') { "f" } else { "e" }, 1);
                let changed = format!("{head}.{body}.{signature}");
                assert_eq!(status(&world, &changed).await, 401, "{family} {algorithm:?} {place}");
            }
            for (other, others) in FAMILIES.into_iter().filter(|(other, _)| *other != family) {
                let token = sign(other, others[0], kid);
                assert_eq!(status(&world, &token).await, 401, "{other} for {family} {place}");
            }
            world.end().await;
        }
    }
}
