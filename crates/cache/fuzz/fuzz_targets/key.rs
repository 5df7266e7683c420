//! Any bytes at all as the parts of a key.
#![no_main]

#[path = "../bodies/key.rs"]
mod key;

libfuzzer_sys::fuzz_target!(|data: &[u8]| key::any_bytes(data));
