//! Keys that somebody else publishes, and changes when they like.
//!
//! Nothing is fetched by a clock: a token asks for keys. Keys that are known are used at once and, when they are no longer new, fetched
//! anew beside the request; a key that is not known is looked for at most once in [`AGAIN`], however many tokens name it. When fetching fails
//! the keys that are there go on for [`KEEP`] since they were fetched: an issuer that is away for a moment locks nobody out, and a key that was
//! taken back does not live for ever because somebody stands in the way.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jsonwebtoken::Algorithm;
use tokio::time::Instant;

use super::key_set::{self, Key};
use crate::refusal::{Code, Refusal};

/// Older keys are fetched anew.
const REFRESH: Duration = Duration::from_mins(10);
/// Between two tries.
const AGAIN: Duration = Duration::from_secs(10);
/// Keys that are older than this judge nothing.
const KEEP: Duration = Duration::from_hours(1);
/// A try takes no longer.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// A longer answer is not read.
const SET_BYTES_MAX: usize = 256 * 1024;

/// Where a key set (JWKS) comes from.
#[async_trait]
pub trait KeySource: Debug + Send + Sync {
    /// The set's text, no longer than `bytes_max`; or why there is none, without anything that is secret. It is given up after five seconds.
    async fn fetch(&self, bytes_max: usize) -> Result<String, String>;
}

#[derive(Debug, Default)]
struct State {
    keys: Option<(Arc<[Key]>, Instant)>,
    /// When the last try began.
    tried: Option<Instant>,
    /// Of the last try.
    has_failed: bool,
}

/// The keys as they were fetched last.
#[derive(Debug)]
pub(super) struct FetchedKeys {
    source: Arc<dyn KeySource>,
    algorithm: Algorithm,
    state: Mutex<State>,
    /// One at a time.
    fetching: tokio::sync::Mutex<()>,
}

