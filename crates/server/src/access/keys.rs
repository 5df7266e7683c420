//! API keys: made, shown once, and known again.
//!
//! A token is `rck_ID_SECRET`. The id finds the key's row; of the secret, 32 random bytes, the row has a hash under a key that was drawn for
//! this row. A slow password hash would protect nothing here: nobody can guess 256 random bits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use recache_model::time::Clock;
use recache_store::api_keys::DIGEST_BYTES;
use recache_store::{ApiKeyRecord, NewApiKey, Store};
use tokio::time::Instant;

use super::gate::Identity;
use super::permission::{Grant, Grants};
use super::rate::Rates;
use crate::refusal::{Code, Refusal};

/// With what a token begins, so that it is found where it leaked.
const PREFIX: &str = "rck_";
/// Characters of the id: 8 random bytes in hexadecimal.
const ID_CHARACTERS: usize = 16;
/// Characters of the secret.
const SECRET_CHARACTERS: usize = 43;
/// What is known of a key is good for this long: so soon a revoked one ends.
const FRESH: Duration = Duration::from_secs(2);
/// While the store cannot be asked, what is known is good for this long.
const FRESH_WITHOUT_STORE: Duration = Duration::from_secs(4);
/// How often it is noted that a key was used.
const USED_EVERY: Duration = Duration::from_secs(60);
/// Keys that are remembered; when there are more, all are forgotten.
const KNOWN_MAX: usize = 10_000;
/// Tokens a second of which nothing is known yet: guessing must not become the store's work.
const UNKNOWN_PER_SECOND: u32 = 100;

/// A token in the making: what is shown once, and what is kept. `random` fills with bytes that nobody can guess.
pub fn make_key(
    name: &str,
    grants: &Grants,
    lifetime: Option<Duration>,
    created_by: &str,
    mut random: impl FnMut(&mut [u8]),
) -> (String, NewApiKey) {
    let (mut id, mut secret, mut salt) = ([0; 8], [0; 32], [0; DIGEST_BYTES]);
    random(&mut id);
    random(&mut secret);
    random(&mut salt);
    let id = format!("{:016x}", u64::from_be_bytes(id));
    let secret = URL_SAFE_NO_PAD.encode(secret);
    let key = NewApiKey {
        name: name.to_owned(),
        digest: digest(&salt, &secret),
        salt,
        scopes: grants.iter().map(Grant::to_string).collect(),
        lifetime,
        created_by: created_by.to_owned(),
        id: id.clone(),
    };
    (format!("{PREFIX}{id}_{secret}"), key)
}

fn digest(salt: &[u8; DIGEST_BYTES], secret: &str) -> [u8; DIGEST_BYTES] {
    *blake3::keyed_hash(salt, secret.as_bytes()).as_bytes()
}

/// Whether the secret is the key's. Takes as long for any wrong one.
fn is_secret_of(record: &ApiKeyRecord, secret: &str) -> bool {
    // Comparing two of this type takes the same time whatever they hold.
    blake3::keyed_hash(&record.salt, secret.as_bytes()) == blake3::Hash::from_bytes(record.digest)
}

/// Whether a text looks like a token of ours.
pub(super) fn is_token(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// Id and secret of a token that has the right form.
fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
    let is_id = id.len() == ID_CHARACTERS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_id && secret.len() == SECRET_CHARACTERS).then_some((id, secret))
}

#[derive(Debug, Clone)]
struct Known {
    at: Instant,
    used_noted: Option<Instant>,
    /// `None`: there is no such key.
    key: Option<Arc<(ApiKeyRecord, Identity)>>,
}

/// The keys of the store, remembered for a moment.
#[derive(Debug)]
pub(crate) struct KeyRing {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<String, Known>>,
    unknown: Rates,
}

