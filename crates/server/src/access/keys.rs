//! API keys: made, shown once, and known again.
//!
//! A token is `rck_ID_SECRET`. The id finds the key's row; of the secret, 32 random bytes, the row has a hash under a key that was drawn for
//! this row. A slow password hash would protect nothing here: nobody can guess 256 random bits.

use std::collections::{HashMap, HashSet};
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
/// Keys that are remembered; when there are more, those are forgotten that were not asked for lately.
const KNOWN_MAX: usize = 10_000;
/// Not asked for this long, a key is not in use.
const UNUSED: Duration = Duration::from_secs(60);
/// Ids without a key that are remembered: more than can be found in [`FRESH`] at [`UNKNOWN_PER_SECOND`].
const ABSENT_MAX: usize = 1_000;
/// Tokens a second of which nothing is known yet: guessing must not become the store's work.
const UNKNOWN_PER_SECOND: u32 = 100;
/// While more are tried, the list of keys says which of them may be good. It is no older than this.
const LISTED_FRESH: Duration = Duration::from_secs(1);

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
    key: Arc<(ApiKeyRecord, Identity)>,
}

/// What is known of ids. Guessed ones have a place apart, so that they push no key out.
#[derive(Debug, Default)]
struct Memory {
    keys: HashMap<String, Known>,
    /// Ids that no key has, and when that was found.
    absent: HashMap<String, Instant>,
}

impl Memory {
    fn is_absent(&self, id: &str, now: Instant) -> bool {
        self.absent.get(id).is_some_and(|at| now.duration_since(*at) < FRESH)
    }

    fn keep(&mut self, id: &str, known: Known, now: Instant) {
        self.absent.remove(id);
        if self.keys.len() >= KNOWN_MAX && !self.keys.contains_key(id) {
            self.keys.retain(|_, known| now.duration_since(known.at) < UNUSED);
        }
        if self.keys.len() >= KNOWN_MAX && !self.keys.contains_key(id) {
            // All are in use. An eighth of them, those looked up longest ago, will be looked up again.
            let mut looked: Vec<_> = self.keys.values().map(|known| known.at).collect();
            let (_, &mut oldest, _) = looked.select_nth_unstable(KNOWN_MAX / 8);
            self.keys.retain(|_, known| known.at > oldest);
        }
        self.keys.insert(id.to_owned(), known);
    }

    fn keep_absent(&mut self, id: &str, now: Instant) {
        self.keys.remove(id);
        if self.absent.len() >= ABSENT_MAX {
            self.absent.retain(|_, at| now.duration_since(*at) < FRESH);
        }
        if self.absent.len() < ABSENT_MAX {
            self.absent.insert(id.to_owned(), now);
        }
    }
}

/// The keys of the store, remembered for a moment.
#[derive(Debug)]
pub(crate) struct KeyRing {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    memory: Mutex<Memory>,
    unknown: Rates,
    /// Ids of keys, and when they were listed.
    listed: tokio::sync::Mutex<Option<(Instant, HashSet<String>)>>,
}

