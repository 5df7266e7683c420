//! A JSON Web Key Set (RFC 7517): which of its keys may judge tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde::Deserialize;
use serde_json::Value;

/// Keys of one set.
const KEYS_MAX: usize = 100;
/// Shorter ones can be broken, longer ones cost too much time (RFC 7518, 3.3).
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;

/// A key that judges tokens.
#[derive(Clone)]
pub(super) struct Key {
    /// What tokens call it.
    id: Option<String>,
    /// The only algorithm that it is for, if it says so.
    algorithm: Option<Algorithm>,
    pub(super) decoding: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It may be a secret.
        out.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Key {
    /// The only key there is, whatever tokens call it.
    pub(super) fn nameless(decoding: DecodingKey) -> Self {
        Self { id: None, algorithm: None, decoding }
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// The keys of a set that can judge tokens of this algorithm's family. Others are passed over: sets hold keys for other purposes, and of
/// kinds that were not known when this was written. None at all is an error.
pub(super) fn read(text: &str, algorithm: Algorithm) -> Result<Vec<Key>, String> {
    let set: Set = serde_json::from_str(text).map_err(|error| {
        // Not what it says: it may repeat a value, and a set in a file may hold secrets.
        format!("no key set: it cannot be read at line {} column {}", error.line(), error.column())
    })?;
    if set.keys.len() > KEYS_MAX {
        return Err(format!("the set has {} keys; the limit is {KEYS_MAX}", set.keys.len()));
    }
    let (mut keys, mut passed_over) = (Vec::new(), Vec::new());
    for (place, key) in set.keys.into_iter().enumerate() {
        match one(key, algorithm) {
            Ok(key) => keys.push(key),
            Err(why) => passed_over.push(format!("key {place} {why}")),
        }
    }
    if !passed_over.is_empty() {
        tracing::debug!(passed_over = passed_over.join("; "), "keys of a set were passed over");
    }
    match passed_over.first() {
        _ if !keys.is_empty() => Ok(keys),
        Some(first) => {
            Err(format!("none of the keys is of the algorithms' family and good for signatures: {first}"))
        }
        None => Err("none of the keys is of the algorithms' family: there are no keys".to_owned()),
    }
}

fn one(key: Value, algorithm: Algorithm) -> Result<Key, String> {
    let key: Jwk = serde_json::from_value(key).map_err(|_| "cannot be read".to_owned())?;
    if key.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return Err("is not for signatures".to_owned());
    }
    let only = match key.common.key_algorithm {
        Some(only) => {
            Some(Algorithm::try_from(only).map_err(|_| "is for an algorithm that signs nothing".to_owned())?)
        }
        None => None,
    };
    if let AlgorithmParameters::RSA(parts) = &key.algorithm {
        let modulus =
            URL_SAFE_NO_PAD.decode(&parts.n).map_err(|_| "has a modulus that cannot be read".to_owned())?;
        let bytes = modulus.iter().skip_while(|byte| **byte == 0).count();
        if !RSA_BYTES.contains(&bytes) {
            return Err(format!("has {} bits; 2048 to 8192 are taken", bytes * 8));
        }
    }
    let read = DecodingKey::from_jwk(&key).map_err(|error| format!("cannot be used: {error}"))?;
    if read.family() != algorithm.family() || only.is_some_and(|only| only.family() != algorithm.family()) {
        return Err("is of another family".to_owned());
    }
    Ok(Key { id: key.common.key_id, algorithm: only, decoding: read })
}

/// Why none of the keys judges a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoKey {
    /// A newer set may have it.
    Unknown,
    /// The token cannot be good, whatever keys there are.
    Never(&'static str),
}

/// The key that a token's header asks for.
pub(super) fn choose<'a>(keys: &'a [Key], header: &Header) -> Result<&'a Key, NoKey> {
    let key = match (&header.kid, keys) {
        (_, [key @ Key { id: None, .. }]) | (None, [key]) => key,
        (Some(id), keys) => keys.iter().find(|key| key.id.as_ref() == Some(id)).ok_or(NoKey::Unknown)?,
        (None, _) => return Err(NoKey::Never("it does not say which of the keys signed it")),
    };
    match key.algorithm {
        Some(only) if only != header.alg => Err(NoKey::Never("its key is for another algorithm")),
        _ => Ok(key),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rsa(bytes: usize) -> Value {
        json!({ "kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode(vec![0xff; bytes]), "e": "AQAB" })
    }

    fn set(keys: &[Value]) -> String {
        json!({ "keys": keys }).to_string()
    }

    #[test]
    fn keys_that_cannot_judge_are_passed_over() {
        let mut for_encryption = rsa(256);
        for_encryption["use"] = json!("enc");
        let mut wrapping = rsa(256);
        wrapping["alg"] = json!("RSA-OAEP");
        let odd = [
            json!({ "kty": "XYZ", "kid": "new" }),
            json!({ "kty": "oct", "kid": "secret", "k": URL_SAFE_NO_PAD.encode([7; 32]) }),
            json!({ "kty": "RSA", "n": "*", "e": "AQAB" }),
            json!({ "kty": "RSA", "n": 7, "e": "AQAB" }),
            json!("key"),
            for_encryption,
            wrapping,
            rsa(128),
            rsa(2_048),
        ];
        for key in &odd {
            assert!(read(&set(std::slice::from_ref(key)), Algorithm::RS256).is_err(), "{key}");
        }
        let all = [&odd[..], &[rsa(256)]].concat();
        assert_eq!(read(&set(&all), Algorithm::RS256).unwrap().len(), 1);
        assert!(read(&set(&[rsa(256)]), Algorithm::ES256).unwrap_err().contains("family"));
    }

    #[test]
    fn what_is_no_set_or_too_many_keys_is_refused() {
        for text in ["", "{}", "[]", "null", r#"{"keys":7}"#, r#"{"keys":[]}"#] {
            assert!(read(text, Algorithm::RS256).is_err(), "{text}");
        }
        assert!(read(&set(&vec![rsa(256); 101]), Algorithm::RS256).unwrap_err().contains("limit is 100"));
    }

    #[test]
    fn key_for_one_algorithm_judges_no_other() {
        let mut only = rsa(256);
        only["alg"] = json!("RS256");
        let keys = read(&set(&[only]), Algorithm::RS256).unwrap();
        let header = |algorithm| Header { kid: Some("r".to_owned()), ..Header::new(algorithm) };
        assert!(choose(&keys, &header(Algorithm::RS256)).is_ok());
        assert!(matches!(choose(&keys, &header(Algorithm::RS512)), Err(NoKey::Never(_))));
        let other = Header { kid: Some("x".to_owned()), ..Header::new(Algorithm::RS256) };
        assert_eq!(choose(&keys, &other).err(), Some(NoKey::Unknown));
    }
}