impl KeyRing {
    pub(super) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, known: Mutex::default(), unknown: Rates::new(UNKNOWN_PER_SECOND) }
    }

    /// Who has this token.
    pub(super) async fn identify(&self, token: &str) -> Result<Identity, Refusal> {
        let (id, secret) = parts(token).ok_or_else(refused)?;
        let known = self.look(id).await?;
        let Some(key) = known.key else {
            // As long as with a key that is there.
            let _ = digest(&[0; DIGEST_BYTES], secret);
            return Err(refused());
        };
        let (record, identity) = &*key;
        if !is_secret_of(record, secret) || !record.is_good(self.clock.now()) {
            return Err(refused());
        }
        self.note_use(id, known.used_noted);
        Ok(identity.clone())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        // A panic elsewhere cannot leave a map of finished values half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self, id: &str) -> Result<Known, Refusal> {
        let now = Instant::now();
        let known = self.known().get(id).cloned();
        if let Some(known) = &known
            && now.duration_since(known.at) < FRESH
        {
            return Ok(known.clone());
        }
        if known.is_none() {
            self.unknown.take(&"unknown".into(), now).map_err(|wait| {
                Refusal::new(Code::TooManyRequests, "too many unknown tokens were tried").retry_after(wait)
            })?;
        }
        let key = match self.store.api_keys().api_key_get(id).await {
            Ok(record) => Some(Arc::new((record.clone(), identity(&record)))),
            Err(recache_store::Error::NotFound { .. }) => None,
            Err(error) => {
                return match known {
                    Some(known) if now.duration_since(known.at) < FRESH_WITHOUT_STORE => Ok(known),
                    _ => Err(error.into()),
                };
            }
        };
        let found = Known { at: now, used_noted: known.and_then(|known| known.used_noted), key };
        let mut map = self.known();
        if map.len() >= KNOWN_MAX {
            map.clear();
        }
        map.insert(id.to_owned(), found.clone());
        Ok(found)
    }

    /// Beside the request, now and then.
    fn note_use(&self, id: &str, noted: Option<Instant>) {
        let now = Instant::now();
        if noted.is_some_and(|noted| now.duration_since(noted) < USED_EVERY) {
            return;
        }
        if let Some(known) = self.known().get_mut(id) {
            known.used_noted = Some(now);
        }
        let (store, id) = (Arc::clone(&self.store), id.to_owned());
        tokio::spawn(async move {
            if let Err(error) = store.api_keys().api_key_used(&id).await {
                tracing::debug!(%error, "the use of an API key was not noted");
            }
        });
    }
}

fn identity(record: &ApiKeyRecord) -> Identity {
    let grants = record.scopes.iter().filter_map(|scope| {
        // Of a newer version, perhaps: what is not understood is not granted.
        scope
            .parse::<Grant>()
            .inspect_err(|error| tracing::warn!(key = record.id, %error, "scope passed over"))
            .ok()
    });
    Identity { name: format!("key:{}", record.name).into(), grants: Arc::new(Grants::new(grants.collect())) }
}

/// One refusal for all: which part was wrong is nobody's business.
fn refused() -> Refusal {
    Refusal::new(Code::Unauthenticated, "the token is unknown, wrong, expired or revoked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_made_of_random_bytes_and_only_its_hash_is_kept() {
        let mut next = 0_u8;
        let (token, key) = make_key("deploy", &Grants::everything(), None, "ops", |bytes| {
            bytes.iter_mut().for_each(|byte| {
                *byte = next;
                next = next.wrapping_add(1);
            });
        });
        let (id, secret) = parts(&token).unwrap();
        assert_eq!((id, key.id.as_str()), ("0001020304050607", "0001020304050607"));
        assert_eq!(key.digest, digest(&key.salt, secret));
        assert!(!format!("{key:?}").contains(secret));
        assert_eq!(key.scopes, ["*:*"]);
        for wrong in ["", "rck_", "rck_0001020304050607_x", &token[..token.len() - 1], &token.to_uppercase()]
        {
            assert!(parts(wrong).is_none(), "{wrong}");
        }
    }
}