impl FetchedKeys {
    pub(super) fn new(source: Arc<dyn KeySource>, algorithm: Algorithm) -> Self {
        Self { source, algorithm, state: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave a struct of plain values half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keys that may judge. Where `has` says that they are not enough, newer ones are looked for first, if it is time.
    pub(super) async fn keys(self: &Arc<Self>, has: impl Fn(&[Key]) -> bool) -> Result<Arc<[Key]>, Refusal> {
        if let Some((keys, age)) = self.usable()
            && has(&keys)
        {
            if age >= REFRESH && self.may_try() {
                let fetched = Arc::clone(self);
                tokio::spawn(async move { fetched.fetch().await });
            }
            return Ok(keys);
        }
        self.fetch().await;
        self.usable().map(|(keys, _)| keys).ok_or_else(|| {
            Refusal::new(Code::Unavailable, "the keys that judge tokens cannot be fetched now")
                .remedy("try again in a moment")
                .retry_after(AGAIN)
        })
    }

    /// What health says; nothing while all is well.
    pub(super) fn trouble(&self) -> Option<String> {
        let has_failed = self.state().has_failed;
        match self.usable() {
            Some((_, age)) if has_failed => Some(format!(
                "the keys of signed tokens cannot be fetched; those of {} s ago are used for {} s more; the log says why",
                age.as_secs(),
                KEEP.saturating_sub(age).as_secs()
            )),
            None if has_failed => Some(
                "the keys of signed tokens cannot be fetched, and such tokens are refused; the log says why"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    fn usable(&self) -> Option<(Arc<[Key]>, Duration)> {
        let state = self.state();
        let (keys, at) = state.keys.as_ref()?;
        let age = at.elapsed();
        (age < KEEP).then(|| (Arc::clone(keys), age))
    }

    fn may_try(&self) -> bool {
        self.state().tried.is_none_or(|tried| tried.elapsed() >= AGAIN)
    }

    /// Whoever comes while somebody is at it waits for what that brings.
    pub(super) async fn fetch(&self) {
        let _one_at_a_time = self.fetching.lock().await;
        {
            let mut state = self.state();
            if state.tried.is_some_and(|tried| tried.elapsed() < AGAIN) {
                return;
            }
            state.tried = Some(Instant::now());
        }
        let fetched = match tokio::time::timeout(FETCH_WITHIN, self.source.fetch(SET_BYTES_MAX)).await {
            Ok(Ok(text)) if text.len() <= SET_BYTES_MAX => key_set::read(&text, self.algorithm),
            Ok(Ok(text)) => Err(format!("the set has {} bytes; the limit is {SET_BYTES_MAX}", text.len())),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("no whole answer within {} s", FETCH_WITHIN.as_secs())),
        };
        let mut state = self.state();
        state.has_failed = fetched.is_err();
        match fetched {
            Ok(keys) => {
                tracing::debug!(keys = keys.len(), "the keys of signed tokens were fetched");
                state.keys = Some((keys.into(), Instant::now()));
            }
            Err(why) => tracing::warn!(why, "the keys of signed tokens cannot be fetched"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    /// Says what it is told to say.
    #[derive(Debug)]
    struct Told {
        answer: Mutex<Result<String, String>>,
        asked: AtomicUsize,
        takes: Mutex<Duration>,
    }

    #[async_trait]
    impl KeySource for Told {
        async fn fetch(&self, _: usize) -> Result<String, String> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let takes = *self.takes.lock().unwrap();
            tokio::time::sleep(takes).await;
            self.answer.lock().unwrap().clone()
        }
    }

    impl Told {
        fn says(&self, answer: Result<&str, &str>) {
            *self.answer.lock().unwrap() = answer.map(str::to_owned).map_err(str::to_owned);
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    fn set() -> String {
        let key = json!({ "kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode([0xff; 256]), "e": "AQAB" });
        json!({ "keys": [key] }).to_string()
    }

    fn keys() -> (Arc<Told>, Arc<FetchedKeys>) {
        let told =
            Told { answer: Mutex::new(Ok(set())), asked: AtomicUsize::new(0), takes: Mutex::default() };
        let told = Arc::new(told);
        let source: Arc<dyn KeySource> = Arc::<Told>::clone(&told);
        (told, Arc::new(FetchedKeys::new(source, Algorithm::RS256)))
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_key_is_looked_for_once_in_a_while_however_many_ask() {
        let (told, keys) = keys();
        assert_eq!(keys.keys(|_| true).await.unwrap().len(), 1);
        assert_eq!(told.asked(), 1);
        for _ in 0..100 {
            assert!(keys.keys(|_| false).await.is_ok(), "what there is, is answered");
        }
        assert_eq!(told.asked(), 1, "not again so soon");
        tokio::time::advance(AGAIN).await;
        *told.takes.lock().unwrap() = Duration::from_secs(1);
        let asking = (0..100).map(|_| keys.keys(|_| false));
        assert!(futures_util::future::join_all(asking).await.iter().all(Result::is_ok));
        assert_eq!(told.asked(), 2, "a hundred wait for one look");
    }

    #[tokio::test(start_paused = true)]
    async fn known_keys_are_used_at_once_and_fetched_anew_beside() {
        let (told, keys) = keys();
        keys.keys(|_| true).await.unwrap();
        tokio::time::advance(REFRESH).await;
        *told.takes.lock().unwrap() = Duration::from_secs(4);
        let asked = Instant::now();
        keys.keys(|_| true).await.unwrap();
        assert_eq!(asked.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(told.asked(), 2);
        assert!(keys.usable().unwrap().1 < Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn failing_fetch_keeps_the_old_keys_for_an_hour_and_is_told() {
        let (told, keys) = keys();
        keys.keys(|_| true).await.unwrap();
        assert_eq!(keys.trouble(), None);
        told.says(Err("refused"));
        tokio::time::advance(REFRESH).await;
        keys.keys(|_| true).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(keys.trouble().unwrap().contains("are used for"));
        tokio::time::advance(KEEP).await;
        assert_eq!(keys.keys(|_| true).await.unwrap_err().code(), Code::Unavailable);
        assert!(keys.trouble().unwrap().contains("are refused"));
        told.says(Ok(&set()));
        tokio::time::advance(AGAIN).await;
        assert!(keys.keys(|_| true).await.is_ok());
        assert_eq!(keys.trouble(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_good_set_changes_nothing() {
        let (told, keys) = keys();
        keys.keys(|_| true).await.unwrap();
        let huge = " ".repeat(SET_BYTES_MAX + 1);
        for bad in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#, huge.as_str()] {
            told.says(Ok(bad));
            tokio::time::advance(AGAIN).await;
            assert_eq!(keys.keys(|_| false).await.unwrap().len(), 1, "the old one");
            assert!(keys.trouble().is_some());
        }
        told.says(Ok(&set()));
        *told.takes.lock().unwrap() = FETCH_WITHIN * 2;
        tokio::time::advance(AGAIN).await;
        let asked = Instant::now();
        keys.keys(|_| false).await.unwrap();
        assert_eq!(asked.elapsed(), FETCH_WITHIN, "nobody waits longer");
        assert!(keys.trouble().is_some());
    }
}