impl KeyRing {
    pub(super) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        let unknown = Rates::new(UNKNOWN_PER_SECOND);
        Self { store, clock, memory: Mutex::default(), unknown, listed: tokio::sync::Mutex::default() }
    }

    /// Who has this token.
    pub(super) async fn identify(&self, token: &str) -> Result<Identity, Refusal> {
        let (id, secret) = parts(token).ok_or_else(refused)?;
        let Some(known) = self.look(id).await? else {
            // As long as with a key that is there.
            let _ = digest(&[0; DIGEST_BYTES], secret);
            return Err(refused());
        };
        let (record, identity) = &*known.key;
        if !is_secret_of(record, secret) || !record.is_good(self.clock.now()) {
            return Err(refused());
        }
        self.note_use(id, known.used_noted);
        Ok(identity.clone())
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        // A panic elsewhere cannot leave a map of finished values half changed.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of an id; `None`: no key has it.
    async fn look(&self, id: &str) -> Result<Option<Known>, Refusal> {
        let now = Instant::now();
        let known = {
            let memory = self.memory();
            if memory.is_absent(id, now) {
                return Ok(None);
            }
            memory.keys.get(id).cloned()
        };
        if let Some(known) = &known
            && now.duration_since(known.at) < FRESH
        {
            return Ok(Some(known.clone()));
        }
        if known.is_none()
            && let Err(wait) = self.unknown.take(&"unknown".into(), now)
            && !self.is_listed(id, now).await
        {
            let refusal = Refusal::new(Code::TooManyRequests, "too many unknown tokens were tried");
            return Err(refusal.retry_after(wait));
        }
        let key = match self.store.api_keys().api_key_get(id).await {
            Ok(record) => Arc::new((record.clone(), identity(&record))),
            Err(recache_store::Error::NotFound { .. }) => {
                self.memory().keep_absent(id, now);
                return Ok(None);
            }
            Err(error) => {
                return match known {
                    Some(known) if now.duration_since(known.at) < FRESH_WITHOUT_STORE => Ok(Some(known)),
                    _ => Err(error.into()),
                };
            }
        };
        let found = Known { at: now, used_noted: known.and_then(|known| known.used_noted), key };
        self.memory().keep(id, found.clone(), now);
        Ok(Some(found))
    }

    /// Whether the list of keys has this id. However many are tried, the store lists them once a second: whoever guesses does not
    /// keep those out who have a key.
    async fn is_listed(&self, id: &str, now: Instant) -> bool {
        let mut listed = self.listed.lock().await;
        if listed.as_ref().is_none_or(|(at, _)| now.duration_since(*at) >= LISTED_FRESH) {
            // A store that does not answer is not asked by each of them either.
            let records = self.store.api_keys().api_keys_list().await.unwrap_or_default();
            *listed = Some((Instant::now(), records.into_iter().map(|record| record.id).collect()));
        }
        listed.as_ref().is_some_and(|(_, ids)| ids.contains(id))
    }

    /// Beside the request, now and then.
    fn note_use(&self, id: &str, noted: Option<Instant>) {
        let now = Instant::now();
        if noted.is_some_and(|noted| now.duration_since(noted) < USED_EVERY) {
            return;
        }
        if let Some(known) = self.memory().keys.get_mut(id) {
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
            for byte in bytes {
                *byte = next;
                next = next.wrapping_add(1);
            }
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

    #[test]
    fn guesses_push_no_key_out_and_a_key_in_use_stays() {
        let start = Instant::now();
        let known = |at| {
            let (_, new) = make_key("k", &Grants::everything(), None, "ops", |_| {});
            let record = ApiKeyRecord {
                id: new.id,
                name: new.name,
                salt: new.salt,
                digest: new.digest,
                scopes: new.scopes,
                created_at: recache_model::time::Timestamp::from_micros(0),
                created_by: new.created_by,
                expires_at: None,
                last_used_at: None,
                revoked: None,
            };
            let identity = identity(&record);
            Known { at, used_noted: None, key: Arc::new((record, identity)) }
        };
        let mut memory = Memory::default();
        memory.keep("used", known(start), start);
        for guess in 0..2 * KNOWN_MAX {
            memory.keep_absent(&format!("guess {guess}"), start);
        }
        assert!(memory.keys.contains_key("used"));
        assert_eq!(memory.absent.len(), ABSENT_MAX);
        let later = start + FRESH;
        memory.keep_absent("another", later);
        assert_eq!(memory.absent.len(), 1, "what is too old to be believed is forgotten");
        for other in 0..KNOWN_MAX - 1 {
            memory.keep(&format!("other {other}"), known(start), start);
        }
        let later = start + UNUSED;
        memory.keep("used", known(later), later);
        memory.keep("one more", known(later), later);
        let mut kept: Vec<_> = memory.keys.keys().collect();
        kept.sort();
        assert_eq!(kept, ["one more", "used"], "those that nobody used are forgotten");
    }
}
