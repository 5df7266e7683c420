//! What the fuzz targets do, with proptest's inputs instead of a fuzzer's: on stable and with every change.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

#[path = "../fuzz/bodies/envelope.rs"]
mod envelope;
#[path = "../fuzz/bodies/key.rs"]
mod key;

use proptest::prelude::*;

/// Bytes near what a header is made of: flags that mean something, small numbers.
fn header_like() -> impl Strategy<Value = Vec<u8>> {
    let flags =
        prop_oneof![Just(0_u8), Just(1), Just(4), Just(9), Just(0x10), Just(0x20), Just(0x41), any::<u8>()];
    let small = prop_oneof![3 => 0..4_u8, 1 => any::<u8>()];
    (flags, prop::collection::vec(small, 0..80)).prop_map(|(flags, rest)| [vec![flags], rest].concat())
}

/// Else nothing behind the guards would be tested.
#[test]
fn the_bodies_reach_what_lies_behind_checksum_and_key() {
    assert_eq!(
        envelope::any_bytes(&[0; 16]),
        HEADER_LENGTHS,
        "the shortest header, whole wherever the key is put"
    );
    assert!(envelope::any_bytes(&[0; 40]) >= 1, "with a payload");
    assert!(
        envelope::any_bytes(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0x30, b'a', b'b', b'c'])
            >= 1,
        "lz4"
    );
    assert_eq!(envelope::any_bytes(&[0x80; 40]), 0);
}

/// Found by the fuzzer: an end beyond what a moment can be was read as the last one, and came out as another when written again.
#[test]
fn an_end_of_time_that_nobody_can_write_is_no_entry() {
    let far = [&[0_u8; 13][..], &[0], &[0xff; 7], &[0x7f, 0], &[0; 20]].concat();
    assert_eq!(envelope::any_bytes(&far), 0);
    let near = [&[0_u8; 13][..], &[0], &[0x7f, 0], &[0; 20]].concat();
    assert!(envelope::any_bytes(&near) > 0, "the same with an end that can be written");
}

/// Cuts behind the end of 16 bytes all give the same.
const HEADER_LENGTHS: usize = 19;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn stored_bytes(data in prop_oneof![header_like(), prop::collection::vec(any::<u8>(), 0..200)]) {
        envelope::any_bytes(&data);
    }

    #[test]
    fn parts_of_keys(pieces in prop::collection::vec("[a-b:%~ \u{e9}]{0,5}|\\PC{0,90}", 0..6), raw in prop::collection::vec(any::<u8>(), 0..80)) {
        key::any_bytes(pieces.join("\0").as_bytes());
        key::any_bytes(&raw);
    }
}
