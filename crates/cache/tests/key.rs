//! Keys: no two resources share one, and every key fits every backend.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use proptest::prelude::*;
use recache_cache::KeyPrefix;
use recache_cache::key::KEY_BYTES_MAX;

fn key(parts: &[&str]) -> String {
    KeyPrefix::new("p").space("s").key(parts).as_str().to_owned()
}

#[test]
fn well_known_keys_read_as_designed() {
    let keys = KeyPrefix::new("tasker");
    assert_eq!(
        keys.template("shop", "price_list", "1.2.0").as_str(),
        "tasker:template:shop:price_list:1.2.0"
    );
    assert_eq!(keys.analytics_performance(24).as_str(), "tasker:analytics:performance:24");
    assert_eq!(keys.analytics_bottlenecks(10, 5).as_str(), "tasker:analytics:bottlenecks:10:5");
}

#[test]
fn separators_in_parts_do_not_join_resources() {
    let keys = KeyPrefix::new("tasker");
    assert_ne!(keys.template("a_b", "", "1"), keys.template("a", "b", "1"));
    assert_ne!(keys.template("a", "b", "1"), keys.template("a_b", "1", ""));
    assert_ne!(key(&["a:b"]), key(&["a", "b"]));
    assert_ne!(key(&["a%3Ab"]), key(&["a:b"]));
}

#[test]
fn empty_parts_count() {
    let all = [key(&[]), key(&[""]), key(&["", ""]), key(&["a"]), key(&["a", ""]), key(&["", "a"])];
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "{all:?}");
}

#[test]
fn a_digest_cannot_be_given_as_a_part() {
    let long = "x".repeat(500);
    let hashed = key(&[&long]);
    let digest = hashed.strip_prefix("p:s:").unwrap();
    assert_eq!(digest.len(), 65);
    assert_ne!(key(&[digest]), hashed);
}

#[test]
fn prefix_and_space_know_their_keys() {
    let keys = KeyPrefix::new("p");
    let space = keys.space("s");
    let inside = space.key(["k"]);
    assert!(space.contains(&inside) && keys.contains(&inside));
    assert_eq!(inside.space(), space);
    assert!(!keys.space("s2").contains(&inside));
    assert!(!KeyPrefix::new("p2").contains(&inside));
    assert!(!keys.contains(&KeyPrefix::new("p2").space("s").key(["k"])));
}

type Name = (String, String, Vec<String>);

/// Any text, and often text made of what separates and escapes.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,12}",
        "[ab:%_~]{0,4}",
        "[aé\u{0}\n ]{0,4}",
        (0..400_usize).prop_map(|len| "y".repeat(len)),
    ]
}

fn name() -> impl Strategy<Value = Name> {
    (text(), text(), prop::collection::vec(text(), 0..5))
}

fn build((prefix, space, parts): &Name) -> String {
    KeyPrefix::new(prefix).space(space).key(parts).as_str().to_owned()
}

proptest! {
    #[test]
    fn different_names_have_different_keys(one in name(), other in name()) {
        prop_assert_eq!(one == other, build(&one) == build(&other));
    }

    /// Neighbours: the same characters, cut into parts at other places.
    #[test]
    fn moving_a_boundary_changes_the_key(text in "[ab:%_~é]{1,8}", one in 0..9_usize, other in 0..9_usize) {
        let cuts: Vec<_> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let (one, other) = (cuts[one % cuts.len()], cuts[other % cuts.len()]);
        let build = |at: usize| key(&[&text[..at], &text[at..]]);
        prop_assert_eq!(one == other, build(one) == build(other));
    }

    #[test]
    fn every_key_is_short_printable_ascii(name in name()) {
        let key = build(&name);
        prop_assert!(key.len() <= KEY_BYTES_MAX, "{} bytes", key.len());
        prop_assert!(key.bytes().all(|byte| byte.is_ascii_graphic()));
    }

    #[test]
    fn a_key_lies_in_its_space_and_prefix(name in name()) {
        let prefix = KeyPrefix::new(&name.0);
        let space = prefix.space(&name.1);
        let key = space.key(&name.2);
        prop_assert!(space.contains(&key));
        prop_assert!(prefix.contains(&key));
        prop_assert_eq!(key.space(), space);
    }
}
