//! Any bytes at all as the answers of a memcached server.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| recache_cache::provider::memcached_reader_withstands(data));
