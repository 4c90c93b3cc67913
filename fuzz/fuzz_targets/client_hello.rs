//! The first message of a TLS client: at every split it says the same.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway::bench::fuzz_client_hello(input));
