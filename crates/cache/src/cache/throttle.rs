//! Loads that have just failed and are not tried again at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::key::Key;

/// Keys that are remembered; of more than that the surplus is tried again at once.
const KEYS_MAX: usize = 1_024;

/// Until when, in the clock's elapsed time, the load of a key is not tried again.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<Key, Duration>>);

impl Throttle {
    pub(super) fn hold(&self, key: &Key, now: Duration, until: Duration) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= KEYS_MAX {
            held.retain(|_, until| *until > now);
        }
        if held.len() < KEYS_MAX {
            held.insert(key.clone(), until);
        }
    }

    pub(super) fn is_held(&self, key: &Key, now: Duration) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get(key) {
            Some(until) if *until > now => true,
            Some(_) => {
                held.remove(key);
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyPrefix;

    #[test]
    fn a_key_is_held_until_its_time_and_memory_is_bounded() {
        let throttle = Throttle::default();
        let key = |number: usize| KeyPrefix::new("p").space("s").key([number.to_string()]);
        let second = Duration::from_secs(1);
        for number in 0..KEYS_MAX + 5 {
            throttle.hold(&key(number), Duration::ZERO, second);
        }
        assert!(
            throttle.is_held(&key(0), Duration::ZERO) && !throttle.is_held(&key(KEYS_MAX), Duration::ZERO)
        );
        assert!(!throttle.is_held(&key(0), second));
        throttle.hold(&key(KEYS_MAX), second, second * 2);
        assert!(throttle.is_held(&key(KEYS_MAX), second));
    }
}
