//! Any bytes at all as a stored entry.
#![no_main]

#[path = "../bodies/envelope.rs"]
mod envelope;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    envelope::any_bytes(data);
});
