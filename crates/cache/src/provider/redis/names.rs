//! What things are called on the server. An entry's name is its key as it is. Everything else carries a `~` where no
//! key can have one, and braces, which no key contains, so that it lies in the slot of its key.

use crate::key::{Key, KeyPrefix};
use crate::provider::Scope;

const LEASE: &str = "}~lease";

/// Of the lease of `key`.
pub(super) fn lease(key: &Key) -> String {
    format!("{{{key}{LEASE}")
}

/// Of what [`Atomics`](crate::provider::Atomics) keeps under `key`: apart from entries, so that clearing a space takes
/// no lock away.
pub(super) fn atomic(key: &Key) -> String {
    format!("{{{key}}}~atomic")
}

/// Of the record of epochs of a deployment.
pub(super) fn epochs(prefix: &KeyPrefix) -> String {
    format!("{}:~epochs", prefix.as_str())
}

/// Of the channel on which the processes of a deployment wake each other.
pub(super) fn wakes(prefix: &KeyPrefix) -> String {
    format!("{}:~wakes", prefix.as_str())
}

/// For `SCAN`: lets through everything in `scope`, and what [`is_within`] then sorts out. Keys contain nothing that a
/// pattern gives a meaning to.
pub(super) fn pattern(scope: &Scope) -> String {
    match scope {
        Scope::Space(space) => format!("*{space}*"),
        Scope::Prefix(prefix) => format!("*{}:*", prefix.as_str()),
    }
}

/// Whether `name` is that of an entry in `scope`, or of its lease.
pub(super) fn is_within(scope: &Scope, name: &str) -> bool {
    let key = match name.strip_prefix('{') {
        Some(rest) => match rest.strip_suffix(LEASE) {
            Some(key) => key,
            None => return false,
        },
        None => name,
    };
    match scope {
        Scope::Space(space) => {
            key.strip_prefix(space.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        }
        Scope::Prefix(prefix) => {
            key.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with(':'))
                && key != epochs(prefix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::slots::slot_of;
    use super::*;

    #[test]
    fn what_belongs_to_a_key_lies_in_its_slot() {
        let key = KeyPrefix::new("p").space("s").key(["{a}", "b c"]);
        let slot = slot_of(key.as_str());
        assert_eq!([slot_of(&lease(&key)), slot_of(&atomic(&key))], [slot, slot]);
    }

    #[test]
    fn a_scope_has_its_entries_and_their_leases_and_nothing_else() {
        let prefix = KeyPrefix::new("p");
        let space = prefix.space("s");
        let (inside, outside) = (space.key(["k"]), prefix.space("s2").key(["k"]));
        let scope = Scope::Space(space.clone());
        assert!(is_within(&scope, inside.as_str()) && is_within(&scope, &lease(&inside)));
        assert!(is_within(&scope, space.key::<&str>([]).as_str()));
        assert!(!is_within(&scope, outside.as_str()) && !is_within(&scope, &lease(&outside)));
        let whole = Scope::Prefix(prefix.clone());
        assert!(is_within(&whole, outside.as_str()));
        assert!(!is_within(&whole, &epochs(&prefix)) && !is_within(&whole, &atomic(&inside)));
        assert!(!is_within(&whole, KeyPrefix::new("p2").space("s").key(["k"]).as_str()));
    }
}
